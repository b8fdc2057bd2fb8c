"""Counts: the Poisson likelihood of a log rate, and its mixture with a Gaussian over that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sksubnet.predictive.likelihood import LOG_UNIT, Likelihood

MOST_DRAWN = 1e15
"""Largest rate that counts are drawn from; those of larger ones are the rate itself."""


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts of rate exp(f): what ``PoissonNLLLoss(log_input=True)`` trains.

    Targets are counts, or rates, counts per exposure, whose rows weigh as much as their exposure:
    the posterior is then that of the counts with the log exposure as an offset, because both have
    the same log likelihood up to a constant.
    """

    discrete: ClassVar[bool] = True

    def log_prob(self, f: Tensor, y: Tensor) -> Tensor:
        """Log probability of y summed over the targets, (...)."""
        y = y.to(f.dtype)
        return (y * f - f.exp() - torch.lgamma(y + 1)).sum(dim=-1)

    def hessian_root(self, f: Tensor) -> Tensor:
        """Root of the rate, diag(exp(f / 2)), (..., C, C)."""
        return torch.diag_embed((f / 2).exp())

    def mean(self, f: Tensor) -> Tensor:
        """Rate (..., C)."""
        return f.exp()

    def variance(self, f: Tensor) -> Tensor:
        """Rate (..., C)."""
        return f.exp()

    def cdf(self, f: Tensor, y: Tensor) -> Tensor:
        """Probability (..., C) of a count at or below y."""
        y = y.to(f.dtype).floor()
        rate, order = torch.broadcast_tensors(f.exp(), y.clamp_min(0) + 1)
        return torch.where(y < 0, 0.0, torch.special.gammaincc(order, rate))

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """One draw (..., C) of the counts."""
        rate = f.exp()
        counts = torch.poisson(rate.clamp_max(MOST_DRAWN), generator)
        return torch.where(rate < MOST_DRAWN, counts, rate)

    def output_units(self, target_variance: Tensor) -> Tensor:
        """Squared units (C,) of logarithms."""
        return torch.full_like(target_variance, LOG_UNIT**2)

    def check_targets(self, y: Tensor) -> None:
        """Raise for targets below 0."""
        if bool((y < 0).any()):
            raise ValueError(
                f"y has the value {float(y.min()):.4g}, but PoissonNLLLoss is for counts, or for "
                "counts per exposure, which are not negative. Look at y, or train the net with "
                "MSELoss."
            )

    def predictive_moments(
        self, mean: Tensor, covariance: Tensor, seed: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Moments of the Poisson-lognormal: mean (B, C), covariance of the rates, mean rate."""
        variance = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0)
        rate = (mean + variance / 2).exp()
        between = rate.unsqueeze(-1) * rate.unsqueeze(-2) * torch.expm1(covariance)
        return rate, between, rate
