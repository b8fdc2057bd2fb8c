"""What follows the training: fits of all sizes, selections and priors from it, and the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from sksubnet.estimators import (
    SizeSearch,
    SubnetLaplace,
    SubnetworkPath,
    asked,
    fitted_path,
    grid_of,
)
from sksubnet.laplace import SubnetLaplaceClassifier, SubnetLaplaceRegressor

E = TypeVar("E", bound=SubnetLaplace)


def subnetwork_path(
    estimator: E,
    X: Any,
    y: Any,
    *,
    sizes: Sequence[int | float | str],
    selections: Sequence[Any] | None = None,
    prior_precisions: Sequence[float | str] | None = None,
    sample_weight: Any = None,
    groups: Any = None,
) -> SubnetworkPath[E]:
    """Fit an estimator with each of some sizes of the subnetwork, in little more time than one.

    The nets are trained once. For each selection weights are ranked once, and the Jacobian of the
    training rows is taken once, of the weights that are in some subnetwork; each size has its own
    columns of it. Every fit has its own prior precision and its own noise: it is what ``fit`` with
    these parameters gives.

    Parameters
    ----------
    estimator : SubnetLaplaceClassifier or SubnetLaplaceRegressor
        Everything but the size; it stays as it is.
    X : array-like of shape (n_samples, n_features)
        Training rows.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets.
    sizes : sequence of int, float or str
        Sizes, each as ``subnetwork_size`` takes them.
    selections, prior_precisions : sequence or None, default=None
        More than one of each, as `selection` and `prior_precision` take them; with every size, in
        the order of :class:`~sklearn.model_selection.ParameterGrid`. ``None`` for the estimator's.
    sample_weight, groups : array-like of shape (n_samples,), default=None
        As in ``fit``.

    Returns
    -------
    SubnetworkPath
        The fits, and for each of them the number of weights, the prior precision and the log scores
        of the rows by the nets that have not seen them.

    Raises
    ------
    ValueError
        If a size or a selection does not fit the net.

    See Also
    --------
    SubnetLaplaceClassifierCV, SubnetLaplaceRegressorCV : The best size by cross-validation.

    Notes
    -----
    The posteriors of all fits are in memory at once. Without folds, a user's net is trained twice,
    with and without held-out rows, where only some of the prior precisions need these.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import SubnetLaplaceRegressor, subnetwork_path
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = SubnetLaplaceRegressor(random_state=0, cv=2, selection="gradient")
    >>> path = subnetwork_path(reg, X[:100], y[:100], sizes=[10, 40, 160])
    >>> path.log_scores.mean(axis=1).shape, [len(e.folds_) for e in path.estimators]
    ((3,), [2, 2, 2])
    """
    grid = grid_of(sizes, selections, prior_precisions)
    return fitted_path(estimator, X, y, grid, sample_weight=sample_weight, groups=groups)


class SubnetLaplaceClassifierCV(SizeSearch):
    """SubnetLaplaceClassifier whose subnetwork has the size that cross-validation finds best.

    What :class:`~sklearn.model_selection.GridSearchCV` over ``subnetwork_size`` finds, with one
    training for each fold; and over `selection` and `prior_precision` too, where several are given.

    Parameters
    ----------
    estimator : SubnetLaplaceClassifier or None, default=None
        Everything but the size; ``None`` for the default one. Its parameter `cv` are the folds
        inside each of its fits, those of the search are the `cv` below.
    subnetwork_sizes : sequence of int, float or str, default=(0.005, 0.01, 0.02, 0.05)
        Sizes to compare, each as ``subnetwork_size`` takes them.
    selections, prior_precisions : sequence or None, default=None
        What to compare with every size, as `selection` and `prior_precision` take it; ``None`` for
        the estimator's own.
    cv : int, splitter or iterable of (train, test), default=5
        Folds that score.
    scoring : str, callable or None, default=None
        One score, as in :class:`~sklearn.model_selection.GridSearchCV`; ``None`` is the accuracy.
        ``"neg_log_loss"`` looks at the probabilities, which is what a posterior is for.
    refit : bool, default=True
        Fit with the best of all to all rows.
    n_jobs : int or None, default=None
        Folds at once, each in a process of its own.

    Attributes
    ----------
    best_estimator_ : SubnetLaplaceClassifier
        The fit of all rows, which predicts; with ``save`` and ``update``. Only with `refit`.
    subnetwork_size_ : int, float or str
        The best size.
    best_score_ : float
        Its mean score.
    best_index_, best_params_ : int, dict
        Its place in `cv_results_`, and the parameters: the size, and the selection and the prior
        precision where several were given.
    cv_results_ : dict of str to ndarray
        As of :class:`~sklearn.model_selection.GridSearchCV`, a row for each setting. The
        times are those of all of them together.
    n_splits_ : int
        Number of folds.
    scorer_ : callable
        The score in use.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    subnetwork_path : All sizes, without a search.
    sksubnet.displays.SizePathDisplay : The score against the size; ``from_search`` takes this.

    Notes
    -----
    In a pipeline it is the last step. A size that does not fit the net is an error of the whole
    search. Where ``random_state`` is ``None`` the sizes share a seed.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceClassifierCV
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = SubnetLaplaceClassifier(random_state=0, cv=None, selection="gradient")
    >>> search = SubnetLaplaceClassifierCV(
    ...     clf, subnetwork_sizes=[5, 50, 500], scoring="neg_log_loss", cv=2
    ... )
    >>> search.fit(X[:150], y[:150]).subnetwork_size_ in (5, 50, 500)
    True
    """

    _plain = SubnetLaplaceClassifier
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **SizeSearch._parameter_constraints,
        "estimator": [SubnetLaplaceClassifier, None],
    }

    predict = asked(SubnetLaplaceClassifier.predict)
    predict_proba = asked(SubnetLaplaceClassifier.predict_proba)
    predict_log_proba = asked(SubnetLaplaceClassifier.predict_log_proba)
    predict_proba_map = asked(SubnetLaplaceClassifier.predict_proba_map)
    predictive = asked(SubnetLaplaceClassifier.predictive)
    latent_mean_and_variance = asked(SubnetLaplaceClassifier.latent_mean_and_variance)


class SubnetLaplaceRegressorCV(SizeSearch):
    """SubnetLaplaceRegressor whose subnetwork has the size that cross-validation finds best.

    What :class:`~sklearn.model_selection.GridSearchCV` over ``subnetwork_size`` finds, with one
    training for each fold; and over `selection` and `prior_precision` too, where several are given.

    Parameters
    ----------
    estimator : SubnetLaplaceRegressor or None, default=None
        Everything but the size; ``None`` for the default one. Its parameter `cv` are the folds
        inside each of its fits, those of the search are the `cv` below.
    subnetwork_sizes : sequence of int, float or str, default=(0.005, 0.01, 0.02, 0.05)
        Sizes to compare, each as ``subnetwork_size`` takes them.
    selections, prior_precisions : sequence or None, default=None
        What to compare with every size, as `selection` and `prior_precision` take it; ``None`` for
        the estimator's own.
    cv : int, splitter or iterable of (train, test), default=5
        Folds that score.
    scoring : str, callable or None, default=None
        One score, as in :class:`~sklearn.model_selection.GridSearchCV`. ``None`` is R², which looks
        at the mean alone, and that hardly depends on the size:
        :data:`sksubnet.metrics.neg_gaussian_nll_scorer` looks at the standard deviation too.
    refit : bool, default=True
        Fit with the best of all to all rows.
    n_jobs : int or None, default=None
        Folds at once, each in a process of its own.

    Attributes
    ----------
    best_estimator_ : SubnetLaplaceRegressor
        The fit of all rows, which predicts; with ``save`` and ``update``. Only with `refit`.
    subnetwork_size_ : int, float or str
        The best size.
    best_score_ : float
        Its mean score.
    best_index_, best_params_ : int, dict
        Its place in `cv_results_`, and the parameters: the size, and the selection and the prior
        precision where several were given.
    cv_results_ : dict of str to ndarray
        As of :class:`~sklearn.model_selection.GridSearchCV`, a row for each setting. The
        times are those of all of them together.
    n_splits_ : int
        Number of folds.
    scorer_ : callable
        The score in use.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    subnetwork_path : All sizes, without a search.
    sksubnet.displays.SizePathDisplay : The score against the size; ``from_search`` takes this.

    Notes
    -----
    In a pipeline it is the last step. A size that does not fit the net is an error of the whole
    search. Where ``random_state`` is ``None`` the sizes share a seed.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import SubnetLaplaceRegressor, SubnetLaplaceRegressorCV
    >>> from sksubnet.metrics import neg_gaussian_nll_scorer
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = SubnetLaplaceRegressor(random_state=0, cv=None, selection="gradient")
    >>> search = SubnetLaplaceRegressorCV(
    ...     reg, subnetwork_sizes=[5, 50, 500], scoring=neg_gaussian_nll_scorer, cv=2
    ... )
    >>> mean, std = search.fit(X[:150], y[:150]).predict(X, return_std=True)
    >>> len(search.best_estimator_.subnetwork_) == search.subnetwork_size_
    True
    """

    _plain = SubnetLaplaceRegressor
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **SizeSearch._parameter_constraints,
        "estimator": [SubnetLaplaceRegressor, None],
    }

    predict = asked(SubnetLaplaceRegressor.predict)
    predict_interval = asked(SubnetLaplaceRegressor.predict_interval)
    predict_quantiles = asked(SubnetLaplaceRegressor.predict_quantiles)
    predictive = asked(SubnetLaplaceRegressor.predictive)
    sample_y = asked(SubnetLaplaceRegressor.sample_y)
