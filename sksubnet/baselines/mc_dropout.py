"""MC dropout: dropout stays active in prediction (Gal and Ghahramani, ICML 2016)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.base import clone
from sklearn.utils._param_validation import Interval

from sksubnet.baselines.draws import DrawnFrom, NetDraws
from sksubnet.estimators import (
    FOLD_OPTIONS,
    BayesianNetClassifier,
    BayesianNetRegressor,
    InitialNet,
    Table,
    savable,
)
from sksubnet.nets import Schedule, TabularNet, TrainedNet
from sksubnet.sampling import DropoutDraws, check_dropout


class MCDropout(NetDraws):
    """Draws of a net with dropout."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "cv": FOLD_OPTIONS,
        "dropout": [Interval(Real, 0, 1, closed="neither")],
    }

    n_draws: int
    dropout: float

    @property
    def _tabular(self) -> TabularNet | None:
        tabular = super()._tabular
        if tabular is not None and not tabular.dropout:
            tabular = clone(tabular).set_params(dropout=self.dropout)
        return tabular

    def _initial_net(
        self, table: Table, task: str, n_outputs: int, seed: int, schedule: Schedule | None
    ) -> InitialNet:
        initial = super()._initial_net(table, task, n_outputs, seed, schedule)
        check_dropout(initial.latent.module)
        return initial

    def _draws_of(self, trained: TrainedNet, initial: InitialNet) -> DrawnFrom:
        return trained, DropoutDraws(self.n_draws, trained.seed)


@savable
class MCDropoutClassifier(BayesianNetClassifier, MCDropout):
    """Neural net classifier that keeps dropout active in prediction.

    Class probabilities are averaged over draws of the net with random units left out [1]_.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch classifier, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Its criterion gives the likelihood:
        ``CrossEntropyLoss``, ``NLLLoss`` or ``BCEWithLogitsLoss``.
    n_draws : int, default=100
        Number of dropout masks, each of them a pass of the net over the rows to predict.
    dropout : float in (0, 1), default=0.1
        Dropout rate of the default net, behind each hidden layer; not where a :class:`TabularNet`
        has one of its own. A skorch net has its own dropout modules, and this is not used.
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
    MCDropoutRegressor : The same for regression.
    SubnetLaplaceClassifier : A posterior over some of the weights of a net without dropout.

    Notes
    -----
    A draw leaves out the same units for all rows: it is one function, so that a prediction does not
    depend on the rows around it and the same draws are made in every call. ``nn.Dropout`` and its
    relatives are seen if the rows are the first dimension of their input, neither
    ``torch.nn.functional.dropout`` nor the dropout argument of recurrent and attention layers.
    Batch normalisation stays as trained.

    References
    ----------
    .. [1] Gal and Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
       in deep learning", ICML 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sksubnet import MCDropoutClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MCDropoutClassifier(n_draws=20, random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    >>> bool((clf.predictive(X).mutual_information() > 0).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetClassifier._parameter_constraints,
        **MCDropout._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        n_draws: int = 100,
        dropout: float = 0.1,
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
        self.dropout = dropout
        self.class_weight = class_weight
        self.cv = cv
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state


@savable
class MCDropoutRegressor(BayesianNetRegressor, MCDropout):
    """Neural net regressor that keeps dropout active in prediction.

    The mean and the epistemic part of the standard deviation are those of draws of the net with
    random units left out [1]_. ``predict`` averages over the draws too.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch regressor, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Its criterion gives the likelihood: ``MSELoss``, or
        another one of :class:`SubnetLaplaceRegressor`.
    n_draws : int, default=100
        Number of dropout masks, each of them a pass of the net over the rows to predict.
    dropout : float in (0, 1), default=0.1
        Dropout rate of the default net, behind each hidden layer; not where a :class:`TabularNet`
        has one of its own. A skorch net has its own dropout modules, and this is not used.
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
    MCDropoutClassifier : The same for classification, with notes on the method.
    SubnetLaplaceRegressor : A posterior over some of the weights of a net without dropout.

    References
    ----------
    .. [1] Gal and Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
       in deep learning", ICML 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import MCDropoutRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MCDropoutRegressor(n_draws=20, random_state=0).fit(X, y)
    >>> mean, std = reg.predict(X, return_std=True)
    >>> bool((std > reg.noise_std_).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetRegressor._parameter_constraints,
        **MCDropout._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        n_draws: int = 100,
        dropout: float = 0.1,
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
        self.dropout = dropout
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
