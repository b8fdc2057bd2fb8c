"""How much memory there is, what fits in it, and how many rows make a batch."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sksubnet.jacobian import JacobianPlan


EIGEN_LIMIT = 3000
"""Most weights that get an eigendecomposition, which makes tuning free; beyond it, Cholesky."""


FEW_ROWS = 8
"""Rows below which the passes through a large net lose speed."""

MEMORY_BUDGET = 2**28
"""Bytes that the Jacobian rows of one batch may take."""

RECYCLED_BYTES = 3 * 2**23
"""Size up to which allocators hand out the same memory again instead of fresh pages."""


def available_memory() -> int | None:
    """Bytes that can be allocated now, ``None`` where the platform does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line[:12] == "MemAvailable")
    except (OSError, StopIteration):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    return int(min(free, _container_memory()))


def _container_memory() -> float:
    """Bytes left under the limit of a container's control group."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):
        return math.inf


def curvature_bytes(n_weights: int, n_factors: int, n_kept: int) -> int:
    """Bytes that the posterior of S weights takes, from ``n_factors`` rows of Jacobian.

    With fewer rows than weights the dual takes twice the ``n_kept`` numbers of each row (fewer than
    S where whole layers stay factored) and three n x n arrays. Otherwise the matrix, its
    eigenvectors and the solver's workspace take three S x S arrays, and a Cholesky factor two in
    float32.
    """
    if n_factors < n_weights:
        return 8 * (2 * n_factors * n_kept + 3 * n_factors**2)
    if n_weights <= EIGEN_LIMIT:
        return 24 * n_weights**2
    return 8 * n_weights**2


def check_curvature_fits(n_weights: int, n_factors: int, n_kept: int) -> None:
    """Raise before any training if S weights cannot be given a full covariance here."""
    available, needed = available_memory(), curvature_bytes(n_weights, n_factors, n_kept)
    if available is None or needed <= available:
        return
    largest = largest_that_fits(available, n_factors)
    raise ValueError(
        f"A full covariance over {n_weights} weights needs about {needed / 2**30:.1f} GiB, but "
        f"{available / 2**30:.1f} GiB are available. Choose subnetwork_size <= {largest}, or "
        "covariance='diag'."
    )


def largest_that_fits(available: int, n_factors: int) -> int:
    """Largest S whose :func:`curvature_bytes` are available."""
    dual = (available // 8 - 3 * n_factors**2) // (2 * n_factors)
    if dual > n_factors:
        return dual
    factorised = min(math.isqrt(available // 8), n_factors)
    if factorised > EIGEN_LIMIT:
        return factorised
    return min(math.isqrt(available // 24), n_factors)


def cholesky_dtype(n_weights: int) -> torch.dtype:
    """float64, or float32 where two float64 matrices would take most of the memory."""
    available = available_memory()
    fits = available is None or 16 * n_weights**2 <= available / 2
    return torch.float64 if fits else torch.float32


def rows_within_budget(plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
    """Rows of a batch whose Jacobian (B, C, S) stays within the memory budget.

    Small enough for its memory to be recycled, but several times S rows of ``Phi`` where the
    budget allows, so that adding up S x S products does not cost more than forming them.
    """
    wanted = max(RECYCLED_BYTES, 4 * plan.n_selected**2 * dtype.itemsize)
    bytes_per_row = max(1, n_outputs * plan.n_selected * dtype.itemsize)
    most = min(wanted, MEMORY_BUDGET) // bytes_per_row
    return max(1, min(most, rows_of_layers(plan, n_outputs, dtype)))


def factored_rows_within_budget(
    plan: JacobianPlan, n_outputs: int, dtype: torch.dtype, n_factors: int = 0
) -> int:
    """Rows of a batch whose factored Jacobian, and its products with n others, stay within it."""
    bytes_per_row = max(1, 8 * n_outputs * (plan.n_kept + n_factors))
    return max(1, min(MEMORY_BUDGET // bytes_per_row, rows_of_layers(plan, n_outputs, dtype)))


def rows_of_layers(plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
    """Rows whose gradients at the layers are recycled memory too, yet enough for fast layers."""
    bytes_per_row = max(1, n_outputs * plan.n_captured * dtype.itemsize)
    return max(FEW_ROWS, min(4096, RECYCLED_BYTES // bytes_per_row))
