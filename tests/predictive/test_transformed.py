"""Predictives of transformed targets against scipy's lognormal, dense integrals and draws."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

from sksubnet.predictive import (
    Components,
    Gaussian,
    Log,
    Mixture,
    Predictive,
    TransformedPredictive,
    lognormal_moments,
    quadrature_moments,
)

LARGEST = np.finfo(float).max
RNG = np.random.default_rng(0)


class Identity:
    def forward(self, y):
        return y

    def inverse(self, z):
        return z

    def log_derivative(self, y):
        return np.zeros_like(y)

    def moments(self, components):
        return quadrature_moments(self.inverse, components)


class Sinh(Identity):
    """g = arcsinh, whose inverse is a sinh: its moments have closed forms."""

    def forward(self, y):
        return np.arcsinh(y)

    def inverse(self, z):
        return np.sinh(z)

    def log_derivative(self, y):
        return -0.5 * np.log1p(y**2)


def gaussian(n_targets=1, n_rows=4, noise_by_row=False):
    mean = torch.as_tensor(RNG.normal(size=(n_rows, n_targets)))
    root = torch.as_tensor(RNG.normal(size=(n_rows, n_targets, n_targets))) * 0.3
    shape = (n_rows, n_targets) if noise_by_row else (n_targets,)
    noise = Gaussian(torch.as_tensor(RNG.uniform(0.1, 0.4, size=shape)))
    return Predictive(mean, root @ root.mT, noise)


def mixture(n_targets=1, n_rows=4):
    return Predictive.mix([gaussian(n_targets, n_rows) for _ in range(3)])


def total_std(base):
    return base.std()[:, 0]


def test_log_of_one_gaussian_is_scipys_lognormal():
    base = gaussian(noise_by_row=True)
    predictive = TransformedPredictive(base, (Log(),))
    scipys = stats.lognorm(s=total_std(base), scale=np.exp(base.mean[:, 0].numpy()))
    assert_allclose(predictive.mean[:, 0], scipys.mean(), rtol=1e-12)
    assert_allclose(predictive.std()[:, 0], scipys.std(), rtol=1e-12)
    for level in (0.01, 0.5, 0.9):
        assert_allclose(predictive.quantiles([level])[:, 0, 0], scipys.ppf(level), rtol=1e-10)
    assert_allclose(predictive.interval(0.8)[:, 0].T, scipys.interval(0.8), rtol=1e-10)
    y = np.array([0.2, 1.0, 3.0, 0.7])
    assert_allclose(predictive.cdf(y), scipys.cdf(y), rtol=1e-10)
    assert_allclose(predictive.log_prob(y), scipys.logpdf(y), rtol=1e-10)
    assert_allclose(predictive.log_prob(y[:, None]), scipys.logpdf(y), rtol=1e-10)


def test_targets_that_a_logarithm_does_not_have():
    predictive = TransformedPredictive(gaussian(), (Log(),))
    y = [0.0, -1.0, 1.0, -0.0]
    assert_allclose(np.isneginf(predictive.log_prob(y)), [True, True, False, True])
    assert_allclose(predictive.cdf(y)[[0, 1, 3]], 0)


def dense_moments(base, inverse):
    """Mean and total variance of one target by a dense integral over the mixture's density."""
    means, covariances = (part[..., 0].numpy() for part in base._target_components("std"))
    z = np.linspace(-15, 15, 30_001)
    density = stats.norm(means[..., None], covariances**0.5).pdf(z).mean(axis=0)
    first, second = (np.trapezoid(inverse(z) ** k * density, z) for k in (1, 2))
    return first, second - first**2


@pytest.mark.parametrize("make", [gaussian, mixture])
@pytest.mark.parametrize("transform, inverse", [(Log(), np.exp), (Sinh(), np.sinh)])
def test_moments_equal_dense_integrals(make, transform, inverse):
    base = make()
    predictive = TransformedPredictive(base, (transform,))
    mean, variance = dense_moments(base, inverse)
    assert_allclose(predictive.mean[:, 0], mean, rtol=1e-7, atol=1e-9)
    assert_allclose(predictive.std()[:, 0] ** 2, variance, rtol=1e-6)


@pytest.mark.parametrize("make", [gaussian, mixture])
@pytest.mark.parametrize("transform", [Log(), Sinh()])
def test_parts_of_the_std_follow_the_law_of_total_variance(make, transform):
    base = make(n_targets=2)
    predictive = TransformedPredictive(base, (transform,))
    components = base._components().with_noise(base.likelihood)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    nodes, weights = nodes[:, None, None], weights / weights.sum()
    inner = []
    noises = components.row_noise.expand_as(components.means)
    for mean, within, noise in zip(components.means, components.covariances, noises, strict=True):
        f = mean.numpy() + nodes * within.diagonal(dim1=1, dim2=2).sqrt().numpy()
        s = noise.sqrt().numpy()
        if isinstance(transform, Log):  # moments of exp(f + noise) given f
            m, v = np.exp(f + s**2 / 2), np.exp(2 * f + s**2) * np.expm1(s**2)
        else:
            m = np.sinh(f) * np.exp(s**2 / 2)
            v = (np.exp(2 * s**2) * np.cosh(2 * f) - 1) / 2 - m**2
        inner.append((m, v))
    first, second, variance = (
        np.mean([np.tensordot(weights, part, 1) for part in values], axis=0)
        for values in ([m for m, _ in inner], [m**2 for m, _ in inner], [v for _, v in inner])
    )
    assert_allclose(predictive.std("epistemic") ** 2, second - first**2, rtol=1e-7)
    assert_allclose(predictive.std("aleatoric") ** 2, variance, rtol=1e-7)
    parts = predictive.std("aleatoric") ** 2 + predictive.std("epistemic") ** 2
    assert_allclose(predictive.std() ** 2, parts, rtol=1e-12)


