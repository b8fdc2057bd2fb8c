"""Colour pictures that are spoilt: errors, log likelihoods and calibration by severity.

    python examples/paper/corrupted_cifar10.py --quick      # half a minute, no data
    python examples/paper/corrupted_cifar10.py --data DIR   # two to three hours
    python examples/paper/corrupted_cifar10.py --data DIR --net resnet18   # for a GPU

The fourth experiment of Daxberger et al. 2021. Nets are trained on clean pictures of
CIFAR-10 and asked for others, spoilt in the thirteen ways of `corruptions.py` at severities 1 to 5;
0 is the clean ones. Scores are means over all kinds of corruption.

DIR (or the environment variable SKSUBNET_DATA) holds img_cifar10_jpeg.npz, 20 000 training and
10 000 test pictures that were JPEG-coded once, so that no score here is one of the literature's.
Nets, methods and prior precisions are those of `rotated_mnist.py`. A run that was stopped goes on
where it was; the table and the figure go next to this file.
"""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import carried_out, one_thread, publish
from corruptions import CORRUPTIONS, SEVERITIES, corrupted
from image_methods import (
    STYLES,
    Job,
    Rows,
    Task,
    document,
    image_arguments,
    jobs,
    measured,
    method,
    of_main_run,
    over_seeds,
    scores,
)
from PIL import Image
from sklearn.datasets import load_digits

from sksubnet.predictive import Predictive

CLEAN = "clean"
PAPER = {
    "MAP": (-0.45, -2.20, -3.03),
    "diagonal Laplace": (-0.45, -2.12, -3.19),
    "ensemble of 5": (-0.19, -1.28, -1.85),
    "SWAG": (-0.48, -1.62, -2.30),
    "VOGN": (-0.62, -1.82, -2.00),
    "subnetwork, random": (-0.41, -2.06, -2.80),
    "subnetwork, SWAG rule": (-0.28, -1.07, -1.47),
}
"""Log likelihoods at severities 0, 3 and 5, read off the figure in the authors' blog."""


def as_inputs(images: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W, 3) in [0, 1] as inputs (N, 3, H, W) of about mean 0 and variance 1."""
    return ((np.moveaxis(images, -1, 1) - 0.47) / 0.25).astype(np.float32)


def decoded(file: Any, part: str, rows: np.ndarray) -> np.ndarray:
    """Pictures (N, 32, 32, 3) in [0, 1] of a part, "train" or "test"."""
    data, offsets = file[f"{part}_jpeg"].tobytes(), file[f"{part}_offset"]
    streams = [io.BytesIO(data[offsets[i] : offsets[i + 1]]) for i in rows]
    return np.stack([np.asarray(Image.open(stream)) for stream in streams]) / 255


def coloured_digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits of 16 by 16 pixels on grounds of another colour, and their classes."""
    digits, rng = load_digits(), np.random.default_rng(seed)
    ink = np.kron(digits.images / 16, np.ones((2, 2)))[..., None]
    ground, pen = rng.uniform(0, 0.5, (len(ink), 3)), rng.uniform(0.5, 1, (len(ink), 3))
    return (1 - ink) * ground[:, None, None] + ink * pen[:, None, None], digits.target


@lru_cache(maxsize=1)
def load(folder: Path | None, n_train: int, seed: int) -> Rows:
    """Clean pictures to train on; digits without a folder."""
    if folder is None:
        images, labels = coloured_digits(0)
        return as_inputs(images[-n_train:]), labels[-n_train:]
    with np.load(folder / "img_cifar10_jpeg.npz") as file:
        rows = np.random.default_rng(seed).permutation(len(file["y_train"]))[:n_train]
        return as_inputs(decoded(file, "train", rows)), file["y_train"][rows].astype(int)


@lru_cache(maxsize=1)
def load_tests(folder: Path | None, n_test: int) -> dict[str, Rows]:
    """Clean pictures, and the same ones under each corruption at each severity.

    They are the same for all seeds, so that these tell what training alone leaves to chance.
    """
    if folder is None:
        images, labels = coloured_digits(0)
        X, y = images[:n_test], labels[:n_test]
    else:
        with np.load(folder / "img_cifar10_jpeg.npz") as file:
            X = decoded(file, "test", np.arange(n_test))
            y = file["y_test"][:n_test].astype(int)
    tests = {CLEAN: (as_inputs(X), y)}
    for kind in CORRUPTIONS:
        for severity in SEVERITIES:
            tests[f"{kind} {severity}"] = as_inputs(corrupted(X, kind, severity, seed=0)), y
    return tests


