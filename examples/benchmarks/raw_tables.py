"""Tables as they come, with texts and holes, against the same tables through a pipeline.

    python examples/benchmarks/raw_tables.py --data DIR     # six tables, three draws
    python examples/benchmarks/raw_tables.py --quick        # a synthetic one

The default estimators are fitted to the data frame (`raw`), and to what `OneHotEncoder` with rare
levels together and `SimpleImputer` make of it (`pipeline`), with the same seed, and both are scored
on rows that neither has seen. `unseen / known` is by what the median epistemic standard deviation
of the outputs grows, over the test rows, when a cell holds a level that training has not seen: the
median over the columns of texts, and the smallest.
DIR (or the environment variable SKSUBNET_DATA) is the folder of the data, see `tabular_data.py`.
"""

import argparse
import datetime
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.model_selection import train_test_split
from study_scores import losses_and_scores
from tabular_data import FILES, encoder, frame_of, standardised
from versions import versions

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

TABLES = ("adult", "ames", "telco", "bank", "churn", "german")
RESULTS = Path(__file__).with_name("raw_tables_results.md")
MOST_SCORED = 2000


class Line(NamedTuple):
    table: str
    seed: int
    raw: float
    pipeline: float
    error: float
    unseen: list[float]


def synthetic() -> tuple[pd.DataFrame, np.ndarray]:
    generator = np.random.default_rng(0)
    towns = generator.choice(["Bern", "Genf", "Chur"], 300)
    area = generator.normal(80, 20, 300)
    y = area / 40 + (towns == "Genf") + 0.3 * generator.normal(size=300)
    area[::9] = np.nan
    return pd.DataFrame({"town": towns, "area": area}), y


def epistemic(predictive) -> np.ndarray:
    """Root of the mean variance of the outputs, by row."""
    return np.sqrt(predictive.covariance.diagonal(dim1=1, dim2=2).mean(dim=1).double().numpy())


def measured(table: str, X: pd.DataFrame, y: np.ndarray, classify: bool, seed: int, rows: int):
    train, test = train_test_split(
        np.arange(len(y)),
        train_size=min(rows, int(0.7 * len(y))),
        random_state=seed,
        stratify=y if classify else None,
    )
    test = test[:MOST_SCORED]
    train_X, test_X = X.iloc[train], X.iloc[test]
    targets = (y[train], y[test])
    train_y, test_y = targets if classify else standardised(*targets)
    kind = SubnetLaplaceClassifier if classify else SubnetLaplaceRegressor
    encode = encoder(X, len(train), all_levels=False).fit(train_X)
    piped = kind(random_state=seed).fit(encode.transform(train_X), train_y)
    raw = kind(random_state=seed).fit(train_X, train_y)
    of_raw, _ = losses_and_scores(raw, classify, test_X, test_y)
    of_piped, _ = losses_and_scores(piped, classify, encode.transform(test_X), test_y)
    known = epistemic(raw.predictive(test_X))
    texts = X.select_dtypes(exclude="number").columns
    unseen = [
        float(np.median(epistemic(raw.predictive(test_X.assign(**{text: "never seen"})))))
        for text in texts
    ]
    ratios = [value / float(np.median(known)) for value in unseen]
    error = float(stats.sem(of_raw - of_piped))
    return Line(table, seed, float(of_raw.mean()), float(of_piped.mean()), error, ratios)


def table_of(lines: list[Line]) -> str:
    rows = ["| table | seed | raw | pipeline | raw - pipeline | unseen / known | smallest |"]
    rows.append("| --- " * 7 + "|")
    for x in lines:
        rows.append(
            f"| {x.table} | {x.seed} | {x.raw:.4f} | {x.pipeline:.4f} | "
            f"{x.raw - x.pipeline:+.4f} ± {x.error:.4f} | {np.median(x.unseen):.2f} | "
            f"{min(x.unseen):.2f} |"
        )
    of_tables = [
        np.mean([x.raw - x.pipeline for x in lines if x.table == table])
        for table in dict.fromkeys(x.table for x in lines)
    ]
    error = stats.sem(of_tables) if len(of_tables) > 1 else np.nan
    columns = np.concatenate([x.unseen for x in lines])
    return "\n".join(rows) + (
        f"\n\nRaw minus pipeline: {np.mean(of_tables):+.4f} ± {error:.4f} nats over the tables; "
        f"the epistemic deviation of an unseen level is above the known median in "
        f"{(columns > 1).sum()} of {len(columns)} columns."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--repeats", type=int, default=3, help="random draws of the rows")
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--quick", action="store_true", help="a synthetic table, one draw")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    lines = []
    for seed in range(1 if arguments.quick else arguments.repeats):
        for table in ["synthetic"] if arguments.quick else arguments.tables:
            if arguments.quick:
                (X, y), classify = synthetic(), False
            else:
                X, y = frame_of(FILES[table], Path(arguments.data))
                classify = FILES[table].classify
            lines.append(measured(table, X, y, classify, seed, arguments.rows))
            print(lines[-1], flush=True)
    text = table_of(lines)
    print(text)
    if not arguments.quick:
        command = f"raw_tables.py --rows {arguments.rows} --repeats {arguments.repeats}"
        head = f"`{command}`,\n{datetime.date.today()}; {versions()}; one thread."
        RESULTS.write_text(f"# Tables as they come\n\n{head}\n\n{text}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main()
