"""Nets with PoissonNLLLoss against the closed forms of a Poisson regression."""

import numpy as np
import pytest
import reference
import torch
from scipy import stats
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import MLP, OPTIONS, assert_refused

from sksubnet import (
    DeepEnsembleRegressor,
    MAPRegressor,
    MCDropoutRegressor,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    VOGNRegressor,
)

WEIGHTS = np.array([0.5, -0.3, 0.8])
ALL = {"subnetwork_size": "all", "candidates": "all", "cv": None, "random_state": 0}


def table(n_rows=80, seed=0):
    """Rows (n, 3), exposures (n,) and counts (n,) of a log-linear rate."""
    rng = np.random.default_rng(seed)
    X = np.c_[np.ones(n_rows), rng.normal(size=(n_rows, 2))]
    exposure = rng.uniform(0.5, 3, size=n_rows)
    return X, exposure, rng.poisson(exposure * np.exp(X @ WEIGHTS)).astype(float)


def linear_net(module=nn.Linear, **options) -> NeuralNetRegressor:
    """Poisson regression by Newton-like steps on all rows."""
    defaults = {"module__bias": False, "module__in_features": 3, "module__out_features": 1}
    defaults |= {"criterion": nn.PoissonNLLLoss, "train_split": None, "verbose": 0}
    defaults |= {"optimizer": torch.optim.LBFGS, "lr": 1.0, "max_epochs": 30, "batch_size": -1}
    defaults |= {"optimizer__tolerance_grad": 1e-10, "optimizer__tolerance_change": 1e-14}
    return NeuralNetRegressor(module, **{**defaults, **options})


def glm_covariance(X, rate, delta):
    return np.linalg.inv(X.T @ (rate[:, None] * X) + delta * np.eye(X.shape[1]))


def test_the_posterior_of_a_linear_net_is_that_of_the_glm():
    X, _, y = table()
    model = SubnetLaplaceRegressor(linear_net(), prior_precision=0.7, **ALL).fit(X, y)
    w = model.net_.module_.weight.detach().numpy()[0]
    np.testing.assert_allclose(X.T @ (y - np.exp(X @ w)), 0, atol=1e-5)  # the maximum
    covariance = glm_covariance(X, np.exp(X @ w), 0.7)
    new = np.c_[np.ones(30), np.random.default_rng(5).normal(size=(30, 2))]
    variance = np.einsum("np,pq,nq->n", new, covariance, new)
    mean = np.exp(new @ w + variance / 2)
    epistemic = mean * np.sqrt(np.expm1(variance))
    predictive = model.predictive(new)
    latents = predictive.mixture
    np.testing.assert_allclose(latents.covariances[0, :, 0, 0], variance, rtol=1e-6)
    found, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(found, mean, rtol=1e-6)
    np.testing.assert_allclose(model.predict(new), mean, rtol=1e-6)
    np.testing.assert_allclose(predictive.std("epistemic")[:, 0], epistemic, rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(mean + epistemic**2), rtol=1e-6)
    draws = np.exp(new @ w + np.sqrt(variance) * np.random.default_rng(0).normal(size=(4000, 1)))
    for k, column in zip((0, 2, 5), predictive.quantiles((0.1, 0.5, 0.9)).T, strict=True):
        assert column.shape == (1, 30)
        exact = stats.poisson.cdf(k, draws).mean(axis=0)
        np.testing.assert_allclose(predictive.cdf(np.full(30, k)), exact, atol=0.02)
    evidence = float(stats.poisson.logpmf(y, np.exp(X @ w)).sum())
    evidence -= 0.5 * (0.7 * w @ w + np.log(np.linalg.det(np.linalg.inv(covariance) / 0.7)))
    assert model.log_marginal_likelihood() == pytest.approx(evidence, rel=1e-9)


class Offset(nn.Linear):
    """Poisson regression whose last column is the log exposure."""

    def forward(self, X):
        return super().forward(X[:, :3]) + X[:, 3:]


