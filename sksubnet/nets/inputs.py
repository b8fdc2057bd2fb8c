"""The one way in for rows: what a net makes of an array, and what it returns for that.

A skorch net may read rows through a data set, a loader and a collate function of its own, and call
its modules in an ``infer`` of its own. What it sees in training is what every later step works on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetClassifier
from skorch.dataset import Dataset, unpack_data
from skorch.utils import to_tensor
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.data import DataLoader

from sksubnet.nets.loading import cast
from sksubnet.nets.modules import whole_module
from sksubnet.nets.trained import Latent

PLAIN_LOADER_OPTIONS = {"batch_size", "shuffle", "drop_last", "num_workers", "pin_memory"}

Inputs = Any
"""A tensor (N, ...), or a dict, list or tuple of tensors with the same number of rows."""


def latent_of(net: NeuralNet) -> Latent:
    """Return the function from the net's inputs to its latents."""
    plain = reads_plainly(net) and "infer" not in overridden(net) and net._modules == ["module"]
    return Latent(
        whole_module(net), gives_probabilities(net), None if plain else net, least_variance(net)
    )


def inputs_of(net: NeuralNet, rows: Tensor) -> Inputs:
    """Return what the net's ``infer`` is called with for rows (N, ...), in their dtype."""
    if reads_plainly(net):
        return rows
    dataset = readable(net, rows.cpu().numpy().copy())
    found = [
        cast(_with_plain_dict(to_tensor(x, device=rows.device)), rows.dtype)
        for x, _ in _batches(net, dataset)
    ]
    inputs = _joined(found)
    lengths = {len(leaf) for leaf in tree_leaves(inputs)}
    if lengths != {len(rows)}:
        raise ValueError(
            f"The net's data set or loader gave {sorted(lengths)} rows for {len(rows)}. It has to "
            f"give one for each, in their order; look at {', '.join(hooks(net))}."
        )
    return inputs


def readable(net: NeuralNet, X: np.ndarray) -> Any:
    """Return the net's data set of rows without targets, or with zeros where it insists on some."""
    try:
        # on a copy, for reading a row may change it
        net.get_dataset(X.copy())[0]
    except Exception:  # of a user's code, which may fail in any way
        return net.get_dataset(X, np.zeros(len(X), dtype=np.int64))
    return net.get_dataset(X)


def targets_of(net: NeuralNet, X: np.ndarray, y: np.ndarray) -> Any:
    """Return the targets (N, ...) that the net's data set makes of some."""
    batches = _batches(net, net.get_dataset(X.copy(), y.copy()))
    return _joined([to_tensor(targets, device="cpu") for _, targets in batches])


def reads_plainly(net: NeuralNet) -> bool:
    """Whether the net gives its module rows as they are, so that batches may replace its loader."""
    return (
        net.dataset is Dataset
        and not net.get_params_for("dataset")
        and net.iterator_valid is DataLoader
        and net.get_params_for("iterator_valid").keys() <= PLAIN_LOADER_OPTIONS
        and not {"get_dataset", "get_iterator"} & overridden(net)
    )


def gives_probabilities(net: NeuralNet) -> bool:
    """Whether the module's outputs are probabilities, of which skorch takes the logarithm."""
    return isinstance(net, NeuralNetClassifier) and isinstance(net.criterion_, nn.NLLLoss)


def least_variance(net: NeuralNet) -> float | None:
    """Return the least variance of a net whose module returns means and variances."""
    criterion = net.criterion_
    return float(criterion.eps) if isinstance(criterion, nn.GaussianNLLLoss) else None


def returns_pairs(net: NeuralNet) -> bool:
    """Whether the module returns a mean and a variance of each target."""
    criterion = net.criterion
    kind = criterion if isinstance(criterion, type) else type(criterion)
    return issubclass(kind, nn.GaussianNLLLoss)


def overridden(net: NeuralNet) -> set[str]:
    """Names of the methods of skorch's nets that the net's class replaces by its own."""
    known = {"skorch", "sksubnet", "sklearn", "builtins"}
    return {
        name
        for cls in type(net).__mro__
        if cls.__module__.partition(".")[0] not in known
        for name in vars(cls)
        if hasattr(NeuralNet, name) and not name.startswith("__")
    }


def hooks(net: NeuralNet) -> list[str]:
    """Names of what the net has of its own between rows and predictions."""
    names = set(overridden(net))
    names |= {"dataset"} if net.dataset is not Dataset else set()
    for loader in ("iterator_train", "iterator_valid"):
        names |= {loader} if getattr(net, loader) is not DataLoader else set()
        options = net.get_params_for(loader).keys() - PLAIN_LOADER_OPTIONS
        names |= {f"{loader}__{option}" for option in options}
    if net.predict_nonlinearity != "auto":
        names.add("predict_nonlinearity")
    return sorted(names) or ["the module", "the criterion"]


def _batches(net: NeuralNet, dataset: Any) -> Any:
    """Yield ``(x, y)`` from the net's loader, which draws nothing from the global random state."""
    loader = net.get_iterator(dataset, training=False)
    if isinstance(loader, DataLoader) and loader.generator is None:
        loader.generator = torch.Generator()
    return map(unpack_data, loader)


def _with_plain_dict(x: Any) -> Any:
    return dict(x) if isinstance(x, Mapping) else x


def _joined(batches: list[Any]) -> Any:
    """Join batches along their rows."""
    leaves, specs = zip(*map(tree_flatten, batches), strict=True)
    try:
        return tree_unflatten([torch.cat(parts) for parts in zip(*leaves, strict=True)], specs[0])
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"The batches of the net's loader cannot be joined ({error}). Its data set and collate "
            "function have to give tensors of the same shape for all rows but the last batch's "
            "size, for example with all rows padded to one length."
        ) from error
