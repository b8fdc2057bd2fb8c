"""What all estimators share: validation, labels and targets, training, predictions.

A fit is the method's steps, one call through one door each; what a user passes in and gets back are
arrays here, and tensors in every wing below. `SubnetLaplace` is the base of the two estimators that
people come for, `BayesianNetClassifier` and `BayesianNetRegressor` are the halves for labels and
for targets.

Read first: `SubnetLaplace.fit` in `subnet.py`.
"""

from sksubnet.estimators.base import (
    FORWARD_ROWS,
    BayesianNet,
    criterion_weighted,
    draw_seed,
    torch_threads,
)
from sksubnet.estimators.classifier import BayesianNetClassifier
from sksubnet.estimators.regressor import BayesianNetRegressor
from sksubnet.estimators.subnet import SubnetLaplace

__all__ = [
    "FORWARD_ROWS",
    "BayesianNet",
    "BayesianNetClassifier",
    "BayesianNetRegressor",
    "SubnetLaplace",
    "criterion_weighted",
    "draw_seed",
    "torch_threads",
]
