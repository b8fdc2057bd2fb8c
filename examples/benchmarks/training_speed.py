"""Training time next to a plain PyTorch loop, to skorch's own loader and to scikit-learn's MLP.

    python examples/benchmarks/training_speed.py            # some three minutes
    python examples/benchmarks/training_speed.py --quick    # tiny sizes, only to see that it runs

The first table trains 30-128-128-2 on 20 000 rows for a few epochs with batches of 128, in turns;
`x` counts in units of the plain loop with the same batches, dtype and optimiser. The second fits
whole estimators at their defaults on tables of 1000 rows and 20 columns, with early stopping, and
scores other rows of the same table.
"""

import argparse
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from measure import interleaved, median_ratio, seconds
from sklearn.base import ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from threadpoolctl import threadpool_limits
from torch import nn

from sksubnet import MAPClassifier, SubnetLaplaceClassifier

BATCH = 128
LR = 1e-3


class MLP(nn.Sequential):
    """Two hidden layers of 128; the width of the input is filled in by ``fit``."""

    def __init__(self, n_features: int = 30) -> None:
        hidden = (nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
        super().__init__(*hidden, nn.Linear(128, 2))


def table(n_rows: int, n_features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(
        n_rows,
        n_features,
        n_informative=n_features // 2,
        n_clusters_per_class=4,
        class_sep=0.7,
        random_state=seed,
    )
    return X, y


def plain_loop(X: np.ndarray, y: np.ndarray, dtype: torch.dtype, epochs: int) -> None:
    """Train with nothing but PyTorch."""
    rows, labels = torch.as_tensor(X, dtype=dtype), torch.as_tensor(y)
    net = MLP(X.shape[1]).to(dtype)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    for _ in range(epochs):
        for index in torch.randperm(len(rows)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(rows[index]), labels[index]).backward()
            optimizer.step()


def skorch_net(epochs: int, **options: object) -> NeuralNetClassifier:
    return NeuralNetClassifier(
        MLP,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=LR,
        batch_size=BATCH,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        **options,
    )


def training(n_rows: int, epochs: int, repeats: int) -> None:
    """Print seconds for each epoch, in turns."""
    X, y = table(n_rows, 30)
    X32 = X.astype(np.float32)
    mlp = MLPClassifier((128, 128), batch_size=BATCH, learning_rate_init=LR, max_iter=epochs)
    ours = {
        dtype: MAPClassifier(skorch_net(epochs), dtype=dtype) for dtype in ("float32", "float64")
    }
    runs: dict[str, Callable[[], object]] = {
        "plain PyTorch loop, float32": lambda: plain_loop(X, y, torch.float32, epochs),
        "sksubnet, float32": lambda: ours["float32"].fit(X, y),
        "skorch, float32": lambda: skorch_net(epochs).fit(X32, y),
        "MLPClassifier, float32": lambda: mlp.fit(X32, y),
        "plain PyTorch loop, float64": lambda: plain_loop(X, y, torch.float64, epochs),
        "sksubnet, float64": lambda: ours["float64"].fit(X, y),
        "MLPClassifier, float64": lambda: mlp.fit(X, y),
    }
    times = interleaved(runs, repeats)
    print(f"\n{n_rows} rows of 30 columns, {epochs} epochs, batches of {BATCH}")
    for name, own in times.items():
        loop = times[f"plain PyTorch loop, {name[-7:]}"]
        print(f"{name:<30}{median(own) / epochs:8.3f} s an epoch{median_ratio(own, loop):7.2f} x")


def whole_fit(n_rows: int, n_tables: int) -> None:
    """Print seconds and log loss of whole fits at the defaults, on several tables."""
    models: dict[str, ClassifierMixin] = {
        "MLPClassifier": make_pipeline(StandardScaler(), MLPClassifier(random_state=0)),
        "MLPClassifier(early_stopping)": make_pipeline(
            StandardScaler(), MLPClassifier(early_stopping=True, random_state=0)
        ),
        "MAPClassifier": MAPClassifier(random_state=0),
        "SubnetLaplaceClassifier": SubnetLaplaceClassifier(random_state=0),
    }
    X, y = table(2 * n_rows, 20)
    print(f"\n{n_tables} tables of {n_rows} rows of 20 columns: mean seconds, log loss")
    for name, model in models.items():
        times, losses = [], []
        model.fit(X[:n_rows], y[:n_rows])
        for seed in range(n_tables):
            X, y = table(2 * n_rows, 20, seed)
            times.append(seconds(lambda: model.fit(X[:n_rows], y[:n_rows])))  # noqa: B023
            losses.append(log_loss(y[n_rows:], model.predict_proba(X[n_rows:])))
        print(f"{name:<30}{np.mean(times):8.3f} s{np.mean(losses):10.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--repeats", type=int, default=5, help="turns of the first table")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    threadpool_limits(arguments.threads)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, threads: {arguments.threads}")
    if arguments.quick:
        training(600, 1, 1)
        whole_fit(120, 1)
    else:
        training(20_000, 5, arguments.repeats)
        whole_fit(1000, 5)


if __name__ == "__main__":
    main()
