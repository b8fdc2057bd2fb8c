"""The posterior of a large subnetwork, by Cholesky factors that live in the GGN's own memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sksubnet.jacobian import FactoredRows, JacobianPlan, Model, dense_part, jacobian
from sksubnet.posterior.facts import line, table
from sksubnet.posterior.memory import rows_within_budget

BLOCK = 1024
REFINEMENTS = 2


class ShiftedCholesky:
    """Factors ``L L^T = G + shift I`` in the lower triangle, with G in the upper one.

    One S x S array holds both, so a new shift costs a factorisation but no memory. A float32
    factor is only the preconditioner of solves that are refined to float64.

    Parameters
    ----------
    matrix : Tensor of shape (S, S)
        Symmetric positive semi-definite G, of which only the upper triangle is read. It is
        overwritten, and given back by :meth:`restore`.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.diagonal = matrix.diagonal().clone()
        self.shift = math.nan

    def factorise(self, shift: float) -> bool:
        """Factorise ``G + shift I`` (left-looking, by block columns); whether that succeeded."""
        self.restore()
        A, n = self.matrix, len(self.matrix)
        for start in range(0, n, BLOCK):
            stop = min(start + BLOCK, n)
            panel = A[start:, start:stop].clone()
            panel.diagonal().add_(shift)
            panel.addmm_(A[start:, :start], A[start:stop, :start].mT, alpha=-1)
            block, failed = torch.linalg.cholesky_ex(panel[: stop - start])
            if failed:
                self.restore()
                return False
            corner = A[start:stop, start:stop]
            corner.copy_(block + corner.triu(1))
            A[stop:, start:stop] = torch.linalg.solve_triangular(
                block.mT, panel[stop - start :], upper=True, left=False
            )
        self.shift = shift
        return True

    def restore(self) -> None:
        """Make the matrix G again, from its upper triangle."""
        self.matrix.diagonal().copy_(self.diagonal)
        mirror_upper_(self.matrix)
        self.shift = math.nan

    def whiten(self, rows: Tensor) -> Tensor:
        """``rows L^-T``: (m, S) -> (m, S), whose inner products are those under the inverse."""
        columns = rows.mT.to(self.matrix.dtype)
        return torch.linalg.solve_triangular(self.matrix, columns, upper=False).mT

    def colour(self, rows: Tensor) -> Tensor:
        """``rows L^-1``: (m, S) -> (m, S), which turns white noise into draws."""
        columns = rows.mT.to(self.matrix.dtype)
        return torch.linalg.solve_triangular(self.matrix.mT, columns, upper=True).mT

    def solve(self, rows: Tensor) -> Tensor:
        """``rows (G + shift I)^-1`` in float64: (m, S) -> (m, S)."""
        rows = rows.double()
        solution = self.colour(self.whiten(rows)).double()
        if self.matrix.dtype != torch.float64:
            for _ in range(REFINEMENTS):
                residual = rows - self.multiply(solution)
                solution += self.colour(self.whiten(residual)).double()
        return solution

    def log_det(self) -> float:
        """Log determinant of ``G + shift I``."""
        return 2 * float(self.matrix.diagonal().double().log().sum())

    def multiply(self, rows: Tensor) -> Tensor:
        """``rows (G + shift I)`` in float64 from the upper triangle: (m, S) -> (m, S)."""
        product = rows * (self.diagonal.double() + self.shift)
        for start in range(0, len(self.matrix), BLOCK):
            stop = min(start + BLOCK, len(self.matrix))
            corner = self.matrix[start:stop, start:stop].triu(1).double()
            product[:, start:stop] += rows[:, start:stop] @ (corner + corner.mT)
            right = self.matrix[start:stop, stop:].double()
            product[:, stop:] += rows[:, start:stop] @ right
            product[:, start:stop] += rows[:, stop:] @ right.mT
        return product


def mirror_upper_(matrix: Tensor) -> None:
    """Copy the upper triangle of a matrix (S, S) into the lower, in place."""
    for start in range(0, len(matrix), BLOCK):
        stop = min(start + BLOCK, len(matrix))
        corner = matrix[start:stop, start:stop].triu()
        matrix[start:stop, start:stop] = corner + corner.triu(1).mT
        matrix[stop:, start:stop] = matrix[start:stop, stop:].mT


