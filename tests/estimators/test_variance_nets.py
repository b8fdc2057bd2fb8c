"""Nets that return a mean and a variance, trained by GaussianNLLLoss or by LikelihoodLoss."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import MLP, OPTIONS, assert_refused

from sksubnet import (
    DeepEnsembleRegressor,
    LikelihoodLoss,
    MAPRegressor,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    VOGNRegressor,
)
from sksubnet.predictive import MeanVariance

ALL = {"subnetwork_size": "all", "candidates": "all", "cv": None, "random_state": 0}
QUICK = {"subnetwork_size": 12, "prior_precision": 1.0, "cv": None, "random_state": 0}


class Pair(MLP):
    """Mean and variance as two tensors."""

    def __init__(self, n_features=3, n_outputs=1):
        super().__init__(n_features, 2 * n_outputs)

    def forward(self, X):
        mean, log_variance = super().forward(X).chunk(2, dim=1)
        return mean, log_variance.exp()


class FlatPair(Pair):
    def forward(self, X):
        return tuple(part.squeeze(1) for part in super().forward(X))


class OneVariance(Pair):
    """The same variance for all targets, as a column, which torch's criterion takes, too."""

    def forward(self, X):
        mean, variance = super().forward(X)
        return mean, variance[:, :1]


class SameVariances(OneVariance):
    def forward(self, X):
        mean, variance = super().forward(X)
        return mean, variance.expand_as(mean)


class OwnLoss(NeuralNetRegressor):
    """As in torch's documentation."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        mean, variance = y_pred
        return self.criterion_(mean, y_true, variance)


def pair_net(kind=NeuralNetRegressor, **options):
    return kind(**{"module": Pair, "criterion": nn.GaussianNLLLoss, **OPTIONS, **options})


def column_net(**options):
    defaults = {"module": MLP, "criterion": LikelihoodLoss, "criterion__likelihood": MeanVariance()}
    return NeuralNetRegressor(**{**defaults, **OPTIONS, **options})


class MeanOnly(OwnLoss):
    """Trains the mean by its squared error, and the variance for it as it is."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        mean, variance = y_pred
        own = self.criterion_(mean.detach(), y_true, variance)
        return own + nn.functional.mse_loss(mean, y_true)


def table(n_rows=100, n_targets=1):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 3))
    y = 40 + 5 * X[:, :n_targets] + 4 * np.exp(X[:, 1:2] / 2) * rng.normal(size=(n_rows, n_targets))
    return X, y[:, 0] if n_targets == 1 else y


def test_the_ways_to_train_it_are_one():
    X, y = table()
    weight = np.random.default_rng(1).uniform(0.1, 2, size=len(X))
    for weights in (None, weight):
        models = [
            SubnetLaplaceRegressor(net, **QUICK).fit(X, y, sample_weight=weights)
            for net in (pair_net(), pair_net(OwnLoss), pair_net(module=FlatPair), column_net())
        ]
        expected = models[0].predictive(X)
        for model in models[1:]:
            found = model.predictive(X)
            np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
            np.testing.assert_allclose(found.std(), expected.std(), rtol=1e-6)


def test_one_variance_for_all_targets():
    X, y = table(n_targets=2)
    one, same = (
        SubnetLaplaceRegressor(pair_net(module=module), **QUICK).fit(X, y).predictive(X)
        for module in (OneVariance, SameVariances)
    )
    np.testing.assert_allclose(one.mean, same.mean, rtol=1e-9)
    np.testing.assert_allclose(one.std(), same.std(), rtol=1e-9)
    aleatoric = one.std("aleatoric") / y.std(axis=0)
    np.testing.assert_allclose(aleatoric[:, 0], aleatoric[:, 1], rtol=1e-9)


class Linear(nn.Module):
    """A linear mean and a linear log variance."""

    def __init__(self):
        super().__init__()
        self.mean, self.log_variance = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)

    def forward(self, X):
        return self.mean(X), self.log_variance(X).exp()


