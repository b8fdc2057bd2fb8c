"""The Poisson likelihood and its mixtures against SciPy, quadrature and automatic derivatives."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from sksubnet.predictive import CompoundPredictive, Mixture, Poisson, Predictive

CASES = [(0.3, 0.25), (2.0, 1.5), (-1.0, 0.01), (5.0, 0.3), (7.0, 0.04)]
LOG_RATE = torch.tensor([[m] for m, _ in CASES], dtype=torch.float64)
VARIANCE = torch.tensor([v for _, v in CASES], dtype=torch.float64)[:, None, None]


def counts() -> CompoundPredictive:
    return CompoundPredictive.of_mixture(Mixture(LOG_RATE[None], VARIANCE[None]), Poisson())


def expectation(function, row: int) -> float:
    """E of a function of the log rate, by Simpson's rule over 12 standard deviations."""
    mean, std = CASES[row][0], CASES[row][1] ** 0.5
    f = np.linspace(mean - 12 * std, mean + 12 * std, 20_001)
    return float(integrate.simpson(function(f) * stats.norm.pdf(f, mean, std), x=f))


def pmf(k: float, row: int) -> float:
    return expectation(lambda f: stats.poisson.pmf(k, np.exp(f)), row)


@pytest.mark.parametrize("row", range(len(CASES)))
def test_moments_are_those_of_quadrature(row):
    mean = expectation(np.exp, row)
    epistemic = expectation(lambda f: np.exp(2 * f), row) - mean**2
    predictive = counts()
    assert float(predictive.mean[row, 0]) == pytest.approx(mean, rel=1e-9)
    assert predictive.std("aleatoric")[row, 0] == pytest.approx(mean**0.5, rel=1e-9)
    assert predictive.std("epistemic")[row, 0] == pytest.approx(epistemic**0.5, rel=1e-7)
    assert predictive.std()[row, 0] == pytest.approx((mean + epistemic) ** 0.5, rel=1e-7)


@pytest.mark.parametrize("row", range(len(CASES)))
def test_probabilities_and_quantiles_are_those_of_quadrature(row):
    predictive = counts().rows([row])
    k = round(float(predictive.mean))
    assert predictive.log_prob([k])[0] == pytest.approx(np.log(pmf(k, row)), abs=1e-8)
    exact = expectation(lambda f: stats.poisson.cdf(k, np.exp(f)), row)
    assert predictive.cdf([k])[0] == pytest.approx(exact, abs=1e-9)
    assert predictive.cdf([k + 0.5])[0] == predictive.cdf([k])[0]
    assert predictive.cdf([-0.5])[0] == 0
    levels = (0.05, 0.5, 0.999)
    for level, quantile in zip(levels, predictive.quantiles(levels)[0, 0], strict=True):
        assert quantile == round(quantile) >= 0
        assert predictive.cdf([quantile])[0] >= level > predictive.cdf([quantile - 1])[0]


