"""Normal targets with an uncertain mean and log variance, against two-dimensional quadrature."""

import numpy as np
import pytest
import torch
from scipy import stats

from sksubnet.predictive import MeanVariance, Mixture, Predictive, predictive_of

ROWS = [
    # mean, log variance; variances of both, correlation
    (0.3, -1.0, 0.5, 0.8, 0.0),
    (-2.0, 0.5, 0.1, 1.5, 0.7),
    (1.0, 0.0, 2.0, 0.3, -0.9),
    (0.0, -4.0, 0.0, 0.5, 0.0),
    (0.0, 1.0, 0.4, 0.0, 0.0),
]
MEAN = torch.tensor([[m, s] for m, s, *_ in ROWS], dtype=torch.float64)
COVARIANCE = torch.tensor(
    [[[v, r * (v * w) ** 0.5], [r * (v * w) ** 0.5, w]] for *_, v, w, r in ROWS],
    dtype=torch.float64,
)


def latents() -> Mixture:
    return Mixture(MEAN[None], COVARIANCE[None])


def expectation(function, row: int) -> float:
    """E of a function of mean and log variance, over a grid of both."""
    z = np.linspace(-9, 9, 401)
    weights = np.outer(stats.norm.pdf(z), stats.norm.pdf(z))
    m, s, v, w, r = ROWS[row]
    first = m + v**0.5 * z[:, None] + 0 * z
    second = s + w**0.5 * (r * z[:, None] + (1 - r**2) ** 0.5 * z)
    return float((weights * function(first, second)).sum() / weights.sum())


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_values_are_those_of_quadrature(row):
    predictive = predictive_of(latents(), MeanVariance()).rows([row])
    mean = expectation(lambda m, s: m, row)
    aleatoric = expectation(lambda m, s: np.exp(s), row)
    epistemic = expectation(lambda m, s: m**2, row) - mean**2
    assert float(predictive.mean) == pytest.approx(mean, abs=1e-9)
    assert predictive.std("aleatoric")[0, 0] ** 2 == pytest.approx(aleatoric, rel=1e-9)
    assert predictive.std("epistemic")[0, 0] ** 2 == pytest.approx(epistemic, abs=1e-9)
    assert predictive.std()[0, 0] ** 2 == pytest.approx(aleatoric + epistemic, rel=1e-9)
    for y in (mean - 1.5, mean + 0.2):
        density = expectation(lambda m, s, y=y: stats.norm.pdf(y, m, np.exp(s / 2)), row)
        below = expectation(lambda m, s, y=y: stats.norm.cdf(y, m, np.exp(s / 2)), row)
        assert predictive.log_prob([y])[0] == pytest.approx(np.log(density), abs=1e-6)
        assert predictive.cdf([y])[0] == pytest.approx(below, abs=1e-8)
    levels = (0.01, 0.3, 0.5, 0.999)
    for level, quantile in zip(levels, predictive.quantiles(levels)[0, 0], strict=True):
        below = expectation(lambda m, s, q=quantile: stats.norm.cdf(q, m, np.exp(s / 2)), row)
        assert below == pytest.approx(level, abs=1e-8)


@pytest.mark.parametrize("log_variance", [-800.0, -1600.0])
def test_quantiles_without_any_spread_are_the_mean(log_variance):
    means = torch.tensor([[[1.5, log_variance]]], dtype=torch.float64)
    certain = predictive_of(Mixture(means, torch.zeros(1, 1, 2, 2).double()), MeanVariance())
    assert certain.std()[0, 0] == 0
    np.testing.assert_array_equal(certain.quantiles((0.1, 0.5, 0.999)), [[[1.5, 1.5, 1.5]]])


def test_draws_have_the_quantiles():
    predictive = predictive_of(latents(), MeanVariance())
    draws = predictive.sample(100_000, random_state=0)[:, 0]
    found = np.quantile(draws, (0.1, 0.5, 0.9), axis=1).T
    spread = predictive.std()
    assert np.abs((found - predictive.quantiles((0.1, 0.5, 0.9))[:, 0]) / spread).max() < 0.02


