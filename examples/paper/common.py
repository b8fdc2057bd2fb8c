"""What the experiments of the paper share: options, lines of results, and where these go.

A script makes its options by `options`, lists its jobs as named tuples, has each carried out once
by `carried_out`, and hands its table to `publish`.
"""

import argparse
import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "benchmarks"))

from records import add, one_thread, origin, read  # noqa: E402

__all__ = ["add", "carried_out", "one_thread", "options", "parsed", "publish", "read"]


def options(doc: str, seeds: int) -> argparse.ArgumentParser:
    """Options of every script, which may add its own."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add_option = parser.add_argument
    add_option("--data", type=Path, default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    add_option("--seeds", type=int, default=seeds)
    add_option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_option("--budget", type=float, default=float("inf"), metavar="MINUTES")
    add_option("--cache", type=Path, help="a line for each result; what is there is not run again")
    add_option("--output", type=Path, default=HERE, help="folder of the table and the figure")
    add_option("--quick", action="store_true", help="only to see it run; nothing is kept")
    return parser


def parsed(parser: argparse.ArgumentParser, needs_data: bool) -> argparse.Namespace:
    """Options of a run: `memory` is a folder for trained nets, `deadline` when no job starts.

    A quick run has no data, and files of its own that go when it ends.
    """
    arguments = parser.parse_args()
    arguments.stem = Path(sys.argv[0]).stem
    arguments.deadline = time.monotonic() + 60 * arguments.budget
    if arguments.quick:
        scratch = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, scratch)
        arguments.data, arguments.cache, arguments.output = None, scratch / "quick.jsonl", scratch
    elif arguments.data is None and needs_data:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    arguments.cache = arguments.cache or Path(f"{arguments.stem}.jsonl")
    arguments.memory = str(arguments.cache.with_suffix(".nets"))
    return arguments


def carried_out(
    jobs: Iterable[Any], measure: Callable[[Any], dict[str, Any]], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Lines of the cache that are wanted, after the jobs (named tuples) that it lacks have run.

    A line is a job's fields and what is measured of it; no job starts after the deadline.
    """
    jobs, lines = list(jobs), read(arguments.cache)
    known = {tuple(line.get(field) for field in jobs[0]._fields): line for line in lines}
    missing = [job for job in jobs if tuple(job) not in known]
    start = time.monotonic()
    for n, job in enumerate(missing, 1):
        if time.monotonic() > arguments.deadline:
            break
        known[tuple(job)] = line = {**job._asdict(), **measure(job)}
        add(arguments.cache, line)
        print(f"{n}/{len(missing)} {time.monotonic() - start:.0f} s", *job, flush=True)
    return [known[tuple(job)] for job in jobs if tuple(job) in known]


def publish(text: str, title: str, arguments: argparse.Namespace) -> None:
    """Write the table of results with its command, date and versions, and print it."""
    text = f"# {title}\n\n{origin()}\n\n{text}\n"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / f"{arguments.stem}_results.md").write_text(text)
    print(text)