def test_parts_are_zero_without_noise_or_without_posterior():
    sure = Predictive(torch.zeros(3, 1), torch.zeros(3, 1, 1), Gaussian(torch.tensor([0.3])))
    noiseless = Predictive(torch.zeros(3, 1), torch.ones(3, 1, 1), Gaussian(torch.tensor([0.0])))
    for transform in (Log(), Sinh()):
        assert_allclose(TransformedPredictive(sure, (transform,)).std("epistemic"), 0, atol=1e-13)
        assert_allclose(
            TransformedPredictive(noiseless, (transform,)).std("aleatoric"), 0, atol=1e-13
        )


def test_draws_of_a_net_are_a_mixture_of_points():
    points = Mixture(torch.as_tensor(RNG.normal(size=(7, 5, 1))))
    base = Predictive.of_mixture(points, Gaussian(torch.tensor([0.2])))
    exact = TransformedPredictive(base, (Log(),))
    means = np.exp(points.means[..., 0].numpy() + 0.1)
    assert_allclose(exact.mean[:, 0], means.mean(axis=0))
    assert_allclose(exact.std("epistemic")[:, 0], means.std(axis=0))


def test_identity_changes_nothing():
    base = mixture(n_targets=2)
    predictive = TransformedPredictive(base, (Identity(),))
    y = RNG.normal(size=(4, 2))
    assert_allclose(predictive.mean, base.mean, rtol=1e-12, atol=1e-13)
    for component in ("total", "aleatoric", "epistemic"):
        assert_allclose(predictive.std(component), base.std(component), rtol=1e-12)
    assert_allclose(predictive.quantiles([0.1, 0.7]), base.quantiles([0.1, 0.7]), rtol=0)
    assert_allclose(predictive.cdf(y), base.cdf(y), rtol=0)
    assert_allclose(predictive.log_prob(y), base.log_prob(y), rtol=0)
    assert_allclose(predictive.sample(3, 0), base.sample(3, 0), rtol=0)


def test_joint_density_has_the_derivative_of_every_target():
    base = gaussian(n_targets=2)
    y = np.array([[0.5, -1.0], [2.0, 0.3], [-0.2, 0.1], [1.0, 1.0]])
    at = base.log_prob(np.arcsinh(y)) - 0.5 * np.log1p(y**2).sum(axis=1)
    assert_allclose(TransformedPredictive(base, (Sinh(),)).log_prob(y), at, rtol=1e-12)


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_density_integrates_to_one_and_is_the_slope_of_the_cdf(make):
    base = make(n_rows=1)
    predictive = TransformedPredictive(base, (Log(),))
    grid = np.exp(np.linspace(-12, 12, 6001))
    everywhere = predictive.rows(np.zeros(len(grid), int))
    density = np.exp(everywhere.log_prob(grid))
    assert integrate.trapezoid(density * grid, np.log(grid)) == pytest.approx(1, abs=1e-6)
    rise = integrate.cumulative_trapezoid(density * grid, np.log(grid), initial=0)
    assert_allclose(everywhere.cdf(grid), rise, atol=1e-5)


def test_crps_is_that_of_the_lognormal_and_of_draws():
    base = gaussian()
    predictive = TransformedPredictive(base, (Log(),))
    y, m, s = np.array([0.1, 1.0, 2.0, 9.0]), base.mean[:, 0].numpy(), total_std(base)
    w = (np.log(y) - m) / s  # Baran and Lerch 2015, equation 12
    closed = y * (2 * stats.norm.cdf(w) - 1) - 2 * np.exp(m + s**2 / 2) * (
        stats.norm.cdf(w - s) + stats.norm.cdf(s / np.sqrt(2)) - 1
    )
    assert_allclose(predictive.crps(y), closed, rtol=1e-3)
    mixed = TransformedPredictive(mixture(), (Sinh(),))
    draws = mixed.sample(40_000, random_state=0)[:, 0]
    others = draws[:, RNG.permutation(draws.shape[1])]
    by_draws = np.abs(draws - y[:, None]).mean(1) - 0.5 * np.abs(draws - others).mean(1)
    assert_allclose(mixed.crps(y[:, None])[:, 0], by_draws, rtol=0.05)


