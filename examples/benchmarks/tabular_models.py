"""The estimators that `tabular_study.py` compares, by name: ours, and rivals.

To add one, write a function of the task and the seed, and a line in `MODELS`.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import rivals

from sksubnet import (
    DeepEnsembleClassifier,
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
)

RELEASED: dict[str, Any] = {
    "net": None,
    "subnetwork_size": "auto",
    "selection": "greedy",
    "reference": "mixtures",
    "candidates": "weights",
    "covariance": "full",
    "prior_precision": "validation_half_se",
    "dtype": "float64",
    "batch_size": None,
    "validation_fraction": 0.2,
}
RELEASED_OF_TASK: dict[bool, dict[str, Any]] = {
    True: {"link": "extended_probit", "class_weight": None},
    False: {"noise": "auto", "normalize_y": True},
}
# what versions after 0.1.0 may have; `noise` is then how the noise depends on the row
AFTER_RELEASE = {"cv": None}
CONSTANT_NOISE = "constant"


class Model(NamedTuple):
    """An estimator of a task and a seed; the most rows and classes that are affordable."""

    build: Callable[[bool, int], Any]
    most_rows: float = np.inf
    most_classifier_rows: float = np.inf
    most_classes: float = np.inf
    package: str = "sksubnet"

    def suits(self, classify: bool, y: np.ndarray) -> bool:
        if not classify:
            return len(y) <= self.most_rows
        return len(y) <= self.most_classifier_rows and len(np.unique(y)) <= self.most_classes

    def is_installed(self) -> bool:
        return find_spec(self.package) is not None


def laplace(classify: bool, seed: int, **changes: Any) -> Any:
    """Our estimator with some keywords; those that only the other task has are left out."""
    ours = SubnetLaplaceClassifier, SubnetLaplaceRegressor
    estimator, other = ours if classify else ours[::-1]
    known, others = (set(kind().get_params(deep=False)) for kind in (estimator, other))
    unknown = set(changes) - known - others
    if unknown:
        raise ValueError(f"{sorted(unknown)} are no parameters; these are: {sorted(known)}.")
    kept = {name: value for name, value in changes.items() if name in known}
    return estimator(**kept, random_state=seed)


def released(classify: bool, seed: int) -> Any:
    """The default of version 0.1.0, by every parameter that it had."""
    now = laplace(classify, seed).get_params(deep=False)
    values = RELEASED | RELEASED_OF_TASK[classify]
    values |= {name: value for name, value in AFTER_RELEASE.items() if name in now}
    if not classify:
        try:
            return checked(laplace(classify, seed, **values | {"noise": CONSTANT_NOISE}))
        except ValueError:
            pass
    return laplace(classify, seed, **values)


def checked(model: Any) -> Any:
    """The model, its parameters validated as `fit` does."""
    model._validate_params()
    return model


def point(classify: bool, seed: int) -> Any:
    return (MAPClassifier if classify else MAPRegressor)(random_state=seed)


def ensemble(classify: bool, seed: int, member: Callable[[bool, int], Any] | None = None) -> Any:
    kind = DeepEnsembleClassifier if classify else DeepEnsembleRegressor
    net = None if member is None else member(classify, seed).set_params(random_state=None)
    return kind(net, n_members=5, random_state=seed)


MODELS = {
    "released default": Model(released),
    "default": Model(laplace),
    "MAP": Model(point),
    "ensemble of 5": Model(ensemble),
    "ensemble of 5 posteriors": Model(partial(ensemble, member=released)),
    "MLP": Model(rivals.perceptron, package="sklearn"),
    "linear": Model(rivals.linear, package="sklearn"),
    "HistGradientBoosting": Model(rivals.boosting, package="sklearn"),
    "Gaussian process": Model(rivals.gaussian_process, 2000, 1000, 7, "sklearn"),
    "NGBoost": Model(rivals.ngboost, most_classes=7, package="ngboost"),
    "CatBoost": Model(rivals.catboost, package="catboost"),
    "constant": Model(rivals.constant, package="sklearn"),
}


def variant(changes: dict[str, Any]) -> Model:
    """The default of the version at hand with some keywords."""
    return Model(partial(laplace, **changes))
