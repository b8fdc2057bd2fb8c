"""The estimators against closed forms and against dense Laplace from explicit Jacobians."""

import dense
import numpy as np
import pytest
import torch
from frozen_models import (
    NOISE,
    X_NEW,
    classification_ggn,
    classifier,
    epistemic_variance,
    labelled_rows,
    regression_ggn,
    regression_rows,
    regressor,
)
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.linear_model import BayesianRidge, LogisticRegression
from skorch import NeuralNetBinaryClassifier, NeuralNetRegressor
from skorch.dataset import ValidSplit
from torch import nn

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.nets.training import hold_out
from sksubnet.posterior.cholesky import CholeskyPosterior
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.kernel import KernelPosterior

RNG = np.random.default_rng(0)

# Linear nets: exact inference


@pytest.fixture(scope="module")
def linear_rows():
    X = RNG.normal(size=(60, 5)) * [1, 2, 0.5, 1, 3]
    X -= X.mean(axis=0)
    return X, 3 + X @ [1, -0.5, 2, 0, 0.3] + RNG.normal(size=60)


def test_linear_net_equals_bayesian_ridge(linear_rows):
    X, y = linear_rows
    ridge = BayesianRidge().fit(X, y)
    module = nn.Linear(5, 1).double()
    module.weight.data = torch.as_tensor(ridge.coef_[None])
    module.bias.data = torch.as_tensor([ridge.intercept_])
    reg = SubnetLaplaceRegressor(
        dense.frozen(NeuralNetRegressor, module, nn.MSELoss),
        subnetwork_size="all",
        prior_precision=ridge.lambda_,
        noise=ridge.alpha_**-0.5,
    ).fit(X, y)
    X_far = 4 * RNG.normal(size=(20, 5))
    mean, std = reg.predict(X_far, return_std=True)
    expected_mean, expected_std = ridge.predict(X_far, return_std=True)
    assert_allclose(mean, expected_mean, rtol=1e-6)
    assert_allclose(std, expected_std, rtol=1e-6)
    marginal = stats.multivariate_normal(
        np.full(60, ridge.intercept_), np.eye(60) / ridge.alpha_ + X @ X.T / ridge.lambda_
    )
    assert reg.log_marginal_likelihood() == pytest.approx(marginal.logpdf(y), rel=1e-9)


@pytest.mark.parametrize("trained", [True, False])
def test_rows_that_stop_the_training_do_not_count(linear_rows, trained):
    X, y = linear_rows
    options = {"module__in_features": 5, "module__out_features": 1, "module__bias": False}
    net = NeuralNetRegressor(
        nn.Linear, train_split=ValidSplit(4), max_epochs=1, verbose=0, **options
    )
    if trained:  # whose split has nothing to stop any more
        module = nn.Linear(5, 1, bias=False).double()
        net = dense.frozen(NeuralNetRegressor, module, nn.MSELoss, train_split=ValidSplit(4))
    reg = SubnetLaplaceRegressor(
        net, subnetwork_size="all", prior_precision=0.7, noise=0.4, normalize_y=False
    ).fit(X, y)
    used = {"fraction": 0.2, "needed": True, "stratify": False, "seed": reg._seed}
    rows = X if trained else X[hold_out(reg.net_, X, y, **used)[0]]
    assert len(rows) == (60 if trained else 45)
    precision = rows.T @ rows / 0.16 + 0.7 * np.eye(5)
    expected = np.einsum("np,pq,nq->n", X, np.linalg.inv(precision), X)
    assert_allclose(reg.predictive(X).covariance[:, 0, 0], expected, rtol=1e-9)


def test_training_with_weight_decay_ends_at_bayesian_ridge(linear_rows):
    X, y = linear_rows
    X, y = X / X.std(axis=0), y - y.mean()
    ridge = BayesianRidge(fit_intercept=False).fit(X, y)
    net = NeuralNetRegressor(
        nn.Linear,
        module__in_features=5,
        module__out_features=1,
        module__bias=False,
        optimizer=torch.optim.SGD,
        optimizer__weight_decay=2 * ridge.lambda_ / ridge.alpha_ / len(X),
        lr=0.3,
        batch_size=-1,
        max_epochs=100,
        train_split=None,
        verbose=0,
    )
    reg = SubnetLaplaceRegressor(
        net,
        subnetwork_size="all",
        prior_precision=ridge.lambda_,
        noise=ridge.alpha_**-0.5,
        normalize_y=False,
        random_state=0,
    ).fit(X, y)
    mean, std = reg.predict(2 * X[:10], return_std=True)
    expected_mean, expected_std = ridge.predict(2 * X[:10], return_std=True)
    assert_allclose(mean, expected_mean, rtol=1e-6)
    assert_allclose(std, expected_std, rtol=1e-6)


