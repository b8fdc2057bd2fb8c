"""How good a model is for each size of its subnetwork."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sksubnet.displays.arguments import (
    NAME,
    SWITCH,
    TEXT,
    FloatArray,
    checked,
    floats,
    same_rows,
    vector,
)
from sksubnet.displays.drawing import (
    GREY,
    LINE,
    LINES,
    axes_of,
    data_frame,
    legend_under,
    look,
    number_ticks,
)
from sksubnet.displays.responses import fitted


@dataclass(eq=False, repr=False)
class SizePathDisplay:
    """Score against the number or share of weights that have a posterior.

    Parameters
    ----------
    sizes : ndarray of shape (L,)
        Sizes, in increasing order.
    scores : ndarray of shape (L, n_folds)
        Score of every size in every fold, or of every row.
    reference : dict of str to ndarray of shape (n_folds,)
        Scores to compare with, drawn as lines: the net alone, say, or all weights.
    score_name : str, default="score"
        What the score is, with its unit.
    higher_is_better : bool, default=True
        Direction of the score.
    over : {"folds", "rows"}, default="folds"
        What the columns of the scores are.

    Attributes
    ----------
    mean_, standard_error_ : ndarray of shape (L,)
        Mean over the folds or rows, and its standard error.
    best_size_, smallest_size_ : float
        Size of the best mean, and the smallest whose difference to it, fold by fold or row by
        row, is within one standard error.
    ax_, figure_ : matplotlib Axes and Figure
        Where `plot` has drawn.

    Examples
    --------
    >>> from sksubnet.displays import SizePathDisplay
    >>> sizes, scores = [10, 100, 1000], [[-0.9, -0.8], [-0.5, -0.2], [-0.4, -0.3]]
    >>> display = SizePathDisplay.from_scores(sizes, scores)
    >>> display.best_size_, display.smallest_size_
    (100.0, 100.0)
    """

    sizes: FloatArray
    scores: FloatArray
    reference: dict[str, FloatArray]
    score_name: str = "score"
    higher_is_better: bool = True
    over: str = "folds"
    ax_: Any = field(default=None, init=False)
    figure_: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Summarise the folds."""
        n_folds = self.scores.shape[1]
        self.mean_ = self.scores.mean(axis=1)
        self.standard_error_ = _standard_error(self.scores)
        signed = self.mean_ if self.higher_is_better else -self.mean_
        best = int(np.argmax(signed))
        self.best_size_ = self.smallest_size_ = float(self.sizes[best])
        if n_folds > 1:
            difference = self.scores - self.scores[best]
            gap = np.abs(difference.mean(axis=1))
            within = gap <= _standard_error(difference)
            self.smallest_size_ = float(self.sizes[within | (gap == 0)][0])

    @classmethod
    @checked(reference=[Mapping, None], score_name=TEXT, higher_is_better=SWITCH)
    def from_scores(
        cls,
        sizes: ArrayLike,
        scores: ArrayLike,
        *,
        reference: Mapping[str, ArrayLike] | None = None,
        score_name: str = "score",
        higher_is_better: bool = True,
    ) -> Self:
        """Take scores that are there.

        Parameters
        ----------
        sizes : array-like of shape (L,)
            Numbers or shares of weights.
        scores : array-like of shape (L, n_folds) or (L,)
            Score of every size in every fold.
        reference : mapping of str to float or array-like of shape (n_folds,), default=None
            Scores to compare with.
        score_name : str, default="score"
            What the score is, with its unit.
        higher_is_better : bool, default=True
            Direction of the score.

        Returns
        -------
        SizePathDisplay
            Not drawn: `plot` draws.
        """
        at, values = vector(sizes, "sizes"), floats(scores, "scores")
        values = values.reshape(len(values), -1)
        same_rows(at, values)
        if at.min() <= 0:
            raise ValueError(f"sizes has the value {at.min():g}; sizes are above 0.")
        found, counts = np.unique(at, return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                f"sizes has {found[counts.argmax()]:g} more than once; give one row of scores for "
                "each size."
            )
        order = np.argsort(at)
        lines = {
            str(key): vector(np.atleast_1d(np.asarray(value)), f"reference {key!r}")
            for key, value in (reference or {}).items()
        }
        return cls(at[order], values[order], lines, score_name, higher_is_better)

    @classmethod
    @checked(param=TEXT, score_name=TEXT)
    def from_search(
        cls, search: Any, *, param: str = "subnetwork_size", score_name: str = "score"
    ) -> Self:
        """Read the path off a fitted search over numbers, such as GridSearchCV.

        Parameters
        ----------
        search : fitted search
            With ``cv_results_``.
        param : str, default="subnetwork_size"
            Parameter with the sizes; in a pipeline with the name of its step before it.
        score_name : str, default="score"
            What the score is.

        Returns
        -------
        SizePathDisplay
            Not drawn: `plot` draws.
        """
        fitted(search, None)
        if not hasattr(search, "cv_results_"):
            raise TypeError(
                f"{type(search).__name__} has no cv_results_; give a fitted search, such as "
                "GridSearchCV. from_path takes what subnetwork_path returns."
            )
        results = search.cv_results_
        splits = [f"split{k}_test_score" for k in range(search.n_splits_)]
        if f"param_{param}" not in results:
            known = [key.removeprefix("param_") for key in results if key.startswith("param_")]
            raise ValueError(f"param={param!r} was not searched; choose one of {known}.")
        sizes = [float(size) for size in results[f"param_{param}"]]
        if len(set(sizes)) < len(sizes):
            raise ValueError(
                f"The search has several settings for one {param}; give from_scores those of one."
            )
        return cls.from_scores(
            sizes, np.column_stack([results[split] for split in splits]), score_name=score_name
        )

    @classmethod
    @checked(only=[Mapping, None], score_name=TEXT)
    def from_path(
        cls,
        path: Any,
        *,
        only: Mapping[str, Any] | None = None,
        score_name: str = "log score of held-out rows (nats)",
    ) -> Self:
        """Take the log scores that a path has for rows that its nets have not seen.

        Parameters
        ----------
        path : SubnetworkPath
            As ``subnetwork_path`` returns it, of an estimator with folds.
        only : mapping of str to object, default=None
            Which of several selections or prior precisions to draw, such as
            ``{"selection": "greedy"}``.
        score_name : str
            What the score is.

        Returns
        -------
        SizePathDisplay
            Not drawn: `plot` draws.
            Standard errors are over the rows, of differences row by row.
        """
        if not hasattr(path, "log_scores"):
            raise TypeError(
                f"{type(path).__name__} is no path; give what subnetwork_path returns. from_search "
                "takes a fitted search."
            )
        if path.log_scores is None:
            raise ValueError(
                "The path has no log scores, because its estimator has no folds; use cv=5, or "
                "score path.estimators and use from_scores."
            )
        # Texts are compared, for a selection may be an array.
        asked = {name: repr(value) for name, value in (only or {}).items()}
        settings = [
            {name: repr(value) for name, value in point.items() if name != "subnetwork_size"}
            for point in path.params
        ]
        kept = [k for k, setting in enumerate(settings) if asked.items() <= setting.items()]
        if len({tuple(settings[k].values()) for k in kept}) != 1:
            there = {name: sorted({one[name] for one in settings}) for name in settings[0]}
            raise ValueError(
                f"only={only!r} has to leave one setting for each size, and leaves {len(kept)} "
                f"fits; the path has {there}."
            )
        display = cls.from_scores(
            path.n_weights[kept], path.log_scores[kept], score_name=score_name
        )
        return replace(display, over="rows")

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each size: ``size``, ``mean``, ``standard_error`` and ``n_folds``, or
            ``n_rows`` where the scores are of rows.
        """
        return data_frame(
            self,
            {
                "size": self.sizes,
                "mean": self.mean_,
                "standard_error": self.standard_error_,
                f"n_{self.over}": self.scores.shape[1],
            },
        )

    @checked(name=NAME)
    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        name : str, default=None
            Name of the path in the legend.
        **kwargs : dict
            For the path.

        Returns
        -------
        self
        """
        n_folds = self.scores.shape[1]
        bars = self.standard_error_ if n_folds > 1 else None
        n_lines = 2 + (self.smallest_size_ < self.best_size_) + len(self.reference)
        with axes_of(self, ax, 2.6 + LINE * n_lines) as ax:
            drawn = {**look(0), "elinewidth": 0.7, "capsize": 2, "label": name or "subnetwork"}
            container = ax.errorbar(self.sizes, self.mean_, bars, **{**drawn, **kwargs})
            colour = container.lines[0].get_color()
            best = self.mean_[self.sizes == self.best_size_][0]
            ring = {"markersize": 8, "markerfacecolor": "none", "linestyle": "", "color": colour}
            ax.plot(self.best_size_, best, "o", label=f"best: {self.best_size_:g}", **ring)
            if self.smallest_size_ < self.best_size_:
                value = self.mean_[self.sizes == self.smallest_size_][0]
                text = f"smallest within 1 s.e.: {self.smallest_size_:g}"
                ax.plot(self.smallest_size_, value, "s", label=text, **ring)
            for index, (label, values) in enumerate(self.reference.items()):
                style = {"color": GREY, "linewidth": 0.9, "linestyle": LINES[1 + index % 5]}
                ax.axhline(values.mean(), label=label, **style)
            direction = "higher" if self.higher_is_better else "lower"
            unit = "share of" if self.sizes.max() <= 1 else "number of"
            ax.set(
                xscale="log",
                xlabel=f"{unit} weights with a posterior",
                ylabel=f"{self.score_name}\n({direction} is better)",
            )
            number_ticks(ax, self.sizes)
            ax.margins(y=0.15)
            one = self.over.removesuffix("s")
            title = f"mean ± 1 s.e. over {n_folds} {self.over}" if n_folds > 1 else f"one {one}"
            legend_under(ax, title=title)
            self.ax_, self.figure_ = ax, ax.figure
        return self


def _standard_error(values: FloatArray) -> FloatArray:
    """Give the standard error (L,) of the means over the folds of values (L, n_folds)."""
    n_folds = values.shape[1]
    if n_folds < 2:
        return np.full(len(values), np.nan)
    result: FloatArray = values.std(axis=1, ddof=1) / np.sqrt(n_folds)
    return result
