"""Fits of all sizes of a subnetwork from one training, and the search for the best of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Self, TypeVar

import numpy as np
from scipy.stats import rankdata
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone, is_classifier
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import GridSearchCV
from sklearn.utils import Tags, get_tags
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted

from sksubnet.documentation import Documented
from sksubnet.estimators.subnet import SubnetLaplace
from sksubnet.progress import CallbackSupportMixin, fitting, task

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=SubnetLaplace)

SIZE = "subnetwork_size"


@dataclass(frozen=True, eq=False)
class SubnetworkPath(Generic[E]):
    """Fits that differ in the size of their subnetworks only; see ``subnetwork_path``.

    Attributes
    ----------
    sizes : list of int, float or str
        The sizes, as they were given.
    estimators : list of SubnetLaplaceClassifier or SubnetLaplaceRegressor
        A fitted estimator for each size. They share the trained nets.
    n_weights : ndarray of shape (n_sizes,)
        Weights with a posterior, the mean over the nets.
    prior_precisions : ndarray of shape (n_sizes,)
        Prior precision of each size.
    log_scores : ndarray of shape (n_sizes, n_samples) or None
        Log of the density of each target, or of the probability of each label, under the nets that
        have not seen the row: of the rows of positive weight, in nats. ``None`` without folds.
    """

    sizes: list[Any]
    estimators: list[E]
    n_weights: np.ndarray
    prior_precisions: np.ndarray
    log_scores: np.ndarray | None


def fitted_path(
    estimator: E, X: Any, y: Any, sizes: Sequence[Any], **params: Any
) -> SubnetworkPath[E]:
    """Fit an estimator with each of the sizes, from nets that are trained once."""
    if len(sizes) == 0:
        raise ValueError("sizes is empty; give at least one, as subnetwork_size takes them.")
    path = clone(estimator)
    for size in sizes:
        clone(path).set_params(**{SIZE: size})._validate_params()
    path._sizes = list(sizes)
    with task("path", fits=path):
        path.fit(X, y, **params)
    fits = path._path
    log_scores = None
    if "out_of_fold_" in vars(fits[0]):
        weights = params.get("sample_weight")
        targets = np.asarray(y) if weights is None else np.asarray(y)[np.asarray(weights) > 0]
        if is_classifier(estimator) and targets.ndim == 1:
            targets = np.searchsorted(fits[0].classes_, targets)
        log_scores = np.stack([fit.out_of_fold_.log_prob(targets) for fit in fits])
    return SubnetworkPath(
        list(sizes),
        fits,
        np.array([np.mean([len(net.subnetwork) for net in fit.folds_]) for fit in fits]),
        np.array([fit.prior_precision_ for fit in fits]),
        log_scores,
    )


class EachSize(CallbackSupportMixin, BaseEstimator):
    """A path as one estimator, for a cross-validation of all of its sizes."""

    def __init__(self, estimator: SubnetLaplace, sizes: Sequence[Any]) -> None:
        self.estimator = estimator
        self.sizes = sizes

    def __sklearn_tags__(self) -> Tags:
        return get_tags(self.estimator)

    def get_metadata_routing(self) -> Any:
        """Ask for what the estimator asks for."""
        return get_routing_for_object(self.estimator)

    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit all sizes."""
        with fitting(self, X, y, params.get("sample_weight"), 1, shown=False):
            self.path_ = fitted_path(self.estimator, X, y, self.sizes, **params)
        return self


