"""The Cholesky route for many weights, against dense linear algebra and the eigendecomposition."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris

import sksubnet.posterior.cholesky
import sksubnet.posterior.kinds
import sksubnet.posterior.memory
from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.posterior.cholesky import CholeskyPosterior, ShiftedCholesky, mirror_upper_

S = 45


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sksubnet.posterior.cholesky, "BLOCK", 16)


@pytest.fixture
def matrix():
    factors = torch.randn(3 * S, S, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = factors.mT @ factors
    return product.triu() + product.triu(1).mT


def shifted(matrix, shift):
    return matrix + shift * torch.eye(S, dtype=torch.float64)


@pytest.mark.parametrize("shift", [1e-3, 0.7, 50.0])
def test_factor_is_that_of_the_shifted_matrix(matrix, shift):
    factor = ShiftedCholesky(matrix.clone())
    assert factor.factorise(shift)
    expected = torch.linalg.cholesky(shifted(matrix, shift))
    torch.testing.assert_close(factor.matrix.tril(), expected, rtol=1e-12, atol=1e-12)
    assert factor.log_det() == pytest.approx(float(torch.logdet(shifted(matrix, shift))), rel=1e-12)


def test_factorising_reads_the_upper_triangle_only_and_gives_the_matrix_back(matrix):
    factor = ShiftedCholesky(matrix.triu())
    factor.factorise(2.0)
    factor.factorise(0.5)
    rows = torch.eye(S, dtype=torch.float64)
    inverse = torch.linalg.inv(shifted(matrix, 0.5))
    torch.testing.assert_close(factor.solve(rows), inverse, rtol=1e-10, atol=1e-12)
    factor.restore()
    torch.testing.assert_close(factor.matrix, matrix, rtol=0, atol=0)


def test_failing_factorisation_is_reported_and_leaves_the_matrix(matrix):
    indefinite = matrix - 1e6 * torch.eye(S, dtype=torch.float64)
    factor = ShiftedCholesky(indefinite.clone())
    assert not factor.factorise(1.0)
    torch.testing.assert_close(factor.matrix, indefinite, rtol=0, atol=0)
    posterior = CholeskyPosterior(torch.zeros(S, dtype=torch.float64), factor)
    assert posterior.log_occam(1.0) == math.inf
    assert posterior.project(torch.ones(2, 1, S)).variance(1.0).isnan().all()
    with pytest.raises(ValueError, match=r"not positive definite.*prior_precision=1"):
        posterior.tuned(1.0)


def test_float32_solves_are_refined_to_float64(matrix):
    low = matrix.float()
    factor = ShiftedCholesky(low.clone())
    factor.factorise(0.1)
    rows = torch.randn(7, S, dtype=torch.float64)
    expected = torch.linalg.solve(shifted(low.double(), 0.1), rows.mT).mT
    torch.testing.assert_close(factor.solve(rows), expected, rtol=1e-9, atol=1e-12)
    unrefined = factor.colour(factor.whiten(rows)).double()
    assert (unrefined - expected).abs().max() > 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_posterior_equals_the_dense_one(matrix, dtype):
    stored = matrix.to(dtype)
    mean = torch.linspace(-1, 1, S, dtype=torch.float64)
    posterior = CholeskyPosterior(mean, ShiftedCholesky(stored.clone())).tuned(0.3, 2.0)
    precision = shifted(stored.double() / 2.0, 0.3)
    jacobian = torch.randn(4, 3, S, dtype=torch.float64)
    expected = jacobian @ torch.linalg.inv(precision) @ jacobian.mT
    torch.testing.assert_close(posterior.covariance(jacobian), expected, rtol=1e-8, atol=1e-10)
    log_evidence = -7.0 - 0.5 * (
        0.3 * float(mean @ mean) + float(torch.logdet(precision)) - S * math.log(0.3)
    )
    assert posterior.log_evidence(-7.0) == pytest.approx(log_evidence, rel=1e-6)


def test_draws_reproduce_the_covariance(matrix):
    posterior = CholeskyPosterior(
        torch.ones(S, dtype=torch.float64), ShiftedCholesky(matrix.clone())
    ).tuned(5.0, 3.0)
    draws = posterior.sample(200_000, torch.Generator().manual_seed(0))
    covariance = torch.linalg.inv(shifted(matrix / 3.0, 5.0))
    scale = covariance.diagonal().max()
    assert (torch.cov(draws.mT) - covariance).abs().max() < 0.02 * scale
    assert (draws.mean(0) - 1).abs().max() < 0.02 * scale.sqrt()


def test_mirroring_copies_the_upper_triangle(matrix):
    upper = matrix.triu()
    mirror_upper_(upper)
    torch.testing.assert_close(upper, matrix, rtol=0, atol=0)


@pytest.mark.parametrize("prior_precision", [0.5, "validation", "evidence"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_estimators_agree_with_the_eigendecomposition(monkeypatch, task, prior_precision):
    kind = SubnetLaplaceClassifier if task == "classification" else SubnetLaplaceRegressor
    X, y = (load_iris if task == "classification" else load_diabetes)(return_X_y=True)
    model = kind(
        subnetwork_size=60,
        selection="random",
        prior_precision=prior_precision,
        cv=None,
        random_state=0,
    )
    if task == "regression":
        model.set_params(noise=50.0 if prior_precision == 0.5 else "constant")
    model.fit(X, y)
    monkeypatch.setattr(sksubnet.posterior.kinds, "EIGEN_LIMIT", 10)
    large = kind(**model.get_params()).fit(X, y)
    assert isinstance(large.posterior_, CholeskyPosterior)
    if prior_precision == 0.5:
        expected = model.predictive(X).covariance.numpy()
        np.testing.assert_allclose(large.predictive(X).covariance.numpy(), expected, rtol=1e-8)
        return
    # The coarser scan costs next to nothing in the loss, though its minimum is flat.
    first, second = (float(m.tuning_.losses.min()) for m in (model, large))
    assert first <= second + 1e-9
    spread = float(model.tuning_.losses.max() - model.tuning_.losses.min())
    assert abs(np.log(large.prior_precision_ / model.prior_precision_)) < np.log(10)
    assert second - first < 0.1 * spread


def test_rows_of_several_passes_are_solved_for_at_once(monkeypatch):
    """Large nets take few rows at once, and a solve reads all of the factor for any number."""
    X, y = load_iris(return_X_y=True)
    monkeypatch.setattr(sksubnet.posterior.kinds, "EIGEN_LIMIT", 10)
    options = {"subnetwork_size": 60, "selection": "random", "prior_precision": 0.5, "cv": None}
    model = SubnetLaplaceClassifier(**options, random_state=0).fit(X, y)
    model.update(X[:3], y[:3])
    expected, joint = model.predictive(X), model._joint_moments(X[:20])
    passed, whiten = sksubnet.posterior.cholesky.jacobian, ShiftedCholesky.whiten
    n_passed, n_solved = [], []

    def counted_pass(latent, plan, rows):
        n_passed.append(len(rows))
        return passed(latent, plan, rows)

    def counted_whiten(factor, rows):
        n_solved.append(len(rows))
        return whiten(factor, rows)

    monkeypatch.setattr(sksubnet.posterior.memory, "rows_of_layers", lambda *_: 8)
    monkeypatch.setattr(sksubnet.posterior.cholesky, "jacobian", counted_pass)
    monkeypatch.setattr(ShiftedCholesky, "whiten", counted_whiten)
    found = model.predictive(X)
    assert max(n_passed) == 8 and n_solved == [150 * 3]
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.covariance, expected.covariance, rtol=1e-10, atol=1e-10)
    for one, other in zip(model._joint_moments(X[:20]), joint, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
