"""The wheel bandit: does a draw of the function find the rare reward that a mean never looks for?

    python examples/paper/bandit.py                # two hours of a core
    python examples/paper/bandit.py --budget 20    # twenty minutes; resumable
    python examples/paper/bandit.py --steps 1000   # half the steps, a third of the time
    python examples/paper/bandit.py --budget 0     # only the report
    python examples/paper/bandit.py --quick        # a few steps, only to see it run

At each step there is a context, uniform in the unit disc, and one of five arms is pulled. The first
pays 1.2 everywhere. The others pay 1.0, but outside a circle of radius delta one of them, another
one in each quadrant, pays 50. The noise has a deviation of 0.01. That is the problem of Riquelme,
Tucker and Snoek, "Deep Bayesian bandits showdown", ICLR 2018; the larger delta, the rarer the
contexts in which a trial could pay. They take 80 000 steps, here it is 2000 at most, so that the
figures are not to be compared with theirs: with delta = 0.99 some ten contexts of a quadrant pay.

One net has the context and the arm as inputs and the reward as its output. Each arm is pulled five
times in turn; then rewards become known 25 steps at a time, and whenever there are twice as many
rows the net is trained anew. Strategies differ in how they pull:

- Thompson: the arm that is best in a draw of the function, from the posterior of a subnetwork or of
  the last layer (both with three folds; between trainings `update` takes the new rows into the
  posterior), or from the moments of an ensemble of five nets. "noise 1" is the subnetwork told a
  deviation of the noise of 1, not asked to find it: about what the literature assumes beforehand;
- mean: the arm with the best mean of the same posterior, updated likewise: what the draw is worth;
- MAP: the arm with the best prediction of the trained nets; epsilon: the same, and one in ten pulls
  is uniform.

Regret is the expected reward of the best arm less that of the one that was pulled, summed over the
steps, in percent of that of pulling uniformly on the same contexts.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import carried_out, one_thread, options, parsed, publish

from sksubnet import DeepEnsembleRegressor, MAPRegressor, SubnetLaplaceRegressor, TabularNet

DELTAS = (0.5, 0.7, 0.9, 0.95, 0.99)
SAFE, OTHER, LARGE, NOISE = 1.2, 1.0, 50.0, 0.01
N_ARMS = 5
STEPS, QUICK_STEPS = 2000, 100
BATCH = 25
GROWTH = 2
EPSILON = 0.1
FIRST = ("Thompson", "MAP", "epsilon")
THEN = ("Thompson, noise 1", "Thompson, ensemble", "Thompson, last layer", "mean")
STYLES = {
    "Thompson": ("#0072B2", "-"),
    "MAP": ("#D55E00", "--"),
    "epsilon": ("#009E73", "-."),
    "mean": ("#666666", ":"),
    "Thompson, noise 1": ("#56B4E9", (0, (3, 1, 1, 1))),
    "Thompson, last layer": ("#CC79A7", (0, (5, 1))),
    "Thompson, ensemble": ("#000000", (0, (1, 1))),
}


class Job(NamedTuple):
    """A game, whose contexts and rewards are those of the seed, and a strategy."""

    delta: float
    seed: int
    strategy: str
    steps: int


class Game(NamedTuple):
    """Contexts (N, 2), and the expected and the drawn reward (N, 5) of each arm."""

    contexts: np.ndarray
    expected: np.ndarray
    rewards: np.ndarray


def expected_rewards(contexts: np.ndarray, delta: float) -> np.ndarray:
    """Expected reward (N, 5) of each arm at contexts (N, 2)."""
    expected = np.full((len(contexts), N_ARMS), OTHER)
    expected[:, 0] = SAFE
    outside = np.hypot(*contexts.T) > delta
    arm = 1 + 2 * (contexts[:, 0] <= 0) + (contexts[:, 1] <= 0)
    expected[outside, arm[outside]] = LARGE
    return expected


def game_of(delta: float, seed: int, steps: int) -> Game:
    rng = np.random.default_rng(seed)
    radius, angle = np.sqrt(rng.random(steps)), 2 * np.pi * rng.random(steps)
    contexts = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    expected = expected_rewards(contexts, delta)
    return Game(contexts, expected, expected + NOISE * rng.normal(size=expected.shape))


def regrets(expected: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """What each pull (N,) loses against the best arm, in expectation."""
    return expected.max(axis=1) - expected[np.arange(len(arms)), arms]


def uniform_regrets(expected: np.ndarray) -> np.ndarray:
    """Expected loss of pulling any arm with equal chances."""
    return expected.max(axis=1) - expected.mean(axis=1)


def rows_of(contexts: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """Inputs (N, 7) of the net."""
    return np.hstack([contexts, np.eye(N_ARMS)[arms]])


def all_arms(contexts: np.ndarray) -> np.ndarray:
    """Inputs (5 N, 7) of all arms at each context, arm by arm."""
    arms = np.tile(np.arange(N_ARMS), len(contexts))
    return rows_of(np.repeat(contexts, N_ARMS, axis=0), arms)


def drawn(model: Any, contexts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw (N, 5) of the function at all arms, for each context another one; without noise."""
    X, n = all_arms(contexts), len(contexts)
    mean, covariance = model.predict(X, return_cov=True)
    np.fill_diagonal(covariance, model.predictive(X).std("epistemic")[:, 0] ** 2)
    blocks = covariance.reshape(n, N_ARMS, n, N_ARMS)[np.arange(n), :, np.arange(n)]
    values, vectors = np.linalg.eigh(blocks)
    roots = vectors * np.sqrt(values.clip(min=0))[:, None, :]
    normals = rng.standard_normal((n, N_ARMS, 1))
    return mean.reshape(n, N_ARMS) + (roots @ normals)[..., 0]


