"""The default net against other settings of it and against scikit-learn, on 25 tables.

    python examples/benchmarks/tabular_study.py --data DIR                  # both parts, hours
    python examples/benchmarks/tabular_study.py --data DIR --part settings --settings chosen start
    python examples/benchmarks/tabular_study.py --quick                     # only to see it run

DIR (or the environment variable SKSUBNET_DATA) is the folder of the data, see `tabular_data.py`.
A vault of each table, 30 % of its rows and at most 5000, is set apart first.

Part `settings` never opens it: it draws training and test rows from the others, and compares the
settings of the net in `tabular_settings.py` by the trained net alone. The default net is the
setting `chosen`. Part `models` trains on nine tenths of the other rows and scores the vault, once
the settings are chosen. Every result is one line of the file --cache, and what is there is not run
again. The tables go to tabular_study_results.md next to this file.
"""

import argparse
import copy
import datetime
import json
import os
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from study_scores import losses_and_scores
from tabular_data import Rows, Split, table_names
from tabular_report import report
from tabular_settings import SETTINGS, net_of
from threadpoolctl import threadpool_limits
from versions import versions

from sksubnet import (
    DeepEnsembleClassifier,
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
)

PARTS = ("settings", "models")
RESULTS = Path(__file__).with_name("tabular_study_results.md")
OURS = {
    True: (MAPClassifier, SubnetLaplaceClassifier, DeepEnsembleClassifier),
    False: (MAPRegressor, SubnetLaplaceRegressor, DeepEnsembleRegressor),
}
SMALL_TABLE, LARGE_TABLE = 2000, 10_000


class Case(NamedTuple):
    """Which rows: of a part, a table, the random draw, and the most training rows (0: all)."""

    part: str
    table: str
    seed: int
    rows: int


class WithNoise(RegressorMixin, BaseEstimator):
    """A regressor with Gaussian noise, whose deviation a tenth of the training rows tells."""

    def __init__(self, regressor: Any) -> None:
        self.regressor = regressor

    def fit(self, X: np.ndarray, y: np.ndarray) -> "WithNoise":
        train_X, held_X, train_y, held_y = train_test_split(X, y, test_size=0.1, random_state=0)
        self.regressor.fit(train_X, train_y)
        self.std_ = np.sqrt(np.mean((held_y - self.regressor.predict(held_X)) ** 2))
        return self

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        mean = self.regressor.predict(X)
        return (mean, np.full(len(mean), self.std_)) if return_std else mean


def scikit_learn(classify: bool, seed: int) -> dict[str, Any]:
    """The others at their defaults, with scaled inputs where that matters."""
    if not classify:
        stopped = MLPRegressor(random_state=seed, early_stopping=True)
        regressors = {
            "MLP": scaled(MLPRegressor(random_state=seed)),
            "MLP, early stopping": scaled(stopped),
            "HistGradientBoosting": HistGradientBoostingRegressor(random_state=seed),
            "linear": scaled(RidgeCV(np.logspace(-3, 3, 13))),
        }
        return {name: WithNoise(model) for name, model in regressors.items()}
    stopped = scaled(MLPClassifier(random_state=seed, early_stopping=True))
    return {
        "MLP": scaled(MLPClassifier(random_state=seed)),
        "MLP, early stopping": stopped,
        "MLP, early stopping + sigmoid": CalibratedClassifierCV(stopped),
        "MLP, early stopping + temperature": CalibratedClassifierCV(stopped, method="temperature"),
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=seed),
        "linear": scaled(LogisticRegression(max_iter=1000)),
    }


def scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


def fitted(model: Any, split: Split) -> tuple[Any, float]:
    """The model, and the seconds of one processor that its training took."""
    start = time.process_time()
    model.fit(split.X, split.y)
    return model, time.process_time() - start


def compared_models(split: Split, case: Case, missing: set[str]) -> Iterator[tuple[str, Any, Any]]:
    """Names, fitted models and records; the first is what the others' losses are compared with."""
    point, laplace, ensemble = OURS[split.classify]
    with tempfile.TemporaryDirectory() as memory:
        trained, training = fitted(point(memory=memory, random_state=case.seed), split)
        # The second fit takes the trained net from memory, so that its time is the posterior's.
        model, posterior = fitted(laplace(memory=memory, random_state=case.seed), split)
    seconds = {"training": training, "posterior": posterior, "seconds": training + posterior}
    yield "subnetwork Laplace", model, seconds
    yield "MAP", trained, {"seconds": training}
    others = scikit_learn(split.classify, case.seed)
    others["ensemble of 5"] = ensemble(random_state=case.seed)
    for name, other in others.items():
        if name in missing:
            other, seconds = fitted(other, split)
            yield name, other, {"seconds": seconds}
    yield "curvature of all rows", with_held_out(model, split), {}