def summary(predictives: dict[str, Predictive], task: Task) -> dict[str, Any]:
    """Scores at each severity, over all kinds together, and log likelihoods of each kind."""
    y = task.tests[CLEAN][1]
    found = {"0": scores(predictives[CLEAN], y)}
    for severity in SEVERITIES:
        parts = [predictives[f"{kind} {severity}"] for kind in CORRUPTIONS]
        found[str(severity)] = scores(Predictive.stack(parts), np.tile(y, len(parts)))
    kinds = {
        name: scores(p, y)["log likelihood"] for name, p in predictives.items() if name != CLEAN
    }
    return {"tests": found, "kinds": kinds}


def long(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each method, seed and severity."""
    return pd.DataFrame(
        {"method": line["method"], "seed": line["seed"], "severity": severity, **values}
        for line in lines
        for severity, values in line["tests"].items()
    )


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Log likelihood, error and calibration error by severity."""
    import matplotlib.pyplot as plt

    frame = long(lines)
    plt.rc("font", size=8)
    figure, axes = plt.subplots(1, 3, figsize=(7, 3.2), layout="constrained")
    for ax, value, label in (
        (axes[0], "log likelihood", "mean log likelihood (nats)"),
        (axes[1], "error", "error rate"),
        (axes[2], "ECE", "expected calibration error"),
    ):
        means = frame.groupby(["method", "severity"])[value].mean()
        for name in frame["method"].unique():
            colour, marker, line = STYLES[name]
            drawn = {"color": colour, "marker": marker, "linestyle": line, "markersize": 3.5}
            ax.plot(means[name].index.astype(int), means[name], linewidth=1.1, label=name, **drawn)
        ax.set(xlabel="severity of the corruption", ylabel=label, xticks=range(6))
        if value != "log likelihood":
            ax.set_ylim(bottom=0)
        ax.spines[["top", "right"]].set_visible(False)
    for ax, letter in zip(axes, "abc", strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(file, dpi=150)


def beside_the_paper(frame: pd.DataFrame) -> pd.DataFrame:
    """Log likelihoods at severities 0, 3 and 5, and what they are above those of the MAP."""
    ours = frame.groupby(["method", "severity"], sort=False)["log likelihood"].mean().unstack()
    table = {}
    for k, severity in enumerate(("0", "3", "5")):
        paper = [f"{PAPER[name][k]:.2f}" if name in PAPER else "" for name in ours.index]
        above = [
            f"{PAPER[name][k] - PAPER['MAP'][k]:+.2f}" if name in PAPER else ""
            for name in ours.index
        ]
        table[f"{severity}: paper"] = [
            f"{value} ({difference})" if value else ""
            for value, difference in zip(paper, above, strict=True)
        ]
        excess = ours[severity] - ours.loc["MAP", severity]
        table[f"{severity}: ours"] = [
            f"{value:.2f} ({difference:+.2f})"
            for value, difference in zip(ours[severity], excess, strict=True)
        ]
    return pd.DataFrame(table, index=ours.index)


def by_kind(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Log likelihoods at severity 3 of each kind: means over the seeds, methods in columns."""
    frame = pd.DataFrame(
        {"method": line["method"], "kind": kind, "value": line["kinds"][f"{kind} 3"]}
        for line in lines
        for kind in CORRUPTIONS
    )
    table = frame.pivot_table("value", "kind", "method", sort=False)
    return table.map("{:.2f}".format)


def report(lines: list[dict[str, Any]], images: int) -> str:
    """All tables; the checks and the runs with more images apart."""
    main = of_main_run(lines, images)
    frame = long(main)
    tables = [
        ("Log likelihood (nats) by severity", over_seeds(frame, "log likelihood", "severity")),
        ("Error rate by severity", over_seeds(frame, "error", "severity")),
        ("Calibration error by severity, ten bins", over_seeds(frame, "ECE", "severity")),
        ("Log likelihood beside the paper (above the MAP)", beside_the_paper(frame)),
        ("Log likelihood at severity 3 by kind", by_kind(main)),
    ]
    return document(
        lines,
        images,
        f"{main[0]['test']} test images under each of {len(CORRUPTIONS)} corruptions",
        tables,
        lambda found: over_seeds(long(found), "log likelihood", "severity"),
    )


def main() -> None:
    arguments = image_arguments(__doc__, images=4000, epochs=50, test=60, quick_test=8)

    def measure(job: Job) -> dict[str, Any]:
        tests = load_tests(arguments.data, job.test)
        task = Task(load(arguments.data, job.images, job.seed), tests)
        model = method(job, 3, arguments.device, arguments.memory)
        return measured(model, task, lambda found: summary(found, task))

    lines = carried_out(jobs(arguments), measure, arguments)
    if lines:
        publish(report(lines, arguments.images), "Corrupted pictures", arguments)
        shown = of_main_run(lines, arguments.images)
        draw(shown, arguments.output / f"{arguments.stem}.png")


if __name__ == "__main__":
    one_thread()
    main()
