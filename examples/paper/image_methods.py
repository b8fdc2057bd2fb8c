"""The methods that the experiments on images compare, and what is measured of each."""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import options, parsed
from image_nets import image_net
from sklearn.metrics import roc_auc_score
from study_scores import markdown

from sksubnet import (
    DeepEnsembleClassifier,
    MAPClassifier,
    MCDropoutClassifier,
    SubnetLaplaceClassifier,
    SWAGClassifier,
    VOGNClassifier,
)
from sksubnet.metrics import expected_calibration_error
from sksubnet.predictive import Predictive

Rows = tuple[np.ndarray, np.ndarray]
"""Images (N, channels, H, W) in float32 and their classes (N,)."""

SIZES = {"tiny": 50, "small": 500, "resnet18": 42_438}
"""Weights of the subnetworks: 0.64 % of the small net, and the paper's 0.38 % of a ResNet-18."""

GIVEN_PRECISION = 40.0
DRAWS = 30
STYLES = {
    "MAP": ("#000000", "o", "-"),
    "subnetwork, random": ("#009E73", "P", ":"),
    "subnetwork, greedy": ("#D55E00", "o", "-"),
    "subnetwork, SWAG rule": ("#0072B2", "X", "-"),
    "ensemble of 5": ("#000000", "s", ":"),
    "ensemble of 5 subnetworks": ("#D55E00", "s", ":"),
    "MC dropout": ("#E69F00", "^", "--"),
    "diagonal Laplace": ("0.55", "s", "--"),
    "SWAG": ("#CC79A7", "D", "-."),
    "VOGN": ("#56B4E9", "v", "-."),
}
"""Colour, marker and line by method (Okabe and Ito's colours); the quickest run first."""

FASTER_SWAG = "SWAG, learning rate 0.1"
CHECKS = [f"subnetwork, {rule}, given precision" for rule in ("random", "greedy", "SWAG rule")]
CHECKS.append(FASTER_SWAG)


class Job(NamedTuple):
    """A method on the net of a seed."""

    net: str
    images: int
    epochs: int
    test: int
    seed: int
    method: str


class Task(NamedTuple):
    """What a net is trained on, and named sets of rows to test it on."""

    train: Rows
    tests: dict[str, Rows]


def image_arguments(
    doc: str, *, images: int, epochs: int, test: int, quick_test: int
) -> argparse.Namespace:
    """Options of an experiment on images; another net than the small has files of its own."""
    parser = options(doc, seeds=3)
    parser.add_argument("--net", choices=["small", "resnet18"], default="small")
    parser.add_argument("--images", type=int, default=images, help="to train on")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--test", type=int, default=test, help="images of each test set")
    names = [*STYLES, *CHECKS]
    parser.add_argument("--methods", nargs="+", choices=names, help="only these and the MAP")
    arguments = parsed(parser, needs_data=True)
    if arguments.net != "small":
        arguments.stem += f"_{arguments.net}"
    if arguments.quick:
        arguments.seeds, arguments.net, arguments.epochs = 1, "tiny", 3
        arguments.images, arguments.test = 300, quick_test
    return arguments


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """All methods seed by seed; then the checks of one seed, with more images the last."""
    of_run = arguments.net, arguments.images, arguments.epochs, arguments.test
    wanted = arguments.methods or STYLES
    names = [name for name in (*STYLES, *CHECKS) if name in wanted or name == "MAP"]
    found = [Job(*of_run, seed, name) for seed in range(arguments.seeds) for name in names]
    if arguments.methods is None:
        found += [Job(*of_run, 0, name) for name in CHECKS]
    if arguments.methods is None and not arguments.quick:
        more = (arguments.net, 4 * arguments.images, arguments.epochs, arguments.test, 0)
        found += [Job(*more, name) for name in ("MAP", "subnetwork, greedy")]
    return found


def method(job: Job, channels: int, device: str, memory: str) -> Any:
    """Unfitted estimator. All but two share trained nets through the memory."""
    net = image_net(job.net, channels, job.epochs, device)
    shared = {"dtype": "float32", "random_state": job.seed}
    kept = {**shared, "memory": memory}
    if job.method == "MAP":
        return MAPClassifier(net, **kept)
    if job.method == "MC dropout":
        net = image_net(job.net, channels, job.epochs, device, dropout=0.1)
        return MCDropoutClassifier(net, n_draws=DRAWS, **kept)
    if job.method in ("SWAG", FASTER_SWAG):
        rate = 0.1 if job.method == FASTER_SWAG else 0.01
        return SWAGClassifier(net, n_draws=DRAWS, swag_lr=rate, **kept)
    if job.method == "VOGN":
        return VOGNClassifier(net, n_draws=DRAWS, n_epochs=2 * job.epochs, **shared)
    if job.method == "ensemble of 5":
        return DeepEnsembleClassifier(net, **kept)
    if job.method == "diagonal Laplace":
        return SubnetLaplaceClassifier(net, subnetwork_size="all", covariance="diag", **kept)
    size: dict[str, Any] = {"subnetwork_size": SIZES[job.net], "cv": None}
    if job.method == "ensemble of 5 subnetworks":
        member = SubnetLaplaceClassifier(net, memory=memory, dtype="float32", **size)
        return DeepEnsembleClassifier(member, random_state=job.seed)
    _, rule, *given = job.method.split(", ")
    selection = {"SWAG rule": "swag"}.get(rule, rule)
    if given:
        size["prior_precision"] = GIVEN_PRECISION
    return SubnetLaplaceClassifier(net, selection=selection, **size, **kept)


