"""SWAG: a Gaussian around the path of SGD (Maddox et al., NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval

from sksubnet.baselines.draws import DrawnFrom, NetDraws
from sksubnet.estimators import (
    FOLD_OPTIONS,
    BayesianNetClassifier,
    BayesianNetRegressor,
    TrainedFold,
    in_jobs,
    savable,
    work_of_batch,
)
from sksubnet.jacobian import threads_for
from sksubnet.nets import TrainedNet
from sksubnet.sampling import WeightDraws, swag_moments, with_batch_statistics


class SWAG(NetDraws):
    """Draws of the weights from a Gaussian around the path of SGD."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "cv": FOLD_OPTIONS,
        "rank": [Interval(Integral, 0, None, closed="left")],
        "n_snapshots": [Interval(Integral, 2, None, closed="left")],
        "swag_lr": [Interval(Real, 0, None, closed="neither")],
        "scale": [Interval(Real, 0, None, closed="left")],
    }

    n_draws: int
    rank: int
    n_snapshots: int
    swag_lr: float
    scale: float

    def _draws(self, nets: Sequence[TrainedFold]) -> list[DrawnFrom]:
        path = {"rank": self.rank, "n_snapshots": self.n_snapshots, "lr": self.swag_lr}
        calls = [(net.trained, path, self.n_draws, self.scale) for net in nets]
        draws = in_jobs(_draws_along, calls, self.n_jobs, name="net")
        return [(net.trained, drawn) for net, drawn in zip(nets, draws, strict=True)]


def _draws_along(
    trained: TrainedNet, path: dict[str, Any], n_draws: int, scale: float
) -> WeightDraws:
    """Draw weights from the Gaussian around the path of SGD from a trained net."""
    with threads_for(work_of_batch(trained)):
        moments = swag_moments(trained, **path)
        generator = torch.Generator().manual_seed(trained.seed)
        weights = moments.draws(n_draws, scale, generator).to(trained.latent.dtype)
        return with_batch_statistics(trained.latent, weights, trained.train.X)


@savable
class SWAGClassifier(BayesianNetClassifier, SWAG):
    """Neural net classifier with a Gaussian around the path of SGD over its weights.

    SGD goes on from the trained net; the mean, the variances and the last deviations of its weights
    make a Gaussian, and class probabilities are averaged over the net at draws from it [1]_.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch classifier, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Its criterion gives the likelihood:
        ``CrossEntropyLoss``, ``NLLLoss`` or ``BCEWithLogitsLoss``.
    n_draws : int, default=30
        Number of draws of the weights, made once in ``fit``; they take as many times the memory of
        the weights.
    rank : int, default=20
        Number of last snapshots whose deviations make the low-rank part of the covariance; 0 leaves
        the diagonal.
    n_snapshots : int, default=40
        Number of epochs of SGD from the trained net, with a snapshot of the weights after each.
    swag_lr : float, default=1e-2
        Learning rate of that SGD, on the mean loss of a row. Where the weights diverge it is
        divided by ten.
    scale : float, default=0.5
        The covariance is `scale` times the sum of the diagonal and the low-rank part.
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
        The trained net, from which SGD starts.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    SWAGRegressor : The same for regression.
    SubnetLaplaceClassifier : Its default selection ranks weights by their variance under SWAG.

    Notes
    -----
    The statistics of batch normalisation are computed anew for each draw, over the training rows.

    References
    ----------
    .. [1] Maddox, Garipov, Izmailov, Vetrov and Wilson, "A simple baseline for Bayesian uncertainty
       in deep learning", NeurIPS 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sksubnet import SWAGClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SWAGClassifier(random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    >>> bool((clf.predictive(X).mutual_information() > 0).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetClassifier._parameter_constraints,
        **SWAG._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        n_draws: int = 30,
        rank: int = 20,
        n_snapshots: int = 40,
        swag_lr: float = 1e-2,
        scale: float = 0.5,
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
        self.n_draws = n_draws
        self.rank = rank
        self.n_snapshots = n_snapshots
        self.swag_lr = swag_lr
        self.scale = scale
        self.class_weight = class_weight
        self.cv = cv
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state


@savable
class SWAGRegressor(BayesianNetRegressor, SWAG):
    """Neural net regressor with a Gaussian around the path of SGD over its weights.

    SGD goes on from the trained net; the mean, the variances and the last deviations of its weights
    make a Gaussian, and the predictive mean and variance are those of the net at draws from it
    [1]_. ``predict`` averages over the draws too.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch regressor, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Its criterion gives the likelihood: ``MSELoss``, or
        another one of :class:`SubnetLaplaceRegressor`.
    n_draws : int, default=30
        Number of draws of the weights, made once in ``fit``; they take as many times the memory of
        the weights.
    rank : int, default=20
        Number of last snapshots whose deviations make the low-rank part of the covariance; 0 leaves
        the diagonal.
    n_snapshots : int, default=40
        Number of epochs of SGD from the trained net, with a snapshot of the weights after each.
    swag_lr : float, default=1e-2
        Learning rate of that SGD, on the mean loss of a row. Where the weights diverge it is
        divided by ten.
    scale : float, default=0.5
        The covariance is `scale` times the sum of the diagonal and the low-rank part.
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
        The trained net, from which SGD starts.
    target_transform_ : Transform or None
        The fitted transform.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    SWAGClassifier : The same for classification, with a note on batch normalisation.
    SubnetLaplaceRegressor : Its default selection ranks weights by their variance under SWAG.

    References
    ----------
    .. [1] Maddox, Garipov, Izmailov, Vetrov and Wilson, "A simple baseline for Bayesian uncertainty
       in deep learning", NeurIPS 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import SWAGRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = SWAGRegressor(random_state=0).fit(X, y)
    >>> mean, std = reg.predict(X, return_std=True)
    >>> bool((std > reg.noise_std_).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetRegressor._parameter_constraints,
        **SWAG._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        n_draws: int = 30,
        rank: int = 20,
        n_snapshots: int = 40,
        swag_lr: float = 1e-2,
        scale: float = 0.5,
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
        self.n_draws = n_draws
        self.rank = rank
        self.n_snapshots = n_snapshots
        self.swag_lr = swag_lr
        self.scale = scale
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
