"""What a fit costs: a model of time and memory, fitted to small runs and checked on others.

    python examples/benchmarks/scaling.py model          # a minute on one thread
    python examples/benchmarks/scaling.py workers        # one and two processes of dask
    python examples/benchmarks/scaling.py --quick        # the model, tiny, only to see that it runs

For N rows, P weights of the net, S of the subnetwork, C outputs, E epochs, K folds and W workers:

    training      E (a1 N + a2 N P)                      a gradient for each row
    curvature     b0 + b1 N + b2 N C P + b3 N C S^2      a Jacobian, and its outer products
    factorising   c1 S^3, or for S > 3000 of 16 priors   c2 S^3 each
    prediction    d0 + d1 M + d2 M C P + d3 M C S^2      of M rows
    memory        8 bytes times 3 S^2 (S^2 for S > 3000), beside the net and a block of rows

K folds multiply training and curvature by K - 1, and W workers divide what has K parts (folds) or
many (blocks of rows) among them; sums of S x S travel once for each worker. Coefficients come from
half of the runs by non-negative least squares of relative errors; the other half is predicted.
Seconds are of CPU time on one thread, which other programs on the machine disturb least.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import in_child, measured_beyond_files
from scipy.optimize import nnls
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetRegressor
from torch import nn
from versions import versions

from sksubnet import MAPRegressor, SubnetLaplaceRegressor

N_FEATURES, EPOCHS, BATCH = 20, 3, 256
PRIORS_TRIED = 16
"""Prior precisions whose matrix is factorised where S is above 3000."""


class MLP(nn.Sequential):
    """Two hidden layers of one width."""

    def __init__(self, n_features: int = N_FEATURES, n_outputs: int = 1, width: int = 32) -> None:
        super().__init__(
            *(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()),
            nn.Linear(width, n_outputs),
        )


def n_weights(width: int, n_outputs: int) -> int:
    """Count the weights of a net."""
    return sum(part.numel() for part in MLP(n_outputs=n_outputs, width=width).parameters())


def cpu_seconds(run: Callable[[], Any], repeats: int = 2) -> float:
    """Least CPU seconds of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def table(n_rows: int, n_outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of noise, and targets that some of the columns tell."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, N_FEATURES))
    return X, np.sin(X[:, :n_outputs]) + 0.1 * rng.standard_normal((n_rows, n_outputs))


def skorch_net(width: int, n_outputs: int, **options: Any) -> NeuralNetRegressor:
    settings = {"batch_size": BATCH, "train_split": None, "verbose": 0, "lr": 0.01, **options}
    return NeuralNetRegressor(MLP, module__width=width, module__n_outputs=n_outputs, **settings)


def laplace(width: int, n_outputs: int, size: int) -> SubnetLaplaceRegressor:
    """Estimator around a net that is not trained, which costs the same."""
    net = skorch_net(width, n_outputs).initialize()
    return SubnetLaplaceRegressor(
        FrozenEstimator(net),
        subnetwork_size=size,
        selection="random",
        prior_precision="evidence",
        noise=0.1,
        random_state=0,
    )


def runs(quick: bool) -> list[dict[str, float]]:
    """Measure steps at sizes at random, on a logarithmic scale."""
    rng, found = np.random.default_rng(0), []
    most_rows, most_width, most_size = (300, 16, 40) if quick else (4000, 400, 800)
    for _ in range(6 if quick else 20):
        n_rows = int(np.exp(rng.uniform(np.log(most_rows / 16), np.log(most_rows))))
        width = int(np.exp(rng.uniform(np.log(most_width / 8), np.log(most_width))))
        n_outputs = int(rng.choice([1, 4]))
        n_all = n_weights(width, n_outputs)
        size = int(min(np.exp(rng.uniform(np.log(most_size / 8), np.log(most_size))), n_all / 2))
        size = min(size, n_rows)  # with fewer rows than weights the curvature takes another form
        X, y = table(n_rows, n_outputs)
        net = skorch_net(width, n_outputs, max_epochs=EPOCHS)
        model = laplace(width, n_outputs, size)
        found.append(
            {
                "N": n_rows,
                "P": n_all,
                "S": size,
                "C": n_outputs,
                "training": cpu_seconds(lambda net=net, X=X, y=y: MAPRegressor(net).fit(X, y)),
                "fit": cpu_seconds(lambda model=model, X=X, y=y: model.fit(X, y)),
                "prediction": cpu_seconds(lambda model=model, X=X: model.predictive(X)),
            }
        )
    return found


TERMS: dict[str, dict[str, Callable[[Any], float]]] = {
    "training": {
        "1": lambda r: 1.0,
        "E N": lambda r: EPOCHS * r["N"],
        "E N P": lambda r: EPOCHS * r["N"] * r["P"],
    },
    "fit": {
        "1": lambda r: 1.0,
        "N": lambda r: r["N"],
        "N C P": lambda r: r["N"] * r["C"] * r["P"],
        "N C S^2": lambda r: r["N"] * r["C"] * r["S"] ** 2,
        "S^3": lambda r: r["S"] ** 3,
    },
    "prediction": {
        "1": lambda r: 1.0,
        "N": lambda r: r["N"],
        "N C P": lambda r: r["N"] * r["C"] * r["P"],
        "N C S^2": lambda r: r["N"] * r["C"] * r["S"] ** 2,
    },
}


def fitted(step: str, known: list[dict[str, float]]) -> dict[str, float]:
    """Coefficients of a step, non-negative, by relative errors."""
    design = np.array([[term(r) for term in TERMS[step].values()] for r in known])
    seconds = np.array([r[step] for r in known])
    scaled = design / seconds[:, None]
    unit = scaled.max(axis=0)
    found, _ = nnls(scaled / unit, np.ones(len(known)))
    return dict(zip(TERMS[step], found / unit, strict=True))


def predicted(step: str, coefficients: dict[str, float], sizes: Any) -> float:
    return sum(value * TERMS[step][name](sizes) for name, value in coefficients.items())


def cholesky_coefficient(sizes: tuple[int, ...]) -> float:
    """Seconds of a Cholesky factor over S^3, for the largest S that is measured."""
    found = 0.0
    for size in sizes:
        A = torch.randn(size, size, dtype=torch.float64)
        H = A @ A.mT / size + torch.eye(size, dtype=torch.float64)
        found = cpu_seconds(lambda H=H: torch.linalg.cholesky(H)) / size**3
    return found


def memory_of(size: int) -> float:
    """Mebibytes that a fit takes beyond its rows and net, most of it by S x S matrices."""
    torch.set_num_threads(1)
    X, y = table(size + 500, 1)
    width = next(w for w in range(8, 500, 8) if n_weights(w, 1) > 2 * size)
    model = laplace(width, 1, size)
    laplace(width, 1, 10).fit(X, y)  # what is loaded once
    with measured_beyond_files() as cost:
        model.fit(X, y)
    return cost.mebibytes


def show_model(quick: bool) -> None:
    torch.set_num_threads(1)
    measured = runs(quick)
    known, new = measured[::2], measured[1::2]
    found = {step: fitted(step, known) for step in TERMS}
    print("## Model\n\n| step | seconds |\n| --- | --- |")
    for step, coefficients in found.items():
        terms = " + ".join(f"{value:.2g} {name}" for name, value in coefficients.items() if value)
        print(f"| {step} | {terms} |")
    cholesky = cholesky_coefficient((50,) if quick else (1000, 2000))
    print(f"| one Cholesky factor | {cholesky:.2g} S^3 |")
    print("\n## Runs that it has not seen: seconds measured, and the model over them\n")
    print("| N | P | S | C | training | model | fit | model | prediction | model |")
    print("| " + "---: | " * 10)
    ratios: dict[str, list[float]] = {step: [] for step in TERMS}
    for r in new:
        cells = [f"{r[name]:.0f}" for name in "NPSC"]
        for step in TERMS:
            ratios[step].append(predicted(step, found[step], r) / r[step])
            cells += [f"{r[step]:.3f}", f"{ratios[step][-1]:.2f}"]
        print("| " + " | ".join(cells) + " |")
    for step, values in ratios.items():
        error = float(np.median(np.abs(np.log(values))))
        print(f"\nMedian factor between model and measurement, {step}: {np.exp(error):.2f}")
    print("\n## Memory: measured, and 3 matrices of S x S float64\n")
    print("| S | MiB measured | MiB of the model |\n| ---: | ---: | ---: |")
    for size in (50,) if quick else (1000, 2000, 2900):
        mebibytes = memory_of(size) if quick else in_child(memory_of, size)
        print(f"| {size} | {mebibytes:.0f} | {3 * 8 * size**2 / 2**20:.0f} |")
    show_extrapolations(found, cholesky)


def show_extrapolations(found: dict[str, dict[str, float]], cholesky: float) -> None:
    """Say what the model says of sizes that nobody has run here."""
    cases = {
        "10^9 rows, a net of 10^5, S = 500": {"N": 1e9, "P": 1e5, "S": 500, "C": 1},
        "10^6 rows, a net of 10^9, S = 10^4": {"N": 1e6, "P": 1e9, "S": 1e4, "C": 1},
    }
    print("\n## Extrapolated, in CPU hours of one thread and GiB\n")
    print(
        "| case | an epoch | curvature | factorising | prediction of 10^6 rows | matrices | net |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, r in cases.items():
        epoch = predicted("training", found["training"], r) / EPOCHS
        fit = {k: v for k, v in found["fit"].items() if k != "S^3"}
        curvature = predicted("fit", fit, r)
        is_large = r["S"] > 3000
        factor = (PRIORS_TRIED * cholesky if is_large else found["fit"]["S^3"]) * r["S"] ** 3
        prediction = predicted("prediction", found["prediction"], {**r, "N": 1e6})
        matrices = 8 * r["S"] ** 2 * (1 if is_large else 3) / 2**30
        hours = " | ".join(f"{s / 3600:.3g}" for s in (epoch, curvature, factor, prediction))
        print(f"| {name} | {hours} | {matrices:.2g} | {4 * r['P'] / 2**30:.2g} |")
    print(
        "\nThese are orders of magnitude: the products of a net of 10^9 weights do not run at "
        "the speed of the small ones that were measured, and nobody trains it on one thread. "
        "The search for a subnetwork is not counted, which looks at a sample of rows. W "
        "workers divide epochs of other folds, curvature and predictions by W; an epoch of "
        "one net is not divided, and the factorising is done once."
    )


def show_workers(quick: bool) -> None:
    """Time the same fit on one and on two processes, and the client's memory for more rows."""
    try:
        import dask.array as da
        from distributed import Client, LocalCluster

        from sksubnet.distributed import fit
    except ImportError:
        print("\nworkers: needs dask, the extra sksubnet[distributed]")
        return
    torch.set_num_threads(1)
    model = laplace(16, 1, 30) if quick else laplace(96, 1, 500)
    sizes, n_blocks = ((400,), 4) if quick else ((20_000, 80_000), 16)
    print("\n## Processes of dask, one thread each: wall seconds, and the client's memory\n")
    print("| rows | processes | s | MiB of the client |\n| ---: | ---: | ---: | ---: |")
    for n_processes in (1,) if quick else (1, 2):
        with (
            LocalCluster(
                n_workers=n_processes, threads_per_worker=1, dashboard_address=None
            ) as cluster,
            Client(cluster),
        ):
            for n_rows in sizes:
                rows = da.random.default_rng(0).normal(
                    size=(n_rows, N_FEATURES), chunks=(n_rows // n_blocks, N_FEATURES)
                )
                rows = rows.persist()
                y = da.sin(rows[:, 0]).persist()
                fit(model, rows, y, sample_rows=200)  # starts what starts once
                seconds = []
                with measured_beyond_files() as cost:
                    for _ in range(1 if quick else 3):
                        start = time.perf_counter()
                        fit(model, rows, y, sample_rows=200)
                        seconds.append(time.perf_counter() - start)
                cells = f"{min(seconds):.2f} | {cost.mebibytes:.0f}"
                print(f"| {n_rows} | {n_processes} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="model", choices=["model", "workers"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(versions(), end="\n\n")
    if arguments.part == "model":
        show_model(arguments.quick)
    else:
        show_workers(arguments.quick)


if __name__ == "__main__":
    main()
