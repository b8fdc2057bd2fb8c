"""Values that carry the trained net and its rows from the net to the Laplace steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from sksubnet.nets.keeping import Packed
from sksubnet.nets.modules import infer
from sksubnet.nets.randomness import RandomStream
from sksubnet.predictive import Gaussian, Likelihood

if TYPE_CHECKING:
    from sksubnet.nets.noise import NoiseNet


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs (N, ...), targets (N,) or (N, C) and non-negative row weights (N,).

    ``noise`` (N, C) are the noise variances of regression rows that have their own.

    Inputs are a tensor, or a dict, list or tuple of tensors.
    """

    X: Any
    y: Tensor
    weights: Tensor
    noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: slice | Tensor | np.ndarray) -> Rows:
        noise = None if self.noise is None else self.noise[index]
        return Rows(take_rows(self.X, index), self.y[index], self.weights[index], noise)

    @classmethod
    def stack(cls, parts: Sequence[Rows]) -> Rows:
        """Rows of all parts, which are of one kind."""
        X = tree_map(lambda *leaves: torch.cat(leaves), *(part.X for part in parts))
        y, weights = (torch.cat(v) for v in zip(*((p.y, p.weights) for p in parts), strict=True))
        noise = [part.noise for part in parts if part.noise is not None]
        return cls(X, y, weights, torch.cat(noise) if noise else None)

    def to(self, device: torch.device) -> Rows:
        """Return the rows on this device."""
        moved = {
            name: tree_map_only(Tensor, lambda t: t.to(device), v) for name, v in vars(self).items()
        }
        return Rows(**moved)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the inputs of a row; of those that are no tensor none."""
        return tuple(self.X.shape[1:]) if isinstance(self.X, Tensor) else ()

    @property
    def device(self) -> torch.device:
        """Device of the rows."""
        return self.weights.device

    def likelihood(self, constant: Likelihood) -> Likelihood:
        """Return the likelihood of these rows: with their own noise if they have it."""
        return constant if self.noise is None else Gaussian(self.noise)


def take_rows(X: Any, index: slice | Tensor | np.ndarray) -> Any:
    """Take the same rows of every tensor of inputs."""
    return tree_map_only(Tensor, lambda leaf: leaf[index], X)


def count_rows(X: Any) -> int:
    """Count the rows of inputs."""
    return len(tree_leaves(X)[0])


@dataclass(frozen=True, eq=False)
class Latent:
    """The latents f(x) of a module, always (B, C): logits, log probabilities or means.

    With a skorch net, its own ``infer`` calls the module, or the modules in it. With a least
    variance the module returns means and variances, whose latents are the means and the logarithms
    of the variances side by side.
    """

    module: nn.Module
    of_probabilities: bool
    net: Any = None
    least_variance: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "net": self.net and Packed(self.net)}

    def on(self, module: nn.Module) -> Latent:
        """Return the same function around another copy of the module."""
        return replace(self, module=module)

    def returned(self, X: Any) -> Any:
        """Run the module on inputs, and return what it does."""
        return self.module(X) if self.net is None else infer(self.net, self.module, X)

    def __call__(self, X: Any) -> Tensor:
        """Run the module on inputs and check what it returns: (B, ...) -> (B, C)."""
        outputs = self.returned(X)
        n_rows = count_rows(X)
        if self.least_variance is not None:
            outputs = _mean_and_log_variance(outputs, self.least_variance)
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"The net's module returned a {type(outputs).__name__}; one tensor of shape "
                "(n_rows, n_outputs) is needed. Return only the logits or means from its forward."
            )
        if self.of_probabilities:
            outputs = torch.log(outputs + torch.finfo(outputs.dtype).eps)
        if n_rows == 1 and outputs.ndim < 2:
            return outputs.reshape(1, -1)  # a squeeze dropped the axis of the rows
        if outputs.ndim not in (1, 2) or len(outputs) != n_rows:
            raise ValueError(
                f"The net's module returned shape {tuple(outputs.shape)} for {n_rows} rows; "
                "(n_rows, n_outputs) or (n_rows,) is needed."
            )
        return outputs.reshape(n_rows, -1)

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type of the parameters."""
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.module.parameters()).device


def _mean_and_log_variance(outputs: Any, least: float) -> Tensor:
    """Latents (B, 2T) of means and variances, both (B,) or (B, T)."""
    pair = isinstance(outputs, tuple | list) and len(outputs) == 2
    if not pair or not all(isinstance(part, Tensor) for part in outputs):
        raise TypeError(
            "GaussianNLLLoss needs a module that returns two tensors, (mean, variance), but this "
            f"one's forward returned a {type(outputs).__name__}. For one tensor of means and log "
            "variances train with LikelihoodLoss(MeanVariance()); see sksubnet.LikelihoodLoss."
        )
    mean, variance = (part.reshape(len(part), -1) for part in outputs)
    return torch.cat([mean, variance.clamp_min(least).log().expand_as(mean)], dim=1)


@dataclass(frozen=True, eq=False)
class TrainedNet:
    """The MAP estimate and the rows it was trained and is tuned on.

    Attributes
    ----------
    module : torch.nn.Module
        The trained module in evaluation mode.
    latent : callable
        Maps inputs ``(n_rows, ...)`` to latents ``(n_rows, n_outputs)``.
    likelihood : Likelihood
        What the net's criterion says about the targets given the latents.
    n_outputs : int
        Number of latents of a row.
    train, held_out : Rows
        Rows used for training, and rows kept for tuning (or ``None``), as tensors ``X``, ``y``
        and ``weights`` on the net's device.
    seed : int
        Seed of everything that is random after training.
    reference : {"mixtures", "train"} or inputs
        Inputs at which the predictive variance is to be kept: mixtures of training rows, training
        rows, or these.
    noise : NoiseNet or None
        Noise variance of a regression as a function of the inputs, where it is no constant.
    stream : RandomStream or None
        Random numbers that the fit goes on with, where not anew from the seed.
    draws_nothing : bool
        Whether the module in training mode is known not to draw from the global random states.
    novel : Tensor of shape (n_inputs,) or None
        What a cell of a kind that training has not seen adds to inputs, where there can be one.
    """

    module: nn.Module
    latent: Latent
    likelihood: Likelihood
    n_outputs: int
    train: Rows
    held_out: Rows | None
    seed: int
    reference: Any = "mixtures"
    noise: NoiseNet | None = None
    stream: RandomStream | None = None
    draws_nothing: bool = False
    novel: Tensor | None = None

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
