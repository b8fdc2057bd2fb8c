"""Which weights to select, how many, and how to choose the prior: a study on real data.

    python examples/benchmarks/selection_study.py --data DIR                 # all parts, hours
    python examples/benchmarks/selection_study.py --data DIR --part tables --splits 2
    python examples/benchmarks/selection_study.py --data DIR --quick         # only to see it run

Parts: `tables`, nine tables with a shift that is their own (time, place, kind), `gap` and
`standard`, the UCI regression splits of Foong et al. 2019 and the usual ones, and `mnist`, digits
that are turned by 0 to 180 degrees. DIR (or the environment variable SKSUBNET_DATA) is the folder
of the data, see `study_data.py`.

In every split one net is trained, and all but the ensemble start from it. A fifth of the training
rows stops the training early; the same rows, and no others, choose each method's prior precision
and noise (by the lowest loss, or "1 se": the smallest prior precision within one standard error of
it) and the temperature. Every result is one line of the file --cache, and what is there is not run
again. The tables go to selection_study_results.md next to this file.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from study_data import PARTS, Case, Rows, cases, is_classification, load
from study_scores import losses_and_scores, markdown
from versions import versions

from sksubnet import (
    DeepEnsembleClassifier,
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
)
from sksubnet.estimators.base import draw_seed
from sksubnet.nets.training import hold_out

CLASSIFIERS = (MAPClassifier, DeepEnsembleClassifier, SubnetLaplaceClassifier)
REGRESSORS = (MAPRegressor, DeepEnsembleRegressor, SubnetLaplaceRegressor)
RESULTS = Path(__file__).with_name("selection_study_results.md")
STRATEGIES = ("greedy", "swag", "gradient", "random", "saliency", "leverage", "magnitude")
STRATEGIES += ("variance",)
BOTH_RULES = ("greedy", "swag", "gradient", "random", "last", "diagonal", "full")
SIZES: dict[str, Any] = {"1 %": 0.01, "5 %": 0.05, "20 %": 0.2}
MNIST_SIZES: dict[str, Any] = {"200": 200, "1 %": 0.01}
TURNED = ["60°", "90°", "120°"]
TITLES = {
    "nll": "negative log likelihood (nats)",
    "error": "error (share of wrong classes), or RMSE in units of the target",
    "calibration": "expected calibration error, or coverage of the 90 % interval",
}
HEAD = """
Every method (but the ensemble) starts from the same trained net, and its prior precision, noise or
temperature was chosen on the fifth of the training rows on which that net stopped early.

- `mean rank`: of the log likelihood over the data sets (1 is best, ties within 0.001 nats share
  their ranks), ± the standard deviation between data sets.
- `gain`: rise of the mean test log likelihood over the MAP's in nats, averaged over splits; its
  mean, median and smallest value over the data sets.
- `worse than MAP on`: data sets where the loss exceeds the MAP's by more than two standard errors
  of the paired difference over the test rows.
- `default`: "greedy", a twentieth of the weights but 100 to 500, half a standard error.
- `seconds`: selection, curvature and tuning, mean over the data sets, and `/ training`, in units of
  the training of the net; for the MAP and the ensemble, the training itself. With `1 se` the
  selection is not repeated.
