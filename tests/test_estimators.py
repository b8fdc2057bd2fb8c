"""scikit-learn's own checks, all of them, for the default net and for a user's net."""

import pytest
import torch
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    parametrize_with_checks,
)
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor


class MLP(nn.Module):
    """A user's module: float32, widths by name, nothing about this library."""

    def __init__(self, n_features=2, n_outputs=2, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden), nn.Tanh(), nn.Linear(hidden, n_outputs)
        )

    def forward(self, X):
        return self.layers(X)


OPTIONS = {"optimizer": torch.optim.Adam, "lr": 0.02, "max_epochs": 60, "batch_size": 256}
OPTIONS |= {"train_split": None, "verbose": 0}

ESTIMATORS = [
    SubnetLaplaceClassifier(random_state=0),
    SubnetLaplaceRegressor(random_state=0),
    SubnetLaplaceClassifier(
        NeuralNetClassifier(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS),
        selection="random",
        link="mc",
        random_state=0,
    ),
    SubnetLaplaceRegressor(
        NeuralNetRegressor(MLP, **OPTIONS),
        selection="magnitude",
        prior_precision="evidence",
        random_state=0,
    ),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS[:2], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "check", [check_dataframe_column_names_consistency, check_param_validation]
)
def test_further_check(estimator, check):
    check(type(estimator).__name__, estimator)
