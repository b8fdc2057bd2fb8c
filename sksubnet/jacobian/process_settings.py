"""What belongs to the whole process, and is needed in several threads at once.

A process may be forked at any moment, and has then only the thread that forked: what others held or
had changed would stay so for ever.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class Turn:
    """A lock for work of one thread at a time: ``with turn.lock``; nobody has it after a fork.

    The work may take long, so that a fork does not wait for its end.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._undo: list[tuple[int, Callable[[], None]]] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    @contextmanager
    def undone_by(self, undo: Callable[[], None]) -> Iterator[None]:
        """Have a process that is forked meanwhile undo what this thread has changed."""
        depth = len(self._undo)
        try:
            self._undo.append((threading.get_ident(), undo))
            yield
        finally:
            del self._undo[depth:]

    def _renew(self) -> None:
        self.lock = threading.RLock()
        if self._undo and self._undo[0][0] != threading.get_ident():
            undo = self._undo[0][1]
            self._undo.clear()
            undo()


class SharedSetting:
    """A setting that the first thread to enter makes, and the last one to leave takes back.

    If every thread put back what it found, the second of two would put back the setting.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        self._setting, self._lock = setting, threading.Lock()
        self._inside: list[int] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=lambda: self._lock.acquire(),  # no setting is half made in the child
                after_in_parent=lambda: self._lock.release(),
                after_in_child=self._leave_others,
            )

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._made = self._setting()
                self._made.__enter__()
            self._inside.append(threading.get_ident())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside.remove(threading.get_ident())
            if not self._inside:
                self._made.__exit__(None, None, None)

    def _leave_others(self) -> None:
        """Take the threads out that a forked process does not have."""
        self._lock = threading.Lock()
        was_made, here = bool(self._inside), threading.get_ident()
        self._inside = [thread for thread in self._inside if thread == here]
        if was_made and not self._inside:
            self._made.__exit__(None, None, None)


@contextmanager
def _vmap_of_any_layer() -> Iterator[None]:
    """Attention by the kernel that vmap knows, and no warnings of slow ones."""
    with sdpa_kernel(SDPBackend.MATH), catch_warnings():
        filterwarnings("ignore", "There is a performance drop")
        yield


VMAP_OF_ANY_LAYER = SharedSetting(_vmap_of_any_layer)

# cuDNN's recurrent layers have no backward pass in eval mode.
WITHOUT_CUDNN = SharedSetting(lambda: torch.backends.cudnn.flags(enabled=False))
