"""The default network for tables: robust scaling, smooth clipping and a small MLP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

CLIP = 3.0

OUTLYING = 10.0
"""Interquartile ranges from the median beyond which a value does not widen the scale further."""


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
        # Within limits, because the square of a wild value is infinite.
        z = ((X - self.center) * self.scale).clamp(-1e9, 1e9)
        outputs: Tensor = self.layers(z / torch.sqrt(1 + (z / CLIP) ** 2))
        return outputs


def robust_scale(X: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center (F,) of the columns of ``X`` (N, F), and what to multiply with for unit spread."""
    # Column by column: sorting them all at once takes several copies of the data.
    columns = [_center_and_spread(column, weights) for column in X.T]
    center, spread = np.array(columns).T
    return center, np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)


def _center_and_spread(column: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Weighted mean and standard deviation of a column (N,) whose outliers are moved closer.

    A column of two values has its commoner one and half their distance instead: in units of its
    standard deviation, a rare category would act the more the rarer it is. A constant column has
    spread 0.
    """
    quartiles = np.quantile(column, [0.25, 0.5, 0.75], weights=weights, method="inverted_cdf")
    low, median, high = quartiles.tolist()
    least, most = column.min(), column.max()
    if ((column == least) | (column == most)).all():
        return median, (most - least) / 2
    if high > low:
        far = OUTLYING * (high - low)
        column = column.clip(median - far, median + far)
    mean = np.average(column, weights=weights)
    deviation = column - mean
    unit = np.abs(deviation).max()  # so that no square overflows
    return mean, unit * np.sqrt(np.average((deviation / unit) ** 2, weights=weights))