def test_scaled_targets():
    predictive = predictive_of(latents(), MeanVariance())
    scale, offset = torch.tensor([3.0]).double(), torch.tensor([-7.0]).double()
    scaled = predictive.scaled(scale, offset)
    np.testing.assert_allclose(scaled.mean, 3 * predictive.mean - 7)
    for component in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(scaled.std(component), 3 * predictive.std(component))
    y = np.linspace(-1, 1, len(ROWS))
    np.testing.assert_allclose(scaled.log_prob(3 * y - 7), predictive.log_prob(y) - np.log(3))
    np.testing.assert_allclose(scaled.interval(0.8), 3 * predictive.interval(0.8) - 7, atol=1e-8)


def test_two_targets_and_mixtures():
    mean = torch.cat([MEAN[:2, 0], MEAN[:2, 1]])[None]  # means, then log variances
    covariance = torch.zeros(1, 4, 4, dtype=torch.float64)
    for target in range(2):
        index = torch.tensor([target, 2 + target])
        covariance[0, index[:, None], index] = COVARIANCE[target]
    both = predictive_of(Mixture(mean[None], covariance[None]), MeanVariance())
    alone = predictive_of(latents(), MeanVariance()).rows([0, 1])
    np.testing.assert_allclose(both.std()[0], alone.std()[:, 0])
    y = np.array([0.1, -1.2])
    np.testing.assert_allclose(both.cdf(y[None])[0], alone.cdf(y), atol=1e-12)
    np.testing.assert_allclose(both.quantiles((0.1, 0.9))[0], alone.quantiles((0.1, 0.9))[:, 0])
    assert both.log_prob(y[None])[0] == pytest.approx(alone.log_prob(y).sum(), abs=0.02)
    points = Mixture(MEAN[:3, None])
    mixed = Predictive.mix(
        [predictive_of(Mixture(m[None]), MeanVariance()) for m in MEAN[:3, None]]
    )
    for predictive in (mixed, predictive_of(points, MeanVariance())):
        m, sd = MEAN[:3, 0].numpy(), np.exp(MEAN[:3, 1].numpy() / 2)
        assert predictive.std()[0, 0] ** 2 == pytest.approx((sd**2).mean() + m.var())
        assert predictive.log_prob([0.4])[0] == pytest.approx(
            np.log(stats.norm.pdf(0.4, m, sd).mean())
        )


def test_the_curvature_is_the_fisher_information():
    f = torch.tensor([0.4, -1.0, -0.7, 0.9], dtype=torch.float64)  # two targets
    root = MeanVariance().hessian_root(f[None])[0]
    generator = torch.Generator().manual_seed(0)
    y = MeanVariance().sample(f.expand(200_000, 4), generator)
    score = torch.func.vmap(torch.func.grad(MeanVariance().log_prob), (None, 0))(f, y)
    torch.testing.assert_close(root @ root.T, score.mT @ score / len(y), atol=0.03, rtol=0.02)
    expected = stats.norm.logpdf([0.1, 0.2], f[:2].numpy(), np.exp(f[2:].numpy() / 2)).sum()
    found = MeanVariance().log_prob(f, torch.tensor([0.1, 0.2]).double())
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (1.0, -2.0), (0.2, 5.0)])
def test_other_units_of_the_target(scale, offset):
    predictive = predictive_of(latents(), MeanVariance())
    moved = predictive.scaled(torch.tensor([scale]), torch.tensor([offset]))
    np.testing.assert_allclose(moved.mean, predictive.mean * scale + offset)
    for part in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(moved.std(part), predictive.std(part) * scale)
    y = np.array([0.1, -1.0, 2.0, 0.0, 1.5])
    expected = predictive.log_prob(y) - np.log(scale)
    np.testing.assert_allclose(moved.log_prob(y * scale + offset), expected, rtol=1e-6)