@dataclass(frozen=True, eq=False)
class CholeskyPosterior:
    """Normal distribution of a large subnetwork's weights, without an eigendecomposition.

    The precision is ``G / noise_scale + prior_precision * I``; all values made from one ``factor``
    share its memory, and the one that was tuned last is the valid one.

    Attributes
    ----------
    mean : Tensor of shape (S,)
        The MAP estimate of the subnetwork's weights.
    factor : ShiftedCholesky
        Factors of ``G + prior_precision * noise_scale * I``.
    prior_precision : float
        Precision of the isotropic Gaussian prior, in units of 1 / weight².
    noise_scale : float
        Factor on the noise variance that G was computed with.
    """

    costly: ClassVar[bool] = True

    mean: Tensor
    factor: ShiftedCholesky
    prior_precision: float = 1.0
    noise_scale: float = 1.0

    def __repr__(self) -> str:
        return line("CholeskyPosterior", self._facts())

    def _repr_html_(self) -> str:
        return table("CholeskyPosterior", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """Size, form and prior."""
        return [
            ("weights", str(len(self.mean))),
            ("covariance", "full"),
            ("prior precision", f"{self.prior_precision:.4g}"),
        ]

    @property
    def n_rows_held(self) -> int:
        """Count the training rows that can be computed from this."""
        return 0

    def tuned(self, prior_precision: float, noise_scale: float = 1.0) -> CholeskyPosterior:
        """Return the posterior under another prior and a noise variance ``noise_scale`` times."""
        if not self.factor.factorise(prior_precision * noise_scale):
            raise ValueError(
                f"The precision of {len(self.mean)} weights is not positive definite in "
                f"{self.factor.matrix.dtype} at prior_precision={prior_precision:g}; raise it, or "
                "choose a smaller subnetwork_size."
            )
        return replace(self, prior_precision=prior_precision, noise_scale=noise_scale)

    def jacobian(self, model: Model, plan: JacobianPlan, X: Any) -> tuple[Tensor, Any]:
        """Latents (B, C) of a batch, and its Jacobian rows (B, C, S), on the CPU."""
        outputs, rows = jacobian(model, plan, X)
        return outputs.double().cpu(), rows.cpu()

    def part_of(self, rows: Tensor | FactoredRows, places: Tensor) -> Tensor:
        """Rows (B, C, S) from those of more weights, of which its own are at ``places``."""
        return dense_part(rows, places)

    def rows_per_batch(self, plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
        """Rows of a batch whose Jacobian stays within the memory budget."""
        return rows_within_budget(plan, n_outputs, dtype)

    def numbers_per_row(self, plan: JacobianPlan) -> int:
        """Numbers that one Jacobian row keeps."""
        return len(self.mean)

    def project(self, jacobian: Tensor) -> FactorProjection:
        """Jacobian rows (..., m, S) with what is needed for any precision."""
        return FactorProjection(jacobian, self.factor)

    def covariance(self, jacobian: Tensor) -> Tensor:
        """``J H^-1 J^T`` of Jacobian rows: (..., m, S) -> (..., m, m)."""
        return self.noise_scale * _inner(jacobian, self.factor)

    def sample(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """Draw weights: (M, S)."""
        noise = torch.randn(n_draws, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + self.noise_scale**0.5 * self.factor.colour(noise).double()

    def log_occam(self, ratio: float) -> float:
        """``sum_k log(1 + eigenvalue_k / ratio)``, ``inf`` where the factorisation fails."""
        if not self.factor.factorise(ratio):
            return math.inf
        log_det = self.factor.log_det()
        self.factor.restore()
        return log_det - len(self.mean) * math.log(ratio)

    def log_evidence(self, log_likelihood: float) -> float:
        """Laplace approximation of the log marginal likelihood (MacKay 1992)."""
        penalty = self.prior_precision * float(self.mean.square().sum())
        occam = self.factor.log_det() - len(self.mean) * math.log(self.factor.shift)
        return log_likelihood - 0.5 * (penalty + occam)


@dataclass(frozen=True, eq=False)
class FactorProjection:
    """Jacobian rows of which each prior precision costs a factorisation."""

    jacobian: Tensor
    factor: ShiftedCholesky

    @classmethod
    def stack(cls, parts: list[FactorProjection]) -> FactorProjection:
        """Projection of all rows from those of consecutive batches."""
        return cls(torch.cat([part.jacobian for part in parts]), parts[0].factor)

    def energy(self) -> Tensor:
        """Squared lengths (..., m) of the rows."""
        return self.jacobian.double().square().sum(-1)

    def covariance(self, prior_precision: float) -> Tensor:
        """``J (G + prior_precision I)^-1 J^T``: (..., m, m), ``nan`` where that fails."""
        if not self.factor.factorise(prior_precision):
            m = self.jacobian.shape[-2]
            return torch.full((*self.jacobian.shape[:-1], m), math.nan, dtype=torch.float64)
        covariance = _inner(self.jacobian, self.factor)
        self.factor.restore()
        return covariance

    def variance(self, prior_precision: float) -> Tensor:
        """Diagonal of :meth:`covariance`: (..., m)."""
        return self.covariance(prior_precision).diagonal(dim1=-2, dim2=-1)


def _inner(jacobian: Tensor, factor: ShiftedCholesky) -> Tensor:
    """``J (G + shift I)^-1 J^T`` in float64: (..., m, S) -> (..., m, m)."""
    flat = jacobian.reshape(-1, jacobian.shape[-1])
    if factor.matrix.dtype == torch.float64:
        white = factor.whiten(flat).reshape(jacobian.shape)
        return white @ white.mT
    solution = factor.solve(flat).reshape(jacobian.shape)
    inner = jacobian.double() @ solution.mT
    return (inner + inner.mT) / 2
