"""Frozen estimators with everything given, rows for them, and their dense curvature."""

import dense
import numpy as np
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

X_NEW = np.random.default_rng(1).normal(size=(9, 3))
NOISE = np.array([0.4, 1.7])


def regressor(module=None, **options):
    """Frozen regressor with everything given and every parameter in the subnetwork."""
    net = dense.frozen(NeuralNetRegressor, module or dense.mlp(), nn.MSELoss)
    settings = {"subnetwork_size": "all", "candidates": "all", "prior_precision": 0.7}
    return SubnetLaplaceRegressor(net, random_state=0, **{**settings, "noise": NOISE, **options})


def classifier(module=None, **options):
    net = dense.frozen(
        NeuralNetClassifier, module or dense.mlp(n_outputs=3, seed=1), nn.CrossEntropyLoss
    )
    settings = {"subnetwork_size": "all", "candidates": "all", "prior_precision": 0.7}
    return SubnetLaplaceClassifier(net, random_state=0, **{**settings, **options})


def regression_rows(n_rows, n_targets=2):
    rng = np.random.default_rng(2)
    return rng.normal(size=(n_rows, 3)), rng.normal(size=(n_rows, n_targets))


def labelled_rows(n_rows):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n_rows, 3)), np.resize([0, 1, 2], n_rows)


def regression_ggn(module, X, noise=NOISE):
    return dense.ggn(dense.jacobian(module, X), np.tile(np.diag(noise**-2.0), (len(X), 1, 1)))


def classification_ggn(module, X):
    hessian = dense.softmax_hessian(dense.evaluate(module, X))
    return dense.ggn(dense.jacobian(module, X), hessian)


def epistemic_variance(estimator):
    covariance = estimator.predictive(X_NEW).covariance
    return covariance.diagonal(dim1=1, dim2=2).numpy()
