"""Batches of a user's own dataset, with the weights of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset


class Recorded(Dataset[Any]):
    """A user's dataset that remembers which rows a batch was made of."""

    def __init__(self, dataset: Any, weights: Tensor) -> None:
        self.dataset, self.weights, self.fetched = dataset, weights, list[int]()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["dataset"], name)

    def __getitem__(self, index: int) -> Any:
        self.fetched.append(int(index))
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> Any:
        self.fetched.extend(int(index) for index in indices)
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(indices)
        return [self.dataset[index] for index in indices]

    def batches(self, net: Any, loader: Any) -> Iterator[Any]:
        """Yield the user's batches and leave the weights of each with the net."""
        self.fetched.clear()
        for batch in loader:
            if not self.fetched:
                raise ValueError(
                    "sample_weight needs batches that are read in this process; set "
                    "iterator_train__num_workers=0 on the net."
                )
            net.batch_weights_ = self.weights[self.fetched]
            self.fetched.clear()
            yield batch


class Reiterable:
    """Calls a generator function anew for each epoch."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __iter__(self) -> Iterator[Any]:
        return iter(self.function(*self.args))


def cast(x: Any, dtype: torch.dtype) -> Any:
    """Give a batch with every floating point tensor in it in ``dtype``."""
    return tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, x)
