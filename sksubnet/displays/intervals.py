"""How often intervals hold the target, and how wide they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sksubnet.displays.arguments import (
    COUNT,
    NAME,
    SHARE,
    WHOLE,
    FloatArray,
    checked,
    levels_of,
    one_of,
    same_rows,
)
from sksubnet.displays.drawing import (
    GREY,
    LINE,
    axes_of,
    fewer_ticks,
    legend_under,
    long_frame,
    look,
    number,
    panel_below,
)
from sksubnet.displays.proportions import quantile_bins, wilson
from sksubnet.displays.responses import (
    Prediction,
    as_predictive,
    column,
    named,
    regressors,
    target_predictive,
    targets_of,
)
from sksubnet.metrics import interval_coverage, interval_width
from sksubnet.predictive import AnyPredictive

BY = one_of("level", "std")


@dataclass(frozen=True, eq=False)
class CoverageCurve:
    """Coverage and width of one model's intervals at several points of a curve.

    Attributes
    ----------
    x : ndarray of shape (B,)
        Nominal coverage, or the mean predicted standard deviation of a group of rows.
    coverage, lower, upper : ndarray of shape (B,)
        Share of the targets inside, and the ends of its Wilson interval.
    width : ndarray of shape (B,)
        Mean width of the intervals.
    n : ndarray of shape (B,)
        Rows counted.
    """

    x: FloatArray
    coverage: FloatArray
    lower: FloatArray
    upper: FloatArray
    width: FloatArray
    n: NDArray[np.int64]


@dataclass(eq=False, repr=False)
class IntervalCoverageDisplay:
    """Coverage and width of central intervals, for one or several regressors.

    By level it shows whether intervals hold as many targets as they claim. By predicted standard
    deviation it shows whether they do so where the model is sure and where it is not: an average
    can be right because errors of both kinds cancel.

    Parameters
    ----------
    names : tuple of str
        Names of the models.
    by_level, by_std : tuple of CoverageCurve
        For each model the curve over the nominal coverage, and over groups of rows by their
        predicted standard deviation.
    coverage : float
        Nominal coverage of the intervals in ``by_std``.
    confidence : float
        Of the Wilson intervals around the shares.

    Attributes
    ----------
    ax_, width_ax_, figure_ : matplotlib Axes, Axes and Figure
        Where `plot` has drawn coverage and width; the legend is under the latter.

    Examples
    --------
    >>> from sksubnet.displays import IntervalCoverageDisplay
    >>> y, mean, std = [-1.0, 0.0, 1.0, 2.0], [0.0] * 4, [1.0] * 4
    >>> display = IntervalCoverageDisplay.from_predictions(
    ...     y, (mean, std), levels=[0.5, 0.9], n_groups=1
    ... )
    >>> display.by_level[0].coverage
    array([0.25, 0.75])
    """

    names: tuple[str, ...]
    by_level: tuple[CoverageCurve, ...]
    by_std: tuple[CoverageCurve, ...]
    coverage: float
    confidence: float
    ax_: Any = field(default=None, init=False)
    width_ax_: Any = field(default=None, init=False)
    figure_: Any = field(default=None, init=False)

    @classmethod
    @checked(coverage=SHARE, n_groups=COUNT, confidence=SHARE, target=WHOLE, name=NAME)
    def from_estimator(
        cls,
        estimator: Any | Mapping[str, Any],
        X: Any,
        y: ArrayLike,
        *,
        coverage: float = 0.9,
        levels: ArrayLike | None = None,
        n_groups: int = 10,
        confidence: float = 0.95,
        target: int = 0,
        name: str | None = None,
    ) -> Self:
        """Ask one fitted regressor, or several in a mapping from names.

        Parameters
        ----------
        estimator : fitted regressor, or mapping of str to fitted regressors
            With ``predictive``, or ``predict(X, return_std=True)`` taken as Gaussian.
        X : array-like of shape (N, n_features)
            Rows that the model has not seen.
        y : array-like of shape (N,) or (N, C)
            Their targets.
        coverage : float, default=0.9
            Nominal coverage of the intervals that are looked at by standard deviation.
        levels : array-like of shape (L,), default=None
            Nominal coverages; .05, .1, ..., .95, .99 if ``None``.
        n_groups : int, default=10
            Groups of rows by their predicted standard deviation: 10 for deciles.
        confidence : float, default=0.95
            Of the Wilson intervals.
        target : int, default=0
            Which of several targets.
        name : str, default=None
            Name of a single model; its class if ``None``.

        Returns
        -------
        IntervalCoverageDisplay
            Not drawn: `plot` draws.
        """
        models = regressors(cls, estimator, name, "ReliabilityDisplay")
        predictives = {label: target_predictive(model, X) for label, model in models.items()}
        return cls._from(predictives, y, target, coverage, levels, n_groups, confidence)

    @classmethod
    @checked(coverage=SHARE, n_groups=COUNT, confidence=SHARE, name=NAME)
    def from_predictions(
        cls,
        y_true: ArrayLike,
        prediction: Prediction | Mapping[str, Prediction],
        *,
        coverage: float = 0.9,
        levels: ArrayLike | None = None,
        n_groups: int = 10,
        confidence: float = 0.95,
        name: str | None = None,
    ) -> Self:
        """Take predictions that are there.

        Parameters
        ----------
        y_true : array-like of shape (N,)
            Targets.
        prediction : Predictive, tuple of two array-likes of shape (N,), or mapping of str to these
            Of one target; or mean and standard deviation of a Gaussian.
        coverage, levels, n_groups, confidence, name
            As in `from_estimator`.

        Returns
        -------
        IntervalCoverageDisplay
            Not drawn: `plot` draws.
        """
        given = named(prediction, name or "").items()
        predictives = {label: as_predictive(one) for label, one in given}
        return cls._from(predictives, y_true, 0, coverage, levels, n_groups, confidence)

    @classmethod
    def _from(
        cls,
        predictives: dict[str, AnyPredictive],
        y: ArrayLike,
        target: int,
        coverage: float,
        levels: ArrayLike | None,
        n_groups: int,
        confidence: float,
    ) -> Self:
        at = levels_of([*np.arange(1, 20) / 20, 0.99] if levels is None else levels)
        by_level, by_std = [], []
        for predictive in predictives.values():
            targets = column(targets_of(y, predictive.mean.shape[1]), target)
            same_rows(targets, predictive.mean)
            tails = [*(1 - at) / 2, *(1 + at) / 2]
            ends = column(predictive.quantiles(tails), target)
            everyone = np.ones(len(targets), dtype=bool)
            pairs = [(ends[:, i], ends[:, i + len(at)], everyone) for i in range(len(at))]
            by_level.append(_curve(targets, at, pairs, confidence))

            lower, upper = column(predictive.interval(coverage), target).T
            std = column(predictive.std(), target)
            bins = quantile_bins(std, n_groups)
            groups = [bins == b for b in np.unique(bins)]
            x = np.array([std[group].mean() for group in groups])
            pairs = [(lower, upper, group) for group in groups]
            by_std.append(_curve(targets, x, pairs, confidence))
        return cls(tuple(predictives), tuple(by_level), tuple(by_std), coverage, confidence)

    @checked(by=BY)
    def frame(self, by: str = "level") -> Any:
        """Give the numbers of the picture.

        Parameters
        ----------
        by : {"level", "std"}, default="level"
            Which curve.

        Returns
        -------
        pandas.DataFrame
            A row for each model and point: ``model``, ``level`` or ``std``, ``coverage``,
            ``lower``, ``upper``, ``width`` and ``n``, the rows counted.
        """
        tables = []
        for curve in self._curves(by):
            table = dict(vars(curve))
            tables.append({by: table.pop("x"), **table})
        return long_frame(self, self.names, tables)

    @checked(by=BY, name=NAME)
    def plot(
        self, ax: Any = None, *, by: str = "level", name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the coverage, and the width below.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        by : {"level", "std"}, default="level"
            Over the nominal coverage, or over the predicted standard deviation.
        name : str, default=None
            Name of a single model in the legend.
        **kwargs : dict
            For the lines.

        Returns
        -------
        self
        """
        curves = self._curves(by)
        names = self.names if name is None else (name, *self.names[1:])
        with axes_of(self, ax, 3.6 + LINE * len(names)) as ax:
            if by == "level":
                ax.plot([0, 1], [0, 1], ":", color=GREY, linewidth=0.8, label="as claimed")
                ax.set(xlabel="nominal coverage of the interval", xlim=(0, 1), ylim=(0, 1.02))
            else:
                ax.axhline(
                    self.coverage,
                    linestyle=":",
                    color=GREY,
                    linewidth=0.8,
                    label=f"as claimed ({self.coverage:.0%})",
                )
                lowest = np.floor(10 * min(curve.lower.min() for curve in curves)) / 10
                ax.set(xlabel="predicted sd, mean of the group (units of y)", ylim=(lowest, 1.03))
            lower = panel_below(ax)
            for k, (label, curve) in enumerate(zip(names, curves, strict=True)):
                drawn = {**look(k), **kwargs}
                self._draw_coverage(ax, curve, by, label, drawn)
                lower.plot(curve.x, curve.width, **drawn)
            ax.set_ylabel("targets inside")
            # widths that are all the same would have the end of the axis through them
            lower.set(ylabel="mean width\n(units of y)", ylim=(0, 1.1 * lower.dataLim.ymax))
            if by == "std":
                fewer_ticks(lower)
            legend_under(ax, lower, self._legend_title(by))
            self.ax_, self.width_ax_, self.figure_ = ax, lower, ax.figure
        return self

    def _draw_coverage(
        self, ax: Any, curve: CoverageCurve, by: str, label: str, drawn: dict[str, Any]
    ) -> None:
        """Shares with their uncertainty: a band where points share rows, bars where they do not."""
        if by == "level":
            gap = np.abs(curve.coverage - curve.x).mean()
            text = f"{label}, gap {number(gap)}".removeprefix(", ")
            ax.fill_between(
                curve.x, curve.lower, curve.upper, color=drawn["color"], alpha=0.2, linewidth=0
            )
            ax.plot(curve.x, curve.coverage, **{"label": text, **drawn})
            return
        reach = [curve.coverage - curve.lower, curve.upper - curve.coverage]
        text = label or "model"
        ax.errorbar(
            curve.x, curve.coverage, np.abs(reach), elinewidth=0.7, **{"label": text, **drawn}
        )

    def _legend_title(self, by: str) -> str:
        n_rows = int(self.by_level[0].n[0])
        interval = f"{self.confidence:.0%} Wilson"
        if by == "level":
            return f"{n_rows} rows; bands: {interval}"
        counts = np.concatenate([curve.n for curve in self.by_std])
        size = f"{counts.min()}" + (f" to {counts.max()}" if counts.max() > counts.min() else "")
        return f"groups of {size} rows; bars: {interval}"

    def _curves(self, by: str) -> tuple[CoverageCurve, ...]:
        return self.by_level if by == "level" else self.by_std


def _curve(
    y: FloatArray,
    x: FloatArray,
    pairs: list[tuple[FloatArray, FloatArray, NDArray[np.bool_]]],
    confidence: float,
) -> CoverageCurve:
    """Coverage and width at every point: lower ends, upper ends and which rows count there."""
    coverage, width, n = [], [], []
    for lower, upper, rows in pairs:
        coverage.append(interval_coverage(y[rows], lower[rows], upper[rows]))
        width.append(interval_width(lower[rows], upper[rows]))
        n.append(int(rows.sum()))
    shares, counts = np.array(coverage), np.array(n)
    return CoverageCurve(x, shares, *wilson(shares, counts, confidence), np.array(width), counts)
