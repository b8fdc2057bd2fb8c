"""How many threads torch works with, in several threads of a program at once."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from sksubnet.jacobian import evaluate, products, threads_for, torch_threads
from sksubnet.jacobian.threads import WORTH_A_THREAD

FOUND = 3


@pytest.fixture(autouse=True)
def number_of_the_caller() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(FOUND)
    yield
    torch.set_num_threads(before)


def in_thread(work: Callable[[], object]) -> object:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def of_new_threads() -> object:
    return in_thread(torch.get_num_threads)


def test_numbers_nest_and_are_put_back() -> None:
    with torch_threads(1):
        assert torch.get_num_threads() == of_new_threads() == 1
        with torch_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == of_new_threads() == 1
    assert torch.get_num_threads() == of_new_threads() == FOUND


def test_an_error_puts_the_number_back() -> None:
    with pytest.raises(KeyError), torch_threads(1):
        raise KeyError
    assert torch.get_num_threads() == FOUND


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_threads_overlap(first_to_leave: int) -> None:
    inside, leave, left = ([threading.Event() for _ in range(2)] for _ in range(3))
    seen: dict[str, int] = {}

    def hold(k: int) -> None:
        with torch_threads(1):
            inside[k].set()
            leave[k].wait(10)
            seen[f"inside {k}"] = torch.get_num_threads()
        seen[f"after {k}"] = torch.get_num_threads()
        left[k].set()

    threads = []
    for k in range(2):
        threads.append(threading.Thread(target=hold, args=(k,)))
        threads[k].start()
        assert inside[k].wait(10)
    assert torch.get_num_threads() == FOUND
    leave[first_to_leave].set()
    assert left[first_to_leave].wait(10)
    assert of_new_threads() == 1  # and so is MKL's, for the one that is still inside
    leave[1 - first_to_leave].set()
    for thread in threads:
        thread.join()
    assert seen == {"inside 0": 1, "inside 1": 1, "after 0": FOUND, "after 1": FOUND}
    assert of_new_threads() == FOUND


def test_what_ends_in_another_order_is_put_back() -> None:
    first, second = torch_threads(1), torch_threads(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 2
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == of_new_threads() == FOUND


def test_another_thread_may_end_what_one_has_begun() -> None:
    held = torch_threads(1)
    in_thread(held.__enter__)
    assert of_new_threads() == 1
    in_thread(lambda: held.__exit__(None, None, None))
    assert of_new_threads() == torch.get_num_threads() == FOUND


@pytest.mark.parametrize("worth, expected", [(0, 1), (1.9, 1), (2.1, 2), (1000, FOUND)])
def test_threads_grow_with_the_work_up_to_what_is_allowed(worth: float, expected: int) -> None:
    with threads_for(worth * WORTH_A_THREAD):
        assert torch.get_num_threads() == expected
    with torch_threads(1), threads_for(worth * WORTH_A_THREAD):
        assert torch.get_num_threads() == 1


def test_products_count_what_a_net_does() -> None:
    linear = nn.Linear(7, 5, bias=False)
    assert products(linear, 11, (7,)) == 11 * 7 * 5
    # A convolution without a change of size multiplies each weight once for each pixel.
    convolution = nn.Conv2d(1, 4, 3, padding=1, bias=False)
    assert products(convolution, 11, (1, 8, 6)) == 11 * 8 * 6 * 4 * 9


SEEN: list[int] = []


class Watching(nn.Linear):
    def forward(self, X: torch.Tensor) -> torch.Tensor:
        SEEN.append(torch.get_num_threads())
        return super().forward(X)


class Itself:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def on(self, module: nn.Module) -> "Itself":
        return Itself(module)

    def __call__(self, X: torch.Tensor) -> torch.Tensor:
        return self.module(X)


def test_a_small_pass_is_on_one_thread() -> None:
    evaluate(Itself(Watching(3, 2)), torch.zeros(5, 3))
    assert SEEN == [1]
