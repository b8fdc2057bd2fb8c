"""The continuous ranked probability score: integrals of the cdf, sums over counts, and draws."""

import numpy as np
import pytest
import torch
from scipy import integrate

from sksubnet.metrics import gaussian_crps
from sksubnet.predictive import (
    Bernoulli,
    CompoundPredictive,
    Gaussian,
    MeanVariance,
    Mixture,
    Poisson,
    Predictive,
    predictive_of,
)

MEANS = torch.tensor([[[0.0], [2.0]], [[1.5], [-1.0]], [[-0.7], [2.0]]], dtype=torch.float64)
WITHIN = torch.tensor([0.5, 0.1, 2.0], dtype=torch.float64)[:, None, None, None].expand(3, 2, 1, 1)
NOISE = torch.tensor([[0.2], [0.9], [0.01]], dtype=torch.float64)


def gaussians() -> Predictive:
    """Two rows of three Gaussians, each with its own noise."""
    mixture = Mixture(MEANS, WITHIN, NOISE)
    return Predictive.of_mixture(mixture, Gaussian(torch.tensor([0.5], dtype=torch.float64)))


def integral(predictive: Predictive, y: float) -> float:
    """The score by its definition, of a predictive of one row."""

    def squared(x):
        return (predictive.cdf([x])[0] - (x >= y)) ** 2

    edges = [(-40.0, y), (y, 40.0)]
    return sum(integrate.quad(squared, *edge, limit=300, epsabs=1e-10)[0] for edge in edges)


@pytest.mark.parametrize("y", [-3.0, 0.4, 6.0])
@pytest.mark.parametrize("row", [0, 1])
def test_of_a_mixture_is_the_integral_of_the_squared_difference(row, y):
    one = gaussians().rows([row])
    assert one.crps([y])[0] == pytest.approx(integral(one, y), abs=1e-8)


def test_of_a_gaussian_is_that_of_the_metrics():
    mean, variance = np.array([0.3, -2.0]), np.array([0.5, 3.0])
    noise = Gaussian(torch.tensor([0.7], dtype=torch.float64))
    predictive = Predictive(
        torch.tensor(mean)[:, None], torch.tensor(variance)[:, None, None], noise
    )
    y = np.array([1.0, 1.0])
    expected = gaussian_crps(y, mean, np.sqrt(variance + 0.7))
    assert predictive.crps(y).mean() == pytest.approx(expected, rel=1e-12)
    assert predictive.crps(y[:, None]).shape == (2, 1)


def test_without_any_spread_it_is_the_absolute_error():
    points = Mixture(torch.tensor([[[1.0], [2.0]]]))
    predictive = Predictive.of_mixture(points, Gaussian(torch.tensor([0.0])))
    np.testing.assert_allclose(predictive.crps([3.0, -1.0]), [2.0, 3.0])


def test_of_draws_is_that_of_the_ensemble():
    draws = torch.randn(40, 3, 1, generator=torch.Generator().manual_seed(0)).double()
    predictive = Predictive.of_mixture(Mixture(draws), Gaussian(torch.tensor([0.0])))
    y, x = np.array([0.1, 2.0, -0.5]), draws[..., 0].numpy()
    between = np.abs(x[:, None] - x[None]).mean(axis=(0, 1))
    np.testing.assert_allclose(predictive.crps(y), np.abs(x - y).mean(0) - between / 2, rtol=1e-9)


@pytest.mark.parametrize(("log_rate", "variance"), [(-1.0, 0.01), (0.3, 0.25), (4.0, 0.3)])
@pytest.mark.parametrize("y", [0, 3, 900])
def test_of_counts_is_the_sum_over_all_of_them(log_rate, variance, y):
    latents = Mixture(
        torch.full((1, 1, 1), log_rate).double(), torch.full((1, 1, 1, 1), variance).double()
    )
    predictive = CompoundPredictive.of_mixture(latents, Poisson())
    k = np.arange(4000)
    below = CompoundPredictive.of_mixture(
        Mixture(latents.means.expand(1, 4000, 1), latents.covariances.expand(1, 4000, 1, 1)),
        Poisson(),
    ).cdf(k)
    assert predictive.crps([y])[0] == pytest.approx(((below - (k >= y)) ** 2).sum(), rel=1e-4)


def test_of_many_counts_does_not_take_them_one_by_one():
    latents = Mixture(torch.tensor([[[13.0]]]).double(), torch.tensor([[[[0.04]]]]).double())
    predictive = CompoundPredictive.of_mixture(latents, Poisson())
    draws = predictive.sample(400_000, random_state=1)[0, 0]
    y = float(predictive.mean) * 1.1
    half = len(draws) // 2
    expected = np.abs(draws - y).mean() - np.abs(draws[:half] - draws[half:]).mean() / 2
    assert predictive.crps([y])[0] == pytest.approx(expected, rel=5e-3)


def test_of_mean_and_variance_is_that_of_draws():
    latents = Mixture(
        torch.tensor([[[0.3, -1.0]]]).double(), torch.tensor([[[[0.5, 0.1], [0.1, 0.8]]]]).double()
    )
    predictive = predictive_of(latents, MeanVariance())
    draws = predictive.sample(400_000, random_state=0)[0, 0]
    half = len(draws) // 2
    for y in (-1.0, 0.5):
        expected = np.abs(draws - y).mean() - np.abs(draws[:half] - draws[half:]).mean() / 2
        assert predictive.crps([y])[0] == pytest.approx(expected, rel=1e-2)


def test_of_several_targets_is_that_of_each():
    means = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    y = np.array([[0.5, -1.0], [2.0, 0.0], [-0.3, 0.7]])
    both = predictive_of(Mixture(means), MeanVariance()).crps(y)
    for target in (0, 1):
        outputs = means[..., [target, 2 + target]]
        alone = predictive_of(Mixture(outputs), MeanVariance()).crps(y[:, target])
        np.testing.assert_allclose(both[:, target], alone, rtol=1e-9)


def test_classes_have_none():
    with pytest.raises(TypeError, match="crps is for regression"):
        predictive_of(Mixture(torch.zeros(1, 1, 1), None), Bernoulli()).crps([0])
