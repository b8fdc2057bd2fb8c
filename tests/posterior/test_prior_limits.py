"""The range of the prior precision: what the prior alone says of an average row."""

from unittest import mock

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import classifier_net, iris, quick_classifier, regressor_net

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.posterior import tuning
from sksubnet.posterior.tuning import GRID_LIMITS, PRIOR_SD, HeldOut, Tuned, prior_limits

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = 7 + 20 * X[:, :2] * [1, 0.1] + RNG.normal(size=(60, 2)) * [3, 0.1]
LABELS = np.digitize(X[:, 0] + 0.5 * RNG.normal(size=60), [-0.5, 0.5])
WEIGHTS = RNG.integers(1, 4, size=60).astype(float)

SMALL = {"selection": "magnitude", "subnetwork_size": 12, "random_state": 0}


class Rows:
    """Projection whose rows have known squared lengths."""

    def __init__(self, energy):
        self._energy = torch.as_tensor(energy)

    def energy(self):
        return self._energy


def mean_energy(fitted, X, weights, unit):
    """Mean of |J|^2 in units of the targets over all rows, by the net that has not seen each."""
    order = np.lexsort([*X.T[::-1]])
    total = 0.0
    for net in fitted.folds_:
        rows = order[net.held_out]
        J = dense.jacobian(net.net.module_, X[rows])[:, :, net.subnetwork.indices]
        total += weights[rows] @ (np.square(J).sum(axis=2) / unit).mean(axis=1)
    return total / weights.sum()


def scanned(fitted):
    return fitted.tuning_.grid[[0, -1]].numpy()


@pytest.mark.parametrize("rule", ["validation", "validation_1sd", "validation_half_se"])
@pytest.mark.parametrize("normalize_y", [True, False])
@pytest.mark.parametrize("n_targets", [1, 2])
def test_a_regressors_limits_are_between_1_and_10_sd_of_the_targets(normalize_y, n_targets, rule):
    y = Y[:, 0] if n_targets == 1 else Y
    options = {"cv": 3, "normalize_y": normalize_y, "prior_precision": rule, **SMALL}
    fitted = SubnetLaplaceRegressor(regressor_net(), **options).fit(X, y, WEIGHTS)
    unit = np.ones(n_targets)
    if not normalize_y:
        center = np.average(Y, axis=0, weights=WEIGHTS)
        unit = np.average((Y - center) ** 2, axis=0, weights=WEIGHTS)[:n_targets]
    energy = mean_energy(fitted, X, WEIGHTS, unit)
    expected = np.array([energy / 100, energy])
    assert PRIOR_SD == (1, 10) and (expected > GRID_LIMITS[0]).all()
    assert_allclose(scanned(fitted), expected, rtol=1e-6)
    found = fitted.tuning_
    ratio = found.prior_precision * found.noise_scale
    assert expected[0] * (1 - 1e-6) <= ratio <= expected[1] * (1 + 1e-6)


def test_a_classifiers_limits_are_between_1_and_10_logits():
    fitted = SubnetLaplaceClassifier(classifier_net(), cv=3, **SMALL).fit(X, LABELS, WEIGHTS)
    energy = mean_energy(fitted, X, WEIGHTS, np.ones(3))
    assert_allclose(scanned(fitted), [energy / 100, energy], rtol=1e-6)
    ends = scanned(fitted) * [1 - 1e-9, 1 + 1e-9]
    assert ends[0] <= fitted.prior_precision_ <= ends[1]


def test_a_trained_nets_targets_have_their_own_units():
    module = dense.mlp(n_outputs=2)
    X = RNG.normal(size=(150, 3))
    y = dense.evaluate(module, X) * [1, 1] + RNG.normal(size=(150, 2)) * [3, 30]
    net = dense.frozen(NeuralNetRegressor, module, nn.MSELoss)
    fitted = SubnetLaplaceRegressor(net, prior_precision="validation", **SMALL).fit(X, y)
    held_out = fitted.folds_[0].held_out
    assert len(held_out) == 30
    J = dense.jacobian(module, X[held_out])[:, :, fitted.subnetwork_.indices]
    energy = (np.square(J).sum(axis=2) / y.var(axis=0)).mean()
    assert_allclose(scanned(fitted), [energy / 100, energy], rtol=1e-6)


def test_units_of_the_target_move_the_limits_along():
    options = {"cv": 3, "prior_precision": "validation", **SMALL}
    one, other = (
        SubnetLaplaceRegressor(regressor_net(), **options).fit(X, scale * Y[:, 0])
        for scale in (1, 1024)
    )
    assert_allclose(scanned(one), scanned(other), rtol=1e-6)
    assert_allclose(1024 * one.predict(X, return_std=True)[1], other.predict(X, True)[1], rtol=1e-6)


