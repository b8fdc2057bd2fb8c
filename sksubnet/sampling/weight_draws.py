"""Draws of all weights, and the net at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sksubnet.jacobian import deep_copy, own_rows
from sksubnet.nets import count_rows, take_rows

if TYPE_CHECKING:
    from sksubnet.nets import Latent

REFRESH_ROWS = 4096

Buffers = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class WeightDraws:
    """Draws of the weights (M, P), in the order of ``parameters_to_vector``.

    ``buffers`` has the statistics of batch normalisation at each draw, nothing for other nets.
    """

    weights: Tensor
    buffers: tuple[Buffers, ...] = ()

    def latents(self, latent: Latent, X: Tensor) -> Tensor:
        """Latents (M, B, C) of the net itself at every draw, float64 on the CPU."""
        module = deep_copy(latent.module).eval()
        latent = latent.on(module)
        draws = []
        with torch.no_grad():
            for index, weights in enumerate(self.weights):
                set_weights(module, weights)
                if self.buffers:
                    module.load_state_dict(self.buffers[index], strict=False)
                draws.append(latent(own_rows(X)).double().cpu())
        return torch.stack(draws)


def set_weights(module: nn.Module, weights: Tensor) -> None:
    """Copy weights (P,) into the module."""
    parameters = list(module.parameters())
    pieces = weights.split([parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))


def with_batch_statistics(latent: Latent, weights: Tensor, X: Any) -> WeightDraws:
    """Draws (M, P) with the batch normalisation statistics that each gives on rows X.

    As Maddox et al. 2019 do; dropout is off, as it is when the draws predict.
    """
    module = deep_copy(latent.module).eval()
    latent = latent.on(module)
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    }
    if not layers:
        return WeightDraws(weights)
    return WeightDraws(weights, tuple(_refreshed(latent, layers, draw, X) for draw in weights))


def _refreshed(
    latent: Latent,
    layers: dict[str, nn.modules.batchnorm._BatchNorm],
    weights: Tensor,
    X: Any,
) -> Buffers:
    """Buffers of the layers at some weights, averaged over batches of X."""
    set_weights(latent.module, weights)
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over the batches
        layer.train()
    # Every so many rows, because sorted rows would make batches that differ.
    n_batches = -(-count_rows(X) // REFRESH_ROWS)
    with torch.no_grad():
        for start in range(n_batches):
            latent(own_rows(take_rows(X, slice(start, None, n_batches))))
    return {
        f"{name}.{key}".lstrip("."): value.clone()
        for name, layer in layers.items()
        for key, value in layer.named_buffers(recurse=False)
    }
