"""Columns of a table as standardised inputs: numbers with holes, and categories as codes.

In float64, whatever the dtype of the net: of seconds since 1970 nothing would be left otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

LEAST_ROWS = 2, 20
LEAST_SHARE = 0.05
"""Rows of a level with an input of its own, as a share of all rows within limits; levels with fewer
share one."""

OUTLYING = 10.0
"""Interquartile ranges from the median beyond which a value does not widen the scale further."""

WILD = 1e9
"""Most standard deviations that count, because the square of a wild value is infinite."""

UNSEEN = -1
"""Code of a level that ``fit`` has not seen."""

NOVEL = 2.0
"""Input for each cell of a kind that ``fit`` has not seen: as far as the levels of a category."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """How columns become inputs, as told by the rows of a fit.

    The inputs are the numbers, then whether they are missing where some were, then one for each
    level of a category. Where a category or a missing number can be new, one last input counts the
    cells of that kind: it is always zero in ``fit``, so that only the prior speaks of its weights.

    Attributes
    ----------
    numbers : ndarray of shape (n_numbers,)
        Columns of numbers.
    fill : ndarray of shape (n_numbers,)
        What stands for a missing number.
    holes : ndarray of shape (n_holes,)
        Positions among the numbers of those that may be missing.
    levels : dict of int to ndarray of shape (n_codes + 1,)
        For each column of codes which of its inputs a code has, last that of a missing code;
        ``UNSEEN`` where it has none.
    center, scale : ndarray of shape (n_inputs,)
        Subtracted from the inputs, then multiplied with them.
    counts_novel : bool
        Whether the last input counts cells of a kind that is new.
    """

    numbers: np.ndarray
    fill: np.ndarray
    holes: np.ndarray
    levels: dict[int, np.ndarray]
    center: np.ndarray
    scale: np.ndarray
    counts_novel: bool

    @classmethod
    def of(cls, X: np.ndarray, weights: np.ndarray, n_codes: dict[int, int]) -> Encoding:
        """Learn from rows (N, F); ``n_codes`` are the numbers of levels of columns of codes."""
        numbers = np.array([j for j in range(X.shape[1]) if j not in n_codes], dtype=np.int64)
        missing = np.isnan(X).any(axis=0)
        found = [_center_and_spread(*_present(X[:, j], weights)) for j in numbers]
        fill, spread = np.array(found).reshape(-1, 2).T
        levels = {j: _inputs_of_codes(X[:, j], weights, n) for j, n in n_codes.items()}
        holes = np.flatnonzero(missing[numbers])
        counts_novel = bool(levels) or holes.size > 0
        scale = _inverse(spread)
        encoding = cls(numbers, fill, holes, levels, fill, scale, counts_novel)
        if not counts_novel:
            return encoding
        center, width = robust_scale(encoding._raw(X)[:, len(numbers) :], weights)
        center[-1], width[-1] = 0.0, NOVEL
        return replace(
            encoding,
            center=np.concatenate([fill, center]),
            scale=np.concatenate([scale, width]),
        )

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Give inputs (N, n_inputs) of rows (N, F) of numbers and codes."""
        raw = self._raw(X)
        raw -= self.center
        raw *= self.scale
        inputs: np.ndarray = np.clip(raw, -WILD, WILD, out=raw)
        return inputs

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return len(self.center)

    @property
    def novel(self) -> np.ndarray | None:
        """Input (n_inputs,) of one cell of a new kind, by itself; ``None`` where there is none."""
        return NOVEL * np.eye(self.n_inputs)[-1] if self.counts_novel else None

    @property
    def blank(self) -> tuple[int, ...]:
        """Inputs that are zero in ``fit``."""
        return (self.n_inputs - 1,) if self.counts_novel else ()

    def unfilled(self, X: np.ndarray) -> np.ndarray:
        """Columns with missing numbers that had none in ``fit``, where such cells do not count."""
        if self.counts_novel:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(np.isnan(X).any(axis=0))

    def _raw(self, X: np.ndarray) -> np.ndarray:
        """Give inputs (N, n_inputs) before they are standardised, in an array of their own."""
        values = X[:, self.numbers]
        if not self.counts_novel:
            return values
        missing = np.isnan(values)
        novel = np.zeros(len(X))
        if missing.any():
            values = np.where(missing, self.fill, values)
            novel += np.delete(missing, self.holes, axis=1).sum(axis=1)
        parts = [values, missing[:, self.holes]]
        for j, inputs in self.levels.items():
            codes = np.where(np.isnan(X[:, j]), len(inputs) - 1, X[:, j]).astype(np.int64)
            chosen = np.where(codes == UNSEEN, UNSEEN, inputs[codes])
            parts.append(chosen[:, None] == np.arange(inputs.max() + 1))
            novel += chosen == UNSEEN
        return np.column_stack([*parts, novel])


def robust_scale(X: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center (F,) of the columns of ``X`` (N, F), and what to multiply with for unit spread."""
    # Column by column: sorting them all at once takes several copies of the data.
    center, spread = np.array([_center_and_spread(column, weights) for column in X.T]).T
    return center, _inverse(spread)


def _inverse(spread: np.ndarray) -> np.ndarray:
    return np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)


def _present(column: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of a column (N,) that are not missing, and their weights; a zero if all are."""
    present = ~np.isnan(column)
    if present.all():
        return column, weights
    return (column[present], weights[present]) if present.any() else (np.zeros(1), np.ones(1))


def _inputs_of_codes(column: np.ndarray, weights: np.ndarray, n_codes: int) -> np.ndarray:
    """Return the inputs (n_codes + 1,) of codes and of a missing one; rare ones share the last.

    The rows of a level are counted by weight, in units of the mean weight where that is below one.
    """
    codes = np.where(np.isnan(column), n_codes, column).astype(np.int64)
    weight = np.bincount(codes, weights=weights, minlength=n_codes + 1)
    unit = min(1.0, float(weights.mean()))
    common = weight >= unit * np.clip(LEAST_SHARE * weights.sum() / unit, *LEAST_ROWS)
    inputs = np.where(common, np.cumsum(common) - 1, np.where(weight > 0, common.sum(), UNSEEN))
    return inputs.astype(np.int64)


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
