"""How far subnetwork Laplace reaches: many rows, all weights, a ResNet-18. Seconds and peak memory.

    python examples/benchmarks/large_scale.py rows      # up to 10**6 rows of 30 columns, S=500
    python examples/benchmarks/large_scale.py all       # every weight of a net with 100 000
    python examples/benchmarks/large_scale.py resnet    # 42 438 of the 11 million of a ResNet-18
    python examples/benchmarks/large_scale.py greedy    # the search: 1000 of 10**5, 10**4 of 10**7
    python examples/benchmarks/large_scale.py file      # 2 * 10**6 rows of 30 columns in a file
    python examples/benchmarks/large_scale.py --quick   # all five, tiny, only to see that they run

Memory is the peak of a step beyond what the process held before it, so beyond the data and the net,
and for the file beyond its pages.
`resnet --data DIR` (or the environment variable SKSUBNET_DATA) takes MNIST from DIR/img_mnist.npz;
without it the images are noise, which costs the same.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import in_child, measured, measured_beyond_files
from sklearn.datasets import make_moons
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from sksubnet import SubnetLaplaceClassifier

RESNET_WEIGHTS = 42_438
FLOAT32 = {"dtype": "float32", "random_state": 0}
NET = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam, "train_split": None}
NET |= {"verbose": 0}


class MLP(nn.Sequential):
    """Two hidden layers; the widths of input and output are filled in by ``fit``."""

    def __init__(self, n_features: int = 30, n_outputs: int = 2, hidden: int = 64) -> None:
        super().__init__(
            *(nn.Linear(n_features, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs)),
        )


class Block(nn.Module):
    """Two 3 by 3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            projection = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convolutions(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """For grey images of 28 by 28 pixels: a 3 by 3 first layer and no pooling after it."""

    def __init__(self, n_outputs: int = 10, width: int = 64) -> None:
        stem = (nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks, n_in = [], width
        for stage in range(4):
            n_out = width * 2**stage
            blocks += [Block(n_in, n_out, 1 if stage == 0 else 2), Block(n_out, n_out, 1)]
            n_in = n_out
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_outputs))
        super().__init__(*stem, *blocks, *head)


def report(model: SubnetLaplaceClassifier, X: np.ndarray, y: np.ndarray) -> str:
    """Fit and predict; the costs of both."""
    with warnings.catch_warnings(), measured() as fit:
        warnings.simplefilter("ignore")
        model.fit(X, y)
    with measured() as prediction:
        probabilities = model.predict_proba(X)
    assert probabilities.shape == (len(X), len(model.classes_))
    sizes = f"S={len(model.subnetwork_)} of {model.subnetwork_.n_weights}"
    return f"fit {fit}    predict_proba {prediction}    {sizes}"