def test_the_posterior_of_a_linear_net_is_closed_form():
    X, y = table()
    X = np.c_[np.ones(len(X)), X[:, :2]]
    net = pair_net(module=Linear, max_epochs=300, batch_size=-1)
    model = SubnetLaplaceRegressor(net, prior_precision=0.5, normalize_y=False, **ALL)
    y = (y - y.mean()) / y.std()
    model.fit(X, y)
    w = model.net_.module_.mean.weight.detach().numpy()[0]
    u = model.net_.module_.log_variance.weight.detach().numpy()[0]
    of_mean = np.linalg.inv(X.T @ (np.exp(-X @ u)[:, None] * X) + 0.5 * np.eye(3))
    of_log = np.linalg.inv(X.T @ X / 2 + 0.5 * np.eye(3))
    new = np.c_[np.ones(10), np.random.default_rng(2).normal(size=(10, 2))]
    epistemic = np.einsum("np,pq,nq->n", new, of_mean, new)
    spread = np.einsum("np,pq,nq->n", new, of_log, new)
    aleatoric = np.exp(new @ u + spread / 2)
    mean, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(mean, new @ w, rtol=1e-9)
    np.testing.assert_allclose(model.predict(new), mean)
    np.testing.assert_allclose(std**2, epistemic + aleatoric, rtol=1e-6)
    rng = np.random.default_rng(3)
    means = new @ w + np.sqrt(epistemic) * rng.normal(size=(20_000, 1))
    sds = np.exp((new @ u + np.sqrt(spread) * rng.normal(size=(20_000, 1))) / 2)
    density = stats.norm.pdf(0.3, means, sds).mean(axis=0)
    found = model.predictive(new).log_prob(np.full(10, 0.3))
    np.testing.assert_allclose(found, np.log(density), atol=0.02)
    log_likelihood = stats.norm.logpdf(y, X @ w, np.exp(X @ u / 2)).sum()
    occam = sum(np.linalg.slogdet(np.linalg.inv(part) / 0.5)[1] for part in (of_mean, of_log))
    evidence = log_likelihood - 0.5 * (0.5 * (w @ w + u @ u) + occam)
    assert model.log_marginal_likelihood() == pytest.approx(evidence, rel=1e-8)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_normalised_targets_change_units_only(n_targets):
    X, y = table(n_targets=n_targets)
    mean, scale = y.mean(axis=0), y.std(axis=0)
    inside = SubnetLaplaceRegressor(pair_net(), **QUICK).fit(X, y)
    outside = SubnetLaplaceRegressor(pair_net(), normalize_y=False, **QUICK)
    outside.fit(X, (y - mean) / scale)
    np.testing.assert_allclose(inside.predict(X), outside.predict(X) * scale + mean, rtol=1e-9)
    stds = [model.predict(X, return_std=True)[1] for model in (inside, outside)]
    np.testing.assert_allclose(stds[0], stds[1] * scale, rtol=1e-9)
    draws = [model.sample_y(X[:4], 5, random_state=0) for model in (inside, outside)]
    expected = draws[1] * np.reshape(scale, (-1, 1)) + np.reshape(mean, (-1, 1))
    np.testing.assert_allclose(draws[0], expected if n_targets > 1 else draws[1] * scale + mean)
    shift = len(X) * np.log(scale).sum() if n_targets > 1 else len(X) * np.log(scale)
    difference = outside.log_marginal_likelihood() - inside.log_marginal_likelihood()
    assert difference == pytest.approx(shift, rel=1e-9)


def test_folds_tuning_and_noise_by_row():
    X, y = table(150)
    net = pair_net(max_epochs=40)
    model = SubnetLaplaceRegressor(net, subnetwork_size=20, cv=3, random_state=0).fit(X, y)
    constant = SubnetLaplaceRegressor(
        NeuralNetRegressor(MLP, **{**OPTIONS, "max_epochs": 40}),
        subnetwork_size=20,
        cv=3,
        random_state=0,
    ).fit(X, y)
    new, target = table(600)
    new, target = new[200:], target[200:]
    aleatoric = model.predictive(new).std("aleatoric")[:, 0]
    assert np.corrcoef(np.log(aleatoric), new[:, 1])[0, 1] > 0.7
    assert (
        model.predictive(new).log_prob(target).mean()
        > constant.predictive(new).log_prob(target).mean()
    )
    assert model.out_of_fold_.log_prob(y).shape == (150,)


@pytest.mark.parametrize("method", [MAPRegressor, SWAGRegressor, VOGNRegressor])
def test_baselines_mix_normals(method):
    X, y = table(60)
    model = method(pair_net(), random_state=0)
    small = {"n_draws": 6, "n_epochs": 20, "n_snapshots": 5, "rank": 3}
    model.set_params(**{k: v for k, v in small.items() if k in model.get_params()}).fit(X, y)
    means, logs = np.moveaxis(model.predictive(X).mixture.means.numpy(), -1, 0)
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, means.mean(axis=0))
    np.testing.assert_allclose(std**2, np.exp(logs).mean(axis=0) + means.var(axis=0))
    density = stats.norm.pdf(y, means, np.exp(logs / 2)).mean(axis=0)
    np.testing.assert_allclose(model.predictive(X).log_prob(y), np.log(density))


def test_an_ensemble_is_that_of_the_paper():
    X, y = table(60)
    model = DeepEnsembleRegressor(pair_net(), n_members=2, random_state=0).fit(X, y)
    moments = [member.predict(X, return_std=True) for member in model.estimators_]
    means, stds = (np.array(part) for part in zip(*moments, strict=True))
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, means.mean(axis=0))
    np.testing.assert_allclose(std**2, (stds**2).mean(axis=0) + means.var(axis=0))


def test_a_frozen_net():
    X, y = table(60)
    net = pair_net(OwnLoss, module__n_features=3)
    net.fit(X.astype(np.float32), ((y - 40) / 5).astype(np.float32)[:, None])
    model = MAPRegressor(FrozenEstimator(net)).fit(X, (y - 40) / 5)
    mean, variance = (part.numpy()[:, 0] for part in net.forward(torch.as_tensor(X).float()))
    found, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std**2, variance, rtol=1e-4)


def test_refused_by_name():
    X, y = table(40)
    for net, parts, error in (
        (pair_net(module=MLP), ("(mean, variance)", "Tensor", "LikelihoodLoss"), TypeError),
        (column_net(module__n_outputs=1), ("1 outputs", "2 outputs"), ValueError),
        (NeuralNetRegressor(Pair, **OPTIONS), ("tuple",), TypeError),
    ):
        model = SubnetLaplaceRegressor(net, **QUICK)
        assert_refused(lambda model=model: model.fit(X, y), *parts, error=error)
    other = SubnetLaplaceRegressor(pair_net(MeanOnly), **QUICK)
    assert_refused(lambda: other.fit(X, y), "get_loss", "GaussianNLLLoss", "LikelihoodLoss")
    noisy = SubnetLaplaceRegressor(pair_net(), noise=1.0, **QUICK)
    assert_refused(lambda: noisy.fit(X, y), "noise=1.0", "MeanVariance")
