"""What a search over the size of the subnetwork costs, in units of a search over one size.

    python examples/benchmarks/search_cost.py            # some fifteen minutes
    python examples/benchmarks/search_cost.py --quick    # tiny sizes, only to see that it runs

Every search scores with five folds and fits the best size to all rows. `x` counts in units of a
GridSearchCV over one size, the mean over the sizes: n_folds + 1 of the fits of which the search
over all sizes without a memory does n_folds * n_sizes + 1. Seconds are those of the processor, of
one thread, whatever else the machine does. The table of a whole run goes next to this file.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from records import one_thread, origin
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import GridSearchCV

from sksubnet import (
    SubnetLaplaceClassifier,
    SubnetLaplaceClassifierCV,
    SubnetLaplaceRegressor,
    SubnetLaplaceRegressorCV,
    TabularNet,
)
from sksubnet.metrics import neg_gaussian_nll_scorer

GRIDS = [[10, 25, 50, 100, 150, 200, 300, 500], [150, 175, 200, 250, 300, 350, 400, 500]]
"""Up to 128 weights the search for them thinks twice."""


RESULTS = Path(__file__).with_name("search_cost_results.md")
HEAD = "| table | sizes | search | seconds | x | scores apart |\n" + 6 * "| --- " + "|"


def cpu_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def searches(
    estimator: Any, X: np.ndarray, y: np.ndarray, sizes: Sequence[int], n_folds: int
) -> list[str]:
    """The cost of each way, and how far their scores are apart."""
    classify = is_classifier(estimator)
    scoring = "neg_log_loss" if classify else neg_gaussian_nll_scorer
    options = {"scoring": scoring, "cv": n_folds}
    kind = SubnetLaplaceClassifierCV if classify else SubnetLaplaceRegressorCV

    def grid(model: Any, some: Sequence[int]) -> GridSearchCV:
        search = GridSearchCV(clone(model), {"subnetwork_size": list(some)}, **options)
        return search.fit(X, y)

    ways = {
        "GridSearchCV": lambda: grid(estimator, sizes),
        "GridSearchCV with memory": lambda: grid(remembers, sizes),
        kind.__name__: lambda: kind(estimator, subnetwork_sizes=sizes, **options).fit(X, y),
    }
    with tempfile.TemporaryDirectory() as folder:
        remembers = clone(estimator).set_params(memory=folder)
        found = {name: cpu_seconds(way) for name, way in ways.items()}
    plain, expected = found["GridSearchCV"]
    one = plain * (n_folds + 1) / (n_folds * len(sizes) + 1)
    cells = []
    for name, (seconds, search) in found.items():
        scores = (s.cv_results_["mean_test_score"] for s in (search, expected))
        apart = np.abs(np.subtract(*scores)).max()
        cells.append(f"{name} | {seconds:.1f} | {seconds / one:.2f} | {apart:.0e}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    arguments = parser.parse_args()
    one_thread()
    net, n_rows, n_folds, grids = None, None, 5, GRIDS
    if arguments.quick:
        net, n_rows, n_folds = TabularNet(hidden=(8,), bins=0, max_epochs=3), 60, 2
        grids = [[2, 5, 10]]
    tables = {
        "diabetes": (SubnetLaplaceRegressor(net, random_state=0), load_diabetes),
        "breast cancer": (SubnetLaplaceClassifier(net, random_state=0), load_breast_cancer),
    }
    print(HEAD)
    lines = [HEAD]
    for table, (estimator, load) in tables.items():
        X, y = (part[:n_rows] for part in load(return_X_y=True))
        for sizes in grids:
            shown = f"{table}, {len(X)} rows | {', '.join(map(str, sizes))}"
            found = [f"| {shown} | {cell} |" for cell in searches(estimator, X, y, sizes, n_folds)]
            print("\n".join(found), flush=True)
            lines += found
    if not arguments.quick:
        table = "\n".join(lines)
        RESULTS.write_text(f"# What a search over sizes costs\n\n{origin()}\n\n{table}\n")


if __name__ == "__main__":
    main()
