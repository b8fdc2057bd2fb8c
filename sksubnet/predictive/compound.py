"""Targets of a likelihood that is not Gaussian, mixed over the posterior of the latents.

Shape letters: M nodes, N and B rows, C latents, T targets, Q levels of quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sksubnet.predictive.distribution import DEFAULT_LINK, Predictive, gaussian_draws
from sksubnet.predictive.labels import MultiLabelPredictive
from sksubnet.predictive.likelihood import Gaussian, Likelihood
from sksubnet.predictive.mixture import Mixture
from sksubnet.predictive.quadrature import N_DRAWS, row_chunks

N_BISECTIONS = 60
N_DOUBLINGS = 60
MOST_STEPS = 128
N_LEGENDRE = 16
TAILS = (1e-9, 1e-5, 1e-2, 0.1)
CRPS_LEVELS = torch.tensor([*TAILS, 0.5, *(1 - t for t in reversed(TAILS))], dtype=torch.float64)


@dataclass(frozen=True, eq=False, repr=False)
class CompoundPredictive(Predictive):
    """Predictive of targets whose likelihood is not Gaussian, such as counts.

    ``mean`` (N, T) is that of the targets, ``covariance`` (N, T, T) how much of them the weights
    leave open, and ``mixture`` the Gaussians or points over the latents, one of them at least.

    Examples
    --------
    >>> import torch
    >>> from sksubnet.predictive import CompoundPredictive, Mixture, Poisson
    >>> log_rate = Mixture(torch.zeros(1, 1, 1), torch.full((1, 1, 1, 1), 0.25))
    >>> counts = CompoundPredictive.of_mixture(log_rate, Poisson())
    >>> counts.mean, counts.std().round(3), counts.interval(0.9)
    (tensor([[1.1331]], dtype=torch.float64), array([[1.224]]), array([[[0., 3.]]]))
    """

    @classmethod
    def of_mixture(
        cls, mixture: Mixture, likelihood: Likelihood, link: str = DEFAULT_LINK, seed: int = 0
    ) -> CompoundPredictive:
        """Predictive of targets whose latents are a mixture."""
        means, between, _ = _moments(mixture, likelihood, seed)
        return cls(*Mixture(means, between).moments(), likelihood, link, seed, mixture)

    def scaled(self, scale: Tensor, offset: Tensor) -> Predictive:
        """Predictive of ``target * scale + offset``, both of shape (T,), where that can be."""
        if bool((scale == 1).all()) and bool((offset == 0).all()):
            return self
        if not self.likelihood.scales_targets:
            raise TypeError(
                f"Targets of the likelihood {type(self.likelihood).__name__} cannot be scaled."
            )
        latents = self._components().scaled(*self.likelihood.scaled_outputs(scale, offset))
        return self.of_mixture(latents, self.likelihood, self.link, self.seed)

    def _variances(self) -> tuple[Tensor, Tensor]:
        epistemic = self.covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0)
        return epistemic, _moments(self._components(), self.likelihood, self.seed)[2].mean(dim=0)

    def _nodes(self, rows: slice, joint: bool) -> tuple[Tensor, Tensor]:
        """Latents (M, B, C) and weights (M,) of some rows, of each target or of all together."""
        part = self._components().rows(rows)
        means = part.means.detach().double()
        if part.covariances is None:
            return means, torch.full((len(part),), 1 / len(part)).to(means)
        nodes = self.likelihood.joint_nodes if joint else self.likelihood.nodes
        covariances = part.covariances.detach().double()
        found = [nodes(*one, self.seed) for one in zip(means, covariances, strict=True)]
        latents, weights = (torch.cat(values) for values in zip(*found, strict=True))
        return latents, weights / len(part)

    def _chunks(self) -> Any:
        """Slices over the rows whose nodes fit the memory."""
        components = self._components()
        n_nodes = len(components) * (1 if components.covariances is None else N_DRAWS)
        return row_chunks(len(self), n_nodes, components.means.shape[-1])

    def _target_cdf(self, y: Tensor) -> Tensor:
        parts = [
            _mixed_cdf(self.likelihood, *self._nodes(rows, joint=False), y[rows])
            for rows in self._chunks()
        ]
        return torch.cat(parts)

    def _target_log_prob(self, y: Tensor) -> Tensor:
        parts = []
        for rows in self._chunks():
            latents, weights = self._nodes(rows, joint=True)
            log_prob = self.likelihood.log_prob(latents, y[rows])
            parts.append(torch.logsumexp(weights.log()[:, None] + log_prob, dim=0))
        return torch.cat(parts)

    def _target_quantiles(self, levels: Tensor) -> Tensor:
        epistemic, aleatoric = self._variances()
        center, spread = self.mean.double(), (epistemic + aleatoric).sqrt().double()
        parts = []
        for rows in self._chunks():
            latents, weights = self._nodes(rows, joint=False)
            search = _integer_quantile if self.likelihood.discrete else _quantile
            found = [
                search(self.likelihood, latents, weights, level, center[rows], spread[rows])
                for level in levels.tolist()
            ]
            parts.append(torch.stack(found, dim=-1))
        return torch.cat(parts)

    def _target_crps(self, y: Tensor) -> Tensor:
        total = _sum_over_counts if self.likelihood.discrete else _integral
        known = self._target_quantiles(CRPS_LEVELS)
        parts = []
        for rows in self._chunks():
            nodes = self._nodes(rows, joint=False)
            parts.append(total(self.likelihood, *nodes, y[rows], known[rows]))
        return torch.cat(parts)

    def _target_draws(self, n: int, generator: np.random.Generator) -> np.ndarray:
        components = self._components()
        means = components.means.detach().double()
        covariances = components.covariances
        if covariances is None:
            covariances = torch.zeros(*means.shape, means.shape[-1])
        latents = gaussian_draws(means, covariances.detach().double(), n, generator)
        of_torch = torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
        draws = self.likelihood.sample(torch.as_tensor(latents), of_torch)
        result: np.ndarray = draws.numpy().swapaxes(1, 2)
        return result


def predictive_of(
    latents: Mixture, likelihood: Likelihood, link: str = DEFAULT_LINK, seed: int = 0
) -> Predictive:
    """Predictive of targets or classes whose latents are a Gaussian or a mixture."""
    if likelihood.task == "regression" and not isinstance(likelihood, Gaussian):
        return CompoundPredictive.of_mixture(latents, likelihood, link, seed)
    kind = MultiLabelPredictive if likelihood.task == "multilabel" else Predictive
    if len(latents) == 1 and latents.covariances is not None:
        return kind(latents.means[0], latents.covariances[0], likelihood, link, seed)
    return kind.of_mixture(latents, likelihood, link, seed)


def _moments(
    mixture: Mixture, likelihood: Likelihood, seed: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Of each component: mean (M, N, T), covariance of the means, and mean of the variances."""
    means = mixture.means.detach().double()
    if mixture.covariances is None:
        return likelihood.mean(means), None, likelihood.variance(means)
    covariances = mixture.covariances.detach().double()
    parts = []
    for component in zip(means, covariances, strict=True):
        chunks = row_chunks(means.shape[1], N_DRAWS, means.shape[-1])
        found = [
            likelihood.predictive_moments(component[0][rows], component[1][rows], seed)
            for rows in chunks
        ]
        parts.append([torch.cat(values) for values in zip(*found, strict=True)])
    mean, between, within = (torch.stack(values) for values in zip(*parts, strict=True))
    return mean, between, within


