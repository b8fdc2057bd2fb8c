"""scikit-learn estimators for Bayesian deep learning by subnetwork inference."""

from sksubnet.laplace import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.predictive import Predictive

__version__ = "0.1.0"

__all__ = ["Predictive", "SubnetLaplaceClassifier", "SubnetLaplaceRegressor", "__version__"]
