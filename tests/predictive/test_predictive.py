"""Predictive against plain Monte Carlo, quadrature and scipy's normal distribution."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from sksubnet.predictive.distribution import Predictive
from sksubnet.predictive.likelihood import LINKS, Bernoulli, Categorical, Gaussian

MEAN = torch.tensor([[0.2, 1.0, -1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
FACTOR = torch.tensor(
    [
        [[1.0, 0, 0], [0.5, 1.2, 0], [-0.3, 0.2, 0.8]],
        [[0.0] * 3] * 3,
        [[3.0, 0, 0]] + [[0.0] * 3] * 2,
    ],
    dtype=torch.float64,
)
COVARIANCE = FACTOR @ FACTOR.mT
NOISE = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def classification(**settings):
    return Predictive(MEAN, COVARIANCE, Categorical(), **settings)


def regression():
    return Predictive(MEAN, COVARIANCE, Gaussian(NOISE))


@pytest.mark.parametrize("link", LINKS)
def test_probabilities_are_those_of_the_link(link):
    expected = Categorical().predictive_probabilities(MEAN, COVARIANCE, link, 4)
    result = classification(link=link, seed=4).probabilities()
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_entropies_against_plain_monte_carlo():
    rng = np.random.default_rng(0)
    for row, (mean, covariance) in enumerate(zip(MEAN, COVARIANCE, strict=True)):
        draws = rng.multivariate_normal(mean.numpy(), covariance.numpy(), size=200_000)
        p = np.exp(draws) / np.exp(draws).sum(axis=1, keepdims=True)
        total = stats.entropy(p.mean(axis=0))
        aleatoric = stats.entropy(p, axis=1).mean()
        predictive = classification()
        assert predictive.entropy()[row] == pytest.approx(total, abs=4e-3)
        assert predictive.entropy("aleatoric")[row] == pytest.approx(aleatoric, abs=4e-3)
        assert predictive.entropy("epistemic")[row] == pytest.approx(total - aleatoric, abs=4e-3)


def test_binary_mutual_information_against_quadrature():
    mean, std = 0.4, 1.7

    def expectation(function):
        return integrate.quad(
            lambda f: function(stats.logistic.cdf(f)) * stats.norm.pdf(f, mean, std), -20, 20
        )[0]

    def entropy(p):
        return stats.entropy([p, 1 - p])

    expected = entropy(expectation(lambda p: p)) - expectation(entropy)
    predictive = Predictive(
        torch.tensor([[mean]]).double(), torch.tensor([[[std**2]]]).double(), Bernoulli()
    )
    assert predictive.mutual_information()[0] == pytest.approx(expected, abs=2e-3)


def test_entropies_add_up_and_without_variance_nothing_is_epistemic():
    predictive = classification()
    parts = predictive.entropy("aleatoric") + predictive.entropy("epistemic")
    np.testing.assert_allclose(predictive.entropy(), parts, rtol=1e-12)
    epistemic = predictive.mutual_information()
    assert (epistemic >= 0).all()
    assert epistemic[1] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(
        predictive.entropy("aleatoric")[1], stats.entropy(torch.softmax(MEAN[1], 0)), rtol=1e-12
    )


def test_rows_do_not_depend_on_the_rows_around_them_or_on_chunks(monkeypatch):
    entropy = classification().entropy("epistemic")
    probabilities = classification(link="mc").probabilities()
    monkeypatch.setattr("sksubnet.predictive.quadrature._CHUNK_BYTES", 1)
    np.testing.assert_allclose(classification().entropy("epistemic"), entropy, atol=1e-12)
    np.testing.assert_allclose(classification(link="mc").probabilities(), probabilities)
    alone = Predictive(MEAN[2:], COVARIANCE[2:], Categorical(), link="mc")
    np.testing.assert_allclose(alone.probabilities(), probabilities[2:], rtol=1e-10)


def test_std_of_the_components():
    epistemic = COVARIANCE.diagonal(dim1=1, dim2=2).numpy()
    noise = NOISE.numpy()
    np.testing.assert_allclose(regression().std(), np.sqrt(epistemic + noise))
    np.testing.assert_allclose(regression().std("epistemic"), np.sqrt(epistemic))
    np.testing.assert_allclose(regression().std("aleatoric"), np.sqrt([noise] * 3))


def test_interval_and_quantiles_are_those_of_the_normal_distribution():
    total = np.sqrt(COVARIANCE.diagonal(dim1=1, dim2=2).numpy() + NOISE.numpy())
    normal = stats.norm(MEAN.numpy(), total)
    np.testing.assert_allclose(regression().interval(0.8), np.stack(normal.interval(0.8), axis=-1))
    q = (0.9, 0.05, 0.5)
    expected = np.stack([normal.ppf(level) for level in q], axis=-1)
    np.testing.assert_allclose(regression().quantiles(q), expected, atol=1e-14)
    np.testing.assert_allclose(regression().quantiles(np.array(q)), expected, atol=1e-14)


def test_float32_and_gradients_become_float64_arrays():
    mean = MEAN.float().requires_grad_()
    noise = Gaussian(NOISE)
    for result in (
        Predictive(mean, COVARIANCE.float(), noise).interval(),
        Predictive(mean, COVARIANCE.float(), Categorical()).entropy(),
        Predictive(mean, COVARIANCE.float(), Categorical()).probabilities(),
    ):
        assert isinstance(result, np.ndarray)
        assert result.dtype == np.float64


def test_no_rows_give_empty_results():
    none, square = torch.zeros(0, 1).double(), torch.zeros(0, 1, 1).double()
    predictive = Predictive(none, square, Bernoulli())
    assert predictive.probabilities().shape == (0, 2)
    assert predictive.entropy().shape == (0,)


@pytest.mark.parametrize(
    ("method", "arguments"), [("std", ()), ("interval", ()), ("quantiles", ((0.5,),))]
)
def test_regression_methods_refuse_a_classifier(method, arguments):
    with pytest.raises(TypeError, match=f"{method} is for regression.*probabilities, entropy"):
        getattr(classification(), method)(*arguments)


@pytest.mark.parametrize("method", ["probabilities", "entropy", "mutual_information"])
def test_classification_methods_refuse_a_regression(method):
    with pytest.raises(TypeError, match=f"{method} is for classification.*std, interval"):
        getattr(regression(), method)()


def test_arguments_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"component='model'.*'total', 'aleatoric', 'epistemic'"):
        regression().std("model")
    with pytest.raises(ValueError, match="component='model'"):
        classification().entropy("model")
    with pytest.raises(ValueError, match=r"link='logit'.*'extended_probit'"):
        classification(link="logit")
    with pytest.raises(ValueError, match="coverage=90"):
        regression().interval(90)
    with pytest.raises(ValueError, match=r"quantiles \(0.0, 0.5\)"):
        regression().quantiles((0.0, 0.5))
    with pytest.raises(ValueError, match=r"\(3, 3\) and covariance \(3, 3\)"):
        Predictive(MEAN, MEAN, Categorical())
