"""The same seed gives the same bytes, and batches of rows change rounding only."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from skorch import NeuralNetRegressor
from torch import Tensor, nn

from sksubnet import (
    DeepEnsembleRegressor,
    MCDropoutRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    VOGNRegressor,
)

RNG = np.random.default_rng(0)
X, Z = RNG.normal(size=(60, 3)), RNG.normal(size=(50, 3))
Y = np.sin(X[:, 0]) + 0.1 * RNG.normal(size=60)
LABELS = np.digitize(Y, [-0.5, 0.5])
SMALL = {"subnetwork_size": 20, "random_state": 7}


class Dropping(nn.Module):
    """Draws from the global random states of torch and NumPy."""

    def __init__(self, n_features: int = 3, n_outputs: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 6), nn.Dropout(0.2), nn.Tanh(), nn.Linear(6, n_outputs)
        )

    def forward(self, rows: Tensor) -> Tensor:
        factor = 1 + 0.01 * np.random.rand() if self.training else 1.0
        return factor * self.layers(rows)


def net() -> NeuralNetRegressor:
    return NeuralNetRegressor(Dropping, max_epochs=5, lr=0.05, batch_size=20, verbose=0)


MODELS: dict[str, Callable[..., Any]] = {
    "default net": lambda **o: SubnetLaplaceRegressor(cv=None, **SMALL, **o).fit(X, Y),
    "folds": lambda **o: SubnetLaplaceClassifier(cv=2, **SMALL, **o).fit(X, LABELS),
    "own net": lambda **o: SubnetLaplaceRegressor(net(), cv=2, **SMALL, **o).fit(X, Y),
    "swag": lambda **o: SWAGRegressor(net(), n_snapshots=3, n_draws=4, random_state=7, **o).fit(
        X, Y
    ),
    "dropout": lambda **o: MCDropoutRegressor(net(), n_draws=4, random_state=7, **o).fit(X, Y),
    "vogn": lambda **o: VOGNRegressor(net(), n_draws=4, n_epochs=3, random_state=7, **o).fit(X, Y),
    "ensemble": lambda **o: DeepEnsembleRegressor(net(), n_members=2, random_state=7, **o).fit(
        X, Y
    ),
}


def answers(model: Any, rows: np.ndarray = Z) -> list[np.ndarray]:
    predictive = model.predictive(rows)
    found = [predictive.mean.numpy(), predictive.covariance.numpy()]
    if hasattr(model, "predict_proba"):
        return [*found, predictive.probabilities(), predictive.entropy()]
    return [*found, predictive.std(), model.sample_y(rows, 3), model.predict_interval(rows)]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    first, elsewhere = answers(MODELS[name]()), []
    np.random.seed(99)  # what the global states are does not matter
    torch.manual_seed(99)
    thread = threading.Thread(target=lambda: elsewhere.extend(answers(MODELS[name]())))
    thread.start()
    thread.join()
    for one, other in zip(first, elsewhere, strict=True):
        assert_array_equal(one, other)


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np, torch
torch.set_num_threads({n_threads})
from test_reproducibility import MODELS, answers
for name in ("default net", "folds"):
    print(*(value.tobytes().hex() for value in answers(MODELS[name]())))
"""


def test_another_process_with_more_threads_gives_the_same_bytes() -> None:
    program = PROGRAM.format(folder=str(Path(__file__).parent), n_threads=2)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = [value for name in ("default net", "folds") for value in answers(MODELS[name]())]
    assert done.stdout.split() == [value.tobytes().hex() for value in here]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("name", MODELS)
def test_rows_predicted_at_once_change_rounding_only(
    name: str, dtype: str, tolerance: float
) -> None:
    model = MODELS[name](dtype=dtype)
    whole = model.predictive(Z)
    for n_rows in (1, 7):
        parts = [model.predictive(Z[i : i + n_rows]) for i in range(0, len(Z), n_rows)]
        for field in ("mean", "covariance"):
            found = torch.cat([getattr(part, field) for part in parts]).numpy()
            expected = getattr(whole, field).numpy()
            assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
