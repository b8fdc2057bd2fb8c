"""Whether a model is less sure about rows unlike those it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from sksubnet.displays.arguments import (
    COMPONENT,
    NAME,
    TEXT,
    WHOLE,
    FloatArray,
    checked,
    one_of,
    vector,
)
from sksubnet.displays.drawing import COLOURS, axes_of, data_frame, fewer_ticks
from sksubnet.displays.responses import fitted, uncertainty_of

N_BINS = 25


@dataclass(eq=False, repr=False)
class UncertaintyShiftDisplay:
    """Uncertainty about rows of the training distribution and about others, with its AUROC.

    The AUROC is the probability that a row from outside is less certain than one from inside: 1
    where a threshold tells them apart, .5 where uncertainty says nothing.

    Parameters
    ----------
    inside, outside : ndarray of shape (N,) and (M,)
        Uncertainty of each row.
    quantity : str, default="uncertainty"
        What the numbers are, with their unit.
    name : str, default=""
        Name of the model.

    Attributes
    ----------
    auroc_, auroc_error_ : float
        Area under the ROC curve, and its standard error by DeLong et al.
    ax_, figure_ : matplotlib Axes and Figure
        Where `plot` has drawn.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver
    operating characteristic curves, Biometrics 1988.

    Examples
    --------
    >>> from sksubnet.displays import UncertaintyShiftDisplay
    >>> display = UncertaintyShiftDisplay.from_predictions([0.1, 0.2, 0.4], [0.3, 0.5])
    >>> round(display.auroc_, 3)
    0.833
    """

    inside: FloatArray
    outside: FloatArray
    quantity: str = "uncertainty"
    name: str = ""
    ax_: Any = field(default=None, init=False)
    figure_: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Compare every row from outside with every row from inside."""
        self.auroc_, self.auroc_error_ = _auroc(self.inside, self.outside)

    @classmethod
    @checked(component=COMPONENT, target=WHOLE, name=NAME)
    def from_estimator(
        cls,
        estimator: Any,
        X_inside: Any,
        X_outside: Any,
        *,
        component: str = "epistemic",
        target: int = 0,
        name: str | None = None,
    ) -> Self:
        """Ask a fitted estimator about both sets.

        Parameters
        ----------
        estimator : fitted classifier or regressor
            With ``predictive``; or, for ``component="total"``, with ``predict_proba`` or
            ``predict(X, return_std=True)``.
        X_inside : array-like of shape (N, n_features)
            Rows like those it was trained on, but not these.
        X_outside : array-like of shape (M, n_features)
            Rows from elsewhere.
        component : {"epistemic", "total", "aleatoric"}, default="epistemic"
            Mutual information, entropy or expected entropy of a classifier; standard deviations of
            a regressor.
        target : int, default=0
            Which of a regressor's targets.
        name : str, default=None
            Name of the model; its class if ``None``.

        Returns
        -------
        UncertaintyShiftDisplay
            Not drawn: `plot` draws.
        """
        ((label, model),) = fitted(estimator, name).items()
        inside = uncertainty_of(model, X_inside, component, target)
        outside = uncertainty_of(model, X_outside, component, target)
        return cls(inside.values, outside.values, inside.quantity, label)

    @classmethod
    @checked(quantity=TEXT, name=TEXT)
    def from_predictions(
        cls,
        inside: ArrayLike,
        outside: ArrayLike,
        *,
        quantity: str = "uncertainty",
        name: str = "",
    ) -> Self:
        """Take uncertainties that are there.

        Parameters
        ----------
        inside, outside : array-like of shape (N,) and (M,)
            Uncertainty of each row, larger for less certain.
        quantity : str, default="uncertainty"
            What the numbers are, with their unit.
        name : str, default=""
            Name of the model.

        Returns
        -------
        UncertaintyShiftDisplay
            Not drawn: `plot` draws.
        """
        return cls(vector(inside, "inside"), vector(outside, "outside"), quantity, name)

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each row of both sets: ``set`` ("in" or "out") and ``uncertainty``.
        """
        sets = ["in"] * len(self.inside) + ["out"] * len(self.outside)
        values = np.concatenate([self.inside, self.outside])
        return data_frame(self, {"set": sets, "uncertainty": values})

    @checked(name=NAME, scale=one_of("linear", "log"))
    def plot(
        self, ax: Any = None, *, name: str | None = None, scale: str = "linear", **kwargs: Any
    ) -> Self:
        """Draw two histograms, each in shares of its own rows.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        name : str, default=None
            Title; the name of the model if ``None``.
        scale : {"linear", "log"}, default="linear"
            Of the uncertainty.
        **kwargs : dict
            For the outlines of both histograms.

        Returns
        -------
        self
        """
        with axes_of(self, ax, 2.4) as ax:
            edges = self._edges(scale)
            sets = {"in": (self.inside, COLOURS[0]), "out of": (self.outside, COLOURS[1])}
            for label, (values, colour) in sets.items():
                counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
                share = counts / len(values)
                ax.stairs(share, edges, fill=True, color=colour, alpha=0.3, linewidth=0)
                text = f"{label} distribution (n = {len(values)})"
                line = "-" if label == "in" else "--"
                drawn = {"color": colour, "linewidth": 1.2, "linestyle": line, "label": text}
                ax.stairs(share, edges, **{**drawn, **kwargs})
            auroc = f"AUROC {self.auroc_:.3f} ± {self.auroc_error_:.3f} (s.e.)"
            below = scale == "log" and min(self.inside.min(), self.outside.min()) < edges[0]
            rest = "\n(smaller values in the first bin)" if below else ""
            ax.set(xlabel=self.quantity + rest, ylabel="share of the rows of a set", xscale=scale)
            if scale == "linear":
                fewer_ticks(ax)
            ax.set_ylim(0, 1.5 * ax.get_ylim()[1])
            ax.legend(loc="upper right", title=auroc, alignment="left")
            ax.set_title(self.name if name is None else name)
            self.ax_, self.figure_ = ax, ax.figure
        return self

    def _edges(self, scale: str) -> FloatArray:
        """Edges of the bins of both histograms."""
        values = np.concatenate([self.inside, self.outside])
        if scale == "linear":
            return np.histogram_bin_edges(values, N_BINS)
        positive = values[values > 0]
        if not len(positive):
            raise ValueError("No uncertainty is above 0, so there is no log scale; use 'linear'.")
        # A few rows of no uncertainty at all would leave the others no room.
        low = max(positive.min(), positive.max() * 1e-6)
        return np.geomspace(low, positive.max() * (1 + 1e-9), N_BINS + 1)


def _auroc(inside: FloatArray, outside: FloatArray) -> tuple[float, float]:
    """Area under the ROC curve of "larger is outside", and its standard error."""
    n, m = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    # The share of the other set that each row beats, ties counted half.
    below_inside = (ranks[:n] - rankdata(inside)) / m
    below_outside = (ranks[n:] - rankdata(outside)) / n
    if min(n, m) < 2:
        return float(below_outside.mean()), float("nan")
    variance = below_inside.var(ddof=1) / n + below_outside.var(ddof=1) / m
    return float(below_outside.mean()), float(np.sqrt(variance))
