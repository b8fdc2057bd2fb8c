"""Speed and memory of subnetwork Laplace next to the matrix products that it cannot do without.

    python examples/benchmarks/laplace_speed.py            # some ten minutes with laplace-torch
    python examples/benchmarks/laplace_speed.py --quick    # tiny sizes, only to see that it runs

Routes, all in float32, with two threads unless told otherwise, and the same S weights:

    sksubnet         plan and curvature; predictive(X), with the C x C covariance of every row
    torch.func       Jacobian of all P weights by vmap(jacrev), then the S columns, in batches
    laplace-torch    SubnetLaplace with its defaults, where version 0.3 is installed
    product          A.T @ A with A of N*C x S for the curvature, A @ V with V of S x S for the rest

torch.func and laplace-torch take the best of a few batch sizes, tried on a few rows. `x` counts in
units of the product, timed in turns with ours and just before and after the others; `/ours` is the
same in units of ours. Memory is the peak of a process of its own, beyond the net and the data,
after a first call on a few rows. `differs` is the largest difference of a route's curvature from
ours, relative to its largest entry.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from laplace_routes import BATCHES, ROUTES, STEPS, Case, our_steps, product_steps
from measure import in_child, interleaved, measured, median_ratio, seconds
from threadpoolctl import threadpool_limits


def peak_memory(threads: int, route: str, case: Case, step: str, batch: int | None) -> float:
    """MiB of one step beyond the net and the data, in this process."""
    limit_threads(threads)
    for rows in (2 * (batch or 8), case.n_rows):
        run = getattr(ROUTES[route](replace(case, n_rows=rows), batch), step)
        if route == "sksubnet" and step == "prediction":
            run()  # fits
        with measured() as cost:
            run()
    return cost.mebibytes


def best_batch(route: str, case: Case, step: str) -> int | None:
    """Batch size of least seconds per row, on a few batches' worth of rows."""
    if route not in BATCHES:
        return None
    per_row = {}
    for batch in BATCHES[route]:
        few = replace(case, n_rows=min(case.n_rows, 2 * batch))
        run = getattr(ROUTES[route](few, batch), step)
        run()
        per_row[batch] = min(seconds(run) for _ in range(2)) / few.n_rows
    return min(per_row, key=per_row.__getitem__)


def compare(case: Case, repeats: int, memory_of: Callable[..., float]) -> None:
    """Print the table of all routes for one net."""
    print(f"\n{case.title}")
    head = "".join(f"{step:>15}  batch       x  /ours     MiB" for step in STEPS)
    print(f"{'route':<14}{head}  differs", flush=True)
    ours, product = our_steps(case, None), product_steps(case, None)
    matrix = ours.curvature()
    found: dict[str, dict[str, tuple[float, float]]] = {"sksubnet": {}, "product": {}}
    for step in STEPS:
        runs = {"sksubnet": getattr(ours, step), "product": getattr(product, step)}
        times = interleaved(runs, repeats)
        for route, own in times.items():
            found[route][step] = median(own), median_ratio(own, times["product"])
    for route, build in ROUTES.items():
        cells, differs = "", ""
        for step in STEPS:
            batch = best_batch(route, case, step)
            if route in found:
                own, ratio = found[route][step]
            else:
                run, bare = getattr(build(case, batch), step), getattr(product, step)
                before, start = seconds(bare), time.perf_counter()
                result = run()
                own = time.perf_counter() - start
                ratio = own / ((before + seconds(bare)) / 2)
                if step == "curvature":
                    differs = f"{float((result - matrix).abs().max() / matrix.abs().max()):.0e}"
            memory = memory_of(route, case, step, batch)
            to_ours = ratio / found["sksubnet"][step][1]
            cells += f"{own:13.3f} s  {batch or '-':>5} {ratio:7.2f} {to_ours:6.1f} {memory:7.0f}"
        print(f"{route:<14}{cells}  {differs:>7}", flush=True)


