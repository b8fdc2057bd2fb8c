"""Proper scores and intervals of predictive distributions over numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from sksubnet.metrics.arrays import FloatArray, check_same_shape, floats, row_mean


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
    return row_mean(nll, sample_weight)


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
    return row_mean(crps, sample_weight)


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
    y, lower, upper = floats(y), floats(lower), floats(upper)
    check_same_shape(y=y, lower=lower, upper=upper)
    return row_mean(((lower <= y) & (y <= upper)).astype(np.float64), sample_weight)


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
    lower, upper = floats(lower), floats(upper)
    check_same_shape(lower=lower, upper=upper)
    return row_mean(upper - lower, sample_weight)


def _residual_and_scale(
    y: ArrayLike, mean: ArrayLike, std: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Residuals and positive standard deviations of one shape."""
    targets, centre = floats(y), floats(mean)
    scale = np.full(centre.shape, float(std)) if np.ndim(std) == 0 else floats(std)  # type: ignore[arg-type]
    check_same_shape(y=targets, mean=centre, std=scale)
    if not scale.min() > 0:
        raise ValueError(f"std has the value {scale.min()}; all values must be above 0.")
    return targets - centre, scale
