"""The scores as scorers that scikit-learn takes for `scoring`."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from sksubnet.metrics.classification import expected_calibration_error
from sksubnet.metrics.regression import gaussian_crps, gaussian_nll


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
