"""scikit-learn estimators for Bayesian deep learning by subnetwork inference."""

__version__ = "0.1.0"
