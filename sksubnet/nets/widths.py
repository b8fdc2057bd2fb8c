"""Widths of the first and last layer, for modules whose signature asks for them by name.

What the user bound stays, and so does a default that fits: a parameter called ``out_dim`` may be
the width of a hidden layer.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet, NeuralNetClassifier
from torch import Tensor, nn

from sksubnet.jacobian import evaluate
from sksubnet.nets.inputs import inputs_of, latent_of, returns_pairs
from sksubnet.nets.modules import settle
from sksubnet.nets.randomness import RandomStream

INPUT_WIDTHS = {"n_features", "n_features_in", "input_dim", "in_dim", "in_features", "n_inputs"}
INPUT_WIDTHS |= {"input_size", "num_features", "d_in", "dim_in"}
OUTPUT_WIDTHS = {"n_outputs", "output_dim", "out_dim", "out_features", "n_classes", "num_classes"}
OUTPUT_WIDTHS |= {"output_size", "num_outputs", "n_targets", "d_out", "dim_out"}

Widths = dict[str, int]


def named_widths(net: Any, rows: np.ndarray, n_outputs: int, dtype: torch.dtype) -> Widths:
    """Widths to set for rows (2, ...): as few as make the net give (2, n_outputs).

    Those without a default always; of those with one, what does not fit.
    """
    width = n_outputs // 2 if returns_pairs(net) else n_outputs
    options = list(_options(net, rows.shape[1:], width))
    if len(options) == 1:
        return options[0]
    ran = []
    for widths in options:
        shape = _output_shape(net, widths, rows, n_outputs, dtype)
        if shape == (len(rows), n_outputs):
            return widths
        if shape is not None:
            ran.append(widths)
    # What is wrong is for the caller to tell, of a net that runs if there is one.
    return ran[0] if ran else options[-1]


def with_widths(net: NeuralNet, widths: Widths, n_outputs: int, dtype: torch.dtype) -> NeuralNet:
    """Initialise a net with the widths, in ``dtype``."""
    net.set_params(**{f"module__{name}": width for name, width in widths.items()})
    if isinstance(net, NeuralNetClassifier):
        net.classes_inferred_ = np.arange(n_outputs)
    try:
        net.initialize()
    except TypeError as error:
        raise TypeError(
            f"The net cannot be initialised: {error}. Set what its module takes as "
            "module__name=... of the net; what its criterion and optimizer take, as "
            "criterion__name=... and optimizer__name=..."
        ) from error
    except ValueError as error:
        if "empty parameter list" not in str(error):
            raise
        raise ValueError(
            f"The net's module, {net.module!r:.80}, has no trainable weights, so there is nothing "
            "to train. Layers have to be attributes of the module, or in a ModuleList."
        ) from error
    settle(net, dtype)
    return net


def _options(net: NeuralNet, shape: tuple[int, ...], n_outputs: int) -> Iterator[Widths]:
    """Yield widths that may be set for rows of a shape, the fewest first."""
    if isinstance(net.module, nn.Module) or not callable(net.module):
        yield {}
        return
    fixed = set(net.get_params_for("module")) | _bound(net.module)
    free = {
        name: parameter.default is not inspect.Parameter.empty
        for name, parameter in inspect.signature(net.module).parameters.items()
        if name not in fixed and name in INPUT_WIDTHS | OUTPUT_WIDTHS
    }
    needed = [name for name, has_default in free.items() if not has_default]
    optional = [name for name, has_default in free.items() if has_default]
    # Rows of several axes go into a layer by the last one, flattened, or by their channels.
    widths = dict.fromkeys([shape[-1], int(np.prod(shape)), shape[0]])
    seen = []
    for size, n_inputs in product(range(len(optional) + 1), widths):
        for names in combinations(optional, size):
            option = {
                name: n_inputs if name in INPUT_WIDTHS else n_outputs for name in (*needed, *names)
            }
            if option not in seen:
                seen.append(option)
                yield option


def _bound(module: Any) -> set[str]:
    """Names of the arguments that ``functools.partial`` gives a module."""
    return set(module.keywords) if isinstance(module, functools.partial) else set()


def _output_shape(
    net: NeuralNet, widths: Widths, rows: np.ndarray, n_outputs: int, dtype: torch.dtype
) -> tuple[int, ...] | None:
    """Shape of what a copy of the net gives for the rows; ``None`` where it fails."""
    with RandomStream(0).everywhere(), torch.no_grad():
        try:
            trial = with_widths(clone(net), widths, n_outputs, dtype)
            latent = latent_of(trial)
            latent.module.eval()
            probe = torch.as_tensor(rows.copy(), dtype=dtype, device=latent.device)
            outputs: Tensor = evaluate(latent, inputs_of(trial, probe))
        except Exception:  # of a user's code, which may fail in any way
            return None
    return tuple(outputs.shape)
