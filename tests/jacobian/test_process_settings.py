"""Settings of the process that overlapping threads hold."""

import importlib
import pkgutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import CASES, Around
from forks import in_a_fork, meanwhile, needs_fork

import sksubnet
from sksubnet.jacobian import jacobian, plan_jacobian, trained_indices
from sksubnet.jacobian.process_settings import VMAP_OF_ANY_LAYER, SharedSetting, Turn


def test_the_last_thread_puts_back_what_the_first_found() -> None:
    inside, leave, filters = threading.Event(), threading.Event(), list(warnings.filters)

    def hold() -> None:
        with VMAP_OF_ANY_LAYER:
            inside.set()
            leave.wait(10)

    assert torch.backends.cuda.flash_sdp_enabled()
    other = threading.Thread(target=hold)
    with VMAP_OF_ANY_LAYER:
        other.start()
        assert inside.wait(10)
    # The other thread still needs it.
    assert not torch.backends.cuda.flash_sdp_enabled()
    leave.set()
    other.join()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert warnings.filters == filters


def test_nets_on_the_cpu_leave_cudnn_alone() -> None:
    module, X = next(case for case in CASES if case.name == "lstm").build()
    found = []
    module.head.register_forward_hook(lambda *_: found.append(torch.backends.cudnn.enabled))
    plan = plan_jacobian(Around(module), trained_indices(module), X)
    jacobian(Around(module), plan, X)
    assert set(found) == {torch.backends.cudnn.enabled}


class Counter:
    """A setting, and how often it was made and taken back."""

    def __init__(self) -> None:
        self.made = self.back = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.made += 1
        yield
        self.back += 1


@needs_fork
@pytest.mark.parametrize("here_too", [False, True])
def test_a_fork_takes_back_the_settings_of_threads_that_it_has_not(here_too: bool) -> None:
    counter = Counter()
    setting = SharedSetting(counter)

    def hold(pause: Callable[[], None]) -> None:
        with setting:
            pause()

    def check() -> None:
        assert (counter.made, counter.back) == (1, 0 if here_too else 1)
        if here_too:
            setting.__exit__(None, None, None)
        assert (counter.made, counter.back) == (1, 1)
        with setting:
            assert (counter.made, counter.back) == (2, 1)

    with meanwhile(hold):
        if here_too:
            setting.__enter__()
        in_a_fork(check)
        assert (counter.made, counter.back) == (1, 0)
        if here_too:
            setting.__exit__(None, None, None)
    assert (counter.made, counter.back) == (1, 1)


@needs_fork
def test_a_fork_waits_for_no_turn_and_undoes_what_others_had_changed() -> None:
    turn, value = Turn(), [0]

    def change(pause: Callable[[], None]) -> None:
        with turn.lock, turn.undone_by(lambda: value.__setitem__(0, 0)):
            value[0] = 1
            with turn.lock, turn.undone_by(lambda: value.__setitem__(0, 1)):
                value[0] = 2
                pause()

    def check() -> None:
        assert value == [0]
        with turn.lock:
            pass

    with meanwhile(change):
        in_a_fork(check)
        assert value == [2]
    value[0] = 3
    in_a_fork(lambda: None if value == [3] else pytest.fail())


@needs_fork
def test_a_fork_of_the_thread_whose_turn_it_is_goes_on() -> None:
    turn, value = Turn(), [0]

    def check() -> None:
        assert value == [1]

    with turn.lock, turn.undone_by(lambda: value.__setitem__(0, 0)):
        value[0] = 1
        in_a_fork(check)


def test_no_module_holds_a_lock_that_a_fork_would_wait_for() -> None:
    plain = type(threading.Lock()), type(threading.RLock()), threading.Condition
    names = [m.name for m in pkgutil.walk_packages(sksubnet.__path__, "sksubnet.")]
    found = [
        f"{name}.{key}"
        for name in names
        for key, value in vars(importlib.import_module(name)).items()
        if isinstance(value, plain)
    ]
    assert len(names) > 70 and found == []
