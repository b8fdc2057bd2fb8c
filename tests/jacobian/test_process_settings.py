"""Settings of the process that overlapping threads hold."""

import threading
import warnings

import torch
from cases import CASES, Around

from sksubnet.jacobian import jacobian, plan_jacobian, trained_indices
from sksubnet.jacobian.process_settings import VMAP_OF_ANY_LAYER


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
