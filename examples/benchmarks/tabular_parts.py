"""Parts of `tabular_study.py`: which cases each has, and what it measures of a model there."""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import study_data
from sklearn.datasets import make_classification, make_regression
from strange_rows import strange_rows, unseen_category
from study_data import TABLES as SHIFTED_TABLES
from study_scores import losses_and_scores
from tabular_data import SHIPPED, Split, frame_of, rows_of, standardised
from tabular_models import MODELS, Model

MOST_ROWS = 3000
SHIFT_ROWS = FAR_ROWS = ORDER_ROWS = 2000
SMALL_SIZES = (20, 40, 60, 99, 100, 150, 300)
N_SEEDS, N_ORDERS = 10, 6
TIMED_ROWS, TIMED_FEATURES = 1000, 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Case(NamedTuple):
    """Which rows: of a part, a table, the most training rows, the random draw."""

    part: str
    table: str
    rows: int
    seed: int


class Part(NamedTuple):
    """Sizes by table, with the data and without; draws; models; what is measured of one."""

    sizes: dict[str, tuple[int, ...]]
    quick_sizes: dict[str, tuple[int, ...]]
    repeats: int
    models: tuple[str, ...]
    measure: Callable[[Case, Model, Path | None], dict[str, Any]]
    ours_only: bool = False

    def cases(self, name: str, quick: bool, repeats: int | None) -> Iterator[Case]:
        """All tables of a draw before the next draw, the small ones first."""
        sizes = self.quick_sizes if quick else self.sizes
        pairs = [(rows, table) for table, each in sizes.items() for rows in each]
        for seed in range(self.repeats if repeats is None else min(repeats, self.repeats)):
            yield from (Case(name, table, rows, seed) for rows, table in sorted(pairs))


# Where a table has fewer rows, the size is that of 90 % of those outside the vault.
MODEL_SIZES = {
    # classification
    "iris": (94,),
    "cultivars": (112,),
    "cancer": (150, 359),
    "pima": (484,),
    "vehicle": (533,),
    "heart": (579,),
    "german": (630,),
    "segment": (300, 1000),
    "digits": (1000,),
    "dna": (500, 2000),
    "spambase": (300, 2000),
    "churn": (1000,),
    "phoneme": (150, 500, 3000),
    "satellite": (500, 2000),
    "telco": (500, 3000),
    "letter": (2000,),
    "default": (1000,),
    "bank": (2000,),
    "adult": (200, 1000, 3000),
    "elec2": (1000,),
    "weather": (1000,),
    "higgs": (2000,),
    # regression
    "yacht": (194,),
    "diabetes": (279,),
    "energy": (484,),
    "concrete": (648,),
    "ames": (1000,),
    "abalone": (300, 2000),
    "wine": (1000,),
    "kin8nm": (1000, 3000),
    "naval": (1000,),
    "power": (500,),
    "protein": (2000,),
    "bike": (500, 3000),
    "california": (500, 3000),
    "diamonds": (500, 3000),
    "pm25": (2000,),
}
SMALL_TABLES = (
    *("cancer", "heart", "pima", "vehicle", "phoneme"),
    *("diabetes", "concrete", "energy", "abalone", "california"),
)
FAR_TABLES = (
    *("diabetes", "california", "bike", "diamonds", "abalone", "ames"),
    *("bank", "adult", "german", "telco"),
)
QUICK_TABLES = ("iris", "diabetes")


def of_rows(names: tuple[str, ...], *rows: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names, rows)


# ---- tables with a shift ------------------------------------------------------------------------


def other_site(site: str) -> Callable[[pd.DataFrame], Any]:
    return lambda table: table["site"] == site


SITES = ("cleveland", "hungarian", "switzerland", "va")
SHIFTS = {
    **SHIFTED_TABLES,
    **{
        f"heart, {site}": SHIFTED_TABLES["heart"]._replace(is_shifted=other_site(site))
        for site in SITES
    },
}
QUICK_SHIFTS = {
    "diabetes": study_data.Table("", False, lambda table: table["age"] > 60),
    "cultivars": study_data.Table("", True, lambda table: table["alcohol"] > 14),
}


