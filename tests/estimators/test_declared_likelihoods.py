"""Criteria of a user's own that declare their likelihood, against closed forms and quadrature."""

import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn
from user_nets import MLP, OPTIONS, assert_refused, iris

from sksubnet import (
    DeepEnsembleRegressor,
    Likelihood,
    LikelihoodLoss,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    VOGNRegressor,
)
from sksubnet.predictive import Bernoulli, Categorical, Gaussian

ALL = {"subnetwork_size": "all", "candidates": "all", "cv": None, "random_state": 0}
QUICK = {"subnetwork_size": 12, "prior_precision": 1.0, "cv": None, "random_state": 0}


class Huber(Likelihood):
    """A normal density within delta of the output, and exponential tails."""

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    @property
    def inside(self) -> float:
        """Integral of the unnormalised density within delta."""
        return (2 * np.pi) ** 0.5 * (2 * special.ndtr(self.delta) - 1)

    @property
    def tail(self) -> float:
        """Integral of one tail."""
        return np.exp(-(self.delta**2) / 2) / self.delta

    @property
    def total(self) -> float:
        return self.inside + 2 * self.tail

    def log_prob(self, f, y):
        losses = nn.functional.huber_loss(f, y.expand_as(f), reduction="none", delta=self.delta)
        return (-losses - np.log(self.total)).sum(-1)

    def hessian_root(self, f):
        return torch.diag_embed(torch.full_like(f, (self.inside / self.total) ** 0.5))

    def mean(self, f):
        return f

    def variance(self, f):
        d = self.delta
        middle = self.inside - 2 * d * np.exp(-(d**2) / 2)
        outer = 2 * self.tail * (d**2 + 2 + 2 / d**2)
        return torch.full_like(f, (middle + outer) / self.total)

    def cdf(self, f, y):
        r, d = y - f, self.delta
        left = self.tail * torch.exp(d * (r.clamp(max=-d) + d))
        middle = (2 * np.pi) ** 0.5 * (special.ndtr(r.clamp(-d, d)) - special.ndtr(-d))
        right = self.tail * -torch.expm1(-d * (r.clamp(min=d) - d))
        return (left + middle + right) / self.total

    def sample(self, f, generator):
        grid = torch.linspace(-30, 30, 6001, dtype=f.dtype)
        uniform = torch.rand(f.shape, generator=generator, dtype=f.dtype)
        return f + grid[torch.searchsorted(self.cdf(torch.zeros(()), grid), uniform)]


class DeclaredHuberLoss(nn.HuberLoss):
    @property
    def likelihood(self) -> Likelihood:
        return Huber(self.delta)


def huber_net(**options) -> NeuralNetRegressor:
    return NeuralNetRegressor(
        **{"module": MLP, "criterion": DeclaredHuberLoss, **OPTIONS, **options}
    )


def table(n_rows=80):
    rng = np.random.default_rng(0)
    X = np.c_[np.ones(n_rows), rng.normal(size=(n_rows, 2))]
    return X, X @ [0.5, 1.0, -2.0] + 0.7 * rng.standard_t(3, size=n_rows)


def test_the_test_s_own_likelihood_is_one():
    def density(r):
        return np.exp(float(Huber(0.8).log_prob(torch.zeros(1), torch.tensor([r]))))

    parts = [(-30, -0.8), (-0.8, 0.8), (0.8, 30)]
    for power, expected in (
        (0, 1.0),
        (2, float(Huber(0.8).variance(torch.zeros(1, dtype=torch.float64)))),
    ):
        integrals = [integrate.quad(lambda r: r**power * density(r), *part)[0] for part in parts]  # noqa: B023
        assert sum(integrals) == pytest.approx(expected, rel=1e-5)


