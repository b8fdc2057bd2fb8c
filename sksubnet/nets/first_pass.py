"""The first pass of an untrained net: how many outputs it has, or why it does not run."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor, nn

from sksubnet.jacobian import evaluate
from sksubnet.nets.inputs import inputs_of
from sksubnet.nets.trained import Latent

ABOUT_SHAPES = re.compile(r"shape|size|dimension|channel", re.IGNORECASE)
"""What torch's messages have in common where a layer gets an input of another width."""


@dataclass(frozen=True, eq=False)
class Returned:
    """What the module of latents returns, before anything is made of it."""

    latent: Latent

    @property
    def module(self) -> nn.Module:
        """The module of the latents."""
        return self.latent.module

    def on(self, module: nn.Module) -> Returned:
        """Return the same function around another copy of the module."""
        return Returned(self.latent.on(module))

    def __call__(self, X: Any) -> Any:
        """Run the module on inputs."""
        return self.latent.returned(X)


def n_outputs_of(net: NeuralNet, latent: Latent, rows: Tensor) -> int:
    """Count the outputs of a net, from a pass of some rows (B, ...); say what to do if it fails."""
    inputs = inputs_of(net, rows)
    try:
        evaluate(Returned(latent), inputs)
    except Exception as error:  # of a user's code, which may fail in any way
        raise _explained(error, net, latent, rows) from error
    return int(evaluate(latent, inputs).shape[1])


def _explained(error: Exception, net: NeuralNet, latent: Latent, rows: Tensor) -> Exception:
    """Return an error that says why a module fails on rows."""
    shape, what = tuple(rows.shape[1:]), f"{type(error).__name__}: {error}"
    for other in (torch.float32, torch.float64):
        if other != rows.dtype and _runs_in(other, net, latent, rows):
            name, given = (str(dtype).removeprefix("torch.") for dtype in (other, rows.dtype))
            return ValueError(
                f"The net's module runs in {name}, but not in {given} ({error}). It casts, or has "
                f"a constant or an initial state of its own, in {name}. Use dtype='{name}', or "
                "make these of the type of the input, with register_buffer or dtype=X.dtype."
            )
    if _runs_in(torch.int64, net, latent, rows):
        return ValueError(
            f"The net's module takes integers, but rows of X are floating point ({error}). Turn "
            "codes back into integers in forward, with X.long()."
        )
    if isinstance(error, TypeError) and "forward()" in str(error):
        return TypeError(
            f"The net's module cannot be called with rows of X ({error}). Its forward gets them as "
            "one tensor; to give it several, take X apart in forward, or let a dataset of the "
            "net's give a dict with a tensor for each argument."
        )
    if ABOUT_SHAPES.search(str(error)):
        return ValueError(
            f"The net's module does not take rows of shape {shape}: {error}. Set its input width "
            "to that of X (net__module__...); an argument named n_features or input_dim is filled "
            "in by fit."
        )
    return ValueError(
        f"The net's module fails on rows of shape {shape} ({what}). Try its forward alone, on "
        "torch.as_tensor(X[:2])."
    )


def _runs_in(dtype: torch.dtype, net: NeuralNet, latent: Latent, rows: Tensor) -> bool:
    """Whether a copy of the net takes the rows in another type; integers, as it is."""
    try:
        module = copy.deepcopy(latent.module)
        module = module.to(dtype) if dtype.is_floating_point else module
        evaluate(Returned(latent.on(module)), inputs_of(net, rows.to(dtype)))
    except Exception:  # then the type is not all that is wrong
        return False
    return True
