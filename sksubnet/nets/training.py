"""The only file that knows skorch: prepare a net, hold rows out, train it."""

from __future__ import annotations

import copy
import dis
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from skorch.utils import noop
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sksubnet.nets.loading import Recorded, Reiterable, cast
from sksubnet.nets.tabular import TabularMLP, robust_scale
from sksubnet.nets.trained import Rows
from sksubnet.nets.widths import named_widths

MIN_ROWS_TO_HOLD_OUT = 100
PLAIN_LOADER_OPTIONS = {"batch_size", "shuffle", "drop_last", "num_workers", "pin_memory"}


def default_net(
    X: np.ndarray,
    weights: np.ndarray,
    *,
    task: str,
    validation_fraction: float,
    dropout: float = 0.0,
    verbose: int,
) -> NeuralNet:
    """Build the net for tables: scaled and clipped inputs, two SiLU layers, AdamW.

    With enough rows it stops early on held-out rows and keeps the best weights; fewer are one
    batch. Settled by ``examples/benchmarks/tabular_study.py``.
    """
    enough = len(X) >= MIN_ROWS_TO_HOLD_OUT
    center, scale = robust_scale(X, weights)
    kind, criterion = {
        "binary": (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss),
        "multiclass": (NeuralNetClassifier, nn.CrossEntropyLoss),
        "regression": (NeuralNetRegressor, nn.MSELoss),
    }[task]
    stop = [("early_stopping", EarlyStopping(patience=15, load_best=True, sink=noop))]
    split = ValidSplit(validation_fraction, stratified=task != "regression")
    quiet = {"callbacks__print_log": None} if verbose <= 0 else {}
    no_scores = {"callbacks__valid_acc": None} if task != "regression" else {}
    return kind(
        TabularMLP,
        module__center=center,
        module__scale=scale,
        module__dropout=dropout,
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=1e-2,
        optimizer__fused=True,
        lr=5e-3,
        batch_size=min(max(len(X) // 8, 32), 512) if enough else MIN_ROWS_TO_HOLD_OUT,
        iterator_train__shuffle=True,
        max_epochs=300,
        train_split=split if enough else None,
        callbacks=stop if enough else None,
        verbose=verbose,
        **quiet | no_scores,
    )


def is_frozen(net: Any) -> bool:
    """Whether the net is given as already fitted."""
    return isinstance(net, FrozenEstimator)


def check_net(net: Any) -> None:
    """Raise unless ``net`` is a skorch net, or a fitted one in a ``FrozenEstimator``."""
    inner = net.estimator if is_frozen(net) else net
    if not isinstance(inner, NeuralNet):
        raise TypeError(
            f"net={inner!r:.80} is of type {type(inner).__name__}; pass a skorch net such as "
            "NeuralNetClassifier(Module), FrozenEstimator(fitted_net), or None for the default."
        )
    if is_frozen(net) and not getattr(inner, "initialized_", False):
        raise ValueError("The net inside FrozenEstimator is not fitted; fit it first.")


def gives_probabilities(net: NeuralNet) -> bool:
    """Whether the module's outputs are probabilities, of which skorch takes the logarithm."""
    return isinstance(net, NeuralNetClassifier) and isinstance(net.criterion_, nn.NLLLoss)


def output_width(net: Any, n_classes: int) -> int:
    """Count the outputs that a classification net needs: one logit under a binary criterion."""
    criterion = (net.estimator if is_frozen(net) else net).criterion
    binary = criterion is nn.BCEWithLogitsLoss or isinstance(criterion, nn.BCEWithLogitsLoss)
    return 1 if binary else n_classes


def has_module_instance(net: Any) -> bool:
    """Whether the net's module is an instance, which clones with its trained weights."""
    return isinstance(net, NeuralNet) and isinstance(net.module, nn.Module)


def prepare(net: Any, *, n_features: int, n_outputs: int, dtype: torch.dtype) -> NeuralNet:
    """Copy a net, fill in the widths its module asks for, initialise it in ``dtype``."""
    if is_frozen(net):
        fitted = copy.deepcopy(net.estimator)
        fitted.module_.to(dtype)
        return fitted
    net = clone(net)
    net.set_params(**named_widths(net, n_features, n_outputs))
    net.__class__ = type(type(net).__name__, (_Training, type(net)), {"dtype_": dtype})
    if isinstance(net, NeuralNetClassifier):
        net.classes_inferred_ = np.arange(n_outputs)
    return net.initialize()


def hold_out(
    net: NeuralNet, y: np.ndarray, *, fraction: float, needed: bool, stratify: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out; the net's own split decides where it has one."""
    everything, split = (np.arange(len(y)), np.arange(0)), net.train_split
    if not needed and not isinstance(net, _Training):
        return everything  # a trained net has no use for its split
    if isinstance(split, ValidSplit) and isinstance(split.cv, int | float):
        # skorch would take the first rows, which breaks sorted data: same share, but shuffled.
        share = split.cv if split.cv < 1 else 1 / split.cv
        return _shuffled_split(y, share, stratify and split.stratified, seed)
    if _splits_rows(split):
        dataset = net.get_dataset(np.empty((len(y), 1)), y)
        train, valid = split(dataset, y)
        if isinstance(train, Subset) and isinstance(valid, Subset):
            return np.asarray(train.indices), np.asarray(valid.indices)
    if needed and len(y) >= MIN_ROWS_TO_HOLD_OUT:
        return _shuffled_split(y, fraction, stratify, seed)
    return everything


def fit_net(
    net: NeuralNet, train: Rows, held_out: Rows | None
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Train an initialised net in place; return its state by name and its history."""
    original_split = net.train_split
    weighted = bool((train.weights != 1).any())
    if _loads_plainly(net):
        dataset: Any = RowDataset(train, weighted)
        valid: Any = None if held_out is None else RowDataset(held_out, weighted)
    else:
        dataset = _user_dataset(net, train, weighted)
        valid = None if held_out is None else _user_dataset(net, held_out, weighted)
    if _splits_rows(original_split) and held_out is not None:
        net.train_split = predefined_split(valid)
    try:
        net.partial_fit(dataset)
        if net.interrupted_:
            raise KeyboardInterrupt("training was interrupted; the estimator is not fitted")
    finally:
        net.train_split = original_split
        net.batch_weights_ = None
    state = {name: value.cpu().numpy() for name, value in net.module_.state_dict().items()}
    return state, net.history.to_list()


def finish(net: NeuralNet, state: Mapping[str, np.ndarray], history: list[Any]) -> None:
    """Put the trained state into the net and give it back its own class."""
    net.module_.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    net.module_.eval()
    net.history = type(net.history)(history)
    net.__class__ = type(net).__mro__[2]
    for name in ("batch_weights_", "interrupted_"):
        net.__dict__.pop(name, None)


def learning_rates(net: NeuralNet) -> str:
    """Learning rates that training started with, before any schedule, in words."""
    groups = [g for name in net._optimizers for g in getattr(net, f"{name}_").param_groups]
    rates = {float(group.get("initial_lr", group.get("lr", net.lr))) for group in groups}
    return "lr=" + ", ".join(map(str, sorted(rates)))


class RowDataset(Dataset):
    """skorch's dataset over tensors, read a batch at a time."""

    def __init__(self, rows: Rows, weighted: bool) -> None:
        super().__init__(rows.X, rows.y)
        self.weights = rows.weights if weighted else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the inputs, which callbacks ask for."""
        return tuple(self.X.shape)

    def batches(self, net: NeuralNet, batch_size: int, shuffle: bool, drop_last: bool) -> Any:
        """Yield ``(X, y)`` and leave the weights of the batch with the net."""
        order = torch.randperm(len(self)) if shuffle else torch.arange(len(self))
        for index in order.to(self.X.device).split(batch_size):
            if not (drop_last and len(index) < batch_size):
                net.batch_weights_ = None if self.weights is None else self.weights[index]
                yield self.X[index], self.y[index]


class _Training(NeuralNet):
    """What a net does differently while it is being fitted: dtype, weights, fast batches."""

    dtype_: torch.dtype
    batch_weights_: Tensor | None = None
    interrupted_ = False

    def initialize_module(self) -> NeuralNet:
        super().initialize_module()
        self.module_.to(self.dtype_)
        return self

    def initialize_criterion(self) -> NeuralNet:
        super().initialize_criterion()
        if isinstance(self.criterion_, nn.Module):
            self.criterion_.to(self.dtype_)
        return self

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        loader = super().get_iterator(dataset, training)
        if isinstance(dataset, RowDataset):
            shuffle = isinstance(loader.sampler, torch.utils.data.RandomSampler)
            arguments = (self, loader.batch_size, shuffle, loader.drop_last)
            return Reiterable(dataset.batches, *arguments)
        if isinstance(dataset, Recorded):
            return Reiterable(dataset.batches, self, loader)
        return loader

    def _set_training(self, training: bool = True) -> None:
        # In a small net, a walk through all layers before every batch takes as long as they do.
        parts = (getattr(self, f"{name}_") for name in self._modules + self._criteria)
        if any(getattr(part, "training", training) != training for part in parts):
            super()._set_training(training)

    def infer(self, x: Any, **fit_params: Any) -> Any:
        # A data set of the user's may give rows of another precision.
        return super().infer(cast(x, self.dtype_), **fit_params)

    def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Any:
        if isinstance(y_pred, Tensor) and y_true.is_floating_point():
            y_true = y_true.to(y_pred.dtype).reshape(y_pred.shape)
        weights = self.batch_weights_
        if weights is None:
            return super().get_loss(y_pred, y_true, X=X, training=training)
        reduction = self.criterion_.reduction
        self.criterion_.reduction = "none"
        try:
            losses = super().get_loss(y_pred, y_true, X=X, training=training)
        finally:
            self.criterion_.reduction = reduction
        if losses.ndim == 0:
            raise ValueError(
                "sample_weight needs one loss per row, but the net's get_loss returned a single "
                "number with reduction='none'. Fit without sample_weight, or return row losses."
            )
        losses = losses.reshape(len(weights), -1)
        if reduction == "sum":
            return (weights * losses.sum(dim=1)).sum()
        class_weights = getattr(self.criterion_, "weight", None)
        if class_weights is not None and not y_true.is_floating_point():
            return (weights * losses.mean(dim=1)).sum() / (weights * class_weights[y_true]).sum()
        return (weights * losses.mean(dim=1)).sum() / weights.sum()

    def fit_loop(self, *args: Any, **kwargs: Any) -> NeuralNet:
        try:
            return super().fit_loop(*args, **kwargs)
        except KeyboardInterrupt as stop:
            # Callbacks stop training by the same exception that a user's Ctrl-C raises.
            self.interrupted_ = not _raised_by_callback(stop)
            raise


def _splits_rows(split: Any) -> bool:
    """Whether a net's split cuts the training rows, rather than bringing a data set of its own."""
    return split is not None and "valid_ds" not in getattr(split, "keywords", ())


def _raised_by_callback(stop: KeyboardInterrupt) -> bool:
    """Whether a callback raised this itself, rather than met a Ctrl-C at work."""
    trace = stop.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(trace.tb_frame.f_locals.get("self"), Callback):
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _loads_plainly(net: NeuralNet) -> bool:
    """Whether the net reads rows the way skorch does by default, so that batches may replace it."""
    options = set(net.get_params_for("iterator_train")) | set(net.get_params_for("iterator_valid"))
    loaders = {net.iterator_train, net.iterator_valid}
    return net.dataset is Dataset and loaders == {DataLoader} and options <= PLAIN_LOADER_OPTIONS


def _user_dataset(net: NeuralNet, rows: Rows, weighted: bool) -> Any:
    # A data set of the user's may change what it is given.
    dataset = net.get_dataset(rows.X.cpu().numpy().copy(), rows.y.cpu().numpy().copy())
    return Recorded(dataset, rows.weights) if weighted else dataset


def _shuffled_split(
    y: np.ndarray, share: float, stratify: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers at random, by class where every class has rows for both parts."""
    index = np.arange(len(y))
    n_held = min(max(1, round(share * len(y))), len(y) - 1)
    if stratify:
        counts = np.unique(y, return_counts=True)[1]
        stratify = counts.min() >= 2 and min(n_held, len(y) - n_held) >= len(counts)
    train, held = train_test_split(
        index, test_size=n_held, random_state=seed, stratify=y if stratify else None
    )
    return np.sort(train), np.sort(held)
