"""Predictions and uncertainty over a plane of two features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier
from sklearn.utils import check_array

from sksubnet.displays.arguments import (
    COMPONENT,
    GRID,
    NAME,
    NOT_NEGATIVE,
    FloatArray,
    checked,
    labels_of,
    one_of,
    same_rows,
    vector,
)
from sksubnet.displays.drawing import (
    COLOURS,
    DIVERGING,
    MARKERS,
    ROUND,
    SEQUENTIAL,
    WIDTH,
    axes_of,
    colour_bar,
    data_frame,
    legend_of_figure,
)
from sksubnet.displays.responses import (
    fitted,
    knows_causes,
    probabilities_of,
    uncertainty_of,
)


@dataclass(eq=False, repr=False)
class DecisionUncertaintyDisplay:
    """What a model of two features predicts, and where it is uncertain.

    Parameters
    ----------
    x0, x1 : ndarray of shape (G,) and (H,)
        Grid along both features.
    prediction : ndarray of shape (H, G)
        Probability of the second of two classes, or of more that of the predicted class; the mean
        of a regressor.
    uncertainty : ndarray of shape (H, G)
        Uncertainty at the same points.
    prediction_name, uncertainty_name : str
        What these are, with units.
    data : tuple of ndarrays of shape (N, 2) and (N,), or None, default=None
        Rows to show, and their labels or targets.
    decision : ndarray of shape (H, G) or None, default=None
        Number of the predicted class, for the boundaries; ``None`` in regression.
    feature_names : tuple of two str, default=("x0", "x1")
        Labels of the axes.
    name : str, default=""
        Name of the model.

    Attributes
    ----------
    ax_, axes_, figure_ : matplotlib Axes, list of Axes and Figure
        Where `plot` has drawn.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sksubnet.displays import DecisionUncertaintyDisplay
    >>> X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 0, 1, 1]
    >>> model = LogisticRegression().fit(X, y)
    >>> display = DecisionUncertaintyDisplay.from_estimator(model, X, y, n_points=3, margin=0)
    >>> display.prediction[:, 1].round(2)
    array([0.5, 0.5, 0.5])
    """

    x0: FloatArray
    x1: FloatArray
    prediction: FloatArray
    uncertainty: FloatArray
    prediction_name: str
    uncertainty_name: str
    data: tuple[FloatArray, NDArray[Any]] | None = None
    decision: NDArray[np.int64] | None = None
    feature_names: tuple[str, str] = ("x0", "x1")
    name: str = ""
    ax_: Any = field(default=None, init=False)
    axes_: list[Any] = field(default_factory=list, init=False)
    figure_: Any = field(default=None, init=False)

    @classmethod
    @checked(component=[*COMPONENT, None], n_points=GRID, margin=NOT_NEGATIVE, name=NAME)
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        component: str | None = None,
        n_points: int = 100,
        margin: float = 0.5,
        name: str | None = None,
    ) -> Self:
        """Ask a fitted estimator on a grid over its two features.

        Parameters
        ----------
        estimator : fitted classifier or regressor
            With ``predict_proba``, or ``predictive`` or ``predict(X, return_std=True)``.
        X : array-like of shape (N, 2)
            Rows that span the grid, such as the training rows.
        y : array-like of shape (N,), default=None
            Their labels or targets, to show the data.
        component : {"epistemic", "total", "aleatoric"}, default=None
            Uncertainty of which cause; epistemic where the model tells it apart if ``None``.
        n_points : int, default=100
            Points of the grid along each feature.
        margin : float, default=0.5
            How far the grid goes on at every side, as a share of the range of `X`.
        name : str, default=None
            Name of the model; its class if ``None``.

        Returns
        -------
        DecisionUncertaintyDisplay
            Not drawn: `plot` draws.
        """
        ((label, model),) = fitted(estimator, name).items()
        columns = getattr(X, "columns", None)
        rows = check_array(X, dtype=np.float64)
        if rows.shape[1] != 2:
            raise ValueError(f"X has {rows.shape[1]} columns; this display needs two.")
        low, high = rows.min(axis=0), rows.max(axis=0)
        names = ("x0", "x1") if columns is None else (str(columns[0]), str(columns[1]))
        for feature in np.flatnonzero(low == high):
            raise ValueError(
                f"{names[feature]} has the value {low[feature]:g} only; a plane needs a range of "
                "both features."
            )
        reach = margin * (high - low)
        x0, x1 = np.linspace(low - reach, high + reach, n_points).T
        grid = np.stack([axis.ravel() for axis in np.meshgrid(x0, x1)], axis=1)
        asked = grid if columns is None else type(X)(grid, columns=columns)
        if component is None:
            component = "epistemic" if knows_causes(model) else "total"
        found = uncertainty_of(model, asked, component)
        decision = None
        if is_classifier(model):
            p = probabilities_of(model, asked)
            decision = p.argmax(axis=1).reshape(n_points, n_points)
            two = p.shape[1] == 2
            prediction = p[:, 1] if two else p.max(axis=1)
            what = f"class {model.classes_[1]}" if two else "the predicted class"
            prediction_name = f"probability of {what}"
        else:
            prediction = np.asarray(model.predict(asked)).reshape(len(asked), -1)[:, 0]
            prediction_name = "mean (units of y)"
        data = None
        if y is not None:
            classifies = is_classifier(model)
            data = rows, labels_of(y, model.classes_) if classifies else vector(y, "y")
            same_rows(*data)
        return cls(
            x0,
            x1,
            prediction.reshape(n_points, n_points),
            found.values.reshape(n_points, n_points),
            prediction_name,
            found.quantity,
            data,
            decision,
            names,
            label,
        )

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each point of the grid: both features by their names, ``prediction`` and
            ``uncertainty``.
        """
        first, second = np.meshgrid(self.x0, self.x1)
        return data_frame(
            self,
            {
                self.feature_names[0]: first.ravel(),
                self.feature_names[1]: second.ravel(),
                "prediction": self.prediction.ravel(),
                "uncertainty": self.uncertainty.ravel(),
            },
        )

    @checked(name=NAME, kind=one_of("both", "prediction", "uncertainty"))
    def plot(
        self, ax: Any = None, *, name: str | None = None, kind: str = "both", **kwargs: Any
    ) -> Self:
        """Draw contours of the prediction, of the uncertainty, or of both side by side.

        Parameters
        ----------
        ax : matplotlib Axes or sequence of two, default=None
            Where, two for ``kind="both"``; a new figure if ``None``.
        name : str, default=None
            Title; the name of the model if ``None``.
        kind : {"both", "prediction", "uncertainty"}, default="both"
            What to draw.
        **kwargs : dict
            For ``contourf``.

        Returns
        -------
        self
        """
        n_axes = 2 if kind == "both" else 1
        if ax is not None and np.size(ax) != n_axes:
            raise ValueError(f"kind={kind!r} needs {n_axes} axes in ax, not {np.size(ax)}.")
        parts = ["prediction", "uncertainty"] if kind == "both" else [kind]
        with axes_of(self, ax, 2.9, WIDTH * (2 if kind == "both" else 1), n_axes) as given:
            self.axes_ = list(np.ravel(given))
            for one, part in zip(self.axes_, parts, strict=True):
                self._draw(one, part, self.name if name is None else name, kwargs)
            if self.data is not None:
                legend_of_figure(self.axes_[0])
            self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        return self

    def _draw(self, ax: Any, part: str, title: str, kwargs: dict[str, Any]) -> None:
        """Draw filled contours with a colour bar, boundaries of the classes and the data."""
        from matplotlib.ticker import MaxNLocator

        drawn: dict[str, Any] = {"cmap": SEQUENTIAL}
        if part == "uncertainty" or self.decision is None:
            drawn |= {"levels": 10, "locator": MaxNLocator(10, steps=ROUND)}
        elif self.prediction_name.startswith("probability of class"):
            drawn |= {"levels": np.linspace(0, 1, 11), "cmap": DIVERGING}
        else:
            lowest = np.floor(10 * self.prediction.min()) / 10
            drawn["levels"] = np.linspace(lowest, 1, round(20 * (1 - lowest)) + 1)
        values = self.prediction if part == "prediction" else self.uncertainty
        contours = ax.contourf(self.x0, self.x1, values, **{**drawn, **kwargs})
        label = self.prediction_name if part == "prediction" else self.uncertainty_name
        colour_bar(ax, contours, label)
        if self.decision is not None:
            boundaries = np.arange(self.decision.max()) + 0.5
            if len(boundaries):
                ax.contour(
                    self.x0,
                    self.x1,
                    self.decision,
                    boundaries,
                    colors="black",
                    linewidths=0.9,
                    linestyles="--",
                )
        if self.data is not None:
            self._draw_data(ax, *self.data)
        ax.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1], title=title)

    def _draw_data(self, ax: Any, rows: FloatArray, y: NDArray[Any]) -> None:
        """Rows of each class by its own marker; of a regression all alike."""
        edge = {"markeredgecolor": "black", "markeredgewidth": 0.4, "linestyle": ""}
        if self.decision is None:
            ax.plot(*rows.T, "o", color="white", markersize=3, label=f"n = {len(rows)}", **edge)
        else:
            for k, label in enumerate(np.unique(y)):
                of_class = rows[y == label]
                ax.plot(
                    *of_class.T,
                    MARKERS[k % len(MARKERS)],
                    color=COLOURS[k % len(COLOURS)],
                    markersize=3,
                    label=f"class {label} (n = {len(of_class)})",
                    **edge,
                )
