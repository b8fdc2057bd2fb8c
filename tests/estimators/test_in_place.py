"""Modules and data sets that work in place change neither the caller's rows nor ours."""

from typing import Any

import numpy as np
import pytest
from skorch import NeuralNetRegressor
from skorch.dataset import Dataset
from torch import Tensor, nn

from sksubnet import (
    MAPRegressor,
    MCDropoutRegressor,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    VOGNRegressor,
)
from sksubnet.posterior import subnetwork_curvature

X = np.random.default_rng(0).normal(size=(120, 3))
Y = np.maximum(X, 0).sum(axis=1)


class InPlace(nn.Module):
    """Cuts negative inputs off, in place or not."""

    def __init__(self, n_features: int, n_outputs: int, inplace: bool = True) -> None:
        super().__init__()
        layers = [nn.Linear(n_features, 6), nn.Tanh(), nn.Dropout(0.1), nn.Linear(6, n_outputs)]
        self.layers = nn.Sequential(nn.ReLU(inplace=inplace), *layers)

    def forward(self, X: Tensor) -> Tensor:
        return self.layers(X)


class Doubling(Dataset):
    """Doubles a row in place whenever it is read."""

    def __getitem__(self, i: int) -> Any:
        self.X[i] *= 2
        return super().__getitem__(i)


KINDS = {
    "laplace": (SubnetLaplaceRegressor, {"subnetwork_size": 10, "selection": "magnitude"}),
    "map": (MAPRegressor, {}),
    "dropout": (MCDropoutRegressor, {"n_draws": 3}),
    "swag": (SWAGRegressor, {"n_draws": 3, "n_snapshots": 3}),
    "vogn": (VOGNRegressor, {"n_draws": 3, "n_epochs": 4}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_in_place_gives_the_same_and_harms_nothing(kind: str) -> None:
    estimator, options = KINDS[kind]
    found = []
    for inplace in (True, False):
        net = NeuralNetRegressor(
            InPlace, module__inplace=inplace, batch_size=200, max_epochs=3, verbose=0
        )
        rows = X.copy()
        model = estimator(net, random_state=0, **options).fit(rows, Y)
        assert np.array_equal(rows, X)
        found.append(model.predict(rows, return_std=True))
        assert np.array_equal(rows, X)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_data_set_that_changes_its_rows_changes_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    net = NeuralNetRegressor(InPlace, dataset=Doubling, max_epochs=1, train_split=None, verbose=0)
    rows = X.copy()
    model = SubnetLaplaceRegressor(
        net, subnetwork_size=10, selection="magnitude", prior_precision=1.0, random_state=0
    )
    seen = []

    def remember(trained: Any, plan: Any, indices: Any, rows: Any, **options: Any) -> Any:
        seen.append(rows.X.numpy().copy())
        return subnetwork_curvature(trained, plan, indices, rows, **options)

    monkeypatch.setattr("sksubnet.estimators.curved.subnetwork_curvature", remember)
    model.fit(rows, Y)
    assert np.array_equal(rows, X)
    # as the net reads them, once
    assert set(map(tuple, seen[0])) <= set(map(tuple, 2 * X))
