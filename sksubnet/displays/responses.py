"""What the displays read off an estimator, ours or any of scikit-learn's kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from numpy.typing import ArrayLike
from scipy.stats import entropy
from sklearn.base import is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sksubnet.displays.arguments import FloatArray, floats, probability_array
from sksubnet.predictive import AnyPredictive, Gaussian, Predictive, TransformedPredictive

Prediction: TypeAlias = AnyPredictive | tuple[ArrayLike, ArrayLike]
"""A predictive distribution of one target, or mean and standard deviation (N,) of a Gaussian."""


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """One number a row, (N,), and what it is in words."""

    values: FloatArray
    quantity: str


def named(models: Any, name: str | None) -> dict[str, Any]:
    """Give models by name: a mapping as it is, one model under its name or that of its class."""
    if isinstance(models, Mapping):
        if not models:
            raise ValueError("No model is given; give one, or a mapping from names to models.")
        return {str(key): model for key, model in models.items()}
    return {name if name is not None else _class_name(models): models}


def fitted(models: Any, name: str | None) -> dict[str, Any]:
    """Fitted models by name; what has no ``fit`` is taken as it is."""
    found = named(models, name)
    for model in found.values():
        if hasattr(model, "fit"):
            check_is_fitted(model)
    return found


def regressors(display: type, models: Any, name: str | None, other: str) -> dict[str, Any]:
    """Fitted regressors by name; ``other`` is the display for classifiers."""
    found = fitted(models, name)
    _refuse(is_classifier, found, f"{display.__name__} is for regressors", "classifier", other)
    return found


def classifiers(display: type, models: Any, name: str | None, other: str) -> dict[str, Any]:
    """Fitted classifiers by name; ``other`` is the display for regressors."""
    found = fitted(models, name)
    _refuse(is_regressor, found, f"{display.__name__} is for classifiers", "regressor", other)
    return found


def _refuse(
    is_other: Callable[[Any], bool], models: dict[str, Any], what_for: str, kind: str, other: str
) -> None:
    """Refuse estimators of the other task, whose display is ``other``."""
    for model in models.values():
        if hasattr(model, "fit") and is_other(model):
            raise TypeError(f"{what_for}, and {_class_name(model)} is a {kind}; use {other}.")


def _class_name(model: Any) -> str:
    """Name of the class of an estimator, the last one of a pipeline; "" for arrays."""
    if isinstance(model, Pipeline):
        return _class_name(model[-1])
    return type(model).__name__ if hasattr(model, "predict") else ""


def final_estimator(estimator: Any) -> Any:
    """Estimator inside searches and pipelines."""
    if hasattr(estimator, "best_estimator_"):
        return final_estimator(estimator.best_estimator_)
    return final_estimator(estimator[-1]) if isinstance(estimator, Pipeline) else estimator


def rows_it_sees(estimator: Any, X: Any) -> Any:
    """Rows as they reach the estimator inside searches and pipelines."""
    if hasattr(estimator, "best_estimator_"):
        return rows_it_sees(estimator.best_estimator_, X)
    if isinstance(estimator, Pipeline):
        return rows_it_sees(estimator[-1], estimator[:-1].transform(X) if len(estimator) > 1 else X)
    return X


def knows_causes(estimator: Any) -> bool:
    """Whether the estimator tells aleatoric and epistemic uncertainty apart."""
    return hasattr(final_estimator(estimator), "predictive")


def predictive_of(estimator: Any, X: Any) -> Any:
    """Predictive distribution of rows where the estimator has one."""
    if not knows_causes(estimator):
        return None
    return final_estimator(estimator).predictive(rows_it_sees(estimator, X))


def target_predictive(estimator: Any, X: Any) -> AnyPredictive:
    """Predictive distribution over targets; a Gaussian where only ``return_std`` is known."""
    predictive = predictive_of(estimator, X)
    if predictive is not None:
        result: AnyPredictive = predictive
        return result
    try:
        mean, std = estimator.predict(X, return_std=True)
    except TypeError as error:
        raise TypeError(
            f"{_class_name(estimator)} has no predictive distribution: neither `predictive(X)` nor "
            "`predict(X, return_std=True)`. Use one that has, or from_predictions."
        ) from error
    return as_predictive((mean, std))


def as_predictive(prediction: Prediction) -> AnyPredictive:
    """Predictive distribution from itself, or from mean and standard deviation (N,) or (N, C)."""
    if isinstance(prediction, Predictive | TransformedPredictive):
        if isinstance(prediction, Predictive) and prediction.likelihood.task != "regression":
            raise TypeError(
                "These predictions are about classes, and this display is about numbers; "
                "ReliabilityDisplay takes probabilities."
            )
        return prediction
    if not isinstance(prediction, tuple | list) or len(prediction) != 2:
        raise TypeError(
            f"A {type(prediction).__name__} is no prediction here; give a predictive distribution, "
            "or mean and standard deviation as a tuple of two arrays."
        )
    mean, std = floats(prediction[0], "mean"), floats(prediction[1], "std")
    if mean.shape != std.shape:
        raise ValueError(f"mean has shape {mean.shape} and std {std.shape}; give one shape.")
    if std.min() < 0:
        raise ValueError(f"std has the value {std.min()}; standard deviations are not negative.")
    mean, std = mean.reshape(len(mean), -1), std.reshape(len(std), -1)
    covariance = torch.diag_embed(torch.as_tensor(std**2))
    return Predictive(torch.as_tensor(mean), covariance, Gaussian(torch.zeros(mean.shape[1])))


def column(values: FloatArray, target: int) -> FloatArray:
    """Values (N, ...) of one target out of (N, C, ...)."""
    n_targets = values.shape[1]
    if not -n_targets <= target < n_targets:
        raise ValueError(f"target={target} is not one of the {n_targets} targets.")
    return values[:, target]


def targets_of(y: ArrayLike, n_targets: int) -> FloatArray:
    """Targets as (N, C)."""
    values = floats(y, "y")
    values = values.reshape(len(values), -1)
    if values.shape[1] != n_targets:
        raise ValueError(f"y has {values.shape[1]} targets, the predictions have {n_targets}.")
    return values


def probabilities_of(estimator: Any, X: Any) -> FloatArray:
    """Class probabilities (N, K)."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{_class_name(estimator)} has no predict_proba; use a classifier that has, or "
            "from_predictions."
        )
    return probability_array(estimator.predict_proba(X), "predict_proba")


