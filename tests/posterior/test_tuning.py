"""Prior precision and noise against brute force that inverts the dense precision for each value."""

from dataclasses import replace

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from sksubnet.jacobian.rows import jacobian, plan_jacobian
from sksubnet.nets.trained import Rows
from sksubnet.posterior.curvature import ggn
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.tuning import (
    GRID,
    HeldOut,
    below_mean,
    maximise_evidence,
    tune_on_held_out,
    within_errors,
)
from sksubnet.predictive.likelihood import Bernoulli, Categorical, Gaussian

RNG = np.random.default_rng(0)
N, M = 25, 40
INDICES = torch.tensor([0, 2, 3, 7, 9, 12, 17, 18, 20, 24, 26, 27])
X = RNG.normal(size=(N, 3))
X_HELD = 1.5 * RNG.normal(size=(M, 3))
WEIGHTS = RNG.integers(1, 4, size=N).astype(float)
HELD_WEIGHTS = RNG.uniform(0.2, 2, size=M)
NOISE_VARIANCE = np.array([0.5, 2.0])


def problem(name, scale=1.0, held_noise=1.5):
    """A trained net, its posterior and curvature, and the dense pieces of the same."""
    n_outputs = {"softmax": 3, "logit": 1, "gaussian": 2}[name]
    module = dense.mlp(n_outputs=n_outputs, seed=5)
    f, f_held = dense.evaluate(module, X), dense.evaluate(module, X_HELD)
    rng = np.random.default_rng(3)
    # So far off that the best precision lies within the grid.
    noisy = f_held + (2 if name == "softmax" else 2.5) * rng.normal(size=f_held.shape)
    if name == "gaussian":
        y = f + rng.normal(size=f.shape) * np.sqrt(NOISE_VARIANCE)
        y_held = f_held + held_noise * rng.normal(size=f_held.shape)
        likelihood = Gaussian(torch.as_tensor(NOISE_VARIANCE * scale))
        hessian = np.tile(np.diag(1 / NOISE_VARIANCE / scale), (N, 1, 1))
        log_likelihood = WEIGHTS @ stats.norm(f, np.sqrt(NOISE_VARIANCE * scale)).logpdf(y).sum(1)
    elif name == "softmax":
        y, y_held = f.argmax(1), noisy.argmax(1)
        likelihood, hessian = Categorical(), dense.softmax_hessian(f)
        log_likelihood = WEIGHTS @ np.log(dense.softmax(f)[np.arange(N), y])
    else:
        y = (f[:, 0] > 0).astype(float)
        y_held = (noisy[:, 0] > 0).astype(float)
        p = dense.sigmoid(f)
        likelihood, hessian = Bernoulli(), (p * (1 - p))[:, :, None]
        log_likelihood = WEIGHTS @ np.log(np.where(y == 1, p[:, 0], 1 - p[:, 0]))
    rows = Rows(*(torch.as_tensor(a) for a in (X_HELD, y_held, HELD_WEIGHTS)))
    trained = dense.trained_net(module, likelihood, X, y, WEIGHTS, held_out=rows)
    plan = plan_jacobian(trained.latent, INDICES, trained.train.X[:3])
    curvature = ggn(trained, plan, trained.train)
    mean = dense.weight_vector(module)[INDICES]
    posterior = GaussianPosterior(torch.as_tensor(mean), *curvature.eigendecomposition(), 1.0)
    latents, phi = jacobian(trained.latent, plan, rows.X)
    return {
        "arguments": (trained, latents, posterior.project(phi), rows),
        "evidence": (trained, posterior, curvature.log_likelihood),
        "f_held": f_held,
        "y_held": y_held,
        "J": dense.jacobian(module, X_HELD)[:, :, INDICES],
        "G": dense.ggn(dense.jacobian(module, X)[:, :, INDICES], hessian, WEIGHTS),
        "mean": mean,
        "log_likelihood": log_likelihood,
        "f": f,
        "y": y,
    }


def tune(trained, latents, projection, rows, **options):
    """Tune a single net, over the whole grid."""
    part = HeldOut(latents, projection, rows.y, rows.weights, trained.likelihood)
    return tune_on_held_out([part], seed=trained.seed, costly=False, **options)


def covariance_at(dense_pieces, delta, noise_scale=1.0):
    G = dense_pieces["G"] / noise_scale
    return dense.outputs_covariance(dense_pieces["J"], G + delta * np.eye(len(G)))


