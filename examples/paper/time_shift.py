"""Trained on the early part of a table: what happens later, and does the model notice?

    python examples/paper/time_shift.py --data DIR               # five minutes of a core
    python examples/paper/time_shift.py --data DIR --budget 2    # two minutes; resumable
    python examples/paper/time_shift.py --data DIR --budget 0    # only the report
    python examples/paper/time_shift.py --quick                  # made tables, to see it run

The rows of five tables are in order of time. Models are trained on 1000 random rows of the early
part (the first 60 % of bank, half of elec2 and weather, 2011 of bike, 2010 to 2012 of pm25; years
are no feature of bike, but of pm25). The later part is cut into twelve blocks of equally many rows,
in their order. Other rows of the early part are four blocks "in time": because they were drawn at
random, some are neighbours of training rows.

For each block there are the loss (negative log likelihood of a row, of regressions in standard
deviations of the training targets), error rate or RMSE, and the mean of two uncertainties of a row:
epistemic, which is the mutual information of label and weights, or the deviation that comes from
the weights; and total, the entropy of the predicted probabilities, or the whole deviation. Does one
of them tell the blocks with a higher loss, before there are labels? Asked are

- the rank correlation over the later blocks of uncertainty and loss;
- the area under the ROC curve of flagging, by the uncertainty divided by that in time, the blocks
  whose loss exceeds that in time by more than a tenth of a nat. That was fixed beforehand.

DIR (or the environment variable SKSUBNET_DATA) is the folder of the data.
"""

import argparse
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import carried_out, one_thread, options, parsed, publish
from scipy.stats import entropy, spearmanr
from sklearn.metrics import roc_auc_score
from study_data import TABLES as SHIFTED
from study_data import Table, late
from study_scores import losses_and_scores
from tabular_data import encoder, standardised
from tabular_models import MODELS
from tabular_parts import fitted

TABLES = ("bank", "elec2", "weather", "bike", "pm25")
QUICK_TABLES = {
    "made classes": Table("", True, late(0.5)),
    "made targets": Table("", False, late(0.5)),
}
OURS = "SubnetLaplace"
NAMES = {OURS: "default", "MAP": "MAP", "HistGradientBoosting": "HistGradientBoosting"}
TRAINING_ROWS, BLOCK_ROWS = 1000, 400
N_LATER, N_IN_TIME = 12, 4
MARGIN = 0.1
SIGNALS = (
    (OURS, "epistemic"),
    (OURS, "total"),
    ("MAP", "total"),
    ("HistGradientBoosting", "total"),
)
STYLES = {
    OURS: ("#0072B2", "-", "o"),
    "MAP": ("#D55E00", "--", "s"),
    "HistGradientBoosting": ("#009E73", "-.", "^"),
}
BLACK = "#000000"


class Job(NamedTuple):
    """A model, trained on a draw of early rows."""

    table: str
    seed: int
    model: str


class Stream(NamedTuple):
    """Training rows, and blocks of rows: those in time first, then the later ones in order."""

    classify: bool
    X: np.ndarray
    y: np.ndarray
    blocks: list[tuple[np.ndarray, np.ndarray]]


