"""Tables, nets and numbers of calls that are large for one machine, each within a bound on memory.

Every line is a process of its own: what was done, how long it took, the memory at its peak beyond
what the rows and the fitted model take, and the bound on that. Ends with an error where a bound is
broken. ``--quick`` takes a hundredth of the sizes, in one process.
"""

import argparse
import gc
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from measure import Cost, in_child, measured, resident

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

LAPLACE = {"subnetwork_size": 200, "random_state": 0}
WARM_UP = 0.2
"""Share of the repeated calls after which memory has to stay as it is."""


def table(n_rows: int, n_columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and a target that depends on three of the columns."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_columns))
    return X, np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * rng.normal(size=n_rows)


def predict_many_rows(share: float) -> Cost:
    X, y = table(1000, 20)
    model = SubnetLaplaceRegressor(cv=None, **LAPLACE).fit(X, y)
    rows, _ = table(int(1e6 * share), 20, seed=1)
    model.predict(rows[:5000], return_std=True)
    with measured() as cost:
        mean, std = model.predict(rows, return_std=True)
    assert np.isfinite(mean).all() and (std > 0).all() and len(mean) == len(rows)
    return cost


def predict_many_categories(share: float) -> Cost:
    """Ten columns of fifty categories each would be 500 inputs for each row."""
    import pandas as pd

    rng = np.random.default_rng(0)
    levels = np.array([f"level {k}" for k in range(50)])

    def rows_of(n: int) -> pd.DataFrame:
        codes = rng.integers(50, size=(n, 10))
        return pd.DataFrame({f"c{j}": pd.Categorical(levels[codes[:, j]]) for j in range(10)})

    X = rows_of(2000)
    y = (X["c0"].cat.codes < 25).to_numpy().astype(int)
    model = SubnetLaplaceClassifier(cv=None, **LAPLACE).fit(X, y)
    rows = rows_of(int(3e5 * share))
    model.predict_proba(rows[:5000])
    with measured() as cost:
        found = model.predict_proba(rows)
    assert np.isfinite(found).all() and len(found) == len(rows)
    return cost


def many_classes(share: float) -> Cost:
    n_classes = max(3, int(100 * share**0.5))
    X, _ = table(int(2000 * max(share, 0.1)), 20)
    y = np.resize(np.arange(n_classes), len(X))
    with measured() as cost:
        model = SubnetLaplaceClassifier(cv=None, **LAPLACE).fit(X, y)
        found = model.predict_proba(X)
    assert found.shape == (len(X), n_classes)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-9)
    return cost


def many_targets(share: float) -> Cost:
    n_targets = max(3, int(50 * share**0.5))
    X, y = table(int(2000 * max(share, 0.1)), 20)
    Y = y[:, None] * np.arange(1, n_targets + 1)
    with measured() as cost:
        mean, std = SubnetLaplaceRegressor(cv=None, **LAPLACE).fit(X, Y).predict(X, return_std=True)
    assert mean.shape == std.shape == Y.shape
    return cost


def many_columns(share: float) -> Cost:
    X, y = table(int(500 * max(share, 0.2)), int(2000 * max(share, 0.02)))
    with measured() as cost:
        model = SubnetLaplaceRegressor(cv=None, **LAPLACE).fit(X, y)
        mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all() and (std > 0).all()
    return cost


def growth(call: Callable[[], object], n_calls: int) -> Cost:
    """Memory that calls leave behind after the first share of them."""
    for _ in range(max(2, int(WARM_UP * n_calls))):
        call()
    gc.collect()
    before = resident()
    with measured() as cost:
        for _ in range(n_calls):
            call()
    gc.collect()
    cost.mebibytes = (resident() - before) / 1024
    return cost


def single_rows(share: float) -> Cost:
    X, y = table(500, 10)
    model = SubnetLaplaceRegressor(cv=2, **LAPLACE).fit(X, y)
    rows = iter(np.tile(X, (10, 1)))
    return growth(lambda: model.predict(next(rows)[None], return_std=True), int(1000 * share**0.5))


def many_fits(share: float) -> Cost:
    X, y = table(60, 4)
    settings = {"subnetwork_size": 20, "selection": "magnitude", "prior_precision": 1.0}

    def fit() -> None:
        SubnetLaplaceRegressor(cv=None, random_state=0, **settings).fit(X, y)

    return growth(fit, int(100 * share**0.5))


def eight_threads(share: float) -> Cost:
    X, y = table(500, 10)
    model = SubnetLaplaceRegressor(cv=2, **LAPLACE).fit(X, y)
    rows, _ = table(int(2e5 * share), 10, seed=1)
    expected, failures = model.predict(rows, return_std=True), []

    def work() -> None:
        found = model.predict(rows, return_std=True)
        if not all(map(np.array_equal, found, expected)):
            failures.append("a thread was told something else than the others")

    threads = [threading.Thread(target=work) for _ in range(8)]
    with measured() as cost:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]
    return cost


@dataclass(frozen=True)
class Load:
    """What is done, and the MiB that it may take."""

    run: Callable[[float], Cost]
    what: str
    mebibytes: float


LOADS = (
    Load(predict_many_rows, "predict 1 000 000 rows of 20 columns, with std", 600),
    Load(predict_many_categories, "predict 300 000 rows of ten columns of 50 categories", 600),
    Load(many_classes, "fit and predict 100 classes, 2000 rows", 1500),
    Load(many_targets, "fit and predict 50 targets, 2000 rows", 1500),
    Load(many_columns, "fit and predict 2000 columns, 500 rows", 1500),
    Load(single_rows, "1000 predictions of one row: growth", 30),
    Load(many_fits, "100 fits: growth", 30),
    Load(eight_threads, "eight threads predict 200 000 rows each", 1500),
)


def run(load: Load, share: float) -> Cost:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return load.run(share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the sizes")
    quick = parser.parse_args().quick
    broken = []
    for load in LOADS:
        cost = run(load, 0.01) if quick else in_child(run, load, 1.0)
        print(f"{load.what:55s} {cost}  of {load.mebibytes:5.0f} MiB", flush=True)
        if cost.mebibytes > load.mebibytes:  # never where the system does not tell
            broken.append(load.what)
    if broken:
        sys.exit(f"more memory than the bound: {broken}")


if __name__ == "__main__":
    main()
