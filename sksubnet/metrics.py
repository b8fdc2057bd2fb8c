"""Proper scores and calibration of probabilistic predictions, as functions and as scorers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from sklearn.utils import check_array, check_consistent_length

__all__ = [
    "expected_calibration_error",
    "gaussian_crps",
    "gaussian_nll",
    "interval_coverage",
    "interval_width",
    "neg_expected_calibration_error_scorer",
    "neg_gaussian_crps_scorer",
    "neg_gaussian_nll_scorer",
]

FloatArray = NDArray[np.float64]


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
        Mean over the rows of |accuracy - confidence| of the row's bin: 0 is best, 1 worst.

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
    probabilities = _floats(y_prob)
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
    weights = np.ones(len(y)) if sample_weight is None else _floats(sample_weight)
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=weights * (correct - confidence), minlength=n_bins)
    return float(np.abs(gaps).sum() / weights.sum())


def gaussian_nll(
    y: ArrayLike, mean: ArrayLike, std: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Mean negative log density of Gaussian predictions, in nats.

    Parameters
    ----------
    y, mean : array-like of shape (N,) or (N, C)
        Targets and predicted means; with several targets the mean runs over them too.
    std : array-like of the same shape, or float
        Predicted standard deviations, above 0.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Lower is better.

    Examples
    --------
    >>> from sksubnet.metrics import gaussian_nll
    >>> round(gaussian_nll([0.0, 1.0], [0.0, 0.0], [1.0, 1.0]), 4)
    1.1689
    """
    residual, scale = _residual_and_scale(y, mean, std)
    nll = 0.5 * np.log(2 * np.pi) + np.log(scale) + 0.5 * (residual / scale) ** 2
    return _row_mean(nll, sample_weight)


def gaussian_crps(
    y: ArrayLike, mean: ArrayLike, std: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Mean continuous ranked probability score of Gaussian predictions, in units of the target.

    Parameters
    ----------
    y, mean : array-like of shape (N,) or (N, C)
        Targets and predicted means; with several targets the mean runs over them too.
    std : array-like of the same shape, or float
        Predicted standard deviations, above 0.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Lower is better; the mean absolute error in the limit of small `std`.

    References
    ----------
    Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, JASA 2007,
    eq. 21 up to the sign.

    Examples
    --------
    >>> from sksubnet.metrics import gaussian_crps
    >>> round(gaussian_crps([0.0], [0.0], [1.0]), 4)
    0.2337
    """
    residual, scale = _residual_and_scale(y, mean, std)
    z = residual / scale
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    crps = scale * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return _row_mean(crps, sample_weight)


def interval_coverage(
    y: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Share of the targets inside their interval, ends included.

    Parameters
    ----------
    y, lower, upper : array-like of shape (N,) or (N, C)
        Targets and the ends of their intervals.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Good if near the probability that the intervals were made for.

    Examples
    --------
    >>> from sksubnet.metrics import interval_coverage
    >>> interval_coverage([0.0, 3.0], [-1.0, -1.0], [1.0, 1.0])
    0.5
    """
    y, lower, upper = _floats(y), _floats(lower), _floats(upper)
    _check_same_shape(y=y, lower=lower, upper=upper)
    return _row_mean(((lower <= y) & (y <= upper)).astype(np.float64), sample_weight)


def interval_width(
    lower: ArrayLike, upper: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Mean width of intervals, in units of the target.

    Parameters
    ----------
    lower, upper : array-like of shape (N,) or (N, C)
        Ends of the intervals.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Lower is better at the same coverage.

    Examples
    --------
    >>> from sksubnet.metrics import interval_width
    >>> interval_width([0.0, 1.0], [1.0, 4.0])
    2.0
    """
    lower, upper = _floats(lower), _floats(upper)
    _check_same_shape(lower=lower, upper=upper)
    return _row_mean(upper - lower, sample_weight)


def neg_gaussian_nll_scorer(
    estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Minus `gaussian_nll` of ``estimator.predict(X, return_std=True)``.

    Parameters
    ----------
    estimator : fitted regressor
        Any whose ``predict`` knows ``return_std``.
    X : array-like of shape (N, n_features)
        Inputs.
    y : array-like of shape (N,) or (N, C)
        Targets.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Higher is better, as scikit-learn's ``scoring`` wants it.

    Examples
    --------
    >>> from sklearn.linear_model import BayesianRidge
    >>> from sklearn.model_selection import cross_val_score
    >>> from sksubnet.metrics import neg_gaussian_nll_scorer
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.1, 0.9, 2.1, 2.9]
    >>> cross_val_score(BayesianRidge(), X, y, cv=2, scoring=neg_gaussian_nll_scorer).shape
    (2,)
    """
    mean, std = estimator.predict(X, return_std=True)
    return -gaussian_nll(y, mean, std, sample_weight=sample_weight)


def neg_gaussian_crps_scorer(
    estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Minus `gaussian_crps` of ``estimator.predict(X, return_std=True)``.

    Parameters and result are those of `neg_gaussian_nll_scorer`.
    """
    mean, std = estimator.predict(X, return_std=True)
    return -gaussian_crps(y, mean, std, sample_weight=sample_weight)


def neg_expected_calibration_error_scorer(
    estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Minus `expected_calibration_error` of ``estimator.predict_proba(X)``.

    Parameters
    ----------
    estimator : fitted classifier
        Any with ``predict_proba`` and ``classes_``.
    X : array-like of shape (N, n_features)
        Inputs.
    y : array-like of shape (N,)
        True labels; classes may be missing.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Higher is better, as scikit-learn's ``scoring`` wants it.
    """
    probabilities = estimator.predict_proba(X)
    return -expected_calibration_error(
        y, probabilities, labels=estimator.classes_, sample_weight=sample_weight
    )


def _floats(values: ArrayLike) -> FloatArray:
    """Return the values as a finite float64 array of one or two dimensions."""
    result: FloatArray = check_array(values, ensure_2d=False, dtype=np.float64)
    return result


def _check_same_shape(**arrays: FloatArray) -> None:
    """Refuse arrays that numpy would broadcast against each other, such as (N,) and (N, 1)."""
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"The shapes differ: {shapes}; give arrays of one shape.")


def _residual_and_scale(
    y: ArrayLike, mean: ArrayLike, std: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Residuals and positive standard deviations of one shape."""
    targets, centre = _floats(y), _floats(mean)
    scale = np.full(centre.shape, float(std)) if np.ndim(std) == 0 else _floats(std)  # type: ignore[arg-type]
    _check_same_shape(y=targets, mean=centre, std=scale)
    if not scale.min() > 0:
        raise ValueError(f"std has the value {scale.min()}; all values must be above 0.")
    return targets - centre, scale


def _row_mean(values: FloatArray, sample_weight: ArrayLike | None) -> float:
    """Weighted mean over the rows of values (N,) or (N, C), plain mean over the columns."""
    rows = values.reshape(len(values), -1).mean(axis=1)
    if sample_weight is None:
        return float(rows.mean())
    check_consistent_length(rows, sample_weight)
    return float(np.average(rows, weights=_floats(sample_weight)))
