"""Nets whose layers compute, keep or forbid something: fitted ones are copied and pickled."""

import copy
import pickle

import numpy as np
import pytest
import torch
from joblib.externals.loky.backend.reduction import dumps
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._pytree import tree_leaves
from user_nets import MLP, classifier_net, iris, quick_classifier

from sksubnet import DeepEnsembleClassifier, MAPClassifier, SWAGClassifier


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight

    def right_inverse(self, weight):
        return weight / 2


class Normed(MLP):
    """With a change of its first layer."""

    def __init__(self, n_features=4, n_outputs=3):
        super().__init__(n_features, n_outputs)
        self.change(self.layers[0])

    def change(self, layer):
        nn.utils.weight_norm(layer)


class SpectralNormed(Normed):
    def change(self, layer):
        nn.utils.spectral_norm(layer)


class Pruned(Normed):
    def change(self, layer):
        prune.l1_unstructured(layer, "weight", 0.3)
        prune.random_unstructured(layer, "bias", 0.3)


class ParametrizedNormed(Normed):
    def change(self, layer):
        parametrizations.weight_norm(layer)


class ParametrizedSpectral(Normed):
    def change(self, layer):
        parametrizations.spectral_norm(layer)


class Orthogonal(Normed):
    def change(self, layer):
        parametrizations.orthogonal(layer)


class Parametrized(Normed):
    def change(self, layer):
        for name in ("weight", "weight", "bias"):
            parametrize.register_parametrization(layer, name, Twice())


class WithState(MLP):
    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        self.version = state["version"]


class KeepsActivations(MLP):
    """Keeps what it computed, also in containers."""

    def forward(self, X):
        self.kept = self.layers[0](X)
        self.history = {"latest": [self.kept]}
        return super().forward(X)


MODULES = [Normed, SpectralNormed, Pruned, ParametrizedNormed, ParametrizedSpectral, Orthogonal]
MODULES += [Parametrized, WithState, KeepsActivations]
EACH_MODULE = pytest.mark.parametrize("module", MODULES)
X, Y = iris()


def net_of(module, **options):
    return classifier_net(module, max_epochs=2, **options)


def frozen(net):
    net.fit(X.astype(np.float32), Y)
    return FrozenEstimator(net)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def to_another_process(model):
    """As joblib sends classes of a script or a notebook, by value."""
    return pickle.loads(dumps(model))


def assert_kept(model, ways):
    expected = model.predict_proba(X)
    for way in ways:
        assert_allclose(way(model).predict_proba(X), expected, atol=1e-12)


WAYS = [copy.deepcopy, pickled, lambda m: pickled(pickled(m)), lambda m: copy.deepcopy(pickled(m))]
WAYS += [lambda m: pickled(copy.deepcopy(m)), lambda m: clone(pickled(m)).fit(X, Y)]


@EACH_MODULE
def test_fitted_estimators_are_copied_and_pickled(module):
    model = quick_classifier(net_of(module)).fit(X, Y)
    assert_kept(model, WAYS)
    assert_allclose(clone(model).fit(X, Y).predict_proba(X), model.predict_proba(X), atol=1e-12)


@EACH_MODULE
def test_frozen_nets_are_copied_and_pickled(module):
    model = quick_classifier(frozen(net_of(module))).fit(X, Y)
    assert_kept(model, WAYS)
    assert_allclose(
        model.predict_proba_map(X), model.net.estimator.predict_proba(X.astype("f4")), atol=1e-5
    )


@pytest.mark.parametrize("kind", [MAPClassifier, SWAGClassifier, DeepEnsembleClassifier])
def test_baselines_are_copied_and_pickled(kind):
    model = kind(net_of(ParametrizedNormed), random_state=0).fit(X, Y)
    assert_kept(model, [copy.deepcopy, pickled])


def test_a_pickled_parametrization_is_one():
    layer = pickled(quick_classifier(net_of(Parametrized)).fit(X, Y)).net_.module_.layers[0]
    assert parametrize.is_parametrized(layer, "weight")
    original = layer.parametrizations.weight.original
    assert torch.equal(layer.weight, 4 * original)
    layer.weight = torch.ones_like(original)
    assert torch.equal(original, torch.full_like(original, 0.25))
    weight = layer.weight.detach().clone()
    parametrize.remove_parametrizations(layer, "weight")
    parametrize.remove_parametrizations(layer, "bias")
    assert type(layer) is nn.Linear
    assert torch.equal(layer.weight, weight)


def test_the_modules_of_a_copy_are_one():
    model = pickled(quick_classifier(net_of(MLP)).fit(X, Y))
    assert model.folds_[0].latent.module is model.net_.module_


def test_local_classes():
    class Local(MLP):
        pass

    class LocalNet(type(classifier_net())):
        def infer(self, x, **params):
            return super().infer(x / 2, **params)

    net = LocalNet(Local, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=2)
    for given in (net, frozen(clone(net))):
        model = quick_classifier(given).fit(X, Y)
        assert_kept(model, [copy.deepcopy, lambda m: clone(m).fit(X, Y), to_another_process])


@EACH_MODULE
def test_nothing_of_a_pass_stays_on_the_modules(module):
    model = quick_classifier(net_of(module)).fit(X, Y)
    model.predict_proba(X)
    tensors = tree_leaves([vars(layer) for layer in model.net_.module_.modules()])
    assert not any(isinstance(t, torch.Tensor) and t.grad_fn is not None for t in tensors)
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    assert not any(isinstance(t, torch.Tensor) and wrapped(t) for t in tensors)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_compiled_nets(is_frozen):
    net = net_of(MLP, compile=True, compile__backend="eager")
    model = quick_classifier(frozen(net) if is_frozen else net).fit(X, Y)
    plain = net_of(MLP)
    plain = quick_classifier(frozen(plain) if is_frozen else plain).fit(X, Y)
    if not is_frozen:
        assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=1e-9)
    assert_kept(model, [copy.deepcopy, pickled])
