"""Parts of a fit that do not wait for each other, in jobs of joblib, and the cores that they share.

A result is the same to the last bit wherever it is computed: each part has its own seed, and how
many threads its sums are split among is told by its size, up to what the cores allow.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from joblib import Parallel, cpu_count, delayed, effective_n_jobs
from sklearn import config_context, get_config

from sksubnet.estimators.fitted import FORWARD_ROWS
from sksubnet.jacobian import products, torch_threads
from sksubnet.nets import TrainedNet
from sksubnet.progress import task, tasks, unwatched

T = TypeVar("T")
Warned = tuple[type[Warning], str]

SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], None]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
)
"""What the code of a user's net may depend on, and another process does not know."""


@dataclass(frozen=True)
class Caller:
    """What a job needs to know of where it comes from, for it may be another process.

    Attributes
    ----------
    process : int
        Its number.
    n_threads : int
        Threads that torch may use in the job.
    config, filters, settings
        Those of scikit-learn, of warnings and of torch.
    """

    process: int
    n_threads: int
    config: dict[str, Any]
    filters: list[Any]
    settings: list[Any]


def in_jobs(
    function: Callable[..., T],
    calls: Sequence[tuple[Any, ...]],
    n_jobs: int | None,
    *,
    name: str,
    n_subtasks: int | None = 0,
    fits: Sequence[Any] | None = None,
) -> list[T]:
    """Results of the function for each of some arguments, so many at once.

    Each is a task of this name; of how many parts, or which estimator it fits, callbacks only see
    where one goes after the other. What a job warns of in another process, the user is warned of
    here, and once.
    """
    check_n_jobs(n_jobs)
    n_at_once = min(len(calls), effective_n_jobs(n_jobs))
    if n_at_once < 2:
        results = []
        with cores(n_jobs):
            for k, call in enumerate(calls):
                with task(name, n_subtasks, fits and fits[k]):
                    results.append(function(*call))
        return results
    share = max(1, min(cpu_count(), torch.get_num_threads()) // n_at_once)
    here = Caller(os.getpid(), share, get_config(), list(warnings.filters), _settings())
    with tasks(name, len(calls)):
        done = Parallel(n_jobs=n_at_once)(delayed(_job)(function, call, here) for call in calls)
    for category, message in dict.fromkeys(warned for _, job in done for warned in job):
        warnings.warn(message, category, stacklevel=_depth_of_user())
    return [result for result, _ in done]


@contextlib.contextmanager
def cores(n_jobs: int | None) -> Iterator[None]:
    """Let torch use up to ``n_jobs`` threads; ``None`` leaves its setting, -1 is all cores."""
    check_n_jobs(n_jobs)
    if n_jobs is None:
        yield
        return
    with torch_threads(n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)):
        yield


def check_n_jobs(n_jobs: int | None) -> None:
    """Raise unless it is a number of jobs."""
    if n_jobs == 0:
        raise ValueError("n_jobs=0 is no number of jobs; use 1 or more, -1 for all cores, or None.")


def work_of_batch(trained: TrainedNet, n_selected: int = 0) -> int:
    """Count the products of a net and a batch of its rows, and of the curvature of S weights."""
    n_rows = min(len(trained.train), FORWARD_ROWS)
    of_net = products(trained.module, n_rows, trained.train.shape)
    return of_net + n_selected**2 * (n_rows * trained.n_outputs + n_selected)


def _job(
    function: Callable[..., T], call: tuple[Any, ...], caller: Caller
) -> tuple[T, list[Warned]]:
    """Run one call with its share of the cores; return what it warned of in another process."""
    threads = torch_threads(min(caller.n_threads, cpu_count()))
    with unwatched(), threads, config_context(**caller.config):
        if os.getpid() == caller.process:
            return function(*call), []
        with _as_in(caller), warnings.catch_warnings(record=True) as caught:
            warnings.filters = caller.filters
            result = function(*call)
    return result, [(warned.category, str(warned.message)) for warned in caught]


def _settings() -> list[Any]:
    return [read() for read, _ in SETTINGS]


@contextlib.contextmanager
def _as_in(caller: Caller) -> Iterator[None]:
    """Have torch's settings as they are where a job comes from."""
    before = _settings()
    try:
        for (_, write), value in zip(SETTINGS, caller.settings, strict=True):
            write(value)
        yield
    finally:
        for (_, write), value in zip(SETTINGS, before, strict=True):
            write(value)


def _depth_of_user() -> int:
    """Frames between the caller and the line of the user's that led to it."""
    frame, depth = sys._getframe(1), 1
    passed = ("sksubnet", "sklearn", "contextlib")
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in passed:
        frame, depth = frame.f_back, depth + 1
    return depth
