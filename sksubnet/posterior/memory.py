"""How much memory there is, and whether the curvature of a subnetwork fits in it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

EIGEN_LIMIT = 3000
"""Most weights that get an eigendecomposition, which makes tuning free; beyond it, Cholesky."""


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
