"""Fits that share their trained nets, of all sizes, selections and priors, and the best of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Self, TypeVar

import numpy as np
from scipy.stats import rankdata
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone, is_classifier
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import GridSearchCV, ParameterGrid
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
from sksubnet.estimators.subnet import SubnetLaplace, fit_alike, n_tasks
from sksubnet.progress import CallbackSupportMixin, fitting, task

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=SubnetLaplace)

SIZE, SELECTION, PRIOR = "subnetwork_size", "selection", "prior_precision"


@dataclass(frozen=True, eq=False)
class SubnetworkPath(Generic[E]):
    """Fits that share their trained nets; see ``subnetwork_path``.

    Attributes
    ----------
    params : list of dict
        What each fit was given: its size, and its selection and prior precision where several of
        them were.
    sizes : list of int, float or str
        The sizes among them, as they were given.
    estimators : list of SubnetLaplaceClassifier or SubnetLaplaceRegressor
        The fitted estimators. They share the trained nets.
    n_weights : ndarray of shape (n_fits,)
        Weights with a posterior, the mean over the nets.
    prior_precisions : ndarray of shape (n_fits,)
        Prior precision that each fit has found or was given.
    log_scores : ndarray of shape (n_fits, n_samples) or None
        Log of the density of each target, or of the probability of each label, under the nets that
        have not seen the row: of the rows of positive weight, in nats. ``None`` without folds.
    """

    params: list[dict[str, Any]]
    sizes: list[Any]
    estimators: list[E]
    n_weights: np.ndarray
    prior_precisions: np.ndarray
    log_scores: np.ndarray | None

    def __repr__(self) -> str:
        means = [""] * len(self.params)
        if self.log_scores is not None:
            means = [f", mean log score {mean:.4g}" for mean in self.log_scores.mean(axis=1)]
        fits = zip(self.params, self.n_weights, self.prior_precisions, means, strict=True)
        lines = [
            f"{', '.join(f'{name}={value!r}' for name, value in params.items())}: {n_weights:g} "
            f"weights, prior precision {precision:.4g}{mean}"
            for params, n_weights, precision, mean in fits
        ]
        return "\n  ".join([f"{type(self).__name__} of {len(lines)} fits", *lines])


def grid_of(sizes: Any, selections: Any, prior_precisions: Any) -> dict[str, list[Any]]:
    """Values of the parameters that are varied, each of which has one at least."""
    given = {SIZE: sizes, SELECTION: selections, PRIOR: prior_precisions}
    grid = {}
    for name, values in given.items():
        if values is None:
            continue
        plural = f"{name.removeprefix('subnetwork_')}s"
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"{plural}={values!r} must be a sequence, such as [{values!r}].")
        grid[name] = list(values)
        if not grid[name]:
            raise ValueError(f"{plural} is empty; give at least one.")
    return grid


def unfitted(estimator: E, points: list[dict[str, Any]]) -> list[E]:
    """Estimators with the parameters of each point, which are checked."""
    # One object for all, where a clone would make arrays of its own.
    shared = {SELECTION: estimator.get_params(deep=False)[SELECTION]}
    fits = [clone(estimator).set_params(**shared | point) for point in points]
    for fit in fits:
        fit._validate_params()
    return fits


def fitted_path(
    estimator: E, X: Any, y: Any, grid: dict[str, list[Any]], **params: Any
) -> SubnetworkPath[E]:
    """Fit an estimator with all that a grid has of what follows the training of its nets."""
    points = list(ParameterGrid(grid))
    fits = unfitted(estimator, points)
    weights, groups = params.get("sample_weight"), params.get("groups")
    whole = clone(estimator)  # callbacks leave nothing on the fits
    with (
        task("path", fits=whole),
        fitting(whole, X, y, weights, n_tasks(fits), shown=whole.verbose == 1),
    ):
        fit_alike(fits, X, y, weights, groups)
    for fit in fits:
        fit._is_fitted = True
    first = fits[0]
    log_scores = None
    if "out_of_fold_" in vars(first):
        targets = np.asarray(y) if weights is None else np.asarray(y)[np.asarray(weights) > 0]
        if is_classifier(estimator) and targets.ndim == 1:
            targets = np.searchsorted(first.classes_, targets)
        log_scores = np.stack([fit.out_of_fold_.log_prob(targets) for fit in fits])
    return SubnetworkPath(
        points,
        [point[SIZE] for point in points],
        fits,
        np.array([np.mean([len(net.subnetwork) for net in fit.folds_]) for fit in fits]),
        np.array([fit.prior_precision_ for fit in fits]),
        log_scores,
    )


class EachFit(CallbackSupportMixin, BaseEstimator):
    """A path as one estimator, for a cross-validation of all of its fits."""

    def __init__(self, estimator: SubnetLaplace, grid: dict[str, list[Any]]) -> None:
        self.estimator = estimator
        self.grid = grid

    def __sklearn_tags__(self) -> Tags:
        return get_tags(self.estimator)

    def get_metadata_routing(self) -> Any:
        """Ask for what the estimator asks for."""
        return get_routing_for_object(self.estimator)

    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit with all that the grid has."""
        with fitting(self, X, y, params.get("sample_weight"), 1, shown=False):
            self.path_ = fitted_path(self.estimator, X, y, self.grid, **params)
        return self