def test_rows_and_stack_keep_the_transform_of_each_row():
    parts = [
        TransformedPredictive(gaussian(n_rows=3), (transform,))
        for transform in (Log(), Sinh(), Log())
    ]
    all_rows = TransformedPredictive.stack(parts)
    assert len(all_rows) == 9 and len(all_rows.transforms) == 2
    levels, y = [0.2, 0.9], np.linspace(0.5, 2, 9)
    order = np.array([8, 4, 0, 3])
    for some, each in (
        (all_rows, np.arange(9)),
        (all_rows.rows(order), order),
        (TransformedPredictive.stack([all_rows.rows(order[:2]), all_rows.rows(order[2:])]), order),
    ):
        for read in (
            lambda p, at: p.quantiles(levels),
            lambda p, at: p.mean.numpy(),
            lambda p, at: p.std("aleatoric"),
            lambda p, at: p.cdf(y[at]),
            lambda p, at: p.log_prob(y[at]),
        ):
            alone = np.concatenate([read(p, 3 * k + np.arange(3)) for k, p in enumerate(parts)])
            assert_allclose(read(some, each), alone[each], rtol=1e-12)


def test_explosive_moments_stay_finite():
    wide = Predictive(
        torch.tensor([[0.0], [800.0], [-800.0], [300.0]]).double(),
        torch.tensor([5000.0, 1.0, 1.0, 300.0]).double()[:, None, None],
        Gaussian(torch.tensor([1.0])),
    )
    for base in (wide, Predictive.mix([wide, wide])):
        for transform in (Log(), Clipped()):
            predictive = TransformedPredictive(base, (transform,))
            for values in (
                predictive.mean.numpy(),
                *(predictive.std(c) for c in ("total", "aleatoric", "epistemic")),
                predictive.quantiles([1e-6, 0.5, 1 - 1e-6]),
                predictive.sample(50, 0),
            ):
                assert np.isfinite(values).all()
        assert TransformedPredictive(base, (Log(),)).mean[1, 0] == LARGEST


class Clipped(Identity):
    def inverse(self, z):
        return np.minimum(np.exp(np.minimum(z, 709.0)), LARGEST)


def test_lognormal_moments_equal_draws():
    root = np.array([[0.4, 0.0, 0.0], [0.2, 0.3, 0.0], [-0.1, 0.1, 0.2]])
    mean, covariance = torch.tensor([[0.1], [0.4], [-0.3]]).double(), torch.as_tensor(root @ root.T)
    found_mean, found = lognormal_moments(mean, covariance[None])
    draws = np.exp(RNG.multivariate_normal(mean[:, 0].numpy(), root @ root.T, size=400_000))
    assert_allclose(found_mean[:, 0], draws.mean(axis=0), rtol=5e-3)
    assert_allclose(found[0], np.cov(draws.T), rtol=0.02, atol=2e-3)


def test_tables_and_texts():
    pytest.importorskip("pandas")
    predictive = TransformedPredictive(gaussian(n_rows=30), (Log(),))
    frame = predictive.to_frame(coverage=0.5)
    assert_allclose(frame["mean"], predictive.mean[:, 0])
    assert_allclose(frame[["lower", "upper"]], predictive.interval(0.5)[:, 0])
    assert repr(predictive).startswith("TransformedPredictive: 30 rows, 1 target, lower to upper")
    assert "<table>" in predictive._repr_html_()
    two = TransformedPredictive(gaussian(n_targets=2, n_rows=1), (Log(),))
    assert repr(two).startswith("TransformedPredictive: 1 row, 2 targets\n")
    assert list(two.to_frame(names=["a", "b"]).columns.levels[0]) == ["a", "b"]


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda p: p.std("noise"), "component='noise' is not known"),
        (lambda p: p.quantiles([0.0]), "above 0 and below 1"),
        (lambda p: p.interval(1.5), "coverage=1.5"),
        (lambda p: p.cdf([1.0]), r"y has shape \(1,\)"),
        (lambda p: p.log_prob(np.ones((4, 2))), r"y has shape \(4, 2\)"),
    ],
)
def test_errors(ask, words):
    with pytest.raises(ValueError, match=words):
        ask(TransformedPredictive(gaussian(), (Log(),)))


def test_quadrature_with_kinks():
    """A piecewise linear inverse, as that of a quantile transformer is."""
    knots, values = np.linspace(-3, 3, 13), np.sort(RNG.normal(size=13)) * 4

    def inverse(z):
        return np.interp(z, knots, values)

    shape = (2, 50, 1)
    components = Components(
        RNG.normal(size=shape), RNG.uniform(0, 0.5, shape), RNG.uniform(0.05, 0.5, shape)
    )
    found = quadrature_moments(inverse, components)
    draws = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    z = components.means + np.sqrt(components.within + components.noise) * draws
    z = np.moveaxis(z, 2, 0).reshape(-1, 2, 50)
    dense = inverse(z)
    assert_allclose(found.mean[:, 0], dense.mean(axis=(0, 1)), atol=5e-3)
    total = np.hypot(found.aleatoric, found.epistemic)[:, 0]
    assert_allclose(total, dense.std(axis=(0, 1)), rtol=2e-2)
