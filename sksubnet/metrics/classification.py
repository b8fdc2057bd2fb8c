"""Calibration of class probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from sksubnet.metrics.arrays import floats


def expected_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    n_bins: int = 15,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the expected calibration error of the predicted class, with bins of equal width.

    Parameters
    ----------
    y_true : array-like of shape (N,)
        True labels.
    y_prob : array-like of shape (N, K) or (N,)
        Class probabilities; one dimension means the probability of the second of two classes.
    n_bins : int, default=15
        Number of bins (lower, upper] of the confidence over [0, 1].
    labels : array-like of shape (K,), default=None
        Label of every column; the sorted labels that occur in `y_true` if None.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Mean over the rows of ``|accuracy - confidence|`` of the row's bin: 0 is best, 1 worst.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017, eq. 3.

    Examples
    --------
    >>> from sksubnet.metrics import expected_calibration_error
    >>> expected_calibration_error([0, 1, 1, 1], [0.25, 0.75, 0.75, 0.25])
    0.0
    """
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins!r} must be at least 1.")
    probabilities = floats(y_prob)
    if probabilities.ndim == 1:
        probabilities = np.column_stack([1 - probabilities, probabilities])
    y = np.asarray(y_true).ravel()
    check_consistent_length(y, probabilities, sample_weight)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError("y_prob has values outside [0, 1]; give probabilities, not logits.")
    known = np.unique(y) if labels is None else np.asarray(labels)
    if len(known) != probabilities.shape[1]:
        origin = "y_true has" if labels is None else "labels has"
        raise ValueError(
            f"y_prob is about {probabilities.shape[1]} classes but {origin} {len(known)}; "
            "give `labels`, the label of every column."
        )
    confidence = probabilities.max(axis=1)
    correct = known[probabilities.argmax(axis=1)] == y
    weights = np.ones(len(y)) if sample_weight is None else floats(sample_weight)
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=weights * (correct - confidence), minlength=n_bins)
    return float(np.abs(gaps).sum() / weights.sum())
