"""How much of the uncertainty between two clusters a few weights keep, by selection strategy.

    python examples/benchmarks/selection_toy.py --data DIR   # some five minutes, resumable
    python examples/benchmarks/selection_toy.py --quick      # a small net, only to see that it runs

The first experiment of Daxberger et al. 2021: a net with two hidden layers of 50 units is trained
on two clusters of points, and the posterior over 50 %, 3 % or 1 % of its 2600 weights (biases are
left out) is compared with that over all of them. Reported is the share of the full-covariance
standard deviation that is kept between the clusters, where no strategy has seen any input.

Toys: `matern`, the data of that experiment, from DIR/toy_1d.npz (DIR may also be given as the
environment variable SKSUBNET_DATA), and `tight`, two clusters of 50 points (Foong et al. 2019),
made here. Each net is the MAP estimate under a unit prior precision and the toy's own noise, which
are also those of its posterior. Raw results, a table and a picture go next to this file.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetRegressor
from torch import nn
from versions import versions

from sksubnet import SubnetLaplaceRegressor
from sksubnet.displays import PredictiveBandDisplay

HERE = Path(__file__).parent
SIZES = {1300: "50 %", 78: "3 %", 26: "1 %"}
STRATEGIES = ["greedy", "gradient", "saliency", "leverage", "magnitude"]
STRATEGIES += ["swag", "random", "variance"]
COLOURS, MARKERS = ("#0072B2", "#D55E00", "#009E73"), ("o", "s", "^")
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}
PRIOR_PRECISION = 1.0


class Toy(NamedTuple):
    """Inputs, targets, standard deviation of the noise, ends of the gap."""

    X: np.ndarray
    y: np.ndarray
    noise: float
    gap: tuple[float, float]

    def gap_inputs(self) -> np.ndarray:
        return np.linspace(*self.gap, 52)[1:-1, None]


def matern(folder: Path) -> Toy:
    """Two clusters of 200; the noise is 0.15 before the targets were standardised."""
    file = np.load(folder / "toy_1d.npz")
    X, y = file["matern_x"].reshape(-1, 1), file["matern_y"].ravel()
    return Toy(X.astype(float), y.astype(float), 0.18, (-0.66, 0.33))


def tight() -> Toy:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.uniform(-1, -0.7, 50), rng.uniform(0.5, 1, 50)])[:, None]
    y = np.cos(4 * X[:, 0] + 0.8) + 0.1 * rng.normal(size=100)
    return Toy(X, y, 0.1, (-0.7, 0.5))


def train(toy: Toy, activation: type[nn.Module], seed: int, hidden: int) -> NeuralNetRegressor:
    """MAP estimate by L-BFGS."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        *(nn.Linear(1, hidden), activation(), nn.Linear(hidden, hidden), activation()),
        nn.Linear(hidden, 1),
    ).double()
    X, y = torch.tensor(toy.X), torch.tensor(toy.y)[:, None]
    options = {"max_iter": 3000, "history_size": 20, "tolerance_change": 1e-12}
    optimizer = torch.optim.LBFGS(module.parameters(), line_search_fn="strong_wolfe", **options)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        squares = sum(parameter.square().sum() for parameter in module.parameters())
        misfit = (module(X) - y).square().sum() / toy.noise**2
        total = (misfit + PRIOR_PRECISION * squares) / 2
        total.backward()
        return total

    optimizer.step(loss)
    return NeuralNetRegressor(module, train_split=None).initialize()


