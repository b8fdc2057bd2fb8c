"""Training a user's net by skorch: prepare it, hold rows out, run its epochs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNet
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import DataLoader, Subset

from sksubnet.jacobian import products, threads_for
from sksubnet.nets.criteria import BatchWeights, with_row_weights
from sksubnet.nets.default import MIN_ROWS_TO_HOLD_OUT, draws_nothing
from sksubnet.nets.epochs import EpochTasks
from sksubnet.nets.guard import check_threshold
from sksubnet.nets.inputs import PLAIN_LOADER_OPTIONS, hooks, overridden
from sksubnet.nets.interruption import fit_until_stopped
from sksubnet.nets.keeping import keepable_copy
from sksubnet.nets.loading import (
    BlockDataset,
    BlockedRows,
    RowDataset,
    RowLoader,
    WeightedLoader,
    inputs_cast,
    with_weights,
)
from sksubnet.nets.modules import Training, outcome, settle, whole_module
from sksubnet.nets.randomness import RandomStream
from sksubnet.nets.tabular import masks_drawn_from
from sksubnet.nets.trained import Rows
from sksubnet.nets.widths import named_widths, with_widths
from sksubnet.predictive import Bernoulli, MultiLabel


def is_frozen(net: Any) -> bool:
    """Whether the net is given as already fitted."""
    return isinstance(net, FrozenEstimator)


def is_fitted(net: Any) -> bool:
    """Whether a net of skorch has weights."""
    return bool(getattr(net, "initialized_", False))


def check_net(net: Any) -> None:
    """Raise unless ``net`` is a skorch net, or a fitted one in a ``FrozenEstimator``."""
    inner = net.estimator if is_frozen(net) else net
    if not isinstance(inner, NeuralNet):
        raise TypeError(
            f"net={inner!r:.80} is of type {type(inner).__name__}; pass a skorch net such as "
            "NeuralNetClassifier(Module), FrozenEstimator(fitted_net), or None for the default."
        )
    check_threshold(inner)
    if is_frozen(net) and not is_fitted(inner):
        raise ValueError("The net inside FrozenEstimator is not fitted; fit it first.")


def criterion_of(net: Any) -> Any:
    """Return the criterion that a net trains with, before it is initialised."""
    if is_frozen(net):
        return net.estimator.criterion_
    with RandomStream(0).everywhere():
        net = clone(net)
        net._initialize_criterion()
    return net.criterion_


def has_logits(net: Any) -> bool:
    """Whether the outputs are logits: one for two classes, or one for each of several labels."""
    try:
        criterion = criterion_of(net)
    except Exception:  # of what is no net, which is for its check to tell
        return False
    declared = getattr(criterion, "likelihood", None)
    return isinstance(criterion, nn.BCEWithLogitsLoss) or isinstance(
        declared, Bernoulli | MultiLabel
    )


def has_module_instance(net: Any) -> bool:
    """Whether the net's module is an instance, which clones with its trained weights."""
    return isinstance(net, NeuralNet) and isinstance(net.module, nn.Module)


def prepare(net: Any, rows: np.ndarray, *, n_outputs: int, dtype: torch.dtype) -> NeuralNet:
    """Copy a net, fill in the widths its module asks for, initialise it in ``dtype``.

    ``rows`` (2, ...) are some to try widths on.
    """
    if is_frozen(net):
        net = keepable_copy(net.estimator)
        settle(net, dtype)
        return net
    net = clone(net)
    widths = named_widths(net, rows, n_outputs, dtype) if _initialises_its_module(net) else {}
    return with_widths(net, widths, n_outputs, dtype)


def _initialises_its_module(net: NeuralNet) -> bool:
    """Whether the net's ``module`` is what it trains, rather than modules made in its class."""
    if "initialize_module" not in overridden(net):
        return True
    with RandomStream(0).everywhere():
        try:
            return "module" in clone(net).initialize()._modules
        except Exception:  # without the widths, which it therefore needs
            return True


