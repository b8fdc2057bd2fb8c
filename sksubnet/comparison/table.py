"""What a comparison of estimators found, and how it prints."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison"]

FloatArray = NDArray[np.float64]

SECONDS = {"fit_time": "fit s", "score_time": "score s"}
"""Scores that are times: how `cross_validate` names them, and how they print."""


LEAST_FOLDS_OF_STARS = 5
"""Folds below which nothing is said of which differences are more than chance."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Scores of several estimators on the same folds, made by :func:`sksubnet.compare`.

    It prints as a table, in a notebook too: for each set of rows the scores, then the differences
    to the first estimator, taken fold by fold. What follows ± is described at ``error``. With five
    folds or more a star marks the best estimator of a column, and every other whose difference to
    it is within ±; fewer do not tell the error well enough to say so.

    Parameters
    ----------
    values : ndarray of shape (n_sets, n_estimators, n_scores, n_folds)
        The scores of every fit, NaN where there is none.
    sets : tuple of str
        Name of the test folds, then of every shifted set.
    names : tuple of str
        Names of the estimators.
    better : dict of str to int
        The scores: -1 where lower is better, 1 where higher is, 0 where neither.
    estimators : dict of str to list of estimators
        The fitted estimators, one for each fold.
    test_share : float, default=None
        Rows of a test fold over those of the training, the mean over the folds; ``None`` is that of
        K folds of the same rows, 1 / (K - 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sksubnet import Comparison
    >>> losses = np.array([[0.5, 0.7, 0.9], [0.4, 0.6, 0.8]])
    >>> result = Comparison(losses[None, :, None], ("test folds",), ("a", "b"), {"loss": -1}, {})
    >>> result
    test folds        loss
    a           0.70±0.18
    b           0.60±0.18
    <BLANKLINE>
    minus a            loss
    b           -0.10±0.00
    <BLANKLINE>
    ± corrected standard error over 3 folds
    """

    values: FloatArray
    sets: tuple[str, ...]
    names: tuple[str, ...]
    better: dict[str, int]
    estimators: dict[str, list[Any]]
    test_share: float | None = None

    def mean(self) -> FloatArray:
        """Mean over the folds.

        Returns
        -------
        ndarray of shape (n_sets, n_estimators, n_scores)
        """
        return _mean(self.values)

    def error(self) -> FloatArray:
        """Give the uncertainty of the means; NaN with a single fold.

        Returns
        -------
        ndarray of shape (n_sets, n_estimators, n_scores)
            On the test folds the standard error over the folds, corrected for the rows that the
            trainings share [1]_: the root of the variance over the folds times 1 / K, for K folds,
            plus `test_share`. On shifted sets the standard
            deviation over the fits, because an average over fits that share most of their training
            rows and all test rows is hardly more certain than one of them.

        References
        ----------
        .. [1] Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52,
           2003.
        """
        return self._error(self.values)

    def difference(self) -> tuple[FloatArray, FloatArray]:
        """Difference to the first estimator, taken fold by fold.

        Returns
        -------
        mean, error : ndarray of shape (n_sets, n_estimators, n_scores)
            Mean of the differences and its uncertainty, as in ``mean`` and ``error``.
        """
        differences = self.values - self.values[:, :1]
        return _mean(differences), self._error(differences)

    def to_frame(self) -> Any:
        """All means and uncertainties as a data frame.

        Returns
        -------
        pandas.DataFrame
            A row for each set and estimator, and for each score the columns ``mean``, ``error``,
            ``difference`` and ``difference_error``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas (pip install pandas). Without it, print the comparison or "
                "use the arrays mean(), error() and difference()."
            ) from error
        statistics = {"mean": self.mean(), "error": self.error()}
        statistics["difference"], statistics["difference_error"] = self.difference()
        table = np.stack(list(statistics.values()), axis=-1)
        rows, columns = (self.sets, self.names), (tuple(self.better), tuple(statistics))
        return pd.DataFrame(
            table.reshape(len(self.sets) * len(self.names), -1),
            index=pd.MultiIndex.from_product(rows, names=["set", "estimator"]),
            columns=pd.MultiIndex.from_product(columns, names=["score", "statistic"]),
        )

    def __repr__(self) -> str:
        tables = list(self._tables())
        label_width = max(len(row[0]) for table in tables for row in table)
        lines = []
        for table in tables:
            widths = [max(map(len, column)) + 2 for column in zip(*table, strict=True)][1:]
            for label, *cells in table:
                padded = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
                lines.append((label.ljust(label_width) + "".join(padded)).rstrip())
            lines.append("")
        return "\n".join([*lines, self._legend()])

    def _repr_html_(self) -> str:
        parts = []
        for head, *body in self._tables():
            rows = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
            for label, *cells in body:
                data = "".join(
                    f"<td><b>{cell}</b></td>" if cell.endswith("*") else f"<td>{cell}</td>"
                    for cell in cells
                )
                rows.append(f"<th>{html.escape(label)}</th>{data}")
            parts.append("<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>")
        return "".join(parts) + f"<p>{html.escape(self._legend())}</p>"

    def _tables(self) -> Iterator[list[tuple[str, ...]]]:
        """Texts of every table, header first: of each set the scores, then the differences."""
        mean, error, stars = self.mean(), self.error(), self._stars()
        change, change_error = self.difference()
        # of times the mean says enough
        timed = np.isin(list(self.better), list(SECONDS.values()))
        error, change = np.where(timed, np.nan, error), np.where(timed, np.nan, change)
        for s, title in enumerate(self.sets):
            yield self._table(title, self.names, mean[s], error[s], stars[s], "-")
            rest = change[s, 1:]
            if np.isfinite(rest).any():
                title = f"minus {self.names[0]}"
                none = np.zeros(rest.shape, dtype=bool)
                yield self._table(title, self.names[1:], rest, change_error[s, 1:], none, "+")

    def _table(
        self,
        title: str,
        names: tuple[str, ...],
        mean: FloatArray,
        error: FloatArray,
        stars: NDArray[np.bool_],
        sign: str,
    ) -> list[tuple[str, ...]]:
        """Rows of texts from values (n_names, n_scores), without the scores that nobody has."""
        columns = [[title, *names]]
        for k, score in enumerate(self.better):
            if not np.isnan(mean[:, k]).all():
                cells = _cells(mean[:, k], error[:, k], stars[:, k], sign)
                columns.append([f"{score} ", *cells])
        return list(zip(*columns, strict=True))

    def _stars(self) -> NDArray[np.bool_]:
        """Which estimators are the best, or within ± of it: (n_sets, n_estimators, n_scores)."""
        direction = np.array(list(self.better.values()))
        mean = self.mean()
        best = np.where(np.isnan(mean), -np.inf, direction * mean).argmax(axis=1)
        enough = self.values.shape[-1] >= LEAST_FOLDS_OF_STARS
        gap = self.values - np.take_along_axis(self.values, best[:, None, :, None], axis=1)
        within = np.abs(_mean(gap)) <= np.nan_to_num(self._error(gap))
        several = (~np.isnan(mean)).sum(axis=1, keepdims=True) > 1
        stars: NDArray[np.bool_] = enough & within & several & (direction != 0)
        return stars

    def _error(self, values: FloatArray) -> FloatArray:
        """Uncertainty of the means; the first set is the test folds, the others are shifted."""
        n_folds = values.shape[-1]
        if n_folds < 2:
            return np.full(values.shape[:-1], np.nan)
        test_share = 1 / (n_folds - 1) if self.test_share is None else self.test_share
        spread: FloatArray = values.std(axis=-1, ddof=1)
        spread[0] *= np.sqrt(1 / n_folds + test_share)
        return spread

    def _legend(self) -> str:
        n_folds = self.values.shape[-1]
        if n_folds < 2:
            return "one fold, so without ±"
        shifted = "" if len(self.sets) < 2 else " (standard deviation on shifted sets)"
        starred = len(self.names) > 1 and n_folds >= LEAST_FOLDS_OF_STARS
        best = "; * best, or within ± of it fold by fold" if starred else ""
        return f"± corrected standard error over {n_folds} folds{shifted}{best}"


