"""The trained net alone: the point estimate that every other method starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sksubnet.baselines.draws import DrawnFrom, NetDraws
from sksubnet.estimators import (
    FOLD_OPTIONS,
    BayesianNetClassifier,
    BayesianNetRegressor,
    Form,
    InitialNet,
    keep,
    savable,
)
from sksubnet.jacobian import evaluate
from sksubnet.nets import Latent, TrainedNet


@dataclass(frozen=True)
class PointDraw:
    """The trained net itself as a single draw."""

    def latents(self, latent: Latent, X: Tensor) -> Tensor:
        """Latents (1, B, C) of a batch."""
        with torch.no_grad():
            return evaluate(latent, X).double().cpu()[None]


keep(Form.of_fields(PointDraw))


class PointNet(NetDraws):
    """A single draw: the trained net."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {"cv": FOLD_OPTIONS}

    def _draws_of(self, trained: TrainedNet, initial: InitialNet) -> DrawnFrom:
        return trained, PointDraw()


@savable
class MAPClassifier(BayesianNetClassifier, PointNet):
    """Neural net classifier without a posterior: the MAP estimate alone.

    The first line of every comparison, and the members of a deep ensemble.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch classifier, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Its criterion gives the likelihood:
        ``CrossEntropyLoss``, ``NLLLoss`` or ``BCEWithLogitsLoss``.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``.
    cv : "auto", int, splitter, iterable or None, default=None
        Folds, each with a net that is trained on the others and stops on its own; predictions are
        the mean over the nets. As in :class:`SubnetLaplaceClassifier`, where ``"auto"`` is the
        default.
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
        Folds that are worked on at once, in jobs of joblib with a share of the cores each; ``None``
        is 1 unless in a :obj:`joblib.parallel_config` context, -1 is all cores. A single net, and
        predictions, use up to so many threads of torch, with ``None`` up to its setting; fewer
        where there is little to do. The fit is the same for any number, up to rounding where
        several threads work on one net.
    verbose : int, default=0
        1 shows a bar of the whole fit, 2 prints a line for each epoch of the default net. A skorch
        net has a ``verbose`` of its own.
    random_state : int, RandomState or None, default=None
        Seed of everything random; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    net_ : skorch net
        The trained net, where there is one; with folds use ``folds_[0].net``.
    out_of_fold_ : Predictive
        What the nets say of the training rows that they have not seen. Only with folds.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    MAPRegressor : The same for regression.
    DeepEnsembleClassifier : Several of them.
    SubnetLaplaceClassifier : The same net with a posterior over some of its weights.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sksubnet import MAPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MAPClassifier(random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    >>> float(clf.predictive(X).mutual_information().max())
    0.0
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetClassifier._parameter_constraints,
        **PointNet._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        class_weight: Any = None,
        cv: Any = None,
        dtype: str = "float64",
        validation_fraction: float = 0.2,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.class_weight = class_weight
        self.cv = cv
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state


@savable
class MAPRegressor(BayesianNetRegressor, PointNet):
    """Neural net regressor without a posterior: the MAP estimate and constant noise.

    The first line of every comparison, and the members of a deep ensemble. The noise variance is
    that of the residuals on held-out rows.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch regressor, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Its criterion gives the likelihood: ``MSELoss``, or
        another one of :class:`SubnetLaplaceRegressor`.
    noise : "auto", float or array of shape (n_targets,), default="auto"
        Standard deviation of the noise in the units of the target; ``"auto"`` minimises the
        negative log likelihood of held-out rows, or of the training rows where there are fewer than
        100 and none is held out.
    normalize_y : bool, default=True
        Train on targets of mean 0 and variance 1; predictions are in the original units. A frozen
        net sees targets as they are.
    target_transform : {"log"}, transformer or None, default=None
        Increasing function of each target to train on, as in :class:`SubnetLaplaceRegressor`; a
        number as `noise` is the standard deviation of the transformed target.
    cv : "auto", int, splitter, iterable or None, default=None
        Folds, each with a net that is trained on the others and stops on its own; predictions are
        the mean over the nets. As in :class:`SubnetLaplaceRegressor`, where ``"auto"`` is the
        default.
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
        Folds that are worked on at once, in jobs of joblib with a share of the cores each; ``None``
        is 1 unless in a :obj:`joblib.parallel_config` context, -1 is all cores. A single net, and
        predictions, use up to so many threads of torch, with ``None`` up to its setting; fewer
        where there is little to do. The fit is the same for any number, up to rounding where
        several threads work on one net.
    verbose : int, default=0
        1 shows a bar of the whole fit, 2 prints a line for each epoch of the default net. A skorch
        net has a ``verbose`` of its own.
    random_state : int, RandomState or None, default=None
        Seed of everything random; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    noise_std_ : float or ndarray of shape (n_targets,)
        Standard deviation of the noise, in the units of the target.
    net_ : skorch net
        The trained net, where there is one; with folds use ``folds_[0].net``.
    out_of_fold_ : Predictive
        What the nets say of the training rows that they have not seen. Only with folds.
    target_transform_ : Transform or None
        The fitted transform.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    MAPClassifier : The same for classification.
    DeepEnsembleRegressor : Several of them.
    SubnetLaplaceRegressor : The same net with a posterior over some of its weights.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import MAPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MAPRegressor(random_state=0).fit(X, y)
    >>> mean, std = reg.predict(X, return_std=True)
    >>> bool((std == reg.noise_std_).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetRegressor._parameter_constraints,
        **PointNet._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        noise: Any = "auto",
        normalize_y: bool = True,
        target_transform: Any = None,
        cv: Any = None,
        dtype: str = "float64",
        validation_fraction: float = 0.2,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.noise = noise
        self.normalize_y = normalize_y
        self.target_transform = target_transform
        self.cv = cv
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state
