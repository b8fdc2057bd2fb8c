"""Bayesian neural nets by subnetwork inference (Daxberger et al., ICML 2021)."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from sksubnet.estimators import (
    BayesianNetClassifier,
    BayesianNetRegressor,
    SubnetLaplace,
    savable,
)
from sksubnet.predictive import LINKS


@savable
class SubnetLaplaceClassifier(BayesianNetClassifier, SubnetLaplace):
    """Neural net classifier with a Bayesian subnetwork.

    A net is trained as usual (the MAP estimate). A small set of its weights then gets a Gaussian
    posterior with full covariance, all others stay fixed, and class probabilities are averaged over
    that posterior through the linearised net [1]_ [2]_. On a table there is a net for each of five
    folds: each stops on rows that it has not seen, all of them say how strong the prior is, and
    predictions are those of their mixture.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch classifier, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Its criterion gives the likelihood:
        ``CrossEntropyLoss``, ``NLLLoss`` or ``BCEWithLogitsLoss``. Widths that the module's
        signature names (``n_features``, ``n_outputs``, ...) are filled in.
    subnetwork_size : int, float or str, default="auto"
        Number of weights with a posterior: an int counts weights, a float in (0, 1] is the share of
        the candidates, ``"auto"`` a twentieth of them but at least 100 and at most 500, ``"all"``
        every candidate, and ``"90% variance"`` as few as keep that share of the predictive variance
        (with ``selection="greedy"``). Not used where ``selection`` names the weights itself.
    selection : str, list of str, array-like or callable, default="greedy"
        Which candidates. By what they do to predictions at reference inputs: ``"greedy"`` (those
        that keep most of the predictive standard deviation, by a search) and ``"gradient"`` (mean
        squared output gradient). By the training data: ``"swag"`` (largest variance along SGD from
        the trained net, as in the code of the paper's authors), ``"variance"`` (largest variance
        under diagonal Laplace, the paper's literal rule, which prefers weights without effect),
        ``"saliency"`` (w² times its curvature) and ``"leverage"`` (ridge leverage). ``"magnitude"``
        and ``"random"``. Or a callable that maps a ``TrainedNet`` to scores of shape
        ``(n_weights,)``. ``"last_layer"``, names of modules or parameters, an index array, or a
        boolean mask of shape ``(n_weights,)`` name the weights themselves.
    reference : {"mixtures", "train"} or array-like, default="mixtures"
        Inputs at which ``"greedy"`` and ``"gradient"`` look: random mixtures of two training rows,
        training rows, or rows (n_reference, n_features) from where the net will be used.
    candidates : {"weights", "all"}, list of str or array-like, default="weights"
        What may be selected: ``"weights"`` leaves out biases and normalisation layers as the
        paper does, and the weights of the default net's bins, which are constant beyond the data;
        ``"all"`` is every trainable parameter; or names, indices or a mask.
    covariance : {"full", "diag"}, default="full"
        Covariance of the posterior. With ``subnetwork_size="all"`` these are full and diagonal
        Laplace.
    prior_precision : float or str, default="validation_1sd"
        Precision of the Gaussian prior on the selected weights, in 1 / weight². ``"validation"``
        minimises the negative log likelihood of rows that the nets have not seen.
        ``"validation_1sd"`` takes all precisions, each as likely as it makes these rows, and is one
        standard deviation of their logarithm below its mean: the more variance away from the data
        the less these rows tell, and less by chance than the lowest loss.
        ``"validation_half_se"`` and ``"validation_1se"`` take the smallest precision whose loss
        exceeds the lowest by at most half a standard error, or one, of their difference. All four
        stay where the prior alone gives an average row between 1 and 10 standard deviations of
        the target, or logits, because unseen rows say nothing about directions that the data do not
        touch; ``tuning_.summary()`` tells when they end at a limit. ``"evidence"`` maximises the
        marginal likelihood, and decides where fewer than 20 rows are unseen.
    link : {"extended_probit", "probit", "mc"}, default="extended_probit"
        How the Gaussian over the logits becomes probabilities: the extended probit uses their whole
        covariance, ``"probit"`` is the paper's, ``"mc"`` averages quasi-random draws of the logits.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``.
    cv : "auto", int, splitter, iterable or None, default="auto"
        Folds, each with a net that is trained on the others. An int is the number of folds, made by
        the content of the rows: stratified, equal rows in one fold, whatever their order; at most
        as many as there are distinct rows, or groups. A splitter or an iterable of (train, test) is
        used as it is. ``None`` trains one net, which holds rows out by itself. ``"auto"`` is 5 for
        the default net and 20 to 4000 distinct rows, else ``None``.
    refit : bool, default=False
        Predict with one net, trained on all rows for the median of the epochs that the nets of the
        folds took, with the prior and the noise that they found. It is five times as fast to
        predict with and a little worse. A skorch net is trained as it is set.
    dtype : {"float64", "float32"}, default="float64"
        Floating point type of the net and its Jacobians. The posterior is factorised in float64.
    batch_size : int or None, default=None
        Rows of a batch in the curvature pass; ``None`` keeps to a memory budget.
    validation_fraction : float in (0, 1), default=0.2
        Share of the rows that a single net holds out for early stopping and for tuning; not used
        with folds. A skorch net with a ``train_split`` of its own uses that. The posterior is that
        of the other rows: with these too it would be narrower than what was tuned on them.
    memory : str, joblib.Memory or None, default=None
        Where to keep trained nets, so that a search over ``subnetwork_size`` or ``selection``
        trains once for each fold; and the order in which ``"greedy"`` takes weights, of which 129
        to 512 begin alike. Needs an integer ``random_state``. A net is recalled for equal
        rows, parameters and versions, and equal code of your own: the classes, functions, defaults
        and constants that training may reach, in all your modules. What code reads from files or
        environment variables is not seen. Where code cannot be read (compiled, ``eval``, a lock),
        and where an entry is damaged, the net is trained anew, for code with a warning.
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
        Class labels, or the numbers of several labels of a row.
    folds_ : list of LinearisedNet
        The nets that predict, one for each fold, each with its ``net``, ``subnetwork``,
        ``posterior`` and ``held_out``, the rows that it has not seen (numbers among the distinct
        rows, sorted).
    net_, subnetwork_, posterior_ : skorch net, Subnetwork, Posterior
        Those of the single net; with folds there is no such attribute, use ``folds_[0].net``.
    out_of_fold_ : Predictive
        What the nets say of the training rows that they have not seen, in the order of the rows of
        positive weight: honest scores without another cross-validation. Only with folds.
    prior_precision_ : float
        Prior precision in use.
    held_training_data_ : str
        What this holds of single training rows, in words, and so do its pickles and files: with
        more weights in the subnetwork than training rows, the posterior keeps the Jacobian of each
        row, from which the row can be computed; with folds, ``out_of_fold_``.
    tuning_ : Tuned
        Scanned prior precisions and their losses; ``tuning_.summary()`` says it in words.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    SubnetLaplaceRegressor : The same for regression.
    sklearn.gaussian_process.GaussianProcessClassifier : Laplace approximation of a Gaussian
        process.

    Notes
    -----
    Several labels for each row are given as scikit-learn has them: `y` of shape (n_samples,
    n_labels), 1 where a label is there and 0 where not, with ``net=None`` or a net that has a logit
    for each label under ``BCEWithLogitsLoss``. Then ``predict`` and ``predict_proba`` have that
    shape too, ``classes_`` are the numbers of the labels, and each label has the probability that a
    net for it alone would give. Entropies are sums over the labels.

    References
    ----------
    .. [1] Daxberger et al., "Bayesian deep learning via subnetwork inference", ICML 2021.
    .. [2] Immer et al., "Improving predictions of Bayesian neural nets via local linearization",
       AISTATS 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sksubnet import SubnetLaplaceClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SubnetLaplaceClassifier(subnetwork_size=100, random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    >>> [len(net.subnetwork) for net in clf.folds_]
    [100, 100, 100, 100, 100]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetClassifier._parameter_constraints,
        **SubnetLaplace._parameter_constraints,
        "link": [StrOptions(set(LINKS))],
    }

    def __init__(
        self,
        net: Any = None,
        *,
        subnetwork_size: int | float | str = "auto",
        selection: Any = "greedy",
        reference: Any = "mixtures",
        candidates: Any = "weights",
        covariance: str = "full",
        prior_precision: float | str = "validation_1sd",
        link: str = "extended_probit",
        class_weight: Any = None,
        cv: Any = "auto",
        refit: bool = False,
        dtype: str = "float64",
        batch_size: int | None = None,
        validation_fraction: float = 0.2,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.subnetwork_size = subnetwork_size
        self.selection = selection
        self.reference = reference
        self.candidates = candidates
        self.covariance = covariance
        self.prior_precision = prior_precision
        self.link = link
        self.class_weight = class_weight
        self.cv = cv
        self.refit = refit
        self.dtype = dtype
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state


@savable
class SubnetLaplaceRegressor(BayesianNetRegressor, SubnetLaplace):
    """Neural net regressor with a Bayesian subnetwork.

    A net is trained as usual (the MAP estimate). A small set of its weights then gets a Gaussian
    posterior with full covariance, all others stay fixed, and the linearised net turns it into a
    predictive mean and standard deviation [1]_ [2]_. On a table there is a net for each of five
    folds: each stops on rows that it has not seen, all of them say how strong the prior is, and
    predictions are those of their mixture.

    Parameters
    ----------
    net : skorch net, TabularNet, FrozenEstimator or None, default=None
        A skorch regressor, copied and trained in ``fit`` (its parameters are reachable as
        ``net__lr``, ``net__module__...``), a fitted one in
        :class:`~sklearn.frozen.FrozenEstimator`, or ``None`` for :class:`TabularNet`,
        the default net for tables. Widths that the module's signature names
        (``n_features``, ``n_outputs``, ...) are filled in. Its criterion gives the likelihood:
        ``MSELoss``, or another one of the notes.
    subnetwork_size : int, float or str, default="auto"
        Number of weights with a posterior: an int counts weights, a float in (0, 1] is the share of
        the candidates, ``"auto"`` a twentieth of them but at least 100 and at most 500, ``"all"``
        every candidate, and ``"90% variance"`` as few as keep that share of the predictive variance
        (with ``selection="greedy"``). Not used where ``selection`` names the weights itself.
    selection : str, list of str, array-like or callable, default="greedy"
        Which candidates. By what they do to predictions at reference inputs: ``"greedy"`` (those
        that keep most of the predictive standard deviation, by a search) and ``"gradient"`` (mean
        squared output gradient). By the training data: ``"swag"`` (largest variance along SGD from
        the trained net, as in the code of the paper's authors), ``"variance"`` (largest variance
        under diagonal Laplace, the paper's literal rule, which prefers weights without effect),
        ``"saliency"`` (w² times its curvature) and ``"leverage"`` (ridge leverage). ``"magnitude"``
        and ``"random"``. Or a callable that maps a ``TrainedNet`` to scores of shape
        ``(n_weights,)``. ``"last_layer"``, names of modules or parameters, an index array, or a
        boolean mask of shape ``(n_weights,)`` name the weights themselves.
    reference : {"mixtures", "train"} or array-like, default="mixtures"
        Inputs at which ``"greedy"`` and ``"gradient"`` look: random mixtures of two training rows,
        training rows, or rows (n_reference, n_features) from where the net will be used.
    candidates : {"weights", "all"}, list of str or array-like, default="weights"
        What may be selected: ``"weights"`` leaves out biases and normalisation layers as the
        paper does, and the weights of the default net's bins, which are constant beyond the data;
        ``"all"`` is every trainable parameter; or names, indices or a mask.
    covariance : {"full", "diag"}, default="full"
        Covariance of the posterior. With ``subnetwork_size="all"`` these are full and diagonal
        Laplace.
    prior_precision : float or str, default="validation_1sd"
        Precision of the Gaussian prior on the selected weights, in 1 / weight². ``"validation"``
        minimises the negative log likelihood of rows that the nets have not seen.
        ``"validation_1sd"`` takes all precisions, each as likely as it makes these rows, and is one
        standard deviation of their logarithm below its mean: the more variance away from the data
        the less these rows tell, and less by chance than the lowest loss.
        ``"validation_half_se"`` and ``"validation_1se"`` take the smallest precision whose loss
        exceeds the lowest by at most half a standard error, or one, of their difference. All four
        stay where the prior alone gives an average row between 1 and 10 standard deviations of
        the target, or logits, because unseen rows say nothing about directions that the data do not
        touch; ``tuning_.summary()`` tells when they end at a limit. ``"evidence"`` maximises the
        marginal likelihood, and decides where fewer than 20 rows are unseen.
    noise : {"auto", "constant", "input"}, float or array of shape (n_targets,), default="auto"
        Standard deviation of the noise in the units of the target. ``"constant"`` finds one for
        all rows. ``"input"`` trains a second net on the squared residuals of unseen rows, which
        gives each row its own and leaves the mean as it is. ``"auto"`` is ``"input"`` where that
        predicts unseen rows better by more than a standard error, for the default net; otherwise
        ``"constant"``. A likelihood without Gaussian noise leaves nothing to set.
    normalize_y : bool, default=True
        Train on targets of mean 0 and variance 1; predictions are in the original units. The prior
        precision is that of the net for the scaled targets. A frozen net, and one with a
        likelihood of counts or one that you declare, sees targets as they are.
    target_transform : {"log"}, transformer or None, default=None
        Train on an increasing function of each target: its logarithm, or what a copy of the
        transformer makes of it, such as ``PowerTransformer()`` or ``FunctionTransformer(np.log1p,
        np.expm1)``, fitted to each target by itself and without weights. Predictions are in the
        original units: quantiles, intervals and draws go through the inverse, and the mean of the
        target is not the inverse of the net's mean but an integral, which takes the Jacobian. See
        :class:`~sksubnet.predictive.TransformedPredictive`, also for where there is no mean. The
        covariance between rows is known for ``"log"``. A number as `noise` is the standard
        deviation of the transformed target, and a net in a FrozenEstimator is one for it.
    cv : "auto", int, splitter, iterable or None, default="auto"
        Folds, each with a net that is trained on the others. An int is the number of folds, made by
        the content of the rows: stratified, equal rows in one fold, whatever their order; at most
        as many as there are distinct rows, or groups. A splitter or an iterable of (train, test) is
        used as it is. ``None`` trains one net, which holds rows out by itself. ``"auto"`` is 5 for
        the default net and 20 to 4000 distinct rows, else ``None``.
    refit : bool, default=False
        Predict with one net, trained on all rows for the median of the epochs that the nets of the
        folds took, with the prior and the noise that they found. It is five times as fast to
        predict with and a little worse. A skorch net is trained as it is set.
    dtype : {"float64", "float32"}, default="float64"
        Floating point type of the net and its Jacobians. The posterior is factorised in float64.
    batch_size : int or None, default=None
        Rows of a batch in the curvature pass; ``None`` keeps to a memory budget.
    validation_fraction : float in (0, 1), default=0.2
        Share of the rows that a single net holds out for early stopping and for tuning; not used
        with folds. A skorch net with a ``train_split`` of its own uses that. The posterior is that
        of the other rows: with these too it would be narrower than what was tuned on them.
    memory : str, joblib.Memory or None, default=None
        Where to keep trained nets, so that a search over ``subnetwork_size`` or ``selection``
        trains once for each fold; and the order in which ``"greedy"`` takes weights, of which 129
        to 512 begin alike. Needs an integer ``random_state``. A net is recalled for equal
        rows, parameters and versions, and equal code of your own: the classes, functions, defaults
        and constants that training may reach, in all your modules. What code reads from files or
        environment variables is not seen. Where code cannot be read (compiled, ``eval``, a lock),
        and where an entry is damaged, the net is trained anew, for code with a warning.
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
        Standard deviation of the noise, in the units of the (transformed) target: the root of the
        mean variance over the nets, and over the training rows where it differs from row to row.
    folds_ : list of LinearisedNet
        The nets that predict, one for each fold, each with its ``net``, ``subnetwork``,
        ``posterior`` and ``held_out``, the rows that it has not seen (numbers among the distinct
        rows, sorted).
    net_, subnetwork_, posterior_ : skorch net, Subnetwork, Posterior
        Those of the single net; with folds there is no such attribute, use ``folds_[0].net``.
    out_of_fold_ : Predictive or TransformedPredictive
        What the nets say of the training rows that they have not seen, in the order of the rows of
        positive weight: honest scores without another cross-validation. Only with folds.
    prior_precision_ : float
        Prior precision in use.
    held_training_data_ : str
        What this holds of single training rows, in words, and so do its pickles and files: with
        more weights in the subnetwork than training rows, the posterior keeps the Jacobian of each
        row, from which the row can be computed; with folds, ``out_of_fold_``.
    tuning_ : Tuned
        Scanned prior precisions and their losses; ``tuning_.summary()`` says it in words.
    target_transform_ : Transform or None
        The fitted transform.
    n_features_in_ : int
        Number of columns of ``X`` in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they are strings.

    See Also
    --------
    SubnetLaplaceClassifier : The same for classification.
    sklearn.gaussian_process.GaussianProcessRegressor : Exact inference in function space.
    sklearn.linear_model.BayesianRidge : What this is for a linear net.

    Notes
    -----
    ``PoissonNLLLoss`` (``log_input=True``, its default) is for counts: the net gives log rates, the
    posterior is over these, and predictions are the Poisson distribution averaged over it. So the
    mean is E[exp(f)], above the rate of the mean by what the weights leave open, and the variance
    is the mean plus that of the rate; intervals and quantiles are whole numbers. For counts per
    exposure give the rates ``counts / exposure`` as `y` and ``sample_weight=exposure``, which is
    the likelihood of the counts with the log exposure as an offset; predictions are then for an
    exposure of one. A prior precision that is tuned on held-out rows counts such a row as many
    equal ones; ``"evidence"`` does not.

    ``GaussianNLLLoss`` is for a module that returns a mean and a variance of each target, with or
    without a ``get_loss`` of the net's own that takes them apart. The posterior is over the mean
    and the logarithm of the variance, with the Fisher information as curvature [3]_: the aleatoric
    variance is that of each row, averaged over the posterior, and quantiles are those of the
    mixture. A module that returns one tensor, of means and then log variances, is trained with
    ``criterion=LikelihoodLoss, criterion__likelihood=MeanVariance()``
    (:class:`~sksubnet.LikelihoodLoss`).

    A criterion of your own declares what it stands for by an attribute ``likelihood``; see
    :class:`~sksubnet.Likelihood`.

    References
    ----------
    .. [1] Daxberger et al., "Bayesian deep learning via subnetwork inference", ICML 2021.
    .. [2] Immer et al., "Improving predictions of Bayesian neural nets via local linearization",
       AISTATS 2021.
    .. [3] Immer et al., "Effective Bayesian heteroscedastic regression with deep neural networks",
       NeurIPS 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import SubnetLaplaceRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = SubnetLaplaceRegressor(subnetwork_size=100, random_state=0).fit(X, y)
    >>> mean, std = reg.predict(X, return_std=True)
    >>> mean.shape, bool((std > reg.predictive(X).std("epistemic")[:, 0]).all())
    ((442,), True)

    Targets that are positive, with a long tail:

    >>> reg = SubnetLaplaceRegressor(target_transform="log", cv=None, random_state=0).fit(X, y)
    >>> bool((reg.predict_interval(X) > 0).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNetRegressor._parameter_constraints,
        **SubnetLaplace._parameter_constraints,
        "noise": [
            StrOptions({"auto", "constant", "input"}),
            Interval(Real, 0, None, closed="neither"),
            "array-like",
        ],
    }

    def __init__(
        self,
        net: Any = None,
        *,
        subnetwork_size: int | float | str = "auto",
        selection: Any = "greedy",
        reference: Any = "mixtures",
        candidates: Any = "weights",
        covariance: str = "full",
        prior_precision: float | str = "validation_1sd",
        noise: Any = "auto",
        normalize_y: bool = True,
        target_transform: Any = None,
        cv: Any = "auto",
        refit: bool = False,
        dtype: str = "float64",
        batch_size: int | None = None,
        validation_fraction: float = 0.2,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.net = net
        self.subnetwork_size = subnetwork_size
        self.selection = selection
        self.reference = reference
        self.candidates = candidates
        self.covariance = covariance
        self.prior_precision = prior_precision
        self.noise = noise
        self.normalize_y = normalize_y
        self.target_transform = target_transform
        self.cv = cv
        self.refit = refit
        self.dtype = dtype
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def _noise_kind(self) -> str:
        if self.noise == "auto":
            return "auto" if self._tabular is not None else "constant"
        return str(self.noise)
