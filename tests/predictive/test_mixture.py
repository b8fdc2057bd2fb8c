"""Mixtures against plain Monte Carlo, scipy's normal cdf and their components one by one."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize, stats

from sksubnet.predictive.distribution import Predictive
from sksubnet.predictive.likelihood import Bernoulli, Categorical, Gaussian
from sksubnet.predictive.mixture import Mixture, pick_components

M, N, C = 3, 4, 2
RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=(M, N, C)) * 2
FACTORS = RNG.normal(size=(M, N, C, C))
COVARIANCES = FACTORS @ FACTORS.swapaxes(-1, -2)
NOISE = RNG.uniform(0.2, 2, size=(M, C))
POINTS = Mixture(torch.as_tensor(MEANS))
GAUSSIANS = Mixture(torch.as_tensor(MEANS), torch.as_tensor(COVARIANCES))
MEMBERS = Mixture(torch.as_tensor(MEANS), torch.as_tensor(COVARIANCES), torch.as_tensor(NOISE))
COMMON = Gaussian(torch.tensor([0.5, 0.3], dtype=torch.float64))


def softmax(f):
    e = np.exp(f - f.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_moments_of_points_are_those_of_the_sample():
    mean, covariance = POINTS.moments()
    assert_allclose(mean, MEANS.mean(axis=0))
    for n in range(N):
        assert_allclose(covariance[n], np.cov(MEANS[:, n].T, bias=True))


def test_moments_of_gaussians_are_those_of_draws_from_them():
    mean, covariance = GAUSSIANS.moments()
    draws = np.concatenate(
        [RNG.multivariate_normal(MEANS[m, 1], COVARIANCES[m, 1], 100_000) for m in range(M)]
    )
    assert_allclose(mean[1], draws.mean(axis=0), atol=0.03)
    assert_allclose(covariance[1], np.cov(draws.T), rtol=0.02)


def test_std_of_members_is_that_of_targets_drawn_from_them():
    predictive = Predictive.of_mixture(MEMBERS, COMMON)
    draws = np.concatenate(
        [RNG.multivariate_normal(MEANS[m, 2], COVARIANCES[m, 2], 100_000) for m in range(M)]
    )
    noise = np.sqrt(NOISE).repeat(100_000, axis=0) * RNG.normal(size=draws.shape)
    assert_allclose(predictive.std()[2], (draws + noise).std(axis=0), rtol=0.01)
    assert_allclose(predictive.std("epistemic")[2], draws.std(axis=0), rtol=0.01)
    assert_allclose(predictive.std("aleatoric")[2], np.sqrt(NOISE.mean(axis=0)))


@pytest.mark.parametrize("mixture", [POINTS, GAUSSIANS, MEMBERS], ids=["points", "gauss", "own"])
def test_quantiles_invert_the_cdf(mixture):
    levels = np.array([0.9, 0.01, 0.5])
    quantiles = Predictive.of_mixture(mixture, COMMON).quantiles(levels)
    noise = [COMMON.noise_variance.numpy()] * M if mixture.noise is None else NOISE
    for n, c, q in np.ndindex(N, C, len(levels)):
        inside = 0.0 if mixture.covariances is None else COVARIANCES[:, n, c, c]
        std = np.sqrt(inside + np.stack(noise)[:, c])

        def excess(t, n=n, c=c, q=q, std=std):
            return stats.norm.cdf(t, MEANS[:, n, c], std).mean() - levels[q]

        expected = optimize.brentq(excess, -50, 50, xtol=1e-13)
        assert quantiles[n, c, q] == pytest.approx(expected, abs=1e-9)
    assert_allclose(
        Predictive.of_mixture(mixture, COMMON).interval(0.98)[..., 0], quantiles[..., 1], atol=1e-9
    )


def test_quantiles_in_chunks_of_rows(monkeypatch):
    expected = Predictive.of_mixture(MEMBERS, COMMON).quantiles([0.3])
    monkeypatch.setattr("sksubnet.predictive.quadrature._CHUNK_BYTES", 1)
    assert_allclose(Predictive.of_mixture(MEMBERS, COMMON).quantiles([0.3]), expected)


def test_one_component_is_its_gaussian():
    alone = Predictive(GAUSSIANS.means[0], GAUSSIANS.covariances[0], COMMON)
    mixed = Predictive.mix([alone])
    for method in ("std", "interval"):
        np.testing.assert_array_equal(getattr(mixed, method)(), getattr(alone, method)())


def test_probabilities_of_points_average_the_softmax():
    predictive = Predictive.of_mixture(POINTS, Categorical())
    assert_allclose(predictive.probabilities(), softmax(MEANS).mean(axis=0))


@pytest.mark.parametrize("link", ["probit", "extended_probit", "mc"])
def test_probabilities_of_gaussians_average_the_link(link):
    predictive = Predictive.of_mixture(GAUSSIANS, Categorical(), link, seed=3)
    members = [
        Categorical().predictive_probabilities(mean, covariance, link, 3).numpy()
        for mean, covariance in zip(GAUSSIANS.means, GAUSSIANS.covariances, strict=True)
    ]
    assert_allclose(predictive.probabilities(), np.mean(members, axis=0))


def test_probabilities_of_a_single_logit():
    predictive = Predictive.of_mixture(Mixture(POINTS.means[:, :, :1]), Bernoulli())
    expected = stats.logistic.cdf(MEANS[:, :, 0]).mean(axis=0)
    assert_allclose(predictive.probabilities(), np.stack([1 - expected, expected], axis=1))


def test_entropies_of_points_by_hand():
    predictive = Predictive.of_mixture(POINTS, Categorical())
    p = softmax(MEANS)
    total, aleatoric = (
        stats.entropy(p.mean(axis=0), axis=-1),
        stats.entropy(p, axis=-1).mean(axis=0),
    )
    assert_allclose(predictive.entropy(), total)
    assert_allclose(predictive.entropy("aleatoric"), aleatoric)
    assert_allclose(predictive.mutual_information(), total - aleatoric)
    assert (predictive.mutual_information() > 0).all()


def test_entropies_of_gaussians_against_plain_monte_carlo():
    predictive = Predictive.of_mixture(GAUSSIANS, Categorical())
    p = softmax(
        np.concatenate(
            [RNG.multivariate_normal(MEANS[m, 0], COVARIANCES[m, 0], 100_000) for m in range(M)]
        )
    )
    assert predictive.entropy()[0] == pytest.approx(stats.entropy(p.mean(axis=0)), abs=4e-3)
    aleatoric = stats.entropy(p, axis=1).mean()
    assert predictive.entropy("aleatoric")[0] == pytest.approx(aleatoric, abs=4e-3)


def test_mix_has_the_members_as_components():
    members = [
        Predictive(
            MEMBERS.means[m], MEMBERS.covariances[m], Gaussian(MEMBERS.noise[m]), "probit", seed=m
        )
        for m in range(M)
    ]
    mixed = Predictive.mix(members)
    assert_allclose(mixed.mean, np.mean([member.mean for member in members], axis=0))
    within = np.mean([member.std() ** 2 for member in members], axis=0)
    assert_allclose(mixed.std() ** 2, within + MEANS.var(axis=0))  # law of total variance
    # A mixture of mixtures has the same weight on every component.
    nested = Predictive.mix([Predictive.of_mixture(POINTS, COMMON)] * 2)
    assert len(nested.mixture) == 2 * M
    assert_allclose(nested.mixture.noise, [COMMON.noise_variance.tolist()] * 2 * M)
    assert_allclose(nested.std(), Predictive.of_mixture(POINTS, COMMON).std())


@pytest.mark.parametrize("mixture", [POINTS, MEMBERS], ids=["points", "own"])
def test_stack_puts_rows_together(mixture):
    def rows(index):
        covariances = None if mixture.covariances is None else mixture.covariances[:, index]
        part = Mixture(mixture.means[:, index], covariances, mixture.noise)
        return Predictive.of_mixture(part, COMMON)

    whole = Predictive.of_mixture(mixture, COMMON)
    stacked = Predictive.stack([rows(slice(0, 1)), rows(slice(1, N))])
    for found, expected in (
        (stacked.mean, whole.mean),
        (stacked.covariance, whole.covariance),
        (stacked.quantiles([0.2]), whole.quantiles([0.2])),
    ):
        assert_allclose(found, expected)


@pytest.mark.parametrize("mixture", [None, POINTS, MEMBERS], ids=["gauss", "points", "own"])
def test_scaled_moves_means_quantiles_and_standard_deviations(mixture):
    latent = Predictive(GAUSSIANS.means[0], GAUSSIANS.covariances[0], COMMON)
    if mixture is not None:
        latent = Predictive.of_mixture(mixture, COMMON)
    scale, offset = np.array([3.0, 0.01]), np.array([-7.0, 2.0])
    scaled = latent.scaled(torch.as_tensor(scale), torch.as_tensor(offset))
    assert_allclose(scaled.mean, latent.mean.numpy() * scale + offset)
    expected = latent.quantiles([0.1, 0.8]) * scale[:, None] + offset[:, None]
    assert_allclose(scaled.quantiles([0.1, 0.8]), expected)
    for component in ("total", "aleatoric", "epistemic"):
        assert_allclose(scaled.std(component), latent.std(component) * scale)


def test_picked_components_repeat_only_where_they_must():
    generator = torch.Generator().manual_seed(0)
    picks = torch.stack([pick_components(5, 3, generator) for _ in range(2000)])
    assert all(len(set(pick)) == 3 for pick in picks.tolist())
    assert_allclose(picks.flatten().bincount() / picks.numel(), 0.2, atol=0.02)
    many = pick_components(5, 20_000, generator)
    assert_allclose(many.bincount() / len(many), 0.2, atol=0.02)
