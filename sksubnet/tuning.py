"""Prior precision and noise, scanned over one eigendecomposition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sksubnet.cholesky import CholeskyPosterior, FactorProjection
from sksubnet.likelihood import Gaussian
from sksubnet.posterior import GaussianPosterior, Projection

if TYPE_CHECKING:
    from sksubnet.trained import Rows, TrainedNet

GRID = torch.logspace(-6, 8, 85, dtype=torch.float64)
"""Prior precisions that are scanned: six to a decade."""

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class Tuned:
    """The chosen prior precision, the factor on the noise variance, and the scanned curve.

    Attributes
    ----------
    prior_precision : float
        Precision with the lowest loss, or the given one.
    noise_scale : float
        Factor on the likelihood's noise variance; 1 where it is not tuned.
    grid, losses : Tensor of shape (n_candidates,) or None
        Scanned prior precisions (times the noise scale) and their losses; ``None`` where the
        precision was given.
    at_edge : {"lower", "upper", ""}
        Which end of the grid the best value is, if any.
    """

    prior_precision: float
    noise_scale: float = 1.0
    grid: Tensor | None = field(default=None, repr=False)
    losses: Tensor | None = field(default=None, repr=False)
    at_edge: str = ""


def tune_on_held_out(
    trained: TrainedNet,
    latents: Tensor,
    projection: Projection | FactorProjection,
    rows: Rows,
    *,
    link: str,
    given: float | None,
    tune_noise: bool,
) -> Tuned:
    """Minimise the mean held-out negative log likelihood.

    ``latents`` (N, C) and ``projection`` of the Jacobian rows (N, C, S) belong to ``rows``. A prior
    precision that is ``given`` leaves only the noise to tune.
    """
    weights = (rows.weights / rows.weights.sum()).double().cpu()
    targets, likelihood = rows.y.cpu(), trained.likelihood
    if not isinstance(likelihood, Gaussian):
        # Draws at every grid point would cost more than the fit; this link is close to them.
        link = "extended_probit" if link == "mc" else link

        def class_loss(precision: float) -> tuple[float, float]:
            covariance = projection.covariance(precision)
            log_prob = likelihood.predictive_log_prob(
                latents, covariance, targets, link, trained.seed
            )
            return -float(weights @ log_prob), 1.0

        return _scan(class_loss, projection)

    squared = (targets.double() - latents).square()
    noise = likelihood.noise_variance

    def loss(ratio: float) -> tuple[float, float]:
        # With ratio = delta * s the variance is s * (J (G + ratio I)^-1 J^T + noise), so that for
        # each ratio the best noise scale s is a mean.
        spread = projection.variance(ratio) + noise
        scale = 1.0
        if tune_noise:
            scale = float((weights @ (squared / spread)).mean()) if given is None else ratio / given
        nll = torch.log(2 * math.pi * scale * spread) + squared / (scale * spread)
        return float((weights @ nll).sum()) / 2, scale

    return _scan(loss, projection)


def maximise_evidence(
    trained: TrainedNet,
    posterior: GaussianPosterior | CholeskyPosterior,
    log_likelihood: float,
    *,
    given: float | None,
    tune_noise: bool,
) -> Tuned:
    """Maximise the Laplace evidence of the subnetwork (MacKay 1992) given its log likelihood.

    For Gaussian noise the best scale is known for each product of precision and scale.
    """
    penalty = float(posterior.mean.square().sum())
    n_rows = float(trained.train.weights.sum())
    likelihood = trained.likelihood

    def loss(ratio: float) -> tuple[float, float]:
        occam = posterior.log_occam(ratio)
        if not tune_noise:
            return (occam + ratio * penalty) / 2 - log_likelihood, 1.0
        assert isinstance(likelihood, Gaussian)
        squared = likelihood.squared_residuals(log_likelihood, n_rows)
        scale = ratio / given if given else (squared + ratio * penalty) / n_rows / trained.n_outputs
        rescaled = likelihood.rescaled(log_likelihood, n_rows, scale)
        return (occam + ratio / scale * penalty) / 2 - rescaled, scale

    return _scan(loss, posterior)


def _scan(loss: Callable[[float], tuple[float, float]], source: object) -> Tuned:
    """Scan ratios over the grid, then close in on the minimum between the neighbours of the best.

    Where each ratio costs a factorisation, both with as few steps as will do.
    """
    costly = isinstance(source, CholeskyPosterior | FactorProjection)
    grid, n_steps = (GRID[::12], 8) if costly else (GRID, 16)
    found: list[tuple[float, float, float]] = []

    def at(ratio: float) -> tuple[float, float, float]:
        value, scale = loss(ratio)
        found.append((math.inf if math.isnan(value) else value, scale, ratio))
        return found[-1]

    losses = torch.tensor([at(ratio)[0] for ratio in grid.tolist()], dtype=torch.float64)
    # Where the variance makes no difference, none is the simplest.
    best = len(grid) - 1 - int(losses.flip(0).argmin())
    low, high = grid.log()[[max(best - 1, 0), min(best + 1, len(grid) - 1)]].tolist()

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = at(math.exp(left)), at(math.exp(right))
    for _ in range(n_steps - 2):
        if at_left[0] <= at_right[0]:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = at(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = at(math.exp(right))
    _, scale, ratio = min(found, key=lambda point: (point[0], -point[2]))
    at_edge = {0: "lower", len(grid) - 1: "upper"}.get(best, "")
    return Tuned(ratio / scale, scale, grid, losses, at_edge)
