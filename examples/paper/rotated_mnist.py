"""Digits that are turned: errors, log likelihoods, and whether a net knows what is no digit.

    python examples/paper/rotated_mnist.py --quick      # half a minute, no data
    python examples/paper/rotated_mnist.py --data DIR   # half an hour on a thread of its own
    python examples/paper/rotated_mnist.py --data DIR --net resnet18 --images 3400 --epochs 3 \\
        --seeds 1 --test 10 --methods "subnetwork, greedy, given precision"

The third experiment of Daxberger et al. 2021. Nets are trained on upright digits and
asked for others, turned by 0, 15, ..., 180 degrees (`scipy.ndimage.rotate`, order 1, at the size of
the image), and for clothes (Fashion-MNIST), which they should not be sure of. In the rejection
curves every piece of clothing counts as an error.

`small` is a residual net of 78 000 weights, `resnet18` the paper's, with 42 438 of its 11 million
weights in the subnetwork. DIR (or the environment variable SKSUBNET_DATA) holds img_mnist.npz and
img_fashion_mnist_ood.npz. All methods but VOGN and MC dropout start from the same trained nets. The
prior precision of each posterior is chosen by the estimator's default rule on the same tenth of the
training rows. A run that was stopped goes on where it was; the table and the figure go next to this
file.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import carried_out, one_thread, publish
from image_methods import (
    STYLES,
    Job,
    Task,
    detection,
    document,
    image_arguments,
    jobs,
    measured,
    method,
    of_main_run,
    over_seeds,
    scores,
)
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

from sksubnet.displays import RejectionDisplay
from sksubnet.predictive import Predictive

ANGLES = range(0, 181, 15)
CLOTHES = "clothes"
PAPER_AT_105 = {
    "MAP": -7.9,
    "diagonal Laplace": -7.7,
    "MC dropout": -6.7,
    "ensemble of 5": -7.0,
    "SWAG": -6.3,
    "VOGN": -3.1,
    "subnetwork, random": -7.0,
    "subnetwork, SWAG rule": -3.6,
}
"""Log likelihoods, read off the figure in the authors' blog."""


def rotated(images: np.ndarray, angle: float) -> np.ndarray:
    """Images (..., H, W), turned around their centres; what comes in from outside is 0."""
    return rotate(images, angle, axes=(-1, -2), reshape=False, order=1)


def as_inputs(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W) in [0, 1] as inputs (N, 1, H, W) of about mean 0 and variance 1."""
    return ((images[:, None] - 0.13) / 0.31).astype(np.float32)


@lru_cache(maxsize=1)
def load(folder: Path | None, n_train: int, n_test: int, seed: int) -> Task:
    """Upright digits to train on, turned ones and clothes to test on; small ones without a folder.

    Test images are the same for all seeds, so that these tell what training alone leaves to chance.
    """
    rng = np.random.default_rng(seed)
    if folder is None:
        digits = load_digits()
        images, labels, n_test = digits.images / 16, digits.target, min(n_test, 200)
        X_test, y_test, X, y = images[:n_test], labels[:n_test], images[n_test:], labels[n_test:]
        clothes = rng.permuted(X_test.reshape(n_test, -1), axis=1).reshape(X_test.shape)
    else:
        with np.load(folder / "img_mnist.npz") as file:
            X, y = file["X_train"] / 255, file["y_train"].astype(int)
            X_test = file["X_test"][:n_test] / 255
            y_test = file["y_test"][:n_test].astype(int)
        with np.load(folder / "img_fashion_mnist_ood.npz") as file:
            clothes = file["X"][:n_test] / 255
    chosen = rng.permutation(len(X))[:n_train]
    tests = {f"{angle}°": (as_inputs(rotated(X_test, angle)), y_test) for angle in ANGLES}
    tests[CLOTHES] = as_inputs(clothes), np.full(len(clothes), -1)
    return Task((as_inputs(X[chosen]), y[chosen]), tests)


def summary(predictives: dict[str, Predictive], task: Task) -> dict[str, Any]:
    """Scores at each angle, areas of detection, and what a rejection curve is made of."""
    turned = {name: p for name, p in predictives.items() if name != CLOTHES}
    upright, y = predictives["0°"], task.tests["0°"][1]
    wrong = upright.probabilities().argmax(axis=1) != y
    entropy = np.concatenate([upright.entropy(), predictives[CLOTHES].entropy()])
    return {
        "tests": {name: scores(p, task.tests[name][1]) for name, p in turned.items()},
        "detection": detection(upright, predictives[CLOTHES]),
        "wrong": wrong.astype(int).tolist(),
        "entropy": entropy.round(5).tolist(),
    }


def long(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each method, seed and angle."""
    return pd.DataFrame(
        {"method": line["method"], "seed": line["seed"], "angle": name, **values}
        for line in lines
        for name, values in line["tests"].items()
    )