def with_held_out(model: Any, split: Split) -> Any:
    """The same posterior, but with the curvature of the held-out rows too."""
    net = copy.deepcopy(model.net_).set_params(train_split=None)
    everything = type(model)(
        FrozenEstimator(net),
        selection=model.subnetwork_.indices,
        prior_precision=model.prior_precision_,
        random_state=model.random_state,
        **({} if split.classify else {"noise": model.noise_std_, "normalize_y": False}),
    )
    return everything.fit(split.X, split.y)


def compared_settings(
    split: Split, case: Case, missing: set[str]
) -> Iterator[tuple[str, Any, dict[str, float]]]:
    """Names, trained nets and records of the settings of the net that are wanted."""
    n_classes = len(np.unique(split.y))
    task = ("binary" if n_classes == 2 else "multiclass") if split.classify else "regression"
    for name in SETTINGS:
        if name in missing:
            net = net_of(SETTINGS[name], split.X, task)
            point = OURS[split.classify][0](net, random_state=case.seed)
            model, seconds = fitted(point, split)
            yield name, model, {"seconds": seconds, "epochs": len(model.net_.history)}


def run(case: Case, rows: Rows, missing: set[str], cache: Path) -> None:
    """Fit and score what is missing of a case; one line of the cache for each method."""
    if case.part == "models":
        split = rows.vault_split(case.seed)
        models = compared_models(split, case, missing)
    else:
        split = rows.inner_split(case.seed, case.rows)
        models = compared_settings(split, case, missing)
    reference = None
    shape = {"classify": split.classify, "n_rows": len(split.X), "n_features": split.X.shape[1]}
    for method, model, record in models:
        losses, scores = losses_and_scores(model, split.classify, split.test_X, split.test_y)
        reference = losses if reference is None else reference
        # of the same rows: paired, and so hardly noisy
        excess = losses - reference
        scores["excess"] = float(excess.mean())
        scores["excess_error"] = float(excess.std() / np.sqrt(len(excess)))
        if method in missing:
            with cache.open("a") as file:
                line = {**case._asdict(), "method": method, **shape, **record, **scores}
                file.write(json.dumps(line) + "\n")


def read(cache: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cache.read_text().splitlines()] if cache.exists() else []


def methods(part: str, classify: bool, settings: list[str]) -> list[str]:
    """Names of what is compared."""
    if part == "settings":
        return settings
    names = ["subnetwork Laplace", "MAP", "ensemble of 5", *scikit_learn(classify, 0)]
    return [*names, "curvature of all rows"]


def n_repeats(part: str, rows: Rows, wanted: int) -> int:
    """Fewer draws where each tells more."""
    if part == "models":
        return wanted if rows.n_development() <= LARGE_TABLE else 1
    return wanted if rows.n_development() >= SMALL_TABLE else 3 * wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--tables", nargs="+", help="some tables instead of all")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=3, help="random draws of training rows")
    parser.add_argument("--rows", type=int, default=3000, help="most training rows of `settings`")
    parser.add_argument("--cache", type=Path, default=Path("tabular_study.jsonl"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="small tables, nothing is kept")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    folder, cache = None if arguments.quick else Path(arguments.data), arguments.cache
    command = "tabular_study.py --part " + " ".join(arguments.part)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.quick:
            arguments.repeats, arguments.settings = 1, arguments.settings[:3]
            cache = arguments.results = Path(scratch) / "quick"
        done = defaultdict(set)
        for line in read(cache):
            done[Case(*(line[key] for key in Case._fields))].add(line["method"])
        for table in arguments.tables or table_names(folder):
            rows, start = Rows(table, folder), time.perf_counter()
            for part in arguments.part:
                names = methods(part, rows.classify, arguments.settings)
                for seed in range(n_repeats(part, rows, arguments.repeats)):
                    case = Case(part, table, seed, arguments.rows if part == "settings" else 0)
                    missing = set(names) - done[case]
                    if missing:
                        run(case, rows, missing, cache)
            print(table, f"{time.perf_counter() - start:.0f} s", flush=True)
        head = f"`{command}`,\n{datetime.date.today()}; {versions()}; one thread."
        text = report(read(cache), head)
    if arguments.quick:
        print(text)
    else:
        arguments.results.write_text(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that a fit has not converged is part of a default
    with threadpool_limits(1):
        main()
