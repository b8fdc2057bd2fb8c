"""What a subnetwork posterior adds to a trained net, on tables that scikit-learn ships.

    python examples/quickstart.py

Every figure is an average over held-out rows of several random splits. MAP is the plain trained
net, "subnetwork" the same net with a posterior on a twentieth of its weights. Where the rows held
out inside `fit` are predicted best without any variance, the two agree and the estimator says so.
"""

import argparse
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
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

Scores = dict[str, float]


def classify(load: Callable[..., Any], seed: int) -> dict[str, Scores]:
    X, y = load(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=seed
    )
    model = SubnetLaplaceClassifier(random_state=seed).fit(X_train, y_train)
    probabilities = {
        "MAP": model.predict_proba_map(X_test),
        "subnetwork": model.predict_proba(X_test),
    }
    return {
        name: {
            "accuracy": accuracy_score(y_test, model.classes_[p.argmax(axis=1)]),
            "log loss": log_loss(y_test, p),
            "ECE": expected_calibration_error(y_test, p),
        }
        for name, p in probabilities.items()
    }


def diabetes(seed: int) -> dict[str, Scores]:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=seed)
    model = SubnetLaplaceRegressor(random_state=seed).fit(X_train, y_train)
    mean, std = model.predict(X_test, return_std=True)
    # without a posterior there is only the noise, the same for every row
    noise = np.full_like(std, model.noise_std_)
    lower, upper = model.predict_interval(X_test, coverage=COVERAGE).T
    half_width = (upper - lower) / 2
    intervals = {
        "MAP": (noise, half_width * noise / std),
        "subnetwork": (std, half_width),
    }
    return {
        name: {
            "RMSE": np.sqrt(np.mean((y_test - mean) ** 2)),
            "NLL": gaussian_nll(y_test, mean, sd),
            "CRPS": gaussian_crps(y_test, mean, sd),
            f"{COVERAGE:.0%} interval covers": interval_coverage(y_test, mean - half, mean + half),
            "width": interval_width(mean - half, mean + half),
        }
        for name, (sd, half) in intervals.items()
    }


def report(title: str, score: Callable[[int], dict[str, Scores]], seeds: range) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [score(seed) for seed in seeds]

    columns = {name: max(10, len(name) + 2) for name in results[0]["MAP"]}
    print(f"\n{title}, mean of {len(seeds)} split(s)")
    print(" " * 12 + "".join(f"{name:>{width}}" for name, width in columns.items()))
    for model in results[0]:
        means = {name: np.mean([result[model][name] for result in results]) for name in columns}
        cells = "".join(f"{means[name]:{width}.3f}" for name, width in columns.items())
        print(f"{model:<12}{cells}")
    for message, times in Counter(str(warning.message) for warning in caught).items():
        print(f"  {times} of {len(seeds)} fits warned: {message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=5, help="random splits to average over")
    parser.add_argument("--quick", action="store_true", help="one split only")
    arguments = parser.parse_args()
    seeds = range(1 if arguments.quick else arguments.splits)
    # every classification table that scikit-learn ships
    for load in (load_iris, load_wine, load_breast_cancer, load_digits):
        title = load.__name__.removeprefix("load_").replace("_", " ")
        report(f"Classification: {title}", partial(classify, load), seeds)
    report("Regression: diabetes", diabetes, seeds)


if __name__ == "__main__":
    main()
