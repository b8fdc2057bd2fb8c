"""Deep ensembles: a net trained from several starts (Lakshminarayanan et al., NeurIPS 2017)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import _fit_context, clone, is_regressor
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sksubnet.baselines.map import MAPClassifier, MAPRegressor
from sksubnet.estimators import (
    FORWARD_ROWS,
    BayesianNet,
    BayesianNetClassifier,
    BayesianNetRegressor,
    FittedNet,
    Table,
    all_or_nothing,
    in_jobs,
    mixed_moments,
    savable,
)
from sksubnet.nets import TabularNet, has_module_instance, is_frozen
from sksubnet.predictive import Predictive, pick_components

OF_THE_NET = ("noise", "normalize_y", "dtype", "validation_fraction", "memory")


class DeepEnsemble(BayesianNet):
    """A mixture of estimators that differ in their random state alone."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_members": [Interval(Integral, 1, None, closed="left")],
    }

    n_members: int
    estimators_: list[Any]

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the members, each on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, given to every member.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the net is frozen or its module an instance, so that all members would start from the
            same weights, if parameters of the net are set beside an estimator as `net`, or if a
            member cannot be fitted.
        """
        table = self._start_fit(X, y, sample_weight)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=self.n_members)
        member = self._reading_codes(self._member())
        rows = self._rows_of_members(table)
        members = [clone(member).set_params(random_state=int(seed)) for seed in seeds]
        calls = [(each, *rows) for each in members]
        self.estimators_ = in_jobs(_fitted, calls, self.n_jobs, name="member", fits=members)
        return self

    def _n_tasks(self) -> int:
        return self.n_members

    def _member(self) -> BayesianNet:
        """Return an unfitted member."""
        given = isinstance(self.net, BayesianNet)
        net = self.net.net if given else self.net
        if is_frozen(net) or has_module_instance(net):
            what = "The net is frozen" if is_frozen(net) else "net.module is a module instance"
            raise ValueError(
                f"{what}, so that all {self.n_members} members would start from the same weights; "
                "pass an unfitted net with the module's class."
            )
        settings = {name: getattr(self, name) for name in OF_THE_NET if hasattr(self, name)}
        if not given:
            return self._default_member(self.net, settings)
        if is_regressor(self.net) != is_regressor(self):
            raise TypeError(
                f"{type(self.net).__name__} cannot be a member of {type(self).__name__}."
            )
        if getattr(self.net, "target_transform", None) is not None:
            raise ValueError(
                f"net__target_transform={self.net.target_transform!r} would give each member its "
                "own; set target_transform of the ensemble instead."
            )
        defaults = inspect.signature(type(self)).parameters
        changed = [
            name
            for name, value in settings.items()
            if not np.array_equal(value, defaults[name].default)
        ]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} of the ensemble would not be used, because the members are "
                f"{type(self.net).__name__}; set net__{changed[0]} instead."
            )
        return self.net

    def _fitted_nets(self) -> list[FittedNet]:
        return [net for member in self.estimators_ for net in member._fitted_nets()]

    @property
    def _tabular(self) -> TabularNet | None:
        return self.net._tabular if isinstance(self.net, BayesianNet) else super()._tabular

    def _encoded(self, table: Table) -> Table:
        return table  # each member does that itself

    def _reading_codes(self, member: BayesianNet) -> BayesianNet:
        """Tell the default net of a member which columns are codes of categories."""
        tabular = member._tabular
        if tabular is None or not self._columns.levels:
            return member
        net = clone(tabular).set_params(categorical_features=list(self._columns.levels))
        reading: BayesianNet = clone(member).set_params(net=net)
        return reading

    def _inputs(self, X: Any) -> np.ndarray:
        """Validate rows; the members know no column names."""
        check_is_fitted(self)
        inputs: np.ndarray = self._check_rows(X, reset=False)
        return inputs

    def _predictives(self, X: Any) -> Iterator[Predictive]:
        inputs = self._inputs(X)
        for start in range(0, len(inputs), FORWARD_ROWS):
            batch = inputs[start : start + FORWARD_ROWS]
            yield Predictive.mix([member.predictive(batch) for member in self.estimators_])

    def _means(self, X: Any) -> Tensor:
        inputs = self._inputs(X)
        return torch.stack([member._means(inputs) for member in self.estimators_]).mean(dim=0)

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        inputs = self._inputs(X)
        return mixed_moments(member._joint_moments(inputs) for member in self.estimators_)

    def _default_member(self, net: Any, settings: dict[str, Any]) -> BayesianNet:
        """Return what a member is where no estimator is given."""
        raise NotImplementedError

    def _rows_of_members(self, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, targets and weights, without what ``_start_fit`` did to the targets."""
        raise NotImplementedError


