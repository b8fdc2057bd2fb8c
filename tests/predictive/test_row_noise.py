"""Predictive distributions whose noise differs from row to row, against scipy row by row."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize, stats

from sksubnet.predictive import Gaussian, Mixture, Predictive

M, N, C = 3, 6, 2
RNG = np.random.default_rng(0)
MEANS = 2 * RNG.normal(size=(M, N, C))
ROOTS = RNG.normal(size=(M, N, C, C))
COVARIANCES = ROOTS @ ROOTS.swapaxes(-1, -2)
NOISE = RNG.uniform(0.1, 4, size=(M, N, C))
Y = RNG.normal(size=(N, C))


def gaussian(m, rows=slice(None)):
    """Predictive of one component."""
    arrays = (MEANS[m, rows], COVARIANCES[m, rows])
    likelihood = Gaussian(torch.as_tensor(NOISE[m, rows]))
    return Predictive(*map(torch.as_tensor, arrays), likelihood)


def mixed(rows=slice(None)):
    return Predictive.mix([gaussian(m, rows) for m in range(M)])


def marginals(components, means=MEANS, noise=NOISE, covariances=COVARIANCES):
    """Frozen scipy Gaussians (M', N, C) of some components, each target by itself."""
    chosen = list(components)
    variance = covariances[chosen].diagonal(axis1=2, axis2=3) + noise[chosen]
    return stats.norm(means[chosen], np.sqrt(variance))


CASES = [(gaussian(1), [1]), (mixed(), [0, 1, 2])]


def check(predictive, components, rows=slice(None), y=Y, **arrays):
    """Everything that is read off, against the components' Gaussians."""
    of = marginals(components, **arrays)
    y = y[rows]
    mean, std = of.mean()[:, rows], of.std()[:, rows]
    parts = stats.norm(mean, std)
    assert_allclose(predictive.mean, mean.mean(axis=0), rtol=1e-10)
    total = (std**2 + mean**2).mean(axis=0) - mean.mean(axis=0) ** 2
    assert_allclose(predictive.std(), np.sqrt(total), rtol=1e-10)
    noise = arrays.get("noise", NOISE)[list(components)][:, rows].mean(axis=0)
    assert_allclose(predictive.std("aleatoric"), np.sqrt(noise), rtol=1e-10)
    assert_allclose(predictive.std("epistemic"), np.sqrt(total - noise), rtol=1e-9)
    assert_allclose(predictive.cdf(y), parts.cdf(y).mean(axis=0), rtol=1e-9)
    found = predictive.quantiles([0.03, 0.5, 0.8])
    for n in range(len(y)):
        for c in range(C):
            one = stats.norm(mean[:, n, c], std[:, n, c])
            for found_one, level in zip(found[n, c], (0.03, 0.5, 0.8), strict=True):
                assert one.cdf(found_one).mean() == pytest.approx(level, abs=1e-9)
    assert_allclose(predictive.interval(0.8), predictive.quantiles([0.1, 0.9]), rtol=1e-9)


@pytest.mark.parametrize(("predictive", "components"), CASES)
def test_moments_and_quantiles(predictive, components):
    check(predictive, components)


def test_a_quantile_is_the_root_of_the_cdf():
    of = marginals([0, 1, 2])
    found = mixed().quantiles([0.25])[..., 0]
    for n, c in np.ndindex(N, C):
        one = stats.norm(of.mean()[:, n, c], of.std()[:, n, c])
        root = optimize.brentq(lambda t, one=one: one.cdf(t).mean() - 0.25, -30, 30, xtol=1e-12)
        assert found[n, c] == pytest.approx(root, abs=1e-9)


@pytest.mark.parametrize(("predictive", "components"), CASES)
def test_log_prob_is_that_of_joint_densities(predictive, components):
    expected = [
        np.mean(
            [
                stats.multivariate_normal(
                    MEANS[m, n], COVARIANCES[m, n] + np.diag(NOISE[m, n])
                ).pdf(Y[n])
                for m in components
            ]
        )
        for n in range(N)
    ]
    assert_allclose(predictive.log_prob(Y), np.log(expected), rtol=1e-9)


@pytest.mark.parametrize(("predictive", "components"), CASES)
def test_rows_take_their_noise_along(predictive, components):
    chosen = [4, 0, 4]
    check(predictive.rows(chosen), components, rows=chosen)
    assert_allclose(predictive.rows(chosen).log_prob(Y[chosen]), predictive.log_prob(Y)[chosen])


@pytest.mark.parametrize("make", [lambda rows: gaussian(1, rows), mixed])
def test_stacked_batches_are_the_whole(make):
    parts = [make(slice(0, 1)), make(slice(1, 4)), make(slice(4, N))]
    check(Predictive.stack(parts), [1] if make is not mixed else [0, 1, 2])


@pytest.mark.parametrize("mixture", [False, True])
def test_stacked_rows_of_nets_with_other_constant_noise_have_their_own(mixture):
    constants = np.array([[0.5, 2.0], [3.0, 0.1]])
    noise = np.repeat(constants, 3, axis=0)
    parts = []
    for k, rows in enumerate((slice(0, 3), slice(3, N))):
        arrays = torch.as_tensor(MEANS[:, rows]), torch.as_tensor(COVARIANCES[:, rows])
        likelihood = Gaussian(torch.as_tensor(constants[k]))
        singles = [Predictive(a, b, likelihood) for a, b in zip(*arrays, strict=True)]
        parts.append(Predictive.mix(singles) if mixture else singles[0])
    of = range(M) if mixture else [0]
    check(Predictive.stack(parts), of, noise=np.tile(noise, (M, 1, 1)))


def test_a_mixture_of_constant_noise_and_noise_by_row():
    constant = Predictive(
        *map(torch.as_tensor, (MEANS[0], COVARIANCES[0])), Gaussian(torch.tensor([0.5, 2.0]))
    )
    noise = NOISE.copy()
    noise[0] = [0.5, 2.0]
    check(Predictive.mix([constant, gaussian(1)]), [0, 1], noise=noise)


@pytest.mark.parametrize(("predictive", "components"), CASES)
def test_other_units(predictive, components):
    scale, offset = np.array([3.0, 0.2]), np.array([-1.0, 10.0])
    moved = predictive.scaled(torch.as_tensor(scale), torch.as_tensor(offset))
    check(
        moved,
        components,
        y=Y * scale + offset,
        means=MEANS * scale + offset,
        noise=NOISE * scale**2,
        covariances=COVARIANCES * np.outer(scale, scale),
    )
    jacobian = np.log(scale).sum()
    assert_allclose(moved.log_prob(Y * scale + offset), predictive.log_prob(Y) - jacobian)


@pytest.mark.parametrize(("predictive", "components"), CASES)
def test_draws_have_the_distribution_of_their_row(predictive, components):
    draws = predictive.sample(4000, random_state=1)
    assert draws.shape == (N, C, 4000)
    of = marginals(components)
    for n, c in np.ndindex(N, C):
        one = stats.norm(of.mean()[:, n, c][:, None], of.std()[:, n, c][:, None])
        test = stats.kstest(draws[n, c], lambda t, one=one: one.cdf(t).mean(axis=0))
        assert test.pvalue > 1e-4


def test_points_with_noise_by_row():
    # Draws of a net, that have no variance of their own, with one noise for all of them.
    noise = NOISE[0]
    points = Predictive.of_mixture(
        Mixture(torch.as_tensor(MEANS)), Gaussian(torch.as_tensor(noise))
    )
    zero = np.zeros_like(COVARIANCES)
    check(points, range(M), noise=np.tile(noise, (M, 1, 1)), covariances=zero)
    check(points.rows([2, 1]), range(M), [2, 1], noise=np.tile(noise, (M, 1, 1)), covariances=zero)


def test_a_frame_has_the_noise_of_each_row():
    pytest.importorskip("pandas")
    predictive = mixed()
    frame = predictive.to_frame(index=list("abcdef"), names=["left", "right"], coverage=0.8)
    for c, name in enumerate(["left", "right"]):
        noise = np.sqrt(NOISE[:, :, c].mean(axis=0))
        assert_allclose(frame[name]["std_aleatoric"], noise, rtol=1e-10)
        assert_allclose(frame[name]["std"], predictive.std()[:, c])
        of = marginals(range(M))
        upper = stats.norm(of.mean()[:, :, c], of.std()[:, :, c])
        assert_allclose(upper.cdf(frame[name]["upper"]).mean(axis=0), 0.9, rtol=1e-9)
    assert (
        "..." not in repr(predictive.rows([0, 1])) and len(repr(predictive).splitlines()) == N + 2
    )
