"""The global random states belong to the user, whatever a fit does meanwhile."""

import signal

import numpy as np
import pytest
import torch
from forks import in_a_fork, meanwhile, needs_fork

from sksubnet.nets import RandomStream


def global_draws() -> tuple[float, float]:
    """The next numbers of both global random states."""
    return float(np.random.rand()), float(torch.rand(1))


def seed_both() -> None:
    np.random.seed(3)
    torch.manual_seed(3)


@needs_fork
def test_a_process_forked_during_a_fit_has_the_global_states_of_the_user() -> None:
    seed_both()
    expected = global_draws()
    seed_both()

    def draw(pause):
        with RandomStream(0).everywhere():
            global_draws()
            pause()

    def check() -> None:
        assert global_draws() == expected
        seed_both()
        with RandomStream(0).everywhere():
            global_draws()
        assert global_draws() == expected

    with meanwhile(draw):
        in_a_fork(check)
    assert global_draws() == expected


@pytest.mark.parametrize("name", ["get_state", "set_state"])
@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupt_while_the_states_are_exchanged(name, call, monkeypatch) -> None:
    """The signal may come in any line, those that put the states back among them."""
    original, calls = getattr(np.random, name), []
    seed_both()
    expected = global_draws()
    seed_both()

    def interrupted(*args):
        calls.append(1)
        if len(calls) == call:
            if name == "set_state" and call == 2:
                original(*args)  # what is done in C is done whole
            signal.raise_signal(signal.SIGINT)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(np.random, name, interrupted)
        with pytest.raises(KeyboardInterrupt), RandomStream(0).everywhere():
            global_draws()
    assert len(calls) >= call
    assert global_draws() == expected
