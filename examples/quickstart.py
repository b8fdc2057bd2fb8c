"""What a subnetwork posterior adds to trained nets, on tables that scikit-learn ships.

    python examples/quickstart.py

First away from the training data, where it matters: digits moved by a pixel, and diabetes patients
heavier than any that was seen. Then on rows like those of the training, where little should change.
"plain nets" are the five trained nets of the folds without a posterior, averaged; "subnetwork" are
the same nets with a posterior on a twentieth of their weights. Every figure is an average over
random splits.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.metrics import (
    expected_calibration_error,
    gaussian_crps,
    gaussian_nll,
    interval_coverage,
    interval_width,
)

COVERAGE = 0.9

Scores = dict[str, dict[str, float]]


def class_scores(model: Any, X: Any, y: Any) -> Scores:
    probabilities = {
        "plain nets": model.predict_proba_map(X),
        "subnetwork": model.predict_proba(X),
    }
    return {
        name: {
            "accuracy": accuracy_score(y, model.classes_[p.argmax(axis=1)]),
            "log loss": log_loss(y, p),
            "ECE": expected_calibration_error(y, p),
        }
        for name, p in probabilities.items()
    }


def target_scores(model: Any, X: Any, y: Any) -> Scores:
    mean, std = model.predict(X, return_std=True)
    # without a posterior there is only the noise
    noise = model.predictive(X).std("aleatoric")[:, 0]
    half = norm.ppf((1 + COVERAGE) / 2) * noise
    lower, upper = model.predict_interval(X, coverage=COVERAGE).T
    intervals = {
        "plain nets": (noise, mean - half, mean + half),
        "subnetwork": (std, lower, upper),
    }
    return {
        name: {
            "NLL": gaussian_nll(y, mean, sd),
            "CRPS": gaussian_crps(y, mean, sd),
            f"{COVERAGE:.0%} interval covers": interval_coverage(y, low, high),
            "width": interval_width(low, high),
        }
        for name, (sd, low, high) in intervals.items()
    }


def classify(load: Callable[..., Any], seed: int) -> Scores:
    X, y = load(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=seed
    )
    model = SubnetLaplaceClassifier(random_state=seed).fit(X_train, y_train)
    return class_scores(model, X_test, y_test)


def moved_digits(seed: int) -> Scores:
    """Train on digits as they are, predict others that are moved by one of their eight pixels."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=seed
    )
    model = SubnetLaplaceClassifier(random_state=seed).fit(X_train, y_train)
    moved = np.roll(X_test.reshape(-1, 8, 8), 1, axis=2).reshape(len(X_test), -1)
    return class_scores(model, moved, y_test)


def diabetes(seed: int) -> Scores:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=seed)
    model = SubnetLaplaceRegressor(random_state=seed).fit(X_train, y_train)
    return target_scores(model, X_test, y_test)


def heavier_patients(seed: int) -> Scores:
    """Train on nine tenths of the lighter patients, predict the heaviest third."""
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    is_heavy = X["bmi"] > X["bmi"].quantile(2 / 3)
    chosen = np.random.default_rng(seed).random(len(X)) < 0.9
    model = SubnetLaplaceRegressor(random_state=seed)
    model.fit(X[~is_heavy & chosen], y[~is_heavy & chosen])
    return target_scores(model, X[is_heavy], y[is_heavy])


def report(title: str, score: Callable[[int], Scores], seeds: range) -> None:
    results = [score(seed) for seed in seeds]
    columns = {name: max(10, len(name) + 2) for name in results[0]["plain nets"]}
    print(f"\n{title}, mean of {len(seeds)} split(s)")
    print(" " * 12 + "".join(f"{name:>{width}}" for name, width in columns.items()))
    for model in results[0]:
        means = {name: np.mean([result[model][name] for result in results]) for name in columns}
        cells = "".join(f"{means[name]:{width}.3f}" for name, width in columns.items())
        print(f"{model:<12}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=2, help="random splits to average over")
    parser.add_argument("--quick", action="store_true", help="one split, few tables")
    arguments = parser.parse_args()
    seeds = range(1 if arguments.quick else arguments.splits)
    print("Away from the training data")
    report("Digits moved by a pixel", moved_digits, seeds)
    report("Diabetes: patients heavier than those seen", heavier_patients, seeds)
    print("\nOn rows like those of the training")
    # every classification table that scikit-learn ships
    loads = (load_iris, load_wine, load_breast_cancer, load_digits)
    for load in loads[:1] if arguments.quick else loads:
        title = load.__name__.removeprefix("load_").replace("_", " ")
        report(f"Classification: {title}", partial(classify, load), seeds)
    report("Regression: diabetes", diabetes, seeds)


if __name__ == "__main__":
    main()
