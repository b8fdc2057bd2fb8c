"""Which rows to label next: those whose label the posterior would learn most from, or others?

    python examples/paper/active_learning.py --data DIR               # 15 minutes of a core
    python examples/paper/active_learning.py --data DIR --budget 5    # five minutes; resumable
    python examples/paper/active_learning.py --data DIR --budget 0    # only the report
    python examples/paper/active_learning.py --quick                  # only to see it run

A classifier begins with a few labelled rows, three of each class among them. In each of eight
rounds it chooses 15 rows of a pool and is trained anew with their labels. It chooses them at random
or takes the first by one of three scores:

- epistemic: the mutual information of label and weights, what knowing the weights would tell;
- entropy: that of the predicted probabilities, whatever its cause;
- margin: the smallest difference of the two largest probabilities. Of two classes it and the
  entropy choose the same rows.

What counts is the log loss of rows outside the pool. All strategies of a seed begin with the same
rows, so that differences are paired. Labels saved are those that random choice needs to reach a
loss, less those that the strategy needs. The loss is that of random choice with all its labels;
where the strategy ends above that, it is the strategy's own, and the labels saved are negative.
Before that each curve is made monotone by least squares, because a single training has luck.

The model is SubnetLaplaceClassifier with three folds and quick settings (see `model_of`), a third
of a second a fit of two classes; on cancer its log loss is that of the default net with as many
folds, to .002 nats. DIR (or the environment variable SKSUBNET_DATA) is the folder of the data; two
of the six tables are shipped with scikit-learn.
"""

import argparse
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import carried_out, one_thread, options, parsed, publish
from sklearn.isotonic import IsotonicRegression
from study_scores import losses_and_scores
from tabular_data import Split, rows_of

from sksubnet import SubnetLaplaceClassifier, TabularNet
from sksubnet.predictive import Predictive

TABLES = ("cancer", "digits", "segment", "phoneme", "spambase", "adult")
STRATEGIES = ("random", "epistemic", "entropy", "margin")
POOL, TEST_ROWS = 600, 1000
START, START_OF_CLASS = 20, 3
BATCH, N_ROUNDS = 15, 8
STYLES = {
    "random": ("#666666", ":"),
    "epistemic": ("#0072B2", "-"),
    "entropy": ("#D55E00", "--"),
    "margin": ("#009E73", "-."),
}


class Job(NamedTuple):
    """A learning curve: of a table, a draw of its rows, and a way to choose."""

    table: str
    seed: int
    strategy: str
    rounds: int


class Curve(NamedTuple):
    """Losses after so many labels."""

    labels: np.ndarray
    losses: np.ndarray

    def monotone(self) -> "Curve":
        """The nearest curve that does not rise."""
        fitted = IsotonicRegression(increasing=False).fit_transform(self.labels, self.losses)
        return self._replace(losses=fitted)

    def needed(self, loss: float) -> float:
        """Labels at which a curve that does not rise, and gets there, first has this loss."""
        k = int(np.argmax(self.losses <= loss))
        if k == 0:
            return float(self.labels[0])
        fallen = (self.losses[k - 1] - loss) / (self.losses[k - 1] - self.losses[k])
        return float(self.labels[k - 1] + fallen * (self.labels[k] - self.labels[k - 1]))

    def area(self) -> float:
        """Mean loss over the labels."""
        return float(np.trapezoid(self.losses, self.labels) / np.ptp(self.labels))


def saved(strategy: Curve, random: Curve) -> float:
    """Labels that a strategy spares to reach the worse of the two last losses."""
    strategy, random = strategy.monotone(), random.monotone()
    loss = max(strategy.losses[-1], random.losses[-1])
    return random.needed(loss) - strategy.needed(loss)


def model_of(seed: int) -> SubnetLaplaceClassifier:
    """The default with fewer folds, shorter trainings and weights chosen without a search."""
    net = TabularNet(max_epochs=100, patience=5, lr=1e-2)
    return SubnetLaplaceClassifier(
        net, cv=3, selection="gradient", dtype="float32", random_state=seed
    )


@lru_cache(maxsize=1)
def split_of(table: str, seed: int, folder: Path | None) -> Split:
    """A pool, and rows to score."""
    split = rows_of(table, folder).vault_split(seed, POOL)
    return split._replace(test_X=split.test_X[:TEST_ROWS], test_y=split.test_y[:TEST_ROWS])


