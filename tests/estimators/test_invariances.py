"""What must not change a posterior, and what a selection means."""

import copy

import dense
import numpy as np
import pytest
import torch
from frozen_models import (
    X_NEW,
    classifier,
    epistemic_variance,
    labelled_rows,
    regression_ggn,
    regression_rows,
    regressor,
)
from numpy.testing import assert_allclose, assert_array_equal
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sksubnet import SubnetLaplaceRegressor

RNG = np.random.default_rng(0)

COUNTS = np.resize([1, 3, 2, 1, 5, 0, 2], 35)


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("size", ["all", 20])
def test_integer_weights_equal_repetition(covariance, size):
    options = {"covariance": covariance, "subnetwork_size": size, "selection": "magnitude"}
    options["prior_precision"] = "evidence"
    X, y = labelled_rows(35)
    weighted = classifier(**options).fit(X, y, COUNTS)
    repeated = classifier(**options).fit(X.repeat(COUNTS, axis=0), y.repeat(COUNTS))
    assert weighted.prior_precision_ == pytest.approx(repeated.prior_precision_, rel=1e-9)
    assert weighted.log_marginal_likelihood() == pytest.approx(repeated.log_marginal_likelihood())
    assert_allclose(weighted.predict_proba(X_NEW), repeated.predict_proba(X_NEW), rtol=1e-7)

    X, y = regression_rows(35)
    options["noise"] = "constant"
    weighted = regressor(**options).fit(X, y, COUNTS)
    repeated = regressor(**options).fit(X.repeat(COUNTS, axis=0), y.repeat(COUNTS, axis=0))
    assert_allclose(weighted.noise_std_, repeated.noise_std_, rtol=1e-9)
    assert weighted.log_marginal_likelihood() == pytest.approx(repeated.log_marginal_likelihood())
    for found, expected in zip(
        weighted.predict(X_NEW, return_std=True),
        repeated.predict(X_NEW, return_std=True),
        strict=True,
    ):
        assert_allclose(found, expected, rtol=1e-7)


class Line(nn.Linear):
    def __init__(self, n_features=3, n_outputs=1):
        super().__init__(n_features, n_outputs)


def test_splits_have_the_numbers_of_the_rows_as_given():
    X, y = regression_rows(40, 1)
    weights = np.resize([1, 0, 2, 1], 40)
    splits = [(np.arange(15, 40), np.arange(15)), (np.arange(15), np.arange(15, 40))]
    net = NeuralNetRegressor(Line, train_split=None, max_epochs=3, verbose=0)
    options = {"subnetwork_size": "all", "noise": "constant", "random_state": 0}
    found = SubnetLaplaceRegressor(net, cv=splits, **options).fit(X, y, weights)
    origin = np.repeat(np.arange(40), weights)
    places = [tuple(np.flatnonzero(np.isin(origin, part)) for part in fold) for fold in splits]
    repeated = SubnetLaplaceRegressor(net, cv=places, **options).fit(X[origin], y[origin])
    for mean, expected in zip(
        found.predict(X_NEW, return_std=True), repeated.predict(X_NEW, return_std=True), strict=True
    ):
        assert_array_equal(mean, expected)
    first = np.unique(origin, return_index=True)[1]
    assert_array_equal(found.out_of_fold_.mean, repeated.out_of_fold_.mean[first])


def test_class_weights_are_row_weights():
    X, y = labelled_rows(40)
    counts = np.array([1, 4, 2])
    expected = epistemic_variance(classifier().fit(X, y, counts[y]))
    by_option = classifier(class_weight={0: 1, 1: 4, 2: 2}).fit(X, y)
    assert_allclose(epistemic_variance(by_option), expected, rtol=1e-9)
    criterion = nn.CrossEntropyLoss(weight=torch.as_tensor(counts, dtype=torch.float64))
    net = dense.frozen(NeuralNetClassifier, dense.mlp(n_outputs=3, seed=1), criterion)
    by_criterion = classifier().set_params(net=net).fit(X, y)
    assert_allclose(epistemic_variance(by_criterion), expected, rtol=1e-9)


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("n_rows", [8, 80])
def test_batches_do_not_matter(covariance, n_rows, monkeypatch):
    X, y = regression_rows(n_rows)
    expected = regressor(covariance=covariance).fit(X, y).predictive(X_NEW).covariance
    for batch_size in (1, 7):
        reg = regressor(covariance=covariance, batch_size=batch_size).fit(X, y)
        assert_allclose(reg.predictive(X_NEW).covariance, expected, rtol=1e-7, atol=1e-10)
    monkeypatch.setattr("sksubnet.posterior.memory.MEMORY_BUDGET", 2000)
    reg = regressor(covariance=covariance).fit(X, y)
    assert reg.folds_[0].rows_per_batch == {"full": 3, "diag": 5}[covariance]
    assert_allclose(reg.predictive(X_NEW).covariance, expected, rtol=1e-7, atol=1e-10)
    joint = reg.predict(X_NEW, return_cov=True)[1]
    assert_allclose(np.sqrt(np.einsum("nnc->nc", joint)), reg.predictive(X_NEW).std(), rtol=1e-9)


