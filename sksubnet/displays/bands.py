"""Predictions of one input with what they are uncertain about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from sksubnet.displays.arguments import (
    GRID,
    NAME,
    NOT_NEGATIVE,
    POSITIVE,
    TEXT,
    WHOLE,
    FloatArray,
    checked,
    same_rows,
    vector,
)
from sksubnet.displays.drawing import COLOURS, LINE, axes_of, data_frame, legend_under
from sksubnet.displays.responses import (
    Prediction,
    as_predictive,
    column,
    knows_causes,
    regressors,
    target_predictive,
    targets_of,
)


@dataclass(eq=False, repr=False)
class PredictiveBandDisplay:
    """Mean and bands of a regressor over its one input, with the data.

    The inner band is the uncertainty about the function (epistemic), the outer one that of a new
    target, noise included.

    Parameters
    ----------
    x, mean, std : ndarray of shape (n_points,)
        Inputs, and the mean and standard deviation of a new target there.
    std_epistemic : ndarray of shape (n_points,) or None, default=None
        Standard deviation of the function; ``None`` where the model does not tell it apart.
    data : tuple of two ndarrays of shape (N,) or None, default=None
        Inputs and targets of rows to show.
    name : str, default=""
        Name of the model.
    x_name, y_name : str
        Labels of the axes.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where `plot` has drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process import GaussianProcessRegressor
    >>> from sksubnet.displays import PredictiveBandDisplay
    >>> X, y = np.array([[0.0], [1.0], [3.0]]), np.array([0.0, 1.0, 0.0])
    >>> model = GaussianProcessRegressor(alpha=1e-6).fit(X, y)
    >>> display = PredictiveBandDisplay.from_estimator(model, X, y, n_points=4, margin=0)
    >>> display.x, display.std.round(1)
    (array([0., 1., 2., 3.]), array([0. , 0. , 0.6, 0. ]))
    """

    x: FloatArray
    mean: FloatArray
    std: FloatArray
    std_epistemic: FloatArray | None = None
    data: tuple[FloatArray, FloatArray] | None = None
    name: str = ""
    x_name: str = "x"
    y_name: str = "y"
    ax_: Any = field(default=None, init=False)
    figure_: Any = field(default=None, init=False)

    @classmethod
    @checked(n_points=GRID, margin=NOT_NEGATIVE, target=WHOLE, name=NAME, y_name=NAME)
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        n_points: int = 200,
        margin: float = 0.25,
        target: int = 0,
        name: str | None = None,
        y_name: str | None = None,
    ) -> Self:
        """Ask a fitted regressor on a grid over its one input.

        Parameters
        ----------
        estimator : fitted regressor
            With ``predictive`` or ``predict(X, return_std=True)``.
        X : array-like of shape (N, 1)
            Rows that span the grid, such as the training rows.
        y : array-like of shape (N,) or (N, C), default=None
            Their targets, to show the data.
        n_points : int, default=200
            Points of the grid.
        margin : float, default=0.25
            How far the grid goes on at both ends, as a share of the range of `X`.
        target : int, default=0
            Which of several targets.
        name : str, default=None
            Name of the model; its class if ``None``.
        y_name : str, default=None
            Label of the target, with its unit; the name of `y` if ``None``, or "y".

        Returns
        -------
        PredictiveBandDisplay
            Not drawn: `plot` draws.
        """
        other = "ReliabilityDisplay, or DecisionUncertaintyDisplay of two features"
        ((label, model),) = regressors(cls, estimator, name, other).items()
        columns = getattr(X, "columns", None)
        rows = check_array(X, dtype=np.float64)
        if rows.shape[1] != 1:
            raise ValueError(
                f"X has {rows.shape[1]} columns; bands are drawn over one. Use "
                "DecisionUncertaintyDisplay for two."
            )
        low, high = rows.min(), rows.max()
        if low == high:
            raise ValueError(f"X has the value {low:g} only; bands are drawn over a range.")
        reach = margin * (high - low)
        x = np.linspace(low - reach, high + reach, n_points)
        asked = x[:, None] if columns is None else type(X)(x[:, None], columns=columns)
        predictive = target_predictive(model, asked)
        knows_parts = knows_causes(model)
        mean = predictive.mean.detach().double().cpu().numpy()
        data = None
        if y is not None:
            data = rows[:, 0], column(targets_of(y, mean.shape[1]), target)
            same_rows(*data)
        return cls(
            x,
            column(mean, target),
            column(predictive.std(), target),
            column(predictive.std("epistemic"), target) if knows_parts else None,
            data,
            label,
            "x" if columns is None else str(columns[0]),
            str(getattr(y, "name", None) or "y") if y_name is None else y_name,
        )

    @classmethod
    @checked(name=TEXT, x_name=TEXT, y_name=TEXT)
    def from_predictions(
        cls,
        x: ArrayLike,
        prediction: Prediction,
        data: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        name: str = "",
        x_name: str = "x",
        y_name: str = "y",
    ) -> Self:
        """Take predictions that are there.

        Parameters
        ----------
        x : array-like of shape (n_points,)
            Inputs; sorted here.
        prediction : Predictive, or tuple of two array-likes of shape (n_points,)
            Of one target; or mean and standard deviation.
        data : tuple of two array-likes of shape (N,), default=None
            Inputs and targets to show.
        name, x_name, y_name : str
            Name of the model and labels of the axes.

        Returns
        -------
        PredictiveBandDisplay
            Not drawn: `plot` draws.
        """
        predictive = as_predictive(prediction)
        inputs = vector(x, "x")
        same_rows(inputs, predictive.mean)
        order: NDArray[np.int64] = np.argsort(inputs, kind="stable")
        mean = predictive.mean.detach().double().cpu().numpy()[order, 0]
        whole = isinstance(prediction, tuple | list)
        shown = None
        if data is not None:
            shown = vector(data[0], "data[0]"), vector(data[1], "data[1]")
            same_rows(*shown)
        return cls(
            inputs[order],
            mean,
            predictive.std()[order, 0],
            None if whole else predictive.std("epistemic")[order, 0],
            shown,
            name,
            x_name,
            y_name,
        )

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each point: ``x``, ``mean``, ``std``, and where the model tells them apart
            ``std_aleatoric`` and ``std_epistemic``.
        """
        data = {"x": self.x, "mean": self.mean, "std": self.std}
        if self.std_epistemic is not None:
            noise = np.sqrt((self.std**2 - self.std_epistemic**2).clip(min=0))
            data |= {"std_aleatoric": noise, "std_epistemic": self.std_epistemic}
        return data_frame(self, data)

    @checked(name=NAME, n_std=POSITIVE)
    def plot(
        self, ax: Any = None, *, name: str | None = None, n_std: float = 2, **kwargs: Any
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        name : str, default=None
            Title; the name of the model if ``None``.
        n_std : float, default=2
            Half width of the bands in standard deviations.
        **kwargs : dict
            For the line of the mean.

        Returns
        -------
        self
        """
        n_lines = 2 + (self.std_epistemic is not None) + (self.data is not None)
        with axes_of(self, ax, 2.5 + LINE * n_lines) as ax:
            colour = kwargs.pop("color", COLOURS[0])
            bands = [(self.std, 0.18, "new target, with noise")]
            if self.std_epistemic is not None:
                bands.append((self.std_epistemic, 0.4, "function (epistemic)"))
            for std, alpha, what in bands:
                ax.fill_between(
                    self.x,
                    self.mean - n_std * std,
                    self.mean + n_std * std,
                    color=colour,
                    alpha=alpha,
                    linewidth=0,
                    label=f"±{n_std:g} sd, {what}",
                )
            ax.plot(self.x, self.mean, **{"color": colour, "label": "mean", **kwargs})
            if self.data is not None:
                x, y = self.data
                ax.plot(
                    x,
                    y,
                    "o",
                    color="black",
                    markersize=2,
                    markeredgewidth=0,
                    alpha=0.6,
                    label=f"data (n = {len(x)})",
                )
            ax.set(xlabel=self.x_name, ylabel=self.y_name, xlim=(self.x[0], self.x[-1]))
            ax.set_title(self.name if name is None else name)
            legend_under(ax)
            self.ax_, self.figure_ = ax, ax.figure
        return self
