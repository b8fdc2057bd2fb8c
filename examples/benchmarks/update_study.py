"""What `update` is worth: rows that arrive after the training, on ten tables.

    python examples/benchmarks/update_study.py --data DIR     # ten tables, some minutes
    python examples/benchmarks/update_study.py --quick        # one that scikit-learn ships

The default estimators are fitted to the first half of the rows; to the first half and then updated
with the second; and fitted to all. `closed` is the share of the way from the first half to all that
the update goes, by the loss on rows that none has seen. `time` and `passes` are what an update
takes, in units of the time of a fit to all rows, and of a prediction with standard deviations for
the new rows, which is one pass over their Jacobian.
DIR (or the environment variable SKSUBNET_DATA) is the folder of the data, see `tabular_data.py`.
"""

import argparse
import datetime
import os
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from study_scores import losses_and_scores
from tabular_data import Split, rows_of
from versions import versions

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

TABLES = (
    *("pima", "heart", "segment", "phoneme", "adult"),
    *("concrete", "abalone", "power", "california", "bike"),
)
QUICK_TABLES = ("cancer",)
RESULTS = Path(__file__).with_name("update_study_results.md")


class Line(NamedTuple):
    """Losses on rows that no estimator has seen, in nats, and seconds."""

    table: str
    rows: int
    first_half: float
    updated: float
    both: float
    update_seconds: float
    fit_seconds: float
    pass_seconds: float

    def closed(self) -> float:
        return (self.first_half - self.updated) / (self.first_half - self.both)

    def nearer_both(self) -> bool:
        return abs(self.updated - self.both) < abs(self.updated - self.first_half)


def measured(table: str, split: Split, seed: int) -> Line:
    """Losses of the three, all with the same seed."""
    kind = SubnetLaplaceClassifier if split.classify else SubnetLaplaceRegressor
    half = len(split.X) // 2

    def loss(estimator) -> float:
        return losses_and_scores(estimator, split.classify, split.test_X, split.test_y)[1]["loss"]

    start = time.process_time()
    both = kind(random_state=seed).fit(split.X, split.y)
    fit_seconds = time.process_time() - start
    growing = kind(random_state=seed).fit(split.X[:half], split.y[:half])
    first_half = loss(growing)
    start = time.process_time()
    growing.predictive(split.X[half:])
    pass_seconds = time.process_time() - start
    start = time.process_time()
    growing.update(split.X[half:], split.y[half:])
    update_seconds = time.process_time() - start
    losses = first_half, loss(growing), loss(both)
    return Line(table, len(split.X), *losses, update_seconds, fit_seconds, pass_seconds)


def table_of(lines: list[Line]) -> str:
    head = (
        "| table | rows | first half | updated | both | closed | nearer both | time | passes |\n"
        + ("| --- " * 9 + "|\n")
    )
    body = "\n".join(
        f"| {x.table} | {x.rows} | {x.first_half:.4f} | {x.updated:.4f} | {x.both:.4f} | "
        f"{x.closed():.2f} | {'yes' if x.nearer_both() else 'no'} | "
        f"{x.update_seconds / x.fit_seconds:.3f} | {x.update_seconds / x.pass_seconds:.1f} |"
        for x in lines
    )
    gains = np.array([x.first_half - x.updated for x in lines])
    rest = np.array([x.updated - x.both for x in lines])
    error = np.sqrt(max(1, len(lines)))
    summary = (
        f"\n\nThe update gains {gains.mean():.4f} ± {gains.std() / error:.4f} nats and leaves "
        f"{rest.mean():.4f} ± {rest.std() / error:.4f}; it is better than the first half on "
        f"{(gains > 0).sum()} of {len(lines)} cases, and nearer both on "
        f"{sum(x.nearer_both() for x in lines)}. It takes "
        f"{np.median([x.update_seconds / x.fit_seconds for x in lines]):.3f} of the time of a fit, "
        f"{np.median([x.update_seconds / x.pass_seconds for x in lines]):.1f} passes (medians)."
    )
    return head + body + summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    parser.add_argument("--rows", type=int, default=1000, help="training rows, halves together")
    parser.add_argument("--repeats", type=int, default=1, help="random draws of the rows")
    parser.add_argument("--quick", action="store_true", help="one table that scikit-learn ships")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    folder = None if arguments.quick else Path(arguments.data)
    tables, rows = (QUICK_TABLES, 160) if arguments.quick else (TABLES, arguments.rows)
    lines = []
    for seed in range(arguments.repeats):
        for table in tables:
            lines.append(measured(table, rows_of(table, folder).vault_split(seed, rows), seed))
            print(lines[-1], flush=True)
    text = table_of(lines)
    print(text)
    if not arguments.quick:
        command = f"update_study.py --rows {arguments.rows} --repeats {arguments.repeats}"
        head = f"`{command}`,\n{datetime.date.today()}; {versions()}; one thread."
        RESULTS.write_text(f"# What `update` is worth\n\n{head}\n\n{text}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main()