def class_loss(pieces, delta, probit):
    """Mean held-out negative log likelihood under a link."""
    mean, covariance = pieces["f_held"], covariance_at(pieces, delta)
    if mean.shape[1] == 1:
        p = dense.sigmoid(mean[:, 0] / np.sqrt(1 + np.pi / 8 * covariance[:, 0, 0]))
        chosen = np.where(pieces["y_held"] == 1, p, 1 - p)
    elif probit:
        variance = np.einsum("ncc->nc", covariance)
        p = dense.softmax(mean / np.sqrt(1 + np.pi / 8 * variance))
        chosen = p[np.arange(M), pieces["y_held"]]
    else:
        variance = np.einsum("ncc->nc", covariance)
        spread = variance[:, :, None] + variance[:, None, :] - 2 * covariance
        gaps = (mean[:, :, None] - mean[:, None, :]) / np.sqrt(1 + np.pi / 8 * spread)
        p = 1 / np.exp(-gaps).sum(axis=2)
        chosen = (p / p.sum(1, keepdims=True))[np.arange(M), pieces["y_held"]]
    return -np.average(np.log(chosen), weights=HELD_WEIGHTS)


def gaussian_loss(pieces, delta, noise_scale=1.0):
    variance = np.einsum("ncc->nc", covariance_at(pieces, delta, noise_scale))
    spread = np.sqrt(variance + NOISE_VARIANCE * noise_scale)
    log_density = stats.norm(pieces["f_held"], spread).logpdf(pieces["y_held"])
    return -np.average(log_density.sum(axis=1), weights=HELD_WEIGHTS)


def assert_best(tuned, loss, *, noise=False):
    """No (delta, noise scale) nearby or on a wide grid has a lower loss."""
    found = loss(tuned.prior_precision, tuned.noise_scale)
    assert found == pytest.approx(float(tuned.losses.min()), abs=5e-3)
    factors = np.geomspace(0.7, 1.4, 9)
    for delta in [*GRID[::3].numpy(), *(tuned.prior_precision * factors)]:
        scales = [tuned.noise_scale]
        if noise:
            scales = [*np.geomspace(0.05, 50, 11), *(tuned.noise_scale * factors)]
        for scale in scales:
            assert found <= loss(delta, scale) + 2e-5


@pytest.mark.parametrize("name", ["softmax", "logit"])
@pytest.mark.parametrize("link", ["probit", "extended_probit", "mc"])
def test_held_out_scan_of_a_classifier(name, link):
    pieces = problem(name)
    tuned = tune(*pieces["arguments"], link=link, given=None, tune_noise=False)
    brute = [class_loss(pieces, delta, link == "probit") for delta in GRID.tolist()]
    assert_allclose(tuned.losses, brute, rtol=1e-7)
    assert torch.equal(tuned.grid, GRID)
    assert_best(tuned, lambda delta, _: class_loss(pieces, delta, link == "probit"))
    assert tuned.noise_scale == 1
    assert tuned.at_edge == ""


def test_held_out_scan_with_given_noise():
    pieces = problem("gaussian", held_noise=2.0)
    tuned = tune(*pieces["arguments"], link="", given=None, tune_noise=False)
    brute = [gaussian_loss(pieces, delta) for delta in GRID.tolist()]
    assert_allclose(tuned.losses, brute, rtol=1e-8)
    assert_best(tuned, lambda delta, _: gaussian_loss(pieces, delta))
    assert tuned.noise_scale == 1


def test_held_out_scan_of_precision_and_noise():
    pieces = problem("gaussian")
    tuned = tune(*pieces["arguments"], link="", given=None, tune_noise=True)
    assert_best(tuned, lambda *value: gaussian_loss(pieces, *value), noise=True)
    assert tuned.noise_scale != pytest.approx(1, abs=0.05)


def test_held_out_noise_of_a_given_precision():
    pieces = problem("gaussian")
    tuned = tune(*pieces["arguments"], link="", given=0.8, tune_noise=True)
    assert tuned.prior_precision == pytest.approx(0.8, rel=1e-12)
    losses = [gaussian_loss(pieces, 0.8, scale) for scale in np.geomspace(1e-2, 1e2, 400)]
    found = gaussian_loss(pieces, 0.8, tuned.noise_scale)
    assert found == pytest.approx(min(losses), abs=2e-4)


