"""Choose the size of the subnetwork: quality against size, with standard errors.

    python examples/choose_subnetwork_size.py            # about a minute
    python examples/choose_subnetwork_size.py --quick    # tiny, only to see that it runs

On the diabetes table, by the log density of rows that no net has seen. The search trains once for
each fold, whatever the number of sizes. With --plot FILE the curve is drawn.
"""

import argparse
import warnings

import numpy as np
from sklearn.datasets import load_diabetes

from sksubnet import SubnetLaplaceRegressor, SubnetLaplaceRegressorCV, TabularNet
from sksubnet.displays import SizePathDisplay
from sksubnet.metrics import neg_gaussian_nll_scorer


def search(
    X: np.ndarray, y: np.ndarray, sizes: list[int], net: TabularNet | None, n_folds: int
) -> tuple[SubnetLaplaceRegressorCV, SizePathDisplay]:
    """Score the sizes."""
    found = SubnetLaplaceRegressorCV(
        SubnetLaplaceRegressor(net, random_state=0),
        subnetwork_sizes=sizes,
        scoring=neg_gaussian_nll_scorer,
        cv=n_folds,
    ).fit(X, y)
    display = SizePathDisplay.from_search(found, score_name="log density, in nats")
    return found, display


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--plot", metavar="FILE", help="draw the curve into this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    X, y = load_diabetes(return_X_y=True)
    sizes, net, n_folds = [10, 25, 50, 100, 200, 400, 800], None, 5
    if arguments.quick:
        X, y, sizes, n_folds = X[:60], y[:60], [2, 5, 10], 3
        net = TabularNet(hidden=(8,), bins=0, max_epochs=3)
    found, display = search(X, y, sizes, net, n_folds)

    print(f"{'weights':>8}{'log density':>13}{'s.e.':>8}{'minus best':>13}{'s.e.':>8}")
    best = display.scores[display.sizes == display.best_size_][0]
    for size, scores in zip(display.sizes, display.scores, strict=True):
        apart = scores - best
        errors = [values.std(ddof=1) / np.sqrt(n_folds) for values in (scores, apart)]
        print(
            f"{size:>8.0f}{scores.mean():>13.4f}{errors[0]:>8.4f}"
            f"{apart.mean():>13.4f}{errors[1]:>8.4f}"
        )
    print(f"best: {found.subnetwork_size_}; the folds differ more than the sizes, so look at the")
    print(f"differences within folds: the smallest within one s.e. is {display.smallest_size_:.0f}")

    fit = found.best_estimator_
    print(f"the fit of all rows: {fit.tuning_.summary()}")
    std = fit.predictive(X).std("epistemic")[:, 0]
    print(f"what its weights leave open, of a target with sd {y.std():.0f}: {std.mean():.1f}")
    if arguments.plot:
        display.plot()
        display.figure_.savefig(arguments.plot)


if __name__ == "__main__":
    main()
