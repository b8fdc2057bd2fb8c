"""scikit-learn's own checks, all of them, for the default net and for a user's net."""

import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    parametrize_with_checks,
)
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sksubnet import (
    DeepEnsembleClassifier,
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    MCDropoutClassifier,
    MCDropoutRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceClassifierCV,
    SubnetLaplaceRegressor,
    SubnetLaplaceRegressorCV,
    SWAGClassifier,
    SWAGRegressor,
    VOGNClassifier,
    VOGNRegressor,
)


class MLP(nn.Module):
    """A user's module: float32, widths by name, nothing about this library."""

    def __init__(self, n_features=2, n_outputs=2, hidden=16, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_outputs),
        )

    def forward(self, X):
        return self.layers(X)


OPTIONS = {"optimizer": torch.optim.Adam, "lr": 0.02, "max_epochs": 60, "batch_size": 256}
OPTIONS |= {"train_split": None, "verbose": 0}

CLASSIFIER_NET = NeuralNetClassifier(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS)
REGRESSOR_NET = NeuralNetRegressor(MLP, **OPTIONS)
DROPOUT = {"module__dropout": 0.1}

# The first two are the defaults. All others train a small net, because a check fits many times.
ESTIMATORS = [
    SubnetLaplaceClassifier(random_state=0),
    SubnetLaplaceRegressor(random_state=0),
    SubnetLaplaceClassifier(
        CLASSIFIER_NET,
        selection="random",
        link="mc",
        random_state=0,
    ),
    SubnetLaplaceRegressor(
        REGRESSOR_NET,
        selection="magnitude",
        prior_precision="evidence",
        random_state=0,
    ),
    MAPClassifier(CLASSIFIER_NET, random_state=0),
    MAPRegressor(REGRESSOR_NET, random_state=0),
    MCDropoutClassifier(clone(CLASSIFIER_NET).set_params(**DROPOUT), n_draws=10, random_state=0),
    MCDropoutRegressor(clone(REGRESSOR_NET).set_params(**DROPOUT), n_draws=10, random_state=0),
    SWAGClassifier(CLASSIFIER_NET, n_snapshots=10, n_draws=5, random_state=0),
    SWAGRegressor(REGRESSOR_NET, n_snapshots=10, n_draws=5, random_state=0),
    VOGNClassifier(CLASSIFIER_NET, n_draws=5, n_epochs=60, random_state=0),
    VOGNRegressor(REGRESSOR_NET, n_draws=5, n_epochs=60, random_state=0),
    DeepEnsembleClassifier(CLASSIFIER_NET, n_members=2, random_state=0),
    DeepEnsembleRegressor(REGRESSOR_NET, n_members=2, random_state=0),
    SubnetLaplaceClassifierCV(
        SubnetLaplaceClassifier(CLASSIFIER_NET, selection="random", random_state=0),
        subnetwork_sizes=[0.1, "all"],
        cv=2,
    ),
    SubnetLaplaceRegressorCV(
        SubnetLaplaceRegressor(REGRESSOR_NET, selection="random", random_state=0),
        subnetwork_sizes=[0.1, "all"],
        cv=2,
    ),
]


# Which units a step of the training drops depends on the number of rows in its batch, so that a
# repeated row meets other masks than a row of weight two.
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "estimator", ESTIMATORS[:2] + ESTIMATORS[4:], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize(
    "check", [check_dataframe_column_names_consistency, check_param_validation]
)
def test_further_check(estimator, check):
    check(type(estimator).__name__, estimator)