def _mean(values: FloatArray) -> FloatArray:
    """Mean over the folds: (n_sets, n_estimators, n_scores)."""
    mean: FloatArray = values.mean(axis=-1)
    return mean


def _cells(mean: FloatArray, error: FloatArray, stars: NDArray[np.bool_], sign: str) -> list[str]:
    """Texts of one column, all with the same number of decimals."""
    form = f"{sign}.{_decimals(mean, error)}f"
    texts = []
    for value, uncertainty, star in zip(mean, error, stars, strict=True):
        text = "" if np.isnan(value) else f"{value:{form}}"
        if text and np.isfinite(uncertainty):
            text += f"±{uncertainty:{form[1:]}}"
        texts.append(text + ("*" if star else " "))
    return texts


def _decimals(mean: FloatArray, error: FloatArray) -> int:
    """Two digits of a smaller one of the errors, but at most four of the largest mean."""
    largest = np.nanmax(np.abs(mean))
    decimals = 3 - math.floor(math.log10(largest)) if 0 < largest < np.inf else 2
    # Estimators that agree up to rounding would ask for digits without end.
    known = error[error > 1e-3 * np.nanmax(error, initial=0)]
    if len(known):
        decimals = min(decimals, 1 - math.floor(math.log10(np.quantile(known, 0.25))))
    return min(max(decimals, 0), 8)