def first_rows(y: np.ndarray, seed: int) -> np.ndarray:
    """Rows to begin with: three of each class, and others."""
    order = np.random.default_rng(seed).permutation(len(y))
    of_classes = [order[y[order] == label][:START_OF_CLASS] for label in np.unique(y)]
    chosen = np.concatenate(of_classes)
    others = order[~np.isin(order, chosen)]
    return np.concatenate([chosen, others[: max(0, START - len(chosen))]])


@lru_cache(maxsize=1)
def first_fit(table: str, seed: int, folder: Path | None) -> SubnetLaplaceClassifier:
    split = split_of(table, seed, folder)
    rows = first_rows(split.y, seed)
    return model_of(seed).fit(split.X[rows], split.y[rows])


def scores(strategy: str, predictive: Predictive, seed: int) -> np.ndarray:
    """How much a strategy wants the label of each row."""
    if strategy == "random":
        return np.random.default_rng(seed).random(len(predictive))
    if strategy == "margin":
        second, first = np.sort(predictive.probabilities(), axis=1)[:, -2:].T
        return second - first
    return predictive.entropy("epistemic" if strategy == "epistemic" else "total")


def measure(job: Job, folder: Path | None) -> dict[str, Any]:
    """Labels, losses and errors after each round."""
    split = split_of(job.table, job.seed, folder)
    chosen = first_rows(split.y, job.seed)
    model, start = first_fit(job.table, job.seed, folder), time.process_time()
    found: dict[str, Any] = {"labels": [], "losses": [], "errors": []}
    for n in range(job.rounds + 1):
        if n > 0:
            pool = np.setdiff1d(np.arange(len(split.y)), chosen)
            wanted = scores(job.strategy, model.predictive(split.X[pool]), 1000 * job.seed + n)
            chosen = np.concatenate([chosen, pool[np.argsort(-wanted, kind="stable")[:BATCH]]])
            model = model_of(job.seed).fit(split.X[chosen], split.y[chosen])
        _, scored = losses_and_scores(model, True, split.test_X, split.test_y)
        found["labels"].append(len(chosen))
        found["losses"].append(scored["loss"])
        found["errors"].append(scored["error"])
    return {**found, "seconds": time.process_time() - start}


def jobs(tables: tuple[str, ...], seeds: int, rounds: int) -> list[Job]:
    """All tables of a seed before the next one."""
    return [
        Job(table, seed, strategy, rounds)
        for seed in range(seeds)
        for table in tables
        for strategy in STRATEGIES
    ]


def curves(lines: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Curve]]:
    """Curves of each strategy, of the tables and seeds that all strategies have."""
    found: dict[tuple[str, int], dict[str, Curve]] = {}
    for line in lines:
        curve = Curve(np.array(line["labels"]), np.array(line["losses"]))
        found.setdefault((line["table"], line["seed"]), {})[line["strategy"]] = curve
    return {key: each for key, each in found.items() if len(each) == len(STRATEGIES)}


def compared(found: dict[tuple[str, int], dict[str, Curve]]) -> pd.DataFrame:
    """Each strategy against random, a row for each table and seed."""
    rows = []
    for (table, seed), each in found.items():
        random = each["random"]
        for name in STRATEGIES[1:]:
            curve = each[name]
            row = {"table": table, "seed": seed, "strategy": name, "saved": saved(curve, random)}
            row["reached"] = curve.monotone().losses[-1] <= random.monotone().losses[-1]
            row["area"] = curve.area() - random.area()
            rows.append({**row, "last": curve.losses[-1] - random.losses[-1]})
    return pd.DataFrame(rows)


def cell(values: pd.Series, digits: int) -> str:
    error = f" ± {values.sem():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def table_of(frame: pd.DataFrame, value: str, digits: int) -> str:
    """Mean ± standard error over seeds, and over the means of the tables."""
    text = f"| table | seeds | {' | '.join(STRATEGIES[1:])} |\n|" + "---|" * (2 + 3) + "\n"
    for table, rows in frame.groupby("table", sort=False):
        cells = [cell(rows[rows["strategy"] == name][value], digits) for name in STRATEGIES[1:]]
        text += f"| {table} | {rows['seed'].nunique()} | {' | '.join(cells)} |\n"
    means = frame.groupby(["table", "strategy"])[value].mean().unstack()
    cells = [cell(means[name], digits) for name in STRATEGIES[1:]]
    return text + f"| all {len(means)} tables | | {' | '.join(cells)} |\n"