def limits(energies, weights, unit):
    parts = [
        HeldOut(None, Rows(energy), None, torch.as_tensor(w), None)
        for energy, w in zip(energies, weights, strict=True)
    ]
    return prior_limits(parts, torch.as_tensor(unit))


def test_limits_weigh_the_rows_and_average_the_targets():
    energies = [np.array([[4.0, 90], [8, 180]]), np.array([[12.0, 0]])]
    weights = [np.array([1.0, 0]), np.array([3.0])]
    # rows of (4 / 2 + 90 / 9) / 2 = 6 once and 12 / 2 / 2 = 3 three times
    assert_allclose(limits(energies, weights, np.array([2.0, 9.0])), [0.0375, 3.75])


@pytest.mark.parametrize("energy", [0.0, np.inf, np.nan])
def test_without_an_effect_the_whole_grid_is_scanned(energy):
    assert limits([np.array([[energy]])], [np.ones(1)], np.ones(1)) == GRID_LIMITS


@pytest.mark.parametrize("value", [0.0, 0.1, -3e8])
@pytest.mark.parametrize("normalize_y", [True, False])
def test_a_constant_target_is_predicted(value, normalize_y):
    fitted = SubnetLaplaceRegressor(cv=2, normalize_y=normalize_y, **SMALL).fit(
        X[:20] / 10, 20 * [value]
    )
    mean, std = fitted.predict(X[:20] / 10, return_std=True)
    assert np.isfinite(std).all()
    if normalize_y:
        assert_allclose(mean, value, rtol=1e-9, atol=1e-150)
        assert std.max() <= 1e-9 * max(abs(value), 1)


def test_an_edge_is_told_in_words():
    grid = torch.tensor([0.5, 5.0, 50.0])
    for edge, word in (("lower", "more variance"), ("upper", "least variance")):
        text = Tuned(0.5, grid=grid, losses=grid, at_edge=edge).summary()
        assert f"That is the {edge} limit" in text and word in text and "out of 0.5 to 50" in text
    assert "limit" not in Tuned(5.0, grid=grid, losses=grid).summary()
    assert Tuned(5.0, given=True).summary().startswith("The prior precision 5 was given: ")


def test_a_prior_precision_is_told_as_a_distance_of_weights():
    grid = torch.tensor([1.0, 400.0])
    for tuned in (Tuned(25.0, grid=grid, losses=grid), Tuned(25.0, given=True)):
        assert "within about 0.2 (one over the root of that)" in tuned.summary()


@pytest.mark.parametrize(
    ("rule", "source"),
    [("validation", "rows that the nets have not seen"), ("evidence", "the evidence of the rows")],
)
def test_the_summary_says_what_chose_the_precision(rule, source):
    fitted = quick_classifier(prior_precision=rule, cv=2).fit(*iris())
    assert f"It was chosen by {source}" in fitted.tuning_.summary()


def one_hot_table(n_rows=300):
    """Sizes of shells, which nearly are one size, and a group of three columns of 0 and 1."""
    rng = np.random.default_rng(3)
    size, group = rng.gamma(4, size=n_rows), rng.integers(3, size=n_rows)
    sizes = size[:, None] * [1, 0.8, 0.3] * np.exp(0.05 * rng.normal(size=(n_rows, 3)))
    # A part of the noise depends on the row, so that held-out rows ask for more and more variance.
    y = np.log1p(size) + 0.2 * (group == 0) + 0.05 * size * rng.normal(size=n_rows)
    return np.column_stack([sizes, np.eye(3)[group]]), y


def test_an_unseen_category_does_not_get_hundreds_of_sd():
    X, y = one_hot_table()
    far = np.concatenate([X[:, :3].max(axis=0), [0, 0, 0]])[None]
    options = {"noise": "constant", "subnetwork_size": 100, "cv": 2, "random_state": 0}
    options["prior_precision"] = "validation_half_se"

    def sd_at_far():
        return SubnetLaplaceRegressor(**options).fit(X, y).predict(far, True)[1][0] / y.std()

    assert sd_at_far() < 10
    with mock.patch.object(tuning, "PRIOR_SD", (1e-9, 1e9)):
        assert sd_at_far() > 30


def test_without_limits_the_grid_is_what_it_was():
    with mock.patch.object(tuning, "PRIOR_SD", (1e-9, 1e9)):
        fitted = SubnetLaplaceRegressor(regressor_net(), cv=3, **SMALL).fit(X, Y[:, 0])
    assert_array_equal(scanned(fitted), GRID_LIMITS)
