"""Shares with their uncertainty, for the displays that count."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

FloatArray = NDArray[np.float64]


def wilson(share: ArrayLike, count: ArrayLike, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Give the ends of Wilson's interval of shares that were found in counts of rows."""
    p, n = np.asarray(share, dtype=np.float64), np.asarray(count, dtype=np.float64)
    z = ndtri((1 + confidence) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def quantile_bins(values: FloatArray, n_bins: int) -> NDArray[np.int64]:
    """Bin (N,) of every value, of about equally many each; equal values share a bin."""
    edges = np.quantile(values, np.linspace(0, 1, n_bins + 1))
    bins: NDArray[np.int64] = np.searchsorted(edges[1:-1], values)
    return bins