- A regressor's noise is tuned on the held-out rows, so that the MAP is MAP + temperature too.
- In distribution, the test rows of tables ordered in time have neighbours among the training rows.
- Tables of errors leave out what is within 1 % of the MAP's error everywhere.
"""


def posteriors(part: str) -> dict[str, dict[str, Any]]:
    """Settings of the Laplace posteriors by name; biases stay fixed in all of them."""
    sizes = MNIST_SIZES if part == "mnist" else SIZES
    found: dict[str, dict[str, Any]] = {
        f"{strategy} {label}": {"selection": strategy, "subnetwork_size": size}
        for label, size in sizes.items()
        for strategy in STRATEGIES
    }
    found["default"] = {"prior_precision": "validation_half_se"}
    found["last layer"] = {"selection": "last_layer"}
    found["diagonal"] = {"subnetwork_size": "all", "covariance": "diag"}
    if part != "mnist":  # where the full posterior would take hours
        found["full"] = {"subnetwork_size": "all"}
    return found


def methods(case: Case) -> list[str]:
    """Names of all methods, in the order in which they run."""
    names = ["MAP", *(["MAP + temperature"] if is_classification(case) else []), "ensemble of 5"]
    for name in posteriors(case.part):
        names += [name, f"{name}, 1 se"] if name.split()[0] in BOTH_RULES else [name]
    return names


def fits(rows: Rows, case: Case, missing: set[str], memory: str) -> Iterator[tuple[str, Any]]:
    """Names and fitted estimators of the methods that are wanted; the MAP always comes first."""
    point_kind, ensemble_kind, laplace_kind = CLASSIFIERS if rows.classify else REGRESSORS
    shared = {"net": rows.net, "memory": memory, "random_state": case.seed}
    point = point_kind(**shared)
    yield "MAP", point.fit(rows.X, rows.y)
    if "MAP + temperature" in missing:
        held_out = held_out_rows(point, rows, case.seed)
        scaled = CalibratedClassifierCV(FrozenEstimator(point), method="temperature")
        yield "MAP + temperature", scaled.fit(rows.X[held_out], rows.y[held_out])
    if "ensemble of 5" in missing:
        yield "ensemble of 5", ensemble_kind(**shared).fit(rows.X, rows.y)
    for name, options in posteriors(case.part).items():
        second = f"{name}, 1 se"
        if not {name, second} & missing:
            continue
        model = laplace_kind(**{**shared, "prior_precision": "validation", **options})
        model.fit(rows.X, rows.y)
        chosen = model.subnetwork_.indices
        yield name, model
        if second in missing:
            model.set_params(prior_precision="validation_1se", selection=chosen)
            yield second, model.fit(rows.X, rows.y)


def held_out_rows(point: Any, rows: Rows, seed: int) -> np.ndarray:
    """Numbers of the training rows that a fitted net was not trained on."""
    options = {"fraction": point.validation_fraction, "needed": True, "stratify": rows.classify}
    return hold_out(point.net_, rows.X, rows.y, seed=draw_seed(seed), **options)[1]


def losses_and_summary(model: Any, rows: Rows, name: str) -> tuple[np.ndarray, dict[str, float]]:
    """Negative log likelihood of each row; error and ECE, or RMSE and coverage of 90 %."""
    losses, scores = losses_and_scores(model, rows.classify, *rows.tests[name])
    calibration = scores["ece" if rows.classify else "coverage"]
    return losses, {"nll": scores["loss"], "error": scores["error"], "calibration": calibration}


def run(case: Case, rows: Rows, missing: set[str], cache: Path) -> None:
    """Fit and score what is missing of a case; one line of the cache for each method."""
    references: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as memory:
        models, start = fits(rows, case, missing, memory), time.perf_counter()
        for method, model in models:
            record: dict[str, Any] = {**case._asdict(), "method": method, "tests": {}}
            record["seconds"] = time.perf_counter() - start
            record["prior_precision"] = getattr(model, "prior_precision_", None)
            record["n_weights"] = len(getattr(model, "subnetwork_", ()))
            for name in rows.tests:
                losses, scores = losses_and_summary(model, rows, name)
                # of the same rows under the MAP: paired, and so hardly noisy
                excess = losses - references.setdefault(name, losses)
                scores["excess"] = float(excess.mean())
                scores["excess_error"] = float(excess.std() / np.sqrt(len(excess)))
                record["tests"][name] = scores
            if method in missing:
                with cache.open("a") as file:
                    file.write(json.dumps(record) + "\n")
            start = time.perf_counter()


def read(cache: Path) -> dict[Case, dict[str, Any]]:
    """Records by case and method."""
    found: dict[Case, dict[str, Any]] = defaultdict(dict)
    for line in cache.read_text().splitlines() if cache.exists() else []:
        record = json.loads(line)
        found[Case(*(record[key] for key in Case._fields))][record["method"]] = record
    return found


def complete(records: dict[Case, dict[str, Any]]) -> pd.DataFrame:
    """One row for each method and test set, of the cases in which no method is missing."""
    lines = []
    for case, by_method in records.items():
        if set(methods(case)) <= set(by_method):
            # a regressor's noise is tuned on the held-out rows, which is its temperature scaling
            point = by_method["MAP"]
            scaled = {**point, "method": "MAP + temperature", "seconds": 0.0}
            for record in ({"MAP": point, scaled["method"]: scaled} | by_method).values():
                tests = record["tests"].items()
                lines += [{**record, "test": test, **scores} for test, scores in tests]
    return pd.DataFrame(lines)


def by_data(frame: pd.DataFrame, value: str, how: str = "mean") -> pd.DataFrame:
    """Table (methods, data sets) of a value over the splits."""
    order = list(dict.fromkeys(frame["method"]))
    return frame.pivot_table(value, "method", "data", how, sort=False).reindex(order)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Methods over all data sets: ranks, gains over the MAP, and where they are worse than it."""
    excess, seconds = by_data(frame, "excess"), by_data(frame, "seconds")
    squares = by_data(frame.assign(square=frame["excess_error"] ** 2), "square", "sum")
    worse = excess > 2 * np.sqrt(squares) / by_data(frame, "excess", "count")
    gains = 0.0 - excess.round(3)
    ranks = gains.rank(ascending=False)
    columns = {
        "mean rank": ranks.mean(axis=1).map("{:.1f}".format)
        + ranks.std(axis=1).map(" ± {:.1f}".format),
        "gain, mean": gains.mean(axis=1).map("{:.3f}".format),
        "gain, median": gains.median(axis=1).map("{:.3f}".format),
        "gain, least": gains.min(axis=1).map("{:.3f}".format),
        "worse than MAP on": worse.apply(lambda row: ", ".join(row.index[row]), axis=1),
        "seconds": seconds.mean(axis=1).map("{:.2f}".format),
        "/ training": (seconds / seconds.loc["MAP"]).mean(axis=1).map("{:.2f}".format),
    }
    return pd.DataFrame(columns).loc[ranks.mean(axis=1).sort_values(kind="stable").index]


