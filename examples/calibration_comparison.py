"""Calibration of Bayesian nets on the rows they were made for, and under shift.

    python examples/calibration_comparison.py                          # odd and even digits
    python examples/calibration_comparison.py --data DIR               # heart disease by hospital
    python examples/calibration_comparison.py --data DIR --table bank  # bank calls by date

Every method fits the same default net in each fold of a cross-validation and is scored on the
fold's test rows and on a shifted set. Without --data (or the environment variable SKSUBNET_DATA)
the nets learn from handwritten digits with a light middle and are asked about those with a dark
one. DIR holds `tab_heart_disease_4sites.csv.gz` or `tab_bank_marketing.csv.gz`: one header line,
the target is the last column, missing values are empty fields. Prints a table of proper scores and
writes reliability diagrams to calibration_comparison.png.
"""

import argparse
import os
import warnings
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sksubnet import (
    Comparison,
    DeepEnsembleClassifier,
    MAPClassifier,
    MCDropoutClassifier,
    SubnetLaplaceClassifier,
    SWAGClassifier,
    VOGNClassifier,
    compare,
)

COLOURS = ["tab:blue", "tab:orange"]
BINS = np.linspace(0, 1, 11)

# rows, labels, and which rows are shifted
Table = tuple[pd.DataFrame, pd.Series, np.ndarray]


def digits() -> Table:
    """Is a handwritten digit odd? Images with a dark pixel in their middle are shifted."""
    X, y = load_digits(return_X_y=True, as_frame=True)
    return X, y % 2, (X["pixel_3_4"] > 12).to_numpy()


def heart(folder: Path) -> Table:
    """Has a patient a heart disease? Zürich, Basel and Long Beach are shifted."""
    table = pd.read_csv(folder / "tab_heart_disease_4sites.csv.gz")
    codes = ["cp", "restecg", "slope", "thal"]
    table[codes] = table[codes].map(lambda code: f"type {code:.0f}", na_action="ignore")
    table["chol"] = table["chol"].replace(0, np.nan)  # not recorded
    X, y = table.drop(columns=["site", "disease"]), table["disease"]
    return X, y, table["site"].isin(["switzerland", "va"]).to_numpy()


def bank(folder: Path) -> Table:
    """Does a client subscribe? The last 40 % of the calls, in order of date, are shifted."""
    table = pd.read_csv(folder / "tab_bank_marketing.csv.gz")
    # how long a call took is known only after it
    X, y = table.drop(columns=["duration", "y"]), table["y"]
    return X, y, np.arange(len(table)) >= 0.6 * len(table)


def methods(seed: int, n_members: int) -> dict[str, BaseEstimator]:
    """Everything that this package and scikit-learn offer for the default net."""
    net = MAPClassifier(random_state=seed)
    version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    method = "temperature" if version >= (1, 8) else "sigmoid"
    held_out = StratifiedShuffleSplit(1, test_size=0.2, random_state=seed)
    subnetwork = SubnetLaplaceClassifier(random_state=seed)
    return {
        "MAP": net,
        f"{method} scaling": CalibratedClassifierCV(net, method=method, cv=held_out),
        "MC dropout": MCDropoutClassifier(random_state=seed),
        "deep ensemble": DeepEnsembleClassifier(n_members=n_members, random_state=seed),
        "SWAG": SWAGClassifier(random_state=seed),
        "VOGN": VOGNClassifier(random_state=seed),
        "last layer": SubnetLaplaceClassifier(selection="last_layer", random_state=seed),
        "diagonal Laplace": SubnetLaplaceClassifier(
            subnetwork_size="all", covariance="diag", random_state=seed
        ),
        "random subnetwork": SubnetLaplaceClassifier(selection="random", random_state=seed),
        "subnetwork": subnetwork,
        "ensemble of subnetworks": DeepEnsembleClassifier(
            subnetwork, n_members=n_members, random_state=seed
        ),
    }


def pipeline(model: BaseEstimator) -> Pipeline:
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
    return make_pipeline(columns, model)


