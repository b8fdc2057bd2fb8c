"""The second net, of the noise, against the Gaussian log likelihood and noise that is known."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from sksubnet.nets.criteria import (
    LOG_VARIANCE_LIMIT,
    BatchWeights,
    LogVarianceLoss,
    with_row_weights,
)
from sksubnet.nets.noise import NoiseNet, fit_noise
from sksubnet.nets.trained import Rows

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(8, 2))
ERRORS = RNG.normal(size=(8, 2))
LEVEL = np.array([0.3, 4.0])


def loss(outputs, targets, weights=None):
    criterion = LogVarianceLoss()
    if weights is not None:
        left = BatchWeights()
        criterion = with_row_weights(criterion, left)
        left.leave(torch.as_tensor(weights))
    return float(criterion(torch.as_tensor(outputs), torch.as_tensor(targets)))


def test_the_loss_is_the_gaussian_log_likelihood_up_to_a_constant():
    scale = np.sqrt(LEVEL * np.exp(OUTPUTS))
    constant = 0.5 * np.log(2 * np.pi * LEVEL).mean()
    expected = -stats.norm(0, scale).logpdf(ERRORS).mean() - constant
    assert loss(OUTPUTS, ERRORS**2 / LEVEL) == pytest.approx(expected)


def test_integer_weights_of_the_loss_are_repetition():
    counts = RNG.integers(0, 4, size=8)
    repeated = loss(OUTPUTS.repeat(counts, axis=0), (ERRORS**2).repeat(counts, axis=0))
    assert loss(OUTPUTS, ERRORS**2, counts.astype(float)) == pytest.approx(repeated)
    assert repeated != pytest.approx(loss(OUTPUTS, ERRORS**2))


def test_a_wild_output_counts_as_the_limit():
    wild, limit = np.array([[1e5], [-1e5]]), LOG_VARIANCE_LIMIT * np.array([[1.0], [-1.0]])
    assert loss(wild, np.ones((2, 1))) == pytest.approx(loss(limit, np.ones((2, 1))))


def rows(X, std, seed, scale=1.0):
    """Squared errors of a known noise as targets."""
    errors = std * np.random.default_rng(seed).normal(size=std.shape)
    squared = scale * errors**2
    return Rows(torch.as_tensor(X), torch.as_tensor(squared), torch.ones(len(X)).double())


def std_at(X):
    """Two targets whose noise differs by a factor of four or so, in another way each."""
    return np.column_stack([0.5 * np.exp(0.7 * X[:, 0]), 3 * np.exp(0.5 * np.sin(2 * X[:, 1]))])


@pytest.fixture(scope="module")
def known():
    X = np.random.default_rng(1).uniform(-1, 1, size=(2000, 2))
    parts = rows(X[:1600], std_at(X[:1600]), 2), rows(X[1600:], std_at(X[1600:]), 3)
    return fit_noise(*parts, dtype=torch.float64, seed=0), parts


def test_a_known_noise_is_found(known):
    X_new = np.random.default_rng(4).uniform(-0.9, 0.9, size=(300, 2))
    found = known[0](torch.as_tensor(X_new)).sqrt().numpy()
    ratio = found / std_at(X_new)
    assert np.quantile(np.abs(np.log(ratio)), 0.9) < np.log(1.25)
    assert_allclose(ratio.mean(axis=0), 1, atol=0.1)
    constant = np.sqrt((std_at(X_new) ** 2).mean(axis=0)) / std_at(X_new)
    assert np.quantile(np.abs(np.log(constant)), 0.9) > np.log(1.5)


def test_the_level_is_the_mean_square_of_the_training_rows(known):
    noise, (train, _) = known
    assert_allclose(noise.levels[0], train.y.mean(dim=0), rtol=1e-12)
    net = noise.latents[0]
    with torch.no_grad():
        inputs = torch.as_tensor(noise.encodings[0](train.X[:9].numpy()))
        expected = train.y.mean(dim=0) * torch.exp(net(inputs))
    assert_allclose(noise(train.X[:9]), expected, rtol=1e-9)


def test_residuals_in_other_units_give_the_noise_in_these(known):
    X = np.random.default_rng(1).uniform(-1, 1, size=(300, 2))
    std = std_at(X)
    parts = [
        [rows(X[s], std[s], 5, scale) for s in (slice(240), slice(240, None))] for scale in (1, 64)
    ]
    one, other = (fit_noise(*part, dtype=torch.float64, seed=0) for part in parts)
    assert_allclose(other(torch.as_tensor(X)), 64 * one(torch.as_tensor(X)), rtol=1e-9)


def test_the_noise_of_nets_is_the_mean_of_their_variances(known):
    noise = known[0]
    X = torch.as_tensor(np.random.default_rng(6).uniform(-1, 1, size=(7, 2)))
    both = NoiseNet.mean([noise, noise.scaled(5)])
    assert_allclose(noise.scaled(5)(X), 5 * noise(X))
    assert_allclose(both(X), 3 * noise(X))
    assert_allclose(both.scaled(2)(X), 6 * noise(X))
    assert len(both.latents) == 2
