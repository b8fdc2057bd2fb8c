"""Estimators that predict by draws: MAP, MC dropout and SWAG against the draws themselves."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize, stats
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from user_nets import MLP, OPTIONS, CountedMLP, diabetes, iris

from sksubnet import (
    MAPClassifier,
    MAPRegressor,
    MCDropoutClassifier,
    MCDropoutRegressor,
    SWAGClassifier,
    SWAGRegressor,
    TabularNet,
)
from sksubnet.nets.trained import Rows
from sksubnet.nets.training import hold_out
from sksubnet.posterior.tuning import tuned_noise
from sksubnet.predictive.distribution import Predictive
from sksubnet.predictive.likelihood import Gaussian
from sksubnet.predictive.mixture import Mixture


class DropoutMLP(MLP):
    def __init__(self, n_features=4, n_outputs=3):
        super().__init__(n_features, n_outputs)
        self.layers.insert(2, nn.Dropout(0.2))


class NormalisedMLP(MLP):
    def __init__(self, n_features=4, n_outputs=3):
        super().__init__(n_features, n_outputs)
        self.layers.insert(1, nn.BatchNorm1d(8))


def classifier_of(module):
    return NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **OPTIONS)


def regressor_of(module, **changes):
    return NeuralNetRegressor(module, **OPTIONS | changes)


REGRESSORS = {
    "map": MAPRegressor(regressor_of(MLP), random_state=0),
    "dropout": MCDropoutRegressor(regressor_of(DropoutMLP), n_draws=7, random_state=0),
    "swag": SWAGRegressor(regressor_of(NormalisedMLP), n_draws=7, random_state=0),
}
CLASSIFIERS = {
    "map": MAPClassifier(classifier_of(MLP), random_state=0),
    "dropout": MCDropoutClassifier(classifier_of(DropoutMLP), n_draws=7, random_state=0),
    "swag": SWAGClassifier(classifier_of(NormalisedMLP), n_draws=7, random_state=0),
}


def functions(estimator, X):
    """Draws (M, N, C) of the net, in the units of the target, one pass at a time."""
    (net,) = estimator.folds_
    latents = net.draws.latents(net.latent, torch.as_tensor(X)).numpy()
    return latents * getattr(estimator, "_y_scale", 1) + getattr(estimator, "_y_mean", 0)


@pytest.mark.parametrize("name", REGRESSORS)
def test_regression_is_that_of_the_draws(name):
    X, y = diabetes()
    reg = clone(REGRESSORS[name]).fit(X, y)
    f = functions(reg, X)[:, :, 0]
    mean, std = reg.predict(X, return_std=True)
    np.testing.assert_array_equal(reg.predict(X), mean)
    np.testing.assert_array_equal(reg.predictive(X).mean[:, 0], mean)
    assert_allclose(mean, f.mean(axis=0))
    assert_allclose(std**2, f.var(axis=0) + reg.noise_std_**2)
    _, covariance = reg.predict(X[:20], return_cov=True)
    expected = np.cov(f[:, :20].T, bias=True) + reg.noise_std_**2 * np.eye(20)
    assert_allclose(covariance, expected, atol=1e-9 * expected.max())
    assert reg.score(X, y) > 0.3
    quantiles = reg.predict_quantiles(X[:5], (0.1, 0.7))
    below = stats.norm.cdf(quantiles[None], f[:, :5, None], reg.noise_std_).mean(axis=0)
    assert_allclose(below, [[0.1, 0.7]] * 5)


@pytest.mark.parametrize("name", ["dropout", "swag"])
def test_sampled_targets_are_whole_functions(name):
    X, y = diabetes()
    reg = clone(REGRESSORS[name]).set_params(noise=1e-6).fit(X[:200], y[:200])
    f = functions(reg, X[:30])[:, :, 0]
    few, many = reg.sample_y(X[:30], 7), reg.sample_y(X[:30], 50)
    # Without replacement where there are enough: each of the seven once.
    assert_allclose(few[:, few[0].argsort()].T, f[f[:, 0].argsort()], atol=1e-5)
    assert (np.abs(many.T[:, None] - f).max(axis=2).min(axis=1) < 1e-5).all()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classification_averages_the_draws(name):
    X, y = iris()
    clf = clone(CLASSIFIERS[name]).fit(X, y)
    p = torch.softmax(torch.as_tensor(functions(clf, X)), dim=-1).numpy()
    assert_allclose(clf.predict_proba(X), p.mean(axis=0))
    information = stats.entropy(p.mean(axis=0), axis=1) - stats.entropy(p, axis=2).mean(axis=0)
    assert_allclose(clf.predictive(X).mutual_information(), information, atol=1e-12)
    if name != "map":
        assert (information > 1e-6).all()
    with torch.no_grad():
        alone = clf.net_.module_(torch.as_tensor(X)).softmax(dim=1)
    assert_allclose(clf.predict_proba_map(X), alone)
    assert clf.score(X, y) > 0.6


@pytest.mark.parametrize("name", ["dropout", "swag"])
def test_predictions_repeat(name):
    X, y = iris()
    clf = clone(CLASSIFIERS[name]).fit(X, y)
    expected = clf.predict_proba(X)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), expected)
    assert_allclose(clf.predict_proba(X[[5, 2]]), expected[[5, 2]], rtol=1e-10)
    other = clone(clf).set_params(random_state=1).fit(X, y).predict_proba(X)
    assert np.abs(other - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "module", "options"),
    [
        (MAPRegressor, MLP, {}),
        (MCDropoutRegressor, DropoutMLP, {}),
        (SWAGRegressor, NormalisedMLP, {"n_snapshots": 4}),
    ],
)
def test_a_frozen_net_is_used_as_it_is(kind, module, options):
    X, y = diabetes()
    column = y[:, None].astype(np.float32) / 100
    net = regressor_of(module, module__n_features=10, module__n_outputs=1)
    net.fit(X.astype(np.float32), column)
    before = {name: value.clone() for name, value in net.module_.state_dict().items()}
    reg = kind(FrozenEstimator(net), dtype="float32", random_state=0, **options).fit(
        X, column[:, 0]
    )
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())
    with torch.no_grad():
        alone = net.module_.eval()(torch.as_tensor(X).float())[:, 0].numpy()
    spread = reg.predictive(X).std("epistemic")[:, 0]
    # SGD goes on from the given weights, so SWAG's mean may move.
    assert (
        np.abs(reg.predict(X) - alone) <= 3 * spread + 0.3 * (kind is SWAGRegressor) + 1e-6
    ).all()
    assert (spread == 0).all() == (kind is MAPRegressor)
    other = clone(reg).set_params(random_state=1).fit(X, column[:, 0]).predict(X)
    assert (other != reg.predict(X)).any() == (kind is not MAPRegressor)


def test_swag_refreshes_batch_normalisation_over_the_training_rows():
    X, y = iris()
    clf = clone(CLASSIFIERS["swag"]).fit(X, y)
    draw = clf.folds_[0].draws
    module = clf.net_.module_
    nn.utils.vector_to_parameters(draw.weights[2], module.parameters())
    linear, norm = module.layers[0], module.layers[1]
    with torch.no_grad():
        z = linear(torch.as_tensor(X))
    assert_allclose(draw.buffers[2]["layers.1.running_mean"], z.mean(dim=0))
    assert_allclose(draw.buffers[2]["layers.1.running_var"], z.var(dim=0))
    assert norm.num_batches_tracked > 1  # the trained net's own statistics are another matter


def test_map_noise_is_the_residual_variance_of_held_out_rows():
    X, y = diabetes()
    reg = MAPRegressor(regressor_of(MLP), random_state=0).fit(X, y)
    options = {"fraction": 0.2, "needed": True, "stratify": False, "seed": reg._seed}
    held_out = hold_out(reg.net_, X, y, **options)[1]
    assert len(held_out) == 24
    residuals = y[held_out] - reg.predict(X[held_out])
    assert reg.noise_std_ == pytest.approx(np.sqrt(np.mean(residuals**2)), rel=1e-6)
    few = MAPRegressor(regressor_of(MLP), random_state=0).fit(X[:60], y[:60])
    assert few.noise_std_ == pytest.approx(
        np.sqrt(np.mean((y[:60] - few.predict(X[:60])) ** 2)), rel=1e-6
    )


def test_tuned_noise_minimises_the_negative_log_likelihood():
    rng = np.random.default_rng(0)
    f = rng.normal(size=(6, 80, 2)) * rng.uniform(0.1, 2, size=(80, 2))
    y = (
        f.mean(axis=0)
        + f.std(axis=0) * rng.normal(size=(80, 2))
        + [0.7, 0.05] * rng.normal(size=(80, 2))
    )
    weights = rng.uniform(0, 3, size=80)
    predictive = Predictive.of_mixture(
        Mixture(torch.as_tensor(f)), Gaussian(torch.ones(2).double())
    )
    rows = Rows(torch.zeros(80, 1), torch.as_tensor(y), torch.as_tensor(weights))
    found = tuned_noise(predictive, rows).noise_variance
    for c in range(2):

        def loss(log_noise, c=c):
            std = np.sqrt(f[:, :, c].var(axis=0) + np.exp(log_noise))
            return -weights @ stats.norm.logpdf(y[:, c], f[:, :, c].mean(axis=0), std)

        grid = np.linspace(-14, 5, 400)
        start = grid[np.argmin([loss(value) for value in grid])]
        best = optimize.minimize_scalar(loss, bracket=(start - 0.1, start + 0.1)).fun
        assert loss(np.log(float(found[c]))) == pytest.approx(best, abs=1e-3)


def test_noise_is_what_held_out_rows_ask_for_next_to_the_spread_of_the_draws():
    X, _ = diabetes()
    y = X.sum(axis=1)
    y = y + 0.5 * y.std() * np.random.default_rng(0).normal(size=len(y))
    net = regressor_of(DropoutMLP, max_epochs=60)
    reg = MCDropoutRegressor(net, n_draws=30, random_state=0).fit(X, y)
    options = {"fraction": 0.2, "needed": True, "stratify": False, "seed": reg._seed}
    held_out = hold_out(reg.net_, X, y, **options)[1]
    f = functions(reg, X[held_out])[:, :, 0]

    def loss(noise):
        std = np.sqrt(f.var(axis=0) + noise**2)
        return -stats.norm.logpdf(y[held_out], f.mean(axis=0), std).mean()

    noise = reg.noise_std_
    assert loss(noise) < min(loss(0.97 * noise), loss(1.03 * noise))
    assert noise < 0.9 * np.sqrt(np.mean((y[held_out] - f.mean(axis=0)) ** 2))


def test_two_targets_have_a_noise_each():
    X, y = diabetes()
    reg = MCDropoutRegressor(regressor_of(DropoutMLP), n_draws=5, random_state=0)
    reg.fit(X, np.stack([y, 100 - y / 10], axis=1))
    assert reg.noise_std_.shape == (2,)
    assert reg.noise_std_[1] == pytest.approx(reg.noise_std_[0] / 10, rel=0.3)
    mean, std = reg.predict(X, return_std=True)
    f = functions(reg, X)
    assert_allclose(mean, f.mean(axis=0))
    assert_allclose(std**2, f.var(axis=0) + reg.noise_std_**2)


@pytest.mark.parametrize("kind", [MCDropoutClassifier, MCDropoutRegressor])
def test_dropout_without_dropout_is_refused_before_training(kind):
    X, y = iris()
    CountedMLP.training_passes.clear()
    net = classifier_of(CountedMLP) if kind is MCDropoutClassifier else regressor_of(CountedMLP)
    with pytest.raises(ValueError, match=r"0 of its 3 layers \(Linear, Tanh\) are dropout"):
        kind(net).fit(X, y)
    assert not CountedMLP.training_passes


@pytest.mark.parametrize(
    "net, rate",
    [
        (None, 0.25),
        (TabularNet(max_epochs=2), 0.25),
        (TabularNet(max_epochs=2, dropout=0.5), 0.5),
    ],
    ids=["none", "without", "with"],
)
def test_the_default_net_gets_the_dropout_asked_for(net, rate):
    X, y = iris()
    clf = MCDropoutClassifier(net, n_draws=2, dropout=0.25, random_state=0).fit(X, y)
    modules = clf.folds_[0].net.module_.modules()
    assert [m.p for m in modules if isinstance(m, nn.Dropout)] == [rate, rate]
    assert clf.net is net and (net is None or net.dropout in (0, rate))


@pytest.mark.parametrize("kind", [MAPClassifier, SWAGClassifier, MCDropoutClassifier])
def test_folds_are_averages_of_nets_of_the_folds(kind):
    """Each is the estimator itself on the rows of a fold, which hold the others out."""
    X, y = iris()
    rows = np.random.default_rng(0).permutation(len(X))
    splits = [(np.sort(rows[:100]), np.sort(rows[100:])), (np.sort(rows[50:]), np.sort(rows[:50]))]
    net = TabularNet(max_epochs=4, dropout=0.1)
    whole = kind(net, cv=splits, random_state=0).fit(X, y)
    assert len(whole.folds_) == 2
    alone = []
    for fold in whole.folds_:
        inputs = torch.as_tensor(whole._encoding(X))
        alone.append(fold.predictive(inputs).probabilities())
    assert_allclose(whole.predict_proba(X), np.mean(alone, axis=0), atol=1e-10)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    # the rows are in no two folds' held-out parts, but not all of them are in one
    assert not hasattr(whole, "out_of_fold_")
    both = kind(net, cv=3, random_state=0).fit(X, y)
    assert both.out_of_fold_.probabilities().shape == (len(X), 3)
    with pytest.raises(AttributeError, match="3 nets"):
        _ = both.net_