def test_memory_format_of_the_weights_does_not_matter():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Unflatten(1, (2, 3, 3)), nn.Conv2d(2, 4, 2), nn.Tanh())
    module = module.append(nn.Flatten()).append(nn.Linear(16, 2)).double()
    X, y = RNG.normal(size=(30, 18)), RNG.normal(size=(30, 2))
    expected = regressor(module, selection="swag", subnetwork_size=20).fit(X, y)
    module = copy.deepcopy(module).to(memory_format=torch.channels_last)
    assert not module[1].weight.is_contiguous()
    found = regressor(module, selection="swag", subnetwork_size=20).fit(X, y)
    assert found.subnetwork_.indices.tolist() == expected.subnetwork_.indices.tolist()
    assert_allclose(found.predictive(X).std(), expected.predictive(X).std(), rtol=1e-9)


def test_single_precision_is_close_to_double():
    X, y = labelled_rows(60)
    expected = classifier().fit(X, y)
    found = classifier(dtype="float32").fit(X, y)
    assert next(found.net_.module_.parameters()).dtype == torch.float32
    assert_allclose(found.predict_proba(X_NEW), expected.predict_proba(X_NEW), atol=1e-4)


# What a selection names


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        return self.head(self.body(X))


def numbers_of(module, *names):
    """Positions in ``parameters_to_vector`` of the named parameters."""
    module = copy.deepcopy(module)
    for name, parameter in module.named_parameters():
        parameter.data.fill_(1.0 if name in names else 0.0)
    return nn.utils.parameters_to_vector(module.parameters()).nonzero()[:, 0].tolist()


MASK = np.isin(np.arange(34), [0, 5, 13, 33])


@pytest.mark.parametrize(
    ("selection", "candidates", "names"),
    [
        ("last_layer", "all", ["head.weight", "head.bias"]),
        ("last_layer", "weights", ["head.weight"]),
        ("head", "weights", ["head.weight", "head.bias"]),
        (["body.0"], "weights", ["body.0.weight", "body.0.bias"]),
        (["body.1.weight", "head.bias"], "weights", ["body.1.weight", "head.bias"]),
        ("magnitude", "weights", ["body.0.weight", "head.weight"]),
        ("magnitude", ["body"], ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]),
        ([33, 5, 0, 13, 5], "weights", [0, 5, 13, 33]),
        (MASK, "weights", [0, 5, 13, 33]),
        ("random", MASK, [0, 5, 13, 33]),
    ],
    ids=str,
)
def test_selection_means_what_it_says(selection, candidates, names):
    torch.manual_seed(0)
    module = Named().double()
    X, y = regression_rows(40)
    reg = regressor(module, selection=selection, candidates=candidates).fit(X, y)
    expected = names if isinstance(names[0], int) else numbers_of(module, *names)
    assert reg.subnetwork_.indices.tolist() == expected
    J = dense.jacobian(module, X_NEW)[:, :, expected]
    precision = regression_ggn(module, X)[np.ix_(expected, expected)] + 0.7 * np.eye(len(expected))
    variance = np.einsum("ncc->nc", dense.outputs_covariance(J, precision))
    assert_allclose(epistemic_variance(reg), variance, rtol=1e-8)
    assert_allclose(reg.posterior_.mean, dense.weight_vector(module)[expected])


def test_net_and_global_random_states_stay_as_they_were():
    module = dense.mlp()
    net = NeuralNetRegressor(module, max_epochs=3, lr=0.01, verbose=0).initialize()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    X, y = regression_rows(120)
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()
    with pytest.warns(UserWarning, match="module instance"):
        reg = SubnetLaplaceRegressor(net, subnetwork_size=9, random_state=0).fit(X, y)
    reg.sample_y(X, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert net.history == []
    assert not module[0]._forward_hooks
    assert (dense.weight_vector(reg.net_.module_) != dense.weight_vector(module)).any()
