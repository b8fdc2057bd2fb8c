"""Values that carry the trained net and its rows from the net to the Laplace steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sksubnet.nets.randomness import RandomStream
from sksubnet.predictive import Gaussian, Likelihood

if TYPE_CHECKING:
    from sksubnet.nets.noise import NoiseNet


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs (N, ...), targets (N,) or (N, C) and non-negative row weights (N,).

    ``noise`` (N, C) are the noise variances of regression rows that have their own.
    """

    X: Tensor
    y: Tensor
    weights: Tensor
    noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: slice | Tensor | np.ndarray) -> Rows:
        noise = None if self.noise is None else self.noise[index]
        return Rows(self.X[index], self.y[index], self.weights[index], noise)

    def likelihood(self, constant: Likelihood) -> Likelihood:
        """Return the likelihood of these rows: with their own noise if they have it."""
        return constant if self.noise is None else Gaussian(self.noise)


@dataclass(frozen=True, eq=False)
class Latent:
    """The latents f(x) of a module, always (B, C): logits, log probabilities or means."""

    module: nn.Module
    of_probabilities: bool

    def on(self, module: nn.Module) -> Latent:
        """Return the same function around another copy of the module."""
        return replace(self, module=module)

    def __call__(self, X: Tensor) -> Tensor:
        """Run the module on rows and check what it returns: (B, ...) -> (B, C)."""
        outputs = self.module(X)
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"The net's module returned a {type(outputs).__name__}; one tensor of shape "
                "(n_rows, n_outputs) is needed. Return only the logits or means from its forward."
            )
        if self.of_probabilities:
            outputs = torch.log(outputs + torch.finfo(outputs.dtype).eps)
        if outputs.ndim not in (1, 2) or len(outputs) != len(X):
            raise ValueError(
                f"The net's module returned shape {tuple(outputs.shape)} for {len(X)} rows; "
                "(n_rows, n_outputs) or (n_rows,) is needed."
            )
        return outputs.reshape(len(X), -1)

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type of the parameters."""
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.module.parameters()).device


@dataclass(frozen=True, eq=False)
class TrainedNet:
    """The MAP estimate and the rows it was trained and is tuned on.

    Attributes
    ----------
    module : torch.nn.Module
        The trained module in evaluation mode.
    latent : callable
        Maps inputs ``(n_rows, ...)`` to latents ``(n_rows, n_outputs)``.
    likelihood : Categorical, Bernoulli or Gaussian
        What the net's criterion says about the targets given the latents.
    n_outputs : int
        Number of latents of a row.
    train, held_out : Rows
        Rows used for training, and rows kept for tuning (or ``None``), as tensors ``X``, ``y``
        and ``weights`` on the net's device.
    seed : int
        Seed of everything that is random after training.
    verbose : int
        Whether long loops show a progress bar.
    reference : {"mixtures", "train"} or Tensor
        Inputs at which the predictive variance is to be kept: mixtures of training rows, training
        rows, or these.
    noise : NoiseNet or None
        Noise variance of a regression as a function of the inputs, where it is no constant.
    stream : RandomStream or None
        Random numbers that the fit goes on with, where not anew from the seed.
    draws_nothing : bool
        Whether the module in training mode is known not to draw from the global random states.
    """

    module: nn.Module
    latent: Latent
    likelihood: Likelihood
    n_outputs: int
    train: Rows
    held_out: Rows | None
    seed: int
    verbose: int = 0
    reference: Tensor | str = "mixtures"
    noise: NoiseNet | None = None
    stream: RandomStream | None = None
    draws_nothing: bool = False

    def weight_vector(self) -> Tensor:
        """All weights (P,), in the order of ``parameters_to_vector``."""
        return flat_weights(self.module)

    @contextlib.contextmanager
    def row_order(self) -> Iterator[torch.Generator]:
        """Give what to draw the order of rows from while the module trains on, reproducibly."""
        stream = self.stream or RandomStream(self.seed)
        with stream.around(known=self.draws_nothing) as generator:
            yield generator


def flat_weights(module: nn.Module) -> Tensor:
    """All weights (P,), in the order of ``parameters_to_vector`` and in any memory format."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
