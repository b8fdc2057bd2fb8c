"""The default network for tables: smoothly clipped inputs, bins of them, and a small MLP."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sksubnet.nets.bins import Bins, Tails

CLIP = 3.0
TAIL_PENALTY = 10.0


class TabularMLP(nn.Module):
    """Multilayer perceptron over standardised columns, some of them also as bins.

    Clipped inputs extrapolate evenly but blur what happens within the bulk of a skewed column; the
    bins (piecewise linear encoding; Gorishniy, Rubachev and Babenko, "On embeddings for numerical
    features in tabular deep learning", NeurIPS 2022) resolve that. They enter the first layer
    through weights of their own, which begin at zero and are regularised by dropout of the bins.

    Parameters
    ----------
    n_features : int
        Number of columns of the input.
    n_outputs : int
        Number of outputs (logits or regression means).
    hidden : sequence of int, default=(64, 64)
        Widths of the hidden layers.
    dropout : float, default=0.0
        Share of the units of each hidden layer that are dropped in training.
    bins : Bins, default=None
        Pieces of the columns; none if ``None``.
    bin_dropout : float, default=0.4
        Share of the bins that are dropped in training.
    tails : Tails, default=None
        Columns whose clipped part acts linearly, with weights that training does not change.
    blank : sequence of int, default=()
        Columns that are zero in training, whose weights begin at zero.
    """

    bin_column: Tensor
    bin_low: Tensor
    bin_width: Tensor
    bin_mean: Tensor
    tail_column: Tensor
    tail_low: Tensor
    tail_high: Tensor
    tail_weight: Tensor

    not_candidates = ("binned.weight",)
    """Bins are constant beyond the data: their weights say nothing of the uncertainty there, and
    among the candidates they leave the prior precision to the noise of the held-out rows."""

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Sequence[int] = (64, 64),
        dropout: float = 0.0,
        bins: Bins | None = None,
        bin_dropout: float = 0.4,
        tails: Tails | None = None,
        blank: Sequence[int] = (),
    ) -> None:
        super().__init__()
        widths = [*hidden, n_outputs]
        self.dense = nn.Linear(n_features, widths[0])
        with torch.no_grad():
            self.dense.weight[:, list(blank)] = 0
        self.binned: nn.Linear | None = None
        if bins is not None and len(bins):
            for name, value in vars(bins).items():
                self.register_buffer(f"bin_{name}", torch.as_tensor(value))
            self.binned = nn.Linear(len(bins), widths[0], bias=False)
            nn.init.zeros_(self.binned.weight)
        self.bin_dropout = self.dropped_share = bin_dropout
        self.masks: torch.Generator | None = None
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.SiLU(), *([nn.Dropout(dropout)] if dropout > 0 else [])]
            layers += [nn.Linear(before, after)]
        self.rest = nn.Sequential(*layers)
        self.has_tails = tails is not None and len(tails) > 0
        if tails is not None and len(tails):
            for name, value in vars(tails).items():
                self.register_buffer(f"tail_{name}", torch.as_tensor(value))
            self.register_buffer("tail_weight", torch.zeros(n_outputs, len(tails)))

    def forward(self, X: Tensor) -> Tensor:
        """Map standardised rows ``(n_rows, n_features)`` to outputs ``(n_rows, n_outputs)``."""
        units = self.dense(clipped(X))
        if self.binned is not None:
            units = units + self.binned(self._dropped(self._bins(X)))
        outputs: Tensor = self.rest(units)
        return outputs + self.tails(X) @ self.tail_weight.mT if self.has_tails else outputs

    def tails(self, X: Tensor) -> Tensor:
        """Give what clipping takes away from heavy columns (n_rows, n_tails), within the data."""
        t = X[:, self.tail_column].clamp(self.tail_low, self.tail_high)
        return t - clipped(t)

    def _bins(self, X: Tensor) -> Tensor:
        """Share of each bin that lies below the value (n_rows, n_bins), over its mean."""
        return ((X[:, self.bin_column] - self.bin_low) / self.bin_width).clamp(0, 1) - self.bin_mean

    def _dropped(self, bins: Tensor) -> Tensor:
        """Bins with dropout, while there is a source of masks.

        No module of its own, whose dropout would stay active in predictions of MC dropout.
        """
        if not self.training or self.masks is None or self.dropped_share == 0:
            return bins
        kept = torch.rand(bins.shape, generator=self.masks) >= self.dropped_share
        return bins * kept.to(bins) / (1 - self.dropped_share)


def clipped(z: Tensor) -> Tensor:
    """Smoothly clip standardised values: as they are near 0, never beyond ``CLIP``."""
    return z / torch.sqrt(1 + (z / CLIP) ** 2)


@contextlib.contextmanager
def masks_drawn_from(module: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let the default net drop bins for a while, with masks from a generator."""
    if not isinstance(module, TabularMLP):
        yield
        return
    module.masks = generator
    try:
        yield
    finally:
        module.masks = None


def fit_tails(module: TabularMLP, X: Tensor, y: Tensor, weights: Tensor) -> None:
    """Weight the tails by ridge regression of targets (N, C) on them and the clipped columns.

    The penalty is on the tails' weights and all others alike; the rows are those that train.
    """
    with torch.no_grad():
        rows = torch.cat([module.tails(X), clipped(X)], dim=1).double()
        share = (weights / weights.sum()).double()
        rows = rows - share @ rows
        targets = y.double().reshape(len(y), -1)
        targets = targets - share @ targets
        root = weights.double().sqrt()[:, None]
        rows, targets = root * rows, root * targets
        penalty = TAIL_PENALTY * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        solution = torch.linalg.solve(rows.mT @ rows + penalty, rows.mT @ targets)
        module.tail_weight.copy_(solution[: module.tail_weight.shape[1]].mT)
