"""The posterior of independent weights, whose rows of whole layers are never multiplied out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sksubnet.jacobian import FactoredRows
from sksubnet.posterior.gaussian import GaussianPosterior


@dataclass(frozen=True, eq=False)
class DiagonalProjection:
    """Jacobian rows and the diagonal of a GGN (S,), from which any prior is a scan away."""

    rows: FactoredRows
    eigenvalues: Tensor

    @classmethod
    def stack(cls, parts: list[DiagonalProjection]) -> DiagonalProjection:
        """Projection of all rows from those of consecutive batches."""
        return cls(FactoredRows.stack([part.rows for part in parts]), parts[0].eigenvalues)

    def covariance(self, prior_precision: float) -> Tensor:
        """``J H^-1 J^T`` at a prior precision: (B, C, C)."""
        return self.rows.blocks(1 / (self.eigenvalues + prior_precision))

    def variance(self, prior_precision: float) -> Tensor:
        """Diagonal of :meth:`covariance`: (B, C)."""
        return self.covariance(prior_precision).diagonal(dim1=-2, dim2=-1)


@dataclass(frozen=True, eq=False)
class DiagonalPosterior(GaussianPosterior):
    """The posterior without correlations: the eigenvectors are the coordinate axes."""

    def project(self, jacobian: Tensor | FactoredRows) -> Any:
        """Jacobian rows, factored or (..., m, S), ready for any prior precision."""
        if isinstance(jacobian, FactoredRows):
            return DiagonalProjection(jacobian.double(), self.eigenvalues)
        return super().project(jacobian)

    def covariance(self, jacobian: Tensor | FactoredRows) -> Tensor:
        """``J H^-1 J^T`` of Jacobian rows: (..., m, S) -> (..., m, m)."""
        covariance: Tensor = self.project(jacobian).covariance(self.prior_precision)
        return covariance
