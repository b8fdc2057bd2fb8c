"""Density, distribution function and draws of the target against scipy and quadrature."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from sksubnet.predictive import Bernoulli, Categorical, Gaussian, Mixture, Predictive

MEANS = torch.tensor([[[0.0, 1.0], [2.0, -1.0]], [[3.0, 1.5], [2.5, 0.0]], [[-1.0, 0], [0, 0]]])
ROOTS = torch.tensor([[1.0, 0.0], [0.6, 0.5]]).double()
COVARIANCES = (ROOTS @ ROOTS.T) * torch.tensor([1.0, 0.5, 2.0]).double()[:, None, None, None]
COVARIANCES = COVARIANCES.repeat(1, 2, 1, 1)
NOISE = torch.tensor([[0.2, 0.3], [0.5, 0.1], [0.4, 0.4]]).double()
Y = np.array([[0.7, 0.4], [1.9, -0.2]])


def gaussian():
    return Predictive(MEANS[0].double(), COVARIANCES[0], Gaussian(NOISE[0]))


def mixture():
    return Predictive.of_mixture(
        Mixture(MEANS.double(), COVARIANCES, NOISE), Gaussian(torch.ones(2))
    )


def normal(component, row):
    covariance = COVARIANCES[component, row] + torch.diag(NOISE[component])
    return stats.multivariate_normal(MEANS[component, row].numpy(), covariance.numpy())


def draws_of_a_net():
    """Points without any covariance of their own."""
    return Predictive.of_mixture(Mixture(MEANS[..., :1].double()), Gaussian(NOISE[0, :1]))


def test_density_of_several_targets_is_that_of_scipy():
    expected = [normal(0, row).logpdf(Y[row]) for row in range(2)]
    np.testing.assert_allclose(gaussian().log_prob(Y), expected, rtol=1e-10)


def test_density_of_a_mixture_is_the_mean_of_the_densities():
    expected = [np.mean([normal(m, row).pdf(Y[row]) for m in range(3)]) for row in range(2)]
    np.testing.assert_allclose(mixture().log_prob(Y), np.log(expected), rtol=1e-10)


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_distribution_function_is_that_of_scipy(make):
    components = [0] if make is gaussian else [0, 1, 2]
    variance = COVARIANCES.diagonal(dim1=-2, dim2=-1).numpy() + NOISE[:, None].numpy()
    expected = np.mean(
        [stats.norm.cdf(Y, MEANS[m], np.sqrt(variance[m])) for m in components], axis=0
    )
    np.testing.assert_allclose(make().cdf(Y), expected, rtol=1e-10)


def test_distribution_function_integrates_the_density_and_undoes_the_quantiles():
    predictive = draws_of_a_net()

    def density(value):
        return np.exp(predictive.log_prob(np.full(2, value)))

    for row, y in enumerate([0.3, 2.2]):
        area = integrate.quad(lambda value, row=row: density(value)[row], -15, y, limit=200)[0]
        assert predictive.cdf(np.full(2, y))[row] == pytest.approx(area, abs=1e-7)
    levels = (0.03, 0.5, 0.9)
    ends = predictive.quantiles(levels)
    for index, level in enumerate(levels):
        np.testing.assert_allclose(predictive.cdf(ends[..., index]), level, atol=1e-9)


def test_results_have_the_shape_of_the_target():
    predictive = draws_of_a_net()
    assert predictive.cdf([0.0, 1.0]).shape == (2,)
    assert predictive.cdf([[0.0], [1.0]]).shape == (2, 1)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        predictive.cdf([0.0, 1.0, 2.0])


def test_targets_without_variance_have_a_step_and_no_density():
    sure = Predictive(torch.zeros(1, 1), torch.zeros(1, 1, 1), Gaussian(torch.zeros(1)))
    np.testing.assert_array_equal(sure.cdf([-0.1]), [0])
    np.testing.assert_array_equal(sure.cdf([0.1]), [1])
    with pytest.raises(ValueError, match="no density"):
        sure.log_prob([0.0])


@pytest.mark.parametrize("make", [gaussian, mixture, draws_of_a_net])
def test_draws_follow_the_distribution(make):
    predictive = make()
    n_targets = predictive.mean.shape[1]
    draws = predictive.sample(20_000, random_state=0)
    assert draws.shape == (2, n_targets, 20_000)
    for row in range(2):
        for target in range(n_targets):

            def cdf(values, row=row, target=target):
                every = np.zeros((2, n_targets))
                return np.array([predictive.cdf(every + v)[row, target] for v in values])

            assert stats.kstest(draws[row, target, :400], cdf).pvalue > 1e-3
        covariance = predictive.covariance[row] + torch.diag(predictive.likelihood.noise_variance)
        spread = np.cov(draws[row]).reshape(n_targets, n_targets)
        np.testing.assert_allclose(spread, covariance, atol=0.08)
    np.testing.assert_array_equal(draws[..., :5].shape, predictive.sample(5, 0).shape)
    np.testing.assert_array_equal(predictive.sample(3, 7), predictive.sample(3, 7))


def test_classes_are_drawn_with_their_probabilities():
    mean, covariance = torch.tensor([[1.0, 0.0, -1.0]]), torch.eye(3)[None]
    predictive = Predictive(mean, covariance, Categorical())
    draws = predictive.sample(40_000, random_state=1)
    assert draws.shape == (1, 40_000)
    shares = np.bincount(draws[0], minlength=3) / 40_000
    np.testing.assert_allclose(shares, predictive.probabilities()[0], atol=0.01)


def test_log_probability_of_classes():
    predictive = Predictive(torch.tensor([[2.0], [0.5]]), torch.ones(2, 1, 1), Bernoulli())
    p = predictive.probabilities()
    np.testing.assert_allclose(predictive.log_prob([1, 0]), np.log([p[0, 1], p[1, 0]]))
    with pytest.raises(ValueError, match="0 to 1"):
        predictive.log_prob([1, 2])
    with pytest.raises(TypeError, match="cdf is for regression"):
        predictive.cdf([0, 1])


@pytest.mark.parametrize("method", ["log_prob", "cdf"])
def test_targets_that_cannot_be_written_to_are_taken_as_they_are(method, recwarn):
    y = Y.copy()
    y.flags.writeable = False
    np.testing.assert_array_equal(getattr(gaussian(), method)(y), getattr(gaussian(), method)(Y))
    assert not recwarn.list
