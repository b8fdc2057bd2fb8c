"""Prior precision and noise, scanned over one eigendecomposition of each net."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sksubnet.posterior.facts import line, table
from sksubnet.posterior.kinds import Posterior, Projection
from sksubnet.predictive import Gaussian

if TYPE_CHECKING:
    from sksubnet.nets import Rows, TrainedNet
    from sksubnet.predictive import Likelihood, Predictive

GRID = torch.logspace(-6, 8, 43, dtype=torch.float64)
"""Prior precisions that are scanned: three to a decade."""

GRID_LIMITS = (float(GRID[0]), float(GRID[-1]))

GOLDEN = (math.sqrt(5) - 1) / 2

PRIOR_SD = (1.0, 10.0)
"""Least and largest standard deviation that the prior alone may give the outputs of an average row,
in standard deviations of the target, or in logits. Held-out rows say nothing about directions that
the data do not touch, so a rule that follows them alone walks to no variance or to hundreds."""

LEAST_MIXTURE_SCALE = 0.5
"""How far the variance of each net is taken back at most where they differ a lot."""

SHRUNK_ROWS = 4
"""Rows of the noise of all nets that count in that of each, which may have seen few."""


class Point(NamedTuple):
    """Product of a prior precision and a noise scale that was looked at, with its loss."""

    loss: float
    noise_scale: float
    ratio: float


@dataclass(frozen=True, eq=False)
class Scanned:
    """What was looked at: points, the loss (N,) of every row by ratio, and the rows' weights."""

    points: list[Point]
    by_row: Mapping[float, Tensor]
    weights: Tensor


Rule = Callable[[Scanned], float]
"""Chooses a ratio."""


def lowest(scanned: Scanned) -> float:
    """Give the ratio of the lowest loss."""
    return _lowest(scanned.points).ratio


def within_errors(n_errors: float) -> Rule:
    """Smallest ratio whose loss, row by row, is within so many standard errors of the lowest."""

    def choose(scanned: Scanned) -> float:
        weights = scanned.weights / scanned.weights.sum()
        chosen = best = _lowest(scanned.points)
        smaller = [point for point in scanned.points if point.ratio < best.ratio]
        for point in sorted(smaller, key=lambda point: -point.ratio):
            excess = scanned.by_row[point.ratio] - scanned.by_row[best.ratio]
            mean = weights @ excess
            error = (weights @ (excess - mean).square() / scanned.weights.sum()).sqrt()
            if mean > n_errors * error:
                break
            if point.loss > best.loss:
                chosen = point
        return chosen.ratio

    return choose