def draw(result: Comparison, sets: dict[str, tuple[list, pd.Series]]) -> Figure:
    """For each method a reliability diagram above a histogram of its probabilities.

    ``sets`` gives the rows that each fold's fit is asked about, and the labels of them all.
    """
    n_columns = 4
    n_rows = -(-(len(result.names) + 1) // n_columns)  # one place is the legend's
    figure = plt.figure(figsize=(2.9 * n_columns, 3.4 * n_rows), layout="constrained")
    places = iter(figure.add_gridspec(n_rows, n_columns))
    log_loss = result.mean()[:, :, list(result.better).index("log loss")]
    for name, losses in zip(result.names, log_loss.T, strict=True):
        grid = next(places).subgridspec(2, 1, height_ratios=[4, 1], hspace=0)
        upper, lower = grid.subplots(sharex=True)
        for (label, (rows, y)), colour in zip(sets.items(), COLOURS, strict=True):
            fits = zip(result.estimators[name], rows, strict=True)
            p = np.concatenate([fit.predict_proba(X)[:, 1] for fit, X in fits])
            CalibrationDisplay.from_predictions(
                y == y.max(),
                p,
                n_bins=len(BINS) - 1,
                name=label,
                ax=upper,
                color=colour,
                markersize=4,
            )
            shares = np.full(len(p), 1 / len(p))
            lower.hist(p, BINS, weights=shares, histtype="step", color=colour, linewidth=1.5)
        handles = upper.get_legend_handles_labels()
        upper.get_legend().remove()
        upper.set(xlabel="", ylabel="", ylim=(-0.03, 1.03))
        upper.set_title("{}\nlog loss {:.2f} → {:.2f}".format(name, *losses), fontsize="medium")
        lower.set(yscale="log", ylim=(1e-3, 1.5), yticks=[1e-3, 1])
    legend = figure.add_subplot(next(places))
    legend.axis("off")
    legend.legend(*handles, loc="center", frameon=False)
    figure.supxlabel("predicted probability")
    figure.supylabel("share of positive rows, and of all rows below")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), metavar="DIR")
    parser.add_argument("--table", choices=["heart", "bank"], default="heart")
    parser.add_argument("--rows", type=int, default=2000, help="at most, shifted or not")
    parser.add_argument("--quick", action="store_true", help="200 rows, two folds and members")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("calibration_comparison.png"))
    arguments = parser.parse_args()
    n_folds, n_members, n_rows = (2, 2, 200) if arguments.quick else (5, 5, arguments.rows)

    if arguments.data:
        X, y, is_shifted = {"heart": heart, "bank": bank}[arguments.table](Path(arguments.data))
    else:
        print("No --data and no SKSUBNET_DATA: using a table that scikit-learn ships.")
        X, y, is_shifted = digits()
    generator = np.random.default_rng(arguments.seed)
    known, shifted = (
        generator.permutation(np.flatnonzero(kind))[:n_rows] for kind in (~is_shifted, is_shifted)
    )
    print(f"{len(known)} rows to cross-validate on, {len(shifted)} shifted, {X.shape[1]} columns\n")
    X, y, shifted_X, shifted_y = X.iloc[known], y.iloc[known], X.iloc[shifted], y.iloc[shifted]

    folds = list(StratifiedKFold(n_folds).split(X, y))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = compare(
            {name: pipeline(model) for name, model in methods(arguments.seed, n_members).items()},
            X,
            y,
            cv=folds,
            shifted={"shifted": (shifted_X, shifted_y)},
            verbose=1,
        )
    print(result)
    for message, times in Counter(str(warning.message) for warning in caught).items():
        print(f"  {times} times warned: {message}")

    sets = {
        "test folds": (
            [X.iloc[test] for _, test in folds],
            pd.concat([y.iloc[test] for _, test in folds]),
        ),
        "shifted": ([shifted_X] * len(folds), pd.concat([shifted_y] * len(folds))),
    }
    draw(result, sets).savefig(arguments.out, dpi=120)
    print(f"Reliability diagrams: {arguments.out}")


if __name__ == "__main__":
    main()
