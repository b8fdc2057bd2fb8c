"""Likelihoods and links against automatic differentiation, plain Monte Carlo and quadrature."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from sksubnet.predictive import MultiLabel, criterion_row_weights, likelihood_of
from sksubnet.predictive.likelihood import (
    LINKS,
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    check_shapes,
)
from sksubnet.predictive.quadrature import latent_draws, row_chunks

SIGMA2 = torch.tensor([0.3, 2.0, 1.1], dtype=torch.float64)


class Own(Likelihood):
    """One that defines nothing."""


class Unsummed(Gaussian):
    """A log density for each target, where one for each row is asked for."""

    def log_prob(self, f, y):
        return -(y - f).square()


def random_latents(n_rows, n_outputs, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_rows, n_outputs, dtype=torch.float64, generator=generator)


def random_moments(n_rows, n_outputs, variance=1.0, seed=0):
    mean = random_latents(n_rows, n_outputs, 1.5, seed)
    factor = random_latents(n_rows * n_outputs, n_outputs, seed=seed + 1)
    factor = factor.view(n_rows, n_outputs, n_outputs) * math.sqrt(variance / n_outputs)
    return mean, factor @ factor.mT


def cross_entropy(label):
    return lambda row: nn.functional.cross_entropy(row, torch.tensor(label))


def binary_cross_entropy(row):
    return nn.functional.binary_cross_entropy_with_logits(row, torch.ones_like(row))


def gaussian_nll(row):
    return nn.functional.gaussian_nll_loss(row, torch.ones_like(row), SIGMA2, reduction="sum")


@pytest.mark.parametrize(
    ("likelihood", "n_outputs", "loss"),
    [
        (Categorical(), 2, cross_entropy(1)),
        (Categorical(), 5, cross_entropy(3)),
        (Bernoulli(), 1, binary_cross_entropy),
        (Gaussian(SIGMA2), 3, gaussian_nll),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_root_squares_to_the_hessian_of_the_loss(likelihood, n_outputs, loss, scale):
    f = random_latents(4, n_outputs, scale, seed=3)
    expected = torch.stack([torch.func.hessian(loss)(row) for row in f])
    root = likelihood.hessian_root(f)
    torch.testing.assert_close(root @ root.mT, expected, rtol=1e-10, atol=1e-13)


def test_categorical_root_has_one_column_less_and_survives_saturation():
    f = torch.tensor([[800.0, 0.0, -800.0], [0.0, 0.0, 800.0]], dtype=torch.float64)
    root = Categorical().hessian_root(f)
    assert root.shape == (2, 3, 2)
    assert torch.equal(root @ root.mT, torch.zeros(2, 3, 3, dtype=torch.float64))


def test_log_probs_are_minus_the_criterion():
    f, y = random_latents(6, 4), torch.tensor([0, 3, 2, 2, 1, 0])
    expected = -nn.functional.cross_entropy(f, y, reduction="none")
    torch.testing.assert_close(Categorical().log_prob(f, y), expected)

    logit, binary = random_latents(6, 1, 3.0), torch.tensor([0.0, 1, 1, 0, 1, 0]).double()
    expected = -nn.functional.binary_cross_entropy_with_logits(
        logit.squeeze(1), binary, reduction="none"
    )
    torch.testing.assert_close(Bernoulli().log_prob(logit, binary), expected)
    torch.testing.assert_close(
        Bernoulli().probabilities(logit)[:, 1], torch.from_numpy(stats.logistic.cdf(logit[:, 0]))
    )

    mean, target = random_latents(6, 3), random_latents(6, 3, seed=5)
    expected = stats.norm(mean, SIGMA2.sqrt()).logpdf(target).sum(axis=1)
    torch.testing.assert_close(Gaussian(SIGMA2).log_prob(mean, target), torch.from_numpy(expected))


def test_gaussian_predictive_log_prob_adds_model_and_noise_variance():
    mean, covariance = random_moments(5, 3)
    y = random_latents(5, 3, seed=9)
    variance = covariance.diagonal(dim1=1, dim2=2) + SIGMA2
    expected = stats.norm(mean, variance.sqrt()).logpdf(y).sum(axis=1)
    result = Gaussian(SIGMA2).predictive_log_prob(mean, covariance, y)
    torch.testing.assert_close(result, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("link", "tolerance"), [("mc", 0.004), ("extended_probit", 0.06), ("probit", 0.12)]
)
def test_links_against_plain_monte_carlo(link, tolerance):
    mean, covariance = random_moments(4, 3, variance=2.0)
    draws = np.stack(
        [
            np.random.default_rng(0).multivariate_normal(m, v, size=400_000)
            for m, v in zip(mean.numpy(), covariance.numpy(), strict=True)
        ]
    )
    expected = torch.softmax(torch.from_numpy(draws), dim=-1).mean(dim=1)
    result = Categorical().predictive_probabilities(mean, covariance, link)
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(result.sum(dim=1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("link", "tolerance"), [("mc", 0.002), ("extended_probit", 0.02), ("probit", 0.02)]
)
def test_bernoulli_links_against_quadrature(link, tolerance):
    for mean, variance in [(0.7, 0.5), (-2.0, 4.0), (3.0, 9.0), (0.0, 2.0)]:
        expected, _ = integrate.quad(
            lambda f, m=mean, v=variance: stats.logistic.cdf(f) * stats.norm.pdf(f, m, v**0.5),
            mean - 12 * variance**0.5,
            mean + 12 * variance**0.5,
        )
        result = Bernoulli().predictive_probabilities(
            torch.tensor([[mean]]).double(), torch.tensor([[[variance]]]).double(), link
        )
        assert result[0, 1].item() == pytest.approx(expected, abs=tolerance)
        assert result.sum().item() == pytest.approx(1.0)


def test_probit_formulas_with_explicit_loops():
    mean, covariance = random_moments(3, 4)
    scaled = Categorical().predictive_probabilities(mean, covariance, "probit")
    pairwise = Categorical().predictive_probabilities(mean, covariance, "extended_probit")
    for m, v, row, pair_row in zip(mean.numpy(), covariance.numpy(), scaled, pairwise, strict=True):
        expected = np.exp(m / np.sqrt(1 + np.pi / 8 * np.diag(v)))
        np.testing.assert_allclose(row, expected / expected.sum())
        inverse = np.zeros(4)
        for c in range(4):
            for k in range(4):
                spread = v[c, c] + v[k, k] - 2 * v[c, k]
                inverse[c] += np.exp(-(m[c] - m[k]) / np.sqrt(1 + np.pi / 8 * spread))
        np.testing.assert_allclose(pair_row, (1 / inverse) / (1 / inverse).sum())


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("likelihood", "n_outputs"), [(Categorical(), 4), (Bernoulli(), 1)])
def test_without_variance_every_link_is_the_plug_in(link, likelihood, n_outputs):
    mean = random_latents(5, n_outputs, 3.0)
    none = torch.zeros(5, n_outputs, n_outputs, dtype=torch.float64)
    result = likelihood.predictive_probabilities(mean, none, link)
    torch.testing.assert_close(result, likelihood.probabilities(mean), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("link", ["extended_probit", "mc"])
def test_variance_common_to_all_logits_does_not_matter(link):
    mean = random_latents(3, 3)
    common = torch.full((3, 3, 3), 25.0, dtype=torch.float64)
    result = Categorical().predictive_probabilities(mean, common, link)
    torch.testing.assert_close(result, torch.softmax(mean, dim=1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("link", LINKS)
def test_links_are_finite_for_extreme_latents_and_keep_the_dtype(link):
    mean = torch.tensor([[3000.0, -3000.0, 0.0], [0.0, 0.0, -1e5]])
    covariance = torch.eye(3).expand(2, 3, 3)
    likelihood, y = Categorical(), torch.tensor([1, 2])
    assert torch.isfinite(likelihood.predictive_probabilities(mean, covariance, link)).all()
    log_prob = likelihood.predictive_log_prob(mean, covariance, y, link)
    assert torch.isfinite(log_prob).all()
    assert log_prob.dtype == torch.float32


def test_variances_of_differences_that_rounding_made_negative_count_as_zero():
    mean = random_latents(1, 2)
    covariance = torch.tensor([[[1e9, 1e9 + 64], [1e9 + 64, 1e9]]], dtype=torch.float64)
    result = Categorical().predictive_probabilities(mean, covariance, "extended_probit")
    torch.testing.assert_close(result, torch.softmax(mean, dim=1))


def test_the_seed_reaches_the_draws_of_monte_carlo():
    mean, covariance = random_moments(2, 3)
    first, second = (
        Categorical().predictive_probabilities(mean, covariance, "mc", seed) for seed in (1, 2)
    )
    expected = torch.softmax(latent_draws(mean, covariance, 2, 1000), dim=-1).mean(dim=0)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, expected)


def test_predictive_log_prob_picks_the_class():
    mean, covariance = random_moments(4, 3)
    y = torch.tensor([2, 0, 1, 1])
    probabilities = Categorical().predictive_probabilities(mean, covariance, "mc", 3)
    result = Categorical().predictive_log_prob(mean, covariance, y, "mc", 3)
    torch.testing.assert_close(result.exp(), probabilities[torch.arange(4), y])
    mean, covariance = random_moments(4, 1)
    binary = Bernoulli().predictive_probabilities(mean, covariance)
    result = Bernoulli().predictive_log_prob(mean, covariance, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(result.exp(), binary[torch.arange(4), [0, 1, 1, 0]])


def test_draws_have_the_moments_and_do_not_depend_on_the_batch_or_global_state():
    mean, covariance = random_moments(3, 4)
    covariance[1, :, 0] = covariance[1, 0, :] = 0.0  # singular
    state = torch.get_rng_state()
    draws = latent_draws(mean, covariance, 5, 4096)
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(draws.mean(dim=0), mean, rtol=0, atol=5e-3)
    centred = draws - draws.mean(dim=0)
    sample = torch.einsum("mbc,mbd->bcd", centred, centred) / 4096
    torch.testing.assert_close(sample, covariance, rtol=0, atol=2e-2)
    alone = latent_draws(mean[2:], covariance[2:], 5, 4096)
    torch.testing.assert_close(alone, draws[:, 2:], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(latent_draws(mean, covariance, 6, 4096), draws)


def test_chunks_cover_the_rows_once_and_leave_monte_carlo_unchanged(monkeypatch):
    mean, covariance = random_moments(7, 3)
    whole = Categorical().predictive_probabilities(mean, covariance, "mc", 1)
    monkeypatch.setattr("sksubnet.predictive.quadrature._CHUNK_BYTES", 3 * 8 * 1000 * 3 * 2)
    chunks = list(row_chunks(7, 1000, 3))
    assert [(rows.start, rows.stop) for rows in chunks] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    parts = Categorical().predictive_probabilities(mean, covariance, "mc", 1)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("criterion", "n_outputs", "expected"),
    [
        (nn.CrossEntropyLoss(), 3, Categorical),
        (nn.NLLLoss(), 3, Categorical),
        (nn.BCEWithLogitsLoss(), 1, Bernoulli),
        (nn.MSELoss(), 2, Gaussian),
    ],
)
def test_likelihood_of_each_criterion(criterion, n_outputs, expected):
    assert type(likelihood_of(criterion, n_outputs)) is expected


def test_mse_has_unit_noise_for_every_output():
    likelihood = likelihood_of(nn.MSELoss(), 2)
    assert torch.equal(likelihood.noise_variance, torch.ones(2, dtype=torch.float64))


def test_criteria_that_do_not_fit_are_refused():
    class Custom(nn.MSELoss):
        pass

    known = "CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss, MSELoss"
    with pytest.raises(ValueError, match=f"Custom has no known likelihood.*{known}"):
        likelihood_of(Custom(), 1)
    assert isinstance(likelihood_of(nn.BCEWithLogitsLoss(), 3), MultiLabel)
    mean, covariance = random_moments(1, 2)
    with pytest.raises(ValueError, match=r"link='logit'.*'probit', 'extended_probit', 'mc'"):
        Categorical().predictive_probabilities(mean, covariance, "logit")


@pytest.mark.parametrize(
    ("criterion", "f", "y"),
    [
        (
            nn.CrossEntropyLoss(weight=torch.tensor([0.5, 3.0, 1.0]).double(), reduction="none"),
            random_latents(5, 3),
            torch.tensor([2, 1, 0, 0, 1]),
        ),
        (
            nn.BCEWithLogitsLoss(pos_weight=torch.tensor([4.0]).double(), reduction="none"),
            random_latents(4, 1),
            torch.tensor([0.0, 1.0, 1.0, 0.0]).double(),
        ),
    ],
)
def test_class_weights_act_as_row_weights(criterion, f, y):
    likelihood = likelihood_of(criterion, f.shape[1])
    weighted = -criterion_row_weights(criterion, y) * likelihood.log_prob(f, y)
    f = f.squeeze(1) if isinstance(criterion, nn.BCEWithLogitsLoss) else f
    torch.testing.assert_close(weighted, criterion(f, y))


def test_no_class_weights_and_weights_without_meaning():
    y = torch.tensor([0, 1])
    for criterion in (nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()):
        assert criterion_row_weights(criterion, y) is None
    with pytest.raises(ValueError, match="pos_weight"):
        criterion_row_weights(nn.BCEWithLogitsLoss(weight=torch.ones(2)), y)


def test_label_smoothing_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1.*label_smoothing=0"):
        likelihood_of(torch.nn.CrossEntropyLoss(label_smoothing=0.1), 3)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_log_likelihood_under_another_noise(scale):
    f, y = random_latents(7, 3), random_latents(7, 3, seed=1)
    weights = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    log_likelihood = float(weights @ Gaussian(SIGMA2).log_prob(f, y))
    squared = float(weights @ ((y - f).square() / SIGMA2).sum(-1))
    assert Gaussian(SIGMA2).squared_residuals(log_likelihood, weights) == pytest.approx(squared)
    expected = float(weights @ Gaussian(scale * SIGMA2).log_prob(f, y))
    assert Gaussian(SIGMA2).rescaled(log_likelihood, weights, scale) == pytest.approx(expected)


def test_shapes_that_methods_have_to_give():
    y = torch.zeros(4, 3, dtype=torch.float64)
    check_shapes(Gaussian(SIGMA2), 3, y)
    with pytest.raises(ValueError, match=r"log_prob\(f, y\) of the likelihood Unsummed gives"):
        check_shapes(Unsummed(SIGMA2), 3, y)


Y_OF_ONE = torch.zeros(1, 1)


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda own: own.log_prob(Y_OF_ONE, Y_OF_ONE), "log_prob(f, y)"),
        (lambda own: own.hessian_root(Y_OF_ONE), "hessian_root(f)"),
        (lambda own: own.mean(Y_OF_ONE), "mean(f)"),
        (lambda own: own.variance(Y_OF_ONE), "variance(f)"),
        (lambda own: own.cdf(Y_OF_ONE, Y_OF_ONE), "cdf(f, y)"),
        (lambda own: own.sample(Y_OF_ONE, torch.Generator()), "sample(f, generator)"),
        (lambda own: own.scaled_outputs(Y_OF_ONE, Y_OF_ONE), "scaled_outputs(scale, offset)"),
        (lambda own: own.probabilities(Y_OF_ONE), "probabilities(f)"),
        (
            lambda own: own.predictive_probabilities(Y_OF_ONE, Y_OF_ONE),
            "predictive_probabilities(mean, covariance, link, seed)",
        ),
    ],
)
def test_a_method_that_a_likelihood_lacks_is_named(call, method):
    told = f"The likelihood Own has no {method}, which this needs; define it in that class"
    with pytest.raises(NotImplementedError, match=re.escape(told)):
        call(Own())
