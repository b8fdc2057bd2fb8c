"""Compare estimators on the same folds, and on shifted data, by proper scores."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv, cross_validate
from sklearn.utils import check_consistent_length, column_or_1d, indexable
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.parallel import Parallel, delayed

from sksubnet.comparison.default_scores import (
    DEFAULT_DIRECTIONS,
    classification_scores,
    regression_scores,
)
from sksubnet.comparison.table import SECONDS, Comparison
from sksubnet.progress import bar_over

__all__ = ["Comparison", "compare"]

Rows = tuple[Any, Any]
Folds = dict[str, NDArray[np.float64]]


def compare(
    estimators: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    cv: Any = 5,
    groups: Any = None,
    shifted: Mapping[str, Rows] | None = None,
    scoring: Any = None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Comparison:
    """Cross-validate estimators on the same folds and score every fit on shifted data too.

    Parameters
    ----------
    estimators : dict of str to estimator
        Classifiers with ``predict_proba``, or regressors; pipelines too. Differences are taken to
        the first. A :class:`~sklearn.frozen.FrozenEstimator` is not fitted again, so ``X`` must not
        hold rows that it was trained on.
    X : array-like of shape (n_samples, n_features)
        Rows to cross-validate on.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels of any type, or targets.
    cv : int, splitter or iterable of (train, test), default=5
        Folds, as in :func:`~sklearn.model_selection.cross_validate`: an int means stratified folds
        for classifiers and consecutive rows for regressors. Split once, for all estimators.
    groups : array-like of shape (n_samples,), default=None
        Groups of the rows, for a splitter such as :class:`~sklearn.model_selection.GroupKFold`.
    shifted : dict of str to (X, y), default=None
        Test sets from other distributions, with the columns of ``X``.
    scoring : str, callable, list or dict, default=None
        Scores, as in :func:`~sklearn.model_selection.cross_validate`: higher is better, and names
        that begin with ``neg_`` are shown as the losses that they are. ``None`` follows the task,
        see Notes.
    params : dict, default=None
        Further arguments of every estimator's ``fit``, such as ``sample_weight``. Scores are not
        weighted.
    n_jobs : int or None, default=None
        Folds that are worked on at the same time.
    verbose : int, default=0
        Show a progress bar over the estimators.

    Returns
    -------
    Comparison
        Prints as a table, shows as one in a notebook, and has ``to_frame``.

    Raises
    ------
    ValueError, TypeError
        Before anything is trained, if the estimators are not all of one kind, if a shifted set does
        not have the columns of ``X``, or if the default scores would meet a class that the training
        rows do not have. An error inside an estimator is raised with its name as a note.

    Notes
    -----
    Classifiers are scored by the log loss in nats, the Brier score (for two classes half the sum of
    squares, as in scikit-learn), the share of rows whose most probable class is wrong, and the
    expected calibration error with 15 bins, which is not a proper score. Regressors are scored by
    the negative log likelihood and the CRPS of the Gaussian with the predicted mean and standard
    deviation, the root mean squared error, and the coverage and width of the central 90 % interval
    of that Gaussian; one whose ``predict`` has no ``return_std`` by the root mean squared error. Of
    an estimator with a ``target_transform`` all of this is taken from its predictive distribution.

    What follows ± on the test folds is their standard deviation times √(1 / K + n_test / n_train),
    for K folds: that of the mean if the folds were independent, corrected for the rows that their
    trainings share [1]_. It is no more than a guide, because no estimate of it is without bias
    [2]_. Fits that are scored on one
    shifted set share all its rows too, so that their average is hardly more certain than one of
    them: there ± is the standard deviation over the fits, without the error of sampling the shifted
    rows. Differences are taken fold by fold, which makes them more certain than the scores.

    References
    ----------
    .. [1] Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
    .. [2] Bengio and Grandvalet, "No unbiased estimator of the variance of K-fold
       cross-validation", JMLR 2004.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sksubnet import compare
    >>> X, y = load_wine(return_X_y=True)
    >>> models = {"Bayes": GaussianNB(), "linear": LogisticRegression(solver="newton-cholesky")}
    >>> result = compare(models, X, y, shifted={"scaled": (1.1 * X, y)})
    >>> result.to_frame()["log loss"][["mean", "error", "difference"]].round(2)
    statistic             mean  error  difference
    set        estimator
    test folds Bayes      0.18   0.12        0.00
               linear     0.09   0.06       -0.09
    scaled     Bayes      0.34   0.16        0.00
               linear     0.17   0.06       -0.17
    """
    _check_estimators(estimators, probabilities_needed=scoring is None)
    classify = is_classifier(next(iter(estimators.values())))
    X, y = indexable(X, y)
    if classify and type_of_target(y) == "multilabel-indicator":
        if scoring is None:
            raise ValueError(
                "y has several labels for each row, for which there are no default scores; give "
                "a scoring such as 'roc_auc', 'f1_macro' or 'accuracy'."
            )
    elif classify:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
    shifted = _check_shifted({} if shifted is None else shifted, X)
    splits = list(check_cv(cv, y, classifier=classify).split(X, y, groups))
    directions = DEFAULT_DIRECTIONS if scoring is None else {}
    if scoring is None:
        scoring = classification_scores if classify else regression_scores
        if classify:
            _check_classes(y, splits, shifted)
    elif isinstance(scoring, str):
        scoring = [scoring]

    if any(map(_uses_torch, estimators.values())):
        _start_torch()
    scores: dict[str, list[Folds]] = {}
    fitted: dict[str, list[Any]] = {}
    for name, estimator in bar_over(estimators.items(), "Estimators", shown=verbose > 0):
        try:
            folds = cross_validate(
                estimator,
                X,
                y,
                cv=splits,
                scoring=scoring,
                params=params,
                n_jobs=n_jobs,
                return_estimator=True,
                error_score="raise",
            )
            fits = folds.pop("estimator")
            scorer = check_scoring(estimator, scoring=scoring)
            on_shifted = [_score_fits(scorer, fits, rows, n_jobs) for rows in shifted.values()]
        except Exception as error:
            error.add_note(f"This happened with estimators[{name!r}].")
            if isinstance(error, PicklingError):
                error.add_note(
                    "A fit could not come back from its process. Write the classes of the net in a "
                    "module instead of the script, or use n_jobs=None."
                )
            raise
        scores[str(name)], fitted[str(name)] = [folds, *on_shifted], fits
    share = float(np.mean([len(test) / len(train) for train, test in splits]))
    return _gather(scores, fitted, ("test folds", *map(str, shifted)), directions, share)


def _uses_torch(estimator: Any) -> bool:
    """Whether the estimator, or one inside it, is of this package or of skorch."""
    parts = [estimator, *estimator.get_params(deep=True).values()]
    homes = {base.__module__.partition(".")[0] for part in parts for base in type(part).__mro__}
    return not homes.isdisjoint({"sksubnet", "skorch"})


@functools.cache
def _start_torch() -> None:
    """Take a step of an optimiser, for the first one loads what is no time of an estimator's."""
    weight = torch.zeros(1, requires_grad=True)
    weight.square().sum().backward()
    torch.optim.AdamW([weight]).step()


