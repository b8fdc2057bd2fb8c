"""The paper's first figure: what part of the weights it takes to be unsure between two clusters.

    python examples/paper/regression_1d.py --data DIR   # five nets, some four minutes
    python examples/paper/regression_1d.py              # the same on rows made here
    python examples/paper/regression_1d.py --quick      # a small net, only to see it run

A net of 1-50-50-1 units with 2600 weights (biases are left out) is trained on two clusters of
points. Its posterior is over no weight (MAP), all of them with full or diagonal covariance, or
50 %, 3 % or 1 % of them, chosen by three rules: the largest variance under diagonal Laplace, as the
text of the paper has it; the largest variance along SGD, as the code of its authors has it; and our
"greedy" search. Beside them are mixtures of five nets, plain and with subnetworks.

The data are those of the paper, DIR/toy_1d.npz (DIR may also be given as the environment variable
SKSUBNET_DATA): draws of a Gaussian process. Given the training rows that process says how rows in
the gap would be distributed, so that the expected log likelihood of a row there needs no draw; the
process itself has the highest. Every net is the MAP estimate under a unit prior precision and the
noise of the data, which are also those of its posterior; nothing is tuned. The mean and variance of
a mixture are scored as those of one Gaussian.
"""

import argparse
import time
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import carried_out, one_thread, options, parsed, publish
from selection_toy import SIZES, Toy, epistemic_std, matern, posterior, train
from torch import nn

RULES = {"variance": "text of the paper", "swag": "code of the authors", "greedy": "greedy (ours)"}
LENGTH_SCALE, NOISE = 0.5, 0.15
N_MEMBERS = 5
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"


class Job(NamedTuple):
    """A net, what its posterior is over, and of how many nets it is the first."""

    seed: int
    rule: str
    weights: int
    nets: int = 1


class Normal(NamedTuple):
    """Mean and variance of new rows (m,), noise included."""

    mean: np.ndarray
    variance: np.ndarray

    def log_likelihood(self, of: "Normal") -> float:
        """Expected log density of rows that are distributed as `of`."""
        misfit = ((of.mean - self.mean) ** 2 + of.variance) / self.variance
        return float(np.mean(-np.log(2 * np.pi * self.variance) / 2 - misfit / 2))


def inputs_of_paper() -> np.ndarray:
    """Inputs (400,) before they were standardised."""
    random = np.random.RandomState(4)
    return np.sort(np.concatenate([random.uniform(-2, -1, 200), random.uniform(0.5, 2.5, 200)]))


def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matérn covariance of degree 3/2, of inputs that are not standardised."""
    distance = np.sqrt(3) * np.abs(a[:, None] - b) / LENGTH_SCALE
    return (1 + distance) * np.exp(-distance)


def made() -> Toy:
    """Draw data by the paper's recipe: other targets than its own, at the same inputs."""
    x = inputs_of_paper()
    with_noise = covariance(x, x) + NOISE**2 * np.eye(len(x))
    y = np.linalg.cholesky(with_noise) @ np.random.default_rng(4).standard_normal(len(x))
    X = (x - x.mean()) / x.std()
    return Toy(X[:, None], (y - y.mean()) / y.std(), NOISE / y.std(), (-0.66, 0.33))


def process(toy: Toy, X: np.ndarray) -> Normal:
    """Distribution of new rows at inputs (m, 1), given the rows of the toy.

    The mean and scale by which the targets were standardised are those that make them likeliest.
    """
    x = inputs_of_paper()
    known = covariance(x, x) + NOISE**2 * np.eye(len(x))
    precision = np.linalg.inv(known)
    ones = np.ones(len(x))
    centre = ones @ precision @ toy.y / (ones @ precision @ ones)
    scale = np.sqrt((toy.y - centre) @ precision @ (toy.y - centre) / len(x))
    cross = covariance(X[:, 0] * x.std() + x.mean(), x)
    mean = centre + cross @ precision @ (toy.y - centre)
    variance = 1 + NOISE**2 - np.einsum("ij,jk,ik->i", cross, precision, cross)
    return Normal(mean, scale**2 * variance)


@cache
def toy_of(folder: Path | None) -> Toy:
    return made() if folder is None else matern(folder)


@cache
def net_of(folder: Path | None, seed: int, hidden: int) -> Any:
    return train(toy_of(folder), nn.ReLU, seed, hidden)


@cache
def full_of(folder: Path | None, seed: int, hidden: int) -> Any:
    return posterior(toy_of(folder), net_of(folder, seed, hidden), subnetwork_size="all")


def model_of(job: Job, toy: Toy, net: Any) -> Any:
    """The posterior of a net; None for MAP."""
    if job.rule == "MAP":
        return None
    kinds: dict[str, dict[str, Any]] = {
        "full": {"subnetwork_size": "all"},
        "diagonal": {"subnetwork_size": "all", "covariance": "diag"},
    }
    found = kinds.get(job.rule, {"selection": job.rule, "subnetwork_size": job.weights})
    return posterior(toy, net, **found)


def predicted(job: Job, toy: Toy, nets: list[Any], models: list[Any], X: np.ndarray) -> Normal:
    """Mean and variance of the mixture of some nets."""
    means = np.stack([net.predict(X)[:, 0] for net in nets])
    within = np.mean([0 if model is None else epistemic_std(model, X) ** 2 for model in models], 0)
    return Normal(means.mean(0), toy.noise**2 + within + means.var(0))


