"""What all estimators share: validation, training, and batches of predictions."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral, Real
from pickle import PicklingError
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    check_memory,
    validate_data,
)
from torch import Tensor

from sksubnet.estimators.table_errors import check_range, hints
from sksubnet.nets import (
    Inputs,
    Latent,
    RandomStream,
    Rows,
    TrainedNet,
    Training,
    check_convergence,
    check_net,
    check_reading,
    content_hash,
    default_net,
    draws_nothing,
    fit_net,
    has_module_instance,
    hold_out,
    inputs_of,
    is_frozen,
    latent_of,
    learning_rates,
    load,
    prepare,
)
from sksubnet.predictive import (
    Gaussian,
    Likelihood,
    Predictive,
    criterion_row_weights,
    likelihood_of,
)

FORWARD_ROWS = 4096


class BayesianNet(MetaEstimatorMixin, BaseEstimator):
    """Base of all estimators: a skorch net, trained to its MAP estimate, with a ``Predictive``.

    Subclasses give ``fit`` and the hooks at the end of this class, in the units of the latents. Of
    these, all but ``_batch_predictive`` are for regressors only.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "net": "no_validation",
        "dtype": [StrOptions({"float32", "float64"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "memory": [str, HasMethods(["cache"]), None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    _is_fitted = False

    def __sklearn_is_fitted__(self) -> bool:
        # An interrupted fit leaves attributes behind, so their presence tells nothing.
        return self._is_fitted

    def _check_rows(self, X: Any, y: Any = "no_validation", *, reset: bool, **checks: Any) -> Any:
        """Validate: float64 ``X`` (and ``y``), with a hint on what to do where that fails."""
        if reset:
            checks["ensure_min_samples"] = 2
        with hints("X or y" if checks.get("y_numeric") else "X"):
            return validate_data(
                self,
                X,
                y,
                reset=reset,
                dtype=np.float64,
                allow_nd=self.net is not None,
                **checks,
            )

    def _check_weights(self, sample_weight: Any, X: np.ndarray) -> np.ndarray:
        """Non-negative weights (N,), ones if ``None``."""
        weights: np.ndarray = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        return weights

    def _prepare_net(self, X: np.ndarray, weights: np.ndarray, task: str, n_outputs: int) -> None:
        """Initialise a copy of the user's net or the default net, and check its width."""
        net = self.net
        if net is None:
            net = default_net(
                X,
                weights,
                task=task,
                validation_fraction=self.validation_fraction,
                dropout=getattr(self, "dropout", 0.0),
                verbose=self.verbose,
            )
        check_net(net)
        if has_module_instance(net):
            warnings.warn(
                "net.module is a module instance: every fit starts from its present weights, so "
                "trained weights leak between cross-validation folds. Pass the module's class, or "
                "FrozenEstimator(net) to keep a trained net.",
                UserWarning,
                stacklevel=5,
            )
        # What initialises the modules is not known, so it draws in turn with other threads.
        self._stream = RandomStream(self._seed)
        with self._stream.everywhere():
            self.net_ = prepare(
                net, n_features=X.shape[1], n_outputs=n_outputs, dtype=getattr(torch, self.dtype)
            )
        latent = self._latent
        latent.module.eval()
        try:
            with RandomStream(self._seed).everywhere(), torch.no_grad():
                # A copy, because a module may write into its inputs.
                self._n_latents = int(latent(self._inputs(X[:2].copy())).shape[1])
        except RuntimeError as error:
            raise ValueError(
                f"The net's module does not take rows of shape {X.shape[1:]}: {error}. Set its "
                "input width to that of X (net__module__...); an argument named n_features or "
                "input_dim is filled in by fit."
            ) from error
        self._likelihood: Likelihood = likelihood_of(self.net_.criterion_, self._n_latents)

    @property
    def _latent(self) -> Latent:
        return latent_of(self.net_)

    def _tensor(self, array: np.ndarray) -> Tensor:
        """Give rows as a tensor of the net's dtype on its device; read-only arrays are copied."""
        latent = self._latent
        writeable = np.require(array, requirements="W")
        inputs = torch.as_tensor(writeable, dtype=latent.dtype, device=latent.device)
        check_range(inputs, array)
        return inputs

    def _inputs(self, array: np.ndarray) -> Inputs:
        """Give rows as the net reads them."""
        return inputs_of(self.net_, self._tensor(array))

    def _rows(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Rows:
        """Rows as the net reads them, in its dtype and on its device."""
        return self._as_read(self._table(X, y, weights))

    def _as_read(self, rows: Rows) -> Rows:
        """Rows of a table as the net reads them."""
        return replace(rows, X=inputs_of(self.net_, rows.X))

    def _check_reading(self, X: np.ndarray, y: np.ndarray) -> None:
        """Refuse a net of the user's that does to rows or outputs what later steps would miss."""
        if self.net is not None:
            targets = None if is_frozen(self.net) else y[:8]
            check_reading(self.net_, self._tensor(X[:8].copy()), targets, self._likelihood)

    def _table(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Rows:
        """Rows as tensors on the net's device; floating point targets in its dtype."""
        inputs = self._tensor(X)
        targets = torch.as_tensor(y, device=inputs.device)
        if targets.is_floating_point():
            targets = targets.to(inputs.dtype)
        row_weights = torch.as_tensor(weights, device=inputs.device, dtype=inputs.dtype)
        return Rows(inputs, targets, row_weights)

    def _train(
        self, X: np.ndarray, y: np.ndarray, weights: np.ndarray, *, hold_out_needed: bool, seed: int
    ) -> TrainedNet:
        """Step 1: the MAP estimate, and the rows it was not trained on."""
        self._check_reading(X, y)
        rows = self._table(X, y, weights)
        train_index, held_index = hold_out(
            self.net_,
            X,
            y,
            fraction=self.validation_fraction,
            needed=hold_out_needed,
            stratify=not isinstance(self._likelihood, Gaussian),
            is_trained=is_frozen(self.net),
            seed=seed,
        )
        train = rows[train_index]
        held_out = rows[held_index] if len(held_index) else None
        del rows  # a copy of the data less during the training
        # What follows must not depend on whether the fit was made or recalled, so it draws anew.
        stream = self._take_stream()
        if not is_frozen(self.net):
            load(self.net_, self._fit_or_recall(train, held_out, seed, stream))
        train, held_out = self._as_read(train), held_out and self._as_read(held_out)
        latent = self._latent
        latent.module.eval()
        trained = TrainedNet(
            module=latent.module,
            latent=latent,
            likelihood=self._likelihood,
            n_outputs=self._n_latents,
            train=criterion_weighted(train, self.net_.criterion_),
            held_out=held_out and criterion_weighted(held_out, self.net_.criterion_),
            seed=seed,
            verbose=self.verbose,
            draws_nothing=draws_nothing(self.net_),
        )
        if not is_frozen(self.net):
            check_convergence(trained, self.net_.history, learning_rates(self.net_))
        return trained

    def _take_stream(self) -> RandomStream:
        """Random numbers to train with, after those of the initial weights."""
        stream: RandomStream = self.__dict__.pop("_stream")
        return stream

    def _fit_or_recall(
        self, train: Rows, held_out: Rows | None, seed: int, stream: RandomStream
    ) -> Training:
        """Train, or take the same fit's result from ``memory``."""
        memory = check_memory(self.memory)
        key = ""
        if memory.location is not None:
            if self.random_state is None:
                warnings.warn(
                    "memory recalls a trained net only for the same random_state; set it to an "
                    "integer.",
                    UserWarning,
                    stacklevel=5,
                )
            everything = (self.net_.get_params(), vars(train), held_out and vars(held_out), seed)
            try:
                key = content_hash(self.net, *everything)
            except PicklingError as error:
                raise ValueError(
                    f"memory needs a net whose parameters can be pickled ({error!s:.200}). Use "
                    "functions that are defined in a module instead of lambdas, or memory=None."
                ) from error
        fit = memory.cache(_fit_net, ignore=["net", "train", "held_out", "stream"])
        training: Training = fit(key, self.net_, train, held_out, stream)
        return training

    def _batches(self, X: Any, step: int | None = None) -> Iterator[Inputs]:
        """Validate rows and give them in batches, as the net reads them."""
        check_is_fitted(self)
        inputs = self._check_rows(X, reset=False)
        step = step or self._rows_per_batch()
        with torch_threads(self.n_jobs):
            for start in range(0, len(inputs), step):
                yield self._inputs(inputs[start : start + step])

    def _predictives(self, X: Any) -> Iterator[Predictive]:
        """Predictive values of consecutive batches of rows, in the units of the target."""
        return map(self._batch_predictive, self._batches(X))

    def _map_latents(self, X: Any) -> Tensor:
        """Latents (N, C) at the MAP: one forward pass."""
        with torch.inference_mode():
            batches = self._batches(X, FORWARD_ROWS)
            return torch.cat([self._latent(batch).double().cpu() for batch in batches])

    def predictive(self, X: Any) -> Predictive:
        """Predictive distribution of rows, with its parts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        Predictive
            Value with ``probabilities``, ``entropy`` and ``mutual_information`` (classifiers), or
            ``std``, ``interval`` and ``quantiles`` (regressors), in the units of the target.
        """
        return Predictive.stack(list(self._predictives(X)))

    def _rows_per_batch(self) -> int:
        return FORWARD_ROWS

    def _batch_predictive(self, X: Tensor) -> Predictive:
        """Predictive of a batch."""
        raise NotImplementedError

    def _means(self, X: Any) -> Tensor:
        """Predictive mean (N, C)."""
        raise NotImplementedError

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        """Mean (N, C) and covariance between the rows (C, N, N)."""
        raise NotImplementedError

    def _draw_functions(self, X: Any, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draws (N, C, n_samples) of functions, each over all rows."""
        raise NotImplementedError


def _fit_net(
    key: str, net: Any, train: Rows, held_out: Rows | None, stream: RandomStream
) -> Training:
    """Cacheable training: ``key`` stands for the content of everything else."""
    return fit_net(net, train, held_out, stream)


def criterion_weighted(rows: Rows, criterion: torch.nn.Module) -> Rows:
    """Rows whose weights include the class weights of the criterion."""
    class_weights = criterion_row_weights(criterion, rows.y)
    if class_weights is None:
        return rows
    return Rows(rows.X, rows.y, rows.weights * class_weights.to(rows.weights.dtype))


def with_positive_weight(X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[Any, ...]:
    """Drop rows of weight zero, without a copy where there are none."""
    positive = weights > 0
    return (X, y, weights) if positive.all() else (X[positive], y[positive], weights[positive])


def draw_seed(random_state: Any) -> int:
    """One integer seed for everything random in a fit."""
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextlib.contextmanager
def torch_threads(n_jobs: int | None) -> Iterator[None]:
    """Let torch use ``n_jobs`` threads; ``None`` leaves its setting, -1 takes all cores."""
    if n_jobs is None:
        yield
        return
    if n_jobs == 0:
        raise ValueError("n_jobs=0 is no number of threads; use 1 or more, -1 for all, or None.")
    before = torch.get_num_threads()
    torch.set_num_threads(n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)
