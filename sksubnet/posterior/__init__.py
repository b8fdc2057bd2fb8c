"""Curvature, the Gaussians over the weights of a subnetwork, and how they are tuned.

`ggn` and its neighbours turn a `TrainedNet` and a plan of its Jacobian into a `Curvature`; that
becomes one of the posteriors (by eigenvectors, on the axes, by inner products of rows, by a
Cholesky factor), and the tuning finds the prior precision and the noise.

Read first: `ggn` in `curvature.py`, then `GaussianPosterior` in `gaussian.py`.
"""

from sksubnet.posterior.cholesky import CholeskyPosterior, ShiftedCholesky
from sksubnet.posterior.curvature import (
    MEMORY_BUDGET,
    Curvature,
    batches,
    factored_rows_within_budget,
    ggn,
    ggn_diagonal,
    ggn_factors,
    hessian_rank,
    output_energy,
    plan_for,
    rows_within_budget,
)
from sksubnet.posterior.diagonal import DiagonalPosterior
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.kernel import KernelPosterior
from sksubnet.posterior.memory import EIGEN_LIMIT, check_curvature_fits, cholesky_dtype
from sksubnet.posterior.tuning import (
    AnyProjection,
    Tuned,
    maximise_evidence,
    tune_on_held_out,
    tuned_noise,
)

__all__ = [
    "EIGEN_LIMIT",
    "MEMORY_BUDGET",
    "AnyProjection",
    "CholeskyPosterior",
    "Curvature",
    "DiagonalPosterior",
    "GaussianPosterior",
    "KernelPosterior",
    "ShiftedCholesky",
    "Tuned",
    "batches",
    "check_curvature_fits",
    "cholesky_dtype",
    "factored_rows_within_budget",
    "ggn",
    "ggn_diagonal",
    "ggn_factors",
    "hessian_rank",
    "maximise_evidence",
    "output_energy",
    "plan_for",
    "rows_within_budget",
    "tune_on_held_out",
    "tuned_noise",
]
