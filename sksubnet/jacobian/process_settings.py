"""Settings of the whole process that some passes need, in several threads at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class SharedSetting:
    """A setting that the first thread to enter makes, and the last one to leave takes back.

    If every thread put back what it found, the second of two would put back the setting.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        self._setting, self._lock, self._n_inside = setting, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._made = self._setting()
                self._made.__enter__()
            self._n_inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
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