def test_the_posterior_and_predictive_of_a_linear_net():
    X, y = table()
    linear = {"module": nn.Linear, "module__bias": False, "criterion__delta": 0.8}
    model = SubnetLaplaceRegressor(huber_net(**linear), prior_precision=0.5, **ALL).fit(X, y)
    w = model.net_.module_.weight.detach().numpy()[0]
    information = 1 / (1 + 2 * Huber(0.8).tail / Huber(0.8).inside)
    covariance = np.linalg.inv(information * X.T @ X + 0.5 * np.eye(3))
    new = X[:7] * 2
    variance = np.einsum("np,pq,nq->n", new, covariance, new)
    mean, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(mean, new @ w, rtol=1e-9)
    aleatoric = float(Huber(0.8).variance(torch.zeros(1, dtype=torch.float64)))
    np.testing.assert_allclose(std**2, variance + aleatoric, rtol=1e-9)
    predictive = model.predictive(new)
    f = torch.as_tensor(mean + np.sqrt(variance) * np.linspace(-9, 9, 4001)[:, None])
    weights = stats.norm.pdf(np.linspace(-9, 9, 4001))
    weights /= weights.sum()
    target = torch.as_tensor(mean + 1.0)
    density = weights @ np.exp(Huber(0.8).log_prob(f[..., None], target[..., None]).numpy())
    np.testing.assert_allclose(predictive.log_prob(target), np.log(density), atol=1e-6)
    for level, column in zip((0.05, 0.6), predictive.quantiles((0.05, 0.6)).T, strict=True):
        below = weights @ Huber(0.8).cdf(f, torch.as_tensor(column[0])).numpy()
        np.testing.assert_allclose(below, level, atol=1e-6)
    draws = model.sample_y(new, 20_000)
    np.testing.assert_allclose(np.quantile(draws, 0.6, axis=1), column[0], atol=0.1)


def test_it_trains_as_its_own_negative_log():
    X, y = table()
    by_class = SubnetLaplaceRegressor(huber_net(criterion__delta=0.8), **QUICK)
    loss = {"criterion": LikelihoodLoss, "criterion__likelihood": Huber(0.8)}
    weights = np.random.default_rng(0).integers(1, 4, size=len(X)).astype(float)
    for weight in (None, weights):
        expected = clone(by_class).fit(X, y, sample_weight=weight).predict(X, return_std=True)
        for net in (huber_net(**loss), huber_net(criterion=LikelihoodLoss(Huber(0.8)))):
            model = SubnetLaplaceRegressor(net, **QUICK).fit(X, y, sample_weight=weight)
            np.testing.assert_allclose(model.predict(X, return_std=True), expected, rtol=1e-6)
    repeated = np.repeat(np.arange(len(X)), weights.astype(int))
    net = huber_net(criterion__delta=0.8, batch_size=-1)
    one = SubnetLaplaceRegressor(net, **QUICK).fit(X, y, sample_weight=weights)
    other = SubnetLaplaceRegressor(net, **QUICK).fit(X[repeated], y[repeated])
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-6)


def test_a_search_changes_loss_and_likelihood_together():
    X, y = table(60)
    model = SubnetLaplaceRegressor(huber_net(), **QUICK)
    search = GridSearchCV(
        model,
        {"net__criterion__delta": [0.1, 2.0]},
        scoring=lambda est, X, y: est.predictive(X).log_prob(y).mean(),
        cv=2,
    ).fit(X, y)
    best = search.best_estimator_
    assert best.folds_[0].likelihood.delta == search.best_params_["net__criterion__delta"]
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_quantiles(X[:5]), best.predict_quantiles(X[:5]))


@pytest.mark.parametrize(
    "method", [MAPRegressor, SWAGRegressor, VOGNRegressor, DeepEnsembleRegressor]
)
def test_baselines_mix_it(method):
    X, y = table(50)
    model = method(huber_net(), random_state=0)
    small = {"n_draws": 4, "n_members": 2, "n_epochs": 20, "n_snapshots": 5, "rank": 3}
    model.set_params(**{k: v for k, v in small.items() if k in model.get_params()}).fit(X, y)
    means = model.predictive(X).mixture.means[:, :, 0]
    _, std = model.predict(X, return_std=True)
    aleatoric = float(Huber().variance(torch.zeros(1, dtype=torch.float64)))
    np.testing.assert_allclose(std**2, aleatoric + means.var(0, correction=0))


class SmoothedLoss(nn.CrossEntropyLoss):
    likelihood = Categorical()

    def __init__(self, label_smoothing=0.2, reduction="mean"):
        super().__init__(label_smoothing=label_smoothing, reduction=reduction)


