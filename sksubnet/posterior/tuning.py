"""Prior precision and noise, scanned over one eigendecomposition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sksubnet.posterior.cholesky import CholeskyPosterior, FactorProjection
from sksubnet.posterior.diagonal import DiagonalProjection
from sksubnet.posterior.gaussian import GaussianPosterior, Projection
from sksubnet.predictive import Gaussian

if TYPE_CHECKING:
    from sksubnet.nets import Rows, TrainedNet
    from sksubnet.predictive import Predictive

AnyProjection = Projection | FactorProjection | DiagonalProjection

GRID = torch.logspace(-6, 8, 43, dtype=torch.float64)
"""Prior precisions that are scanned: three to a decade."""

GOLDEN = (math.sqrt(5) - 1) / 2


class Point(NamedTuple):
    """Product of a prior precision and a noise scale that was looked at, with its loss."""

    loss: float
    noise_scale: float
    ratio: float


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

    def __repr__(self) -> str:
        return "Tuned: " + ", ".join(f"{name} {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self._facts())
        return f"<table>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        """Name and text of what was chosen, and from where."""
        facts = [("prior precision", f"{self.prior_precision:.4g}")]
        if self.noise_scale != 1:
            facts.append(("noise variance", f"times {self.noise_scale:.4g}"))
        if self.grid is not None and self.losses is not None:
            limits = f"{len(self.grid)} values from {self.grid[0]:g} to {self.grid[-1]:g}"
            facts.append(("scanned", limits))
            facts.append(("lowest loss", f"{float(self.losses.min()):.4g} nats"))
        if self.at_edge:
            facts.append(("best value", f"at the {self.at_edge} edge"))
        return facts

    def edge_message(self) -> str:
        """Return what a precision at the edge of the grid means, and what to do."""
        assert self.grid is not None
        limits = f"{float(self.grid[0]):g} to {float(self.grid[-1]):g}"
        if self.at_edge == "upper":
            meaning = (
                "so the held-out rows are predicted best without any variance and the result is "
                "that of the trained net. More held-out rows (validation_fraction) may tell more."
            )
        else:
            meaning = (
                "so the held-out rows ask for more variance than this subnetwork has. Choose a "
                "larger subnetwork_size or another selection."
            )
        return f"The best prior precision is on the {self.at_edge} edge of {limits}, {meaning}"


def tune_on_held_out(
    trained: TrainedNet,
    latents: Tensor,
    projection: AnyProjection,
    rows: Rows,
    *,
    link: str,
    given: float | None,
    tune_noise: bool,
    n_errors: float = 0.0,
) -> Tuned:
    """Minimise the mean held-out negative log likelihood.

    ``latents`` (N, C) and ``projection`` of the Jacobian rows (N, C, S) belong to ``rows``. A prior
    precision that is ``given`` leaves only the noise to tune. With ``n_errors`` the smallest one is
    taken whose loss, row by row, is within so many standard errors of the lowest.
    """
    weights = (rows.weights / rows.weights.sum()).double().cpu()
    by_row: dict[float, Tensor] = {}

    def choose(points: list[Point]) -> Point:
        chosen = best = _lowest(points)
        if not n_errors:
            return best
        smaller = [point for point in points if point.ratio < best.ratio]
        for point in sorted(smaller, key=lambda point: -point.ratio):
            excess = by_row[point.ratio] - by_row[best.ratio]
            mean = weights @ excess
            error = (weights @ (excess - mean).square() / rows.weights.sum().cpu()).sqrt()
            if mean > n_errors * error:
                break
            if point.loss > best.loss:
                chosen = point
        return chosen

    targets, likelihood = rows.y.cpu(), trained.likelihood
    if not isinstance(likelihood, Gaussian):
        # Draws at every grid point would cost more than the fit; this link is close to them.
        link = "extended_probit" if link == "mc" else link

        def class_loss(precision: float) -> tuple[float, float]:
            covariance = projection.covariance(precision)
            log_prob = likelihood.predictive_log_prob(
                latents, covariance, targets, link, trained.seed
            )
            by_row[precision] = -log_prob
            return float(weights @ by_row[precision]), 1.0

        return _scan(class_loss, projection, choose)

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
        by_row[ratio] = nll.sum(1) / 2
        return float(weights @ by_row[ratio]), scale

    return _scan(loss, projection, choose)


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


def tuned_noise(predictive: Predictive, rows: Rows) -> Gaussian:
    """Noise of each output that minimises the negative log likelihood of rows.

    The variance of the outputs (from draws of the net, say) stays as it is, and the likelihood of
    ``predictive`` is where the search starts.
    """
    assert isinstance(predictive.likelihood, Gaussian)
    weights = (rows.weights / rows.weights.sum()).double().cpu()
    squared = (rows.y.double().cpu() - predictive.mean).square()
    variance = predictive.covariance.diagonal(dim1=-2, dim2=-1)

    def best(squared: Tensor, variance: Tensor, start: float) -> float:
        def loss(ratio: float) -> tuple[float, float]:
            total = variance + ratio * start
            return float(weights @ (total.log() + squared / total)), 1.0

        return start * _scan(loss, None).prior_precision

    columns = zip(squared.T, variance.T, predictive.likelihood.noise_variance.tolist(), strict=True)
    return Gaussian(torch.tensor([best(*column) for column in columns], dtype=torch.float64))


def _lowest(points: list[Point]) -> Point:
    """Point of the lowest loss; of equal ones that with the least variance."""
    return min(points, key=lambda point: (point.loss, -point.ratio))


def _scan(
    loss: Callable[[float], tuple[float, float]],
    source: object,
    choose: Callable[[list[Point]], Point] = _lowest,
) -> Tuned:
    """Scan ratios over the grid, then close in on the minimum between the neighbours of the best.

    Where each ratio costs a factorisation, both with as few steps as will do. ``choose`` takes the
    one to use from all that were looked at, the lowest unless it says otherwise.
    """
    costly = isinstance(source, CholeskyPosterior | FactorProjection)
    grid, n_steps = (GRID[::6], 8) if costly else (GRID, 10)
    found: list[Point] = []

    def at(ratio: float) -> Point:
        value, scale = loss(ratio)
        found.append(Point(math.inf if math.isnan(value) else value, scale, ratio))
        return found[-1]

    losses = torch.tensor([at(ratio).loss for ratio in grid.tolist()], dtype=torch.float64)
    # Where the variance makes no difference, none is the simplest.
    best = len(grid) - 1 - int(losses.flip(0).argmin())
    low, high = grid.log()[[max(best - 1, 0), min(best + 1, len(grid) - 1)]].tolist()

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = at(math.exp(left)), at(math.exp(right))
    for _ in range(n_steps - 2):
        if at_left.loss <= at_right.loss:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = at(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = at(math.exp(right))
    chosen = choose(found)
    _, scale, ratio = chosen
    if chosen == _lowest(found):
        at_edge = {0: "lower", len(grid) - 1: "upper"}.get(best, "")
    else:
        at_edge = "lower" if ratio <= grid[0] else ""
    return Tuned(ratio / scale, scale, grid, losses, at_edge)
