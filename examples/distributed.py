"""Rows that are spread over several processes: the same posterior as in one place.

    python examples/distributed.py

A local cluster stands for many machines: its workers make the rows, keep them, and add up what they
say of the weights. With a scheduler of your own, `Client("tcp://...")` is all that changes.
"""

import sys
from pathlib import Path

import numpy as np

from sksubnet import SubnetLaplaceRegressor, TabularNet

# This file has the name of a package, which is not to be looked for here.
HERE = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != HERE]

try:
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster

    from sksubnet.distributed import fit, predict
except ImportError:
    da = None

N_ROWS, N_BLOCKS = 8_000, 8


def rows_of_block(block_info: dict) -> np.ndarray:
    """Rows (n, 6) that a worker makes, or would read from a file: five inputs and a target."""
    k = block_info[None]["chunk-location"][0]
    rng = np.random.default_rng(k)
    X = rng.normal(size=(N_ROWS // N_BLOCKS, 5))
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=len(X))
    return np.column_stack([X, y])


def main() -> None:
    if da is None:
        print("This example needs dask: pip install 'sksubnet[distributed]'")
        return
    chunks = ((N_ROWS // N_BLOCKS,) * N_BLOCKS, (6,))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        table = da.map_blocks(rows_of_block, chunks=chunks, dtype=float, meta=np.zeros((0, 0)))
        table = table.persist()
        X, y = table[:, :5], table[:, 5]

        net = TabularNet(hidden=(32,), max_epochs=8)
        options = {"subnetwork_size": 100, "selection": "magnitude", "random_state": 0}
        model = SubnetLaplaceRegressor(net, **options)
        fitted = fit(model, X, y, sample_rows=1000)
        print(fitted.subnetwork_)

        # Nothing is computed before it is asked for, and each block is predicted where it is.
        mean, std = predict(fitted, X, return_std=True)
        inside = (abs(y - mean) < 1.645 * std).mean()
        rmse, share = dask.compute((y - mean).std(), inside)
        print(f"\nRMSE {rmse:.3f}, of a noise of 0.3")
        print(f"share of the rows in their 90 % interval {share:.3f}")


if __name__ == "__main__":
    main()