def test_smoothed_labels_are_a_softmax():
    X, y = iris()
    net = NeuralNetClassifier(MLP, criterion=SmoothedLoss, **OPTIONS)
    model = SubnetLaplaceClassifier(net, **QUICK).fit(X, y)
    trained = model.net_
    outputs = trained.forward(torch.as_tensor(X, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(model.predict_proba_map(X), special.softmax(outputs, axis=1))
    plain = NeuralNetClassifier(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS).initialize()
    plain.module_.double().load_state_dict(trained.module_.state_dict())
    expected = SubnetLaplaceClassifier(FrozenEstimator(plain), **QUICK).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), rtol=1e-9)
    smoothed = NeuralNetClassifier(
        MLP, criterion=nn.CrossEntropyLoss, criterion__label_smoothing=0.2, **OPTIONS
    )
    refused = SubnetLaplaceClassifier(smoothed, **QUICK)
    assert_refused(lambda: refused.fit(X, y), "label_smoothing=0.2", "likelihood = ")


class FocalLoss(nn.BCEWithLogitsLoss):
    """Rows that are right already count less."""

    likelihood = Bernoulli()

    def forward(self, input, target):
        losses = nn.functional.binary_cross_entropy_with_logits(input, target, reduction="none")
        losses = (1 - torch.exp(-losses)) ** 2 * losses
        return losses if self.reduction == "none" else losses.mean()


def test_a_focal_loss_is_one_logit():
    X, y = iris()
    net = NeuralNetClassifier(MLP, criterion=FocalLoss, **OPTIONS)
    weight = np.random.default_rng(0).uniform(size=len(X))
    model = SubnetLaplaceClassifier(net, **QUICK).fit(X, y > 0, sample_weight=weight)
    logits = model.net_.forward(torch.as_tensor(X, dtype=torch.float64)).numpy()[:, 0]
    np.testing.assert_allclose(model.predict_proba_map(X)[:, 1], special.expit(logits))


class GaussianHuberLoss(nn.HuberLoss):
    likelihood = Gaussian(torch.ones(1))


def test_robust_training_with_gaussian_noise():
    X, y = table()
    y = np.c_[y, 10 * y + 100]
    model = SubnetLaplaceRegressor(huber_net(criterion=GaussianHuberLoss), **QUICK).fit(X, y)
    assert model.noise_std_.shape == (2,)  # found, and in units that are those of the targets
    np.testing.assert_allclose(model.noise_std_[1] / model.noise_std_[0], 10, rtol=0.3)
    given = SubnetLaplaceRegressor(huber_net(criterion=GaussianHuberLoss), noise=[1, 2], **QUICK)
    np.testing.assert_allclose(given.fit(X, y).noise_std_, [1, 2])


class NegativeBinomial(Likelihood):
    """Counts of mean exp(m) and of variance mean + mean² exp(s)."""

    discrete, outputs_per_target = True, 2

    def around(self, f):
        log_mean, log_dispersion = f.chunk(2, dim=-1)
        total = torch.exp(-log_dispersion)
        return torch.distributions.NegativeBinomial(total, logits=log_mean + log_dispersion)

    def log_prob(self, f, y):
        return self.around(f).log_prob(y).sum(-1)

    def hessian_root(self, f):
        log_mean, log_dispersion = f.chunk(2, dim=-1)
        of_mean = (log_mean.exp() / (1 + torch.exp(log_mean + log_dispersion))).sqrt()
        return torch.diag_embed(torch.cat([of_mean, torch.full_like(of_mean, 0.5)], dim=-1))

    def mean(self, f):
        return self.around(f).mean

    def variance(self, f):
        return self.around(f).variance

    def cdf(self, f, y):
        around = self.around(f)
        found = stats.nbinom.cdf(y.numpy(), around.total_count.numpy(), 1 - around.probs.numpy())
        return torch.as_tensor(found)

    def sample(self, f, generator):
        mean, variance = self.mean(f), self.variance(f)
        return (mean + variance.sqrt() * torch.randn(mean.shape, generator=generator)).round()


def test_two_outputs_for_each_count():
    X, y = table()
    y = np.random.default_rng(1).poisson(np.exp(1 + 0.3 * y.clip(-3, 3)))
    loss = {"criterion": LikelihoodLoss, "criterion__likelihood": NegativeBinomial()}
    model = SubnetLaplaceRegressor(huber_net(**loss), **QUICK).fit(X, y)
    predictive = model.predictive(X[:6])
    mean, covariance = predictive.mixture.means[0], predictive.mixture.covariances[0]
    root = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(2))
    normals = torch.randn(40_000, 6, 2, generator=torch.Generator().manual_seed(0)).double()
    f = mean + (root @ normals[..., None])[..., 0]
    expected = NegativeBinomial().mean(f).mean(0)
    np.testing.assert_allclose(predictive.mean, expected, rtol=0.02)
    variance = NegativeBinomial().variance(f).mean(0) + NegativeBinomial().mean(f).var(0)
    np.testing.assert_allclose(predictive.std() ** 2, variance, rtol=0.1)
    target = torch.as_tensor(y[:6, None]).double()
    density = NegativeBinomial().log_prob(f, target).exp().mean(0).log()
    np.testing.assert_allclose(predictive.log_prob(y[:6]), density, atol=0.02)
    quantiles = predictive.quantiles((0.2, 0.9))
    assert (quantiles == quantiles.round()).all()
    assert (predictive.cdf(quantiles[..., 1]) >= 0.9).all()


