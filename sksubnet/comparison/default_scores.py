"""The scores that `compare` takes by default, from one prediction for each set of rows."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from scipy.special import ndtri
from sklearn.metrics import brier_score_loss, log_loss, root_mean_squared_error
from sklearn.utils import column_or_1d

from sksubnet.metrics import (
    expected_calibration_error,
    gaussian_crps,
    gaussian_nll,
    interval_coverage,
    interval_width,
    last_step,
)

COVERAGE = 0.9

DEFAULT_DIRECTIONS = {
    "log loss": -1,
    "Brier": -1,
    "error": -1,
    "ECE": -1,
    "NLL": -1,
    "CRPS": -1,
    "RMSE": -1,
    "90 % coverage": 0,
    "90 % width": 0,
}
"""-1 where lower is better, 0 where neither is."""


def classification_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Scores of a fitted classifier on rows (N,) of classes that it knows."""
    y, classes = column_or_1d(y), estimator.classes_
    probabilities = estimator.predict_proba(X)
    return {
        "log loss": log_loss(y, probabilities, labels=classes),
        "Brier": brier_score_loss(y, probabilities, labels=classes),
        "error": float(np.mean(classes[probabilities.argmax(axis=1)] != y)),
        "ECE": expected_calibration_error(y, probabilities, labels=classes),
    }


def regression_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Scores of a fitted regressor; NaN where they need a standard deviation that it lacks.

    Of Gaussians, but where the target was transformed, which makes them something else.
    """
    scores = dict.fromkeys(("NLL", "CRPS", "RMSE", "90 % coverage", "90 % width"), np.nan)
    estimator, X = last_step(estimator, X)
    if "return_std" not in signature(estimator.predict).parameters:
        scores["RMSE"] = root_mean_squared_error(y, estimator.predict(X))
        return scores
    if getattr(estimator, "target_transform_", None) is not None:
        return scores | _transformed_scores(estimator, X, y)
    mean, std = estimator.predict(X, return_std=True)
    half = ndtri((1 + COVERAGE) / 2) * std
    return scores | {
        "NLL": gaussian_nll(y, mean, std),
        "CRPS": gaussian_crps(y, mean, std),
        "RMSE": root_mean_squared_error(y, mean),
        "90 % coverage": interval_coverage(y, mean - half, mean + half),
        "90 % width": interval_width(mean - half, mean + half),
    }


def _transformed_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Scores of the predictive distribution itself; the log likelihood is a mean over targets."""
    predictive = estimator.predictive(X)
    targets = np.asarray(y, dtype=np.float64).reshape(len(predictive), -1)
    lower, upper = np.moveaxis(predictive.interval(COVERAGE), -1, 0)
    return {
        "NLL": float(-predictive.log_prob(targets).mean() / targets.shape[1]),
        "CRPS": float(predictive.crps(targets).mean()),
        "RMSE": root_mean_squared_error(targets, predictive.mean.numpy()),
        "90 % coverage": interval_coverage(targets, lower, upper),
        "90 % width": interval_width(lower, upper),
    }
