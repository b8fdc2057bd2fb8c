"""Likelihoods, links, and what is read off a distribution over the outputs of a net.

A likelihood says what the targets are given the outputs; a link turns a Gaussian over the outputs
into class probabilities. `Predictive` is the value that every estimator returns, from Laplace and
from every baseline alike: a Gaussian or a `Mixture` of them for each row; of targets that are not
Gaussian, such as counts, a `CompoundPredictive`. Knows torch only.

Read first: `Likelihood` in `likelihood.py`, then `Predictive` in `distribution.py`.
"""

from sksubnet.predictive.compound import CompoundPredictive, predictive_of
from sksubnet.predictive.counts import Poisson
from sksubnet.predictive.criteria import LikelihoodLoss, criterion_row_weights, likelihood_of
from sksubnet.predictive.distribution import DEFAULT_LINK, Predictive
from sksubnet.predictive.labels import MultiLabel, MultiLabelPredictive
from sksubnet.predictive.likelihood import (
    LINKS,
    SIGN_LINKS,
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    check_shapes,
)
from sksubnet.predictive.mean_variance import MeanVariance
from sksubnet.predictive.mixture import Mixture, pick_components
from sksubnet.predictive.transformed import (
    AnyPredictive,
    Components,
    Log,
    Moments,
    Transform,
    TransformedPredictive,
    lognormal_moments,
    quadrature_moments,
    stacked,
)

__all__ = [
    "DEFAULT_LINK",
    "LINKS",
    "SIGN_LINKS",
    "AnyPredictive",
    "Bernoulli",
    "Categorical",
    "Components",
    "CompoundPredictive",
    "Gaussian",
    "Likelihood",
    "LikelihoodLoss",
    "Log",
    "MeanVariance",
    "Mixture",
    "Moments",
    "MultiLabel",
    "MultiLabelPredictive",
    "Poisson",
    "Predictive",
    "Transform",
    "TransformedPredictive",
    "check_shapes",
    "criterion_row_weights",
    "likelihood_of",
    "lognormal_moments",
    "pick_components",
    "predictive_of",
    "quadrature_moments",
    "stacked",
]
