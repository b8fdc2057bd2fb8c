"""Likelihoods, links, and what is read off a distribution over the outputs of a net.

A likelihood says what the targets are given the outputs; a link turns a Gaussian over the outputs
into class probabilities. `Predictive` is the value that every estimator returns, from Laplace and
from every baseline alike: a Gaussian or a `Mixture` of them for each row. Knows torch only.

Read first: `Predictive` in `distribution.py`.
"""

from sksubnet.predictive.distribution import DEFAULT_LINK, Predictive
from sksubnet.predictive.likelihood import (
    LINKS,
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    criterion_row_weights,
    likelihood_of,
)
from sksubnet.predictive.mixture import Mixture, pick_components

__all__ = [
    "DEFAULT_LINK",
    "LINKS",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "Mixture",
    "Predictive",
    "criterion_row_weights",
    "likelihood_of",
    "pick_components",
]
