"""Proper scores and calibration of probabilistic predictions, as functions and as scorers.

The functions take arrays, of any model's predictions; the scorers, whose names begin with ``neg_``,
take a fitted estimator and go into ``scoring`` of a search or a cross-validation.

Read first: `gaussian_nll` in `regression.py`, `expected_calibration_error` in `classification.py`.
"""

from sksubnet.metrics.classification import expected_calibration_error
from sksubnet.metrics.regression import (
    gaussian_crps,
    gaussian_nll,
    interval_coverage,
    interval_width,
)
from sksubnet.metrics.scorers import last_step as last_step  # of the package, not of its users
from sksubnet.metrics.scorers import (
    neg_expected_calibration_error_scorer,
    neg_gaussian_crps_scorer,
    neg_gaussian_nll_scorer,
    neg_predictive_crps_scorer,
    neg_predictive_nll_scorer,
)

__all__ = [
    "expected_calibration_error",
    "gaussian_crps",
    "gaussian_nll",
    "interval_coverage",
    "interval_width",
    "neg_expected_calibration_error_scorer",
    "neg_gaussian_crps_scorer",
    "neg_gaussian_nll_scorer",
    "neg_predictive_crps_scorer",
    "neg_predictive_nll_scorer",
]