def quadrature(mean, variance):
    """E sigmoid(f) under N(mean, variance)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    values = dense.sigmoid(mean[:, None] + np.sqrt(variance)[:, None] * nodes)
    return values @ weights / np.sqrt(2 * np.pi)


def test_one_logit_equals_closed_form_laplace():
    delta = 0.5
    X = RNG.normal(size=(80, 3))
    labels = np.where(X[:, 0] + RNG.normal(size=80) > 0, "yes", "no")
    coef = LogisticRegression(C=1 / delta, fit_intercept=False, tol=1e-10).fit(X, labels).coef_
    module = nn.Linear(3, 1, bias=False).double()
    module.weight.data = torch.as_tensor(coef)
    p = dense.sigmoid(X @ coef[0])
    precision = (X.T * (p * (1 - p))) @ X + delta * np.eye(3)
    expected_mean = X_NEW @ coef[0]
    expected_variance = np.einsum("ni,ij,nj->n", X_NEW, np.linalg.inv(precision), X_NEW)
    probit = dense.sigmoid(expected_mean / np.sqrt(1 + np.pi / 8 * expected_variance))
    exact = quadrature(expected_mean, expected_variance)
    for link, expected, tolerance in [
        ("probit", probit, 1e-9),
        ("extended_probit", probit, 1e-9),
        ("mc", exact, 2e-3),
    ]:
        clf = SubnetLaplaceClassifier(
            dense.frozen(NeuralNetBinaryClassifier, module, nn.BCEWithLogitsLoss),
            subnetwork_size="all",
            prior_precision=delta,
            link=link,
        ).fit(X, labels)
        mean, variance = clf.latent_mean_and_variance(X_NEW)
        assert_allclose(mean[:, 0], expected_mean, rtol=1e-9)
        assert_allclose(variance[:, 0], expected_variance, rtol=1e-9)
        assert_allclose(clf.predict_proba(X_NEW)[:, 1], expected, atol=tolerance)
        assert_allclose(clf.predict_proba(X_NEW).sum(axis=1), 1)
        assert (clf.predict(X_NEW) == np.where(expected > 0.5, "yes", "no")).all()


def extended_probit(mean, covariance):
    """1 / Σ_k exp(-(f_c - f_k) / sqrt(1 + π/8 var(f_c - f_k))), normalised."""
    result = np.zeros_like(mean)
    for n, (f, V) in enumerate(zip(mean, covariance, strict=True)):
        for c in range(len(f)):
            for k in range(len(f)):
                spread = V[c, c] + V[k, k] - 2 * V[c, k]
                result[n, c] += np.exp(-(f[c] - f[k]) / np.sqrt(1 + np.pi / 8 * spread))
    return 1 / result / (1 / result).sum(axis=1, keepdims=True)


def test_softmax_regression_equals_closed_form_laplace():
    delta = 0.3
    X, _ = labelled_rows(90)
    y = np.argmax(X + RNG.normal(size=X.shape), axis=1)
    coef = LogisticRegression(C=1 / delta, fit_intercept=False, tol=1e-10).fit(X, y).coef_
    module = nn.Linear(3, 3, bias=False).double()
    module.weight.data = torch.as_tensor(coef)
    precision = delta * np.eye(9)
    for x, hessian in zip(X, dense.softmax_hessian(X @ coef.T), strict=True):
        precision += np.kron(hessian, np.outer(x, x))
    mean = X_NEW @ coef.T
    blocks = np.linalg.inv(precision).reshape(3, 3, 3, 3)
    covariance = np.einsum("cikj,ni,nj->nck", blocks, X_NEW, X_NEW)
    variance = np.einsum("ncc->nc", covariance)
    draws = RNG.multivariate_normal(coef.ravel(), np.linalg.inv(precision), size=100_000)
    sampled = dense.softmax(np.einsum("mci,ni->mnc", draws.reshape(-1, 3, 3), X_NEW)).mean(axis=0)
    for link, expected, tolerance in [
        ("probit", dense.softmax(mean / np.sqrt(1 + np.pi / 8 * variance)), 1e-9),
        ("extended_probit", extended_probit(mean, covariance), 1e-9),
        ("mc", sampled, 4e-3),
    ]:
        clf = classifier(module, prior_precision=delta, link=link).fit(X, y)
        found_mean, found_variance = clf.latent_mean_and_variance(X_NEW)
        assert_allclose(found_mean, mean, rtol=1e-9, atol=1e-12)
        assert_allclose(found_variance, variance, rtol=1e-9)
        assert_allclose(clf.predictive(X_NEW).covariance, covariance, atol=1e-10)
        assert_allclose(clf.predict_proba(X_NEW), expected, atol=tolerance)


# Nets: dense Laplace. The nets have 38 and 45 weights


REPRESENTATIONS = pytest.mark.parametrize("kind", ["dual", "primal", "cholesky"])


def prepare(kind, monkeypatch):
    """Number of rows that leads to this representation of the curvature."""
    if kind == "cholesky":
        monkeypatch.setattr("sksubnet.posterior.kinds.EIGEN_LIMIT", 10)
    return 9 if kind == "dual" else 90


def representation(estimator):
    kinds = {CholeskyPosterior: "cholesky", KernelPosterior: "dual", GaussianPosterior: "primal"}
    return kinds[type(estimator.posterior_)]


@REPRESENTATIONS
def test_full_regressor_equals_dense_posterior(kind, monkeypatch):
    n_rows = prepare(kind, monkeypatch)
    module = dense.mlp()
    X, y = regression_rows(n_rows)
    reg = regressor(module).fit(X, y)
    assert kind == representation(reg)
    G = regression_ggn(module, X)
    precision = G + 0.7 * np.eye(38)
    J = dense.jacobian(module, X_NEW)
    covariance = dense.outputs_covariance(J, precision)
    mean, std = reg.predict(X_NEW, return_std=True)
    assert_allclose(mean, dense.evaluate(module, X_NEW), rtol=1e-9)
    assert_allclose(std, np.sqrt(np.einsum("ncc->nc", covariance) + NOISE**2), rtol=1e-9)
    assert_allclose(reg.predictive(X_NEW).covariance, covariance, atol=1e-9)
    joint = reg.predict(X_NEW, return_cov=True)[1]
    for c in range(2):
        expected = J[:, c] @ np.linalg.inv(precision) @ J[:, c].T + NOISE[c] ** 2 * np.eye(9)
        assert_allclose(joint[:, :, c], expected, atol=1e-9)
    log_likelihood = stats.norm(dense.evaluate(module, X), NOISE).logpdf(y).sum()
    expected = dense.log_evidence(log_likelihood, G, dense.weight_vector(module), 0.7)
    assert reg.log_marginal_likelihood() == pytest.approx(expected, rel=1e-9)


@REPRESENTATIONS
def test_full_classifier_equals_dense_posterior(kind, monkeypatch):
    n_rows = prepare(kind, monkeypatch)
    module = dense.mlp(n_outputs=3, seed=1)
    X, y = labelled_rows(n_rows)
    clf = classifier(module).fit(X, y)
    assert kind == representation(clf)
    G = classification_ggn(module, X)
    covariance = dense.outputs_covariance(dense.jacobian(module, X_NEW), G + 0.7 * np.eye(45))
    mean, variance = clf.latent_mean_and_variance(X_NEW)
    assert_allclose(mean, dense.evaluate(module, X_NEW), rtol=1e-9)
    assert_allclose(variance, np.einsum("ncc->nc", covariance), rtol=1e-8)
    assert_allclose(clf.predictive(X_NEW).covariance, covariance, atol=1e-8)
    assert_allclose(clf.predict_proba(X_NEW), extended_probit(mean, covariance), atol=1e-9)
    log_likelihood = np.log(dense.softmax(dense.evaluate(module, X))[np.arange(n_rows), y]).sum()
    expected = dense.log_evidence(log_likelihood, G, dense.weight_vector(module), 0.7)
    assert clf.log_marginal_likelihood() == pytest.approx(expected, rel=1e-9)


@REPRESENTATIONS
@pytest.mark.parametrize("tuning", ["evidence", "validation"])
def test_tuned_regressor_equals_dense_posterior_at_its_precisions(kind, tuning, monkeypatch):
    # With the rows of the dual nothing can be held out, so the evidence decides in any case.
    n_rows = max(prepare(kind, monkeypatch), 9 if kind == "dual" else 120)
    module = dense.mlp()
    X, y = regression_rows(n_rows)
    y = dense.evaluate(module, X) + y * [0.3, 2]
    reg = regressor(module, prior_precision=tuning, noise="constant").fit(X, y)
    assert kind == representation(reg)
    delta, noise = reg.prior_precision_, reg.noise_std_
    if tuning == "validation" and n_rows >= 100:
        train = hold_out(reg.net_, X, y, fraction=0.2, needed=True, stratify=False, seed=reg._seed)[
            0
        ]
        X, y = X[train], y[train]
    G = regression_ggn(module, X, noise)
    covariance = dense.outputs_covariance(dense.jacobian(module, X_NEW), G + delta * np.eye(38))
    assert_allclose(reg.predictive(X_NEW).covariance, covariance, rtol=1e-6, atol=1e-9)
    expected = np.sqrt(np.einsum("ncc->nc", covariance) + noise**2)
    assert_allclose(reg.predict(X_NEW, return_std=True)[1], expected, rtol=1e-7)
    log_likelihood = stats.norm(dense.evaluate(module, X), noise).logpdf(y).sum()
    expected = dense.log_evidence(log_likelihood, G, dense.weight_vector(module), delta)
    assert reg.log_marginal_likelihood() == pytest.approx(expected, rel=1e-8)
    draws = reg.posterior_.sample(10_000, torch.Generator().manual_seed(0)).numpy()
    inverse = np.linalg.inv(G + delta * np.eye(38))
    assert_covariance_of_draws(draws, dense.weight_vector(module), inverse)


@pytest.mark.parametrize("n_rows", [8, 80])
def test_subnetwork_is_a_block_of_the_dense_precision(n_rows):
    module = dense.mlp()
    X, y = regression_rows(n_rows)
    indices = np.array([37, 1, 4, 18, 19, 22, 30, 5, 33, 9, 11, 12, 13, 14, 24, 26, 28, 8])
    reg = regressor(module, selection=indices).fit(X, y)
    indices = np.sort(indices)
    precision = regression_ggn(module, X)[np.ix_(indices, indices)] + 0.7 * np.eye(len(indices))
    J = dense.jacobian(module, X_NEW)[:, :, indices]
    expected = dense.outputs_covariance(J, precision)
    assert_allclose(reg.predictive(X_NEW).covariance, expected, atol=1e-9)


def test_units_of_a_trained_regressor():
    X, y = regression_rows(150, 1)
    y = 500 + 40 * (np.sin(2 * X[:, 0]) + 0.1 * y[:, 0])
    reg = SubnetLaplaceRegressor(
        subnetwork_size=60,
        selection="magnitude",
        prior_precision=2.0,
        noise=7.0,
        cv=None,
        random_state=0,
    ).fit(X, y)
    module, indices, scale = reg.net_.module_, reg.subnetwork_.indices, y.std()
    train = hold_out(reg.net_, X, y, fraction=0.2, needed=True, stratify=False, seed=reg._seed)[0]
    center, X_new = y.mean(), reg._encoding(X_NEW)
    assert_allclose(reg.net_.predict(X_NEW), dense.evaluate(module, X_new))  # encodes by itself
    inputs, X, y = reg._encoding(X)[train], X[train], y[train]
    J = dense.jacobian(module, inputs)[:, :, indices]
    precision = (scale / 7) ** 2 * dense.ggn(J, np.ones((120, 1, 1))) + 2 * np.eye(60)
    J_new = dense.jacobian(module, X_new)[:, :, indices]
    variance = scale**2 * dense.outputs_covariance(J_new, precision)[:, 0, 0]
    mean, std = reg.predict(X_NEW, return_std=True)
    assert_allclose(mean, center + scale * dense.evaluate(module, X_new)[:, 0], rtol=1e-9)
    assert_allclose(std, np.sqrt(variance + 49), rtol=1e-7)
    log_likelihood = stats.norm(reg.predict(X), 7.0).logpdf(y).sum()
    expected = dense.log_evidence(
        log_likelihood, precision - 2 * np.eye(60), reg.posterior_.mean.numpy(), 2.0
    )
    assert reg.log_marginal_likelihood() == pytest.approx(expected, rel=1e-9)


def test_diagonal_covariance_is_the_explicit_formula():
    module = dense.mlp(n_outputs=3, seed=1)
    X, y = labelled_rows(60)
    clf = classifier(module, covariance="diag").fit(X, y)
    variances = 1 / (np.diag(classification_ggn(module, X)) + 0.7)
    J = dense.jacobian(module, X_NEW)
    expected = np.einsum("ncs,s,nks->nck", J, variances, J)
    assert_allclose(clf.predictive(X_NEW).covariance, expected, rtol=1e-9, atol=1e-12)
    part = classifier(module, covariance="diag", selection=[3, 20, 40]).fit(X, y)
    expected = J[..., [3, 20, 40]] ** 2 @ variances[[3, 20, 40]]
    assert_allclose(epistemic_variance(part), expected, rtol=1e-9)


@REPRESENTATIONS
def test_variance_grows_with_nested_subnetworks_up_to_the_full_one(kind, monkeypatch):
    n_rows = prepare(kind, monkeypatch)
    X, y = regression_rows(n_rows)
    order = np.random.default_rng(4).permutation(38)
    full = epistemic_variance(regressor().fit(X, y))
    before = np.zeros_like(full)
    for size in (1, 4, 12, 25, 37, 38):
        variance = epistemic_variance(regressor(selection=order[:size]).fit(X, y))
        assert (variance >= before - 1e-9).all()
        assert variance.sum() > before.sum()
        assert (variance <= full + 1e-9).all()
        before = variance
    assert_allclose(before, full, rtol=1e-9)


def test_huge_prior_precision_gives_the_map():
    X, y = labelled_rows(60)
    clf = classifier(prior_precision=1e12).fit(X, y)
    expected = dense.softmax(dense.evaluate(dense.mlp(n_outputs=3, seed=1), X_NEW))
    assert_allclose(clf.predict_proba_map(X_NEW), expected, rtol=1e-9)
    assert_allclose(clf.predict_proba(X_NEW), expected, atol=1e-9)
    assert_allclose(clf.latent_mean_and_variance(X_NEW)[1], 0, atol=1e-9)


def test_subnetwork_without_effect_gives_the_map():
    X, y = labelled_rows(60)
    X[:, 1] = 0
    X_zero = X_NEW * [1, 0, 1]
    # Weight 4 of the first layer leads from the column of zeros to the second unit.
    clf = classifier(selection=[4])
    with pytest.warns(UserWarning, match="almost no effect"):
        clf.fit(X, y)
    assert clf.subnetwork_.n_inert == 1
    assert_allclose(clf.predict_proba(X_zero), clf.predict_proba_map(X_zero), rtol=1e-12)


# Draws


def assert_covariance_of_draws(draws, mean, covariance):
    """Sample moments of draws (M, S) within five standard errors of the exact ones."""
    n_draws = len(draws)
    variance = np.diag(covariance)
    error = np.abs(draws.mean(axis=0) - mean) / np.sqrt(variance / n_draws)
    assert error.max() < 5
    expected_error = np.sqrt((np.outer(variance, variance) + covariance**2) / n_draws)
    assert (np.abs(np.cov(draws.T) - covariance) < 5 * expected_error).all()


@pytest.mark.parametrize("n_rows", [8, 80])
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_draws_reproduce_the_covariance(n_rows, covariance):
    module = dense.mlp()
    X, y = regression_rows(n_rows)
    reg = regressor(module, covariance=covariance).fit(X, y)
    precision = regression_ggn(module, X) + 0.7 * np.eye(38)
    if covariance == "diag":
        precision = np.diag(np.diag(precision))
    draws = reg.posterior_.sample(10_000, torch.Generator().manual_seed(0)).numpy()
    assert_covariance_of_draws(draws, dense.weight_vector(module), np.linalg.inv(precision))


@REPRESENTATIONS
def test_sample_y_reproduces_the_joint_covariance(kind, monkeypatch):
    n_rows = prepare(kind, monkeypatch)
    X, y = regression_rows(n_rows)
    reg = regressor().fit(X, y)
    mean, joint = reg.predict(X_NEW, return_cov=True)
    draws = reg.sample_y(X_NEW, 10_000, random_state=0)
    assert draws.shape == (9, 2, 10_000)
    for c in range(2):
        assert_covariance_of_draws(draws[:, c].T, mean[:, c], joint[:, :, c])
    assert (reg.sample_y(X_NEW, 3, random_state=1) == reg.sample_y(X_NEW, 3, random_state=1)).all()


def test_sample_y_in_the_units_of_the_target():
    X, y = regression_rows(60, 1)
    y = 500 + 40 * (X[:, 0] + 0.3 * y[:, 0])
    reg = SubnetLaplaceRegressor(subnetwork_size=40, noise="constant", cv=None, random_state=0).fit(
        X, y
    )
    mean, joint = reg.predict(X_NEW, return_cov=True)
    assert_allclose(np.sqrt(np.diag(joint)), reg.predict(X_NEW, return_std=True)[1], rtol=1e-9)
    assert_covariance_of_draws(reg.sample_y(X_NEW, 10_000).T, mean, joint)
