"""VOGN: mean-field variational inference by natural gradients (Khan et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval

from sksubnet.baselines.draws import DrawnFrom, NetDraws
from sksubnet.estimators import (
    BayesianNetClassifier,
    BayesianNetRegressor,
    InitialFold,
    InitialNet,
    Table,
    TrainedFold,
    savable,
)
from sksubnet.nets import TrainedNet, is_frozen
from sksubnet.sampling import draw_weights, vogn


def without_memory(of_task: dict[str, Any]) -> dict[str, Any]:
    """Constraints of the task; VOGN keeps no trained nets."""
    return {name: allowed for name, allowed in of_task.items() if name != "memory"}


class VOGN(NetDraws):
    """Draws of the weights from a Gaussian that was trained instead of them."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "prior_precision": [Interval(Real, 0, None, closed="neither")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "n_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "damping": [Interval(Real, 0, None, closed="left")],
    }

    prior_precision: float
    temperature: float
    n_draws: int
    n_epochs: int
    lr: float
    momentum: float
    damping: float
    memory: ClassVar[None] = None

    def _train(self, starts: Sequence[InitialFold], table: Table) -> Iterator[TrainedFold]:
        """Give the nets as initialised, and the rows to train them on."""
        if is_frozen(self.net):
            raise ValueError(
                "VOGN trains all weights of the net, so it cannot use the fitted one in "
                "FrozenEstimator. Pass the net itself, or take SWAG or SubnetLaplace, which keep "
                "trained weights."
            )
        for start in starts:
            initial = start.initial
            self._check_reading(initial, table)
            trained = start.with_rows(table, initial.latent, initial.stream)
            yield TrainedFold(initial, trained, start.fold.held_out)

    def _draws_of(self, trained: TrainedNet, initial: InitialNet) -> DrawnFrom:
        """Train the posterior and draw from it; return the net at its mean."""
        net = initial.net
        self.posterior_, likelihood = vogn(
            trained,
            prior_precision=self.prior_precision,
            temperature=self.temperature,
            n_epochs=self.n_epochs,
            batch_size=len(trained.train) if net.batch_size == -1 else net.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            damping=self.damping,
            # Training starts from the residuals of the initial net where no noise is given.
            learn_noise=isinstance(getattr(self, "noise", None), str),
        )
        return replace(trained, likelihood=likelihood), draw_weights(
            trained, self.posterior_, self.n_draws
        )


