"""Running moments of the weights along SGD from the MAP (SWAG, Maddox et al. 2019)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sksubnet.jacobian import deep_copy
from sksubnet.nets import flat_weights
from sksubnet.predictive import Gaussian
from sksubnet.progress import steps

if TYPE_CHECKING:
    from sksubnet.nets import TrainedNet

MAX_ATTEMPTS = 4


@dataclass(frozen=True, eq=False)
class SWAGMoments:
    """Mean (P,), variance (P,) and last deviations (R, P) of the weights along a path of SGD.

    A deviation is a snapshot minus the mean of the snapshots up to it.
    """

    mean: Tensor
    variance: Tensor
    deviations: Tensor

    def draws(self, n_draws: int, scale: float, generator: torch.Generator) -> Tensor:
        """Draws (M, P) of the Gaussian whose covariance is scale (diagonal + low rank).

        Equation 1 of Maddox et al. 2019, where the scale is 1/2.
        """
        rank, dtype = len(self.deviations), self.mean.dtype
        diagonal = torch.randn(n_draws, len(self.mean), generator=generator, dtype=dtype)
        low_rank = torch.randn(n_draws, rank, generator=generator, dtype=dtype)
        change = diagonal.to(self.mean.device) * self.variance.clamp_min(0).sqrt()
        change += low_rank.to(self.mean.device) @ self.deviations / math.sqrt(max(1, rank - 1))
        return self.mean + math.sqrt(scale) * change


def swag_moments(
    trained: TrainedNet,
    *,
    rank: int = 0,
    n_snapshots: int = 40,
    lr: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    batch_size: int = 1024,
) -> SWAGMoments:
    """Moments of the weights over SGD epochs that start from the MAP.

    One snapshot an epoch, as in the paper's code (which takes 256). A learning rate at which the
    weights diverge is divided by ten.
    """
    with trained.row_order() as generator:
        for attempt in range(MAX_ATTEMPTS):
            options = lr / 10**attempt, momentum, weight_decay, batch_size
            path = _sgd_path(trained, generator, n_snapshots, *options)
            moments = _moments(path, rank)
            if torch.isfinite(moments.variance).all():
                return moments
    raise ValueError(
        f"SGD from the trained net diverged down to lr={lr / 10 ** (MAX_ATTEMPTS - 1):g}, so there "
        "is no SWAG variance. Scale the inputs and targets, lower the learning rate (swag_lr), or "
        "choose another selection or method."
    )


def _moments(path: Iterator[Tensor], rank: int) -> SWAGMoments:
    """Welford's running mean and variance of snapshots (P,), and their last deviations."""
    deviations: deque[Tensor] = deque(maxlen=rank)
    for count, weights in enumerate(path, start=1):
        if count == 1:
            mean, squares = torch.zeros_like(weights), torch.zeros_like(weights)
        change = weights - mean
        mean += change / count
        squares += change * (weights - mean)
        deviations.append(weights - mean)
    kept = torch.stack(list(deviations)) if deviations else mean.new_empty(0, len(mean))
    return SWAGMoments(mean, squares / max(1, count - 1), kept)


def _sgd_path(
    trained: TrainedNet,
    generator: torch.Generator,
    n_snapshots: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
) -> Iterator[Tensor]:
    """Weights (P,), in float64, after each epoch of SGD from the MAP."""
    module = deep_copy(trained.module).train()
    latent = trained.latent.on(module)
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
    for _ in steps(range(n_snapshots)):
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        for index in order.split(batch_size):
            # Batch normalisation cannot learn from a single row.
            if len(index) == 1 and len(rows) > 1:
                continue
            batch = rows[index]
            log_prob = likelihood.log_prob(latent(batch.X), batch.y)
            optimizer.zero_grad()
            (-(batch.weights * log_prob).sum() / batch.weights.sum()).backward()
            optimizer.step()
        yield flat_weights(module).double()
