"""How much memory there is, what fits in it, and how many rows make a batch."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sksubnet.jacobian import JacobianPlan


EIGEN_LIMIT = 3000
"""Most weights that get an eigendecomposition, which makes tuning free; beyond it, Cholesky."""


FEW_ROWS = 8
"""Rows below which the passes through a large net lose speed."""

JOINT_ARRAYS = 4
"""Arrays of the size of a covariance between rows while it is computed."""

MEMORY_BUDGET = 2**28
"""Bytes that the Jacobian rows of one batch may take."""

RECYCLED_BYTES = 3 * 2**23
"""Size up to which allocators hand out the same memory again instead of fresh pages."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated now, ``None`` where the platform does not tell."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line[:12] == "MemAvailable")
    except (OSError, StopIteration):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    return int(max(0, min(free, _left_in_groups(root))))


@dataclass(frozen=True)
class _GroupFiles:
    """Where Linux says what a control group may use, what it uses, and what of that is a cache."""

    folder: str
    limit: str
    usage: str
    cache: str


V1 = _GroupFiles(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
V2 = _GroupFiles("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def _left_in_groups(root: Path) -> float:
    """Bytes left under the limits of this process's control groups and of those around them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    left = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = V1 if controllers else V2
        # A container may see its group at the top, and be told the path that the host knows.
        group = root / files.folder
        left = min(left, _left_in_group(group, files))
        for part in PurePosixPath(path).parts[1:]:
            group = group / part
            left = min(left, _left_in_group(group, files))
    return left


def _left_in_group(group: Path, files: _GroupFiles) -> float:
    """Bytes left under the limit of one control group; what caches files makes room."""
    try:
        limit, used = (int((group / name).read_text()) for name in (files.limit, files.usage))
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(stat.get(files.cache, 0))
    except (OSError, ValueError):
        return limit - used


def curvature_bytes(n_weights: int, n_factors: int, n_kept: int) -> int:
    """Bytes that the posterior of S weights takes, from ``n_factors`` rows of Jacobian.

    In the form that takes less, where there are fewer rows than weights.
    """
    if n_factors < n_weights:
        return min(_row_bytes(n_factors, n_kept), _weight_bytes(n_weights))
    return _weight_bytes(n_weights)


def _row_bytes(n_factors: int, n_kept: int) -> int:
    """Bytes of the dual: twice the numbers kept of each row, and three n x n arrays.

    A row keeps S numbers, or fewer where whole layers stay factored.
    """
    return 8 * (2 * n_factors * n_kept + 3 * n_factors**2)


def _weight_bytes(n_weights: int) -> int:
    """Bytes of the matrix, its eigenvectors and the solver's workspace, each S x S.

    Or of a Cholesky factor in float32 and its workspace.
    """
    return (24 if n_weights <= EIGEN_LIMIT else 8) * n_weights**2


def keeps_rows(n_weights: int, n_factors: int, n_kept: int) -> bool:
    """Whether the posterior is in terms of the rows of Jacobian, not of the weights.

    Where there are fewer of them, because then every prior precision is free; but not where only
    the matrix of the weights fits.
    """
    if n_factors >= n_weights:
        return False
    available, needed = available_memory(), _row_bytes(n_factors, n_kept)
    return available is None or needed <= max(available, _weight_bytes(n_weights))


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


def check_joint_covariance_fits(n_rows: int, n_outputs: int) -> None:
    """Raise if the covariance between so many rows cannot be computed here."""
    available, one = available_memory(), 8 * n_outputs * n_rows**2
    if available is None or JOINT_ARRAYS * one <= available:
        return
    largest = math.isqrt(available // (8 * n_outputs * JOINT_ARRAYS))
    raise ValueError(
        f"The covariance between {n_rows} rows takes {one / 2**30:.1f} GiB, and about "
        f"{JOINT_ARRAYS} times that while it is computed, but {available / 2**30:.1f} GiB are "
        f"available. Ask for at most {largest} rows at once, for return_std, or for draws by "
        "sample_y, which hang together over all rows."
    )


def largest_that_fits(available: int, n_factors: int) -> int:
    """Largest S whose :func:`curvature_bytes` are available."""
    dual = (available // 8 - 3 * n_factors**2) // (2 * n_factors)
    cholesky = math.isqrt(available // 8)
    eigen = min(math.isqrt(available // 24), EIGEN_LIMIT)
    fitting = [eigen]
    if dual > n_factors:
        fitting.append(dual)
    if cholesky > EIGEN_LIMIT:
        fitting.append(cholesky)
    return max(fitting)


def cholesky_dtype(n_weights: int) -> torch.dtype:
    """float64, or float32 where two float64 matrices would take most of the memory."""
    available = available_memory()
    fits = available is None or 16 * n_weights**2 <= available / 2
    return torch.float64 if fits else torch.float32


def rows_within_budget(plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
    """Rows of a batch whose Jacobian (B, C, S), and gradients at the layers, stay within theirs."""
    most = rows_of_products(plan, n_outputs, dtype)
    return max(1, min(most, rows_of_layers(plan, n_outputs, dtype)))


def rows_of_products(plan: JacobianPlan, n_outputs: int, dtype: torch.dtype) -> int:
    """Rows whose Jacobian (B, C, S) stays within the memory budget.

    Small enough for its memory to be recycled, but several times S rows of ``Phi`` where the
    budget allows, so that adding up S x S products does not cost more than forming them.
    """
    wanted = max(RECYCLED_BYTES, 4 * plan.n_selected**2 * dtype.itemsize)
    bytes_per_row = max(1, n_outputs * plan.n_selected * dtype.itemsize)
    return min(wanted, MEMORY_BUDGET) // bytes_per_row


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
