"""Gaussian targets whose mean and variance are both outputs of the net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sksubnet.predictive.likelihood import LOG_UNIT, Likelihood
from sksubnet.predictive.quadrature import latent_nodes


@dataclass(frozen=True)
class MeanVariance(Likelihood):
    """Normal targets; outputs are T means m, then T logarithms s of the variance.

    The curvature is the Fisher information, which is diagonal: exp(-s) for a mean and 1/2 for a
    logarithm, whatever the targets. The Hessian itself need not be positive.

    References
    ----------
    .. [1] Immer, Palumbo, Marx and Vogt, Effective Bayesian heteroscedastic regression with deep
       neural networks, NeurIPS 2023 (in the natural parameters; the information is the same).
    """

    scales_targets: ClassVar[bool] = True
    outputs_per_target: ClassVar[int] = 2

    def log_prob(self, f: Tensor, y: Tensor) -> Tensor:
        """Log density of y summed over the targets, (...)."""
        mean, log_variance = f.chunk(2, dim=-1)
        squared = (y.to(f.dtype) - mean).square() * torch.exp(-log_variance)
        return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(dim=-1)

    def hessian_root(self, f: Tensor) -> Tensor:
        """Root of the Fisher information, diag(exp(-s / 2), 1 / sqrt(2)), (..., 2T, 2T)."""
        _, log_variance = f.chunk(2, dim=-1)
        of_log = torch.full_like(log_variance, math.sqrt(0.5))
        return torch.diag_embed(torch.cat([torch.exp(-log_variance / 2), of_log], dim=-1))

    def mean(self, f: Tensor) -> Tensor:
        """Give the means (..., T)."""
        return f.chunk(2, dim=-1)[0]

    def variance(self, f: Tensor) -> Tensor:
        """Variances (..., T)."""
        return f.chunk(2, dim=-1)[1].exp()

    def cdf(self, f: Tensor, y: Tensor) -> Tensor:
        """Probability (..., T) of a target at or below y."""
        mean, log_variance = f.chunk(2, dim=-1)
        return torch.special.ndtr((y.to(f.dtype) - mean) * torch.exp(-log_variance / 2))

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """One draw (..., T) of the targets."""
        mean, log_variance = f.chunk(2, dim=-1)
        normals = torch.randn(mean.shape, generator=generator, dtype=f.dtype)
        return mean + torch.exp(log_variance / 2) * normals

    def scaled_outputs(self, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and offsets (2T,) of the outputs for targets times a scale plus an offset."""
        return torch.cat([scale, torch.ones_like(scale)]), torch.cat([offset, 2 * scale.log()])

    def output_units(self, target_variance: Tensor) -> Tensor:
        """Variances of the targets, and squared units of logarithms, (2T,)."""
        return torch.cat([target_variance, torch.full_like(target_variance, LOG_UNIT**2)])

    def nodes(self, mean: Tensor, covariance: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Nodes over the logarithm of the variance; that of the mean goes into the variance.

        Given s the mean is normal, so y is normal around its conditional mean with the sum of both
        variances: exactly, and for the price of one dimension.
        """
        n_targets = mean.shape[-1] // 2
        diagonals = [
            covariance[..., rows, columns].diagonal(dim1=-2, dim2=-1).double()
            for rows, columns in _blocks(n_targets)
        ]
        of_mean, shared, of_log = diagonals
        log_variance, weights = latent_nodes(mean[..., n_targets:], torch.diag_embed(of_log))
        slope = torch.where(of_log > 0, shared / of_log.clamp_min(torch.finfo().tiny), 0.0)
        left = (of_mean - slope * shared).clamp_min(0)
        centre = mean[..., :n_targets].double()
        centre = centre + slope * (log_variance - mean[..., n_targets:].double())
        total = torch.logaddexp(log_variance, left.log())
        return torch.cat([centre, total], dim=-1), weights

    def predictive_moments(
        self, mean: Tensor, covariance: Tensor, seed: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, T), covariance of the means, and the mean of a lognormal variance."""
        n_targets = mean.shape[-1] // 2
        of_log = covariance.diagonal(dim1=-2, dim2=-1)[..., n_targets:].clamp_min(0)
        aleatoric = (mean[..., n_targets:] + of_log / 2).exp()
        return mean[..., :n_targets], covariance[..., :n_targets, :n_targets], aleatoric


def _blocks(n_targets: int) -> list[tuple[slice, slice]]:
    """Blocks of a covariance: of the means, of means and logarithms, of the logarithms."""
    first, second = slice(0, n_targets), slice(n_targets, 2 * n_targets)
    return [(first, first), (first, second), (second, second)]