def negative_evidence(pieces, delta, noise_scale=1.0):
    """Dense Laplace evidence with the log likelihood computed again under the noise."""
    G, log_likelihood = pieces["G"], pieces["log_likelihood"]
    if pieces["f"].shape[1] == 2:
        std = np.sqrt(NOISE_VARIANCE * noise_scale)
        log_likelihood = WEIGHTS @ stats.norm(pieces["f"], std).logpdf(pieces["y"]).sum(axis=1)
    return -dense.log_evidence(log_likelihood, G / noise_scale, pieces["mean"], delta)


@pytest.mark.parametrize("name", ["softmax", "logit", "gaussian"])
def test_evidence_scan(name):
    pieces = problem(name)
    tuned = maximise_evidence(*pieces["evidence"], given=None, tune_noise=False)
    brute = [negative_evidence(pieces, delta) for delta in GRID.tolist()]
    assert_allclose(tuned.losses, brute, rtol=1e-7)
    best = negative_evidence(pieces, tuned.prior_precision)
    near = [negative_evidence(pieces, tuned.prior_precision * f) for f in (0.97, 1.03)]
    assert best <= min(*brute, *near)
    assert tuned.at_edge == ""


def test_evidence_scan_of_precision_and_noise():
    pieces = problem("gaussian", scale=1.0)
    tuned = maximise_evidence(*pieces["evidence"], given=None, tune_noise=True)
    best = negative_evidence(pieces, tuned.prior_precision, tuned.noise_scale)
    near = np.geomspace(0.8, 1.25, 9)
    for delta in [*np.geomspace(1e-4, 1e4, 25), *(tuned.prior_precision * near)]:
        for scale in [*np.geomspace(0.1, 10, 21), *(tuned.noise_scale * near)]:
            assert best <= negative_evidence(pieces, delta, scale) + 1e-4


def test_evidence_noise_does_not_depend_on_the_starting_point():
    found = []
    for start in (0.2, 1.0, 30.0):
        arguments = problem("gaussian", scale=start)["evidence"]
        tuned = maximise_evidence(*arguments, given=None, tune_noise=True)
        found.append((tuned.prior_precision, tuned.noise_scale * start))
    assert_allclose(found, [found[0]] * 3, rtol=0.02)


def test_evidence_noise_of_a_given_precision():
    pieces = problem("gaussian")
    tuned = maximise_evidence(*pieces["evidence"], given=0.8, tune_noise=True)
    assert tuned.prior_precision == pytest.approx(0.8, rel=1e-12)
    best = negative_evidence(pieces, 0.8, tuned.noise_scale)
    brute = [negative_evidence(pieces, 0.8, scale) for scale in np.geomspace(1e-2, 1e2, 400)]
    assert best <= min(brute) + 1e-2


def test_targets_of_the_map_itself_ask_for_no_variance():
    trained, latents, projection, rows = problem("gaussian")["arguments"]
    noise = torch.as_tensor(NOISE_VARIANCE)
    signs = torch.as_tensor(np.resize([1.0, -1.0], (M, 2)))
    rows = replace(rows, y=latents + 0.5 * noise.sqrt() * signs)
    tuned = tune(trained, latents, projection, rows, link="", given=None, tune_noise=False)
    assert tuned.at_edge == "upper"
    assert tuned.prior_precision == pytest.approx(float(GRID[-1]), rel=0.5)


def test_targets_far_away_ask_for_more_variance_than_there_is():
    trained, latents, projection, rows = problem("gaussian")["arguments"]
    rows = replace(rows, y=latents + 1e9)
    tuned = tune(trained, latents, projection, rows, link="", given=None, tune_noise=False)
    assert tuned.at_edge == "lower"
    assert tuned.prior_precision == pytest.approx(float(GRID[0]), rel=1e-9)


@pytest.mark.parametrize("name", ["softmax", "gaussian"])
def test_rows_without_any_jacobian_ask_for_no_variance(name):
    trained, latents, projection, rows = problem(name)["arguments"]
    projection = replace(projection, coordinates=torch.zeros_like(projection.coordinates))
    tuned = tune(trained, latents, projection, rows, link="probit", given=None, tune_noise=False)
    assert tuned.at_edge == "upper"
    assert tuned.prior_precision == pytest.approx(float(GRID[-1]), rel=1e-9)


def row_losses(name, pieces, delta, noise_scale=1.0):
    """Negative log likelihood (M,) of each held-out row, by scipy."""
    covariance = covariance_at(pieces, delta, noise_scale)
    if name == "gaussian":
        spread = np.sqrt(np.einsum("ncc->nc", covariance) + NOISE_VARIANCE * noise_scale)
        return -stats.norm(pieces["f_held"], spread).logpdf(pieces["y_held"]).sum(axis=1)
    shrunk = pieces["f_held"] / np.sqrt(1 + np.pi / 8 * np.einsum("ncc->nc", covariance))
    return -np.log(dense.softmax(shrunk)[np.arange(M), pieces["y_held"]])