class ScoreOfEach:
    """Scores of all fits of a path, by their numbers."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer

    def __call__(self, path: EachFit, X: Any, y: Any, **params: Any) -> dict[str, float]:
        """Score each fit."""
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
    """Search for what follows the training by cross-validation, with one path for each fold."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "subnetwork_sizes": ["array-like"],
        "selections": ["array-like", None],
        "prior_precisions": ["array-like", None],
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
        selections: Any = None,
        prior_precisions: Any = None,
        cv: Any = 5,
        scoring: Any = None,
        refit: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.subnetwork_sizes = subnetwork_sizes
        self.selections = selections
        self.prior_precisions = prior_precisions
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.n_jobs = n_jobs

    def _estimator(self) -> SubnetLaplace:
        """Return the estimator of which the rest is searched."""
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
        """Score all settings by cross-validation, and fit with the best one.

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
            found = self._searched(X, y, params)
            given = {name: value for name, value in vars(self).items() if not name.endswith("_")}
            # One assignment: whatever stops a fit leaves all of the former one or nothing.
            self.__dict__ = given | found
        return self

    def _searched(self, X: Any, y: Any, params: dict[str, Any]) -> dict[str, Any]:
        """Score all settings, and fit with the best one: what a fit leaves."""
        estimator = self._estimator()
        grid = grid_of(self.subnetwork_sizes, self.selections, self.prior_precisions)
        unfitted(estimator, list(ParameterGrid(grid)))  # or each fold would fail by itself
        fit_params = {name: value for name, value in params.items() if name != "groups"}
        if get_config()["enable_metadata_routing"]:
            fit_params = process_routing(self, "fit", **params).estimator.fit
        scorer = check_scoring(estimator, scoring=self.scoring)
        search = GridSearchCV(
            EachFit(estimator, grid),
            {},
            scoring=ScoreOfEach(scorer),
            refit=False,
            cv=self.cv,
            n_jobs=self.n_jobs,
        )
        with task("search", fits=search):
            search.fit(X, y, **params)
        results = _by_point(search.cv_results_, grid, search.n_splits_)
        best = int(results["rank_test_score"].argmin())
        best_params = results["params"][best]
        found = {
            "scorer_": scorer,
            "n_splits_": search.n_splits_,
            "cv_results_": results,
            "best_index_": best,
            "best_params_": best_params,
            "best_score_": float(results["mean_test_score"][best]),
            "subnetwork_size_": best_params[SIZE],
        }
        if self.refit:
            model = clone(estimator).set_params(**best_params)
            with task("refit", fits=model):
                found["best_estimator_"] = model.fit(X, y, **fit_params)
        return found

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


def _by_point(results: dict[str, Any], grid: dict[str, list[Any]], n_splits: int) -> dict[str, Any]:
    """Results of a search with a row for each point of a grid, from those of one path.

    The times are those of the path, which all share.
    """
    points = list(ParameterGrid(grid))
    found: dict[str, Any] = {
        name: np.repeat(results[name], len(points))
        for name in ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")
    }
    for name in points[0]:
        column = np.ma.masked_all(len(points), dtype=object)
        for k, point in enumerate(points):
            column[k] = point[name]
        found[f"param_{name}"] = column
    found["params"] = points
    missing = [np.nan]  # where no fold has any score
    by_split = np.array(
        [
            [results.get(f"split{i}_test_{k}", missing)[0] for k in range(len(points))]
            for i in range(n_splits)
        ]
    )
    found |= {f"split{i}_test_score": scores for i, scores in enumerate(by_split)}
    found["mean_test_score"], found["std_test_score"] = by_split.mean(axis=0), by_split.std(axis=0)
    means = found["mean_test_score"]
    # Those without a score come last, all of them first where none has any.
    ranked = np.nan_to_num(means, nan=-np.inf)
    found["rank_test_score"] = rankdata(-ranked, method="min").astype(np.int32)
    return found