def measured(
    model: Any, task: Task, further: Callable[[dict[str, Predictive]], dict[str, Any]]
) -> dict[str, Any]:
    """Fit a method; its seconds, its scores on each set of rows, and what else is asked for."""
    start = time.perf_counter()
    model.fit(*task.train)
    fitted = time.perf_counter()
    everything = model.predictive(np.concatenate([X for X, _ in task.tests.values()]))
    seconds = time.perf_counter() - fitted
    ends = np.cumsum([len(y) for _, y in task.tests.values()])
    parts = np.split(np.arange(len(everything)), ends[:-1])
    predictives = {
        name: everything.rows(part) for name, part in zip(task.tests, parts, strict=True)
    }
    return {
        "fit_seconds": round(fitted - start, 2),
        "milliseconds": round(1000 * seconds / len(everything), 3),
        "prior_precision": getattr(model, "prior_precision_", None),
        **further(predictives),
    }


def scores(predictive: Predictive, y: np.ndarray) -> dict[str, float]:
    """Error, mean log likelihood in nats, and calibration error with the paper's ten bins."""
    p = predictive.probabilities()
    likely = p[np.arange(len(y)), y].clip(np.finfo(float).eps)
    ece = expected_calibration_error(y, p, 10, labels=np.arange(p.shape[1]))
    return {
        "error": round(float(np.mean(p.argmax(axis=1) != y)), 5),
        "log likelihood": round(float(np.log(likely).mean()), 5),
        "ECE": round(ece, 5),
    }


def detection(known: Predictive, unknown: Predictive) -> dict[str, float]:
    """How well two uncertainties tell unknown rows from known ones: areas under ROC curves."""
    is_unknown = np.repeat([0, 1], [len(known), len(unknown)])
    found = {}
    for name, component in (("entropy", "total"), ("mutual information", "epistemic")):
        values = [each.entropy(component) for each in (known, unknown)]
        found[name] = round(float(roc_auc_score(is_unknown, np.concatenate(values))), 5)
    return found


def over_seeds(frame: pd.DataFrame, value: str, columns: str) -> pd.DataFrame:
    """Table of means and standard deviations over the seeds: methods by `columns`."""
    groups = frame.groupby(["method", columns], sort=False)[value]
    text = groups.mean().map("{:.3f}".format)
    spread = groups.std(ddof=0).map(" ± {:.3f}".format).where(groups.count() > 1, "")
    table = (text + spread).unstack(columns, fill_value="")
    order = [name for name in frame["method"].unique() if name in table.index]
    return table.loc[order, list(frame[columns].unique())]


def costs(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Seconds and prior precisions, means over the seeds."""
    table = pd.DataFrame(lines).astype({"prior_precision": float})
    frame = table.groupby("method", sort=False)
    precision = frame["prior_precision"].agg(lambda values: np.exp(np.mean(np.log(values))))
    return pd.DataFrame(
        {
            "fit, seconds": frame["fit_seconds"].mean().map("{:.1f}".format),
            "predict, ms an image": frame["milliseconds"].mean().map("{:.2f}".format),
            "prior precision": precision.map(lambda v: "" if np.isnan(v) else f"{v:.3g}"),
        }
    )


def of_main_run(lines: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """Lines that are neither checks nor of a run with more images."""
    return [line for line in lines if line["images"] == images and line["method"] in STYLES]


def document(
    lines: list[dict[str, Any]],
    images: int,
    tested: str,
    tables: list[tuple[str, pd.DataFrame]],
    likelihoods: Callable[[list[dict[str, Any]]], pd.DataFrame],
) -> str:
    """The tables of the main run below what they are of, then costs, checks and more images."""
    main = of_main_run(lines, images)
    tables = [*tables, ("Costs", costs([line for line in lines if line["images"] == images]))]
    of_one = [line for line in lines if line["images"] == images and line["seed"] == 0]
    if any(line["method"] in CHECKS for line in of_one):
        title = f"Checks with seed 0 (given precision: {GIVEN_PRECISION:g}), log likelihood"
        tables.append((title, likelihoods(of_one)))
    more = [line for line in lines if line["images"] != images]
    if more:
        title = f"{more[0]['images']} training images with seed 0, log likelihood"
        tables.append((title, likelihoods(more)))
    n_seeds = len({line["seed"] for line in main})
    head = (
        f"{main[0]['net']} net, {images} training images, {main[0]['epochs']} epochs, {tested}; "
        f"mean ± standard deviation over the seeds ({n_seeds}). `fit` is without the training of "
        "nets that another method has trained: that of one net stands in the row of the MAP.\n"
    )
    return "\n".join([head, *(f"## {name}\n\n{markdown(t, 'method', 4)}" for name, t in tables)])
