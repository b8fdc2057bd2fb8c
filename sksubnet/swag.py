"""Running moments of the weights along SGD from the MAP (SWAG, Maddox et al. 2019)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sksubnet.likelihood import Gaussian
from sksubnet.progress import progress
from sksubnet.trained import flat_weights

if TYPE_CHECKING:
    from sksubnet.trained import TrainedNet

MAX_ATTEMPTS = 4


def diagonal_swag(
    trained: TrainedNet,
    *,
    n_snapshots: int = 40,
    lr: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    batch_size: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Mean and variance (P,) of the weights over SGD epochs that start from the MAP.

    One snapshot an epoch, as in the paper's code (which takes 256). A learning rate at which the
    weights diverge is divided by ten.
    """
    for attempt in range(MAX_ATTEMPTS):
        mean, variance = _moments(
            trained, n_snapshots, lr / 10**attempt, momentum, weight_decay, batch_size
        )
        if torch.isfinite(variance).all():
            return mean, variance
    raise ValueError(
        f"SGD from the trained net diverged down to lr={lr / 10 ** (MAX_ATTEMPTS - 1):g}, so there "
        "is no SWAG variance. Scale the inputs and targets, or choose another selection."
    )


def _moments(
    trained: TrainedNet,
    n_snapshots: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Welford's running mean and variance in float64 over one SGD path."""
    module = copy.deepcopy(trained.module).train()
    latent = replace(trained.latent, module=module)
    optimizer = torch.optim.SGD(
        [p for p in module.parameters() if p.requires_grad],
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    rows, likelihood = trained.train, trained.likelihood
    if isinstance(likelihood, Gaussian):
        # The learning rate is meant for the loss of the training, which has no noise in it.
        likelihood = Gaussian(torch.ones_like(likelihood.noise_variance))
    mean = torch.zeros_like(trained.weight_vector(), dtype=torch.float64)
    squares = torch.zeros_like(mean)
    for snapshot in progress(range(n_snapshots), "SWAG", trained.verbose):
        order = torch.randperm(len(rows)).to(rows.X.device)
        for index in order.split(batch_size):
            # Batch normalisation cannot learn from a single row.
            if len(index) == 1 and len(rows) > 1:
                continue
            batch = rows[index]
            log_prob = likelihood.log_prob(latent(batch.X), batch.y)
            optimizer.zero_grad()
            (-(batch.weights * log_prob).sum() / batch.weights.sum()).backward()
            optimizer.step()
        weights = flat_weights(module).double()
        change = weights - mean
        mean += change / (snapshot + 1)
        squares += change * (weights - mean)
    return mean, squares / max(1, n_snapshots - 1)
