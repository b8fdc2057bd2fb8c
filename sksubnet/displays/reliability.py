"""Whether events happen as often as their predicted probability says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from sksubnet.displays.arguments import (
    COUNT,
    NAME,
    SHARE,
    SWITCH,
    FloatArray,
    checked,
    labels_of,
    one_of,
    probability_array,
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
from sksubnet.displays.proportions import quantile_bins, wilson
from sksubnet.displays.responses import classifiers, named, probabilities_of

STRATEGY = one_of("quantile", "uniform")
SMALLEST = 1e-4
"""Probabilities nearer to 0 and 1 are drawn here on the axis of log odds."""

N_HISTOGRAM_BINS = 20
FEW_ROWS = 10
"""Up to so many rows the axis of the counts is linear."""


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Predicted and observed shares of one model, bin by bin.

    Attributes
    ----------
    prob_pred, prob_true : ndarray of shape (B,)
        Mean predicted probability, and share of the rows where the event happened.
    lower, upper : ndarray of shape (B,)
        Ends of the Wilson interval of the share.
    n : ndarray of shape (B,)
        Rows of the bin.
    """

    prob_pred: FloatArray
    prob_true: FloatArray
    lower: FloatArray
    upper: FloatArray
    n: NDArray[np.int64]


@dataclass(eq=False, repr=False)
class ReliabilityDisplay:
    """Reliability diagram of one or several classifiers, with counts and their uncertainty.

    The event is the positive class of two classes, or of more that the predicted class is right.
    Points below the diagonal at high probabilities are overconfidence.

    Parameters
    ----------
    names : tuple of str
        Names of the K models.
    curves : tuple of ReliabilityCurve
        The bins of each model.
    probabilities : tuple of ndarray of shape (N,)
        Predicted probability of the event, of each model and row.
    event : str
        What the probabilities are about, for the labels.
    confidence : float
        Of the Wilson intervals.

    Attributes
    ----------
    gap_ : ndarray of shape (K,)
        Mean over the rows of the distance of their bin to the diagonal: the expected calibration
        error with these bins.
    ax_, counts_ax_, figure_ : matplotlib Axes, Axes and Figure
        Where `plot` has drawn the curves, and the counts, with the legend under them.

    Examples
    --------
    >>> from sksubnet.displays import ReliabilityDisplay
    >>> y, p = [0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9]
    >>> display = ReliabilityDisplay.from_predictions(y, p, n_bins=2)
    >>> display.curves[0].prob_pred.round(2), display.curves[0].prob_true
    (array([0.2, 0.8]), array([0., 1.]))
    """

    names: tuple[str, ...]
    curves: tuple[ReliabilityCurve, ...]
    probabilities: tuple[FloatArray, ...]
    event: str
    confidence: float
    ax_: Any = field(default=None, init=False)
    counts_ax_: Any = field(default=None, init=False)
    figure_: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Summarise each curve."""
        self.gap_ = np.array(
            [np.average(np.abs(c.prob_true - c.prob_pred), weights=c.n) for c in self.curves]
        )

    @classmethod
    @checked(n_bins=COUNT, strategy=STRATEGY, confidence=SHARE, name=NAME)
    def from_estimator(
        cls,
        estimator: Any | Mapping[str, Any],
        X: Any,
        y: ArrayLike,
        *,
        pos_label: Any = None,
        n_bins: int = 10,
        strategy: str = "quantile",
        confidence: float = 0.95,
        name: str | None = None,
    ) -> Self:
        """Ask one fitted classifier, or several in a mapping from names.

        Parameters
        ----------
        estimator : fitted classifier, or mapping of str to fitted classifiers
            With ``predict_proba`` and ``classes_``.
        X : array-like of shape (N, n_features)
            Rows that the model has not seen.
        y : array-like of shape (N,)
            Their labels.
        pos_label : label, default=None
            The class whose probability is looked at; if ``None`` the second of two, and of more
            classes the predicted one.
        n_bins : int, default=10
            Number of bins.
        strategy : {"quantile", "uniform"}, default="quantile"
            Bins of equally many rows, or of equal width.
        confidence : float, default=0.95
            Of the Wilson intervals.
        name : str, default=None
            Name of a single model; its class if ``None``.

        Returns
        -------
        ReliabilityDisplay
            Not drawn: `plot` draws.
        """
        models = classifiers(cls, estimator, name, "QuantileCalibrationDisplay")
        given = {label: probabilities_of(model, X) for label, model in models.items()}
        classes = [model.classes_ for model in models.values()]
        return cls._from(y, given, classes, pos_label, n_bins, strategy, confidence)

    @classmethod
    @checked(n_bins=COUNT, strategy=STRATEGY, confidence=SHARE, name=NAME)
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike | Mapping[str, ArrayLike],
        *,
        labels: ArrayLike | None = None,
        pos_label: Any = None,
        n_bins: int = 10,
        strategy: str = "quantile",
        confidence: float = 0.95,
        name: str | None = None,
    ) -> Self:
        """Take probabilities that are there.

        Parameters
        ----------
        y_true : array-like of shape (N,)
            Labels.
        y_prob : array-like of shape (N,) or (N, K), or mapping of str to these
            Probabilities; one dimension means that of the second of two classes.
        labels : array-like of shape (K,), default=None
            Label of every column; the sorted labels that occur in `y_true` if ``None``.
        pos_label, n_bins, strategy, confidence, name
            As in `from_estimator`.

        Returns
        -------
        ReliabilityDisplay
            Not drawn: `plot` draws.
        """
        known = np.unique(np.asarray(y_true)) if labels is None else np.asarray(labels)
        given = {}
        for label, one in named(y_prob, name or "").items():
            p = probability_array(one, "y_prob")
            given[label] = np.column_stack([1 - p, p]) if p.ndim == 1 else p
        classes = [known] * len(given)
        return cls._from(y_true, given, classes, pos_label, n_bins, strategy, confidence)

    @classmethod
    def _from(
        cls,
        y_true: ArrayLike,
        given: dict[str, FloatArray],
        classes: list[NDArray[Any]],
        pos_label: Any,
        n_bins: int,
        strategy: str,
        confidence: float,
    ) -> Self:
        curves, probabilities = [], []
        event = "the predicted class is right"
        for p, known in zip(given.values(), classes, strict=True):
            y = labels_of(y_true, known)
            same_rows(y, p)
            if p.shape[1] != len(known):
                raise ValueError(
                    f"y_prob is about {p.shape[1]} classes, but {len(known)} labels are known; "
                    "give `labels`, the label of every column."
                )
            label = known[1] if pos_label is None and len(known) == 2 else pos_label
            if label is None:
                chosen, happened = p.max(axis=1), known[p.argmax(axis=1)] == y
            else:
                column = np.flatnonzero(known == label)
                if len(column) != 1:
                    raise ValueError(f"pos_label={label!r} is not one of {known.tolist()}.")
                chosen, happened = p[:, column[0]], y == label
                event = f"class {label}"
            curves.append(_binned(chosen, happened, n_bins, strategy, confidence))
            probabilities.append(chosen)
        return cls(tuple(given), tuple(curves), tuple(probabilities), event, confidence)

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each model and bin: ``model``, ``prob_pred``, ``prob_true``, ``lower``,
            ``upper`` and ``n``, the rows of the bin.
        """
        return long_frame(self, self.names, [vars(curve) for curve in self.curves])

    @checked(name=NAME, scale=one_of("linear", "log-odds"), counts=SWITCH)
    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        scale: str = "linear",
        counts: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves, and under them how often which probability is predicted.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        name : str, default=None
            Name of a single model in the legend.
        scale : {"linear", "log-odds"}, default="linear"
            Of both axes; log odds show what happens near 0 and 1.
        counts : bool, default=True
            Whether to draw the histogram below.
        **kwargs : dict
            For the lines.

        Returns
        -------
        self
        """
        names = self.names if name is None else (name, *self.names[1:])
        with axes_of(self, ax, (3.6 if counts else 2.9) + LINE * len(names)) as ax:
            on = _log_odds if scale == "log-odds" else np.asarray
            ends = self._limits(scale)
            ax.plot(on(ends), on(ends), ":", color=GREY, linewidth=0.8, label="calibrated")
            for k, (label, curve) in enumerate(zip(names, self.curves, strict=True)):
                y = on(curve.prob_true)
                reach = np.abs([y - on(curve.lower), on(curve.upper) - y])
                text = f"{label}, gap {number(self.gap_[k])}".removeprefix(", ")
                drawn = {"label": text, **look(k), "elinewidth": 0.7, **kwargs}
                ax.errorbar(on(curve.prob_pred), y, reach, **drawn)
            whom = self.event if self.event.startswith("class") else "the predicted class"
            ylabel = "share correct" if whom == "the predicted class" else f"share of {whom}"
            low, high = on(ends)
            pad = 0.03 * (high - low)
            ax.set(
                xlabel=f"predicted probability of {whom}",
                ylabel=ylabel,
                xlim=(low - pad, high + pad),
                ylim=(low - pad, high + pad),
            )
            if scale == "log-odds":
                _label_log_odds(ax, ends)
            n_rows = len(self.probabilities[0])
            title = f"{n_rows} rows; bars: {self.confidence:.0%} Wilson"
            self.counts_ax_ = panel_below(ax) if counts else None
            if counts:
                self._draw_counts(self.counts_ax_, on, ends, kwargs)
            legend_under(ax, self.counts_ax_, title)
            self.ax_, self.figure_ = ax, ax.figure
        return self

    def _limits(self, scale: str) -> FloatArray:
        """Smallest and largest probability that the axes show."""
        lowest = min(p.min() for p in self.probabilities)
        shown = np.concatenate([c.prob_true for c in self.curves] + [p for p in self.probabilities])
        if scale == "log-odds":
            inside = np.clip(shown, SMALLEST, 1 - SMALLEST)
            return np.array([inside.min(), inside.max()])
        # The confidence of a predicted class never is near 0.
        ends = np.array([0.0, 1.0])
        if not self.event.startswith("class"):
            lows = [lowest, *(curve.lower.min() for curve in self.curves)]
            ends[0] = np.floor(10 * min(lows)) / 10
        return ends

    def _draw_counts(self, ax: Any, on: Any, ends: FloatArray, kwargs: dict[str, Any]) -> None:
        """Histograms of the predicted probabilities."""
        low, high = on(ends)
        edges = np.linspace(low, high, N_HISTOGRAM_BINS + 1)
        for k, p in enumerate(self.probabilities):
            counts, _ = np.histogram(np.clip(on(p), low, high), edges)
            style = {**look(k), **kwargs}
            ax.stairs(
                counts, edges, color=style["color"], linestyle=style["linestyle"], linewidth=1
            )
        ax.set_ylabel("rows")
        # Most rows lie in the outermost bins; the others should still be seen.
        if ax.dataLim.ymax > FEW_ROWS:
            ax.set_yscale("symlog", linthresh=FEW_ROWS)
        ax.set_ylim(0, None)


def _binned(
    p: FloatArray, happened: NDArray[np.bool_], n_bins: int, strategy: str, confidence: float
) -> ReliabilityCurve:
    """Predicted and observed shares of the bins that have rows."""
    if strategy == "quantile":
        bins = quantile_bins(p, n_bins)
    else:
        bins = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], p)
    n = np.bincount(bins, minlength=n_bins)
    some = n > 0
    predicted = np.bincount(bins, weights=p, minlength=n_bins)[some] / n[some]
    observed = np.bincount(bins, weights=happened, minlength=n_bins)[some] / n[some]
    return ReliabilityCurve(predicted, observed, *wilson(observed, n[some], confidence), n[some])


def _log_odds(p: ArrayLike) -> FloatArray:
    """Log odds, of probabilities that are not too near to 0 and 1."""
    result: FloatArray = logit(np.clip(p, SMALLEST, 1 - SMALLEST))
    return result


def _label_log_odds(ax: Any, ends: FloatArray) -> None:
    """Ticks of log odds that say which probability they are."""
    ticks = np.array([1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999])
    kept = ticks[(ticks >= ends[0] - 1e-9) & (ticks <= ends[1] + 1e-9)]
    if len(kept) < 3:
        kept = expit(np.linspace(_log_odds(ends[0]), _log_odds(ends[1]), 4))
    texts = [f"{tick:.4f}".rstrip("0") if tick in ticks else f"{tick:.2g}" for tick in kept]
    ax.set_xticks(_log_odds(kept), texts)
    ax.set_yticks(_log_odds(kept), texts)