def uncertainty_of(estimator: Any, X: Any, component: str, target: int = 0) -> Uncertainty:
    """How uncertain an estimator is about every row, as a whole or by one cause.

    Entropies for classifiers, standard deviations for regressors. An estimator without predictive
    distribution knows the total only.
    """
    predictive = predictive_of(estimator, X)
    if is_classifier(estimator):
        if predictive is not None:
            values = floats(predictive.entropy(component), "uncertainty")
            return Uncertainty(values, _entropy_name(component))
        _refuse_parts(estimator, component)
        total: FloatArray = entropy(probabilities_of(estimator, X), axis=1)
        return Uncertainty(total, _entropy_name("total"))
    if predictive is None:
        _refuse_parts(estimator, component)
        predictive = target_predictive(estimator, X)
    values = floats(column(predictive.std(component), target), "uncertainty")
    return Uncertainty(values, _std_name(component))


def _refuse_parts(estimator: Any, component: str) -> None:
    if component != "total":
        raise TypeError(
            f"{_class_name(estimator)} does not tell {component} uncertainty apart; it has no "
            "`predictive(X)`. Use 'total'."
        )


def _entropy_name(component: str) -> str:
    names = {
        "total": "entropy of the prediction (nats)",
        "aleatoric": "expected entropy (nats)",
        "epistemic": "mutual information (nats)",
    }
    return names[component]


def _std_name(component: str) -> str:
    prefix = "predictive" if component == "total" else component
    return f"{prefix} sd (units of y)"