def _fitted(member: BayesianNet, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> BayesianNet:
    fitted: BayesianNet = member.fit(X, y, weights)
    return fitted


@savable
class DeepEnsembleClassifier(BayesianNetClassifier, DeepEnsemble):
    """Neural net classifiers from several random starts, averaged.

    Every member sees all rows; its initial weights and the order of its batches are its own [1]_.

    Parameters
    ----------
    net : skorch net, TabularNet, estimator or None, default=None
        What each member is: a skorch net, ``None`` for the default net of :class:`MAPClassifier`,
        or an unfitted estimator of this package such as :class:`SubnetLaplaceClassifier`, which
        makes a mixture of posteriors; `dtype`, `validation_fraction` and `memory` are then those
        of that estimator (``net__dtype``) and may not be set here.
    n_members : int, default=5
        Number of members.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``.
    dtype : {"float64", "float32"}, default="float64"
        Floating point type of the net.
    validation_fraction : float in (0, 1), default=0.2
        Share of the rows held out for early stopping of the default net. A skorch net with a
        ``train_split`` of its own uses that.
    memory : str, joblib.Memory or None, default=None
        Where to keep trained nets, so that the same training is done once. Needs an integer
        ``random_state``. A net is recalled for equal rows, parameters and versions, and equal code
        of your own: the classes, functions, defaults and constants that training may reach, in all
        your modules. What code reads from files or environment variables is not seen. Where code
        cannot be read (compiled, ``eval``, a lock), and where an entry is damaged, the net is
        trained anew, for code with a warning.
    n_jobs : int or None, default=None
        Members that are fitted at once, in jobs of joblib with a share of the cores each; ``None``
        is 1 unless in a :obj:`joblib.parallel_config` context, -1 is all cores.
    verbose : int, default=0
        1 shows a bar of the whole fit.
    random_state : int, RandomState or None, default=None
        Seed of the members' seeds; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    estimators_ : list of estimators
        The fitted members.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    DeepEnsembleRegressor : The same for regression.
    MAPClassifier : One member.

    References
    ----------
    .. [1] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty
       estimation using deep ensembles", NeurIPS 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sksubnet import DeepEnsembleClassifier, SubnetLaplaceClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = DeepEnsembleClassifier(n_members=2, random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True

    A mixture of Laplace posteriors:

    >>> member = SubnetLaplaceClassifier(subnetwork_size=50, prior_precision=1.0, cv=None)
    >>> mixture = DeepEnsembleClassifier(member, n_members=2, random_state=0).fit(X, y)
    >>> len(mixture.estimators_[0].subnetwork_)
    50
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetClassifier._parameter_constraints,
        **DeepEnsemble._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        n_members: int = 5,
        class_weight: Any = None,
        dtype: str = "float64",
        validation_fraction: float = 0.2,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.n_members = n_members
        self.class_weight = class_weight
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def predict_proba_map(self, X: Any) -> np.ndarray:
        """Class probabilities of the trained nets alone, averaged: the plain deep ensemble.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Mean over the members of their probabilities at the MAP estimate.
        """
        inputs = self._inputs(X)
        members = [member.predict_proba_map(inputs) for member in self.estimators_]
        probabilities: np.ndarray = np.mean(members, axis=0)
        return probabilities

    def _default_member(self, net: Any, settings: dict[str, Any]) -> BayesianNet:
        return MAPClassifier(net, **settings)

    def _rows_of_members(self, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        X, y, weights = table.X, table.y, table.weights
        if y.ndim == 1:
            # Of each class whose rows all weigh nothing, one that weighs nothing.
            missing = np.setdiff1d(np.arange(len(self.classes_)), y)
            X = np.concatenate([X, X[:1].repeat(len(missing), axis=0)])
            y = np.concatenate([y, missing])
            weights = np.concatenate([weights, np.zeros(len(missing))])
        return X, self._labels(y), weights


@savable
class DeepEnsembleRegressor(BayesianNetRegressor, DeepEnsemble):
    """Neural net regressors from several random starts, averaged.

    Every member sees all rows; its initial weights and the order of its batches are its own [1]_.
    Members have a constant noise of their own instead of the paper's noise output.

    Parameters
    ----------
    net : skorch net, TabularNet, estimator or None, default=None
        What each member is: a skorch net, ``None`` for the default net of :class:`MAPRegressor`,
        or an unfitted estimator of this package such as :class:`SubnetLaplaceRegressor`, which
        makes a mixture of posteriors; `noise`, `normalize_y`, `dtype`, `validation_fraction` and
        `memory` are then those of that estimator (``net__noise``) and may not be set here.
    n_members : int, default=5
        Number of members.
    noise : "auto", float or array of shape (n_targets,), default="auto"
        Standard deviation of the noise in the units of the target; ``"auto"`` minimises the
        negative log likelihood of held-out rows, or of the training rows where there are fewer than
        100 and none is held out.
    normalize_y : bool, default=True
        Train on targets of mean 0 and variance 1; predictions are in the original units. A frozen
        net sees targets as they are.
    target_transform : {"log"}, transformer or None, default=None
        Increasing function of each target to train on, as in :class:`SubnetLaplaceRegressor`; a
        number as `noise` is the standard deviation of the transformed target. Members get the
        transformed targets: an estimator as `net` may not have a transform of its own.
    dtype : {"float64", "float32"}, default="float64"
        Floating point type of the net.
    validation_fraction : float in (0, 1), default=0.2
        Share of the rows held out for early stopping of the default net and for the noise. A skorch
        net with a ``train_split`` of its own uses that.
    memory : str, joblib.Memory or None, default=None
        Where to keep trained nets, so that the same training is done once. Needs an integer
        ``random_state``. A net is recalled for equal rows, parameters and versions, and equal code
        of your own: the classes, functions, defaults and constants that training may reach, in all
        your modules. What code reads from files or environment variables is not seen. Where code
        cannot be read (compiled, ``eval``, a lock), and where an entry is damaged, the net is
        trained anew, for code with a warning.
    n_jobs : int or None, default=None
        Members that are fitted at once, in jobs of joblib with a share of the cores each; ``None``
        is 1 unless in a :obj:`joblib.parallel_config` context, -1 is all cores.
    verbose : int, default=0
        1 shows a bar of the whole fit.
    random_state : int, RandomState or None, default=None
        Seed of the members' seeds; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    noise_std_ : float or ndarray of shape (n_targets,)
        Root of the mean noise variance of the members, in the units of the target.
    estimators_ : list of estimators
        The fitted members.
    target_transform_ : Transform or None
        The fitted transform.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    DeepEnsembleClassifier : The same for classification.
    MAPRegressor : One member.

    References
    ----------
    .. [1] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty
       estimation using deep ensembles", NeurIPS 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import DeepEnsembleRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = DeepEnsembleRegressor(n_members=2, random_state=0).fit(X, y)
    >>> mean, std = reg.predict(X, return_std=True)
    >>> bool((std > reg.noise_std_).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetRegressor._parameter_constraints,
        **DeepEnsemble._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        n_members: int = 5,
        noise: Any = "auto",
        normalize_y: bool = True,
        target_transform: Any = None,
        dtype: str = "float64",
        validation_fraction: float = 0.2,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.n_members = n_members
        self.noise = noise
        self.normalize_y = normalize_y
        self.target_transform = target_transform
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def _scales_targets(self) -> bool:
        # The members do, each for itself.
        return False

    def _default_member(self, net: Any, settings: dict[str, Any]) -> BayesianNet:
        return MAPRegressor(net, **settings)

    def _rows_of_members(self, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return table.X, self._shaped(table.y), table.weights

    @property
    def noise_std_(self) -> Any:
        """Root of the mean noise variance of the members, in the units of the target."""
        members: list[Any] = self.__dict__.get("estimators_", [])
        if not members:
            raise AttributeError(f"{type(self).__name__} has no attribute 'noise_std_' before fit.")
        variances = [np.square(member.noise_std_) for member in members]
        std = np.sqrt(np.mean(variances, axis=0))
        return float(std) if self._single_target else std

    def _mean_noise(self, X: Any) -> Tensor:
        inputs = self._inputs(X)
        return torch.stack([member._mean_noise(inputs) for member in self.estimators_]).mean(dim=0)

    def _draw_targets(self, X: Any, n_samples: int, generator: torch.Generator) -> Tensor:
        inputs = self._inputs(X)
        picked = pick_components(len(self.estimators_), n_samples, generator)
        draws = torch.empty(len(inputs), len(self._y_scale), n_samples, dtype=torch.float64)
        for index in picked.unique().tolist():
            chosen = picked == index
            member = self.estimators_[index]
            draws[:, :, chosen] = member._draw_targets(inputs, int(chosen.sum()), generator)
        return draws
