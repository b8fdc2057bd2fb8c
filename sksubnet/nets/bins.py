"""Pieces of the columns of a table, and which of them are heavy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_BINS, MOST_BINS = 4, 1024
"""Fewest bins of a column, however many columns there are, and most of all columns above that."""

FAR, FAR_ROWS, WILD = 4.0, 10, 100.0
"""A column is heavy if so many rows lie so many standard deviations from its center; its tail acts
up to the most extreme row, and never farther than ``WILD``."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Pieces of columns: the column of each (E,), its lower edge, its width, and mean share."""

    column: np.ndarray
    low: np.ndarray
    width: np.ndarray
    mean: np.ndarray

    def __len__(self) -> int:
        return len(self.column)

    @classmethod
    def of(cls, Z: np.ndarray, weights: np.ndarray, n_bins: int) -> Bins:
        """About so many bins of each column of ``Z`` (N, F) that has more than two values."""
        columns = _numeric(Z)
        most = min(n_bins, max(LEAST_BINS, MOST_BINS // max(1, len(columns))))
        edges = {j: _edges(Z[:, j], weights, most) for j in columns}
        column = np.repeat(list(edges), [len(e) - 1 for e in edges.values()]).astype(np.int64)
        means = [_mean_shares(Z[:, j], weights, e) for j, e in edges.items()]
        lows, widths = [e[:-1] for e in edges.values()], [np.diff(e) for e in edges.values()]
        low, width, mean = (np.concatenate([np.zeros(0), *v]) for v in (lows, widths, means))
        return cls(column, low, width, mean)


@dataclass(frozen=True, eq=False)
class Tails:
    """Heavy columns (T,), and the range (T,) within which their tails act."""

    column: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.column)

    @classmethod
    def of(cls, Z: np.ndarray, weights: np.ndarray) -> Tails:
        """Columns of ``Z`` (N, F) with enough weight in rows far from the center."""
        heavy = [j for j in _numeric(Z) if weights[np.abs(Z[:, j]) > FAR].sum() >= FAR_ROWS]
        low, high = Z[:, heavy].min(axis=0), Z[:, heavy].max(axis=0)
        return cls(np.array(heavy, dtype=np.int64), low.clip(-WILD), high.clip(max=WILD))


def _numeric(Z: np.ndarray) -> list[int]:
    """Columns of more than two values."""
    return [j for j, z in enumerate(Z.T) if not ((z == z.min()) | (z == z.max())).all()]


def _mean_shares(column: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Weighted mean share (n_bins,) of each bin that lies below the values of a column (N,)."""
    shares = ((column[:, None] - edges[:-1]) / np.diff(edges)).clip(0, 1)
    mean: np.ndarray = weights @ shares / weights.sum()
    return mean


def _edges(column: np.ndarray, weights: np.ndarray, n_bins: int) -> np.ndarray:
    """At most ``n_bins`` + 1 edges: all values of a column (N,) of few, else its quantiles.

    Where quantiles coincide, those of the values that are none of them take their place.
    """
    values = np.unique(column)
    if len(values) <= n_bins + 1:
        return values
    edges = np.unique(_quantiles(column, weights, np.linspace(0, 1, n_bins + 1)))
    between = ~np.isin(column, edges)
    if len(edges) <= n_bins and between.any():
        levels = np.linspace(0, 1, n_bins + 3 - len(edges))[1:-1]
        edges = np.union1d(edges, _quantiles(column[between], weights[between], levels))
    return edges


def _quantiles(column: np.ndarray, weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.quantile(column, levels, weights=weights, method="inverted_cdf")
    return found