def test_rates_weighted_by_exposure_are_counts_with_an_offset():
    X, exposure, y = table()
    by_rate = SubnetLaplaceRegressor(linear_net(), prior_precision=0.7, **ALL)
    by_rate.fit(X, y / exposure, sample_weight=exposure)
    by_offset = SubnetLaplaceRegressor(linear_net(Offset), prior_precision=0.7, **ALL)
    by_offset.fit(np.c_[X, np.log(exposure)], y)
    weights = [model.net_.module_.weight.detach().numpy() for model in (by_rate, by_offset)]
    np.testing.assert_allclose(*weights, rtol=1e-5)
    one = [by_rate.predict(X), by_offset.predict(np.c_[X, np.zeros(len(X))])]
    np.testing.assert_allclose(*one, rtol=1e-5)
    matrices = [
        model.predictive(rows).mixture.covariances
        for model, rows in ((by_rate, X), (by_offset, np.c_[X, np.zeros(len(X))]))
    ]
    np.testing.assert_allclose(*matrices, rtol=1e-5)
    w = weights[0][0]
    covariance = glm_covariance(X, exposure * np.exp(X @ w), 0.7)
    variance = np.einsum("np,pq,nq->n", X, covariance, X)
    np.testing.assert_allclose(matrices[0][0, :, 0, 0], variance, rtol=1e-5)


def deep_net(**options) -> NeuralNetRegressor:
    defaults = {**OPTIONS, "criterion": nn.PoissonNLLLoss, "max_epochs": 20}
    return NeuralNetRegressor(**{"module": MLP, **defaults, **options})


def test_the_prior_is_tuned_by_the_counts_of_held_out_rows():
    X, _, y = table(150)
    model = SubnetLaplaceRegressor(deep_net(), subnetwork_size=20, cv=3, random_state=0).fit(X, y)
    assert len(model.folds_) == 3 and model.tuning_.losses is not None
    out = model.out_of_fold_
    assert out.log_prob(y).shape == (150,)
    nll = -out.log_prob(y).mean()
    assert nll < -stats.poisson.logpmf(y, y.mean()).mean()
    draws = model.sample_y(X[:5], 4000, random_state=0)
    assert draws.shape == (5, 4000) and (draws == draws.round()).all()
    np.testing.assert_allclose(draws.mean(1), model.predict(X[:5]), rtol=0.15)
    mixed = np.mean(
        [np.exp(net.predictive(torch.as_tensor(X)).log_prob(y)) for net in model.folds_], 0
    )
    np.testing.assert_allclose(model.predictive(X).log_prob(y), np.log(mixed), rtol=1e-9)
    lower, upper = model.predict_interval(X, 0.9).T
    assert np.mean((lower <= y) & (y <= upper)) > 0.8


def test_the_prior_keeps_means_of_exponentials_sane():
    X, _, y = table(150)
    model = SubnetLaplaceRegressor(deep_net(), subnetwork_size=20, cv=3, random_state=0).fit(X, y)
    assert float(model.tuning_.grid[-1] / model.tuning_.grid[0]) == pytest.approx(100)
    energies = []
    for net in model.folds_:
        rows = torch.as_tensor(X[net.held_out])
        J = reference.jacobian(net.net.module_, rows)[:, 0, torch.as_tensor(net.subnetwork.indices)]
        energies.append(J.square().sum(dim=1))
    sd = float(torch.cat(energies).mean().sqrt()) / model.tuning_.grid[[0, -1]].sqrt().numpy()
    np.testing.assert_allclose(sd, [1.0, 0.1], rtol=1e-3)  # of the log rate of an average row


def test_the_evidence_is_maximised():
    X, _, y = table()
    model = SubnetLaplaceRegressor(linear_net(), prior_precision="evidence", **ALL).fit(X, y)

    def evidence(precision):
        given = SubnetLaplaceRegressor(linear_net(), prior_precision=precision, **ALL)
        return given.fit(X, y).log_marginal_likelihood()

    best = model.log_marginal_likelihood()
    assert best >= max(evidence(model.prior_precision_ * factor) for factor in (0.5, 2.0)) - 1e-9


