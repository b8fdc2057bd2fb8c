"""One way in for rows: what a net's hooks do to them holds in training and in every later step."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset
from torch import nn
from torch.utils.data import default_collate
from user_nets import (
    MLP,
    OPTIONS,
    FlatMLP,
    SoftmaxMLP,
    assert_refused,
    cancer,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
)

from sksubnet import MCDropoutClassifier, SWAGClassifier, VOGNClassifier
from sksubnet.nets import Rows, TrainedNet, inputs_of, latent_of
from sksubnet.predictive import Categorical
from sksubnet.selection.reference import reference_inputs


class Scaled(Dataset):
    """Scales its rows one by one."""

    def transform(self, X, y):
        X, y = super().transform(X, y)
        return X / 100, y


class InsistsOnTargets(Scaled):
    def __getitem__(self, i):
        assert self.y is not None
        return super().__getitem__(i)


class WritesIntoItsRows(Dataset):
    def __init__(self, X, y=None, **kwargs):
        X -= 1
        super().__init__(X, y, **kwargs)


class Named(Dataset):
    """Rows as arguments of forward: numbers, and a code."""

    def transform(self, X, y):
        X, y = super().transform(X, y)
        return {"numbers": X[:3], "code": np.int64(X[3] > 0)}, y


class NamedMLP(nn.Module):
    def __init__(self, n_outputs=3):
        super().__init__()
        self.codes, self.layers = nn.Embedding(2, 2), MLP(5, n_outputs)

    def forward(self, numbers, code):
        return self.layers(torch.cat([numbers, self.codes(code)], dim=1))


def scaled_collate(items):
    X, y = default_collate(items)
    return X / 10, y


class LogInputs(NeuralNetClassifier):
    def infer(self, x, **params):
        return super().infer(torch.log1p(x), **params)


class TwoModules(NeuralNetClassifier):
    """An encoder and a decoder instead of one module."""

    def initialize_module(self):
        self.encoder_ = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.1))
        self.decoder_ = nn.Linear(6, 3)
        return self

    def infer(self, x, **params):
        return self.decoder_(self.encoder_(x))


class FloatRows(Dataset):
    def transform(self, X, y):
        X, y = super().transform(X, y)
        return X.astype(np.float32), y


COLLATED = {"iterator_train__collate_fn": scaled_collate}
COLLATED |= {"iterator_valid__collate_fn": scaled_collate}
CLASSIFIERS = {
    "plain": classifier_net(),
    "dataset": classifier_net(dataset=Scaled),
    "dataset with targets": classifier_net(dataset=InsistsOnTargets),
    "dataset in place": classifier_net(dataset=WritesIntoItsRows),
    "collate_fn": classifier_net(**COLLATED),
    "infer": LogInputs(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS),
    "two modules": TwoModules(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS),
    "named inputs": classifier_net(NamedMLP, dataset=Named),
    "probabilities": classifier_net(SoftmaxMLP, criterion=nn.NLLLoss),
    "float32 rows": classifier_net(dataset=FloatRows),
}


def positive_iris():
    X, y = iris()
    return np.exp(X).round(3), y


def own_probabilities(net, X) -> np.ndarray:
    if net.dataset is InsistsOnTargets:
        return net.predict_proba(InsistsOnTargets(X.copy(), np.zeros(len(X), int)))
    if net.dataset is FloatRows:
        net.module_.float()
    return net.predict_proba(X.copy())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predictions_are_those_of_the_net(name, weighted):
    X, y = positive_iris()
    before = X.copy()
    weights = np.linspace(1, 2, len(y)) if weighted else None
    model = quick_classifier(CLASSIFIERS[name], selection="greedy").fit(X, y, weights)
    found, std = model.predict_proba_map(X), model.latent_mean_and_variance(X)[1] ** 0.5
    assert np.isfinite(std).all() and (std > 0).all()
    assert_allclose(X, before)
    assert_allclose(found, own_probabilities(model.net_, X), atol=1e-6)


@pytest.mark.parametrize("name", ["dataset", "infer", "two modules", "named inputs"])
@pytest.mark.parametrize("estimator", [SWAGClassifier, VOGNClassifier, MCDropoutClassifier])
def test_draws_go_the_same_way(name, estimator):
    X, y = positive_iris()
    if estimator is MCDropoutClassifier and name != "two modules":
        pytest.skip("no dropout")
    options = {"n_epochs": 5} if estimator is VOGNClassifier else {}
    model = estimator(CLASSIFIERS[name], n_draws=3, random_state=0, **options).fit(X, y)
    own = model.net_.predict_proba(X.copy())
    # Few draws close to the net, or else they would be those of another function.
    assert np.abs(model.predict_proba(X) - own).max() < 0.35


def test_curvature_sees_what_the_data_set_makes_of_rows():
    """Scaling within the data set is scaling before it."""
    X, y = iris()
    inside = quick_classifier(classifier_net(dataset=Scaled), selection="greedy").fit(100 * X, y)
    before = quick_classifier(classifier_net(), selection="greedy").fit(X, y)
    assert_allclose(inside.predict_proba(100 * X), before.predict_proba(X), atol=1e-8)
    assert_allclose(
        inside.latent_mean_and_variance(100 * X), before.latent_mean_and_variance(X), atol=1e-7
    )


def test_two_modules_are_one_vector_of_weights(tmp_path):
    X, y = positive_iris()
    model = quick_classifier(CLASSIFIERS["two modules"], memory=str(tmp_path)).fit(X, y)
    module = latent_of(model.net_).module
    assert [name for name, _ in module.named_parameters()] == [
        "encoder.0.weight",
        "encoder.0.bias",
        "decoder.weight",
        "decoder.bias",
    ]
    assert model.subnetwork_.n_weights == 4 * 6 + 6 + 6 * 3 + 3
    recalled = quick_classifier(CLASSIFIERS["two modules"], memory=str(tmp_path)).fit(X, y)
    assert_allclose(recalled.predict_proba(X), model.predict_proba(X))


def test_mixtures_of_named_inputs():
    X, y = iris()
    net = NeuralNetClassifier(NamedMLP, dataset=Named, criterion=nn.CrossEntropyLoss).initialize()
    net.module_.double()
    inputs = inputs_of(net, torch.as_tensor(X))
    assert_allclose(inputs["numbers"], X[:, :3])
    assert_allclose(inputs["code"], X[:, 3] > 0)
    latent = latent_of(net)
    rows = Rows(inputs, torch.as_tensor(y), torch.ones(len(y), dtype=torch.float64))
    trained = TrainedNet(latent.module, latent, Categorical(), 3, rows, None, seed=0)
    mixed = reference_inputs(trained)
    assert mixed["code"].dtype == torch.int64 and set(mixed["code"].tolist()) <= {0, 1}
    # None is a row of the data, and all are within their range.
    gaps = torch.cdist(mixed["numbers"], inputs["numbers"]).min(dim=1).values
    assert gaps.median() > 1e-3
    assert (mixed["numbers"].abs().amax(0) <= inputs["numbers"].abs().amax(0)).all()
    assert latent(mixed).shape == (len(mixed["code"]), 3)


@pytest.mark.parametrize("module", [MLP, FlatMLP])
def test_binary_net(module):
    X, y = cancer()
    net = NeuralNetBinaryClassifier(module, dataset=Scaled, **OPTIONS)
    model = quick_classifier(net).fit(100 * X, y)
    expected = model.net_.predict_proba(100 * X)
    assert_allclose(model.predict_proba_map(100 * X), expected, atol=1e-6)


def test_regressor_with_a_data_set():
    X, y = diabetes()
    model = quick_regressor(NeuralNetRegressor(MLP, dataset=Scaled, **OPTIONS)).fit(100 * X, y)
    mean, std = model.predict(100 * X, return_std=True)
    own = model.net_.predict(100 * X)[:, 0] * model._y_scale + model._y_mean
    assert_allclose(mean, own, rtol=1e-6)
    assert np.isfinite(std).all() and (std > 0).all()


class Noisy(Dataset):
    def transform(self, X, y):
        X, y = super().transform(X, y)
        return X + np.random.normal(size=X.shape), y


class OtherTargets(Dataset):
    def transform(self, X, y):
        X, y = super().transform(X, y)
        return X, y * 2 if isinstance(y, np.ndarray) else y


class Sharpened(NeuralNetClassifier):
    def predict_proba(self, X):
        return super().predict_proba(X) ** 2


class Halved(NeuralNetClassifier):
    def evaluation_step(self, batch, training=False):
        return super().evaluation_step(batch, training) / 2


REFUSED = {
    "noise": (classifier_net(dataset=Noisy), "asked again", "dataset"),
    "predict_proba": (
        Sharpened(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS),
        "predict_proba",
        "another function",
    ),
    "evaluation_step": (
        Halved(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS),
        "evaluation_step",
        "another function",
    ),
    "nonlinearity": (
        classifier_net(predict_nonlinearity=None),
        "predict_nonlinearity",
        "another function",
    ),
    "loader of predictions only": (
        classifier_net(iterator_train__collate_fn=scaled_collate, classes=[2, 1, 0]),
        "classes=[2, 1, 0]",
        "sorted labels [0, 1, 2]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name):
    net, *parts = REFUSED[name]
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert_refused(lambda: quick_classifier(net).fit(*iris()), *parts)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_data_set_that_changes_targets():
    net = NeuralNetRegressor(MLP, dataset=OtherTargets, **OPTIONS)
    assert_refused(lambda: quick_regressor(net).fit(*diabetes()), "changes y", "dataset")


def test_threshold():
    net = NeuralNetBinaryClassifier(MLP, threshold=0.3, **OPTIONS)
    assert_refused(
        lambda: quick_classifier(net).fit(*cancer()), "threshold=0.3", "FixedThresholdClassifier"
    )


def test_frozen_net_that_reads_rows_its_own_way():
    X, y = iris()
    net = classifier_net(dataset=Scaled).fit((100 * X).astype(np.float32), y)
    model = quick_classifier(FrozenEstimator(net)).fit(100 * X, y)
    expected = net.predict_proba((100 * X).astype(np.float32))
    assert_allclose(model.predict_proba_map(100 * X), expected, atol=1e-5)