def hold_out(
    net: NeuralNet,
    X: np.ndarray,
    y: np.ndarray,
    *,
    fraction: float,
    needed: bool,
    stratify: bool,
    seed: int,
    is_trained: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out; the net's own split decides where it has one."""
    everything, split = (np.arange(len(y)), np.arange(0)), net.train_split
    if not needed and is_trained:
        return everything  # a trained net has no use for its split
    if isinstance(split, ValidSplit) and isinstance(split.cv, int | float):
        # skorch would take the first rows, which breaks sorted data: same share, but shuffled.
        share = split.cv if split.cv < 1 else 1 / split.cv
        return _shuffled_split(y, share, stratify and split.stratified, seed)
    if _splits_rows(split):
        train, valid = split(net.get_dataset(X.copy(), y.copy()), y)
        if isinstance(train, Subset) and isinstance(valid, Subset):
            return np.asarray(train.indices), np.asarray(valid.indices)
    if needed and len(y) >= MIN_ROWS_TO_HOLD_OUT:
        return _shuffled_split(y, fraction, stratify, seed)
    return everything


def trains_in_blocks(net: Any) -> bool:
    """Whether a net of the user's can be trained on rows that are read a block at a time."""
    if not isinstance(net, NeuralNet) or not _loads_plainly(net):
        return False
    split = net.train_split
    shares = isinstance(split, ValidSplit) and isinstance(split.cv, int | float)
    return shares or not _splits_rows(split)


def held_out_share(net: NeuralNet) -> float | None:
    """Share of the rows that a net holds out to stop on; ``None`` where it holds out none."""
    split = net.train_split
    if isinstance(split, ValidSplit) and isinstance(split.cv, int | float):
        return split.cv if split.cv < 1 else 1 / split.cv
    if _splits_rows(split):
        raise ValueError(
            "The net's train_split needs all rows in one place; for rows in blocks use a share of "
            "them, such as ValidSplit(0.2), or train_split=None."
        )
    return None


def fit_net(
    net: NeuralNet, train: Rows | BlockedRows, held_out: Rows | None, stream: RandomStream
) -> Training:
    """Train an initialised net in place, with its own loss, optimiser, callbacks and loaders.

    What training needs of ours is lent to the net and taken back: see ``_lent``.
    """
    weighted = bool((train.weights != 1).any())
    weights = BatchWeights()
    with stream.around(known=draws_nothing(net)) as generator, contextlib.ExitStack() as loans:
        if _loads_plainly(net):
            loaders: Any = {
                "iterator_train": RowLoader,
                "iterator_valid": partial(RowLoader, evaluates=True),
            }
            of_rows: Any = partial(
                RowDataset, generator=generator, batch_weights=weights if weighted else None
            )
        elif isinstance(train, BlockedRows):
            raise ValueError(
                "Rows in blocks are for nets that read rows as skorch does by default, but this "
                f"one has {', '.join(hooks(net))} of its own. Train it first, and pass "
                "FrozenEstimator(net)."
            )
        else:
            loaders = {}
            of_rows = partial(_user_dataset, net)
            if weighted:
                of_rows = partial(_weighted_user_dataset, net, weights)
                for name, evaluates in (("iterator_train", False), ("iterator_valid", True)):
                    loader = getattr(net, name)
                    loaders[name] = partial(WeightedLoader, loader, evaluates=evaluates)
        loans.enter_context(threads_for(_work_of_batch(net, train)))
        if isinstance(train, BlockedRows):
            dataset = BlockDataset(train, generator, weights if weighted else None)
        else:
            dataset = of_rows(train)
        to_split = None
        if _splits_rows(net.train_split):
            if held_out is not None:
                loaders["train_split"] = predefined_split(of_rows(held_out))
            elif isinstance(train, Rows):
                to_split = train.y.cpu().numpy()
        callbacks = [*net.callbacks_, ("epoch_tasks", EpochTasks())]
        loans.enter_context(_lent(net, callbacks_=callbacks, **loaders))
        net.notify("on_train_begin", X=dataset, y=None)
        settle(net, train.weights.dtype)  # a callback may have made the module anew
        loans.enter_context(_lent(net, **_compiled(net), **_weighing(net, weights)))
        loans.enter_context(inputs_cast(net, train.weights.dtype))
        loans.enter_context(masks_drawn_from(whole_module(net), generator))
        fit_until_stopped(net, dataset, to_split)
        net.notify("on_train_end", X=dataset, y=None)
    if weighted and not weights.were_left:
        raise ValueError(
            "sample_weight needs the net's own loaders and rows, but its get_iterator or "
            "get_split_datasets takes others, so the weights had no effect. Fit without "
            "sample_weight."
        )
    return outcome(net)


def _work_of_batch(net: NeuralNet, rows: Rows | BlockedRows) -> int:
    """Count the products of weights and rows of a batch."""
    n_rows = len(rows) if net.batch_size == -1 else min(net.batch_size, len(rows))
    return products(whole_module(net), n_rows, rows.shape)


@contextlib.contextmanager
def _lent(net: NeuralNet, **attributes: Any) -> Iterator[None]:
    """Set attributes of the net for a while."""
    own = {name: getattr(net, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(net, name, value)
        yield
    finally:
        for name, value in own.items():
            setattr(net, name, value)


def _compiled(net: NeuralNet) -> dict[str, Any]:
    """Modules that train compiled, where the net asks for that."""
    if not getattr(net, "compile", False):
        return {}
    modules = {name: getattr(net, f"{name}_") for name in net._modules}
    return {f"{name}_": net.torch_compile(part, name=name) for name, part in modules.items()}


def _weighing(net: NeuralNet, weights: BatchWeights) -> dict[str, Any]:
    """Criterion that shapes targets, and weights the rows of a batch."""
    return {"criterion_": with_row_weights(net.criterion_, weights)}


def learning_rates(net: NeuralNet) -> str:
    """Learning rates that training started with, before any schedule, in words."""
    groups = [g for name in net._optimizers for g in getattr(net, f"{name}_").param_groups]
    rates = {float(group.get("initial_lr", group.get("lr", net.lr))) for group in groups}
    return "lr=" + ", ".join(map(str, sorted(rates)))


def _splits_rows(split: Any) -> bool:
    """Whether a net's split cuts the training rows, rather than bringing a data set of its own."""
    return split is not None and "valid_ds" not in getattr(split, "keywords", ())


def _loads_plainly(net: NeuralNet) -> bool:
    """Whether the net reads rows the way skorch does by default, so that batches may replace it."""
    if {"get_dataset", "get_iterator", "get_split_datasets"} & overridden(net):
        return False
    options = set(net.get_params_for("iterator_train")) | set(net.get_params_for("iterator_valid"))
    loaders = {net.iterator_train, net.iterator_valid}
    return net.dataset is Dataset and loaders == {DataLoader} and options <= PLAIN_LOADER_OPTIONS


def _user_dataset(net: NeuralNet, rows: Rows) -> Any:
    """Return the net's own data set of copied rows, for nobody knows what it does with them."""
    return net.get_dataset(rows.X.cpu().numpy().copy(), rows.y.cpu().numpy().copy())


def _weighted_user_dataset(net: NeuralNet, batch_weights: BatchWeights, rows: Rows) -> Any:
    return with_weights(_user_dataset(net, rows), rows.weights, batch_weights)


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
