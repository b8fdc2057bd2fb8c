"""Whether targets fall below the predicted quantiles as often as they should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sksubnet.displays.arguments import (
    COUNT,
    NAME,
    SEED,
    SHARE,
    SWITCH,
    WHOLE,
    FloatArray,
    checked,
    levels_of,
    same_rows,
)
from sksubnet.displays.drawing import (
    GREY,
    LINE,
    axes_of,
    legend_under,
    long_frame,
    look,
    number,
    panel_below,
)
from sksubnet.displays.responses import (
    Prediction,
    as_predictive,
    column,
    named,
    regressors,
    target_predictive,
    targets_of,
)

N_PIT_BINS = 10


@dataclass(eq=False, repr=False)
class QuantileCalibrationDisplay:
    """Share of the targets below each predicted quantile, for one or several regressors.

    On the diagonal the predictive distributions are calibrated. An S shape that is too flat in the
    middle says that they are too narrow, a steep one that they are too wide; a curve that lies
    above the diagonal says that predictions are too high.

    Parameters
    ----------
    names : tuple of str
        Names of the K models.
    pit : ndarray of shape (K, N)
        Predictive distribution functions at the targets, "probability integral transforms".
    levels : ndarray of shape (L,)
        Levels of the quantiles.
    observed, lower, upper : ndarray of shape (K, L)
        Share of the targets at or below the quantile, and the ends of its bootstrap interval.
    confidence : float
        Of the bootstrap intervals, each level by itself.

    Attributes
    ----------
    gap_ : ndarray of shape (K,)
        Mean over the levels of the distance to the diagonal.
    ax_, counts_ax_, figure_ : matplotlib Axes, Axes and Figure
        Where `plot` has drawn the curves, and the counts, with the legend under them.

    References
    ----------
    Gneiting, Balabdaoui and Raftery, Probabilistic forecasts, calibration and sharpness, JRSS B
    2007.

    Examples
    --------
    >>> from sksubnet.displays import QuantileCalibrationDisplay
    >>> y, mean, std = [-1.0, 0.0, 1.0, 2.0], [0.0] * 4, [1.0] * 4
    >>> display = QuantileCalibrationDisplay.from_predictions(y, (mean, std), levels=[0.5, 0.9])
    >>> display.observed
    array([[0.5 , 0.75]])
    """

    names: tuple[str, ...]
    pit: FloatArray
    levels: FloatArray
    observed: FloatArray
    lower: FloatArray
    upper: FloatArray
    confidence: float
    ax_: Any = field(default=None, init=False)
    counts_ax_: Any = field(default=None, init=False)
    figure_: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Summarise each curve."""
        self.gap_ = np.abs(self.observed - self.levels).mean(axis=1)

    @classmethod
    @checked(confidence=SHARE, n_bootstraps=COUNT, random_state=SEED, target=WHOLE, name=NAME)
    def from_estimator(
        cls,
        estimator: Any | Mapping[str, Any],
        X: Any,
        y: ArrayLike,
        *,
        levels: ArrayLike | None = None,
        confidence: float = 0.9,
        n_bootstraps: int = 1000,
        random_state: int | None = 0,
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
        levels : array-like of shape (L,), default=None
            Levels of the quantiles; .01, .05, .1, ..., .95, .99 if ``None``.
        confidence : float, default=0.9
            Of the bootstrap bands.
        n_bootstraps : int, default=1000
            How often the rows are drawn again.
        random_state : int or None, default=0
            Seed of the bootstrap.
        target : int, default=0
            Which of several targets.
        name : str, default=None
            Name of a single model; its class if ``None``.

        Returns
        -------
        QuantileCalibrationDisplay
            Not drawn: `plot` draws.
        """
        pit = {}
        for label, model in regressors(cls, estimator, name, "ReliabilityDisplay").items():
            predictive = target_predictive(model, X)
            targets = targets_of(y, predictive.mean.shape[1])
            same_rows(targets, predictive.mean)
            pit[label] = column(predictive.cdf(targets), target)
        return cls._from_pit(pit, levels, confidence, n_bootstraps, random_state)

    @classmethod
    @checked(confidence=SHARE, n_bootstraps=COUNT, random_state=SEED, name=NAME)
    def from_predictions(
        cls,
        y_true: ArrayLike,
        prediction: Prediction | Mapping[str, Prediction],
        *,
        levels: ArrayLike | None = None,
        confidence: float = 0.9,
        n_bootstraps: int = 1000,
        random_state: int | None = 0,
        name: str | None = None,
    ) -> Self:
        """Take predictions that are there.

        Parameters
        ----------
        y_true : array-like of shape (N,)
            Targets.
        prediction : Predictive, tuple of two array-likes of shape (N,), or mapping of str to these
            Of one target; or mean and standard deviation of a Gaussian.
        levels, confidence, n_bootstraps, random_state, name
            As in `from_estimator`.

        Returns
        -------
        QuantileCalibrationDisplay
            Not drawn: `plot` draws.
        """
        pit = {}
        for label, given in named(prediction, name or "").items():
            predictive = as_predictive(given)
            targets = targets_of(y_true, predictive.mean.shape[1])
            same_rows(targets, predictive.mean)
            pit[label] = column(predictive.cdf(targets), 0)
        return cls._from_pit(pit, levels, confidence, n_bootstraps, random_state)

    @classmethod
    def _from_pit(
        cls,
        pit: dict[str, FloatArray],
        levels: ArrayLike | None,
        confidence: float,
        n_bootstraps: int,
        random_state: int | None,
    ) -> Self:
        """Count, and draw the counts between the levels again."""
        if levels is None:
            levels = [0.01, *np.arange(1, 20) / 20, 0.99]
        at = np.sort(levels_of(levels))
        generator = np.random.default_rng(random_state)
        ends = [(1 - confidence) / 2, (1 + confidence) / 2]
        observed, lower, upper = [], [], []
        for values in pit.values():
            share = np.searchsorted(np.sort(values), at, side="right") / len(values)
            observed.append(share)
            # Rows drawn again are counts between the levels drawn again.
            between = np.diff(share, prepend=0, append=1).clip(min=0)
            counts = generator.multinomial(len(values), between, size=n_bootstraps)
            again = counts[:, :-1].cumsum(axis=1) / len(values)
            low, high = np.quantile(again, ends, axis=0)
            lower.append(low)
            upper.append(high)
        return cls(
            tuple(pit),
            np.stack(list(pit.values())),
            at,
            np.stack(observed),
            np.stack(lower),
            np.stack(upper),
            confidence,
        )

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each model and level: ``model``, ``level``, ``observed``, ``lower``,
            ``upper`` and ``n``, the rows counted.
        """
        return long_frame(
            self,
            self.names,
            [
                {
                    "level": self.levels,
                    "observed": self.observed[k],
                    "lower": self.lower[k],
                    "upper": self.upper[k],
                    "n": self.pit.shape[1],
                }
                for k in range(len(self.names))
            ],
        )

    @checked(name=NAME, counts=SWITCH)
    def plot(
        self, ax: Any = None, *, name: str | None = None, counts: bool = True, **kwargs: Any
    ) -> Self:
        """Draw the curves, and under them how many targets fell between which quantiles.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        name : str, default=None
            Name of a single model in the legend.
        counts : bool, default=True
            Whether to draw the histogram below.
        **kwargs : dict
            For the lines.

        Returns
        -------
        self
        """
        names = self.names if name is None else (name, *self.names[1:])
        n_rows = self.pit.shape[1]
        with axes_of(self, ax, (3.6 if counts else 2.9) + LINE * len(names)) as ax:
            ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="calibrated")
            for k, label in enumerate(names):
                drawn = {**look(k), **kwargs}
                ax.fill_between(
                    self.levels,
                    self.lower[k],
                    self.upper[k],
                    color=drawn["color"],
                    alpha=0.2,
                    linewidth=0,
                )
                text = f"{label}, gap {number(self.gap_[k])}".removeprefix(", ")
                ax.plot(self.levels, self.observed[k], **{"label": text, **drawn})
            ax.set(
                xlim=(0, 1),
                ylim=(0, 1),
                xlabel="level of the predicted quantile",
                ylabel="share of targets below it",
            )
            self.counts_ax_ = panel_below(ax) if counts else None
            if counts:
                self._draw_counts(self.counts_ax_, kwargs)
            title = f"{n_rows} rows; bands: {self.confidence:.0%} bootstrap"
            legend_under(ax, self.counts_ax_, title)
            self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_counts(self, ax: Any, kwargs: dict[str, Any]) -> None:
        """Histograms of the levels at which the targets lie, flat where calibrated."""
        edges = np.linspace(0, 1, N_PIT_BINS + 1)
        for k, values in enumerate(self.pit):
            colour = kwargs.get("color", look(k)["color"])
            counts, _ = np.histogram(values, edges)
            ax.stairs(counts, edges, color=colour, linestyle=look(k)["linestyle"], linewidth=1)
        ax.axhline(self.pit.shape[1] / N_PIT_BINS, color=GREY, linewidth=0.8, linestyle=":")
        ax.set(ylabel="targets", ylim=(0, None))
