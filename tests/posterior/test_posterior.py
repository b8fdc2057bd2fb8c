"""GaussianPosterior against the inverse and the determinant of the dense precision."""

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from sksubnet.jacobian.factored_rows import FactoredRows, LayerRows
from sksubnet.posterior.diagonal import DiagonalPosterior
from sksubnet.posterior.gaussian import GaussianPosterior, Projection
from sksubnet.posterior.kernel import KernelPosterior

S = 7
DELTA = 0.6
RANKS = {"full": S, "low rank": 3, "diagonal": S, "nothing known": 0, "kernel": 4}


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def posterior(kind):
    """A posterior of seven weights and its GGN (S, S) as an array."""
    rank = RANKS[kind]
    if kind == "kernel":
        rows = factored(2, seed=5)
        phi = dense_rows(rows)
        values, vectors = torch.linalg.eigh(phi @ phi.T)
        coefficients = vectors * values.rsqrt()
        value = KernelPosterior(random(S, seed=2), values, coefficients, DELTA, training_rows=rows)
        return value, (phi.T @ phi).numpy()
    basis = torch.linalg.qr(random(S, S)).Q[:, :rank]
    eigenvalues = random(rank, seed=1).square() * 5
    if kind == "diagonal":
        basis, G = None, torch.diag(eigenvalues)
    else:
        G = basis @ torch.diag(eigenvalues) @ basis.T
    return GaussianPosterior(random(S, seed=2), eigenvalues, basis, DELTA), G.numpy()


def factored(n_rows, seed):
    """Two Jacobian rows for each data row: of a layer of two outputs and three inputs, and one."""
    left, right = random(n_rows, 2, 3, seed=seed), random(n_rows, 3, seed=seed + 1)
    return FactoredRows((LayerRows(left[..., :2], right), LayerRows(left[..., 2:])))


def dense_rows(rows):
    """The same rows (n, S), written out."""
    weight, bias = rows.layers
    outer = torch.einsum("bko,bi->bkoi", weight.left, weight.right).flatten(2)
    return torch.cat([outer, bias.left], dim=2).flatten(0, 1)


every_kind = pytest.mark.parametrize("kind", RANKS)
J = random(4, 3, S, seed=3)


@every_kind
@pytest.mark.parametrize(("delta", "noise_scale"), [(DELTA, 1.0), (1e-3, 1.0), (20.0, 0.3)])
def test_covariance_of_outputs(kind, delta, noise_scale):
    given, G = posterior(kind)
    tuned = given.tuned(delta, noise_scale)
    expected = dense.outputs_covariance(J.numpy(), G / noise_scale + delta * np.eye(S))
    assert_allclose(tuned.covariance(J), expected, rtol=1e-9, atol=1e-11 / delta)
    assert tuned.covariance(J[0]).shape == (3, 3)
    projection = tuned.project(J)
    variance = np.einsum("ncc->nc", expected)
    assert_allclose(projection.variance(delta), variance, rtol=1e-9)
    assert given.prior_precision == DELTA


@every_kind
def test_one_projection_serves_every_prior_precision(kind):
    given, G = posterior(kind)
    projection = Projection.stack([given.project(part) for part in J.split(3)])
    for delta in (1e-4, 0.1, 30.0):
        expected = dense.outputs_covariance(J.numpy(), G + delta * np.eye(S))
        assert_allclose(projection.covariance(delta), expected, rtol=1e-9, atol=1e-11 / delta)
        assert_allclose(projection.variance(delta), np.einsum("ncc->nc", expected), rtol=1e-9)


@every_kind
def test_draws_have_the_moments_of_the_inverse(kind):
    given, G = posterior(kind)
    covariance = np.linalg.inv(G + DELTA * np.eye(S))
    draws = given.sample(10_000, torch.Generator().manual_seed(0)).numpy()
    spread = np.diag(covariance)
    standard_error = np.sqrt((np.outer(spread, spread) + covariance**2) / 10_000)
    assert (np.abs(np.cov(draws.T) - covariance) < 5 * standard_error).all()
    assert (np.abs(draws.mean(axis=0) - given.mean.numpy()) < 5 * np.sqrt(spread / 10_000)).all()


@every_kind
@pytest.mark.parametrize("noise_scale", [1.0, 2.5])
def test_evidence_is_the_integral_of_the_gaussian(kind, noise_scale):
    given, G = posterior(kind)
    expected = dense.log_evidence(-12.5, G / noise_scale, given.mean.numpy(), 3.0)
    assert given.tuned(3.0, noise_scale).log_evidence(-12.5) == pytest.approx(expected, rel=1e-10)


@every_kind
def test_variance_along_known_directions_is_never_negative(kind):
    given, _ = posterior(kind)
    basis = torch.eye(S, dtype=torch.float64) if given.basis is None else given.basis
    if kind == "kernel":
        basis = dense_rows(given.training_rows).T @ basis
    along = 1e6 * random(200, 1, basis.shape[1], seed=4) @ basis.T
    # Rounding leaves about ±1e-4 of these squares outside the basis.
    assert (given.project(along).variance(1e-20) >= 0).all()


def test_single_precision_rows_give_double_results():
    given, _ = posterior("low rank")
    found = given.covariance(J.float())
    assert found.dtype == torch.float64
    assert_allclose(found, given.covariance(J.float().double()), rtol=1e-12)


def test_a_kernel_takes_factored_rows_of_either_precision():
    given, G = posterior("kernel")
    rows = factored(5, seed=7)
    written_out = dense_rows(rows).unflatten(0, (5, 2))
    for delta in (1e-3, DELTA, 20.0):
        tuned = given.tuned(delta)
        expected = dense.outputs_covariance(written_out.numpy(), G + delta * np.eye(S))
        assert_allclose(tuned.covariance(rows), expected, rtol=1e-9, atol=1e-11 / delta)
    single = rows._each(Tensor.float)
    assert given.covariance(single).dtype == torch.float64
    assert_allclose(given.covariance(single), given.covariance(rows), rtol=1e-4, atol=1e-6)


def test_a_kernel_drops_directions_far_below_the_prior():
    given, _ = posterior("kernel")
    delta = float(given.eigenvalues[1]) * 1.01e10
    tuned = given.tuned(delta)
    assert len(tuned.eigenvalues) == 2
    assert_allclose(tuned.covariance(J), given.tuned(1.0).project(J).covariance(delta), rtol=1e-9)


def test_factored_rows_give_the_diagonal_posterior_what_dense_ones_do():
    precision = random(S, seed=8).square()
    value = DiagonalPosterior(random(S, seed=2), precision, None, DELTA)
    rows = factored(5, seed=9)
    flat = dense_rows(rows).unflatten(0, (5, 2))
    assert_allclose(value.covariance(rows), value.covariance(flat), rtol=1e-12)
    parts = [value.project(factored(n, seed=n)) for n in (5, 3)]
    dense = value.project(
        torch.cat([dense_rows(part.rows).unflatten(0, (-1, 2)) for part in parts])
    )
    for delta in (0.1, 7.0):
        both = type(parts[0]).stack(parts)
        assert_allclose(both.covariance(delta), dense.covariance(delta), rtol=1e-12)
        assert_allclose(both.variance(delta), dense.variance(delta), rtol=1e-12)
