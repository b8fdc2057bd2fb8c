"""What a fit keeps: nets that were trained, each with a distribution over its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sksubnet.jacobian import evaluate, products
from sksubnet.nets import Latent, NoiseNet, Packed
from sksubnet.predictive import Gaussian, Likelihood, Predictive

FORWARD_ROWS = 4096


@dataclass(frozen=True, eq=False)
class FittedNet:
    """One trained net, and what its outputs are for rows it has not seen.

    Attributes
    ----------
    net : skorch net
        The trained net.
    held_out : ndarray of shape (n_held_out,)
        Numbers of the training rows that the net has not seen.
    likelihood : Likelihood
        What the targets are given the outputs, in the units of the net; with the mean noise.
    noise : NoiseNet or None
        Noise variance as a function of the inputs, where it is no constant.
    """

    net: Any
    latent: Latent
    likelihood: Likelihood
    n_outputs: int
    seed: int
    held_out: np.ndarray
    noise: NoiseNet | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {', '.join(self._facts())}"

    def _facts(self) -> list[str]:
        """Say what it is, in a few words."""
        module = self.latent.module
        n_weights = sum(parameter.numel() for parameter in module.parameters())
        facts = [f"{type(module).__name__} of {n_weights} weights"]
        if len(self.held_out):
            facts.append(f"{len(self.held_out)} training rows unseen")
        if self.noise is not None:
            facts.append("noise by row")
        return facts

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "net": Packed(self.net)}

    @property
    def rows_per_batch(self) -> int:
        """Rows of a batch of predictions."""
        return FORWARD_ROWS

    def work(self, n_rows: int, shape: Sequence[int]) -> int:
        """Count the products of weights and rows of a prediction, of rows of this shape."""
        return products(self.latent.module, n_rows, shape)

    @property
    def n_rows_held(self) -> int:
        """Count the training rows that can be computed from what is kept."""
        return 0

    @property
    def decides_by_sign(self) -> bool:
        """Whether a class, or a label, is probable where the mean of its logit is positive."""
        return False

    def likelihood_at(self, X: Tensor) -> Likelihood:
        """Likelihood of the targets of a batch, with the noise of each row where it differs."""
        return self.likelihood if self.noise is None else Gaussian(self.noise(X))

    def map(self, X: Tensor) -> Tensor:
        """Latents (B, C) of the trained net itself, float64 on the CPU: one forward pass."""
        with torch.inference_mode():
            return evaluate(self.latent, X).double().cpu()

    def means(self, X: Tensor) -> Tensor:
        """Predictive mean (B, C) of the latents of a batch."""
        raise NotImplementedError

    def predictive(self, X: Tensor) -> Predictive:
        """Predictive of a batch, in the units of the net."""
        raise NotImplementedError

    def joint_moments(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean (N, C) of all rows and covariance between them (C, N, N)."""
        raise NotImplementedError

    def functions(
        self, batches: Iterable[Tensor], n_draws: int, generator: torch.Generator
    ) -> Tensor:
        """Draws (N, C, n_draws) of functions, each over all rows."""
        raise NotImplementedError


def mixed_moments(moments: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean (N, C) and covariance (C, N, N) of an equal mixture, by the law of total variance.

    Each covariance is let go once it is added.
    """
    means, total = [], torch.zeros(())
    for mean, covariance in moments:
        means.append(mean)
        total = total.add_(covariance) if len(means) > 1 else covariance
    if len(means) == 1:
        return means[0], total
    stacked = torch.stack(means)
    mean = stacked.mean(dim=0)
    deviations = (stacked - mean).permute(2, 1, 0)
    return mean, total.baddbmm_(deviations, deviations.mT).div_(len(means))