def _mixed_cdf(likelihood: Likelihood, latents: Tensor, weights: Tensor, y: Tensor) -> Tensor:
    """Probability (B, T) at or below y (B, T), over nodes (M, B, C)."""
    return torch.einsum("m,mbt->bt", weights, likelihood.cdf(latents, y))


def _integral(
    likelihood: Likelihood, latents: Tensor, weights: Tensor, y: Tensor, quantiles: Tensor
) -> Tensor:
    """Integral (B, T) of (P(target <= x) - [y <= x])^2, by Gauss and Legendre's rule.

    Piecewise between the quantiles (B, T, Q) and y, for there the integrand is smooth.
    """
    low, high = quantiles[..., :1], quantiles[..., -1:]
    inside = y.unsqueeze(-1).clamp(low, high)
    edges = torch.cat([quantiles, inside], dim=-1).sort(dim=-1).values
    half = edges.diff(dim=-1) / 2
    middle = edges[..., :-1] + half
    after = (middle >= y.unsqueeze(-1)).double()
    total = (y.unsqueeze(-1) - inside).abs().squeeze(-1)
    points, factors = np.polynomial.legendre.leggauss(N_LEGENDRE)
    for segment in range(half.shape[-1]):
        for point, factor in zip(points, factors, strict=True):
            x = middle[..., segment] + point * half[..., segment]
            below = _mixed_cdf(likelihood, latents, weights, x)
            total = total + factor * half[..., segment] * (below - after[..., segment]).square()
    return total