def with_other_error(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the methods whose errors are within 1 % of the MAP's on all columns."""
    others = ((table / table.loc["MAP"] - 1).abs() > 0.01).any(axis=1)
    return table[others | (table.index == "MAP")]


def sections(frame: pd.DataFrame) -> Iterator[str]:
    """Tables of one part as markdown, test set by test set, or net by net."""
    part, splits = frame["part"].iloc[0], frame.groupby("data")[["split", "seed"]].nunique()
    counts = ", ".join(f"{name} {row.prod()}" for name, row in splits.iterrows())
    yield f"## {part}\n\nSplits: {counts}.\n"
    over, columns = ("data", "test") if part == "mnist" else ("test", "data")
    for name, rows in frame.groupby(over, sort=False):
        if part != "mnist":
            yield f"### {name}: all data sets\n\n{markdown(summary(rows), 'method', 4)}"
        for value, title in TITLES.items():
            table = rows.pivot_table(value, "method", columns, sort=False)
            if part == "mnist" and value == "nll":
                turned = table[TURNED].mean(axis=1)
                table["60…120° / MAP"] = turned / turned["MAP"]
                table["seconds"] = rows.groupby("method")["seconds"].mean()
            elif value == "nll":
                median = markdown(by_data(rows, value, "median"), "method", 4)
                yield f"### {name}: {title}, median of the splits\n\n{median}"
            elif value == "error":
                table = with_other_error(table)
            yield f"### {name}: {title}\n\n{markdown(table, 'method', 4)}"


def report(frame: pd.DataFrame, command: str) -> str:
    lines = ["# Selection of subnetworks on real data", "", f"`{command}`,"]
    lines += [f"{datetime.date.today()}; {versions()}; one thread.", HEAD]
    parts = [frame[frame["part"] == part] for part in PARTS if (frame["part"] == part).any()]
    return "\n".join([*lines, *(text for part in parts for text in sections(part))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--splits", type=int, default=20, help="most splits of a data set")
    parser.add_argument("--rows", type=int, default=3000, help="most training rows")
    parser.add_argument("--cache", type=Path, default=Path("selection_study.jsonl"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="one small table, nothing is kept")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    folder, cache = Path(arguments.data), arguments.cache
    wanted = [c for part in arguments.part for c in cases(part, folder, arguments.splits)]
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.quick:
            wanted, arguments.rows = [Case("tables", "heart", "random", 0)], 200
            cache = arguments.results = Path(scratch) / "quick"
        for case in wanted:
            missing = set(methods(case)) - set(read(cache).get(case, ()))
            if missing:
                start = time.perf_counter()
                run(case, load(case, folder, arguments.rows), missing, cache)
                print(*case, f"{time.perf_counter() - start:.0f} s", flush=True)
        command = f"selection_study.py --splits {arguments.splits} --rows {arguments.rows}"
        text = report(complete(read(cache)), command)
    if arguments.quick:
        print(text)
    else:
        arguments.results.write_text(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that a selection has no effect is what is measured
    main()