@lru_cache(maxsize=3)
def shifted_rows(case: Case, folder: Path | None) -> study_data.Rows:
    """Training rows, test rows like them, and test rows of the shift."""
    if folder is None:
        frame, y = frame_of(SHIPPED[case.table], None)
        table, spec = frame.assign(target=y), QUICK_SHIFTS[case.table]
    else:
        spec = SHIFTS[case.table]
        table = pd.read_csv(folder / f"tab_{spec.file}.csv.gz")
    rows = study_data.split_table(table, spec, case.seed, case.rows)
    names, tests = rows.tests.keys(), list(rows.tests.values())
    targets = [rows.y, *(y for _, y in tests)]
    if rows.classify:
        labels = np.unique(np.concatenate(targets))
        targets = [np.searchsorted(labels, y) for y in targets]
    else:
        targets = list(standardised(*targets))
    inputs = (X.astype(float) for X, _ in tests)
    return rows._replace(
        X=rows.X.astype(float),
        y=targets[0],
        tests=dict(zip(names, zip(inputs, targets[1:], strict=True), strict=True)),
    )


# ---- what is measured ---------------------------------------------------------------------------


class Unsuited(Exception):
    """The rows or classes are more than a model can afford."""


@lru_cache(maxsize=1)
def start_torch() -> None:
    """The first training of a process takes long: not that of a model that is timed."""
    X = np.linspace(-1, 1, 20)[:, None]
    MODELS["MAP"].build(False, 0).fit(X, X[:, 0])


def fitted(
    model: Model, classify: bool, seed: int, X: np.ndarray, y: np.ndarray
) -> tuple[Any, float]:
    """An estimator, and the seconds of one processor that its training took."""
    if not model.suits(classify, y):
        raise Unsuited
    start_torch()
    estimator, start = model.build(classify, seed), time.process_time()
    estimator.fit(X, y)
    return estimator, time.process_time() - start


def fitted_to(split: Split, model: Model, seed: int) -> tuple[Any, float]:
    return fitted(model, split.classify, seed, split.X, split.y)


def shape(classify: bool, X: np.ndarray) -> dict[str, Any]:
    return {"classify": classify, "n_rows": len(X), "n_features": X.shape[1]}


def measure_models(case: Case, model: Model, folder: Path | None) -> dict[str, Any]:
    """Scores of the vault, and seconds."""
    split = rows_of(case.table, folder).vault_split(case.seed, case.rows)
    trained, seconds = fitted_to(split, model, case.seed)
    start = time.process_time()
    _, scores = losses_and_scores(trained, split.classify, split.test_X, split.test_y)
    predicting = time.process_time() - start
    times = {"fit_seconds": seconds, "predict_seconds": predicting, "n_scored": len(split.test_y)}
    return {**shape(split.classify, split.X), **times, **scores}


def measure_shifts(case: Case, model: Model, folder: Path | None) -> dict[str, Any]:
    """Losses with and without the shift."""
    rows = shifted_rows(case, folder)
    trained, seconds = fitted(model, rows.classify, case.seed, rows.X, rows.y)
    record = {**shape(rows.classify, rows.X), "fit_seconds": seconds}
    for name, (X, y) in rows.tests.items():
        _, scores = losses_and_scores(trained, rows.classify, X, y)
        record["scores" if name == "in distribution" else "shifted_scores"] = scores
    return record


def measure_small(case: Case, model: Model, folder: Path | None) -> dict[str, Any]:
    """Losses of the vault, and by how much they exceed those of a constant and a linear model."""
    split = rows_of(case.table, folder).vault_split(case.seed, case.rows)
    test = split.classify, split.test_X, split.test_y
    trained, seconds = fitted_to(split, model, case.seed)
    losses, scores = losses_and_scores(trained, *test)
    record = {**shape(split.classify, split.X), "fit_seconds": seconds, **scores}
    for name in ("constant", "linear"):
        other, _ = fitted_to(split, MODELS[name], case.seed)
        # of the same rows: paired
        excess = losses - losses_and_scores(other, *test)[0]
        record[f"over_{name}"] = float(excess.mean())
        record[f"over_{name}_error"] = float(excess.std() / np.sqrt(len(excess)))
    return record


def quantiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values, QUANTILES)]


def doubts(model: Any, classify: bool, X: np.ndarray) -> dict[str, list[float]]:
    """Quantiles over the rows of what a model says about its own uncertainty."""
    predictive = model.predictive(X)
    if not classify:
        parts = {part: predictive.std(part)[:, 0] for part in ("epistemic", "total")}
        return {part: quantiles(values) for part, values in parts.items()}
    variance = predictive.covariance.diagonal(dim1=1, dim2=2).mean(dim=1).double().numpy()
    values = {"epistemic": np.sqrt(variance), "mutual information": predictive.entropy("epistemic")}
    return {part: quantiles(each) for part, each in values.items()}


