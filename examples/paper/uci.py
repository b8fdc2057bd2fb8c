"""The paper's question on tables: part of a large net, or all of a small one?

    python examples/paper/uci.py --data DIR                # all splits: many hours, resumable
    python examples/paper/uci.py --data DIR --budget 60    # an hour of it
    python examples/paper/uci.py --data DIR --seeds 5      # five splits of a data set at most
    python examples/paper/uci.py --data DIR --budget 0     # only the report
    python examples/paper/uci.py --quick                   # only to see it run

Nets of one or two hidden layers of 50 or 100 units are trained on the standard and the gap splits
of Foong et al. 2019. The full posterior of each is compared with a subnetwork of every larger net
that has as many weights, chosen by the rule of the authors' code ("swag") or by ours ("greedy").
Beside them are mixtures of five nets of two layers of 50 units: plain, with a subnetwork each, and
with a subnetwork on each of five folds. DIR (or the environment variable SKSUBNET_DATA) is the
folder of the data.

Inputs are standardised. A fifth of the training rows stops the training early; the same rows choose
prior precision and noise, of MAP the noise. At most 10 000 rows train and 1000 are scored. Every
split has a net of its own seed, all methods of a net start from it, and all data sets have one
split before any has its second.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from common import carried_out, one_thread, options, parsed, publish
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from study_data import Case, Rows, load_uci, silent
from study_scores import losses_and_scores
from torch import nn

from sksubnet import DeepEnsembleRegressor, MAPRegressor, SubnetLaplaceRegressor

DATA = ("wine", "power", "kin8nm", "naval", "protein", "concrete", "energy", "yacht")
KINDS = ("gap", "standard")
MOST_ROWS = 10_000
MOST_FULL = 4000
"""Weights of the largest full posterior, which takes a minute."""
RULES = ("greedy", "swag")
N_MEMBERS = 5


class Shape(NamedTuple):
    """Units of a hidden layer, and hidden layers."""

    width: int
    depth: int

    def __str__(self) -> str:
        return "-".join([str(self.width)] * self.depth)

    def n_weights(self, n_features: int) -> int:
        """Weights without biases, of a net with one output."""
        return self.width * (n_features + 1 + self.width * (self.depth - 1))


SHAPES = (Shape(50, 1), Shape(100, 1), Shape(50, 2), Shape(100, 2))
QUICK_SHAPES = (Shape(8, 1), Shape(8, 2))


class Job(NamedTuple):
    """A net on a split, and what is random in it: a method and the weights that it is over."""

    data: str
    kind: str
    split: int
    net: str
    method: str
    weights: int


class Perceptron(nn.Sequential):
    """Fully connected ReLU layers of one width."""

    def __init__(self, n_features: int, width: int, depth: int) -> None:
        layers: list[nn.Module] = []
        for n_inputs in (n_features, *[width] * (depth - 1)):
            layers += [nn.Linear(n_inputs, width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, 1))


def net_of(shape: Shape, n_features: int, device: str) -> NeuralNetRegressor:
    return NeuralNetRegressor(
        Perceptron,
        module__n_features=n_features,
        module__width=shape.width,
        module__depth=shape.depth,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        batch_size=128,
        iterator_train__shuffle=True,
        max_epochs=300,
        train_split=ValidSplit(5),
        callbacks=[("stop", EarlyStopping(patience=20, load_best=True, sink=silent))],
        callbacks__print_log=None,
        device=device,
        verbose=0,
    )


@lru_cache(maxsize=1)
def rows_of(data: str, kind: str, split: int, folder: Path | None) -> Rows:
    """Rows of a split with standardised inputs; the targets are in their own units."""
    if folder is None:
        X, y = load_diabetes(return_X_y=True)
        rows = Rows(False, X[100:], y[100:], {kind: (X[:100], y[:100])})
    else:
        rows = load_uci(Case(kind, data, str(split), split), folder, MOST_ROWS)
    scaler = StandardScaler().fit(rows.X)
    tests = {name: (scaler.transform(X), y) for name, (X, y) in rows.tests.items()}
    return rows._replace(X=scaler.transform(rows.X), tests=tests)


def model_of(job: Job, net: NeuralNetRegressor, memory: str) -> Any:
    shared = {"memory": memory, "random_state": job.split}
    subnetwork = partial(
        SubnetLaplaceRegressor,
        net,
        subnetwork_size=job.weights,
        prior_precision="validation",
        noise="constant",
    )
    kinds: dict[str, Callable[[], Any]] = {
        "MAP": lambda: MAPRegressor(net, **shared),
        "full": lambda: subnetwork(cv=None, **shared).set_params(subnetwork_size="all"),
        "5 nets": lambda: DeepEnsembleRegressor(net, n_members=N_MEMBERS, **shared),
        "5 subnetworks": lambda: DeepEnsembleRegressor(
            subnetwork(cv=None, memory=memory), n_members=N_MEMBERS, random_state=job.split
        ),
        "5 folds": lambda: subnetwork(cv=N_MEMBERS, **shared),
    }
    if job.method in kinds:
        return kinds[job.method]()
    return subnetwork(selection=job.method, cv=None, **shared)


def measure(
    job: Job, folder: Path | None, shapes: tuple[Shape, ...], device: str, memory: str
) -> dict[str, float]:
    """Log likelihood of a test row in the units of the target, RMSE, and seconds."""
    rows = rows_of(job.data, job.kind, job.split, folder)
    shape = next(shape for shape in shapes if str(shape) == job.net)
    model = model_of(job, net_of(shape, rows.X.shape[1], device), memory)
    start = time.perf_counter()
    model.fit(rows.X, rows.y)
    seconds = time.perf_counter() - start
    _, scores = losses_and_scores(model, False, *rows.tests[job.kind])
    found = {"log_likelihood": -scores["loss"], "rmse": scores["error"]}
    return {**found, "coverage": scores["coverage"], "seconds": seconds}


def methods(n_features: int, shapes: tuple[Shape, ...]) -> Iterator[tuple[str, str, int]]:
    """Nets, methods and weights; a net's MAP comes first, so that its seconds are the training."""
    by_size = sorted(shapes, key=lambda shape: shape.n_weights(n_features))
    sizes = [shape.n_weights(n_features) for shape in by_size]
    for k, shape in enumerate(by_size):
        yield str(shape), "MAP", 0
        if sizes[k] <= MOST_FULL:
            yield str(shape), "full", sizes[k]
        for size in sizes[:k]:
            if size <= MOST_FULL:
                yield from ((str(shape), rule, size) for rule in RULES)
    middle = str(shapes[min(2, len(shapes) - 1)])
    yield middle, "5 nets", 0
    yield middle, "5 subnetworks", sizes[0]
    yield middle, "5 folds", sizes[0]