def report(lines: list[dict[str, Any]]) -> str:
    found = curves(lines)
    frame = compared(found)
    ends = {table: each["random"] for (table, _), each in found.items()}
    spans = ", ".join(f"{name} {c.labels[0]} to {c.labels[-1]}" for name, c in ends.items())
    last = {
        table: np.mean(
            [each["random"].losses[-1] for key, each in found.items() if key[0] == table]
        )
        for table in ends
    }
    reached = frame.groupby("strategy")["reached"].mean()
    pairs = frame[frame["strategy"] != "epistemic"].merge(
        frame[frame["strategy"] == "epistemic"], on=["table", "seed"], suffixes=("", "_ours")
    )
    pairs["difference"] = pairs["area_ours"] - pairs["area"]
    means = pairs.groupby(["table", "strategy"])["difference"].mean().unstack()
    return "\n\n".join(
        [
            f"Labels: {spans}. Log loss of random choice at the end: "
            + ", ".join(f"{name} {loss:.3f}" for name, loss in last.items())
            + ". Mean ± standard error over paired seeds; in the last row over the tables.",
            "## Labels saved against random choice",
            table_of(frame, "saved", 0),
            "The last loss of random choice was reached in "
            + ", ".join(f"{100 * reached[name]:.0f} % ({name})" for name in STRATEGIES[1:])
            + " of the curves.",
            "## Area under the learning curve less that of random choice (nats; below 0 is better)",
            table_of(frame, "area", 4),
            "Epistemic less another strategy, over the tables: "
            + ", ".join(f"{name} {cell(means[name], 4)}" for name in means)
            + ".",
            "## Log loss with all labels less that of random choice (nats)",
            table_of(frame, "last", 4),
            "Seconds of one processor for a curve: "
            f"{np.mean([line['seconds'] for line in lines]):.1f}.",
        ]
    )


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Mean learning curves of each table, with bands of a standard error."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = curves(lines)
    tables = list(dict.fromkeys(table for table, _ in found))
    n_rows = -(-len(tables) // 3)
    figure, axes = plt.subplots(
        n_rows, 3, figsize=(6.75, 2.1 * n_rows + 0.7), layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(tables) :]:
        ax.set_axis_off()
    for ax, table in zip(axes.flat, tables, strict=False):
        each = [strategies for key, strategies in found.items() if key[0] == table]
        for name, (colour, style) in STYLES.items():
            labels = each[0][name].labels
            losses = np.array([strategies[name].losses for strategies in each])
            mean = losses.mean(axis=0)
            ax.plot(labels, mean, style, color=colour, lw=1.3, label=name)
            if len(losses) > 1:
                error = losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
                ax.fill_between(labels, mean - error, mean + error, color=colour, alpha=0.15, lw=0)
        seeds = f"{len(each)} seed" + "s" * (len(each) > 1)
        ax.set_title(f"{table} ({seeds})", fontsize=8)
        ax.tick_params(labelsize=7)
    for ax in axes[:, 0]:
        ax.set_ylabel("log loss (nats)", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("labels", fontsize=8)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=7,
        frameon=False,
    )
    figure.savefig(file, dpi=200)


def main() -> None:
    parser = options(__doc__, seeds=10)
    arguments: argparse.Namespace = parsed(parser, needs_data=True)
    tables, seeds, rounds = TABLES, arguments.seeds, N_ROUNDS
    if arguments.quick:
        tables, seeds, rounds = ("cancer",), 2, 2
    wanted = jobs(tables, seeds, rounds)
    lines = carried_out(wanted, partial(measure, folder=arguments.data), arguments)
    command = "python examples/paper/active_learning.py --data DIR"
    done = f"{len(lines)} of {len(wanted)} curves; `{command}` runs the others.\n\n"
    publish(done + report(lines), "Which rows to label next", arguments)
    draw(lines, arguments.output / f"{arguments.stem}.png")


if __name__ == "__main__":
    one_thread()
    main()