def _score_fits(scorer: Any, fits: list[Any], rows: Rows, n_jobs: int | None) -> Folds:
    """Scores of every fit on the same rows, named as `cross_validate` names them."""
    results = Parallel(n_jobs=n_jobs)(delayed(scorer)(fit, *rows) for fit in fits)
    if not isinstance(results[0], dict):
        results = [{"score": result} for result in results]
    return {f"test_{name}": np.array([r[name] for r in results]) for name in results[0]}


def _gather(
    scores: dict[str, list[Folds]],
    fitted: dict[str, list[Any]],
    sets: tuple[str, ...],
    directions: dict[str, int],
    test_share: float,
) -> Comparison:
    """One array of all scores, ``neg_`` ones turned back into losses, times last."""
    first = next(iter(scores.values()))[0]
    keys = [*(key for key in first if key.startswith("test_")), *SECONDS]
    missing = np.full(len(first["fit_time"]), np.nan)
    values = np.array(
        [
            [[of_one[s].get(key, missing) for key in keys] for of_one in scores.values()]
            for s in range(len(sets))
        ],
        dtype=np.float64,
    )
    better = {}
    for k, key in enumerate(keys):
        name = SECONDS.get(key, key.removeprefix("test_"))
        if name.startswith("neg_"):
            values[:, :, k] *= -1
            better[name.removeprefix("neg_")] = -1
        else:
            better[name] = 0 if key in SECONDS else directions.get(name, 1)
    return Comparison(values, sets, tuple(scores), better, fitted, test_share)


