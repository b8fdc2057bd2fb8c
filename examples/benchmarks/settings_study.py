"""The default net against other settings of it, on 25 tables.

    python examples/benchmarks/settings_study.py --data DIR        # hours
    python examples/benchmarks/settings_study.py --data DIR --settings chosen start
    python examples/benchmarks/settings_study.py --quick           # only to see it run

DIR (or the environment variable SKSUBNET_DATA) is the folder of the data, see `tabular_data.py`.
The vault of each table, on which `tabular_study.py` scores estimators, is never opened: training
and test rows are drawn from the others, and the settings in `tabular_settings.py` are compared by
the trained net alone. The default net is the setting `chosen`. Every result is one line of the
file --cache, and what is there is not run again.
"""

import argparse
import datetime
import os
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from records import add, read
from study_scores import losses_and_scores, markdown
from tabular_data import FILES, Rows
from tabular_settings import SETTINGS, net_of
from threadpoolctl import threadpool_limits
from versions import versions

from sksubnet import MAPClassifier, MAPRegressor

RESULTS = Path(__file__).with_name("settings_study_results.md")
QUICK_TABLES = ("cancer", "diabetes")
SMALL_TABLE = 2000
HEAD = """
Losses are mean log losses (nats), or mean negative log likelihoods (nats) of targets of unit
standard deviation under a Gaussian. Seconds are those of one processor. Tables with fewer training
rows are drawn more often.

Development rows only, the trained net alone. `start` is 2 x 64 SiLU, scaling by quartiles,
AdamW with lr 3e-3, weight decay 1e-2 and batches of 128 (512 beyond 10 000 rows), a fifth held out,
patience 20. The default net is `chosen`. After a comma is what else changes.

The change of the loss is against the setting before the comma, that of `chosen` against `start`,
over the same draws: 100 times the logarithm of the ratio of the log losses, or 100 times the
difference of the negative log likelihoods, so that both are some percent (of the loss, of the
error's size); below zero is better. Columns: its mean over the classification and the regression
tables, its median over all, the worst. `better / worse`: tables where it is beyond two standard
errors of the mean over the draws. `seconds`: geometric mean over the tables, in units of those of
the setting before the comma; where other work ran beside it, the epochs tell more.
"""


class Case(NamedTuple):
    """Which rows: a table, the random draw, and the most training rows."""

    table: str
    seed: int
    rows: int


def run(case: Case, table: Rows, missing: set[str]) -> Iterator[dict[str, Any]]:
    """Train and score the settings that are missing; a record of each."""
    split = table.inner_split(case.seed, case.rows)
    n_classes = len(np.unique(split.y))
    task = ("binary" if n_classes == 2 else "multiclass") if split.classify else "regression"
    point = MAPClassifier if split.classify else MAPRegressor
    shape = {"classify": split.classify, "n_rows": len(split.X), "n_features": split.X.shape[1]}
    for name in SETTINGS:
        if name in missing:
            model = point(net_of(SETTINGS[name], split.X, task), random_state=case.seed)
            start = time.process_time()
            model.fit(split.X, split.y)
            cost = {"seconds": time.process_time() - start, "epochs": len(model.net_.history)}
            _, scores = losses_and_scores(model, split.classify, split.test_X, split.test_y)
            yield {**case._asdict(), "method": name, **shape, **cost, **scores}


def by_table(frame: pd.DataFrame, value: str, how: Any = "mean") -> pd.DataFrame:
    """Table (methods, tables) of a value over the draws."""
    methods = list(dict.fromkeys(frame["method"]))
    return frame.pivot_table(value, "method", "table", how, sort=False).reindex(methods)


def counted(better: pd.DataFrame, worse: pd.DataFrame) -> pd.Series:
    return better.sum(axis=1).map(str) + " / " + worse.sum(axis=1).map(str)


