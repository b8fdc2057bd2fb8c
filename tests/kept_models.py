"""Small fitted estimators of every kind that is kept in pickles and files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer, PowerTransformer
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import MLP, classifier_net, regressor_net

from sksubnet import (
    DeepEnsembleRegressor,
    LikelihoodLoss,
    MAPClassifier,
    MAPRegressor,
    MCDropoutRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGClassifier,
    VOGNRegressor,
)
from sksubnet.nets import Schedule
from sksubnet.predictive import Gaussian, MeanVariance, TransformedPredictive

rng = np.random.default_rng(0)
X = rng.normal(size=(70, 3))
Y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=70)
LABELS = np.array(["low", "mid", "high"])[np.digitize(X[:, 1], [-0.5, 0.5])]


class Tanh(nn.Module):
    """Has statistics of batches, and an attribute that is no tensor and changes in training."""

    def __init__(self, n_features: int = 3, n_outputs: int = 1) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(n_features, 6), nn.BatchNorm1d(6)
        self.last = nn.Linear(6, n_outputs)
        self.largest = 0.0

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.largest = max(self.largest, float(X.abs().max()))
        return self.last(torch.tanh(self.norm(self.first(X / (1 + self.largest)))))


def user_regressor(**options: Any) -> SubnetLaplaceRegressor:
    given = {"subnetwork_size": 9, "prior_precision": 1.0, "random_state": 0, **options}
    return SubnetLaplaceRegressor(regressor_net(Tanh), **given)


def frozen() -> SubnetLaplaceRegressor:
    net = NeuralNetRegressor(
        MLP, module__n_features=3, module__n_outputs=1, max_epochs=2, verbose=0
    )
    net.fit(X.astype(np.float32), Y.astype(np.float32)[:, None])
    return SubnetLaplaceRegressor(FrozenEstimator(net), subnetwork_size=9, random_state=0)


def variance_net() -> NeuralNetRegressor:
    return regressor_net(criterion=LikelihoodLoss, criterion__likelihood=MeanVariance())


SMALL = {"cv": None, "random_state": 0}
MODELS = {
    "folds": lambda: SubnetLaplaceRegressor(cv=2, random_state=0).fit(X, Y),
    "refit": lambda: SubnetLaplaceClassifier(
        cv=2, refit=True, subnetwork_size=20, random_state=0
    ).fit(X, LABELS),
    "noise": lambda: SubnetLaplaceRegressor(
        cv=2, noise="input", subnetwork_size=20, random_state=0
    ).fit(X, Y),
    "kernel": lambda: SubnetLaplaceRegressor(subnetwork_size="all", **SMALL).fit(X, Y),
    "diagonal": lambda: SubnetLaplaceRegressor(covariance="diag", **SMALL).fit(X, Y),
    "two_targets": lambda: SubnetLaplaceRegressor(subnetwork_size=10, dtype="float32", **SMALL).fit(
        X, np.column_stack([Y, X[:, 2]])
    ),
    "user": lambda: user_regressor().fit(X, Y),
    "user_classes": lambda: SubnetLaplaceClassifier(
        classifier_net(), subnetwork_size=12, random_state=0
    ).fit(X, LABELS),
    "frozen": lambda: frozen().fit(X, Y),
    "log": lambda: SubnetLaplaceRegressor(
        cv=2, target_transform="log", subnetwork_size=10, random_state=0
    ).fit(X, np.exp(Y)),
    "power": lambda: SubnetLaplaceRegressor(
        target_transform=PowerTransformer(), subnetwork_size=10, **SMALL
    ).fit(X, np.exp(Y)),
    "function": lambda: MAPRegressor(
        target_transform=FunctionTransformer(np.log1p, np.expm1), random_state=0
    ).fit(X, np.exp(Y)),
    "counts": lambda: SubnetLaplaceRegressor(
        regressor_net(criterion=nn.PoissonNLLLoss), subnetwork_size=10, random_state=0
    ).fit(X, np.round(np.exp(Y))),
    "variances": lambda: SubnetLaplaceRegressor(
        variance_net(), subnetwork_size=10, random_state=0
    ).fit(X, Y),
    "labels": lambda: SubnetLaplaceClassifier(subnetwork_size=10, cv=2, random_state=0).fit(
        X, (X[:, :2] > 0).astype(int)
    ),
    "updated": lambda: MODELS["kernel"]().update(X[:5] + 1, Y[:5]),
    "updated_classes": lambda: MODELS["user_classes"]().update(X[:5] + 1, LABELS[:5]),
    "map": lambda: MAPClassifier(random_state=0).fit(X, LABELS),
    "dropout": lambda: MCDropoutRegressor(n_draws=3, random_state=0).fit(X, Y),
    "swag": lambda: SWAGClassifier(classifier_net(), n_draws=3, n_snapshots=3, random_state=0).fit(
        X, LABELS
    ),
    "vogn": lambda: VOGNRegressor(n_draws=3, n_epochs=3, random_state=0).fit(X, Y),
    "ensemble": lambda: DeepEnsembleRegressor(
        SubnetLaplaceRegressor(subnetwork_size=9, **SMALL), n_members=2, random_state=0
    ).fit(X, Y),
}


def answers(model: Any) -> list[np.ndarray]:
    predictive = model.predictive(X)
    found = [predictive.mean.numpy(), model.predict(X)]
    if not isinstance(predictive, TransformedPredictive):
        found.append(predictive.covariance.numpy())
    if hasattr(model, "sample_y"):
        found += [*model.predict(X, return_std=True), model.predict_interval(X)]
        found += [model.sample_y(X, 3), model.predict_quantiles(X, [0.2])]
        if isinstance(predictive, TransformedPredictive) or not isinstance(
            model._likelihood, Gaussian
        ):
            return found
        return [*found, *model.predict(X, return_cov=True), np.asarray(model.noise_std_)]
    return [*found, model.predict_proba(X), model.classes_]


def assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(answers(found), answers(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module", autouse=True)
def few_epochs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schedule, "until_stopped", lambda n_rows: Schedule(n_rows, True, 5))
        patch.setattr(Schedule, "alone", lambda n_rows: Schedule(n_rows, False, 5))
        yield
