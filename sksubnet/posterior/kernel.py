"""The posterior of whole layers through inner products of Jacobian rows that are never formed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sksubnet.jacobian import FactoredRows, JacobianPlan, Model, factored_jacobian
from sksubnet.posterior.gaussian import GaussianPosterior, Projection
from sksubnet.posterior.memory import factored_rows_within_budget


@dataclass(frozen=True, eq=False, repr=False)
class KernelPosterior(GaussianPosterior):
    """The low rank plus isotropic posterior in terms of the training rows' Jacobian Φ.

    The eigenvectors are ``Φᵀ basis`` with ``basis`` (n, R); neither they nor Φ (n, S) are formed.

    Attributes
    ----------
    training_rows : FactoredRows
        Φ, for whole layers as their inputs and the gradients behind them: the training rows
        themselves can be computed from that.
    """

    training_rows: FactoredRows = field(kw_only=True, repr=False)

    @property
    def n_rows_held(self) -> int:
        """Count the training rows that can be computed from this."""
        return len(self.training_rows.layers[0].left)

    def jacobian(self, model: Model, plan: JacobianPlan, X: Any) -> tuple[Tensor, Any]:
        """Latents (B, C) of a batch, and its Jacobian rows by whole layers, on the CPU."""
        outputs, rows = factored_jacobian(model, plan, X)
        return outputs.double().cpu(), rows.cpu()

    def part_of(self, rows: Any, places: Tensor) -> Any:
        """Rows by whole layers from those of more weights, its own at ``places``."""
        return rows.part(places)

    def rows_per_batch(self, plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
        """Rows of a batch whose factored Jacobian stays within the memory budget."""
        return factored_rows_within_budget(plan, n_outputs, dtype, len(self.training_rows))

    def project(self, jacobian: Tensor | FactoredRows) -> Projection:
        """Coordinates of Jacobian rows (..., m, S) in the eigenbasis, ready for any precision."""
        assert self.basis is not None
        jacobian = jacobian.double()
        if isinstance(jacobian, FactoredRows):
            inner, gram = jacobian.inner(self.training_rows), jacobian.blocks()
            coordinates = (inner @ self.basis).unflatten(0, gram.shape[:2])
        else:
            gram = jacobian @ jacobian.mT
            coordinates = self.training_rows.times(jacobian) @ self.basis
        return Projection.within(coordinates, gram, self.eigenvalues)

    def covariance(self, jacobian: Tensor | FactoredRows) -> Tensor:
        """``J H^-1 J^T`` of Jacobian rows: (..., m, S) -> (..., m, m)."""
        return self.project(jacobian).covariance(self.prior_precision)

    def sample(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """Draw weights: (M, S)."""
        assert self.basis is not None
        noise = torch.randn(n_draws, len(self.mean), generator=generator, dtype=torch.float64)
        inside = self.training_rows.times(noise) @ self.basis
        shrunk = (self.eigenvalues + self.prior_precision).rsqrt() - self.prior_precision**-0.5
        change = self.training_rows.combine(inside * shrunk @ self.basis.mT)
        return self.mean + noise * self.prior_precision**-0.5 + change
