"""The random numbers of a fit: one seeded stream, for our code and for code that we do not know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sksubnet.jacobian import Turn

TURN = Turn()
"""Whose turn it is to use the global random states, which belong to the process."""


class RandomStream:
    """Random numbers that go on from one step of a fit to the next.

    Our own code draws from ``generator``. Code that draws from the global random states of torch
    and NumPy finds the same stream there, inside ``everywhere``.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self._seed = seed
        self._numpy = np.random.RandomState(seed).get_state()
        self._cuda: list[Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "generator": self.generator.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, generator=torch.Generator())
        self.generator.set_state(state["generator"])

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[None]:
        """Be the global random states, and put these back as they were; threads take turns."""
        with TURN.lock, torch.random.fork_rng():
            before = np.random.get_state()
            with TURN.undone_by(partial(_set_states, before, torch.get_rng_state())):
                try:  # Ctrl-C may come in any line
                    if self._cuda is None:
                        torch.manual_seed(self._seed)  # of all devices
                    else:
                        torch.cuda.set_rng_state_all(self._cuda)
                    _set_states(self._numpy, self.generator.get_state())
                    yield
                finally:
                    try:
                        self._numpy = np.random.get_state()
                    finally:
                        np.random.set_state(before)
                    self.generator.set_state(torch.get_rng_state())
                    if torch.cuda.is_initialized():
                        self._cuda = torch.cuda.get_rng_state_all()

    @contextlib.contextmanager
    def around(self, *, known: bool) -> Iterator[torch.Generator]:
        """Give what to draw the order of rows from, around code that draws too unless it is known.

        Only known code runs beside that of other threads.
        """
        if known:
            yield self.generator
            return
        with self.everywhere():
            yield torch.default_generator


def _set_states(of_numpy: Any, of_torch: Tensor) -> None:
    np.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)
