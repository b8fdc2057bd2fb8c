"""scikit-learn estimators for Bayesian deep learning by subnetwork inference."""

from sksubnet.baselines import (
    DeepEnsembleClassifier,
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    MCDropoutClassifier,
    MCDropoutRegressor,
    SWAGClassifier,
    SWAGRegressor,
    VOGNClassifier,
    VOGNRegressor,
)
from sksubnet.comparison import Comparison, compare, cross_val_predictive
from sksubnet.estimators import load
from sksubnet.laplace import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.laplace_cv import (
    SubnetLaplaceClassifierCV,
    SubnetLaplaceRegressorCV,
    subnetwork_path,
)
from sksubnet.nets import NamedInputs, TabularNet
from sksubnet.predictive import Likelihood, LikelihoodLoss, Predictive

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "DeepEnsembleClassifier",
    "DeepEnsembleRegressor",
    "Likelihood",
    "LikelihoodLoss",
    "MAPClassifier",
    "MAPRegressor",
    "MCDropoutClassifier",
    "MCDropoutRegressor",
    "NamedInputs",
    "Predictive",
    "SWAGClassifier",
    "SWAGRegressor",
    "SubnetLaplaceClassifier",
    "SubnetLaplaceClassifierCV",
    "SubnetLaplaceRegressor",
    "SubnetLaplaceRegressorCV",
    "TabularNet",
    "VOGNClassifier",
    "VOGNRegressor",
    "__version__",
    "compare",
    "cross_val_predictive",
    "load",
    "subnetwork_path",
]
