"""Whether training converged: its loss against that of a constant, and what to do about it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from sklearn.exceptions import ConvergenceWarning

from sksubnet.jacobian import evaluate

if TYPE_CHECKING:
    from sksubnet.nets.trained import TrainedNet

BATCH_ROWS = 4096

HALF_OF_CHANCE = 0.5
"""Times the share of right answers by chance below which a net knows the classes by other names."""

FAR_ABOVE = 10.0
"""Times the loss of latents 0 above which a net was not trained but thrown off course."""


def check_convergence(
    trained: TrainedNet, history: Iterable[Mapping[str, Any]], rates: str
) -> None:
    """Raise where the trained net is not finite; warn where a constant beats it by far.

    ``history`` has the ``train_loss`` of each epoch, ``rates`` the learning rates in words.
    """
    advice = "Lower the learning rate (net__lr), or scale the inputs and targets."
    loss, constant = _mean_losses(trained)
    if not all(bool(weights.isfinite().all()) for weights in trained.module.parameters()):
        raise ValueError(f"Training diverged: the weights are not finite with {rates}. {advice}")
    if not math.isfinite(loss):
        raise ValueError(
            f"Training diverged: the loss of the training rows is {loss} with {rates}. {advice}"
        )
    losses = (epoch.get("train_loss", 0.0) for epoch in history)
    failed = [number for number, value in enumerate(losses, start=1) if not math.isfinite(value)]
    if loss - constant > (FAR_ABOVE - 1) * abs(constant):  # which a density may have below 0
        problem = (
            f"the mean loss of a training row is {loss:.3g}, that of outputs 0 is {constant:.3g}"
        )
    elif failed:
        problem = (
            f"the loss is not finite from epoch {failed[0]} on; the weights are from before that"
        )
    else:
        return
    warnings.warn(
        f"Training did not converge with {rates}: {problem}. {advice}",
        ConvergenceWarning,
        stacklevel=7,
    )


def check_frozen(trained: TrainedNet) -> None:
    """Warn where a net that was trained elsewhere does far worse on the rows than a constant."""
    rows, likelihood = trained.train, trained.likelihood
    with torch.no_grad():
        batches = (rows[i : i + BATCH_ROWS].X for i in range(0, len(rows), BATCH_ROWS))
        latents = torch.cat([evaluate(trained.latent, batch).double() for batch in batches])
    weights = rows.weights.double() / rows.weights.double().sum()
    if likelihood.task == "classification":
        probabilities = likelihood.probabilities(latents)
        n_classes = probabilities.shape[1]
        right = (probabilities.argmax(dim=1) == rows.y.reshape(-1)).double()
        share, loss = float(weights @ right), -float(weights @ likelihood.log_prob(latents, rows.y))
        if share * n_classes >= HALF_OF_CHANCE and loss <= 2 * math.log(n_classes):
            return
        cause = (
            "Its outputs are taken for the classes in sorted order: the likely cause is that it "
            "was trained with its classes in another order, or on labels with other numbers"
            if share * n_classes < 1
            else "The likely cause is that X is scaled in another way than when it was trained"
        )
        problem = (
            f"it is right on {share:.0%} of the rows with a mean log loss of {loss:.3g}, where "
            f"equal probabilities have {math.log(n_classes):.3g}. {cause}"
        )
    elif likelihood.task == "regression":
        means = likelihood.mean(latents)
        targets = rows.y.double().reshape(means.shape)
        spread = weights @ (targets - weights @ targets).square()
        ratio = ((weights @ (targets - means).square()) / spread.clamp_min(1e-300)).max()
        if ratio <= FAR_ABOVE or not bool((spread > 0).all()):
            return
        problem = (
            f"its squared error is {float(ratio):.3g} times that of the mean of y. A frozen net "
            "gets y as it is: the likely cause is that it was trained on scaled targets, or that X "
            "is scaled in another way than then"
        )
    else:
        return
    warnings.warn(
        f"The net in FrozenEstimator does far worse on the rows of fit than a constant: {problem}.",
        UserWarning,
        stacklevel=7,
    )


def _mean_losses(trained: TrainedNet) -> tuple[float, float]:
    """Weighted mean negative log likelihood of the training rows, and that of latents 0."""
    loss = constant = 0.0
    with torch.no_grad():
        for start in range(0, len(trained.train), BATCH_ROWS):
            batch = trained.train[start : start + BATCH_ROWS]
            weights = (batch.weights / trained.train.weights.sum()).double()
            latents = evaluate(trained.latent, batch.X).double()
            zeros = torch.zeros_like(latents)
            loss -= float(weights @ trained.likelihood.log_prob(latents, batch.y).double())
            constant -= float(weights @ trained.likelihood.log_prob(zeros, batch.y).double())
    return loss, constant
