"""The posterior of independent weights, whose rows of whole layers are never multiplied out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sksubnet.jacobian import FactoredRows, JacobianPlan, Model, factored_jacobian
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.memory import factored_rows_within_budget


@dataclass(frozen=True, eq=False)
class DiagonalProjection:
    """Jacobian rows and the diagonal of a GGN (S,), from which any prior is a scan away."""

    rows: FactoredRows
    eigenvalues: Tensor

    @classmethod
    def stack(cls, parts: list[DiagonalProjection]) -> DiagonalProjection:
        """Projection of all rows from those of consecutive batches."""
        return cls(FactoredRows.stack([part.rows for part in parts]), parts[0].eigenvalues)

    def energy(self) -> Tensor:
        """Squared lengths (B, C) of the rows."""
        return self.rows.blocks().diagonal(dim1=-2, dim2=-1)

    def covariance(self, prior_precision: float) -> Tensor:
        """``J H^-1 J^T`` at a prior precision: (B, C, C)."""
        return self.rows.blocks(1 / (self.eigenvalues + prior_precision))

    def variance(self, prior_precision: float) -> Tensor:
        """Diagonal of :meth:`covariance`: (B, C)."""
        return self.covariance(prior_precision).diagonal(dim1=-2, dim2=-1)


@dataclass(frozen=True, eq=False, repr=False)
class DiagonalPosterior(GaussianPosterior):
    """The posterior without correlations: the eigenvectors are the coordinate axes."""

    def jacobian(self, model: Model, plan: JacobianPlan, X: Any) -> tuple[Tensor, Any]:
        """Latents (B, C) of a batch, and its Jacobian rows by whole layers, on the CPU."""
        outputs, rows = factored_jacobian(model, plan, X)
        return outputs.double().cpu(), rows.cpu()

    def part_of(self, rows: Any, places: Tensor) -> Any:
        """Rows by whole layers from those of more weights, its own at ``places``."""
        return rows.part(places)

    def rows_per_batch(self, plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
        """Rows of a batch whose factored Jacobian stays within the memory budget."""
        return factored_rows_within_budget(plan, n_outputs, dtype)

    def numbers_per_row(self, plan: JacobianPlan) -> int:
        """Numbers that one row keeps: its two factors."""
        return plan.n_kept

    def project(self, jacobian: Tensor | FactoredRows) -> Any:
        """Jacobian rows, factored or (..., m, S), ready for any prior precision."""
        if isinstance(jacobian, FactoredRows):
            return DiagonalProjection(jacobian.double(), self.eigenvalues)
        return super().project(jacobian)

    def covariance(self, jacobian: Tensor | FactoredRows) -> Tensor:
        """``J H^-1 J^T`` of Jacobian rows: (..., m, S) -> (..., m, m)."""
        covariance: Tensor = self.project(jacobian).covariance(self.prior_precision)
        return covariance
