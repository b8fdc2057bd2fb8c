"""The Gaussian posterior of a subnetwork: low rank plus isotropic precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sksubnet.jacobian import FactoredRows, JacobianPlan, Model, dense_part, jacobian
from sksubnet.posterior.facts import line, table
from sksubnet.posterior.memory import rows_within_budget

NEGLIGIBLE = 1e-10
"""Eigenvalues below this share of the prior precision may be dropped."""


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """Normal distribution of the subnetwork's weights.

    The precision is ``V diag(eigenvalues) V^T + prior_precision * I``: what the data say in the
    directions ``V``, the prior everywhere (Daxberger et al. 2021, equation 8). In float64.

    Attributes
    ----------
    mean : Tensor of shape (S,)
        The MAP estimate of the subnetwork's weights.
    eigenvalues : Tensor of shape (R,)
        Non-negative eigenvalues of the generalised Gauss-Newton matrix (GGN) of the subnetwork.
    basis : Tensor of shape (S, R) or None
        Orthonormal eigenvectors; ``None`` stands for the coordinate axes (a diagonal posterior).
    prior_precision : float
        Precision of the isotropic Gaussian prior, in units of 1 / weight².
    """

    costly: ClassVar[bool] = False

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor | None
    prior_precision: float

    def __repr__(self) -> str:
        return line(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return table(type(self).__name__, self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """Size, form and prior, and how many parameters the data determine (MacKay 1992)."""
        determined = self.eigenvalues / (self.eigenvalues + self.prior_precision)
        facts = [
            ("weights", str(len(self.mean))),
            ("covariance", "diagonal" if self.basis is None else "full"),
            ("prior precision", f"{self.prior_precision:.4g}"),
            ("effective parameters", f"{float(determined.sum()):.1f}"),
        ]
        if self.n_rows_held:
            facts.append(("training rows held", str(self.n_rows_held)))
        return facts

    @property
    def n_rows_held(self) -> int:
        """Count the training rows that can be computed from this."""
        return 0

    def jacobian(self, model: Model, plan: JacobianPlan, X: Any) -> tuple[Tensor, Any]:
        """Latents (B, C) of a batch, and its Jacobian rows (B, C, S), on the CPU."""
        outputs, rows = jacobian(model, plan, X)
        return outputs.double().cpu(), rows.cpu()

    def part_of(self, rows: Tensor | FactoredRows, places: Tensor) -> Any:
        """Rows (B, C, S) from those of more weights, of which its own are at ``places``."""
        return dense_part(rows, places)

    def rows_per_batch(self, plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
        """Rows of a batch whose Jacobian stays within the memory budget."""
        return rows_within_budget(plan, n_outputs, dtype)

    def numbers_per_row(self, plan: JacobianPlan) -> int:
        """Numbers that one projected Jacobian row keeps."""
        return len(self.eigenvalues)

    def tuned(self, prior_precision: float, noise_scale: float = 1.0) -> GaussianPosterior:
        """Return the posterior under another prior and a noise variance ``noise_scale`` times.

        Directions that the data hardly touch are left to the prior where that at least halves the
        basis: an eigenvalue below ``NEGLIGIBLE * prior_precision`` changes no predictive variance
        by more than the factor ``1 + NEGLIGIBLE``.
        """
        values, basis = self.eigenvalues / noise_scale, self.basis
        keep = values > NEGLIGIBLE * prior_precision
        if basis is not None and 2 * int(keep.sum()) <= len(self.mean):
            values, basis = values[keep], basis[:, keep]
        return replace(self, prior_precision=prior_precision, eigenvalues=values, basis=basis)

    def project(self, jacobian: Tensor) -> Projection:
        """Coordinates of Jacobian rows (..., m, S) in the eigenbasis, ready for any precision."""
        if self.basis is None:
            return Projection(jacobian.double(), None, self.eigenvalues)
        if self.basis.shape[0] == self.basis.shape[1]:
            coordinates = _times(jacobian, self.basis.to(jacobian.dtype))
            return Projection(coordinates.double(), None, self.eigenvalues)
        # The part outside the basis is a difference of nearly equal numbers: float64 only.
        jacobian = jacobian.double()
        coordinates = _times(jacobian, self.basis)
        return Projection.within(coordinates, jacobian @ jacobian.mT, self.eigenvalues)

    def covariance(self, jacobian: Tensor) -> Tensor:
        """``J H^-1 J^T`` of Jacobian rows: (..., m, S) -> (..., m, m)."""
        if self.basis is None or self.basis.shape[0] != self.basis.shape[1]:
            return self.project(jacobian).covariance(self.prior_precision)
        scale = (self.eigenvalues + self.prior_precision).rsqrt()
        if jacobian.numel() < self.basis.numel():
            white = _times(jacobian, self.basis.to(jacobian.dtype)) * scale.to(jacobian.dtype)
        else:
            # Scaling the basis instead of its products with every row saves passes over those.
            white = _times(jacobian, (self.basis * scale).to(jacobian.dtype))
        return (white @ white.mT).double()

    def sample(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """Draw weights: (M, S)."""
        noise = torch.randn(n_draws, len(self.mean), generator=generator, dtype=torch.float64).to(
            self.mean.device
        )
        inside = noise if self.basis is None else noise @ self.basis
        scaled = inside * (self.eigenvalues + self.prior_precision).rsqrt()
        if self.basis is None:
            return self.mean + scaled
        outside = (noise - inside @ self.basis.mT) * self.prior_precision**-0.5
        return self.mean + scaled @ self.basis.mT + outside

    def log_evidence(self, log_likelihood: float) -> float:
        """Laplace approximation of the log marginal likelihood (MacKay 1992, equation 29)."""
        penalty = self.prior_precision * float(self.mean.square().sum())
        return log_likelihood - 0.5 * (penalty + self.log_occam(self.prior_precision))

    def log_occam(self, ratio: float) -> float:
        """``sum_k log(1 + eigenvalue_k / ratio)``."""
        return float(torch.log1p(self.eigenvalues / ratio).sum())


@dataclass(frozen=True, eq=False)
class Projection:
    """Jacobian rows in the eigenbasis of a GGN, from which any prior precision is a scan away."""

    coordinates: Tensor
    outside: Tensor | None
    eigenvalues: Tensor

    @classmethod
    def within(cls, coordinates: Tensor, gram: Tensor, eigenvalues: Tensor) -> Projection:
        """Coordinates (..., m, R) of rows in part of the space, and their inner products."""
        outside = (coordinates @ coordinates.mT).neg_().add_(gram)
        outside.diagonal(dim1=-2, dim2=-1).clamp_(min=0)
        return cls(coordinates, outside, eigenvalues)

    @classmethod
    def stack(cls, parts: list[Projection]) -> Projection:
        """Projection of all rows from those of consecutive batches."""
        outside = None
        if parts[0].outside is not None:
            outside = torch.cat([part.outside for part in parts if part.outside is not None])
        coordinates = torch.cat([part.coordinates for part in parts])
        return cls(coordinates, outside, parts[0].eigenvalues)

    def covariance(self, prior_precision: float) -> Tensor:
        """``J H^-1 J^T`` at a prior precision: (..., m, m)."""
        if self.coordinates.shape[-2] == 1:  # many products of single rows are slow
            return self.variance(prior_precision)[..., None]
        scaled = self.coordinates * (self.eigenvalues + prior_precision).rsqrt()
        inside = scaled @ scaled.mT
        # Between all rows of a table these are large: no third array.
        return (
            inside if self.outside is None else inside.add_(self.outside, alpha=1 / prior_precision)
        )

    def energy(self) -> Tensor:
        """Squared lengths (..., m) of the rows."""
        inside = self.coordinates.square().sum(-1)
        if self.outside is None:
            return inside
        return inside + self.outside.diagonal(dim1=-2, dim2=-1)

    def variance(self, prior_precision: float) -> Tensor:
        """Diagonal of :meth:`covariance`: (..., m)."""
        inside = self.coordinates.square() @ (1 / (self.eigenvalues + prior_precision))
        if self.outside is None:
            return inside
        return inside + self.outside.diagonal(dim1=-2, dim2=-1) / prior_precision


def _times(jacobian: Tensor, basis: Tensor) -> Tensor:
    """Rows (..., m, S) times (S, R), without copying rows that lie last in memory."""
    if jacobian.ndim != 3:
        return jacobian @ basis
    n_rows, n_outputs, _ = jacobian.shape
    flat = jacobian.permute(2, 1, 0).flatten(1).mT @ basis
    return flat.unflatten(0, (n_outputs, n_rows)).transpose(0, 1)