@pytest.mark.parametrize(("name", "times"), [("softmax", 30), ("gaussian", 1)])
def test_standard_error_rule_takes_the_smallest_precision_that_is_as_good(name, times):
    pieces = problem(name, held_noise=0.8)
    trained, latents, projection, rows = pieces["arguments"]
    arguments = (trained, latents, projection, replace(rows, weights=times * rows.weights))
    options = {"link": "probit", "given": None, "tune_noise": False}
    best = tune(*arguments, **options)
    tuned = tune(*arguments, **options, rule=within_errors(1.0))
    lowest = row_losses(name, pieces, best.prior_precision)

    def in_errors(delta):
        excess = row_losses(name, pieces, delta) - lowest
        mean = np.average(excess, weights=HELD_WEIGHTS)
        variance = np.average((excess - mean) ** 2, weights=HELD_WEIGHTS)
        return mean / np.sqrt(variance / HELD_WEIGHTS.sum() / times)

    smaller = [delta for delta in GRID.tolist() if delta < best.prior_precision]
    as_good = [delta for delta in smaller if delta >= tuned.prior_precision]
    assert len(as_good) >= 2
    assert tuned.prior_precision in as_good
    assert max(map(in_errors, as_good)) <= 1
    assert in_errors(smaller[-len(as_good) - 1]) > 1
    assert tuned.at_edge == ""
    assert_allclose(tuned.losses, best.losses)
    wider = tune(*arguments, **options, rule=within_errors(1.5))
    assert wider.prior_precision < tuned.prior_precision


@pytest.mark.parametrize("limits", [(1e-3, 1e3), (0.5, 20.0), (2.0, 2.0)])
@pytest.mark.parametrize("times", [1, 30])
@pytest.mark.parametrize("name", ["softmax", "gaussian"])
def test_one_sd_below_the_mean_of_precisions_as_likely_as_they_make_the_rows(name, times, limits):
    pieces = problem(name, held_noise=0.8)
    trained, latents, projection, rows = pieces["arguments"]
    arguments = (trained, latents, projection, replace(rows, weights=times * rows.weights))
    options = {"link": "probit", "given": None, "tune_noise": False, "limits": limits}
    tuned = tune(*arguments, **options, rule=below_mean)
    logs = np.linspace(*np.log(limits), 301)
    losses = [times * HELD_WEIGHTS @ row_losses(name, pieces, np.exp(log)) for log in logs]
    likelihood = np.exp(np.min(losses) - losses)
    mean = np.average(logs, weights=likelihood)
    expected = mean - np.sqrt(np.average((logs - mean) ** 2, weights=likelihood))
    assert np.log(tuned.prior_precision) == pytest.approx(expected, abs=0.1)
    assert tuned.at_edge == ("upper" if limits[0] == limits[1] else "")


def test_standard_error_rule_counts_a_weight_of_two_as_two_rows():
    pieces = problem("softmax")
    trained, latents, projection, rows = pieces["arguments"]
    options = {"link": "probit", "given": None, "tune_noise": False, "rule": within_errors(1.0)}
    weights = torch.as_tensor(np.arange(M) % 3 + 1.0)
    order = torch.arange(M).repeat_interleave(weights.long())
    weighted = tune(trained, latents, projection, replace(rows, weights=weights), **options)
    repeated = Rows(rows.X[order], rows.y[order], torch.ones(len(order)))
    projection = replace(projection, coordinates=projection.coordinates[order])
    found = tune(trained, latents[order], projection, repeated, **options)
    assert found.prior_precision == weighted.prior_precision
    heavier = replace(rows, weights=50 * weights)
    surer = tune(trained, latents, pieces["arguments"][2], heavier, **options)
    assert surer.prior_precision > weighted.prior_precision


def test_standard_error_rule_leaves_rows_without_any_jacobian_alone():
    pieces = problem("softmax")
    trained, latents, projection, rows = pieces["arguments"]
    projection = replace(projection, coordinates=0 * projection.coordinates)
    options = {"link": "probit", "given": None, "tune_noise": False, "rule": within_errors(1.0)}
    tuned = tune(trained, latents, projection, rows, **options)
    assert tuned.prior_precision == float(GRID[-1])
    assert tuned.at_edge == "upper"
