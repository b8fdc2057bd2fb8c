"""Curvature, the Gaussians over the weights of a subnetwork, and how they are tuned.

`ggn` and its neighbours turn a `TrainedNet` and a plan of its Jacobian into a `Curvature`; that
becomes one of the posteriors (by eigenvectors, on the axes, by inner products of rows, by a
Cholesky factor), and the tuning finds the prior precision and the noise.

Read first: `ggn` in `curvature.py`, then `GaussianPosterior` in `gaussian.py`.
"""

from sksubnet.posterior.cholesky import CholeskyPosterior, ShiftedCholesky
from sksubnet.posterior.curvature import (
    Curvature,
    batches,
    ggn,
    ggn_diagonal,
    ggn_factors,
    hessian_rank,
    n_factors,
    output_energy,
    plan_for,
)
from sksubnet.posterior.diagonal import DiagonalPosterior
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.kernel import KernelPosterior
from sksubnet.posterior.kinds import (
    Posterior,
    block_curvature,
    factorised,
    subnetwork_curvature,
)
from sksubnet.posterior.memory import (
    MEMORY_BUDGET,
    check_curvature_fits,
    check_joint_covariance_fits,
    rows_of_products,
)
from sksubnet.posterior.tuning import (
    HeldOut,
    Tuned,
    below_mean,
    lowest,
    maximise_evidence,
    mixture_scale,
    noise_of,
    prior_limits,
    tune_on_held_out,
    tuned_noise,
    within_errors,
)
from sksubnet.posterior.updating import updated

__all__ = [
    "MEMORY_BUDGET",
    "CholeskyPosterior",
    "Curvature",
    "DiagonalPosterior",
    "GaussianPosterior",
    "HeldOut",
    "KernelPosterior",
    "Posterior",
    "ShiftedCholesky",
    "Tuned",
    "batches",
    "below_mean",
    "block_curvature",
    "check_curvature_fits",
    "check_joint_covariance_fits",
    "factorised",
    "ggn",
    "ggn_diagonal",
    "ggn_factors",
    "hessian_rank",
    "lowest",
    "maximise_evidence",
    "mixture_scale",
    "n_factors",
    "noise_of",
    "output_energy",
    "plan_for",
    "prior_limits",
    "rows_of_products",
    "subnetwork_curvature",
    "tune_on_held_out",
    "tuned_noise",
    "updated",
    "within_errors",
]
