"""What all scores ask of their arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length

FloatArray = NDArray[np.float64]


def floats(values: ArrayLike) -> FloatArray:
    """Return the values as a finite float64 array of one or two dimensions."""
    result: FloatArray = check_array(values, ensure_2d=False, dtype=np.float64)
    return result


def check_same_shape(**arrays: FloatArray) -> None:
    """Refuse arrays that numpy would broadcast against each other, such as (N,) and (N, 1)."""
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"The shapes differ: {shapes}; give arrays of one shape.")


def row_mean(values: FloatArray, sample_weight: ArrayLike | None) -> float:
    """Weighted mean over the rows of values (N,) or (N, C), plain mean over the columns."""
    rows = values.reshape(len(values), -1).mean(axis=1)
    if sample_weight is None:
        return float(rows.mean())
    check_consistent_length(rows, sample_weight)
    return float(np.average(rows, weights=floats(sample_weight)))