def below_mean(scanned: Scanned) -> float:
    """Ratio one standard deviation of the logarithm below its mean, as likely as the rows make it.

    Under a uniform prior over what was scanned. Where the rows tell little the lowest loss is at
    one end or the other by chance, but these moments are not.
    """
    finite = [point for point in scanned.points if math.isfinite(point.loss)]
    points = sorted(finite, key=lambda point: point.ratio)
    best = _lowest(scanned.points)
    logs = torch.tensor([point.ratio for point in points], dtype=torch.float64).log()
    if not points or logs[0] == logs[-1]:
        return best.ratio
    losses = torch.tensor([point.loss for point in points], dtype=torch.float64)
    likelihood = (-float(scanned.weights.sum()) * (losses - best.loss)).exp()
    total = torch.trapezoid(likelihood, logs)
    mean = torch.trapezoid(likelihood * logs, logs) / total
    variance = torch.trapezoid(likelihood * (logs - mean).square(), logs) / total
    return max(points[0].ratio, math.exp(float(mean - variance.sqrt())))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows that a net was not trained on, and what it says of them.

    ``latents`` (N, C) and the ``projection`` of the Jacobian rows (N, C, S) are on the CPU, and so
    are ``targets`` (N,) or (N, C) and ``weights`` (N,). ``likelihood`` has the noise of the rows.
    """

    latents: Tensor
    projection: Projection
    targets: Tensor
    weights: Tensor
    likelihood: Likelihood


@dataclass(frozen=True, eq=False)
class Tuned:
    """The chosen prior precision, the factors on the noise variance, and the scanned curve.

    Attributes
    ----------
    prior_precision : float
        The chosen precision, or the given one.
    noise_scale : float
        Factor on the likelihood's noise variance, of all nets together; 1 where it is not tuned.
    noise_scales : tuple of float
        The same for each net.
    mixture_scale : float
        Factor on the variance of each net, by which their mixture is as wide as unseen rows ask a
        single one to be; see ``mixture_scale``.
    grid, losses : Tensor of shape (n_candidates,) or None
        Scanned prior precisions (times the noise scale) and their losses; ``None`` where the
        precision was given.
    at_edge : {"lower", "upper", ""}
        Which end of the scanned range the best value is, if any.
    given : bool
        Whether the precision was given.
    chosen_by : str
        What told it, in words.
    """

    prior_precision: float
    noise_scale: float = 1.0
    noise_scales: tuple[float, ...] = (1.0,)
    mixture_scale: float = 1.0
    grid: Tensor | None = field(default=None, repr=False)
    losses: Tensor | None = field(default=None, repr=False)
    at_edge: str = ""
    given: bool = False
    chosen_by: str = "rows that the nets have not seen"

    def __repr__(self) -> str:
        return line("Tuned", self._facts())

    def _repr_html_(self) -> str:
        return table("Tuned", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """Name and text of what was chosen, and from where."""
        facts = [("prior precision", f"{self.prior_precision:.4g}")]
        if self.noise_scale != 1:
            facts.append(("noise variance", f"times {self.noise_scale:.4g}"))
        if self.grid is not None and self.losses is not None:
            low, high = _ends(self.grid, self.noise_scale)
            limits = f"{len(self.grid)} values from {low:.4g} to {high:.4g}"
            facts.append(("scanned", limits))
            facts.append(("lowest loss", f"{float(self.losses.min()):.4g} nats"))
        if self.at_edge:
            facts.append(("best value", f"at the {self.at_edge} edge"))
        return facts

    def of_net(self, index: int) -> tuple[float, float]:
        """Prior precision and noise scale of one of the nets.

        What the rows of all tell is the product of both, so more noise goes with a wider prior.
        """
        scale = self.noise_scales[index] * self.mixture_scale
        if self.given:
            return self.prior_precision, scale
        return self.prior_precision * self.noise_scale / scale, scale

    def summary(self) -> str:
        """Return in words what was found, and what it means.

        Returns
        -------
        str
            Some sentences.
        """
        meaning = (
            "before the data speak, a weight of the subnetwork is thought to be within about "
            f"{self.prior_precision**-0.5:.2g} (one over the root of that) of its trained value, "
            "so that a larger one means less uncertainty."
        )
        if self.given or self.grid is None:
            return f"The prior precision {self.prior_precision:.3g} was given: {meaning}"
        low, high = _ends(self.grid, self.noise_scale)
        found = (
            f"The prior precision is {self.prior_precision:.3g}: {meaning} "
            f"It was chosen by {self.chosen_by}, out of {low:.3g} to {high:.3g}."
        )
        if self.at_edge == "upper":
            return (
                f"{found} That is the upper limit: the held-out rows are predicted best with the "
                "least variance that is allowed, so what the model does not know is set by the "
                "limit. More rows may tell more; prior_precision takes a number."
            )
        if self.at_edge == "lower":
            return (
                f"{found} That is the lower limit: the held-out rows ask for more variance than "
                "this subnetwork has under a sane prior. Noise that differs from row to row "
                "(noise='input') or a larger subnetwork_size may serve them better."
            )
        return found


def _ends(grid: Tensor, noise_scale: float) -> tuple[float, float]:
    """Prior precisions at the ends of a grid of their products with the noise scale."""
    return float(grid[0] / noise_scale), float(grid[-1] / noise_scale)


def prior_limits(parts: Sequence[HeldOut], unit: Tensor) -> tuple[float, float]:
    """Prior precisions whose predictive sd of an average row is within ``PRIOR_SD``.

    ``unit`` (C,) are the variances of the targets in the units of the latents, 1 for logits; a
    constant target, whose variance is 0, has no say.
    """
    varies = unit > 0
    if not varies.any():
        return GRID_LIMITS
    weights = torch.cat([part.weights for part in parts])
    energy = torch.cat([part.projection.energy() for part in parts])
    if len(unit) > 1:
        energy = energy[:, varies]
    energy = energy / unit[varies]
    mean = float(weights @ energy.mean(1) / weights.sum())
    least, most = PRIOR_SD
    if not 0 < mean < math.inf:
        return GRID_LIMITS
    return mean / most**2, mean / least**2


def tune_on_held_out(
    parts: Sequence[HeldOut],
    *,
    link: str,
    seed: int,
    given: float | None,
    tune_noise: bool,
    costly: bool,
    limits: tuple[float, float] = GRID_LIMITS,
    rule: Rule | None = None,
) -> Tuned:
    """Tune by the mean negative log likelihood of the rows that each net has not seen.

    The rule chooses from the losses, without one the lowest. A prior precision that is ``given``
    leaves only the noise to tune.
    """
    total = torch.cat([part.weights for part in parts]).double()
    weights = total / total.sum()
    by_row: dict[float, Tensor] = {}

    def choose(points: list[Point]) -> float:
        return (rule or lowest)(Scanned(points, by_row, total))

    if not isinstance(parts[0].likelihood, Gaussian):
        # Draws at every grid point would cost more than the fit; this link is close to them.
        link = "extended_probit" if link == "mc" else link

        def class_loss(precision: float) -> tuple[float, float]:
            by_row[precision] = torch.cat(
                [
                    -part.likelihood.predictive_log_prob(
                        part.latents,
                        part.projection.covariance(precision),
                        part.targets,
                        link,
                        seed,
                    )
                    for part in parts
                ]
            )
            return float(weights @ by_row[precision]), 1.0

        tuned = _scan(class_loss, costly, choose, limits)
        return replace(tuned, noise_scales=(1.0,) * len(parts))

    squared = torch.cat([(p.targets.double() - p.latents).square() for p in parts])

    def spreads(ratio: float) -> list[Tensor]:
        return [p.projection.variance(ratio) + noise_of(p.likelihood) for p in parts]

    def loss(ratio: float) -> tuple[float, float]:
        # With ratio = delta * s the variance is s * (J (G + ratio I)^-1 J^T + noise), so that for
        # each ratio the best noise scale s is a mean.
        spread = torch.cat(spreads(ratio))
        scale = 1.0
        if tune_noise:
            scale = float((weights @ (squared / spread)).mean()) if given is None else ratio / given
        nll = torch.log(2 * math.pi * scale * spread) + squared / (scale * spread)
        by_row[ratio] = nll.sum(1) / 2
        return float(weights @ by_row[ratio]), scale

    tuned = _scan(loss, costly, choose, limits if given is None else GRID_LIMITS)
    ratio, scales = tuned.prior_precision * tuned.noise_scale, (tuned.noise_scale,) * len(parts)
    if tune_noise and len(parts) > 1:
        scales = tuple(
            _shrunk_scale(part, spread, tuned.noise_scale)
            for part, spread in zip(parts, spreads(ratio), strict=True)
        )
    return replace(tuned, noise_scales=scales, given=given is not None)


def mixture_scale(
    latents: Tensor, weights: Tensor, parts: Sequence[HeldOut], tuned: Tuned
) -> float:
    """Factor on the variance of each net that leaves room for what they differ by.

    ``latents`` (K, N, C) are those of all nets at all rows, of weights (N,). Each net's variance is
    what its own error on unseen rows asks for, so a mixture, whose error is smaller by what the
    nets differ by (the ambiguity of Krogh and Vedelsby, NeurIPS 1994), would be too wide by twice
    that. Half of it is taken off: on development rows of 13 tables that gave the lowest loss.
    """
    ambiguity = _row_mean(latents.var(dim=0, correction=0), weights)
    ratio = tuned.prior_precision * tuned.noise_scale
    variances = [
        scale * (part.projection.variance(ratio) + noise_of(part.likelihood))
        for part, scale in zip(parts, tuned.noise_scales, strict=True)
    ]
    variance = _row_mean(torch.cat(variances), torch.cat([part.weights for part in parts]))
    return max(LEAST_MIXTURE_SCALE, 1 - ambiguity / variance)


def _row_mean(values: Tensor, weights: Tensor) -> float:
    """Weighted mean over the rows of values (N, C), plain mean over the outputs."""
    return float(weights.double() @ values.mean(dim=1) / weights.double().sum())


def _shrunk_scale(part: HeldOut, spread: Tensor, pooled: float) -> float:
    """Noise scale of a net by its own rows, with a few rows of the scale of all nets."""
    each = ((part.targets.double() - part.latents).square() / spread).mean(1)
    n_rows = float(part.weights.sum())
    return float(part.weights @ each + SHRUNK_ROWS * pooled) / (n_rows + SHRUNK_ROWS)


def noise_of(likelihood: Likelihood) -> Tensor:
    """Noise variance (C,), or by row (N, C)."""
    assert isinstance(likelihood, Gaussian)
    return likelihood.noise_variance


def maximise_evidence(
    trained: TrainedNet,
    posterior: Posterior,
    log_likelihood: float,
    *,
    given: float | None,
    tune_noise: bool,
) -> Tuned:
    """Maximise the Laplace evidence of the subnetwork (MacKay 1992) given its log likelihood.

    For Gaussian noise the best scale is known for each product of precision and scale.
    """
    penalty = float(posterior.mean.square().sum())
    weights = trained.train.weights
    n_rows = float(weights.sum())
    likelihood = trained.train.likelihood(trained.likelihood)

    def loss(ratio: float) -> tuple[float, float]:
        occam = posterior.log_occam(ratio)
        if not tune_noise:
            return (occam + ratio * penalty) / 2 - log_likelihood, 1.0
        assert isinstance(likelihood, Gaussian)
        squared = likelihood.squared_residuals(log_likelihood, weights)
        scale = ratio / given if given else (squared + ratio * penalty) / n_rows / trained.n_outputs
        rescaled = likelihood.rescaled(log_likelihood, weights, scale)
        return (occam + ratio / scale * penalty) / 2 - rescaled, scale

    tuned = _scan(loss, posterior.costly)
    return replace(
        tuned,
        noise_scales=(tuned.noise_scale,),
        given=given is not None,
        chosen_by="the evidence of the rows that trained the net",
    )


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

        return start * _scan(loss, costly=False).prior_precision

    columns = zip(squared.T, variance.T, predictive.likelihood.noise_variance.tolist(), strict=True)
    return Gaussian(torch.tensor([best(*column) for column in columns], dtype=torch.float64))


def _lowest(points: list[Point]) -> Point:
    """Point of the lowest loss; of equal ones that with the least variance."""
    return min(points, key=lambda point: (point.loss, -point.ratio))


def _scan(
    loss: Callable[[float], tuple[float, float]],
    costly: bool,
    choose: Callable[[list[Point]], float] = lambda points: _lowest(points).ratio,
    limits: tuple[float, float] = GRID_LIMITS,
) -> Tuned:
    """Scan ratios over the grid, then close in on the minimum between the neighbours of the best.

    Where each ratio costs a factorisation, both with as few steps as will do. ``choose`` gives the
    one to use by all that were looked at, the lowest unless it says otherwise.
    """
    grid, n_steps = _within(GRID, limits), 10
    if costly:
        grid, n_steps = _within(GRID[::6], limits), 8
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
    ratio, lowest_loss = choose(found), _lowest(found)
    scale = (next((p for p in found if p.ratio == ratio), None) or at(ratio)).noise_scale
    if ratio == lowest_loss.ratio:
        at_edge = {0: "lower", len(grid) - 1: "upper"}.get(best, "")
    else:
        at_edge = "lower" if ratio <= grid[0] else ""
    return Tuned(ratio / scale, scale, (scale,), grid=grid, losses=losses, at_edge=at_edge)


def _within(grid: Tensor, limits: tuple[float, float]) -> Tensor:
    """Points of the grid between the limits, and the limits themselves."""
    low, high = max(limits[0], float(grid[0])), min(limits[1], float(grid[-1]))
    ends = torch.tensor([low, high], dtype=torch.float64)
    return torch.cat([ends[:1], grid[(grid > low) & (grid < high)], ends[1:]])