def curvature_ratio(case: Case, repeats: int) -> None:
    """Print the curvature of a larger subnetwork next to its product."""
    runs = {"ours": our_steps(case, None).curvature, "bare": product_steps(case, None).curvature}
    times = interleaved(runs, repeats)
    ratio = median_ratio(times["ours"], times["bare"])
    print(
        f"\n{case.title}\ncurvature {median(times['ours']):.3f} s, "
        f"product {median(times['bare']):.3f} s, {ratio:.2f} x"
    )


def growth(case: Case, repeats: int) -> None:
    """Print how the cost grows as one size at a time doubles, or nearly so for P."""
    width = case.widths[-1]
    deeper = (*case.widths, width)
    cases = {
        "base": case,
        "N doubled": replace(case, n_rows=2 * case.n_rows),
        "S doubled": replace(case, n_weights=2 * case.n_weights),
        "C doubled": replace(case, n_outputs=2 * case.n_outputs),
        "one layer more": replace(case, widths=deeper),
        "three layers more": replace(case, widths=(*deeper, width, width)),
        "twice as wide": replace(case, widths=(case.widths[0], *(2 * w for w in case.widths[1:]))),
    }
    print(
        "\nGrowth. P grows by layers of the same width or by wider layers. At fixed S only the "
        "forward\nand the C backward passes to the inputs, which touch no weight's gradient, can "
        "grow with it."
    )
    head = f"{'':<18}{'passes':>11}{'curvature':>12}{'less passes':>13}{'prediction':>12}"
    print(head + "   net", flush=True)
    for name, changed in cases.items():
        steps = our_steps(changed, None)
        runs = {"passes": backward_passes(changed), **steps._asdict()}
        middle = {run: median(t) for run, t in interleaved(runs, repeats).items()}
        rest = middle["curvature"] - middle["passes"]
        print(
            f"{name:<18}{middle['passes']:9.3f} s{middle['curvature']:10.3f} s{rest:11.3f} s"
            f"{middle['prediction']:10.3f} s   {changed.title}",
            flush=True,
        )


def backward_passes(case: Case) -> Callable[[], None]:
    """One forward and C backward passes, from the outputs to the inputs."""
    net = case.net().requires_grad_(False)
    X = case.data()[0].requires_grad_()

    def run() -> None:
        outputs = net(X)
        for output in outputs.unbind(1):
            torch.autograd.grad(output.sum(), X, retain_graph=True)

    return run


def limit_threads(threads: int) -> None:
    """Hold torch and NumPy's BLAS to the same number of threads."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    warnings.simplefilter("ignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="turns of ours and the product")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one thread")
    parser.add_argument("--only", choices=["compare", "large", "growth"], help="one part")
    parser.add_argument("--net", type=int, choices=[1, 2, 3], help="one net of the comparison")
    arguments = parser.parse_args()
    threads = 1 if arguments.quick else arguments.threads
    limit_threads(threads)
    repeats, only = arguments.repeats, arguments.only
    cases = [
        Case((50, 256, 256), n_rows=2000, n_weights=1000),
        Case((100, 768, 768), n_rows=2000, n_weights=1000),
        Case((), n_rows=1000, n_weights=1000),
    ]
    large = 4000
    memory_of: Callable[..., float] = partial(in_child, peak_memory, threads)
    if arguments.quick:
        memory_of = partial(peak_memory, threads)  # a child takes seconds to start
        repeats, large = 1, 80
        BATCHES.update({"torch.func": (8,), "laplace-torch": (8,)})
        cases = [Case((10, 16, 16), n_rows=40, n_weights=40)]
    names = ", ".join(route for route in ROUTES if route not in ("product", "sksubnet"))
    print(f"torch {torch.__version__}, threads: {threads}; compared with {names}")
    if only in (None, "compare"):
        for case in [cases[arguments.net - 1]] if arguments.net else cases:
            compare(case, repeats, memory_of)
    if only in (None, "large"):
        curvature_ratio(replace(cases[0], n_weights=large), max(1, repeats // 3))
    if only in (None, "growth"):
        growth(cases[0], repeats)


if __name__ == "__main__":
    main()
