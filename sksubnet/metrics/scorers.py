"""The scores as scorers that scikit-learn takes for `scoring`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRequest

from sksubnet.metrics.arrays import row_mean
from sksubnet.metrics.classification import expected_calibration_error
from sksubnet.metrics.regression import gaussian_crps, gaussian_nll


class Scorer:
    """A score of a fitted estimator on rows: a function that can ask for weights of the rows.

    It is none of those that ``make_scorer`` makes, which have one prediction of a row to go by.
    """

    __name__: str

    def __init__(
        self, score: Callable[..., float], sample_weight: bool | str | None = None
    ) -> None:
        functools.update_wrapper(self, score)
        self._score, self._sample_weight = score, sample_weight

    def __call__(
        self, estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Score a fitted estimator on rows."""
        return self._score(estimator, X, y, sample_weight)

    def set_score_request(self, *, sample_weight: bool | str | None) -> Scorer:
        """Return a scorer that asks for weights of rows; this one, which all share, stays.

        Parameters
        ----------
        sample_weight : bool, str or None
            Whether it gets them, or their name among what is passed; see scikit-learn's user guide
            on metadata routing.

        Returns
        -------
        Scorer
            The one that asks.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "set_score_request needs metadata routing: "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        return Scorer(self._score, sample_weight)

    def get_metadata_routing(self) -> MetadataRequest:
        """Tell scikit-learn what it asks for.

        Returns
        -------
        MetadataRequest
            That of the weights.
        """
        request = MetadataRequest(owner=self.__name__)
        request.score.add_request(param="sample_weight", alias=self._sample_weight)
        return request

    def _accept_sample_weight(self) -> bool:
        # What scikit-learn's searches ask where metadata routing is off.
        return True

    def __repr__(self) -> str:
        return self.__name__

    def __reduce__(self) -> Any:
        shared = globals()[self.__name__]
        return self.__name__ if self is shared else (_asking, (shared, self._sample_weight))


def _asking(shared: Scorer, sample_weight: bool | str | None) -> Scorer:
    return Scorer(shared._score, sample_weight)


@Scorer
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
    estimator, X = last_step(estimator, X)
    mean, std = estimator.predict(X, return_std=True)
    return -gaussian_nll(y, mean, std, sample_weight=sample_weight)


@Scorer
def neg_gaussian_crps_scorer(
    estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Minus `gaussian_crps` of ``estimator.predict(X, return_std=True)``.

    Parameters and result are those of `neg_gaussian_nll_scorer`.

    Examples
    --------
    >>> from sklearn.linear_model import BayesianRidge
    >>> from sksubnet.metrics import neg_gaussian_crps_scorer
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.1, 0.9, 2.1, 2.9]
    >>> neg_gaussian_crps_scorer(BayesianRidge().fit(X, y), X, y) < 0
    True
    """
    estimator, X = last_step(estimator, X)
    mean, std = estimator.predict(X, return_std=True)
    return -gaussian_crps(y, mean, std, sample_weight=sample_weight)


@Scorer
def neg_predictive_nll_scorer(
    estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Mean log density of targets under ``estimator.predictive(X)``, in nats for each target.

    What a `target_transform` or a likelihood is to be chosen by: unlike `neg_gaussian_nll_scorer`
    it scores the predictive distribution itself, whatever its shape.

    Parameters
    ----------
    estimator : fitted regressor
        One of this package, or a pipeline that ends in one.
    X : array-like of shape (N, n_features)
        Inputs.
    y : array-like of shape (N,) or (N, C)
        Targets; several of a row are taken together.
    sample_weight : array-like of shape (N,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Higher is better, as scikit-learn's ``scoring`` wants it; ``-inf`` if a target has density
        0, as those have that a transform cannot give.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sksubnet import MAPRegressor
    >>> from sksubnet.metrics import neg_predictive_nll_scorer
    >>> X, y = load_diabetes(return_X_y=True)
    >>> search = GridSearchCV(
    ...     MAPRegressor(random_state=0),
    ...     {"target_transform": [None, "log"]},
    ...     scoring=neg_predictive_nll_scorer,
    ...     cv=2,
    ... ).fit(X[:100], y[:100])
    >>> len(search.cv_results_["mean_test_score"])
    2
    """
    log_prob = _predictive(estimator, X).log_prob(np.asarray(y, dtype=np.float64))
    n_targets = np.asarray(y).reshape(len(log_prob), -1).shape[1]
    return row_mean(log_prob / n_targets, sample_weight)


@Scorer
def neg_predictive_crps_scorer(
    estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Minus the mean continuous ranked probability score of ``estimator.predictive(X)``.

    In the units of the target and, unlike `neg_gaussian_crps_scorer`, of the predictive
    distribution itself, whatever its shape. Parameters and result are those of
    `neg_predictive_nll_scorer`, but for several targets, which are scored one by one.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import MAPRegressor
    >>> from sksubnet.metrics import neg_predictive_crps_scorer
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MAPRegressor(target_transform="log", random_state=0).fit(X[:100], y[:100])
    >>> neg_predictive_crps_scorer(reg, X[100:], y[100:]) < 0
    True
    """
    return -row_mean(_predictive(estimator, X).crps(np.asarray(y, dtype=np.float64)), sample_weight)


def _predictive(estimator: Any, X: Any) -> Any:
    """Predictive distribution of rows by an estimator, or by the last step of a pipeline."""
    last, rows = last_step(estimator, X)
    return last.predictive(rows)


def last_step(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Last step of a pipeline and the rows that reach it, for a pipeline knows not all methods.

    Nor does it pass ``return_std`` on unasked where metadata is routed.
    """
    while isinstance(estimator, Pipeline):
        X, estimator = estimator[:-1].transform(X) if len(estimator) > 1 else X, estimator[-1]
    return estimator, X


@Scorer
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

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sksubnet.metrics import neg_expected_calibration_error_scorer as scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> cross_val_score(LogisticRegression(max_iter=500), X, y, scoring=scorer).shape
    (5,)
    """
    probabilities = estimator.predict_proba(X)
    return -expected_calibration_error(
        y, probabilities, labels=estimator.classes_, sample_weight=sample_weight
    )