def measure(job: Job, folder: Path | None, hidden: int) -> dict[str, float]:
    """What is kept in the gap, log likelihoods and seconds without training.

    `share` is of the full posterior's standard deviation, `width` that of a row in the gap, noise
    included, in units of what it is in truth.
    """
    toy = toy_of(folder)
    nets = [net_of(folder, N_MEMBERS * job.seed + k, hidden) for k in range(job.nets)]
    start = time.perf_counter()
    models = [model_of(job, toy, net) for net in nets]
    found = {"seconds": time.perf_counter() - start}
    X = toy.gap_inputs()
    normal, truth = predicted(job, toy, nets, models, X), process(toy, X)
    found["gap"] = normal.log_likelihood(truth)
    found["width"] = float(np.mean(np.sqrt(normal.variance / truth.variance)))
    at_rows = predicted(job, toy, nets, models, toy.X)
    found["clusters"] = at_rows.log_likelihood(process(toy, toy.X))
    if job.nets == 1:
        full = epistemic_std(full_of(folder, N_MEMBERS * job.seed, hidden), X)
        own = 0 if models[0] is None else epistemic_std(models[0], X)
        found["share"] = float(np.mean(own / full))
    return found


def jobs(seeds: int, members: int, sizes: list[int], n_weights: int) -> list[Job]:
    """All of a net before the next one."""
    found = []
    for seed in range(seeds):
        found += [Job(seed, "MAP", 0), Job(seed, "full", n_weights)]
        found += [Job(seed, "diagonal", n_weights)]
        found += [Job(seed, rule, size) for rule in RULES for size in sizes]
        found += [Job(seed, "MAP", 0, members)]
        found += [Job(seed, "greedy", size, members) for size in sizes]
    return found


def table(lines: list[dict[str, Any]], toy: Toy) -> str:
    """Markdown: mean ± standard error over the nets."""
    frame = pd.DataFrame(lines)

    def cell(values: pd.Series, digits: int) -> str:
        if values.isna().any():
            return ""
        error = f" ± {values.sem():.{digits}f}" if len(values) > 1 else ""
        return f"{values.mean():.{digits}f}{error}"

    text = (
        "| rule | weights | share of the full deviation in the gap | width in the gap | "
        "log likelihood in the gap | log likelihood in the clusters | seconds |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for (nets, rule, weights), rows in frame.groupby(["nets", "rule", "weights"], sort=False):
        name = RULES.get(rule, rule) + (f", {nets} nets" if nets > 1 else "")
        cells = [cell(rows[name], 2) for name in ("share", "width", "gap")]
        cells.append(cell(rows["clusters"], 3))
        cells.append(f"{rows['seconds'].mean():.2f}")
        text += f"| {name} | {weights} | " + " | ".join(cells) + " |\n"
    best = [process(toy, X) for X in (toy.gap_inputs(), toy.X)]
    gap, clusters = (normal.log_likelihood(normal) for normal in best)
    return text + f"| the process itself | | | 1.00 | {gap:.2f} | {clusters:.3f} | |\n"


def draw(folder: Path | None, hidden: int, sizes: list[int], file: Path) -> None:
    """Panels as in the paper: MAP, full and diagonal, and a row for each rule."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    toy, net = toy_of(folder), net_of(folder, 0, hidden)
    full = full_of(folder, 0, hidden)
    grid = np.linspace(toy.X.min() - 0.4, toy.X.max() + 0.4, 400)[:, None]
    n_weights = len(full.subnetwork_)
    panels = [("MAP", 0, "MAP"), ("full", n_weights, "full")]
    panels += [("diagonal", n_weights, "diagonal")]
    panels += [(rule, size, SIZES.get(size, "")) for rule in RULES for size in sizes]
    figure, axes = plt.subplots(
        4, 3, figsize=(6.75, 7.2), sharex=True, sharey=True, layout="constrained"
    )
    mean = net.predict(grid)[:, 0]
    for ax, (rule, size, title) in zip(axes.flat, panels, strict=False):
        model = model_of(Job(0, rule, size), toy, net)
        epistemic = np.zeros(len(grid)) if model is None else epistemic_std(model, grid)
        reach = 2 * np.hypot(epistemic, toy.noise)
        band = mean - reach, mean + reach
        ax.fill_between(
            grid[:, 0], *band, color=BLUE, alpha=0.25, lw=0, label="± 2 standard deviations"
        )
        ax.plot(grid[:, 0], mean, color=BLUE, lw=1, label="mean")
        ax.plot(toy.X[:, 0], toy.y, ".", color=GREY, ms=1.5, label="training rows")
        ax.axvspan(*toy.gap, ymax=0.04, color=ORANGE, lw=0, label="gap")
        ax.set_title(f"{title}: {size} weights" if size else title, fontsize=8)
        ax.tick_params(labelsize=7)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    for row, label in zip(axes, ("", *RULES.values()), strict=True):
        row[0].set_ylabel(f"{label}\ny" if label else "y", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("x", fontsize=8)
    # the band of the full posterior decides, so that no other is cut off
    reach = 2 * np.hypot(epistemic_std(full, grid), toy.noise)
    low, high = (mean - reach).min(), (mean + reach).max()
    axes[0, 0].set_ylim(low - 0.1 * (high - low), high)
    figure.savefig(file, dpi=200)


def main() -> None:
    parser = options(__doc__, seeds=5)
    arguments: argparse.Namespace = parsed(parser, needs_data=False)
    seeds, members = (1, 2) if arguments.quick else (arguments.seeds, N_MEMBERS)
    hidden, sizes = (10, [12]) if arguments.quick else (50, list(SIZES))
    n_weights = hidden * (hidden + 2)
    measured = partial(measure, folder=arguments.data, hidden=hidden)
    lines = carried_out(jobs(seeds, members, sizes, n_weights), measured, arguments)
    toy = toy_of(arguments.data)
    publish(table(lines, toy), "The one-dimensional toy of the paper", arguments)
    draw(arguments.data, hidden, sizes, arguments.output / f"{arguments.stem}.png")


if __name__ == "__main__":
    one_thread()
    main()