def posterior(toy: Toy, net: NeuralNetRegressor, **options: Any) -> SubnetLaplaceRegressor:
    """The Laplace posterior of a subnetwork of a trained net."""
    settings = {"prior_precision": PRIOR_PRECISION, "noise": toy.noise, "random_state": 0}
    model = SubnetLaplaceRegressor(FrozenEstimator(net), **settings, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a selection has no effect is what is measured
        return model.fit(toy.X, toy.y)


def epistemic_std(model: SubnetLaplaceRegressor, X: np.ndarray) -> np.ndarray:
    return model.predictive(X).std("epistemic")[:, 0]


def variants(sizes: list[int]) -> list[dict[str, Any]]:
    """Settings of the posteriors to compare with the full one."""
    everything = [{"covariance": "diag", "subnetwork_size": "all"}]
    return everything + [
        {"selection": strategy, "subnetwork_size": size}
        for strategy in STRATEGIES
        for size in sizes
    ]


def measure(toy: Toy, net: NeuralNetRegressor, sizes: list[int]) -> list[dict[str, Any]]:
    """Share of the full standard deviation that is kept in the gap, for each variant."""
    full = epistemic_std(posterior(toy, net, subnetwork_size="all"), toy.gap_inputs())
    results = []
    for options in variants(sizes):
        start = time.perf_counter()
        model = posterior(toy, net, **options)
        seconds = time.perf_counter() - start
        share = float((epistemic_std(model, toy.gap_inputs()) / full).mean())
        results.append({**options, "share": round(share, 4), "seconds": round(seconds, 2)})
    return results


def run(toys: dict[str, Toy], seeds: int, hidden: int, sizes: list[int], file: Path) -> list[Any]:
    """Measure what is not in the file of results yet."""
    lines = file.read_text().splitlines() if file.exists() else []
    records = [json.loads(line) for line in lines]
    done = {(r["toy"], r["activation"], r["seed"]) for r in records}
    for toy_name, toy in toys.items():
        for activation_name, activation in ACTIVATIONS.items():
            for seed in range(seeds):
                case = {"toy": toy_name, "activation": activation_name, "seed": seed}
                if tuple(case.values()) in done:
                    continue
                results = measure(toy, train(toy, activation, seed, hidden), sizes)
                records += [{**case, **result} for result in results]
                with file.open("a") as handle:
                    handle.writelines(json.dumps({**case, **result}) + "\n" for result in results)
                print(case, flush=True)
    return records


def cell(records: list[Any], **wanted: Any) -> str:
    """Mean and standard deviation over the seeds."""
    found = [
        r["share"] for r in records if all(r.get(key) == value for key, value in wanted.items())
    ]
    return f"{np.mean(found):.2f} ± {np.std(found):.2f}" if found else ""


def table(records: list[Any], toy: str, sizes: list[int]) -> str:
    """Markdown table of the kept share: strategies by activation and size."""
    columns = [(activation, size) for activation in ACTIVATIONS for size in sizes]
    head = [f"{activation}, {size} weights" for activation, size in columns]
    lines = ["| selection | " + " | ".join(head) + " | seconds |", "|---" * (len(head) + 2) + "|"]
    for strategy in STRATEGIES:
        cells = [
            cell(records, toy=toy, selection=strategy, activation=activation, subnetwork_size=size)
            for activation, size in columns
        ]
        seconds = [
            r["seconds"] for r in records if r["toy"] == toy and r.get("selection") == strategy
        ]
        lines.append(f"| {strategy} | " + " | ".join(cells) + f" | {np.mean(seconds):.1f} |")
    cells = [cell(records, toy=toy, covariance="diag", activation=a) for a in ACTIVATIONS]
    lines.append(f"\nDiagonal Laplace over all weights: {cells[0]} (ReLU), {cells[1]} (tanh).")
    return "\n".join(lines)


def draw_shares(figure: Any, records: list[Any], sizes: list[int]) -> None:
    """Kept share of every strategy: mean and standard deviation over the nets."""
    axes = figure.subplots(1, len(ACTIVATIONS), sharey=True)
    for ax, activation in zip(axes, ACTIVATIONS, strict=True):
        those = [record for record in records if record["activation"] == activation]
        for k, size in enumerate(sizes if those else []):
            kept = [
                [
                    record["share"]
                    for record in those
                    if record.get("selection") == strategy and record.get("subnetwork_size") == size
                ]
                for strategy in STRATEGIES
            ]
            ax.errorbar(
                [np.mean(shares) for shares in kept],
                np.arange(len(STRATEGIES)) + 0.2 * (k - 1),
                xerr=[np.std(shares) for shares in kept],
                fmt=MARKERS[k],
                color=COLOURS[k],
                markersize=4,
                elinewidth=1,
                label=f"{SIZES.get(size, '')} ({size} weights)",
            )
        n_nets = len({record.get("seed") for record in those})
        ax.set(xlim=(0, 1.05), title=f"{activation}, {n_nets} nets")
    axes[0].set_yticks(range(len(STRATEGIES)), STRATEGIES)
    axes[0].invert_yaxis()
    figure.supxlabel(
        "share of the full posterior's standard deviation that is kept in the gap: "
        "mean ± standard deviation over the nets",
        fontsize="medium",
    )
    axes[0].legend(loc="lower right", fontsize="small")


def draw_bands(figure: Any, toy: Toy, net: NeuralNetRegressor, sizes: list[int]) -> None:
    """Bands as in the paper: MAP, full, diagonal, and strategies by size."""
    grid = np.linspace(toy.X.min() - 0.6, toy.X.max() + 0.6, 300)[:, None]
    full = posterior(toy, net, subnetwork_size="all")
    n_weights = len(full.subnetwork_)
    panels: list[tuple[str, Any]] = [
        ("MAP (0 weights)", None),
        (f"full covariance ({n_weights})", full),
        (f"diagonal ({n_weights})", posterior(toy, net, **variants(sizes)[0])),
    ]
    for strategy in ("greedy", "swag", "variance"):
        for size in sizes:
            model = posterior(toy, net, selection=strategy, subnetwork_size=size)
            panels.append((f"{strategy}, {SIZES.get(size, '')} ({size})", model))
    axes = figure.subplots(4, 3, sharex=True, sharey=True)
    mean, data = full.predict(grid), (toy.X[:, 0], toy.y)
    for ax, (title, model) in zip(axes.flat, panels, strict=False):
        only_noise = (mean, np.full(len(mean), toy.noise))
        prediction = only_noise if model is None else model.predictive(grid)
        PredictiveBandDisplay.from_predictions(grid[:, 0], prediction, data).plot(ax=ax)
        lines = ax.get_legend_handles_labels()
        ax.get_legend().remove()
        ax.set_title(title, fontsize="medium")
        ax.label_outer()
    # the widest band decides, so that none is cut off
    reach = 2 * np.hypot(epistemic_std(full, grid), toy.noise)
    axes[0, 0].set_ylim((mean - reach).min(), (mean + reach).max())
    figure.legend(*lines, loc="outside lower center", ncols=4, fontsize="small")


def draw(
    records: list[Any], toy: Toy, net: NeuralNetRegressor, sizes: list[int], file: Path
) -> None:
    """A summary of all nets above the bands of one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9, 12), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 2.6])
    draw_shares(upper, records, sizes)
    draw_bands(lower, toy, net, sizes)
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of toy_1d")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a small net, nothing is kept")
    arguments = parser.parse_args()
    toys = {"matern": matern(Path(arguments.data))} if arguments.data else {}
    toys["tight"] = tight()
    if arguments.quick:
        toy, size = toys["tight"], 12
        net = train(toy, nn.ReLU, 0, hidden=10)
        records = [{"activation": "ReLU", **result} for result in measure(toy, net, [size])]
        print(*records, sep="\n")
        with tempfile.TemporaryDirectory() as folder:
            draw(records, toy, net, [size], Path(folder) / "selection_toy.png")
        return
    sizes, stem = list(SIZES), "selection_toy_results"
    raw = arguments.output / f"{stem}.jsonl"
    records = run(toys, arguments.seeds, 50, sizes, raw)
    lines = ["# Share of the full-Laplace standard deviation kept in the gap", ""]
    lines += ["`python examples/benchmarks/selection_toy.py --data DIR`, "]
    lines[-1] += f"{datetime.date.today()}; {versions()}; mean ± standard deviation over "
    lines[-1] += f"{arguments.seeds} seeds. `seconds` is a whole fit without training, one thread."
    for toy in toys:
        lines += ["", f"## {toy}", "", table(records, toy, sizes)]
    (arguments.output / f"{stem}.md").write_text("\n".join(lines) + "\n")
    name, toy = next(iter(toys.items()))
    of_toy = [record for record in records if record["toy"] == name]
    picture = arguments.output / "selection_toy.png"
    draw(of_toy, toy, train(toy, nn.ReLU, 0, 50), sizes, picture)
    print((arguments.output / f"{stem}.md").read_text())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
