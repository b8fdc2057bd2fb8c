"""Draws of a net with dropout: units left out at random, the same ones for every row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sksubnet.jacobian import own_rows, private_copy

if TYPE_CHECKING:
    from sksubnet.nets import Latent

FEATURE_DROPOUT = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
ALPHA_DROPOUT = (nn.AlphaDropout, nn.FeatureAlphaDropout)
DROPOUT = (nn.Dropout, *FEATURE_DROPOUT, nn.AlphaDropout)
ALPHA = 1.7580993408473766
"""What a dropped unit of a self-normalising net is set to, with a minus (Klambauer et al. 2017)."""


@dataclass(frozen=True)
class DropoutDraws:
    """Draws of a net by so many masks, made from a seed."""

    n_draws: int
    seed: int

    def latents(self, latent: Latent, X: Tensor) -> Tensor:
        """Latents (M, B, C) of a batch, float64 on the CPU."""
        return dropout_latents(latent, X, n_draws=self.n_draws, seed=self.seed)


def dropout_latents(latent: Latent, X: Tensor, *, n_draws: int, seed: int) -> Tensor:
    """Latents (M, B, C) under masks that all rows share, float64 on the CPU.

    The masks come from the seed alone, so the same draws are made for every batch.
    """
    module = private_copy(latent.module).eval()
    latent = latent.on(module)
    generator = torch.Generator().manual_seed(seed)
    for layer in _active_layers(module):
        layer.register_forward_hook(partial(_drop, generator))
    with torch.no_grad():
        return torch.stack([latent(own_rows(X)).double().cpu() for _ in range(n_draws)])


def check_dropout(module: nn.Module) -> None:
    """Raise unless the module has a dropout layer that drops anything."""
    if _active_layers(module):
        return
    layers = [layer for layer in module.modules() if not list(layer.children())]
    idle = sum(isinstance(layer, DROPOUT) for layer in layers)
    found = ", ".join(sorted({type(layer).__name__ for layer in layers}))
    raise ValueError(
        f"The net has no dropout to draw from: {idle} of its {len(layers)} layers ({found}) are "
        "dropout, 0 of them with p > 0. Put nn.Dropout(0.1) behind its activations, or use "
        "net=None. Only dropout modules are seen, neither torch.nn.functional.dropout nor the "
        "dropout argument of recurrent and attention layers."
    )


def _active_layers(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, DROPOUT) and layer.p > 0]


def _drop(
    generator: torch.Generator, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """Forward hook: what the layer does in training, with one mask for all rows."""
    values, p = inputs[0], float(layer.p)  # type: ignore[arg-type]
    shape = [1, *values.shape[1:]]
    if isinstance(layer, FEATURE_DROPOUT):
        shape[2:] = [1] * len(shape[2:])
    kept = (torch.rand(shape, generator=generator) >= p).to(values)
    if not isinstance(layer, ALPHA_DROPOUT):
        return values * kept / max(1 - p, torch.finfo(values.dtype).tiny)
    if p == 1:
        return torch.zeros_like(values)
    scale = ((ALPHA**2 * p + 1) * (1 - p)) ** -0.5
    return scale * (values * kept + ALPHA * (kept - 1 + p))
