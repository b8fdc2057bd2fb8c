"""What all classifiers share: labels, class weights, probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags, compute_class_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted

from sksubnet.estimators.base import BayesianNet, InitialNet, TrainedFold
from sksubnet.estimators.folds import Table
from sksubnet.estimators.table_errors import hints
from sksubnet.nets import (
    Rows,
    Schedule,
    TrainedNet,
    check_class_weights,
    check_classes,
    check_labels,
    check_net,
    has_logits,
)
from sksubnet.posterior import Curvature
from sksubnet.predictive import Bernoulli, Likelihood, Predictive, criterion_row_weights

Predict = TypeVar("Predict", bound=Callable[..., np.ndarray])


def of_rows_alone(predict: Predict) -> Predict:
    """Have ``predict`` say where the uncertainty is, if asked for it as a regressor is."""

    @functools.wraps(predict)
    def checked(self: BayesianNetClassifier, X: Any, **options: Any) -> np.ndarray:
        if options:
            raise TypeError(
                f"predict of {type(self).__name__} takes rows alone, without "
                f"{', '.join(options)}: classes have no standard deviation. Their uncertainty is "
                "in predict_proba(X), and in the entropy and mutual_information of predictive(X)."
            )
        return predict(self, X)

    return cast(Predict, checked)


class BayesianNetClassifier(ClassifierMixin, BayesianNet):
    """Labels in, class probabilities out; see ``BayesianNet``."""

    class_weight: Any
    _n_labels: int | None = None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNet._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        net = self.net
        while isinstance(net, BayesianNet):  # as member of an ensemble
            net = net.net
        tags.classifier_tags.multi_label = self._tabular is not None or has_logits(net)
        return tags

    def _start_fit(self, X: Any, y: Any, sample_weight: Any, groups: Any = None) -> Table:
        """Validate; labels as codes (N,), and their weights."""
        if _has_labels(y):
            return self._start_labels(X, y, sample_weight, groups)
        X, y = self._check_rows(X, y, reset=True)
        with hints("y"):
            check_classification_targets(y)
        weights = self._check_weights(sample_weight, X)
        self._n_labels = None
        self.classes_, codes = np.unique(y, return_inverse=True)
        self._class_weights = self._weights_of_classes(codes, weights)
        weights = weights * self._class_weights[codes]
        seen = self.classes_[np.unique(codes[weights > 0])].tolist()
        if len(seen) < 2:
            raise ValueError(
                f"y has only {len(seen)} class, {seen}, whose rows have a positive weight; a "
                "classifier needs rows of at least 2 classes with positive weight."
            )
        return self._table(X, codes, weights, groups)

    def _weights_of_classes(self, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weights (K,) of the classes; one whose rows all weigh nothing keeps its column."""
        by_class = np.ones(len(self.classes_))
        seen = np.unique(codes[weights > 0])
        if isinstance(self.class_weight, dict):
            for label, value in self.class_weight.items():
                if not isinstance(value, float | int | np.number) or not 0 <= value < np.inf:
                    raise ValueError(
                        f"class_weight has {value!r} for the class {label!r}; a weight of a class "
                        "is a finite number of at least 0."
                    )
            by_class[:] = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_[codes]
            )
        elif self.class_weight is not None:
            rows = weights > 0
            by_class[seen] = compute_class_weight(
                self.class_weight, classes=seen, y=codes[rows], sample_weight=weights[rows]
            )
        return by_class

    def _start_labels(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> Table:
        """Validate; several labels for each row as 0. or 1., (N, L), and the rows' weights."""
        X, y = self._check_rows(X, y, reset=True, multi_output=True)
        if self.class_weight is not None:
            raise ValueError(
                f"class_weight={self.class_weight!r} is for classes, but y has several labels for "
                "each row; use sample_weight."
            )
        labels = (y.toarray() if issparse(y) else np.asarray(y)).astype(np.float64)
        if not np.isin(labels, (0, 1)).all():
            found = ", ".join(f"{value:g}" for value in np.unique(labels)[:5])
            raise ValueError(
                f"y has {labels.shape[1]} columns of {found}: several labels for each row are "
                "columns of 0 and 1, and classes are one column, or one text for each row."
            )
        self._n_labels = labels.shape[1]
        self.classes_ = np.arange(self._n_labels)
        return self._table(X, labels, self._check_weights(sample_weight, X), groups)

    def _labels(self, y: np.ndarray) -> np.ndarray:
        """Labels as the user gave them, from what ``_start_fit`` made of them."""
        labels: np.ndarray = self.classes_[y] if self._n_labels is None else y.astype(np.int64)
        return labels

    def _new_rows(self, X: Any, y: Any, sample_weight: Any) -> Table:
        """Validate rows for an update; labels as codes, weighted as those of fit were."""
        if self._n_labels is not None:
            return self._new_labels(X, y, sample_weight, self._n_labels)
        X, y = self._check_rows(X, y, reset=False)
        weights = self._check_weights(sample_weight, X)
        table = Table.of(X, y, weights)
        codes_of = {label: code for code, label in enumerate(self.classes_.tolist())}
        labels = table.y.tolist()
        unknown = sorted({repr(label) for label in labels if label not in codes_of})
        if unknown:
            raise ValueError(
                f"y has labels that fit did not see, {', '.join(unknown[:5])}; the net has outputs "
                f"for {self.classes_.tolist()} only, so fit again with rows of all classes."
            )
        codes = np.array([codes_of[label] for label in labels])
        table = replace(table, y=codes, weights=table.weights * self._class_weights[codes])
        one_logit = isinstance(self._nets()[0].likelihood, Bernoulli)
        return table.with_targets(codes.astype(np.float64)) if one_logit else table

    def _new_labels(self, X: Any, y: Any, sample_weight: Any, n_labels: int) -> Table:
        """Validate rows for an update with several labels for each, (N, L)."""
        X, y = self._check_rows(X, y, reset=False, multi_output=True)
        labels = (y.toarray() if issparse(y) else np.asarray(y)).astype(np.float64)
        if labels.shape[1:] != (n_labels,) or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"y has shape {labels.shape}; give a matrix of 0 and 1 with the {n_labels} labels "
                "that fit saw."
            )
        return Table.of(X, labels, self._check_weights(sample_weight, X))

    def _start_net(
        self, table: Table, seed: int, schedule: Schedule | None
    ) -> tuple[InitialNet, Table]:
        """Prepare a net for the classes, and the targets in its criterion's type."""
        if self._n_labels is not None:
            return self._start_label_net(table, seed, schedule)
        n_classes = len(self.classes_)
        if self._tabular is not None:
            n_outputs = 1 if n_classes == 2 else n_classes
        else:
            check_net(self.net)
            n_outputs = 1 if has_logits(self.net) else n_classes
        task = "binary" if n_classes == 2 else "multiclass"
        initial = self._initial_net(table, task, n_outputs, seed, schedule)
        check_classes(initial.net, self.classes_)
        check_class_weights(initial.net, n_classes)
        criterion = type(initial.net.criterion_).__name__
        if initial.likelihood.task == "regression":
            raise ValueError(
                f"{criterion} is a regression loss; train a classifier's net with "
                "CrossEntropyLoss, NLLLoss or BCEWithLogitsLoss."
            )
        if initial.likelihood.task == "multilabel":
            raise ValueError(
                f"{criterion} needs a net with one output for classes, this one has "
                f"{initial.n_outputs}; use CrossEntropyLoss with one output for each class, or "
                "give y as 0 and 1 for each of several labels."
            )
        expected = 1 if isinstance(initial.likelihood, Bernoulli) else n_classes
        width = initial.n_outputs
        if width != expected or (expected == 1 and n_classes > 2):
            raise ValueError(
                f"The net has {width} outputs, but y has {n_classes} classes; "
                f"{criterion} needs {expected} outputs"
                + (" and 2 classes." if expected == 1 else ".")
            )
        return initial, table.with_targets(table.y.astype(np.float64)) if expected == 1 else table

    def _start_label_net(
        self, table: Table, seed: int, schedule: Schedule | None
    ) -> tuple[InitialNet, Table]:
        """Prepare a net with a logit for each label."""
        n_labels = table.y.shape[1]
        if self._tabular is None:
            check_net(self.net)
        initial = self._initial_net(table, "multilabel", n_labels, seed, schedule)
        check_labels(initial.net)
        criterion, width = type(initial.net.criterion_).__name__, initial.n_outputs
        if initial.likelihood.task != "multilabel" or width != n_labels:
            raise ValueError(
                f"y has {n_labels} labels for each row, but the net has {criterion} and {width} "
                f"outputs; train it with BCEWithLogitsLoss and {n_labels} outputs."
            )
        # Raises where labels have weights, which a likelihood of rows cannot have.
        criterion_row_weights(initial.net.criterion_, torch.as_tensor(table.y))
        return initial, table

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities, averaged over the posterior by the link.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``; rows sum to 1. Of several labels for each
            row, the probability (n_samples, n_labels) that each is there.
        """
        return np.concatenate([part.probabilities() for part in self._predictives(X)])

    @of_rows_alone
    def predict(self, X: Any) -> np.ndarray:
        """Most probable class of each row under :meth:`predict_proba`, or its probable labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels from ``classes_``; or 1 for each label of a probability above one half, else 0.
        """
        check_is_fitted(self)
        nets = self._fitted_nets()
        if len(nets) == 1 and nets[0].decides_by_sign:  # for which no Jacobian is needed
            there = (self._means(X) > 0).numpy().astype(np.int64)
        else:
            probabilities = self.predict_proba(X)
            is_multi_label = self._n_labels is not None
            best = probabilities.argmax(axis=1)[:, None]
            there = (probabilities > 0.5).astype(np.int64) if is_multi_label else best
        labels: np.ndarray = there if self._n_labels is not None else self.classes_[there[:, 0]]
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
        likelihood = self._nets()[0].likelihood
        probabilities: np.ndarray = likelihood.probabilities(self._maps(X)).mean(dim=0).numpy()
        return probabilities

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

    def _with_noise(self, nets: list[TrainedFold]) -> list[TrainedFold]:
        return nets

    def _in_units(self, predictive: Predictive) -> Predictive:
        return predictive

    def _tuned_noise(
        self, trained: TrainedNet, curvature: Curvature, scale: float
    ) -> tuple[Likelihood, float]:
        return trained.likelihood, curvature.log_likelihood

    def _log_units(self, rows: Rows) -> float:
        """Probabilities have no units."""
        return 0.0

    def _target_units(self) -> np.ndarray:
        """Logits are their own units."""
        return np.ones(1)


def _has_labels(y: Any) -> bool:
    """Whether the targets are several labels for each row; what they are not is told later."""
    try:
        return bool(type_of_target(y) == "multilabel-indicator")
    except (TypeError, ValueError):
        return False
