"""Calibration of Bayesian nets on the rows they were made for, and under shift.

    python examples/calibration_comparison.py                          # odd and even digits
    python examples/calibration_comparison.py --data DIR               # heart disease by hospital
    python examples/calibration_comparison.py --data DIR --table bank  # bank calls by date

Every method fits the same default net in each fold of a cross-validation and is scored on the
fold's test rows and on a shifted set. Without --data (or the environment variable SKSUBNET_DATA)
the nets learn from handwritten digits with a light middle and are asked about those with a dark
one. DIR holds `tab_heart_disease_4sites.csv.gz` or `tab_bank_marketing.csv.gz`: one header line,
the target is the last column, missing values are empty fields. Prints a table of proper scores and
draws calibration_comparison.png: first what each method changes about the log loss, with its error,
then a reliability diagram of each.
"""

import argparse
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
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
from sksubnet.displays import ReliabilityDisplay

STYLES = (
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
)
N_BINS = 8

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


def draw_summary(figure: Any, result: Comparison) -> None:
    """What each method changes about the log loss, on both sets, with its error."""
    difference, error = result.difference()
    score = list(result.better).index("log loss")
    n_folds = result.values.shape[-1]
    spread = [f"standard error over {n_folds} folds", f"standard deviation over {n_folds} fits"]
    axes = figure.subplots(1, len(result.sets), sharey=True)
    for ax, name, mean, bar, what, style in zip(
        axes, result.sets, difference, error, spread, STYLES, strict=True
    ):
        form = {**style, "linestyle": ""}
        ax.errorbar(mean[1:, score], result.names[1:], xerr=bar[1:, score], elinewidth=1, **form)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.set(title=name, xlabel=f"log loss minus that of {result.names[0]} (nats)\n± {what}")
        ax.locator_params(axis="x", nbins=5)
    axes[0].invert_yaxis()


def draw_curves(
    figure: Any, result: Comparison, sets: dict[str, tuple[list, pd.Series]], n_columns: int
) -> None:
    """For each method, how often what it predicts happens."""
    n_rows = -(-(len(result.names) + 1) // n_columns)  # one place is the legend's
    axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True)
    log_loss = result.mean()[:, :, list(result.better).index("log loss")]
    for ax, name, losses in zip(axes.flat, result.names, log_loss.T, strict=False):
        for (label, (rows, y)), style in zip(sets.items(), STYLES, strict=True):
            fits = zip(result.estimators[name], rows, strict=True)
            p = np.concatenate([fit.predict_proba(X)[:, 1] for fit, X in fits])
            ReliabilityDisplay.from_predictions(
                y, p, pos_label=y.max(), n_bins=N_BINS, name=f"{label} (n = {len(p)})"
            ).plot(ax=ax, counts=False, markersize=3, **style)
        lines = ax.get_legend_handles_labels()
        ax.get_legend().remove()
        ax.set(xlabel="", ylabel="", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1])
        ax.set_title("{}\nlog loss {:.2f}, shifted {:.2f}".format(name, *losses), fontsize="small")
    *unused, legend = axes.flat[len(result.names) :]
    for ax in (*unused, legend):
        ax.axis("off")
    labels = [label.partition(", gap")[0] for label in lines[1]]
    # both displays have drawn the diagonal
    kept = dict(zip(labels, lines[0], strict=True))
    title = (
        f"a point is {1 / N_BINS:.1%} of the rows of a set,\n"
        "which count once for each fit;\nbars: 95% Wilson intervals"
    )
    legend.legend(
        kept.values(),
        kept.keys(),
        loc="center",
        title=title,
        fontsize="small",
        title_fontsize="small",
        frameon=False,
    )
    figure.supxlabel("predicted probability of the positive class", fontsize="medium")
    figure.supylabel("share of positive rows", fontsize="medium")


def draw(result: Comparison, sets: dict[str, tuple[list, pd.Series]], title: str) -> Figure:
    """Summary of all methods above a reliability diagram of each.

    ``sets`` gives the rows that each fold's fit is asked about, and the labels of them all.
    """
    figure = plt.figure(figsize=(10, 12.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 3.2])
    figure.suptitle(title)
    draw_summary(upper, result)
    draw_curves(lower, result, sets, n_columns=4)
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
        load = {"heart": heart, "bank": bank}[arguments.table]
        X, y, is_shifted = load(Path(arguments.data))
    else:
        print("No --data and no SKSUBNET_DATA: using a table that scikit-learn ships.")
        load = digits
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
    title = " ".join(load.__doc__.split())
    draw(result, sets, title).savefig(arguments.out, dpi=120)
    print(f"Picture: {arguments.out}")


if __name__ == "__main__":
    main()