class Pickles(Callback):
    """Keeps a copy of the net while it trains, as checkpoints do."""

    def on_epoch_end(self, net, **kwargs):
        self.kept_ = pickle.loads(pickle.dumps(net.criterion_))


def test_checkpoints_in_training():
    X, y = table(40)
    net = huber_net(callbacks=[("pickles", Pickles())], criterion__delta=0.8)
    model = SubnetLaplaceRegressor(net, **QUICK).fit(X, y)
    kept = dict(model.net_.callbacks_)["pickles"].kept_
    assert isinstance(kept, DeclaredHuberLoss) and kept.likelihood.delta == 0.8


class ScalarLoss(nn.Module):
    likelihood = Huber()

    def forward(self, outputs, targets):
        return (outputs - targets).abs().mean()


class StubbornLoss(ScalarLoss):
    reduction = "mean"


class Undeclared(nn.HuberLoss):
    pass


class NotALikelihood(nn.HuberLoss):
    likelihood = "huber"


class WithoutMean(Huber):
    mean = Likelihood.mean


class SummedOverRows(Huber):
    def log_prob(self, f, y):
        return super().log_prob(f, y).sum()


class PlainLoss:
    likelihood = Gaussian(torch.ones(1))

    def __call__(self, prediction, target):
        return (prediction - target).square().mean()


class FlatRoot(Huber):
    def hessian_root(self, f):
        return torch.ones_like(f)


def test_refused_by_name():
    X, y = table(40)

    def fit(criterion, likelihood=None, **weights):
        net = huber_net(criterion=criterion)
        if likelihood is not None:
            net.set_params(criterion__likelihood=likelihood)
        return lambda: SubnetLaplaceRegressor(net, **QUICK).fit(X, y, **weights)

    fit(ScalarLoss)()  # trains, for all rows count the same
    weights = {"sample_weight": np.arange(1.0, 41)}
    assert_refused(fit(ScalarLoss, **weights), "sample_weight", "reduction")
    assert_refused(fit(StubbornLoss, **weights), "one number with reduction='none'")
    assert_refused(fit(Undeclared), "Undeclared has no known likelihood", "attribute `likelihood`")
    declared = fit(NotALikelihood)
    assert_refused(declared, "NotALikelihood.likelihood", "'huber'", "Likelihood", error=TypeError)
    for likelihood, parts in (
        (SummedOverRows(), ("log_prob(f, y)", "SummedOverRows", "()", "(2,)")),
        (FlatRoot(), ("hessian_root(f)", "FlatRoot", "(2, 1)")),
    ):
        assert_refused(fit(LikelihoodLoss, likelihood), *parts)
    missing = fit(LikelihoodLoss, WithoutMean())
    assert_refused(missing, "WithoutMean has no mean(f)", error=NotImplementedError)
    for criterion in (PlainLoss, lambda: nn.functional.mse_loss):
        assert_refused(fit(criterion), "criterion", "torch.nn.Module", error=TypeError)
    noisy = SubnetLaplaceRegressor(huber_net(), noise="input", **QUICK)
    assert_refused(lambda: noisy.fit(X, y), "noise='input'", "Huber")
    logged = SubnetLaplaceRegressor(huber_net(), target_transform="log", **QUICK)
    assert_refused(lambda: logged.fit(X, np.exp(y)), "target_transform='log'", "Huber")
    classes = SubnetLaplaceClassifier(huber_net(), **QUICK)
    assert_refused(lambda: classes.fit(X, y > 0), "DeclaredHuberLoss is a regression loss")
    with pytest.raises(TypeError, match="Huber cannot be scaled"):
        fit(DeclaredHuberLoss)().predictive(X).scaled(torch.tensor([2.0]), torch.tensor([0.0]))
