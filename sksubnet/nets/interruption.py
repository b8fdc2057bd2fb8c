"""Training that a callback may stop, and that a user may interrupt: skorch has one signal for both.

skorch's callbacks end training by a ``KeyboardInterrupt``, which is what Ctrl-C raises.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from skorch import NeuralNet


def fit_until_stopped(net: NeuralNet, dataset: Any, y: Any = None) -> None:
    """Run the epochs of an initialised net; what interrupts them goes on to the caller.

    ``y`` are the targets where the net's own split asks for them.
    """
    with _noticing_ctrl_c() as pressed:
        try:
            net.fit_loop(dataset, y)
        except KeyboardInterrupt as stop:
            if not _raised_in_notify(stop) or any(error in pressed for error in _causes(stop)):
                raise


@contextlib.contextmanager
def _noticing_ctrl_c() -> Iterator[list[BaseException]]:
    """Collect the exceptions that the user's Ctrl-C raises, with the handler that is installed."""
    pressed: list[BaseException] = []
    previous = signal.getsignal(signal.SIGINT)
    if not callable(previous) or threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def notice(number: int, frame: FrameType | None) -> None:
        try:
            previous(number, frame)
        except KeyboardInterrupt as error:
            pressed.append(error)
            raise

    signal.signal(signal.SIGINT, notice)
    try:
        yield pressed
    finally:
        # A handler that was installed meanwhile stays.
        if signal.getsignal(signal.SIGINT) is notice:
            signal.signal(signal.SIGINT, previous)


def _raised_in_notify(stop: BaseException) -> bool:
    """Whether the exception comes out of a callback."""
    trace = stop.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is NeuralNet.notify.__code__:
            return True
        trace = trace.tb_next
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that were being handled when it was raised."""
    while error is not None:
        yield error
        error = error.__context__
