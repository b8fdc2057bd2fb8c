"""Deep ensembles: a net trained from several starts (Lakshminarayanan et al., NeurIPS 2017)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sksubnet.baselines.ensemble import DeepEnsemble
from sksubnet.baselines.map import MAPClassifier, MAPRegressor
from sksubnet.estimators import BayesianNet, BayesianNetClassifier, BayesianNetRegressor
from sksubnet.predictive import pick_components


class DeepEnsembleClassifier(BayesianNetClassifier, DeepEnsemble):
    """Neural net classifiers from several random starts, averaged.

    Every member sees all rows; its initial weights and the order of its batches are its own [1]_.

    Parameters
    ----------
    net : skorch net, estimator or None, default=None
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
        ``random_state``.
    n_jobs : int or None, default=None
        Members that are fitted at once, each in a process of its own with a share of the cores;
        ``None`` is 1 unless in a :obj:`joblib.parallel_backend` context, -1 takes all cores.
    verbose : int, default=0
        Show a progress bar over the members.
    random_state : int, RandomState or None, default=None
        Seed of the members' seeds; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    estimators_ : list of estimators
        The fitted members.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features_in_,)
        Number of columns of ``X`` in ``fit``, and their names if they are strings.

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

    >>> member = SubnetLaplaceClassifier(subnetwork_size=50, prior_precision=1.0)
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

    def _targets_of_members(self, y: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.classes_[y]
        return labels


class DeepEnsembleRegressor(BayesianNetRegressor, DeepEnsemble):
    """Neural net regressors from several random starts, averaged.

    Every member sees all rows; its initial weights and the order of its batches are its own [1]_.
    Members have a constant noise of their own instead of the paper's noise output.

    Parameters
    ----------
    net : skorch net, estimator or None, default=None
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
    dtype : {"float64", "float32"}, default="float64"
        Floating point type of the net.
    validation_fraction : float in (0, 1), default=0.2
        Share of the rows held out for early stopping of the default net and for the noise. A skorch
        net with a ``train_split`` of its own uses that.
    memory : str, joblib.Memory or None, default=None
        Where to keep trained nets, so that the same training is done once. Needs an integer
        ``random_state``.
    n_jobs : int or None, default=None
        Members that are fitted at once, each in a process of its own with a share of the cores;
        ``None`` is 1 unless in a :obj:`joblib.parallel_backend` context, -1 takes all cores.
    verbose : int, default=0
        Show a progress bar over the members.
    random_state : int, RandomState or None, default=None
        Seed of the members' seeds; the global states of torch and NumPy stay as they are.

    Attributes
    ----------
    noise_std_ : float or ndarray of shape (n_targets,)
        Root of the mean noise variance of the members, in the units of the target.
    estimators_ : list of estimators
        The fitted members.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features_in_,)
        Number of columns of ``X`` in ``fit``, and their names if they are strings.

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

    def _targets_of_members(self, y: np.ndarray) -> np.ndarray:
        return self._shaped(y)

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
