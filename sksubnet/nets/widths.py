"""Widths of the first and last layer, for modules whose signature asks for them by name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

INPUT_WIDTHS = {"n_features", "n_features_in", "input_dim", "in_dim", "in_features", "n_inputs"}
INPUT_WIDTHS |= {"input_size", "num_features", "d_in", "dim_in"}
OUTPUT_WIDTHS = {"n_outputs", "output_dim", "out_dim", "out_features", "n_classes", "num_classes"}
OUTPUT_WIDTHS |= {"output_size", "num_outputs", "n_targets", "d_out", "dim_out"}


def named_widths(net: Any, n_features: int, n_outputs: int) -> dict[str, int]:
    """Widths that the module's signature names and the user did not set."""
    if isinstance(net.module, nn.Module) or not callable(net.module):
        return {}
    chosen = net.get_params_for("module")
    names = set(inspect.signature(net.module).parameters) - set(chosen)
    widths = {f"module__{name}": n_features for name in names & INPUT_WIDTHS}
    return widths | {f"module__{name}": n_outputs for name in names & OUTPUT_WIDTHS}
