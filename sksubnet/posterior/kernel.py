"""The posterior of whole layers through inner products of Jacobian rows that are never formed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sksubnet.jacobian import FactoredRows
from sksubnet.posterior.gaussian import GaussianPosterior, Projection


@dataclass(frozen=True, eq=False)
class KernelPosterior(GaussianPosterior):
    """The low rank plus isotropic posterior in terms of the training rows' Jacobian Φ.

    The eigenvectors are ``Φᵀ basis`` with ``basis`` (n, R); neither they nor Φ (n, S) are formed.
    """

    rows: FactoredRows = field(kw_only=True, repr=False)

    def project(self, jacobian: Tensor | FactoredRows) -> Projection:
        """Coordinates of Jacobian rows (..., m, S) in the eigenbasis, ready for any precision."""
        assert self.basis is not None
        jacobian = jacobian.double()
        if isinstance(jacobian, FactoredRows):
            inner, gram = jacobian.inner(self.rows), jacobian.blocks()
            coordinates = (inner @ self.basis).unflatten(0, gram.shape[:2])
        else:
            gram = jacobian @ jacobian.mT
            coordinates = self.rows.times(jacobian) @ self.basis
        return Projection.within(coordinates, gram, self.eigenvalues)

    def covariance(self, jacobian: Tensor | FactoredRows) -> Tensor:
        """``J H^-1 J^T`` of Jacobian rows: (..., m, S) -> (..., m, m)."""
        return self.project(jacobian).covariance(self.prior_precision)

    def sample(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """Draw weights: (M, S)."""
        assert self.basis is not None
        noise = torch.randn(n_draws, len(self.mean), generator=generator, dtype=torch.float64)
        inside = self.rows.times(noise) @ self.basis
        shrunk = (self.eigenvalues + self.prior_precision).rsqrt() - self.prior_precision**-0.5
        change = self.rows.combine(inside * shrunk @ self.basis.mT)
        return self.mean + noise * self.prior_precision**-0.5 + change