def moons(n_rows: int, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that two of the columns tell apart, in float64."""
    X, y = make_moons(n_rows, noise=0.3, random_state=0)
    noise = np.random.default_rng(0).standard_normal((n_rows, n_features - 2))
    return np.concatenate([X, noise], axis=1), y


def fit_rows(threads: int, n_rows: int, n_weights: int) -> str:
    """Many rows: two epochs of training, a random subnetwork, the prior tuned on held-out rows."""
    limit_threads(threads)
    X, y = moons(n_rows, 30)
    net = NeuralNetClassifier(MLP, max_epochs=2, batch_size=4096, **NET)
    model = SubnetLaplaceClassifier(net, subnetwork_size=n_weights, selection="random", **FLOAT32)
    return f"{n_rows:>9} rows, data {X.nbytes / 2**20:5.0f} MiB    {report(model, X, y)}"


def fit_file(threads: int, n_rows: int, n_weights: int, dtype: str) -> str:
    """Rows of a file that is mapped into memory: a small net, a subnetwork at random, the classes.

    The file is written and read by parts, so that nothing holds all of it.
    """
    limit_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        path, shape = Path(folder) / "rows", (n_rows, 30)
        written = np.memmap(path, dtype=dtype, mode="w+", shape=shape)
        y = np.empty(n_rows, dtype=np.int64)
        for start in range(0, n_rows, 50_000):
            stop = min(start + 50_000, n_rows)
            values = np.random.default_rng(start).standard_normal((stop - start, 30))
            written[start:stop], y[start:stop] = values, values[:, 0] * values[:, 1] > 0
        written.flush()
        del written
        X = np.memmap(path, dtype=dtype, mode="r", shape=shape)
        net = NeuralNetClassifier(MLP, max_epochs=1, batch_size=4096, **NET)
        model = SubnetLaplaceClassifier(net, subnetwork_size=n_weights, selection="random")
        model.set_params(random_state=0)
        with warnings.catch_warnings(), measured_beyond_files() as fit:
            warnings.simplefilter("ignore")
            model.fit(X, y)
        with measured_beyond_files() as prediction:
            model.predict_proba(X)
        size = f"{n_rows:>9} rows of {dtype}, file {X.nbytes / 2**20:5.0f} MiB"
        return f"{size}    fit {fit}    predict_proba {prediction}"


def fit_all(threads: int, n_rows: int, hidden: int) -> str:
    """Full-network Laplace with full covariance."""
    limit_threads(threads)
    X, y = moons(n_rows, 30)
    net = NeuralNetClassifier(MLP, module__hidden=hidden, max_epochs=20, lr=1e-3, **NET)
    model = SubnetLaplaceClassifier(net, subnetwork_size="all", candidates="all", random_state=0)
    return f"{n_rows:>9} rows    {report(model, X, y)}"


def fit_greedy(threads: int, n_rows: int, hidden: int, n_weights: int) -> str:
    """Search for the weights that keep most of the predictive standard deviation."""
    limit_threads(threads)
    X, y = moons(n_rows, 30)
    net = NeuralNetClassifier(MLP, module__hidden=hidden, max_epochs=5, lr=1e-3, **NET)
    model = SubnetLaplaceClassifier(
        net, selection="greedy", subnetwork_size=n_weights, prior_precision=1.0, random_state=0
    )
    return f"{n_rows:>9} rows    {report(model, X, y)}"


def fit_resnet(
    threads: int,
    images: int,
    n_weights: int,
    width: int,
    epochs: int,
    data: str | None,
    greedy: bool = False,
) -> str:
    """Frozen ResNet-18, weights at random or by the search, a given prior precision."""
    limit_threads(threads)
    X, y = mnist(Path(data), images) if data else noise_images(images)
    net = NeuralNetClassifier(
        ResNet18, module__width=width, max_epochs=epochs, classes=list(range(10)), **NET
    ).initialize()
    with measured() as training:
        net.partial_fit(X, y)
    model = SubnetLaplaceClassifier(
        FrozenEstimator(net),
        selection="greedy" if greedy else "random",
        candidates="all",
        subnetwork_size=n_weights,
        prior_precision=100.0,
        **FLOAT32,
    )
    return f"{images:>9} images    train {training}    {report(model, X, y)}"


def noise_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).standard_normal((n, 1, 28, 28), dtype=np.float32)
    return X, np.arange(n) % 10


def mnist(folder: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "img_mnist.npz") as archive:
        X, y = archive["X_train"][:n], archive["y_train"][:n]
    return X.reshape(-1, 1, 28, 28).astype(np.float32) / 255, y.astype(np.int64)


def limit_threads(threads: int) -> None:
    """Hold torch and NumPy's BLAS to the same number of threads; seed torch."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["rows", "all", "resnet", "greedy", "file"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=500, help="rows of the ResNet-18's data")
    parser.add_argument("--epochs", type=int, default=1, help="of the ResNet-18's training")
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), metavar="DIR")
    arguments = parser.parse_args()
    runs: dict[str, list[tuple[Any, ...]]] = {
        "rows": [(fit_rows, n, 500) for n in (125_000, 250_000, 500_000, 1_000_000)],
        "all": [(fit_all, 1000, 310)],
        "file": [(fit_file, 2_000_000, 200, dtype) for dtype in ("float32", "float64")],
        "resnet": [
            (fit_resnet, arguments.images, RESNET_WEIGHTS, 64, arguments.epochs, arguments.data)
        ],
        "greedy": [
            (fit_greedy, 5000, 300, 1000),
            (fit_resnet, arguments.images, 10_000, 64, arguments.epochs, arguments.data, True),
        ],
    }
    if arguments.quick:
        runs = {
            "rows": [(fit_rows, 200, 50)],
            "all": [(fit_all, 100, 16)],
            "file": [(fit_file, 300, 20, "float32")],
            "resnet": [(fit_resnet, 20, 300, 4, 1, None)],
            "greedy": [(fit_greedy, 100, 16, 20), (fit_resnet, 20, 30, 4, 1, None, True)],
        }
    for part in [arguments.part] if arguments.part else runs:
        print(f"\n{part}", flush=True)
        for function, *sizes in runs[part]:
            # a child takes seconds to start, but memory is that of the step alone
            if arguments.quick:
                result = function(1, *sizes)
            else:
                result = in_child(function, arguments.threads, *sizes)
            print(result, flush=True)


if __name__ == "__main__":
    main()
