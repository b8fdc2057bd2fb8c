"""What an estimator says of every row, fitted to the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from sksubnet.predictive import AnyPredictive, stacked


def cross_val_predictive(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    cv: Any = None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
) -> AnyPredictive:
    """Predictive distribution of each row, from an estimator fitted to the other folds.

    What :func:`~sklearn.model_selection.cross_val_predict` is for numbers, with standard
    deviations, intervals, quantiles and entropies.

    Parameters
    ----------
    estimator : estimator
        One of this package, or a pipeline that ends in one: its ``predictive`` is asked.
    X : array-like of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets.
    groups : array-like of shape (n_samples,), default=None
        Groups of the rows, for a splitter that knows them.
    cv : int, splitter or iterable of (train, test), default=None
        Folds, as in :func:`~sklearn.model_selection.cross_val_predict`; every row is in one test
        fold. ``None`` is 5.
    params : dict, default=None
        Parameters of ``fit``, such as ``sample_weight``; what has a value for each row is split.
        With metadata routing, also those of the splitter.
    n_jobs : int or None, default=None
        Fits at once, each in a process of its own.

    Returns
    -------
    Predictive or TransformedPredictive
        Of all rows, in their order.

    Raises
    ------
    TypeError
        If the estimator has no ``predictive``.
    ValueError
        If a row is in no test fold or in several, or if a fold's training rows lack a class.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import MAPRegressor, cross_val_predictive
    >>> X, y = load_diabetes(return_X_y=True)
    >>> predictive = cross_val_predictive(MAPRegressor(random_state=0), X, y, cv=3)
    >>> predictive.interval(0.9).shape
    (442, 1, 2)
    """
    final = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    if not hasattr(final, "predictive"):
        raise TypeError(
            f"{type(final).__name__} has no method predictive; use an estimator of sksubnet, alone "
            "or as the last step of a pipeline."
        )
    X, y, groups = indexable(X, y, groups)
    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    to_fit, to_split = dict(params or {}), {"groups": groups}
    if get_config()["enable_metadata_routing"]:
        if groups is not None:
            raise ValueError(
                "With metadata routing, groups are one of the params, for a splitter that asks "
                "for them: params={'groups': groups}."
            )
        fits = MethodMapping().add(caller="fit", callee="fit")
        splits_rows = MethodMapping().add(caller="fit", callee="split")
        router = MetadataRouter(owner="cross_val_predictive")
        router.add(estimator=estimator, method_mapping=fits)
        router.add(splitter=splitter, method_mapping=splits_rows)
        asked = process_routing(router, "fit", **to_fit)
        to_fit, to_split = asked.estimator.fit, asked.splitter.split
    splits = list(splitter.split(X, y, **to_split))
    order = np.concatenate([test for _, test in splits])
    if not np.array_equal(np.sort(order), np.arange(len(y))):
        raise ValueError(
            "cv gives test folds that leave rows out or have them twice, so there is not one "
            "prediction for each; use a splitter such as KFold, GroupKFold or StratifiedKFold."
        )
    parts = Parallel(n_jobs=n_jobs)(
        delayed(_fold)(clone(estimator), X, y, train, test, to_fit) for train, test in splits
    )
    labels = [classes for _, classes in parts]
    if any(not np.array_equal(classes, labels[0]) for classes in labels):
        raise ValueError(
            "The folds do not all have the same classes, so their probabilities do not fit "
            "together; use fewer folds, or leave rare classes out."
        )
    return stacked([predictive for predictive, _ in parts]).rows(np.argsort(order))


def _fold(
    estimator: Any, X: Any, y: Any, train: np.ndarray, test: np.ndarray, params: dict[str, Any]
) -> tuple[AnyPredictive, Any]:
    """Predictive of the test rows, and the classes of the estimator."""
    of_rows = _check_method_params(X, params=params, indices=train)
    estimator.fit(_safe_indexing(X, train), _safe_indexing(y, train), **of_rows)
    rows = _safe_indexing(X, test)
    if hasattr(estimator, "steps"):
        rows, estimator = estimator[:-1].transform(rows), estimator.steps[-1][1]
    return estimator.predictive(rows), getattr(estimator, "classes_", None)