def measure_far(case: Case, model: Model, folder: Path | None) -> dict[str, Any]:
    """Uncertainty of rows of all kinds; the loss where a target makes sense."""
    split = rows_of(case.table, folder).vault_split(case.seed, case.rows, all_levels=True)
    trained, _ = fitted_to(split, model, case.seed)
    kinds = {}
    for name, X in strange_rows(split, case.seed).items():
        kinds[name] = doubts(trained, split.classify, X)
        if name in ("test rows", "unseen category"):
            _, scores = losses_and_scores(trained, split.classify, X, split.test_y)
            kinds[name]["loss"] = scores["loss"]
    return {**shape(split.classify, split.X), "kinds": kinds}


def mean_doubt(model: Any, split: Split) -> float:
    """Mean over the vault of the epistemic deviation, or of the mutual information."""
    predictive = model.predictive(split.test_X)
    values = predictive.entropy("epistemic") if split.classify else predictive.std("epistemic")
    return float(values.mean())


def measure_seeds(case: Case, model: Model, folder: Path | None) -> dict[str, Any]:
    """The same rows with another seed."""
    split = rows_of(case.table, folder).vault_split(0, case.rows)
    trained, _ = fitted_to(split, model, case.seed)
    return {**shape(split.classify, split.X), "doubt": mean_doubt(trained, split)}


def measure_orders(case: Case, model: Model, folder: Path | None) -> dict[str, Any]:
    """The same rows and seed in another order: the median for rows of an unseen category."""
    split = rows_of(case.table, folder).vault_split(0, case.rows, all_levels=True)
    order = np.random.default_rng(case.seed).permutation(len(split.X))
    trained, _ = fitted(model, split.classify, 0, split.X[order], split.y[order])
    std = trained.predictive(unseen_category(split)).std("epistemic")
    return {**shape(split.classify, split.X), "doubt": float(np.median(std))}


def measure_time(case: Case, model: Model, folder: Path | None) -> dict[str, Any]:
    """Seconds of one processor for rows that are drawn."""
    classify = case.table == "classification"
    total = 3 * case.rows
    informative = {"n_informative": TIMED_FEATURES // 2, "random_state": case.seed}
    if classify:
        X, y = make_classification(
            total, TIMED_FEATURES, n_clusters_per_class=4, class_sep=0.7, **informative
        )
    else:
        X, y = make_regression(total, TIMED_FEATURES, noise=50.0, **informative)
    train, test = slice(case.rows), slice(case.rows, None)
    trained, seconds = fitted(model, classify, case.seed, X[train], y[train])
    start = time.process_time()
    if classify:
        trained.predict_proba(X[test])
    else:
        trained.predict(X[test], return_std=True)
    per_row = (time.process_time() - start) / len(X[test])
    return {**shape(classify, X[train]), "fit_seconds": seconds, "seconds_a_row": per_row}


OURS = ("released default", "default", "MAP")
FEW = (*OURS, "ensemble of 5", "ensemble of 5 posteriors", "linear", "HistGradientBoosting")
EVERYTHING = tuple(name for name in MODELS if name != "constant")
QUICKSTART = ("iris", "cultivars", "cancer", "digits", "diabetes")
TASKS = ("classification", "regression")
PARTS = {
    "models": Part(MODEL_SIZES, {"iris": (94,), "diabetes": (150,)}, 5, EVERYTHING, measure_models),
    "shifts": Part(
        of_rows(tuple(SHIFTS), SHIFT_ROWS),
        of_rows(tuple(QUICK_SHIFTS), 100),
        5,
        FEW,
        measure_shifts,
    ),
    "small": Part(
        of_rows(SMALL_TABLES, *SMALL_SIZES),
        of_rows(QUICK_TABLES, 20, 60),
        3,
        ("released default", "default", "constant", "linear"),
        measure_small,
    ),
    "far": Part(
        of_rows(FAR_TABLES, FAR_ROWS), of_rows(QUICK_TABLES, 150), 5, OURS, measure_far, True
    ),
    "seeds": Part(
        of_rows(QUICKSTART, MOST_ROWS),
        of_rows(QUICK_TABLES, 100),
        N_SEEDS,
        ("released default", "default"),
        measure_seeds,
        True,
    ),
    "orders": Part(
        of_rows(("diabetes", "abalone"), ORDER_ROWS),
        of_rows(("diabetes",), 150),
        N_ORDERS,
        ("released default", "default"),
        measure_orders,
        True,
    ),
    "time": Part(of_rows(TASKS, TIMED_ROWS), of_rows(TASKS, 200), 5, OURS, measure_time),
}