def _sum_over_counts(
    likelihood: Likelihood, latents: Tensor, weights: Tensor, y: Tensor, quantiles: Tensor
) -> Tensor:
    """Sum (B, T) over whole numbers k of (P(count <= k) - [y <= k])^2; quantiles (B, T, Q).

    Where there are many, every step-th of them stands for those around it, but the indicator is
    always summed in full.
    """
    low, high = quantiles[..., 0], quantiles[..., -1]
    # odd, so that the number in the middle of a step is a whole one
    step = 2 * ((high - low + 1) / MOST_STEPS / 2).floor() + 1
    # outside of low to high only the indicator counts
    total = (low - y).clamp_min(0) + (y - high - 1).clamp_min(0)
    start = low
    while bool((start <= high).any()):
        inside = (start <= high) * (torch.minimum(step, high - start + 1))
        middle = start + (step - 1) / 2
        below = _mixed_cdf(likelihood, latents, weights, middle)
        after = (start + inside - torch.maximum(y, start)).clamp_min(0)
        after = torch.minimum(after, inside)
        total = total + (inside - after) * below.square() + after * (1 - below).square()
        start = start + step
    return total


def _integer_quantile(
    likelihood: Likelihood,
    latents: Tensor,
    weights: Tensor,
    level: float,
    center: Tensor,
    spread: Tensor,
) -> Tensor:
    """Smallest whole numbers (B, T) at or below which there is so much probability."""
    low = torch.full_like(center, -1.0)
    start = (center + spread).ceil()
    high = torch.where(start.isfinite(), start, 1.0).clamp_min(1.0)
    for _ in range(N_DOUBLINGS):
        too_low = _mixed_cdf(likelihood, latents, weights, high) < level
        if not too_low.any():
            break
        low, high = torch.where(too_low, high, low), torch.where(too_low, 2 * high, high)
    for _ in range(N_BISECTIONS):
        if bool((high - low <= 1).all()):
            break
        middle = ((low + high) / 2).floor()
        below = _mixed_cdf(likelihood, latents, weights, middle) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def _quantile(
    likelihood: Likelihood,
    latents: Tensor,
    weights: Tensor,
    level: float,
    center: Tensor,
    spread: Tensor,
) -> Tensor:
    """Quantiles (B, T) of continuous targets, by bisection between ends that hold them."""
    low, high = center - spread, center + spread
    for _ in range(N_DOUBLINGS):
        too_high = _mixed_cdf(likelihood, latents, weights, low) >= level
        too_low = _mixed_cdf(likelihood, latents, weights, high) < level
        if not (too_high.any() or too_low.any()):
            break
        low = torch.where(too_high, center - 2 * (center - low), low)
        high = torch.where(too_low, center + 2 * (high - center), high)
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        below = _mixed_cdf(likelihood, latents, weights, middle) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