def best_mean(model: Any, contexts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The predicted reward (N, 5) of all arms."""
    return model.predict(all_arms(contexts)).reshape(-1, N_ARMS)


def mostly_best(model: Any, contexts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same, and random numbers that are larger for some of the contexts."""
    values = best_mean(model, contexts, rng)
    explores = rng.random(len(contexts)) < EPSILON
    values[explores] = rng.random((explores.sum(), N_ARMS))
    return values


def model_of(strategy: str, seed: int) -> Any:
    """Three folds, short trainings, and weights chosen without a search."""
    net = TabularNet(max_epochs=60, patience=5, lr=1e-2)
    shared = {"dtype": "float32", "random_state": seed}
    laplace = partial(SubnetLaplaceRegressor, net, cv=3, selection="gradient", **shared)
    kinds: dict[str, Callable[[], Any]] = {
        "Thompson": lambda: laplace(noise="constant"),
        "mean": lambda: laplace(noise="constant"),
        "Thompson, noise 1": lambda: laplace(noise=1.0),
        "Thompson, last layer": lambda: laplace(noise="constant").set_params(
            selection="last_layer"
        ),
        "Thompson, ensemble": lambda: DeepEnsembleRegressor(net, n_members=5, **shared),
        "MAP": lambda: MAPRegressor(net, cv=3, **shared),
        "epsilon": lambda: MAPRegressor(net, cv=3, **shared),
    }
    return kinds[strategy]()


def values_of(strategy: str) -> Callable[[Any, np.ndarray, np.random.Generator], np.ndarray]:
    """What a strategy wants to be largest."""
    if strategy.startswith("Thompson"):
        return drawn
    return mostly_best if strategy == "epsilon" else best_mean


def play(job: Job, game: Game) -> np.ndarray:
    """Arms (steps,) that a strategy pulls."""
    rng, values = np.random.default_rng(1000 + job.seed), values_of(job.strategy)
    arms = np.arange(BATCH) % N_ARMS
    model, trained_on = None, 0
    for known in range(BATCH, job.steps, BATCH):
        X = rows_of(game.contexts[:known], arms)
        rewards = game.rewards[np.arange(known), arms]
        if model is None or known >= GROWTH * trained_on:
            model, trained_on = model_of(job.strategy, job.seed).fit(X, rewards), known
        elif hasattr(model, "update"):
            model.update(X[-BATCH:], rewards[-BATCH:])
        wanted = values(model, game.contexts[known : known + BATCH], rng)
        arms = np.concatenate([arms, wanted.argmax(axis=1)])
    return arms


def measure(job: Job) -> dict[str, Any]:
    """Regrets of the steps, and of uniform choice, summed up batch by batch."""
    game = game_of(job.delta, job.seed, job.steps)
    start = time.process_time()
    arms = play(job, game)
    sums = {"regret": regrets(game.expected, arms), "uniform": uniform_regrets(game.expected)}
    found = {
        name: np.cumsum(each)[BATCH - 1 :: BATCH].round(3).tolist() for name, each in sums.items()
    }
    hits = game.expected[np.arange(len(arms)), arms] == LARGE
    return {**found, "hits": int(hits.sum()), "seconds": time.process_time() - start}


def jobs(deltas: tuple[float, ...], seeds: int, steps: int) -> list[Job]:
    """The strategies that matter most for three seeds, then the others, then further seeds."""
    parts = [(range(min(3, seeds)), FIRST), (range(min(3, seeds)), THEN)]
    parts += [(range(3, seeds), FIRST + THEN)]
    return [
        Job(delta, seed, strategy, steps)
        for some, strategies in parts
        for seed in some
        for delta in deltas
        for strategy in strategies
    ]


def cell(each: pd.Series) -> str:
    error = f" ± {each.sem():.1f}" if len(each) > 1 else ""
    return f"{each.mean():.1f}{error} ({len(each)})" if len(each) else ""


def markdown(frame: pd.DataFrame, value: str) -> str:
    """A row for each strategy and a column for each delta: mean ± standard error (seeds)."""
    deltas = sorted(frame["delta"].unique())
    rows = [["", *(f"δ = {delta}" for delta in deltas)], ["---"] * (1 + len(deltas))]
    for strategy in STYLES:
        own = frame[frame["strategy"] == strategy]
        if len(own):
            cells = [cell(own[own["delta"] == delta][value]) for delta in deltas]
            rows.append([strategy, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def tabled(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Regret in percent of that of uniform choice: of the whole game, and of its last quarter."""
    rows = []
    for line in lines:
        regret, uniform = np.array(line["regret"]), np.array(line["uniform"])
        k = 3 * len(regret) // 4 - 1
        row = {name: line[name] for name in ("delta", "seed", "strategy", "hits", "seconds")}
        row["whole"] = 100 * regret[-1] / uniform[-1]
        row["last"] = 100 * (regret[-1] - regret[k]) / (uniform[-1] - uniform[k])
        rows.append(row)
    return pd.DataFrame(rows)


def report(lines: list[dict[str, Any]], steps: int) -> str:
    frame = tabled(lines)
    keys = ["delta", "seed"]
    thompson = frame[frame["strategy"] == "Thompson"].set_index(keys)["whole"]
    paired: list[pd.DataFrame] = []
    for strategy in list(STYLES)[1:]:
        other = frame[frame["strategy"] == strategy].set_index(keys)["whole"]
        gain = (thompson - other).dropna()
        paired.append(gain.rename("gain").reset_index().assign(strategy=strategy))
    seconds = frame.groupby("strategy", sort=False)["seconds"].mean()
    return "\n\n".join(
        [
            f"{steps} steps; pulling uniformly is 100. Mean ± standard error over seeds (their "
            "number).",
            "## Regret of all steps",
            markdown(frame, "whole"),
            "## Regret of the last quarter of the steps",
            markdown(frame, "last"),
            "## Thompson with a subnetwork less another strategy, paired (below 0 is better)",
            markdown(pd.concat(paired), "gain"),
            "Seconds of one processor for a game: "
            + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
            + ".",
        ]
    )


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Summed regret against the steps, one panel for each delta."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    deltas = sorted({line["delta"] for line in lines})
    figure, axes = plt.subplots(
        1, len(deltas), figsize=(6.75, 2.6), sharey=True, layout="constrained", squeeze=False
    )
    for ax, delta in zip(axes[0], deltas, strict=True):
        for strategy, (colour, style) in STYLES.items():
            own = [x for x in lines if (x["delta"], x["strategy"]) == (delta, strategy)]
            if own:
                shares = np.array([x["regret"] for x in own])
                shares = 100 * shares / np.array([x["uniform"][-1] for x in own])[:, None]
                steps = BATCH * np.arange(1, shares.shape[1] + 1)
                ax.plot(steps, shares.mean(axis=0), ls=style, color=colour, lw=1.2, label=strategy)
        ax.plot([0, steps[-1]], [0, 100], color="#BBBBBB", lw=0.8, label="uniform")
        ax.set_title(f"δ = {delta}", fontsize=8)
        ax.set_xlabel("steps", fontsize=8)
        ax.tick_params(labelsize=6)
    axes[0, 0].set_ylabel("regret (% of all of uniform's)", fontsize=8)
    handles = {}
    for ax in axes[0]:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    names = [name for name in (*STYLES, "uniform") if name in handles]
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside lower center",
        ncols=4,
        fontsize=7,
        frameon=False,
    )
    figure.savefig(file, dpi=200)


def main() -> None:
    parser = options(__doc__, seeds=10)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments: argparse.Namespace = parsed(parser, needs_data=False)
    deltas, seeds, steps = DELTAS, arguments.seeds, arguments.steps
    if arguments.quick:
        deltas, seeds, steps = (0.5,), 1, QUICK_STEPS
    wanted = jobs(deltas, seeds, steps)
    lines = carried_out(wanted, measure, arguments)
    done = f"{len(lines)} of {len(wanted)} games"
    if len(lines) < len(wanted):
        done += f"; `python examples/paper/bandit.py --steps {steps}` runs the others"
    publish(f"{done}.\n\n{report(lines, steps)}", "The wheel bandit", arguments)
    draw(lines, arguments.output / f"{arguments.stem}.png")


if __name__ == "__main__":
    one_thread()
    main()
