"""Batches for training: cut from tensors for nets that load plainly, with weights for others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from skorch import NeuralNet
from skorch.dataset import Dataset
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Subset

from sksubnet.nets.criteria import BatchWeights
from sksubnet.nets.default import Tabular
from sksubnet.nets.modules import uncompiled
from sksubnet.nets.trained import Rows


class RowDataset(Dataset):
    """skorch's dataset over tensors, which ``RowLoader`` reads a batch at a time."""

    def __init__(
        self, rows: Rows, generator: torch.Generator, batch_weights: BatchWeights | None
    ) -> None:
        super().__init__(rows.X, rows.y)
        self.weights, self.generator, self.batch_weights = rows.weights, generator, batch_weights

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the inputs, which callbacks ask for."""
        return tuple(self.X.shape)

    def n_batches(self, batch_size: int, drop_last: bool) -> int:
        """Count the batches."""
        return _n_batches(len(self), batch_size, drop_last)

    def batches(self, batch_size: int, shuffle: bool, drop_last: bool) -> Iterator[Any]:
        """Yield ``(X, y)``, and leave the weights of each batch where there are any."""
        if shuffle:
            order = torch.randperm(len(self), generator=self.generator)
        else:
            order = torch.arange(len(self))
        for index in order.to(self.X.device).split(batch_size):
            if drop_last and len(index) < batch_size:
                continue
            if self.batch_weights is not None:
                self.batch_weights.leave(self.weights[index])
            yield self.X[index], self.y[index]
        if self.batch_weights is not None:
            self.batch_weights.clear()


@dataclass(frozen=True, eq=False)
class BlockedRows:
    """Many rows that are read a block at a time; of ``None`` there is nothing to train on.

    The ``sample`` stands for them where single rows are looked at. ``sizes`` has the number of rows
    of each block.
    """

    sample: Rows
    sizes: Sequence[int]
    read: Callable[[int], Rows | None]

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def weights(self) -> Tensor:
        """Weights of the sample."""
        return self.sample.weights

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the inputs of a row."""
        return self.sample.shape


class BlockDataset(RowDataset):
    """skorch's dataset over blocks: in an order at random, and so are the rows of each."""

    def __init__(
        self, rows: BlockedRows, generator: torch.Generator, batch_weights: BatchWeights | None
    ) -> None:
        super().__init__(rows.sample, generator, batch_weights)
        self.blocks = rows

    def __len__(self) -> int:
        return len(self.blocks)

    def n_batches(self, batch_size: int, drop_last: bool) -> int:
        """Count the batches, of all blocks."""
        return sum(
            _n_batches(size, self._within(size, batch_size), drop_last)
            for size in self.blocks.sizes
        )

    def batches(self, batch_size: int, shuffle: bool, drop_last: bool) -> Iterator[Any]:
        """Yield ``(X, y)``; a batch is of one block."""
        order = torch.arange(len(self.blocks.sizes))
        if shuffle:
            order = torch.randperm(len(order), generator=self.generator)
        for index in order.tolist():
            rows = self.blocks.read(index)
            if rows is None:
                continue
            block = RowDataset(rows, self.generator, self.batch_weights)
            yield from block.batches(self._within(len(rows), batch_size), shuffle, drop_last)

    def _within(self, n_rows: int, batch_size: int) -> int:
        """Size of the batches of a block; all rows at once, skorch's -1, are all of the block."""
        return n_rows if batch_size == len(self) else batch_size


def _n_batches(n_rows: int, batch_size: int, drop_last: bool) -> int:
    whole, rest = divmod(n_rows, batch_size) if n_rows else (0, 0)
    return whole if drop_last or not rest else whole + 1