def rejection(lines: list[dict[str, Any]]) -> RejectionDisplay:
    """Curves over upright digits and clothes, the rows of all seeds together."""
    errors: dict[str, list[int]] = {}
    entropy: dict[str, list[float]] = {}
    n_seeds = min(pd.Series([line["method"] for line in lines]).value_counts())
    for line in lines:
        if line["seed"] < n_seeds:
            n_clothes = len(line["entropy"]) - len(line["wrong"])
            errors.setdefault(line["method"], []).extend([*line["wrong"], *[1] * n_clothes])
            entropy.setdefault(line["method"], []).extend(line["entropy"])
    return RejectionDisplay.from_predictions(errors, entropy, error_name="error rate")


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Log likelihood, error, rejection curves and detection."""
    import matplotlib.pyplot as plt

    frame, curves = long(lines), rejection(lines)
    plt.rc("font", size=8)
    figure, axes = plt.subplots(2, 2, figsize=(7, 6), layout="constrained")
    turned = frame.assign(angle=frame["angle"].str.rstrip("°").astype(int))
    for ax, value, label in (
        (axes[0, 0], "log likelihood", "mean log likelihood (nats)"),
        (axes[0, 1], "error", "error rate"),
    ):
        means = turned.groupby(["method", "angle"])[value].mean()
        for name in frame["method"].unique():
            colour, marker, line = STYLES[name]
            drawn = {"color": colour, "marker": marker, "linestyle": line, "markersize": 3.5}
            ax.plot(means[name].index, means[name], linewidth=1.1, label=name, **drawn)
        ax.set(xlabel="rotation of the digits (degrees)", ylabel=label, xticks=range(0, 181, 30))
    for k, name in enumerate(curves.names):
        colour, _, line = STYLES[name]
        shown = slice(len(curves.kept) // 20, None)
        drawn = {"color": colour, "linestyle": line, "linewidth": 1.1}
        axes[1, 0].plot(curves.kept[shown], curves.error[k, shown], **drawn)
    axes[1, 0].set(
        xlabel="share of digits and clothes kept, by entropy", ylabel="error rate on rows kept"
    )
    areas = pd.DataFrame([{"method": line["method"], **line["detection"]} for line in lines])
    means = areas.groupby("method", sort=False).mean()
    for k, name in enumerate(means.index):
        colour, marker, _ = STYLES[name]
        for quantity, face in (("entropy", colour), ("mutual information", "white")):
            if means.loc[name, quantity] != 0.5:  # one net alone has no mutual information
                drawn = {"color": colour, "marker": marker, "markerfacecolor": face}
                axes[1, 1].plot(means.loc[name, quantity], k, linestyle="", **drawn)
    axes[1, 1].set_yticks(range(len(means)), means.index)
    axes[1, 1].invert_yaxis()
    axes[1, 1].set_xlabel("area under the ROC curve,\nclothes against digits")
    for face, quantity in (("black", "entropy"), ("white", "mutual information")):
        drawn = {"color": "black", "marker": "o", "markerfacecolor": face}
        axes[1, 1].plot([], [], linestyle="", label=quantity, **drawn)
    axes[1, 1].legend(fontsize=7, frameon=False, loc="lower right")
    for ax, letter in zip(axes.flat, "abcd", strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(file, dpi=150)


def beside_the_paper(frame: pd.DataFrame) -> pd.DataFrame:
    """Log likelihoods at 105 degrees; the paper's net had 60 000 training images."""
    ours = frame[frame["angle"] == "105°"].groupby("method", sort=False)["log likelihood"].mean()
    paper = [f"{PAPER_AT_105[name]:.1f}" if name in PAPER_AT_105 else "" for name in ours.index]
    table = pd.DataFrame({"paper": paper, "ours": ours.map("{:.2f}".format)})
    return table.assign(**{"ours - MAP": (ours - ours["MAP"]).map("{:+.2f}".format)})


def report(lines: list[dict[str, Any]], images: int) -> str:
    """All tables; the checks and the runs with more images apart."""
    main = of_main_run(lines, images)
    frame = long(main)
    detected = pd.DataFrame(
        {"method": line["method"], "by": name, "area": area}
        for line in main
        for name, area in line["detection"].items()
    )
    some = ["0°", "30°", "60°", "90°", "105°", "120°", "150°", "180°"]
    tables = [
        ("Log likelihood (nats)", over_seeds(frame, "log likelihood", "angle")[some]),
        ("Error rate", over_seeds(frame, "error", "angle")[some]),
        ("Calibration error, ten bins", over_seeds(frame, "ECE", "angle")[some]),
        ("At 105°, beside the paper", beside_the_paper(frame)),
        ("Digits against clothes, area under the ROC curve", over_seeds(detected, "area", "by")),
    ]
    return document(
        lines,
        images,
        f"{main[0]['test']} test images at each angle",
        tables,
        lambda found: over_seeds(long(found), "log likelihood", "angle")[some],
    )


def main() -> None:
    arguments = image_arguments(__doc__, images=2000, epochs=10, test=200, quick_test=50)

    def measure(job: Job) -> dict[str, Any]:
        task = load(arguments.data, job.images, job.test, job.seed)
        model = method(job, 1, arguments.device, arguments.memory)
        return measured(model, task, lambda found: summary(found, task))

    lines = carried_out(jobs(arguments), measure, arguments)
    if lines:
        publish(report(lines, arguments.images), "Rotated digits", arguments)
        shown = of_main_run(lines, arguments.images)
        draw(shown, arguments.output / f"{arguments.stem}.png")


if __name__ == "__main__":
    one_thread()
    main()
