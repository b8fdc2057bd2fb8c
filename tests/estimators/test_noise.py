"""Noise that differs from row to row, in estimators: against dense matrices and scipy mixtures."""

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, stats
from user_nets import MLP, regressor_net

from sksubnet import SubnetLaplaceRegressor
from sksubnet.estimators.noise import LEAST_ROWS, with_constant_noise, with_noise_by_row
from sksubnet.nets.trained import Rows
from sksubnet.predictive import Gaussian

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, size=(120, 3))
X = TRAIN = X[X[:, 0].argsort()]  # the order that distinct rows are kept in
STD = np.column_stack([0.3 * np.exp(1.5 * X[:, 0]), 20 * np.exp(-X[:, 1])])
Y = np.column_stack([X[:, 1], 100 * X[:, 0]]) + STD * RNG.normal(size=(120, 2))
WEIGHTS = RNG.integers(1, 3, size=120).astype(float)
X_NEW = RNG.uniform(-1, 1, size=(5, 3))
Y_NEW = Y[:5]

SMALL = {"selection": "magnitude", "subnetwork_size": 12, "random_state": 0}
SPLITS = [(np.flatnonzero(np.arange(120) % 3 != k), np.arange(k, 120, 3)) for k in range(3)]


def fit(y, noise, **options):
    net = regressor_net(max_epochs=20)
    options = {"cv": SPLITS, "prior_precision": 3.0, **SMALL, **options}
    return SubnetLaplaceRegressor(net, noise=noise, **options).fit(X, y, WEIGHTS)


@pytest.fixture(scope="module")
def two_targets():
    return fit(Y, "input")


@pytest.fixture(scope="module")
def one_target():
    return fit(Y[:, 0], "input")


@pytest.fixture(scope="module")
def constant():
    return fit(Y, "constant")


def noise_by_hand(net, X):
    """Variances (N, C) by the module of the noise net of a fold, in the net's units."""
    (latent,), (level,), inputs = net.noise.latents, net.noise.levels, net.noise.encodings[0](X)
    return level.numpy() * np.exp(dense.evaluate(latent.module, inputs).clip(-10, 10))


def components(fitted, X):
    """Means (K, N, C), standard deviations and noise variances of the targets by the nets."""
    means, covariances, noises = [], [], []
    for net, (train, _) in zip(fitted.folds_, SPLITS, strict=True):
        module, chosen = net.net.module_, net.subnetwork.indices
        J = dense.jacobian(module, np.concatenate([TRAIN, X]))[:, :, chosen]
        J, J_new = J[:120], J[120:]
        hessian = [np.diag(1 / row) for row in noise_by_hand(net, TRAIN[train])]
        G = dense.ggn(J[train], hessian, WEIGHTS[train])
        H = G + net.posterior.prior_precision * np.eye(len(G))
        scale = fitted._y_scale
        means.append(fitted._y_mean + scale * dense.evaluate(module, X))
        covariances.append(dense.outputs_covariance(J_new, H) * np.outer(scale, scale))
        noises.append(noise_by_hand(net, X) * scale**2)
    return np.array(means), np.array(covariances), np.array(noises)


def test_the_posterior_is_that_of_rows_with_their_own_noise(two_targets):
    means, covariances, noise = components(two_targets, X_NEW)
    predictive = two_targets.predictive(X_NEW)
    assert_allclose(predictive.mixture.means, means, rtol=1e-8)
    assert_allclose(predictive.mixture.covariances, covariances, rtol=1e-6)
    assert_allclose(predictive.mixture.noise, noise, rtol=1e-8)
    assert (noise.max(axis=1) > 1.05 * noise.min(axis=1)).all()  # so that rows differ


def test_moments_are_those_of_the_mixture(two_targets):
    means, covariances, noise = components(two_targets, X_NEW)
    variance = covariances.diagonal(axis1=2, axis2=3) + noise
    total = (variance + means**2).mean(axis=0) - means.mean(axis=0) ** 2
    mean, std = two_targets.predict(X_NEW, return_std=True)
    assert_allclose(mean, means.mean(axis=0), rtol=1e-8)
    assert_allclose(std, np.sqrt(total), rtol=1e-6)
    _, cov = two_targets.predict(X_NEW, return_cov=True)
    assert cov.shape == (5, 5, 2)
    assert_allclose(cov.diagonal().T, total, rtol=1e-6)