class RowLoader:
    """Batches of a ``RowDataset``; what else a callback wants to read goes through torch's loader.

    It takes the place of the loaders of nets that use torch's with plain options.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        evaluates: bool = False,
        **options: Any,
    ) -> None:
        self.dataset, self.batch_size, self.evaluates = dataset, batch_size, evaluates
        self.shuffle, self.drop_last, self.options = shuffle, drop_last, options

    def __iter__(self) -> Iterator[Any]:
        how: dict[str, Any] = {
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }
        if isinstance(self.dataset, RowDataset):
            batches, weights = self.dataset.batches(**how), self.dataset.batch_weights
            return weights.beside(batches) if self.evaluates and weights is not None else batches
        return iter(DataLoader(self.dataset, **how, **self.options))

    def __len__(self) -> int:
        if isinstance(self.dataset, RowDataset):
            return self.dataset.n_batches(self.batch_size, self.drop_last)
        return _n_batches(len(self.dataset), self.batch_size, self.drop_last)


class WeightedDataset(torch.utils.data.Dataset[Any]):
    """A user's dataset that remembers which rows a batch was made of."""

    def __init__(self, dataset: Any, weights: Tensor, batch_weights: BatchWeights) -> None:
        self.dataset, self.weights, self.batch_weights = dataset, weights, batch_weights
        self.fetched = list[int]()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Any:
        self.fetched.append(int(index))
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> Any:
        self.fetched.extend(int(index) for index in indices)
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(indices)
        return [self.dataset[index] for index in indices]


class WeightedSkorchDataset(WeightedDataset, Dataset):
    """That of a dataset of skorch's kind, from which alone its scores take targets."""

    def transform(self, X: Any, y: Any) -> Any:
        """Transform a row as the user's dataset does."""
        return self.dataset.transform(X, y)


def with_weights(dataset: Any, weights: Tensor, batch_weights: BatchWeights) -> WeightedDataset:
    """Have a user's dataset remember which rows a batch was made of."""
    kind = WeightedSkorchDataset if isinstance(dataset, Dataset) else WeightedDataset
    return kind(dataset, weights, batch_weights)


class WeightedLoader:
    """A user's loader that leaves the weights of each batch of a ``WeightedDataset``."""

    def __init__(
        self, loader: Callable[..., Any], dataset: Any, *, evaluates: bool, **options: Any
    ) -> None:
        self.loader, self.dataset, self.evaluates = loader(dataset, **options), dataset, evaluates

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        dataset = self.dataset
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        if not isinstance(dataset, WeightedDataset):
            return iter(self.loader)
        batches = self._batches(dataset)
        return dataset.batch_weights.beside(batches) if self.evaluates else batches

    def _batches(self, dataset: WeightedDataset) -> Iterator[Any]:
        dataset.fetched.clear()
        for batch in self.loader:
            if not dataset.fetched:
                raise ValueError(
                    "sample_weight needs batches that are read in this process; set "
                    "iterator_train__num_workers=0 and iterator_valid__num_workers=0 on the net."
                )
            dataset.batch_weights.leave(dataset.weights[dataset.fetched])
            yield batch
            dataset.fetched.clear()  # of what a callback may have read, too
        dataset.batch_weights.clear()


def cast(x: Any, dtype: torch.dtype) -> Any:
    """Give a batch with every floating point tensor in it in ``dtype``."""
    return tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, x)


def cast_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype
) -> tuple[Any, Any] | None:
    """Forward pre-hook: a data set of the user's may give rows of another precision."""
    if not kwargs and len(args) == 1 and isinstance(args[0], Tensor) and args[0].dtype == dtype:
        return None
    return cast(args, dtype), cast(kwargs, dtype)


@contextlib.contextmanager
def inputs_cast(net: NeuralNet, dtype: torch.dtype) -> Iterator[None]:
    """Have the modules take rows of any precision for a while; the default net has one only."""
    hooks = []
    if not isinstance(net, Tabular):
        cast = partial(cast_inputs, dtype=dtype)
        modules = [getattr(net, f"{name}_") for name in net._modules]
        hooks = [
            module.register_forward_pre_hook(cast, with_kwargs=True)
            for module in map(uncompiled, modules)
            if isinstance(module, nn.Module)
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
