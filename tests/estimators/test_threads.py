"""One fitted estimator in many threads: every answer is bit for bit that of one thread."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import Tensor, nn

from sksubnet import (
    DeepEnsembleRegressor,
    MAPClassifier,
    MCDropoutRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGClassifier,
    VOGNRegressor,
)
from sksubnet.posterior import (
    CholeskyPosterior,
    DiagonalPosterior,
    KernelPosterior,
    ShiftedCholesky,
)

N_THREADS = 8
N_CALLS = 35
"""Calls of a thread to each estimator."""

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.sin(X[:, 0]) + X[:, 1]
LABELS = np.digitize(Y, [-0.5, 0.5])
PARTS = [X[i : i + 2 + i % 3] for i in range(N_THREADS)]


class Keeps(nn.Module):
    """Keeps its activations on itself and in a list of its own, and goes on from there."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(n_features, 5), nn.Linear(5, n_outputs)
        self.dropout = nn.Dropout(0.2)
        self.kept: list[Tensor] = []

    def forward(self, X: Tensor) -> Tensor:
        self.hidden = torch.tanh(self.first(X))
        self.kept.clear()
        self.kept.append(self.dropout(self.hidden))
        return self.last(self.kept[-1]) + self.hidden.sum(1, keepdim=True)


def regressor(kind: Callable[..., Any], **options: Any) -> Any:
    net = NeuralNetRegressor(Keeps, train_split=None, max_epochs=3, lr=0.01, verbose=0)
    return kind(net, random_state=0, **options).fit(X, Y)


def classifier(kind: Callable[..., Any], **options: Any) -> Any:
    net = NeuralNetClassifier(
        Keeps, criterion=nn.CrossEntropyLoss, train_split=None, max_epochs=3, verbose=0
    )
    return kind(net, random_state=0, **options).fit(X, LABELS)


LAPLACE = {"prior_precision": 1.0, "selection": "magnitude"}
DEFAULT_NET = {"subnetwork_size": 20, "random_state": 0, **LAPLACE}

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "full": lambda: regressor(SubnetLaplaceRegressor, subnetwork_size=15, **LAPLACE),
    "full_classes": lambda: classifier(SubnetLaplaceClassifier, subnetwork_size=15, **LAPLACE),
    "default_net": lambda: SubnetLaplaceClassifier(**DEFAULT_NET).fit(X, LABELS > 0),
    "diagonal": lambda: regressor(SubnetLaplaceRegressor, covariance="diag", **LAPLACE),
    "kernel": lambda: SubnetLaplaceRegressor(
        subnetwork_size="all", candidates="all", prior_precision=1.0, cv=None, random_state=0
    ).fit(X, Y),
    "noise_of_each_row": lambda: SubnetLaplaceRegressor(noise="input", **DEFAULT_NET).fit(X, Y),
    "cholesky": lambda: classifier(SubnetLaplaceClassifier, subnetwork_size=15, **LAPLACE),
    "map": lambda: classifier(MAPClassifier),
    "dropout": lambda: regressor(MCDropoutRegressor, n_draws=3),
    "swag": lambda: classifier(SWAGClassifier, n_draws=3, n_snapshots=3),
    "vogn": lambda: regressor(VOGNRegressor, n_draws=3, n_epochs=5),
    "ensemble": lambda: regressor(DeepEnsembleRegressor, n_members=2),
}
POSTERIORS = {
    "diagonal": DiagonalPosterior,
    "kernel": KernelPosterior,
    "cholesky": CholeskyPosterior,
}


@pytest.fixture(autouse=True)
def threads_that_switch_all_the_time() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def answers(model: Any, rows: np.ndarray) -> list[np.ndarray]:
    """What a model says about rows, by each of its ways to predict."""
    if hasattr(model, "predict_proba"):
        return [model.predict_proba(rows)]
    return [*model.predict(rows, return_std=True), model.sample_y(rows, 2)]


def fitted(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    if name == "cholesky":
        monkeypatch.setattr("sksubnet.posterior.kinds.EIGEN_LIMIT", 10)
    model = ESTIMATORS[name]()
    if name in POSTERIORS:
        assert type(model.posterior_) is POSTERIORS[name]
    return model


def run(works: list[Callable[[], None]]) -> list[BaseException]:
    """Run in threads that start together; return what they raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(works))

    def guarded(work: Callable[[], None]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def asking(model: Any, which: int, expected: list[list[np.ndarray]], n: int) -> Callable[[], None]:
    """Work that asks for different rows in turn, beginning elsewhere in each thread."""

    def work() -> None:
        for i in range(which, which + n):
            found = answers(model, PARTS[i % len(PARTS)])
            for one, other in zip(found, expected[i % len(PARTS)], strict=True):
                assert np.array_equal(one, other)

    return work


@pytest.mark.parametrize("name", ESTIMATORS)
def test_threads_get_the_serial_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(name, monkeypatch)

    def refuse(*_: Any) -> None:
        raise AssertionError("a prediction factorised")

    monkeypatch.setattr(ShiftedCholesky, "factorise", refuse)
    monkeypatch.setattr(ShiftedCholesky, "restore", refuse)
    expected = [answers(model, part) for part in PARTS]
    assert not np.array_equal(expected[0][0][:2], expected[1][0][:2])
    kept = [dict(vars(layer)) for layer in model.net_.module_.modules()] if name == "full" else []
    failures = run([asking(model, i, expected, N_CALLS) for i in range(N_THREADS)])
    assert not failures, failures[0]
    # What a forward keeps on its module is kept on none that others see.
    for before, layer in zip(kept, model.net_.module_.modules() if kept else [], strict=True):
        assert all(before[key] is value for key, value in vars(layer).items())


def test_one_fits_while_others_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["full", "swag", "dropout", "kernel"]
    serial = {name: fitted(name, monkeypatch) for name in names}
    expected = {name: [answers(serial[name], part) for part in PARTS] for name in names}

    def fit_again(name: str) -> Callable[[], None]:
        def work() -> None:
            found = answers(ESTIMATORS[name](), PARTS[0])
            for one, other in zip(found, expected[name][0], strict=True):
                assert np.array_equal(one, other)

        return work

    works = [asking(serial[name], i, expected[name], 20) for i, name in enumerate(names)]
    failures = run([*works, *(fit_again(name) for name in names)])
    assert not failures, failures[0]