class ScoreOfEach:
    """Scores of all sizes of a path, by their numbers."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer

    def __call__(self, path: EachSize, X: Any, y: Any, **params: Any) -> dict[str, float]:
        """Score each size."""
        fits = path.path_.estimators
        return {str(k): self.scorer(fit, X, y, **params) for k, fit in enumerate(fits)}

    def get_metadata_routing(self) -> Any:
        """Ask for what the scorer asks for."""
        return get_routing_for_object(self.scorer)

    def _accept_sample_weight(self) -> bool:
        # What scikit-learn's searches ask where metadata routing is off.
        accepts: Callable[[], bool] = self.scorer._accept_sample_weight
        return accepts()


class SizeSearch(Documented, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Search for the size of a subnetwork by cross-validation, with one path for each fold."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "subnetwork_sizes": ["array-like"],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "refit": ["boolean"],
        "n_jobs": [Integral, None],
    }

    _plain: ClassVar[type[SubnetLaplace]]
    best_estimator_: Any
    scorer_: Any

    def __init__(
        self,
        estimator: Any = None,
        *,
        subnetwork_sizes: Any = (0.005, 0.01, 0.02, 0.05),
        cv: Any = 5,
        scoring: Any = None,
        refit: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.subnetwork_sizes = subnetwork_sizes
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.n_jobs = n_jobs

    def _estimator(self) -> SubnetLaplace:
        """Return the estimator whose size is searched."""
        return self._plain() if self.estimator is None else self.estimator

    def __sklearn_tags__(self) -> Tags:
        return get_tags(self._estimator())

    def get_metadata_routing(self) -> MetadataRouter:
        """Tell who takes which metadata; see scikit-learn's user guide on metadata routing.

        Returns
        -------
        MetadataRouter
            Of ``fit``, to the estimator, the splitter and the scorer, and of ``score``.
        """
        fits = MethodMapping().add(caller="fit", callee="fit")
        splits = MethodMapping().add(caller="fit", callee="split")
        scores = MethodMapping().add(caller="fit", callee="score")
        scores.add(caller="score", callee="score")
        router = MetadataRouter(owner=self)
        router.add(estimator=self._estimator(), method_mapping=fits)
        router.add(splitter=self.cv, method_mapping=splits)
        router.add(
            scorer=check_scoring(self._estimator(), scoring=self.scoring), method_mapping=scores
        )
        return router

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, **params: Any) -> Self:
        """Score each size by cross-validation, and fit with the best one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        **params : dict
            ``sample_weight`` for the fits, and for scorers that take it; ``groups`` for the
            splitter. With metadata routing, whatever is asked for.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data, the net, a size or an option do not fit together.
        """
        with fitting(self, X, y, params.get("sample_weight"), 1 + self.refit, shown=False):
            self._search(X, y, params)
        return self

    def _search(self, X: Any, y: Any, params: dict[str, Any]) -> None:
        """Score each size, and fit with the best one."""
        estimator, sizes = self._estimator(), list(self.subnetwork_sizes)
        fit_params = {name: value for name, value in params.items() if name != "groups"}
        if get_config()["enable_metadata_routing"]:
            fit_params = process_routing(self, "fit", **params).estimator.fit
        self.scorer_ = check_scoring(estimator, scoring=self.scoring)
        search = GridSearchCV(
            EachSize(estimator, sizes),
            {},
            scoring=ScoreOfEach(self.scorer_),
            refit=False,
            cv=self.cv,
            n_jobs=self.n_jobs,
        )
        with task("search", fits=search):
            search.fit(X, y, **params)
        self.n_splits_ = search.n_splits_
        self.cv_results_ = _by_size(search.cv_results_, sizes, self.n_splits_)
        self.best_index_ = int(self.cv_results_["rank_test_score"].argmin())
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.subnetwork_size_ = sizes[self.best_index_]
        self.__dict__.pop("best_estimator_", None)
        if self.refit:
            best = clone(estimator).set_params(**self.best_params_)
            with task("refit", fits=best):
                self.best_estimator_ = best.fit(X, y, **fit_params)

    def __sklearn_is_fitted__(self) -> bool:
        return "cv_results_" in vars(self)

    def _best(self) -> Any:
        """Return the estimator that answers."""
        check_is_fitted(self)
        if not self.refit:
            raise AttributeError(
                f"This {type(self).__name__} has no fit of all rows, for refit=False; use "
                "refit=True, or fit an estimator with best_params_."
            )
        return self.best_estimator_

    @property
    def classes_(self) -> Any:
        """Labels of the classes."""
        return self._best().classes_

    @property
    def n_features_in_(self) -> int:
        """Number of columns of ``X``."""
        return int(self._of_fit("n_features_in_"))

    @property
    def feature_names_in_(self) -> Any:
        """Names of the columns of ``X``, where they are strings."""
        return self._of_fit("feature_names_in_")

    def _of_fit(self, name: str) -> Any:
        """Attribute of the best estimator, which is not there before ``fit``."""
        if "best_estimator_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r} before fit.")
        return getattr(self.best_estimator_, name)

    def score(self, X: Any, y: Any, **params: Any) -> float:
        """Score of the best estimator by ``scoring``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their labels or targets.
        **params : dict
            Metadata for the scorer.

        Returns
        -------
        float
            The score, greater is better.
        """
        best = self._best()
        if get_config()["enable_metadata_routing"]:
            params = process_routing(self, "score", **params).scorer.score
        return float(self.scorer_(best, X, y, **params))


def asked(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], R]:
    """Give a method of the plain estimator to a search, whose best estimator answers."""

    @functools.wraps(method)
    def ask(self: SizeSearch, *args: P.args, **kwargs: P.kwargs) -> R:
        answer: R = getattr(self._best(), method.__name__)(*args, **kwargs)
        return answer

    return ask


def _by_size(results: dict[str, Any], sizes: list[Any], n_splits: int) -> dict[str, Any]:
    """Results of a search with a row for each size, from those of one path with a score for each.

    The times are those of the path, which all sizes share.
    """
    found: dict[str, Any] = {
        name: np.repeat(results[name], len(sizes))
        for name in ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")
    }
    column = np.ma.masked_all(len(sizes), dtype=object)
    column[:] = sizes
    found[f"param_{SIZE}"] = column
    found["params"] = [{SIZE: size} for size in sizes]
    missing = [np.nan]  # where no fold has any score
    by_split = np.array(
        [
            [results.get(f"split{i}_test_{k}", missing)[0] for k in range(len(sizes))]
            for i in range(n_splits)
        ]
    )
    found |= {f"split{i}_test_score": scores for i, scores in enumerate(by_split)}
    found["mean_test_score"], found["std_test_score"] = by_split.mean(axis=0), by_split.std(axis=0)
    means = found["mean_test_score"]
    # Sizes without a score come last, all of them first where none has any.
    ranked = np.nan_to_num(means, nan=-np.inf)
    found["rank_test_score"] = rankdata(-ranked, method="min").astype(np.int32)
    return found
