"""What is gained by refusing to predict where the model is least certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier

from sksubnet.displays.arguments import (
    COMPONENT,
    NAME,
    SWITCH,
    TEXT,
    WHOLE,
    FloatArray,
    checked,
    floats,
    labels_of,
    one_of,
    same_rows,
    vector,
)
from sksubnet.displays.drawing import (
    COLOURS,
    GREY,
    LINE,
    axes_of,
    legend_under,
    long_frame,
    look,
    number,
)
from sksubnet.displays.responses import column, fitted, named, targets_of, uncertainty_of

FEWEST = 10
"""Rows that an error is drawn from at least; with fewer the curve is noise."""


@dataclass(eq=False, repr=False)
class RejectionDisplay:
    """Error on the rows that are kept when the least certain are refused.

    A useful uncertainty makes the curve fall to the left. Rows of equal uncertainty are kept in
    random order, which gives the flat line of no use where all are equal.

    Parameters
    ----------
    names : tuple of str
        Names of the K models.
    kept : ndarray of shape (N,)
        Share of the rows that are kept: 1/N, 2/N, ..., 1.
    error, standard_error : ndarray of shape (K, N)
        Error on these rows, and the standard error that counting so few rows gives it: NaN for
        one row.
    best : ndarray of shape (K, N)
        Error if the rows with the largest errors were refused first: no uncertainty does better.
    error_name : str
        What the error is, with its unit.
    uncertainty_name : str, default="uncertainty"
        What the rows are refused by.

    Attributes
    ----------
    area_ : ndarray of shape (K,)
        Area under the curve, the mean error over all shares kept: lower is better.
    ax_, figure_ : matplotlib Axes and Figure
        Where `plot` has drawn.

    References
    ----------
    Geifman and El-Yaniv, Selective classification for deep neural networks, NIPS 2017.

    Examples
    --------
    >>> from sksubnet.displays import RejectionDisplay
    >>> errors, uncertainty = [0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]
    >>> display = RejectionDisplay.from_predictions(errors, uncertainty)
    >>> display.error.round(2)
    array([[0.  , 0.  , 0.33, 0.5 ]])
    """

    names: tuple[str, ...]
    kept: FloatArray
    error: FloatArray
    standard_error: FloatArray
    best: FloatArray
    error_name: str
    uncertainty_name: str = "uncertainty"
    ax_: Any = field(default=None, init=False)
    figure_: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Summarise each curve."""
        self.area_ = self.error.mean(axis=1)

    @classmethod
    @checked(component=COMPONENT, target=WHOLE, name=NAME)
    def from_estimator(
        cls,
        estimator: Any | Mapping[str, Any],
        X: Any,
        y: ArrayLike,
        *,
        component: str = "total",
        target: int = 0,
        name: str | None = None,
    ) -> Self:
        """Ask one fitted estimator, or several in a mapping from names.

        Parameters
        ----------
        estimator : fitted estimator, or mapping of str to fitted estimators
            Classifiers, whose error is the share of wrong labels, or regressors, whose error is the
            root mean squared one. With ``predictive``; or, for ``component="total"``, with
            ``predict_proba`` or ``predict(X, return_std=True)``.
        X : array-like of shape (N, n_features)
            Rows that the model has not seen.
        y : array-like of shape (N,) or (N, C)
            Their labels or targets.
        component : {"total", "epistemic", "aleatoric"}, default="total"
            What the rows are refused by: an entropy or a standard deviation.
        target : int, default=0
            Which of a regressor's targets.
        name : str, default=None
            Name of a single model; its class if ``None``.

        Returns
        -------
        RejectionDisplay
            Not drawn: `plot` draws.
        """
        rows: dict[str, tuple[FloatArray, FloatArray]] = {}
        classifies, quantity = False, ""
        for label, model in fitted(estimator, name).items():
            found = uncertainty_of(model, X, component, target)
            classifies, quantity = is_classifier(model), found.quantity
            predicted = np.asarray(model.predict(X))
            if classifies:
                labels = labels_of(y, model.classes_)
                same_rows(labels, predicted)
                errors = (predicted != labels).astype(np.float64)
            else:
                means = floats(predicted.reshape(len(predicted), -1), "predict")
                targets = targets_of(y, means.shape[1])
                same_rows(targets, means)
                errors = column((targets - means) ** 2, target)
            rows[label] = errors, found.values
        if classifies:
            return cls._from(rows, "mean", "error rate", quantity)
        return cls._from(rows, "root mean", "RMSE (units of y)", quantity)

    @classmethod
    @checked(average=one_of("mean", "root mean"), error_name=TEXT, uncertainty_name=TEXT, name=NAME)
    def from_predictions(
        cls,
        errors: ArrayLike | Mapping[str, ArrayLike],
        uncertainty: ArrayLike | Mapping[str, ArrayLike],
        *,
        average: str = "mean",
        error_name: str = "mean error",
        uncertainty_name: str = "uncertainty",
        name: str | None = None,
    ) -> Self:
        """Take errors and uncertainties that are there.

        Parameters
        ----------
        errors : array-like of shape (N,), or mapping of str to these
            Error of each row: 0 or 1 for labels, squared for targets, never negative.
        uncertainty : array-like of shape (N,), or mapping of str to these
            Uncertainty of each row, larger for less certain; of the same models.
        average : {"mean", "root mean"}, default="mean"
            How the errors of rows become one number; "root mean" of squared ones is the RMSE.
        error_name, uncertainty_name : str
            Labels, with units.
        name : str, default=None
            Name of a single model.

        Returns
        -------
        RejectionDisplay
            Not drawn: `plot` draws.
        """
        by_model, certain = named(errors, name or ""), named(uncertainty, name or "")
        if set(by_model) != set(certain):
            raise ValueError(
                f"errors are of {list(by_model)} and uncertainty is of {list(certain)}; give both "
                "for the same models."
            )
        rows = {
            label: (vector(one, "errors"), vector(certain[label], "uncertainty"))
            for label, one in by_model.items()
        }
        return cls._from(rows, average, error_name, uncertainty_name)

    @classmethod
    def _from(
        cls,
        rows: dict[str, tuple[FloatArray, FloatArray]],
        average: str,
        error_name: str,
        uncertainty_name: str,
    ) -> Self:
        same_rows(*(array for pair in rows.values() for array in pair))
        curves = [_curve(errors, uncertainty, average) for errors, uncertainty in rows.values()]
        best = [_curve(errors, errors, average)[0] for errors, _ in rows.values()]
        error, standard_error = (np.stack(parts) for parts in zip(*curves, strict=True))
        kept = np.arange(1, error.shape[1] + 1) / error.shape[1]
        return cls(
            tuple(rows), kept, error, standard_error, np.stack(best), error_name, uncertainty_name
        )

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each model and share: ``model``, ``kept``, ``error``, ``standard_error``,
            ``best`` and ``n``, the rows kept.
        """
        tables = [
            {
                "kept": self.kept,
                "error": self.error[k],
                "standard_error": self.standard_error[k],
                "best": self.best[k],
                "n": np.arange(1, len(self.kept) + 1),
            }
            for k in range(len(self.names))
        ]
        return long_frame(self, self.names, tables)

    @checked(name=NAME, best=[*SWITCH, None])
    def plot(
        self, ax: Any = None, *, name: str | None = None, best: bool | None = None, **kwargs: Any
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        name : str, default=None
            Name of a single model in the legend.
        best : bool, default=None
            Whether to draw the curve that no uncertainty could beat; for a single model if
            ``None``.
        **kwargs : dict
            For the lines.

        Returns
        -------
        self
        """
        names = self.names if name is None else (name, *self.names[1:])
        best = len(names) == 1 if best is None else best
        n_rows = len(self.kept)
        shown = slice(min(FEWEST, n_rows) - 1, None)
        share = self.kept[shown]
        top = np.fmax(self.error, self.error + self.standard_error)[:, shown].max()
        with axes_of(self, ax, 2.9 + LINE * (len(names) + 2 * (len(names) == 1))) as ax:
            for k, label in enumerate(names):
                drawn = {**look(k), "marker": "", **kwargs}
                error, spread = self.error[k, shown], self.standard_error[k, shown]
                low, high = (error - spread).clip(min=0), error + spread
                ax.fill_between(share, low, high, color=drawn["color"], alpha=0.18, linewidth=0)
                text = f"{label}, area {number(self.area_[k], 3)}".removeprefix(", ")
                ax.plot(share, error, **{"label": text, **drawn})
                if best:
                    ax.plot(share, self.best[k, shown], ":", color=drawn["color"], linewidth=0.9)
            if best:
                ax.plot([], [], ":", color=COLOURS[0] if len(names) == 1 else GREY, label="best")
            if len(names) == 1:
                ax.axhline(
                    self.error[0, -1], color=GREY, linewidth=0.8, linestyle="--", label="at random"
                )
            ax.set(
                xlabel=f"share of the {n_rows} rows kept,\nby {self.uncertainty_name}",
                ylabel=f"{self.error_name} on rows kept",
                xlim=(0, 1.02),
                ylim=(0, 1.05 * top),
            )
            legend_under(ax, title="bands: ±1 s.e.")
            self.ax_, self.figure_ = ax, ax.figure
        return self


def _curve(
    errors: FloatArray, uncertainty: FloatArray, average: str
) -> tuple[FloatArray, FloatArray]:
    """Error (N,) on the 1, 2, ..., N most certain rows, and its standard error."""
    if errors.min() < 0:
        raise ValueError(f"errors has the value {errors.min()}; errors are not negative.")
    order = np.argsort(uncertainty, kind="stable")
    sums, squares = (
        _expected_sums(values[order], uncertainty[order]) for values in (errors, errors**2)
    )
    n = np.arange(1, len(errors) + 1)
    mean = sums / n
    variance = (squares / n - mean**2).clip(min=0)
    standard_error = np.full(len(n), np.nan)
    standard_error[1:] = np.sqrt(variance[1:] / (n[1:] - 1))
    if average == "mean":
        return mean, standard_error
    root = np.sqrt(mean)
    spread = np.divide(standard_error, 2 * root, out=0 * standard_error, where=root > 0)
    return root, spread


def _expected_sums(values: FloatArray, uncertainty: FloatArray) -> FloatArray:
    """Cumulated sums (N,) of sorted rows; rows of equal uncertainty count as their mean."""
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=values) / size
    result: FloatArray = means[group].cumsum()
    return result
