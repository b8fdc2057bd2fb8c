"""The default estimators against others of ours and against rivals, on tables.

    python examples/benchmarks/tabular_study.py --data DIR                   # everything: hours
    python examples/benchmarks/tabular_study.py --data DIR --budget 30       # a slice of it
    python examples/benchmarks/tabular_study.py --data DIR --part models shifts --models default MAP
    python examples/benchmarks/tabular_study.py --data DIR --variant "five folds" '{"cv": 5}'
    python examples/benchmarks/tabular_study.py --budget 0                   # only the report
    python examples/benchmarks/tabular_study.py --quick                      # only to see it run

DIR (or the environment variable SKSUBNET_DATA) is the folder of the data, see `tabular_data.py`.
Parts, see `tabular_parts.py`:

- `models`: 37 tables, some with several numbers of rows. A vault of each, 30 % of its rows, is set
  apart once and for all; models learn from five random draws of the others and are scored on it.
- `shifts`: tables whose test rows are of another time, place or kind than the training rows.
- `small`: 20 to 300 rows, against a constant and a linear model.
- `far`: what the uncertainty is for rows unlike those of the training.
- `seeds`, `orders`: how much it depends on the seed, and on the order of the rows.
- `time`: seconds of training and prediction.

Every result is one line of the file --cache, and what is there is not run again; lines of `--again`
are, where another state of the package wrote them. The tables go to --results.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from records import add, code, one_thread, origin, read
from tabular_models import MODELS, Model, variant
from tabular_parts import PARTS, Case, Unsuited
from tabular_report import report

RESULTS = Path(__file__).with_name("tabular_study_results.md")
QUICK_MODELS = ("default", "MAP", "linear", "HistGradientBoosting", "Gaussian process", "constant")


class Job(NamedTuple):
    """One model of a case; variants are built where they run."""

    case: Case
    method: str
    changes: dict[str, Any] | None
    folder: Path | None

    def model(self) -> Model:
        return MODELS[self.method] if self.changes is None else variant(self.changes)


def carried_out(job: Job) -> dict[str, Any] | None:
    """The line of a job; None where the model does not apply."""
    try:
        found = PARTS[job.case.part].measure(job.case, job.model(), job.folder)
    except Unsuited:
        return None
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {error}"[:300]}
    return {**job.case._asdict(), "method": job.method, **found}


def results(jobs: Iterable[Job], workers: int, deadline: float) -> Iterator[Any]:
    """Lines as they come; no job starts after the deadline."""
    in_time = (job for job in jobs if time.monotonic() < deadline)
    if workers == 1:
        yield from map(carried_out, in_time)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), one_thread) as pool:
        running: set[Future[Any]] = set()
        for job in in_time:
            running.add(pool.submit(carried_out, job))
            if len(running) == workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in running)


def done_in(lines: list[dict[str, Any]], again: list[str], current: str) -> set[tuple[Any, ...]]:
    """Cases and methods that need no run."""
    return {
        (*(line[key] for key in Case._fields), line["method"])
        for line in lines
        if line["method"] not in again or line["code"] == current
    }


def jobs_of(arguments: argparse.Namespace, folder: Path | None) -> Iterator[Job]:
    """What is wanted and possible, whether done or not."""
    variants = {name: json.loads(changes) for name, changes in arguments.variant}
    for name in arguments.part:
        part = PARTS[name]
        wanted = part.models if arguments.models is None else arguments.models
        if part.ours_only:
            wanted = [method for method in wanted if MODELS[method].package == "sksubnet"]
        if arguments.quick and arguments.models is None:
            wanted = [method for method in wanted if method in QUICK_MODELS]
        for case in part.cases(name, arguments.quick, arguments.repeats):
            if arguments.tables and case.table not in arguments.tables:
                continue
            for method in wanted:
                if MODELS[method].is_installed():
                    yield Job(case, method, None, folder)
            for method, changes in variants.items():
                yield Job(case, method, changes, folder)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--tables", nargs="+", help="some tables instead of all")
    parser.add_argument("--models", nargs="*", choices=MODELS, help="some models instead of all")
    parser.add_argument(
        "--variant",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "JSON"),
        help="the default with some keywords; may be given several times",
    )
    parser.add_argument("--reference", default="released default", help="in the report")
    parser.add_argument("--repeats", type=int, help="fewer random draws")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="MINUTES")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="see above")
    parser.add_argument("--cache", type=Path, default=Path("tabular_study.jsonl"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="tables that scikit-learn ships")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick and arguments.budget > 0:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    return arguments


def main() -> None:
    arguments = parsed()
    folder = None if arguments.quick or arguments.data is None else Path(arguments.data)
    cache, current, start = arguments.cache, code(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.quick:
            cache, arguments.results = Path(scratch) / "quick", None
            arguments.repeats = arguments.repeats or 1
            arguments.reference = "default"
        done = done_in(read(cache), arguments.again, current)
        jobs = [job for job in jobs_of(arguments, folder) if (*job.case, job.method) not in done]
        deadline = start + 60 * arguments.budget
        for n, line in enumerate(results(jobs, arguments.workers, deadline), 1):
            if line is None:
                continue
            add(cache, line)
            what = " ".join(str(line[key]) for key in (*Case._fields, "method"))
            passed = time.monotonic() - start
            print(f"{n}/{len(jobs)} {passed:.0f} s {what} {line.get('failed', '')}", flush=True)
        missing = [name for name, model in MODELS.items() if not model.is_installed()]
        text = report(read(cache), origin(), arguments.reference, missing)
    if arguments.results is None:
        print(text)
    else:
        arguments.results.write_text(text)


if __name__ == "__main__":
    one_thread()
    main()