def changes(frame: pd.DataFrame) -> pd.DataFrame:
    """Change of the loss in percent and ratio of the seconds, draw by draw, against the base."""
    base = frame["method"].map(lambda name: name.split(", ")[0] if "," in name else "start")
    keys = ["table", "seed"]
    bases = frame.rename(columns={"method": "base"})[["base", *keys, "loss", "seconds"]]
    frame = frame.assign(base=base).merge(bases, on=["base", *keys], suffixes=("", "_of_base"))
    ratio = np.log(frame["loss"].where(frame["classify"], 1) / frame["loss_of_base"].abs())
    change = ratio.where(frame["classify"], frame["loss"] - frame["loss_of_base"])
    speed = np.log(frame["seconds"] / frame["seconds_of_base"])
    return frame.assign(change=100 * change, speed=speed)


def sections(frame: pd.DataFrame) -> Iterator[str]:
    """All settings over all tables; the default table by table."""
    order = list(SETTINGS)
    frame = frame.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    for rows, part in frame.groupby("rows"):
        part = changes(part)
        change = by_table(part, "change")
        error = by_table(part, "change", "sem").reindex_like(change)
        classify = part.groupby("table")["classify"].first()[change.columns]
        summary = pd.DataFrame(
            {
                "tables": change.notna().sum(axis=1),
                "classification": change.loc[:, classify].mean(axis=1),
                "regression": change.loc[:, ~classify].mean(axis=1),
                "median": change.median(axis=1),
                "worst": change.max(axis=1),
                "better / worse": counted(change < -2 * error, change > 2 * error),
                "seconds": np.exp(by_table(part, "speed").mean(axis=1)).map("x {:.2f}".format),
                "epochs": by_table(part, "epochs").mean(axis=1).map("{:.0f}".format),
            }
        )
        yield f"### At most {rows} training rows\n\n{markdown(summary, 'setting', 3)}"
        lines = part.groupby("table", sort=False)[["n_rows", "n_features"]].first()
        loss, seconds = by_table(part, "loss"), by_table(part, "seconds")
        for name in change.index.intersection(["start", "chosen"]):
            lines[f"loss, {name}"] = loss.loc[name].map("{:.4f}".format)
            lines[f"seconds, {name}"] = seconds.loc[name].map("{:.2f}".format)
        if "chosen" in change.index:
            lines["change"] = change.loc["chosen"].map("{:+.1f}".format)
        yield markdown(lines, "table", 3)


def report(frame: pd.DataFrame, head: str) -> str:
    return "\n".join([f"# Settings of the default net\n\n{head}\n{HEAD}", *sections(frame)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    parser.add_argument("--tables", nargs="+", help="some tables instead of all")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=3, help="random draws of training rows")
    parser.add_argument("--rows", type=int, default=3000, help="most training rows")
    parser.add_argument("--cache", type=Path, default=Path("settings_study.jsonl"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="small tables, nothing is kept")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    folder, cache = None if arguments.quick else Path(arguments.data), arguments.cache
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.quick:
            arguments.repeats, arguments.settings = 1, arguments.settings[:3]
            cache = arguments.results = Path(scratch) / "quick"
        done = defaultdict(set)
        for line in read(cache):
            done[Case(*(line[key] for key in Case._fields))].add(line["method"])
        for name in arguments.tables or (QUICK_TABLES if arguments.quick else FILES):
            table, start = Rows(name, folder), time.perf_counter()
            # fewer draws where each tells more
            times = 1 if table.n_development() >= SMALL_TABLE else 3
            for seed in range(times * arguments.repeats):
                case = Case(name, seed, arguments.rows)
                for line in run(case, table, set(arguments.settings) - done[case]):
                    add(cache, line)
            print(name, f"{time.perf_counter() - start:.0f} s", flush=True)
        head = f"`settings_study.py`,\n{datetime.date.today()}; {versions()}; one thread."
        text = report(pd.DataFrame(read(cache)), head)
    if arguments.quick:
        print(text)
    else:
        arguments.results.write_text(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that a fit has not converged is part of a default
    with threadpool_limits(1):
        main()