@savable
class VOGNClassifier(BayesianNetClassifier, VOGN):
    """Neural net classifier with a Gaussian over all weights, trained by VOGN.

    Instead of the weights, the means and the variances of independent Gaussians over them are
    trained by natural gradients of the evidence lower bound [1]_ [2]_, and class probabilities are
    averaged over the net at draws from them. Where rows are held out, the posterior is that of the
    epoch after which they are predicted best. The net's optimizer, learning rate, epochs and
    callbacks have no part in it: only its module, criterion, batch size and split.

    Parameters
    ----------
    net : skorch net, TabularNet or None, default=None
        A skorch classifier, copied (its parameters are reachable as ``net__batch_size``,
        ``net__module__...``), or ``None`` for :class:`TabularNet`, the default net for tables. Its
        criterion gives the likelihood: ``CrossEntropyLoss``, ``NLLLoss`` or ``BCEWithLogitsLoss``.
        Training starts from the initial weights of its module.
    prior_precision : float, default=10.0
        Precision of the Gaussian prior on every weight.
    temperature : float, default=0.1
        Weight of the divergence from the prior in the evidence lower bound, the tempering of [2]_.
        1 is the variational posterior. With more weights than rows that one underfits, because
        independent weights then cost more than the data can pay for; a lower temperature counts the
        data ``1 / temperature`` times.
    n_draws : int, default=100
        Draws of the weights that predictions average over.
    n_epochs : int, default=200
        Passes over the training rows; the learning rate falls to 0 along a cosine.
    lr : float, default=0.2
        Learning rate of the natural gradient: 1 is a Newton step with the diagonal curvature.
    momentum : float in [0, 1), default=0.9
        Share that the moving average of the gradient keeps in a step.
    damping : float, default=0.03
        Added to the curvature in the steps of the mean [2]_. It makes them stable and changes
        neither the mean nor the variance that training converges to.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``.
    dtype : {"float64", "float32"}, default="float64"
        Floating point type of the net; the moments of the weights are in float64.
    validation_fraction : float in (0, 1), default=0.2
        Share of the rows held out to choose the epoch by, for the default net. A skorch net with a
        ``train_split`` of its own uses that; without one it trains on all rows to the end.
    n_jobs : int or None, default=None
        Most threads that torch may use; fewer are used where there is little to do. ``None`` leaves
        its setting, -1 is all cores.
    verbose : int, default=0
        1 shows a bar of the whole fit.
    random_state : int, RandomState or None, default=None
        Seed of everything random; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    net_ : skorch net
        The net at the mean of the posterior.
    posterior_ : GaussianPosterior
        Posterior of the trained weights, in the order of the module's parameters.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    VOGNRegressor : The same for regression.
    SubnetLaplaceClassifier : Trains the net as usual and puts a Gaussian on some of its weights.

    Notes
    -----
    Independent weights overfit as training goes on, the more so as a low temperature counts the
    data several times; held-out rows, predicted by 16 draws after each epoch, say when it was
    enough. The averages of the curvature and of the noise are then those since the start, without
    what they started with.

    The curvature is the diagonal of the generalised Gauss-Newton matrix, by one random direction of
    the outputs in a step: unbiased, where the squared gradients of [1]_ are so only for a model
    that is true. As in [3]_ the momentum is corrected for its start and training begins with
    narrow draws. Dropout and batch statistics are those of training in the gradients and of
    evaluation in the curvature; batch normalisation is refreshed for each draw after training.

    References
    ----------
    .. [1] Khan et al., "Fast and scalable Bayesian deep learning by weight-perturbation in Adam",
       ICML 2018, arXiv:1806.04854.
    .. [2] Osawa et al., "Practical deep learning with Bayesian principles", NeurIPS 2019,
       arXiv:1906.02506.
    .. [3] Shen et al., "Variational learning is effective for large deep networks", ICML 2024,
       arXiv:2402.17641.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sksubnet import VOGNClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = VOGNClassifier(random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    >>> bool((clf.predictive(X).mutual_information() > 0).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **without_memory(BayesianNetClassifier._parameter_constraints),
        **VOGN._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        prior_precision: float = 10.0,
        temperature: float = 0.1,
        n_draws: int = 100,
        n_epochs: int = 200,
        lr: float = 0.2,
        momentum: float = 0.9,
        damping: float = 0.03,
        class_weight: Any = None,
        dtype: str = "float64",
        validation_fraction: float = 0.2,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.prior_precision = prior_precision
        self.temperature = temperature
        self.n_draws = n_draws
        self.n_epochs = n_epochs
        self.lr = lr
        self.momentum = momentum
        self.damping = damping
        self.class_weight = class_weight
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state


@savable
class VOGNRegressor(BayesianNetRegressor, VOGN):
    """Neural net regressor with a Gaussian over all weights, trained by VOGN.

    Instead of the weights, the means and the variances of independent Gaussians over them are
    trained by natural gradients of the evidence lower bound [1]_ [2]_, and predictions are those of
    the net at draws from them. Where rows are held out, the posterior is that of the epoch after
    which they are predicted best. The net's optimizer, learning rate, epochs and callbacks have no
    part in it: only its module, batch size and split.

    Parameters
    ----------
    net : skorch net, TabularNet or None, default=None
        A skorch regressor, copied (its parameters are reachable as ``net__batch_size``,
        ``net__module__...``), or ``None`` for :class:`TabularNet`, the default net for tables.
        Training starts from the initial weights of its module. Its criterion gives the likelihood:
        ``MSELoss``, or another one of :class:`SubnetLaplaceRegressor`.
    prior_precision : float, default=10.0
        Precision of the Gaussian prior on every weight of the net for the scaled targets.
    temperature : float, default=0.1
        Weight of the divergence from the prior in the evidence lower bound, the tempering of [2]_.
        1 is the variational posterior. With more weights than rows that one underfits, because
        independent weights then cost more than the data can pay for; a lower temperature counts the
        data ``1 / temperature`` times.
    n_draws : int, default=100
        Draws of the weights that predictions average over.
    n_epochs : int, default=200
        Passes over the training rows; the learning rate falls to 0 along a cosine.
    lr : float, default=0.2
        Learning rate of the natural gradient: 1 is a Newton step with the diagonal curvature.
    momentum : float in [0, 1), default=0.9
        Share that the moving average of the gradient keeps in a step.
    damping : float, default=0.03
        Added to the curvature in the steps of the mean [2]_, in units of 1 / noise variance. It
        makes them stable and changes neither the mean nor the variance that training converges to.
    noise : "auto", float or array of shape (n_targets,), default="auto"
        Standard deviation of the noise in the units of the target; ``"auto"`` learns it with the
        weights: its square is the mean over training rows and draws of the squared residual, which
        maximises the evidence lower bound. Where rows are held out, the noise to predict with is
        that which makes them most likely.
    normalize_y : bool, default=True
        Train on targets of mean 0 and variance 1; predictions are in the original units.
    target_transform : {"log"}, transformer or None, default=None
        Increasing function of each target to train on, as in :class:`SubnetLaplaceRegressor`; a
        number as `noise` is the standard deviation of the transformed target.
    dtype : {"float64", "float32"}, default="float64"
        Floating point type of the net; the moments of the weights are in float64.
    validation_fraction : float in (0, 1), default=0.2
        Share of the rows held out to choose the epoch by, for the default net. A skorch net with a
        ``train_split`` of its own uses that; without one it trains on all rows to the end.
    n_jobs : int or None, default=None
        Most threads that torch may use; fewer are used where there is little to do. ``None`` leaves
        its setting, -1 is all cores.
    verbose : int, default=0
        1 shows a bar of the whole fit.
    random_state : int, RandomState or None, default=None
        Seed of everything random; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    noise_std_ : float or ndarray of shape (n_targets,)
        Standard deviation of the noise, in the units of the target.
    net_ : skorch net
        The net at the mean of the posterior.
    posterior_ : GaussianPosterior
        Posterior of the trained weights, in the order of the module's parameters.
    target_transform_ : Transform or None
        The fitted transform.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    VOGNClassifier : The same for classification, with notes on the method.
    SubnetLaplaceRegressor : Trains the net as usual and puts a Gaussian on some of its weights.

    References
    ----------
    .. [1] Khan et al., "Fast and scalable Bayesian deep learning by weight-perturbation in Adam",
       ICML 2018, arXiv:1806.04854.
    .. [2] Osawa et al., "Practical deep learning with Bayesian principles", NeurIPS 2019,
       arXiv:1906.02506.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import VOGNRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = VOGNRegressor(random_state=0).fit(X, y)
    >>> mean, std = reg.predict(X, return_std=True)
    >>> bool((std > reg.noise_std_).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **without_memory(BayesianNetRegressor._parameter_constraints),
        **VOGN._parameter_constraints,
    }

    def __init__(
        self,
        net: Any = None,
        *,
        prior_precision: float = 10.0,
        temperature: float = 0.1,
        n_draws: int = 100,
        n_epochs: int = 200,
        lr: float = 0.2,
        momentum: float = 0.9,
        damping: float = 0.03,
        noise: Any = "auto",
        normalize_y: bool = True,
        target_transform: Any = None,
        dtype: str = "float64",
        validation_fraction: float = 0.2,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.prior_precision = prior_precision
        self.temperature = temperature
        self.n_draws = n_draws
        self.n_epochs = n_epochs
        self.lr = lr
        self.momentum = momentum
        self.damping = damping
        self.noise = noise
        self.normalize_y = normalize_y
        self.target_transform = target_transform
        self.dtype = dtype
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def _noise_is_tuned(self) -> bool:
        return False