def test_covariance_between_rows_is_without_noise(one_target):
    _, cov = one_target.predict(X_NEW, return_cov=True)
    scale = one_target._y_scale[0]
    expected = np.zeros((5, 5))
    centers = []
    for net, (train, _) in zip(one_target.folds_, SPLITS, strict=True):
        module, chosen = net.net.module_, net.subnetwork.indices
        J = dense.jacobian(module, X[train])[:, 0, chosen]
        G = (J.T * WEIGHTS[train] / noise_by_hand(net, X[train])[:, 0]) @ J
        J_new = dense.jacobian(module, X_NEW)[:, 0, chosen]
        within = J_new @ np.linalg.inv(G + net.posterior.prior_precision * np.eye(12)) @ J_new.T
        expected += scale**2 * (within + np.diag(noise_by_hand(net, X_NEW)[:, 0])) / 3
        centers.append(scale * dense.evaluate(module, X_NEW)[:, 0])
    expected += np.cov(np.array(centers).T, bias=True)
    assert_allclose(cov, expected, rtol=1e-6)


def test_intervals_and_densities_are_those_of_the_mixture(two_targets):
    means, covariances, noise = components(two_targets, X_NEW)
    std = np.sqrt(covariances.diagonal(axis1=2, axis2=3) + noise)
    found = two_targets.predict_interval(X_NEW, 0.9)
    quantiles = two_targets.predict_quantiles(X_NEW, [0.05, 0.95])
    assert_allclose(found, quantiles, rtol=1e-9)
    for n, c in np.ndindex(5, 2):
        one = stats.norm(means[:, n, c], std[:, n, c])
        for end, level in zip(found[n, c], (0.05, 0.95), strict=True):
            root = optimize.brentq(
                lambda t, one=one, level=level: one.cdf(t).mean() - level, -1e4, 1e4, xtol=1e-11
            )
            assert end == pytest.approx(root, rel=1e-6)
    density = np.zeros(5)
    for mean, covariance, variance in zip(means, covariances, noise, strict=True):
        for n in range(5):
            full = covariance[n] + np.diag(variance[n])
            density[n] += stats.multivariate_normal(mean[n], full).pdf(Y_NEW[n]) / 3
    assert_allclose(two_targets.predictive(X_NEW).log_prob(Y_NEW), np.log(density), rtol=1e-6)


def test_draws_of_targets_have_the_noise_of_their_row(one_target):
    draws = one_target.sample_y(X_NEW, 3000, random_state=1)
    predictive = one_target.predictive(X_NEW)
    for n in range(5):
        test = stats.kstest(
            draws[n], lambda t, n=n: predictive.rows(np.full(len(t), n)).cdf(np.asarray(t))
        )
        assert test.pvalue > 1e-4
    assert_allclose(draws.std(axis=1), predictive.std()[:, 0], rtol=0.08)


def test_the_mean_is_that_of_constant_noise_bit_for_bit(two_targets, constant):
    assert_array_equal(two_targets.predict(X_NEW), constant.predict(X_NEW))
    assert (two_targets.predict(X_NEW, True)[1] != constant.predict(X_NEW, True)[1]).all()


def test_constant_noise_is_the_variance_of_the_residuals_of_unseen_rows(constant):
    squared = np.zeros_like(Y)
    y = (Y - constant._y_mean) / constant._y_scale
    for net, (_, test) in zip(constant.folds_, SPLITS, strict=True):
        squared[test] = (y[test] - dense.evaluate(net.net.module_, X[test])) ** 2
    v0 = np.average(squared, axis=0, weights=WEIGHTS)
    for k, net in enumerate(constant.folds_):
        scale = constant.tuning_.of_net(k)[1]
        assert_allclose(net.likelihood.noise_variance, scale * v0, rtol=1e-7)


def test_the_level_of_each_noise_net_is_of_the_residuals_of_the_other_folds(two_targets):
    y = (Y - two_targets._y_mean) / two_targets._y_scale
    squared = np.zeros_like(Y)
    for net, (_, test) in zip(two_targets.folds_, SPLITS, strict=True):
        squared[test] = (y[test] - dense.evaluate(net.net.module_, X[test])) ** 2
    for k, (net, (train, _)) in enumerate(zip(two_targets.folds_, SPLITS, strict=True)):
        level = np.average(squared[train], axis=0, weights=WEIGHTS[train])
        scale = two_targets.tuning_.of_net(k)[1]
        assert_allclose(net.noise.levels[0], scale * level, rtol=1e-7)


def test_the_noise_of_all_is_the_mean_over_the_training_rows(two_targets):
    each = [
        np.average(noise_by_hand(net, X[train]), axis=0, weights=WEIGHTS[train])
        for net, (train, _) in zip(two_targets.folds_, SPLITS, strict=True)
    ]
    expected = two_targets._y_scale * np.sqrt(np.mean(each, axis=0))
    assert_allclose(two_targets.noise_std_, expected, rtol=1e-7)


