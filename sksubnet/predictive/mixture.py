"""Equally weighted mixtures of Gaussians over the latents: draws and ensembles.

Shape letters: M components, N rows, C latents, K classes, Q levels of quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sksubnet.predictive.likelihood import Gaussian, Likelihood
from sksubnet.predictive.quadrature import N_DRAWS, latent_draws, row_chunks

N_BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class Mixture:
    """M components of the same weight for every row, each a point or a Gaussian.

    Attributes
    ----------
    means : Tensor of shape (M, N, C)
        Latents of the components: of the draws, or of the members of an ensemble.
    covariances : Tensor of shape (M, N, C, C) or None
        Covariance of the latents within a component; ``None`` for points.
    noise : Tensor of shape (M, C) or (M, N, C), or None
        Noise variances of regression members that have their own, for all rows or by row; ``None``
        where the likelihood has the noise of all.
    """

    means: Tensor
    covariances: Tensor | None = None
    noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.means)

    @property
    def row_noise(self) -> Tensor | None:
        """Noise variances (M, N, C) or, the same for all rows, (M, 1, C)."""
        if self.noise is None or self.noise.ndim == 3:
            return self.noise
        return self.noise[:, None]

    def rows(self, index: Tensor | slice) -> Mixture:
        """Mixture of some of the rows."""
        within, noise = self.covariances, self.noise
        return Mixture(
            self.means[:, index],
            None if within is None else within[:, index],
            noise if noise is None or noise.ndim == 2 else noise[:, index],
        )

    @staticmethod
    def stack(parts: Sequence[Mixture]) -> Mixture:
        """Concatenate the rows of mixtures of equally many components."""
        covariances = [part.covariances for part in parts if part.covariances is not None]
        noise = [part.noise for part in parts if part.noise is not None]
        common = noise[0] if noise else None
        if any(not torch.equal(one, noise[0]) for one in noise):
            by_row = [
                part.row_noise.expand_as(part.means) for part in parts if part.row_noise is not None
            ]
            common = torch.cat(by_row, dim=1)
        return Mixture(
            torch.cat([part.means for part in parts], dim=1),
            torch.cat(covariances, dim=1) if covariances else None,
            common,
        )

    @staticmethod
    def union(parts: Sequence[Mixture]) -> Mixture:
        """Mix mixtures of the same rows and of equally many components of one kind."""
        covariances = [part.covariances for part in parts if part.covariances is not None]
        noise = [part.noise for part in parts if part.noise is not None]
        if len({one.ndim for one in noise}) > 1:
            noise = [
                part.row_noise.expand_as(part.means) for part in parts if part.row_noise is not None
            ]
        return Mixture(
            torch.cat([part.means for part in parts]),
            torch.cat(covariances) if covariances else None,
            torch.cat(noise) if noise else None,
        )

    def scaled(self, scale: Tensor, offset: Tensor) -> Mixture:
        """Components of ``latents * scale + offset``, both (C,)."""
        return Mixture(
            self.means * scale + offset,
            None if self.covariances is None else self.covariances * torch.outer(scale, scale),
            None if self.noise is None else (self.noise.sqrt() * scale).square(),
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (N, C) and covariance (N, C, C) of the latents, by the law of total variance."""
        mean = self.means.mean(dim=0)
        deviations = (self.means - mean).permute(1, 2, 0)
        covariance = deviations @ deviations.mT / len(self)
        if self.covariances is not None:
            covariance = covariance + self.covariances.mean(dim=0)
        return mean, covariance

    def latents(self, rows: slice, seed: int) -> Tensor:
        """Equally weighted latents (M', B, C) of some rows: points, or draws of Gaussians."""
        means = self.means[:, rows].double()
        if self.covariances is None:
            return means
        n_draws = -(-N_DRAWS // len(self))
        components = zip(means, self.covariances[:, rows], strict=True)
        return torch.cat([latent_draws(*component, seed, n_draws) for component in components])

    def with_noise(self, likelihood: Likelihood) -> Mixture:
        """Give every component of a regression the likelihood's noise, if they have none."""
        if self.noise is not None or not isinstance(likelihood, Gaussian):
            return self
        noise = likelihood.noise_variance
        return replace(self, noise=noise.expand(len(self), *noise.shape))

    def probabilities(self, likelihood: Likelihood, link: str, seed: int) -> Tensor:
        """Class probabilities (N, K): the mean over the components, float64."""
        _, n_rows, n_outputs = self.means.shape
        n_classes = likelihood.probabilities(self.means[:1, :1]).shape[-1]
        result = torch.zeros(n_rows, n_classes, dtype=torch.float64)
        for rows in row_chunks(n_rows, n_outputs, n_outputs):
            for index, mean in enumerate(self.means[:, rows].double()):
                if self.covariances is None:
                    result[rows] += likelihood.probabilities(mean)
                else:
                    covariance = self.covariances[index, rows].double()
                    result[rows] += likelihood.predictive_probabilities(
                        mean, covariance, link, seed
                    )
        return result / len(self)

    def quantiles(self, levels: Tensor, noise: Tensor) -> Tensor:
        """Quantiles (N, C, Q) of latent plus noise, (C,) or (N, C), by bisection on the cdf."""
        row_noise = self.with_noise(Gaussian(noise)).row_noise
        assert row_noise is not None
        row_noise = row_noise.double().expand_as(self.means)
        result = torch.empty(*self.means.shape[1:], len(levels), dtype=torch.float64)
        for rows in row_chunks(self.means.shape[1], len(self) * len(levels), result.shape[1]):
            means = self.means[:, rows].double()
            variance = row_noise[:, rows]
            if self.covariances is not None:
                within = self.covariances[:, rows].diagonal(dim1=-2, dim2=-1).double()
                variance = variance + within.clamp_min(0)
            result[rows] = _quantiles(means[..., None], variance.sqrt()[..., None], levels)
        return result


def _quantiles(means: Tensor, stds: Tensor, levels: Tensor) -> Tensor:
    """Quantiles (B, C, Q) of mixtures of N(means, stds²), both (M, B, C, 1)."""
    # The quantile of a mixture lies between those of its components.
    bounds = means + stds * torch.special.ndtri(levels)
    low, high = bounds.amin(dim=0), bounds.amax(dim=0)
    for _ in range(N_BISECTIONS if len(means) > 1 else 0):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle - means) / stds).mean(dim=0) < levels
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def pick_components(n_components: int, n_samples: int, generator: torch.Generator) -> Tensor:
    """Components (n_samples,) at random, none of them twice where there are enough."""
    if n_samples <= n_components:
        return torch.randperm(n_components, generator=generator)[:n_samples]
    return torch.randint(n_components, (n_samples,), generator=generator)