def test_draws_have_the_moments_and_probabilities():
    predictive = counts()
    draws = predictive.sample(200_000, random_state=0)
    assert draws.shape == (len(CASES), 1, 200_000)
    np.testing.assert_allclose(draws.mean(-1), predictive.mean.numpy(), rtol=0.02)
    np.testing.assert_allclose(draws[:1].std(-1), predictive.std()[:1], rtol=0.02)
    zero = (draws[:, 0] == 0).mean(-1)
    np.testing.assert_allclose(zero, np.exp(predictive.log_prob(np.zeros(5))), atol=4e-3)
    again = [predictive.sample(3, random_state=1) for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_several_targets_hang_together():
    mean = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    covariance = torch.tensor([[[0.4, 0.3], [0.3, 0.5]]], dtype=torch.float64)
    predictive = CompoundPredictive.of_mixture(Mixture(mean[None], covariance[None]), Poisson())
    rng = np.random.default_rng(0)
    rate = np.exp(rng.multivariate_normal(mean[0].numpy(), covariance[0].numpy(), size=500_000))
    np.testing.assert_allclose(predictive.mean[0], rate.mean(0), rtol=5e-3)
    np.testing.assert_allclose(predictive.covariance[0], np.cov(rate.T), rtol=3e-2)
    joint = stats.poisson.pmf([4, 2], rate).prod(axis=1).mean()
    assert predictive.log_prob([[4, 2]])[0] == pytest.approx(np.log(joint), abs=0.01)
    alone = counts_of(1.0, 0.4).cdf([4])[0]
    assert predictive.cdf([[4, 2]])[0, 0] == pytest.approx(alone, abs=1e-12)


def counts_of(mean: float, variance: float) -> CompoundPredictive:
    latents = Mixture(
        torch.full((1, 1, 1), mean, dtype=torch.float64),
        torch.full((1, 1, 1, 1), variance, dtype=torch.float64),
    )
    return CompoundPredictive.of_mixture(latents, Poisson())


def test_a_mixture_of_points_is_a_mixture_of_poissons():
    rates = np.array([1.0, 4.0, 9.0])
    points = Mixture(torch.as_tensor(np.log(rates))[:, None, None])
    predictive = CompoundPredictive.of_mixture(points, Poisson())
    assert float(predictive.mean) == pytest.approx(rates.mean())
    assert predictive.std()[0, 0] == pytest.approx((rates.mean() + rates.var()) ** 0.5)
    assert predictive.log_prob([3])[0] == pytest.approx(np.log(stats.poisson.pmf(3, rates).mean()))
    k = np.arange(40)
    exact = stats.poisson.cdf(k[:, None], rates).mean(axis=1)
    quantiles = predictive.quantiles((0.1, 0.5, 0.9))[0, 0]
    np.testing.assert_array_equal(quantiles, np.searchsorted(exact, (0.1, 0.5, 0.9)))
    draws = predictive.sample(100_000, random_state=0)[0, 0]
    frequencies = np.bincount(draws.astype(int), minlength=40)[:40].cumsum() / len(draws)
    np.testing.assert_allclose(frequencies, exact, atol=5e-3)


def test_mixed_stacked_and_chosen_rows():
    parts = [counts_of(0.0, 0.1), counts_of(1.0, 0.2)]
    mixed = Predictive.mix(parts)
    assert isinstance(mixed, CompoundPredictive)
    probability = np.mean([np.exp(part.log_prob([2])) for part in parts])
    assert mixed.log_prob([2])[0] == pytest.approx(np.log(probability))
    means = [float(part.mean) for part in parts]
    assert float(mixed.mean) == pytest.approx(np.mean(means))
    variances = [part.std()[0, 0] ** 2 for part in parts]
    assert mixed.std()[0, 0] ** 2 == pytest.approx(np.mean(variances) + np.var(means))
    stacked = Predictive.stack(parts)
    np.testing.assert_allclose(stacked.mean[:, 0], means)
    np.testing.assert_allclose(stacked.rows([1, 0]).std(), stacked.std()[::-1])
    assert "target" in repr(stacked) and list(stacked.to_frame()) == [
        *("mean", "std", "std_aleatoric", "std_epistemic", "lower", "upper")
    ]


@pytest.mark.parametrize("log_rate", [-800.0, 40.0, 300.0, 900.0])
def test_absurd_rates_end(log_rate):
    predictive = counts_of(log_rate, 4.0)
    draws = predictive.sample(2, random_state=0)
    assert (draws >= 0).all() and not np.isnan(draws).any()
    quantiles = predictive.quantiles((0.1, 0.9))
    assert (quantiles >= 0).all()


def test_methods_of_classes_and_scaling_are_refused():
    predictive = counts()
    for method in (predictive.probabilities, predictive.entropy, predictive.mutual_information):
        with pytest.raises(TypeError, match="for classification"):
            method()
    with pytest.raises(TypeError, match="Poisson cannot be scaled"):
        predictive.scaled(torch.tensor([2.0]), torch.tensor([0.0]))


def test_hessian_root_and_log_prob():
    f = torch.tensor([[0.5, -1.0], [3.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[2.0, 0.0], [17.0, 9.0]], dtype=torch.float64)
    expected = stats.poisson.logpmf(y, f.exp()).sum(axis=1)
    np.testing.assert_allclose(Poisson().log_prob(f, y), expected, rtol=1e-12)
    for row, target in zip(f, y, strict=True):
        negative = lambda one, target=target: -Poisson().log_prob(one, target)  # noqa: E731
        hessian = torch.func.hessian(negative)(row)
        root = Poisson().hessian_root(row[None])[0]
        torch.testing.assert_close(root @ root.T, hessian)