def zero_nets(kind, seed):
    """Three nets that predict 0, with what is left of targets of one noise or of noise by row."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(900, 2))
    std = np.exp(0.8 * X[:, :1]) if kind == "input" else np.ones((900, 1))
    y = std * rng.normal(size=(900, 1))
    module = dense.mlp(n_inputs=2, n_outputs=1)
    for parameter in module.parameters():
        parameter.data.zero_()
    nets = []
    for k in range(3):
        rows = slice(k, None, 3)
        arrays = (X[rows], y[rows], np.ones(300))
        held_out = Rows(*map(torch.as_tensor, arrays))
        nets.append(
            dense.trained_net(module, Gaussian(torch.ones(1)), X, y, held_out=held_out, seed=k)
        )
    return with_constant_noise(nets)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["constant", "input"])
def test_auto_tells_one_noise_from_noise_by_row(kind, seed):
    found = with_noise_by_row(zero_nets(kind, seed), always=False)
    assert [net.noise is not None for net in found] == [kind == "input"] * 3
    if kind == "input":
        assert_allclose(found[0].train.noise, found[0].noise(found[0].train.X))
        X = found[0].train.X
        ratio = found[1].noise(X).sqrt() / torch.exp(0.8 * X[:, :1])
        assert 0.75 < ratio.quantile(0.1) < ratio.quantile(0.9) < 1.3


def test_auto_is_constant_for_a_few_rows_and_for_nets_of_the_users():
    module = dense.mlp(n_inputs=2, n_outputs=1)
    rng = np.random.default_rng(0)
    X = torch.as_tensor(rng.uniform(-1, 1, size=(LEAST_ROWS - 1, 2)))
    y = torch.exp(3 * X[:, :1]) * torch.as_tensor(rng.normal(size=(len(X), 1)))
    rows = Rows(X, y, torch.ones(len(X)).double())
    nets = [dense.trained_net(module, Gaussian(torch.ones(1)), X, y, held_out=rows)]
    assert with_noise_by_row(nets, always=False)[0].noise is None
    assert with_noise_by_row(nets, always=True)[0].noise is not None
    assert all(net.noise is None for net in fit(Y, "auto").folds_)


def test_auto_of_the_default_net_finds_noise_by_row():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(240, 2))
    y = X[:, 1] + 0.4 * np.exp(1.5 * X[:, 0]) * rng.normal(size=240)
    fitted = SubnetLaplaceRegressor(cv=2, **SMALL).fit(X, y)
    assert all(net.noise is not None for net in fitted.folds_)
    found = fitted.predictive(X).std("aleatoric")[:, 0]
    assert np.quantile(np.abs(np.log(found / (0.4 * np.exp(1.5 * X[:, 0])))), 0.8) < np.log(1.5)


def test_noise_by_row_of_one_net_is_of_its_own_held_out_rows():
    fitted = fit(Y[:, 0], "input", cv=None)
    assert len(fitted.folds_) == 1
    mean, std = fitted.predict(X, return_std=True)
    assert_array_equal(mean, fit(Y[:, 0], "constant", cv=None).predict(X))
    noise = noise_by_hand(fitted.folds_[0], X)[:, 0] * fitted._y_scale[0] ** 2
    epistemic = fitted.predictive(X).std("epistemic")[:, 0]
    assert_allclose(std, np.sqrt(noise + epistemic**2), rtol=1e-7)


class Named(MLP):
    """Takes its rows by name."""

    def forward(self, first, rest):
        return super().forward(torch.cat([first, rest], dim=1))


def by_name(batch):
    rows, targets = zip(*batch, strict=True)
    X = torch.stack([torch.as_tensor(row) for row in rows])
    y = torch.stack([torch.as_tensor(target) for target in targets])
    return {"first": X[:, :1], "rest": X[:, 1:]}, y


def test_rows_that_are_dicts_are_refused():
    loaders = {f"iterator_{part}__collate_fn": by_name for part in ("train", "valid")}
    net = regressor_net(Named, module__n_features=3, module__n_outputs=1, **loaders)
    options = {"cv": 2, "prior_precision": 3.0, **SMALL}
    with pytest.raises(ValueError, match="noise='input' needs a net that reads its rows as one"):
        SubnetLaplaceRegressor(net, noise="input", **options).fit(X, Y[:, 0])
    fitted = SubnetLaplaceRegressor(net, noise="constant", **options).fit(X, Y[:, 0])
    assert fitted.predict(X_NEW).shape == (5,)