@pytest.mark.parametrize(
    "method",
    [MAPRegressor, SWAGRegressor, MCDropoutRegressor, DeepEnsembleRegressor, VOGNRegressor],
)
def test_baselines_mix_poissons(method):
    X, _, y = table(60)
    net = deep_net(module=DropoutMLP) if method is MCDropoutRegressor else deep_net()
    model = method(net, random_state=0)
    small = {"n_draws": 6, "n_members": 3, "n_epochs": 20, "n_snapshots": 5, "rank": 3}
    model.set_params(**{k: v for k, v in small.items() if k in model.get_params()}).fit(X, y)
    predictive = model.predictive(X)
    rates = np.exp(predictive.mixture.means.numpy()[:, :, 0])
    np.testing.assert_allclose(model.predict(X), rates.mean(axis=0))
    _, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(std, np.sqrt(rates.mean(axis=0) + rates.var(axis=0)))
    expected = np.log(stats.poisson.pmf(y, rates).mean(axis=0))
    np.testing.assert_allclose(predictive.log_prob(y), expected)
    draws = model.sample_y(X[:3], 50)
    assert draws.shape == (3, 50) and (draws == draws.round()).all()
    with pytest.raises(AttributeError, match="noise_std_"):
        _ = model.noise_std_


class DropoutMLP(MLP):
    def __init__(self, n_features=3, n_outputs=1):
        super().__init__(n_features, n_outputs)
        self.layers.insert(2, nn.Dropout(0.2))


def test_two_counts_at_once():
    X, exposure, y = table(60)
    Y = np.c_[y, y[::-1]]
    model = SubnetLaplaceRegressor(deep_net(), subnetwork_size=20, prior_precision=1.0, cv=None)
    model.set_params(random_state=0).fit(X, Y, sample_weight=exposure)
    mean, std = model.predict(X, return_std=True)
    assert mean.shape == std.shape == (60, 2) and (mean > 0).all()
    assert model.predict_quantiles(X).shape == (60, 2, 3)
    assert model.sample_y(X, 2).shape == (60, 2, 2)


def test_refused_by_name():
    X, _, y = table(40)
    quick = {"subnetwork_size": 5, "prior_precision": 1.0, "cv": None, "random_state": 0}
    model = SubnetLaplaceRegressor(deep_net(), **quick)
    assert_refused(
        lambda: model.fit(X, y - 3), f"{y.min() - 3:g}", "PoissonNLLLoss", "not negative"
    )
    for noise in (0.3, "constant", "input", [0.2]):
        noisy = SubnetLaplaceRegressor(deep_net(), noise=noise, **quick)
        assert_refused(lambda noisy=noisy: noisy.fit(X, y), "noise=", "Poisson", "'auto'")
    rates = SubnetLaplaceRegressor(deep_net(criterion__log_input=False), **quick)
    assert_refused(lambda: rates.fit(X, y), "log_input=False", "criterion__log_input=True")
    model.fit(X, y)
    assert_refused(lambda: model.predict(X, return_cov=True), "return_cov", "Poisson", "sample_y")


def test_counts_of_zero_weight_are_not_checked_and_y_is_not_scaled():
    X, _, y = table(40)
    y[3] = -1
    weight = np.ones(40)
    weight[3] = 0
    quick = {"subnetwork_size": 5, "prior_precision": 1.0, "cv": None, "random_state": 0}
    model = SubnetLaplaceRegressor(deep_net(), **quick).fit(X, y, sample_weight=weight)
    unscaled = SubnetLaplaceRegressor(deep_net(), normalize_y=False, **quick)
    unscaled.fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(model.predict(X), unscaled.predict(X))


@pytest.mark.parametrize("nonlinearity", ["auto", torch.exp])
def test_the_nets_own_predictions_are_log_rates_or_rates(nonlinearity):
    X, _, y = table(40)
    net = deep_net(predict_nonlinearity=nonlinearity)
    MAPRegressor(net, random_state=0).fit(X, y)
    wrong = MAPRegressor(deep_net(predict_nonlinearity=torch.sigmoid), random_state=0)
    assert_refused(lambda: wrong.fit(X, y), "predict_nonlinearity")
