"""What every posterior answers, whatever its form, and which form a curvature asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from sksubnet.posterior.cholesky import CholeskyPosterior, ShiftedCholesky
from sksubnet.posterior.curvature import Curvature, ggn, ggn_diagonal, ggn_factors, n_factors
from sksubnet.posterior.diagonal import DiagonalPosterior
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.kernel import KernelPosterior
from sksubnet.posterior.memory import EIGEN_LIMIT, cholesky_dtype, keeps_rows

if TYPE_CHECKING:
    from sksubnet.jacobian import JacobianPlan, Model
    from sksubnet.nets import Rows, TrainedNet


class Projection(Protocol):
    """Jacobian rows (..., m, S) of which every prior precision gives a covariance."""

    @classmethod
    def stack(cls, parts: list[Any]) -> Self:
        """Projection of all rows from those of consecutive batches."""

    def energy(self) -> Tensor:
        """Squared lengths (..., m) of the rows: their variance under a prior of precision 1."""

    def covariance(self, prior_precision: float) -> Tensor:
        """``J H^-1 J^T`` at a prior precision: (..., m, m)."""

    def variance(self, prior_precision: float) -> Tensor:
        """Diagonal of :meth:`covariance`: (..., m)."""


class Posterior(Protocol):
    """A Gaussian over the weights of a subnetwork.

    ``costly`` tells that each prior precision takes a factorisation of its own.
    """

    costly: ClassVar[bool]

    @property
    def mean(self) -> Tensor:
        """Return the MAP estimate of the weights (S,)."""

    @property
    def prior_precision(self) -> float:
        """Return the precision of the isotropic Gaussian prior, in units of 1 / weight²."""

    @property
    def n_rows_held(self) -> int:
        """Count the training rows that can be computed from what it keeps of them."""

    def jacobian(self, model: Model, plan: JacobianPlan, X: Any) -> tuple[Tensor, Any]:
        """Latents (B, C) of a batch, and its Jacobian rows in the form that this one takes."""

    def rows_per_batch(self, plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
        """Rows of a batch whose Jacobian, in that form, stays within the memory budget."""

    def numbers_per_row(self, plan: JacobianPlan) -> int:
        """Numbers that one projected Jacobian row keeps."""

    def part_of(self, rows: Any, places: Tensor) -> Any:
        """Rows in its form from those of more weights, of which its own are at ``places`` (S,)."""

    def project(self, rows: Any) -> Projection:
        """Rows in a form that is ready for any prior precision."""

    def covariance(self, rows: Any) -> Tensor:
        """``J H^-1 J^T`` of Jacobian rows: (..., m, S) -> (..., m, m)."""

    def tuned(self, prior_precision: float, noise_scale: float = 1.0) -> Posterior:
        """Return the posterior under another prior and a noise variance ``noise_scale`` times."""

    def sample(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """Draw weights: (M, S)."""

    def log_occam(self, ratio: float) -> float:
        """``sum_k log(1 + eigenvalue_k / ratio)``."""

    def log_evidence(self, log_likelihood: float) -> float:
        """Laplace approximation of the log marginal likelihood (MacKay 1992)."""


def subnetwork_curvature(
    trained: TrainedNet,
    plan: JacobianPlan,
    indices: Tensor,
    rows: Rows,
    *,
    covariance: str,
    has_parts: bool = False,
    batch_size: int | None = None,
) -> Curvature:
    """GGN of the weights at ``indices`` (S,), by rows where these are fewer and fit, or by weights.

    One that is to have parts is in the precision of the smallest.
    """
    if covariance == "diag":
        return ggn_diagonal(trained, rows, batch_size=batch_size).part(indices)
    n_rows = n_factors(trained.likelihood, trained.n_outputs, len(rows))
    if keeps_rows(len(indices), n_rows, plan.n_kept):
        return ggn_factors(trained, plan, rows, batch_size=batch_size)
    is_small = has_parts or len(indices) <= EIGEN_LIMIT
    dtype = torch.float64 if is_small else cholesky_dtype(len(indices))
    return ggn(trained, plan, rows, dtype=dtype, batch_size=batch_size)


def block_curvature(
    trained: TrainedNet,
    plan: JacobianPlan,
    indices: Tensor,
    *,
    covariance: str,
    batch_size: int | None = None,
) -> Curvature:
    """GGN of the weights at ``indices`` (S,) over some of many training rows, ready to be added."""
    if covariance == "diag":
        return ggn_diagonal(trained, trained.train, batch_size=batch_size).part(indices)
    return ggn(trained, plan, trained.train, batch_size=batch_size)


def factorised(mean: Tensor, curvature: Curvature) -> Posterior:
    """Posterior around ``mean`` (S,), on the CPU: factorised once, or for each prior of many."""
    if curvature.diagonal is not None:
        return DiagonalPosterior(mean, curvature.diagonal.cpu(), None, prior_precision=1.0)
    if curvature.matrix is not None and len(mean) > EIGEN_LIMIT:
        return CholeskyPosterior(mean, ShiftedCholesky(curvature.matrix.cpu()))
    values, basis = (part.cpu() for part in curvature.eigendecomposition())
    if curvature.factors is not None:
        return KernelPosterior(mean, values, basis, 1.0, training_rows=curvature.factors.cpu())
    return GaussianPosterior(mean, values, basis, prior_precision=1.0)