def split_rows(
    is_late: np.ndarray, seed: int, n_train: int, most: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Numbers of the training rows, and of at most so many of each block; none is in two."""
    rng = np.random.default_rng(seed)
    early, later = np.flatnonzero(~is_late), np.flatnonzero(is_late)
    shuffled = rng.permutation(early)
    n_held_out = min(N_IN_TIME * most, len(early) // 4)
    in_time, train = np.split(shuffled, [n_held_out])
    blocks = np.array_split(in_time, N_IN_TIME)
    for block in np.array_split(later, N_LATER):
        blocks.append(np.sort(rng.permutation(block)[:most]))
    return train[:n_train], blocks


def made(classify: bool) -> pd.DataFrame:
    """A table whose first column drifts in its second half."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 3))
    X[600:, 0] += np.linspace(0, 3, 600)
    y = np.sin(2 * X[:, 0]) + X[:, 1] + 0.3 * rng.normal(size=len(X))
    target = (y > 0).astype(int) if classify else y
    return pd.DataFrame(X, columns=["drifts", "a", "b"]).assign(target=target)


@lru_cache(maxsize=1)
def stream_of(table: str, seed: int, folder: Path | None) -> Stream:
    """Rows of a table; encoded, and targets standardised, by the training rows."""
    if folder is None:
        spec = QUICK_TABLES[table]
        frame = made(spec.classify)
    else:
        spec = SHIFTED[table]
        frame = pd.read_csv(folder / f"tab_{spec.file}.csv.gz")
    if "dteday" in frame:
        frame = frame.sort_values("dteday", kind="stable")
    n_train = TRAINING_ROWS if folder is not None else 200
    train, blocks = split_rows(np.asarray(spec.is_shifted(frame)), seed, n_train, BLOCK_ROWS)
    X, y = frame.drop(columns=[*spec.dropped, frame.columns[-1]]), frame.iloc[:, -1].to_numpy()
    X = X.astype({code: str for code in spec.codes})
    encode = encoder(X, len(train), all_levels=False).fit(X.iloc[train])
    inputs = [encode.transform(X.iloc[rows]).astype(float) for rows in (train, *blocks)]
    if spec.classify:
        labels = np.unique(y, return_inverse=True)[1]
        targets = [labels[rows] for rows in (train, *blocks)]
    else:
        targets = list(standardised(*(y[rows].astype(float) for rows in (train, *blocks))))
    return Stream(
        spec.classify, inputs[0], targets[0], list(zip(inputs[1:], targets[1:], strict=True))
    )


def doubts(model: Any, classify: bool, X: np.ndarray) -> dict[str, float]:
    """Means over the rows of what a model says about its own uncertainty."""
    if not hasattr(model, "predictive"):
        if classify:
            return {"total": float(np.mean(entropy(model.predict_proba(X), axis=1)))}
        return {"total": float(np.mean(model.predict(X, return_std=True)[1]))}
    predictive = model.predictive(X)
    of = predictive.entropy if classify else predictive.std
    return {kind: float(np.mean(of(kind))) for kind in ("epistemic", "total")}


def measure(job: Job, folder: Path | None) -> dict[str, Any]:
    """Loss, error and uncertainties of every block, those in time first."""
    stream = stream_of(job.table, job.seed, folder)
    model, seconds = fitted(MODELS[NAMES[job.model]], stream.classify, job.seed, *stream[1:3])
    found: dict[str, Any] = {"classify": stream.classify, "seconds": seconds, "blocks": []}
    for X, y in stream.blocks:
        _, scores = losses_and_scores(model, stream.classify, X, y)
        kept = {"loss": scores["loss"], "error": scores["error"]}
        found["blocks"].append({**kept, **doubts(model, stream.classify, X)})
    return found


def jobs(tables: list[str], seeds: int) -> list[Job]:
    """All tables of a seed before the next one."""
    return [Job(table, seed, model) for seed in range(seeds) for table in tables for model in NAMES]


def values(line: dict[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """A value of the blocks in time, and of the later ones; nan where the model has none."""
    found = np.array([block.get(name, np.nan) for block in line["blocks"]])
    return found[:N_IN_TIME], found[N_IN_TIME:]


def is_worse(line: dict[str, Any]) -> np.ndarray:
    """Whether the loss of each block, those in time first, exceeds that in time by the margin."""
    in_time, later = values(line, "loss")
    return np.concatenate([in_time, later]) > in_time.mean() + MARGIN


def signal(line: dict[str, Any], name: str) -> np.ndarray:
    """An uncertainty of each block, divided by that in time."""
    in_time, later = values(line, name)
    # a constant one has no order, not that of its rounding
    return np.round(np.concatenate([in_time, later]) / in_time.mean(), 9)


def rank_correlation(line: dict[str, Any], name: str) -> float:
    """Over the later blocks; nan where the uncertainty is constant."""
    doubt, loss = values(line, name)[1], values(line, "loss")[1]
    return float(spearmanr(doubt, loss).statistic) if np.ptp(doubt) > 1e-9 else np.nan


def area(lines: list[dict[str, Any]], name: str) -> float:
    """AUROC over the blocks of all these lines; nan where all are worse, or none."""
    worse = np.concatenate([is_worse(line) for line in lines])
    if worse.all() or not worse.any():
        return np.nan
    return float(roc_auc_score(worse, np.concatenate([signal(line, name) for line in lines])))


def cell(each: list[float], digits: int) -> str:
    """Mean ± standard error over the seeds that have a value."""
    known = pd.Series(each).dropna()
    if known.empty:
        return ""
    error = f" ± {known.sem():.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{error}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def report(lines: list[dict[str, Any]]) -> str:
    tables = list(dict.fromkeys(line["table"] for line in lines))
    by = {
        (table, model): [x for x in lines if (x["table"], x["model"]) == (table, model)]
        for table in tables
        for model in NAMES
    }
    losses = []
    for (table, model), own in by.items():
        parts = [[values(line, name) for line in own] for name in ("loss", "error")]
        cells = [cell([v[0].mean() for v in parts[0]], 3), cell([v[1].mean() for v in parts[0]], 3)]
        cells += [cell([v[1].max() for v in parts[0]], 3)]
        cells += [cell([v[k].mean() for v in parts[1]], 3) for k in (0, 1)]
        worse = [float(is_worse(line)[N_IN_TIME:].sum()) for line in own]
        seconds = f"{np.mean([x['seconds'] for x in own]):.1f}" if own else ""
        losses.append([table, model, str(len(own)), *cells, cell(worse, 1), seconds])
    names = [f"{model}, {kind}" for model, kind in SIGNALS]
    ranks = [
        [
            table,
            *(cell([rank_correlation(x, kind) for x in by[table, m]], 2) for m, kind in SIGNALS),
        ]
        for table in tables
    ]
    areas = [
        [table, *(cell([area([x], kind) for x in by[table, m]], 2) for m, kind in SIGNALS)]
        for table in tables
    ]
    seeds = sorted({line["seed"] for line in lines})
    whole = [
        seed for seed in seeds if sum(x["seed"] == seed for x in lines) == len(tables) * len(NAMES)
    ]
    together = [
        cell(
            [area([x for x in lines if x["seed"] == s and x["model"] == m], kind) for s in whole], 2
        )
        for m, kind in SIGNALS
    ]
    head = ["table", "model", "seeds", "loss in time", "loss later", "highest loss of a block"]
    head += ["error in time", "error later", f"blocks worse by {MARGIN} (of {N_LATER})", "seconds"]
    return "\n\n".join(
        [
            "Mean ± standard error over seeds, each with other training rows.",
            "## Losses (nats) and errors",
            markdown(head, losses),
            "## Rank correlation of uncertainty and loss over the later blocks",
            markdown(["table", *names], ranks),
            f"## AUROC of blocks whose loss exceeds that in time by {MARGIN} nats",
            "Each model's own loss; empty where none of the blocks is that much worse, or all.",
            markdown(["table", *names], [*areas, ["all blocks of all tables", *together]]),
        ]
    )


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Above the losses, below the two uncertainties of our model, block by block."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tables = list(dict.fromkeys(line["table"] for line in lines))
    figure, axes = plt.subplots(
        2, len(tables), figsize=(6.75, 3.8), sharex=True, layout="constrained", squeeze=False
    )
    x = np.arange(N_LATER + 1)

    def curve(own: list[dict[str, Any]], name: str) -> np.ndarray:
        each = [values(line, name) for line in own]
        return np.mean([[v[0].mean(), *v[1]] for v in each], axis=0)

    for (above, below), table in zip(axes.T, tables, strict=True):
        for model, (colour, style, mark) in STYLES.items():
            own = [line for line in lines if (line["table"], line["model"]) == (table, model)]
            if not own:
                continue
            kept = {"color": colour, "ls": style, "lw": 1.1, "ms": 2.5, "marker": mark}
            above.plot(x, curve(own, "loss"), label=model, **kept)
            if model != OURS:
                continue
            for name, (tone, dash, sign) in {
                "epistemic": (colour, "-", "o"),
                "total": (BLACK, ":", "x"),
            }.items():
                doubt = curve(own, name)
                below.plot(x, doubt / doubt[0], dash, color=tone, marker=sign, ms=2.5, lw=1.1)
                below.lines[-1].set_label(f"{name}, of {model}")
        above.set_title(table, fontsize=8)
        for ax in (above, below):
            ax.tick_params(labelsize=6)
        below.axhline(1, color="#999999", lw=0.6)
        below.set_xticks([0, N_LATER // 2, N_LATER], ["in\ntime", N_LATER // 2, N_LATER])
        below.set_xlabel("block", fontsize=7)
    axes[0, 0].set_ylabel("loss (nats)", fontsize=7)
    axes[1, 0].set_ylabel("uncertainty,\ntimes that in time", fontsize=7)
    for ax, place in ((axes[0, 0], "upper center"), (axes[1, 0], "lower center")):
        figure.legend(
            *ax.get_legend_handles_labels(),
            loc=f"outside {place}",
            ncols=3,
            fontsize=7,
            frameon=False,
        )
    figure.savefig(file, dpi=200)


def main() -> None:
    parser = options(__doc__, seeds=5)
    arguments: argparse.Namespace = parsed(parser, needs_data=True)
    tables, seeds = list(TABLES), arguments.seeds
    if arguments.quick:
        tables, seeds = list(QUICK_TABLES), 1
    wanted = jobs(tables, seeds)
    lines = carried_out(wanted, partial(measure, folder=arguments.data), arguments)
    command = "python examples/paper/time_shift.py --data DIR"
    done = f"{len(lines)} of {len(wanted)} models; `{command}` runs the others.\n\n"
    publish(done + report(lines), "Trained early, used later", arguments)
    draw(lines, arguments.output / f"{arguments.stem}.png")


if __name__ == "__main__":
    one_thread()
    main()
