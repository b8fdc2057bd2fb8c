"""Which likelihood a criterion of torch stands for, and the weights that its classes have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sksubnet.predictive.counts import Poisson
from sksubnet.predictive.labels import MultiLabel
from sksubnet.predictive.likelihood import Bernoulli, Categorical, Gaussian, Likelihood
from sksubnet.predictive.mean_variance import MeanVariance

__all__ = ["LIKELIHOODS", "LikelihoodLoss", "criterion_row_weights", "likelihood_of"]


def _categorical(criterion: nn.Module, n_outputs: int) -> Likelihood:
    """Softmax over the outputs."""
    return Categorical()


def _bernoulli(criterion: nn.Module, n_outputs: int) -> Likelihood:
    """Sigmoid of the single output, or of each for several labels."""
    return Bernoulli() if n_outputs == 1 else MultiLabel()


def _unit_gaussian(criterion: nn.Module, n_outputs: int) -> Likelihood:
    """Gaussian noise of variance one."""
    return Gaussian(torch.ones(n_outputs, dtype=torch.float64))


def _mean_variance(criterion: nn.Module, n_outputs: int) -> Likelihood:
    """Gaussian whose mean and variance are what the module returns."""
    return MeanVariance()


def _poisson(criterion: nn.Module, n_outputs: int) -> Likelihood:
    """Poisson whose log rate is the output."""
    if not getattr(criterion, "log_input", False):
        raise ValueError(
            "PoissonNLLLoss has log_input=False, but the posterior is over outputs of any sign; "
            "let the module return the logarithm of the rate, with criterion__log_input=True."
        )
    return Poisson()


LIKELIHOODS: dict[type[nn.Module], Callable[[nn.Module, int], Likelihood]] = {
    nn.CrossEntropyLoss: _categorical,
    nn.NLLLoss: _categorical,
    nn.BCEWithLogitsLoss: _bernoulli,
    nn.MSELoss: _unit_gaussian,
    nn.PoissonNLLLoss: _poisson,
    nn.GaussianNLLLoss: _mean_variance,
}


def likelihood_of(criterion: nn.Module, n_outputs: int) -> Likelihood:
    """Return the likelihood that a criterion declares, or whose negative log it is.

    For a net of C = n_outputs.
    """
    if not isinstance(criterion, nn.Module):
        raise TypeError(
            f"The criterion is a {type(criterion).__name__}; give the net a class that derives "
            "from torch.nn.Module, with the loss in its forward."
        )
    declared = getattr(criterion, "likelihood", None)
    if declared is not None:
        return _declared(declared, type(criterion).__name__, n_outputs)
    try:
        factory = LIKELIHOODS[type(criterion)]
    except KeyError:
        known = ", ".join(known.__name__ for known in LIKELIHOODS)
        raise ValueError(
            f"The criterion {type(criterion).__name__} has no known likelihood; "
            f"train the net with one of {known}, or declare what {type(criterion).__name__} stands "
            "for: give its class an attribute `likelihood`, an instance of a sksubnet.Likelihood."
        ) from None
    if getattr(criterion, "label_smoothing", 0.0):
        raise ValueError(
            f"label_smoothing={criterion.label_smoothing} makes the criterion something else than "
            "a log likelihood; train the net with label_smoothing=0, or with a class of your own, "
            "class Smoothed(CrossEntropyLoss): likelihood = sksubnet.predictive.Categorical()."
        )
    return factory(criterion, n_outputs)


def _declared(likelihood: object, criterion: str, n_outputs: int) -> Likelihood:
    """Check a likelihood that a criterion declares; noise of a Gaussian is found by the fit."""
    if not isinstance(likelihood, Likelihood):
        raise TypeError(
            f"{criterion}.likelihood is {likelihood!r:.80}, of type {type(likelihood).__name__}; "
            "it has to be an instance of a sksubnet.Likelihood."
        )
    if isinstance(likelihood, Gaussian):
        return Gaussian(torch.ones(n_outputs, dtype=torch.float64))
    return likelihood


class LikelihoodLoss(nn.Module):
    """Criterion that trains a net by the negative log of a likelihood.

    Parameters
    ----------
    likelihood : Likelihood
        Distribution of the targets given the outputs of the net.
    reduction : {"mean", "sum", "none"}, default="mean"
        What is made of the losses of the rows.

    Examples
    --------
    A net that returns means and, in the next columns, logarithms of variances:

    >>> from skorch import NeuralNetRegressor
    >>> from sksubnet import LikelihoodLoss
    >>> from sksubnet.predictive import MeanVariance
    >>> from torch import nn
    >>> net = NeuralNetRegressor(
    ...     nn.Linear, criterion=LikelihoodLoss, criterion__likelihood=MeanVariance()
    ... )
    """

    def __init__(self, likelihood: Likelihood, reduction: str = "mean") -> None:
        super().__init__()
        self.likelihood = likelihood
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of outputs (B, C) for targets (B, T) or (B,)."""
        outputs = outputs.reshape(len(outputs), -1)
        losses = -self.likelihood.log_prob(outputs, targets.reshape(len(outputs), -1))
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()


def criterion_row_weights(criterion: nn.Module, targets: Tensor) -> Tensor | None:
    """Weight (N,) that the criterion's class weights give each row, None where it has none."""
    weight = getattr(criterion, "weight", None)
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        if weight is not None:
            raise ValueError(
                "BCEWithLogitsLoss has `weight` set, which scales positions of a batch and has no "
                "meaning for a likelihood; use `pos_weight`, class_weight or sample_weight."
            )
        if criterion.pos_weight is None:
            return None
        if targets.ndim > 1:
            raise ValueError(
                "BCEWithLogitsLoss has pos_weight, which weights labels and not rows, so that the "
                "net is no longer that of a likelihood of several labels; leave it out, or use "
                "sample_weight."
            )
        positive = targets.reshape(-1) > 0.5
        pos_weight = criterion.pos_weight.detach().reshape(()).to(targets.device)
        return torch.where(positive, pos_weight, torch.ones_like(pos_weight))
    if weight is None or targets.is_floating_point():
        return None
    row_weights: Tensor = weight.detach().to(targets.device)[targets.long().reshape(-1)]
    return row_weights