def _check_estimators(estimators: Any, *, probabilities_needed: bool) -> None:
    """Refuse what cannot be compared before anything is trained."""
    if not isinstance(estimators, Mapping) or not estimators:
        raise TypeError(
            "estimators must be a dict of names and estimators, such as {'MAP': MAPClassifier(), "
            f"'subnetwork': SubnetLaplaceClassifier()}}; got {estimators!r}."
        )
    for name, estimator in estimators.items():
        if isinstance(estimator, type):
            raise TypeError(
                f"estimators[{name!r}] is the class {estimator.__name__}; give an instance, "
                f"{estimator.__name__}()."
            )
        if not hasattr(estimator, "fit"):
            raise TypeError(
                f"estimators[{name!r}] is {estimator!r}, which has no fit; give an estimator, "
                "such as SubnetLaplaceClassifier()."
            )
    kinds = {
        name: "classifier" if is_classifier(e) else "regressor" if is_regressor(e) else "neither"
        for name, e in estimators.items()
    }
    if len(set(kinds.values())) > 1 or "neither" in kinds.values():
        found = ", ".join(f"{name!r}: {kind}" for name, kind in kinds.items())
        raise ValueError(
            f"estimators must all be classifiers or all regressors; they are {{{found}}}."
        )
    for name, estimator in estimators.items():
        needed = probabilities_needed and kinds[name] == "classifier"
        if needed and not hasattr(estimator, "predict_proba"):
            raise ValueError(
                f"estimators[{name!r}] has no predict_proba, which the default scores need; wrap "
                "it in CalibratedClassifierCV, or give a scoring such as 'accuracy'."
            )


def _check_shifted(shifted: Any, X: Any) -> dict[str, Rows]:
    """Return the shifted sets if they are pairs of equal length with the columns of ``X``."""
    if not isinstance(shifted, Mapping):
        raise TypeError(
            "shifted must be a dict of names and pairs, such as {'later': (X_later, y_later)}; got "
            f"{type(shifted).__name__}."
        )
    for name, pair in shifted.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"shifted[{name!r}] must be a pair (X, y); got {type(pair).__name__}.")
        rows, targets = pair
        check_consistent_length(rows, targets)
        expected, given = list(getattr(X, "columns", [])), list(getattr(rows, "columns", []))
        if expected and given and given != expected:
            missing = [column for column in expected if column not in given]
            extra = [column for column in given if column not in expected]
            raise ValueError(
                f"shifted[{name!r}] must have the columns of X in their order; missing: {missing}, "
                f"not in X: {extra}. Take shifted_X[X.columns] once the names agree."
            )
        if np.shape(rows)[1:] != np.shape(X)[1:]:
            raise ValueError(
                f"shifted[{name!r}] has rows of shape {np.shape(rows)[1:]}, but those of X have "
                f"shape {np.shape(X)[1:]}; give the same columns."
            )
    return dict(shifted)


def _check_classes(y: Any, splits: list[Rows], shifted: dict[str, Rows]) -> None:
    """Refuse test rows of classes without training rows, whose log loss is infinite."""
    for fold, (train, test) in enumerate(splits, start=1):
        rows = {f"the test rows of fold {fold}": y[test]}
        rows |= {f"shifted[{name!r}]": labels for name, (_, labels) in shifted.items()}
        for where, labels in rows.items():
            unknown = np.setdiff1d(labels, y[train]).tolist()
            if unknown:
                raise ValueError(
                    f"The training rows of fold {fold} have no row of the classes {unknown}, which "
                    f"are in {where}. Leave those rows out, use fewer or stratified folds, or give "
                    "a scoring that allows it, such as 'accuracy'."
                )
