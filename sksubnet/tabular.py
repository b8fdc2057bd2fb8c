"""The default network for tables: robust scaling, smooth clipping and a small MLP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

CLIP = 3.0


class TabularMLP(nn.Module):
    """Multilayer perceptron that scales and smoothly clips its own inputs.

    Parameters
    ----------
    n_features : int
        Number of columns of the input.
    n_outputs : int
        Number of outputs (logits or regression means).
    hidden : sequence of int, default=(64, 64)
        Widths of the hidden layers.
    center, scale : array of shape (n_features,), default=None
        Subtracted from, then multiplied with the columns; see :func:`robust_scale`.
        ``None`` leaves the columns as they are.
    dropout : float, default=0.0
        Share of the units of each hidden layer that are dropped in training.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Sequence[int] = (64, 64),
        center: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer(
            "center", torch.as_tensor(np.zeros(n_features) if center is None else center).double()
        )
        self.register_buffer(
            "scale", torch.as_tensor(np.ones(n_features) if scale is None else scale).double()
        )
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.SiLU()]
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_outputs))

    def forward(self, X: Tensor) -> Tensor:
        """Map rows ``(n_rows, n_features)`` to outputs ``(n_rows, n_outputs)``."""
        z = (X - self.center) * self.scale
        outputs: Tensor = self.layers(z / torch.sqrt(1 + (z / CLIP) ** 2))
        return outputs


def robust_scale(X: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted median and inverse interquartile range of the columns of ``X`` (N, F).

    A column whose quartiles coincide (a rare category) is scaled by half its range, a constant
    column by 0, so that it can never act on a prediction.
    """
    # Column by column: sorting them all at once takes several copies of the data.
    low, median, high = np.stack(
        [
            np.quantile(column, [0.25, 0.5, 0.75], weights=weights, method="inverted_cdf")
            for column in X.T
        ],
        axis=1,
    )
    half_range = (X.max(axis=0) - X.min(axis=0)) / 2
    spread = np.where(high > low, high - low, half_range)
    return median, np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