def n_splits(data: str, kind: str, folder: Path) -> int:
    return len(np.load(folder / f"uci_{data}_splits.npz")[f"{kind}_test"])


def jobs(folder: Path, data: list[str], most: int) -> list[Job]:
    """First splits of all data sets, then second ones, and so on."""
    counts = {(name, kind): n_splits(name, kind, folder) for name in data for kind in KINDS}
    heads = {name: pd.read_csv(folder / f"uci_{name}.csv.gz", nrows=0) for name in data}
    return [
        Job(name, kind, split, *method)
        for split in range(most)
        for (name, kind), count in counts.items()
        if split < count
        for method in methods(heads[name].shape[1] - 1, SHAPES)
    ]


def cell(values: pd.Series, digits: int = 3) -> str:
    """Mean ± standard error over splits."""
    values = values.dropna()
    error = f" ± {values.sem():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}" if len(values) else ""


def markdown(frame: pd.DataFrame) -> str:
    lines = [["", *frame.columns], ["---"] * (len(frame.columns) + 1)]
    lines += [[str(name), *row] for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def named(frame: pd.DataFrame, shapes: tuple[Shape, ...]) -> pd.DataFrame:
    """Add a name of each row that is the same for all data sets: "100-100 greedy, as 50"."""
    full = frame[frame["method"] == "full"]
    as_many = dict(zip(zip(full["data"], full["weights"], strict=True), full["net"], strict=True))
    return frame.assign(
        like=[as_many.get(key, "") for key in zip(frame["data"], frame["weights"], strict=True)]
    )


def gains(rows: pd.DataFrame, one: pd.Series, other: pd.Series) -> dict[str, str]:
    """Rise of the log likelihood from the rows of another method to those of one, as a row."""
    one, other = (rows[k].set_index(["data", "split"])["log_likelihood"] for k in (one, other))
    gain = (one - other).dropna()
    if gain.empty:
        return {}
    means, errors = gain.groupby("data").mean(), gain.groupby("data").sem()
    cells = {name: cell(values) for name, values in gain.groupby("data", sort=False)}
    cells["better on"] = f"{(means > 0).sum()} of {len(means)}"
    cells["better on splits"] = f"{(gain > 0).sum()} of {len(gain)}"
    if errors.notna().any():  # of data sets with two splits
        better, worse = (means > 2 * errors).sum(), (means < -2 * errors).sum()
        cells["beyond 2 errors"] = f"{better} better, {worse} worse"
    return cells


def comparisons(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Part of each net less all of each smaller one, by both rules; mixtures less plain ones."""

    def of(net: str, method: str, like: str = "") -> pd.Series:
        wanted = (rows["net"] == net) & (rows["method"] == method)
        return wanted & (rows["like"] == like) if like else wanted

    found = {
        f"{large} {rule} - {small} full": gains(rows, of(large, rule, small), of(small, "full"))
        for small, large in combinations(names, 2)
        for rule in RULES
    }
    for net in names:
        found[f"{net} full - MAP"] = gains(rows, of(net, "full"), of(net, "MAP"))
    for net in names:
        for method in ("5 subnetworks", "5 folds"):
            found[f"{net} {method} - 5 nets"] = gains(rows, of(net, method), of(net, "5 nets"))
    table = pd.DataFrame({name: row for name, row in found.items() if row}).T.fillna("")
    counts = ["better on", "better on splits", "beyond 2 errors"]
    last = [name for name in counts if name in table.columns]
    return table[[*table.columns.drop(last), *last]]


def report(lines: list[dict[str, Any]], shapes: tuple[Shape, ...]) -> str:
    frame = named(pd.DataFrame(lines), shapes)
    names = [str(shape) for shape in shapes]
    text = []
    for kind, rows in frame.groupby("kind", sort=False):
        counts = rows.groupby("data", sort=False)["split"].nunique()
        text += [f"## {kind} splits", ", ".join(f"{name} {n}" for name, n in counts.items()) + "."]
        text += ["### Differences of the log likelihood", markdown(comparisons(rows, names))]
        names_of_rows = ["net", "method", "like"]
        for value, title in {
            "log_likelihood": "Log likelihood of a test row (nats, in the units of the target)",
            "seconds": "Seconds of the fit, in which nets that another method trained are recalled",
        }.items():
            digits = 3 if value == "log_likelihood" else 1
            table = {
                " ".join(filter(None, [net, method, like and f"as {like}"])): {
                    name: cell(part[value], digits) for name, part in group.groupby("data")
                }
                for (net, method, like), group in rows.groupby(names_of_rows, sort=False)
            }
            text += [f"### {title}", markdown(pd.DataFrame(table).T.fillna(""))]
    return "\n\n".join(text)


def main() -> None:
    parser = options(__doc__, seeds=20)
    parser.add_argument("--sets", nargs="+", choices=DATA, default=list(DATA))
    arguments: argparse.Namespace = parsed(parser, needs_data=True)
    shapes, folder = SHAPES, arguments.data and Path(arguments.data)
    if arguments.quick:
        shapes = QUICK_SHAPES
        wanted = [Job("diabetes", "standard", 0, *method) for method in methods(10, shapes)]
    else:
        wanted = jobs(folder, arguments.sets, arguments.seeds)
    options_of = {"folder": folder, "shapes": shapes, "device": arguments.device}
    measured = partial(measure, **options_of, memory=arguments.memory)
    lines = carried_out(wanted, measured, arguments)
    publish(report(lines, shapes), "Part of a large net, or all of a small one", arguments)


if __name__ == "__main__":
    one_thread()
    main()
