"""Nets and tables of a user who knows nothing about this library."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from torch import Tensor, nn

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

OPTIONS = {"optimizer": torch.optim.Adam, "lr": 0.02, "batch_size": 64, "max_epochs": 8}
OPTIONS |= {"train_split": None, "verbose": 0}

QUICK = {"selection": "magnitude", "subnetwork_size": 12, "prior_precision": 1.0}
QUICK |= {"random_state": 0}


class MLP(nn.Module):
    """Widths by name, float32, no last activation."""

    def __init__(self, n_features=4, n_outputs=3, hidden=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden), nn.Tanh(), nn.Linear(hidden, n_outputs)
        )

    def forward(self, X: Tensor) -> Tensor:
        return self.layers(X)


class SoftmaxMLP(MLP):
    """Probabilities, for skorch's default criterion."""

    def forward(self, X: Tensor) -> Tensor:
        return self.layers(X).softmax(dim=-1)


class FlatMLP(MLP):
    """One output of shape (n,)."""

    def forward(self, X: Tensor) -> Tensor:
        return self.layers(X).squeeze(-1)


class Passes(list):
    """A list that neither copies nor what a training depends on take along."""

    def __reduce__(self):
        return Passes, ()


class CountedMLP(MLP):
    """Counts its training passes."""

    training_passes = Passes()

    def forward(self, X: Tensor) -> Tensor:
        if self.training and X.dtype == torch.float64:
            self.training_passes.append(len(X))
        return super().forward(X)


class SmallConvNet(nn.Module):
    """For images of 8 by 8 pixels."""

    def __init__(self, n_outputs=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, n_outputs)
        )

    def forward(self, X: Tensor) -> Tensor:
        return self.layers(X / 16)


class Counts(Callback):
    """Asks the loader of the epoch how many batches there are."""

    def on_epoch_begin(self, net, dataset_train=None, **_):
        loader = net.get_iterator(dataset_train, training=True)
        net.history.record("expected", (len(loader), loader.batch_size))


def classifier_net(module=MLP, **options) -> NeuralNetClassifier:
    return NeuralNetClassifier(module, **{"criterion": nn.CrossEntropyLoss, **OPTIONS, **options})


def binary_net(module=MLP, **options) -> NeuralNetBinaryClassifier:
    return NeuralNetBinaryClassifier(module, **{**OPTIONS, **options})


def regressor_net(module=MLP, **options) -> NeuralNetRegressor:
    return NeuralNetRegressor(module, **{**OPTIONS, **options})


def quick_classifier(net="user", **options) -> SubnetLaplaceClassifier:
    """Train eight epochs, select twelve weights, tune nothing; ``None`` is the default net."""
    net = classifier_net() if isinstance(net, str) and net == "user" else net
    return SubnetLaplaceClassifier(net, **{**QUICK, **options})


def quick_regressor(net="user", **options) -> SubnetLaplaceRegressor:
    """Train eight epochs, select twelve weights, tune nothing; ``None`` is the default net."""
    net = regressor_net() if isinstance(net, str) and net == "user" else net
    return SubnetLaplaceRegressor(net, **{**QUICK, **options})


def iris() -> tuple[np.ndarray, np.ndarray]:
    """Three classes, 150 rows, shuffled and scaled."""
    return shuffled(*load_iris(return_X_y=True), n_rows=150)


def cancer() -> tuple[np.ndarray, np.ndarray]:
    """Two classes, 120 rows, five columns."""
    X, y = load_breast_cancer(return_X_y=True)
    return shuffled(X[:, :5], y, n_rows=120)


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """A target of mean 150, 120 rows."""
    return shuffled(*load_diabetes(return_X_y=True), n_rows=120)


def shuffled(X: np.ndarray, y: np.ndarray, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(0).permutation(len(X))[:n_rows]
    return StandardScaler().fit_transform(X[order]), y[order]


def assert_refused(call, *parts: str, error: type[Exception] = ValueError) -> None:
    """Assert that the call raises, with all these parts in its message."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in: {message}"
