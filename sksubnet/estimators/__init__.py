"""What all estimators share: validation, labels and targets, training, predictions.

A fit is the method's steps, one call through one door each; what a user passes in and gets back are
arrays here, and tensors in every wing below. `SubnetLaplace` is the base of the two estimators that
people come for, `BayesianNetClassifier` and `BayesianNetRegressor` are the halves for labels and
for targets.

Read first: `SubnetLaplace.fit` in `subnet.py`.
"""

from sksubnet.estimators.base import (
    BayesianNet,
    InitialFold,
    InitialNet,
    TrainedFold,
    all_or_nothing,
    draw_seed,
)
from sksubnet.estimators.blocks import Block, fit_in_blocks
from sksubnet.estimators.classifier import BayesianNetClassifier
from sksubnet.estimators.fitted import FORWARD_ROWS, FittedNet, mixed_moments
from sksubnet.estimators.folds import Table
from sksubnet.estimators.jobs import cores, in_jobs, work_of_batch
from sksubnet.estimators.options import FOLD_OPTIONS
from sksubnet.estimators.packing import Form, keep
from sksubnet.estimators.regressor import BayesianNetRegressor
from sksubnet.estimators.saving import load, savable
from sksubnet.estimators.size_path import SizeSearch, SubnetworkPath, asked, fitted_path, grid_of
from sksubnet.estimators.subnet import SubnetLaplace

__all__ = [
    "FOLD_OPTIONS",
    "FORWARD_ROWS",
    "BayesianNet",
    "BayesianNetClassifier",
    "BayesianNetRegressor",
    "Block",
    "FittedNet",
    "Form",
    "InitialFold",
    "InitialNet",
    "SizeSearch",
    "SubnetLaplace",
    "SubnetworkPath",
    "Table",
    "TrainedFold",
    "all_or_nothing",
    "asked",
    "cores",
    "draw_seed",
    "fit_in_blocks",
    "fitted_path",
    "grid_of",
    "in_jobs",
    "keep",
    "load",
    "mixed_moments",
    "savable",
    "work_of_batch",
]
