"""What all classifiers share: labels, class weights, probabilities."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets

from sksubnet.estimators.base import BayesianNet, with_positive_weight
from sksubnet.nets import TrainedNet, check_classes, check_net, output_width
from sksubnet.predictive import Bernoulli, Gaussian, Likelihood


class BayesianNetClassifier(ClassifierMixin, BayesianNet):
    """Labels in, class probabilities out; see ``BayesianNet``."""

    class_weight: Any

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNet._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def _start_fit(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, ...]:
        """Validate, encode labels and weights: X (N, ...), targets (N,), weights (N,)."""
        X, y = self._check_rows(X, y, reset=True)
        check_classification_targets(y)
        weights = self._check_weights(sample_weight, X)
        X, y, weights = with_positive_weight(X, y, weights)
        self.classes_, codes = np.unique(y, return_inverse=True)
        n_classes = len(self.classes_)
        if n_classes < 2:
            raise ValueError(
                f"y has only 1 class, {self.classes_.tolist()[0]!r}; a classifier needs rows of at "
                "least 2 classes with positive weight."
            )
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, y)
        return X, codes, weights

    def _start_net(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Prepare the net for the classes; return the targets in its criterion's type."""
        n_classes = len(self.classes_)
        if self.net is None:
            n_outputs = 1 if n_classes == 2 else n_classes
        else:
            check_net(self.net)
            n_outputs = output_width(self.net, n_classes)
        task = "binary" if n_classes == 2 else "multiclass"
        self._prepare_net(X, weights, task, n_outputs)
        check_classes(self.net_, self.classes_)
        if isinstance(self._likelihood, Gaussian):
            raise ValueError(
                f"{type(self.net_.criterion_).__name__} is a regression loss; train a classifier's "
                "net with CrossEntropyLoss, NLLLoss or BCEWithLogitsLoss."
            )
        expected = 1 if isinstance(self._likelihood, Bernoulli) else n_classes
        if self._n_latents != expected or (expected == 1 and n_classes > 2):
            raise ValueError(
                f"The net has {self._n_latents} outputs, but y has {n_classes} classes; "
                f"{type(self.net_.criterion_).__name__} needs {expected} outputs"
                + (" and 2 classes." if expected == 1 else ".")
            )
        return y.astype(np.float64) if expected == 1 else y

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities, averaged over the posterior by the link.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``; rows sum to 1.
        """
        return np.concatenate([part.probabilities() for part in self._predictives(X)])

    def predict(self, X: Any) -> np.ndarray:
        """Most probable class of each row under :meth:`predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels from ``classes_``.
        """
        best = self.predict_proba(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[best]
        return labels

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Log probabilities.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict_proba_map(self, X: Any) -> np.ndarray:
        """Class probabilities of the trained net alone, without any posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities at the MAP estimate, for comparison.
        """
        latents = self._map_latents(X)
        assert not isinstance(self._likelihood, Gaussian)
        return self._likelihood.probabilities(latents).numpy()

    def latent_mean_and_variance(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Moments of the logits under the posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        mean, variance : ndarray of shape (n_samples, n_outputs)
            One column for each output of the net (one logit for a binary net).
        """
        predictive = self.predictive(X)
        variance = predictive.covariance.diagonal(dim1=1, dim2=2)
        return predictive.mean.numpy(), variance.numpy().copy()

    def _noise_is_tuned(self) -> bool:
        return False

    def _with_noise(self, trained: TrainedNet) -> TrainedNet:
        return trained

    def _keep_likelihood(self, likelihood: Likelihood) -> None:
        self._likelihood = likelihood

    def _scale_noise(
        self, trained: TrainedNet, log_likelihood: float, n_rows: float, noise_scale: float
    ) -> float:
        return log_likelihood
