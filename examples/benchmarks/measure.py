"""Seconds and peak memory, for the benchmarks next to this file."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass
class Cost:
    """Seconds of a step, and the memory in MiB that it took at its peak beyond what was there."""

    seconds: float = float("nan")
    mebibytes: float = float("nan")

    def __str__(self) -> str:
        return f"{self.seconds:8.2f} s  {self.mebibytes:8.0f} MiB"


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure a block; the peak is exact on Linux and not given elsewhere."""
    cost, before = Cost(), resident(reset_peak=True)
    start = time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - start
    cost.mebibytes = (peak() - before) / 1024


@contextmanager
def measured_beyond_files() -> Iterator[Cost]:
    """Measure a block, in memory that is no page of a file: looked at every few milliseconds."""
    cost, before, ended = Cost(), _status("RssAnon"), threading.Event()
    most = [before]

    def look() -> None:
        while not ended.wait(0.005):
            most.append(max(most.pop(), _status("RssAnon")))

    watch, start = threading.Thread(target=look, daemon=True), time.perf_counter()
    watch.start()
    yield cost
    cost.seconds = time.perf_counter() - start
    ended.set()
    watch.join()
    cost.mebibytes = (most[0] - before) / 1024


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, in turns, so that other load on the machine falls on all alike."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return times


def median_ratio(times: list[float], reference: list[float]) -> float:
    """Median over the turns of one run's seconds in units of another's."""
    return median(a / b for a, b in zip(times, reference, strict=True))


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process, whose freed memory goes back to the system at once."""
    # glibc raises this threshold by itself and then keeps freed blocks of up to 32 MiB
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        del os.environ["MALLOC_MMAP_THRESHOLD_"]


def resident(reset_peak: bool = False) -> float:
    """Kibibytes of this process that are in memory."""
    if reset_peak and Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Most kibibytes of this process that were in memory since the last reset."""
    return _status("VmHWM")


def _status(name: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(name)), float("nan"))
