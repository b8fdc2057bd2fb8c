"""Checks that are made in a forked process."""

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")


def in_a_fork(check: Callable[[], None], seconds: int = 30) -> None:
    """Fork, and fail unless the check ends well there, in so many seconds."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)  # ends a process that waits for ever
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the forked process ended with {status}"


@contextmanager
def meanwhile(work: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Run a block while another thread is in the middle of the work, which gets a pause to make."""
    inside, leave = threading.Event(), threading.Event()

    def pause() -> None:
        inside.set()
        leave.wait(60)

    other = threading.Thread(target=work, args=(pause,))
    other.start()
    try:
        assert inside.wait(10)
        yield
    finally:
        leave.set()
        other.join()
