"""Two real tables, from missing values and text columns to calibrated predictions.

    python examples/tabular_pipeline.py --data DIR

DIR (or the environment variable SKSUBNET_DATA) holds `tab_adult.csv.gz` and
`tab_california_housing.csv.gz`: one header line, the target is the last column, missing values are
empty fields. Without it two tables that scikit-learn ships are used. A grid search over three
subnetwork sizes trains the net once per fold, because `memory` keeps it.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.metrics import (
    expected_calibration_error,
    gaussian_nll,
    interval_coverage,
    neg_gaussian_nll_scorer,
)

SIZES = [0.01, 0.03, 0.1]


def adult(folder: Path) -> tuple[pd.DataFrame, pd.Series]:
    """Who earns more than 50 000 dollars a year; 9 text columns, missing values."""
    table = pd.read_csv(folder / "tab_adult.csv.gz").drop(columns="official_split")
    return table.iloc[:, :-1], table.iloc[:, -1]


def california_housing(folder: Path) -> tuple[pd.DataFrame, pd.Series]:
    """Median house value of a district in 100 000 dollars; 1 text column, missing values."""
    table = pd.read_csv(folder / "tab_california_housing.csv.gz")
    return table.iloc[:, :-1], table.iloc[:, -1] / 1e5


def diabetes() -> tuple[pd.DataFrame, pd.Series]:
    """Progression of the disease, with the sex as a text column."""
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    return X.assign(sex=X["sex"].map({1.0: "one", 2.0: "two"})), y


def pipeline(model: SubnetLaplaceClassifier | SubnetLaplaceRegressor) -> Pipeline:
    """Fill in missing values, encode text; the default net scales its inputs itself."""
    columns = make_column_transformer(
        (
            make_pipeline(
                SimpleImputer(strategy="most_frequent"),
                OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20),
            ),
            make_column_selector(dtype_exclude="number"),
        ),
        (SimpleImputer(strategy="median"), make_column_selector(dtype_include="number")),
        sparse_threshold=0,
    )
    return Pipeline([("columns", columns), ("model", model)])


def search(model, X, y, scoring) -> GridSearchCV:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        grid = {"model__subnetwork_size": SIZES}
        model = pipeline(model.set_params(memory=folder))
        found = GridSearchCV(model, grid, scoring=scoring, cv=3).fit(X, y)
    for message, times in Counter(str(warning.message) for warning in caught).items():
        print(f"  {times} of {3 * len(SIZES) + 1} fits warned: {message}")
    return found


def classify(title: str, X: pd.DataFrame, y: pd.Series, seed: int) -> None:
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.2, stratify=y, random_state=seed
    )
    print(f"\n{title}: {len(X_train)} rows to train on, {X.shape[1]} columns")
    model = SubnetLaplaceClassifier(random_state=seed)
    found = search(model, X_train, y_train, "neg_log_loss")
    report_search(found, "log loss")

    columns, best = found.best_estimator_[:-1], found.best_estimator_[-1]
    rows = columns.transform(X_test)
    print(f"{'held-out rows':<16}{'log loss':>10}{'accuracy':>10}{'ECE':>10}")
    for name, p in {
        "plain nets": best.predict_proba_map(rows),
        "subnetwork": best.predict_proba(rows),
    }.items():
        accuracy = accuracy_score(y_test, best.classes_[p.argmax(axis=1)])
        error = expected_calibration_error(y_test, p)
        print(f"{name:<16}{log_loss(y_test, p):10.4f}{accuracy:10.4f}{error:10.4f}")


def regress(title: str, X: pd.DataFrame, y: pd.Series, seed: int) -> None:
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=seed)
    print(f"\n{title}: {len(X_train)} rows to train on, {X.shape[1]} columns")
    model = SubnetLaplaceRegressor(random_state=seed)
    found = search(model, X_train, y_train, neg_gaussian_nll_scorer)
    report_search(found, "NLL")

    columns, best = found.best_estimator_[:-1], found.best_estimator_[-1]
    rows = columns.transform(X_test)
    mean, std = best.predict(rows, return_std=True)
    lower, upper = best.predict_interval(rows, coverage=0.9).T
    noise = best.predictive(rows).std("aleatoric")[:, 0]
    print(f"{'held-out rows':<16}{'RMSE':>10}{'NLL':>10}{'90 % interval covers':>22}")
    for name, sd in {"plain nets": noise, "subnetwork": std}.items():
        half = (upper - lower) / 2 * sd / std
        covered = interval_coverage(y_test, mean - half, mean + half)
        rmse, nll = root_mean_squared_error(y_test, mean), gaussian_nll(y_test, mean, sd)
        print(f"{name:<16}{rmse:10.4f}{nll:10.4f}{covered:22.4f}")


def report_search(found: GridSearchCV, score: str) -> None:
    best = found.best_estimator_[-1]
    for size, mean in zip(SIZES, -found.cv_results_["mean_test_score"], strict=True):
        chosen = "  <- chosen" if size == found.best_params_["model__subnetwork_size"] else ""
        print(f"  {size:.0%} of the weights: {score} {mean:.4f} in cross-validation{chosen}")
    n_nets, n_weights = len(best.folds_), len(best.folds_[0].subnetwork)
    prior = best.prior_precision_
    print(f"  {n_nets} nets, {n_weights} weights of each, prior precision {prior:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), metavar="DIR")
    parser.add_argument("--rows", type=int, help="use this many random rows of each table")
    parser.add_argument("--quick", action="store_true", help="the same as --rows 150")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    if arguments.data:
        folder = Path(arguments.data)
        tables = {"adult": adult(folder), "california_housing": california_housing(folder)}
    else:
        print("No --data and no SKSUBNET_DATA: using tables that scikit-learn ships.")
        tables = {
            "breast cancer": load_breast_cancer(return_X_y=True, as_frame=True),
            "diabetes": diabetes(),
        }
    n_rows = 150 if arguments.quick else arguments.rows
    for (title, (X, y)), run in zip(tables.items(), (classify, regress), strict=True):
        if n_rows is not None and n_rows < len(X):
            X = X.sample(n_rows, random_state=arguments.seed)
            y = y.loc[X.index]
        start = time.perf_counter()
        run(title, X, y, arguments.seed)
        print(f"  {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
