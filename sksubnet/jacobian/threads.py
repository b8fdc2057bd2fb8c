"""How many threads torch works with: as many as the work is worth, and as the caller allows.

Every thread of a program has a number of its own, which OpenMP obeys. The one that was set last is
that of MKL and of threads that begin to use torch, whichever thread set it.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import nn

WORTH_A_THREAD = 2**26
"""Products of a weight and a row that are worth a thread more. With less to do, threads wait for
each other: where other programs use the cores, a hundred times as long as the work takes."""


class _Held:
    """Numbers of threads that are asked for now: by all threads, and by each."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.everywhere: dict[object, int] = {}
        self.found = 1
        self.here = threading.local()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=lambda: self.lock.acquire(),
                after_in_parent=lambda: self.lock.release(),
                after_in_child=self._leave_others,
            )

    @property
    def own(self) -> dict[object, int]:
        """Numbers that this thread asks for, the one that holds last."""
        if "asked" not in vars(self.here):
            self.here.asked = {}
        asked: dict[object, int] = self.here.asked
        return asked

    def ask(self, key: object, n_threads: int) -> None:
        with self.lock:
            own, now = self.own, torch.get_num_threads()
            if not own:
                # A thread that has not used torch yet has the number that others ask for.
                self.here.before = self.found if now in self.everywhere.values() else now
            if not self.everywhere:
                self.found = self.here.before
            own[key] = self.everywhere[key] = n_threads
            torch.set_num_threads(n_threads)

    def leave(self, key: object) -> None:
        with self.lock:
            own = self.own
            own.pop(key, None)  # another thread may end what this one has begun
            self.everywhere.pop(key, None)
            here = _last(own, self.here.before) if "before" in vars(self.here) else None
            if here is not None:
                torch.set_num_threads(here)
            of_process = _last(self.everywhere, self.found)
            if of_process != here:
                # By a thread that ends, for this one has its own.
                other = threading.Thread(target=torch.set_num_threads, args=(of_process,))
                other.start()
                other.join()

    def _leave_others(self) -> None:
        """Forget the threads that a forked process does not have."""
        self.lock = threading.Lock()
        others, self.everywhere = set(self.everywhere.values()), dict(self.own)
        if not self.everywhere:
            now = torch.get_num_threads()
            torch.set_num_threads(self.found if now in others else now)


def _last(asked: dict[object, int], before: int) -> int:
    return next(reversed(asked.values()), before)


_HELD = _Held()


@contextlib.contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use so many threads in this one, and put back what was found.

    Any number of threads may be inside, each with its own number.
    """
    key = object()
    try:
        _HELD.ask(key, n_threads)
        yield
    finally:
        _HELD.leave(key)


def products(module: nn.Module, n_rows: int, shape: Sequence[int]) -> int:
    """Count the products of weights and rows of this shape.

    A weight acts on a row as often as that may have steps or pixels.
    """
    places = math.prod(shape) // max(1, min(shape)) if len(shape) > 1 else 1
    return n_rows * places * sum(part.numel() for part in module.parameters())


@contextlib.contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Let torch use as many threads as the work is worth, and no more than it may already.

    ``work`` counts the products of weights and rows of a batch: see ``products``.
    """
    with torch_threads(max(1, min(torch.get_num_threads(), int(work / WORTH_A_THREAD)))):
        yield
