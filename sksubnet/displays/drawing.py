"""How all displays look: colours, print size, panels. Imports matplotlib only to draw."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support, check_pandas_support

from sksubnet.displays.arguments import FloatArray

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which people with any colour vision tell apart, darkest use first."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""Each model differs by its marker and line too, for print without colour."""

GREY = "0.45"
SEQUENTIAL = "cividis"
DIVERGING = "RdBu_r"

WIDTH = 3.35
"""Inches of a figure of its own: a column of a paper, 8.5 cm."""

LINE = 0.14
"""Inches of a line of the legend, in a figure of its own."""

LETTER = 0.55
"""Mean width of a letter, as a share of its size."""

ROUND = (1, 2, 5, 10)
"""Steps between numbers on a colour bar, times powers of ten."""

DIGIT = 0.64
"""Width of a digit, as a share of its size."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "figure.dpi": 150,
    "savefig.dpi": 300,
}


@contextlib.contextmanager
def axes_of(
    display: object, ax: Any, height: float = 2.7, width: float = WIDTH, n_columns: int = 1
) -> Iterator[Any]:
    """Axes to draw on: the given ones as they are, or those of a new figure at print size."""
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    if ax is not None:
        yield ax
        return
    with plt.rc_context(STYLE):
        _, ax = plt.subplots(1, n_columns, figsize=(width, height), layout="constrained")
        yield ax


def panel_below(ax: Any, height: float = 0.25, gap: float = 0.06) -> Any:
    """Axes under ``ax`` with the same x-axis, which moves there."""
    place = ax.get_subplotspec()
    if place is None:
        lower = ax.inset_axes([0, -height - gap, 1, height], sharex=ax)
    else:
        # A layout engine keeps room for subplots, and not for all labels of axes inside axes.
        parts = place.subgridspec(2, 1, height_ratios=[1, height], hspace=gap)
        ax.set_subplotspec(parts[0])
        lower = ax.figure.add_subplot(parts[1], sharex=ax)
    ax.tick_params(axis="x", labelbottom=False)
    lower.set_xlabel(ax.get_xlabel())
    ax.set_xlabel("")
    for side in ("top", "right"):
        lower.spines[side].set_visible(ax.spines[side].get_visible())
    lower.tick_params(labelsize=ax.yaxis.get_ticklabels()[0].get_fontsize())
    return lower


def legend_under(ax: Any, lowest: Any = None, title: str | None = None) -> None:
    """Legend of ``ax`` under it, or under the lowest of its panels, where no curve is.

    A figure without layout engine keeps no room there; the legend is inside then.
    """
    handles, labels = ax.get_legend_handles_labels()
    style = {"title": title, "alignment": "left"}
    below = ax if lowest is None else lowest
    if ax.figure.get_layout_engine() is None or below.get_subplotspec() is None:
        ax.legend(handles, labels, loc="best", **style)
        return
    points = 72 / ax.figure.dpi
    extent = ax.get_window_extent()
    # The label may reach beyond the axes as the numbers at their ends do.
    _wrap(below.xaxis.label, 1.15 * points * extent.width)
    place = {
        "loc": "upper left",
        "bbox_to_anchor": (0, 0),
        "bbox_transform": below.transAxes + _down(below),
        "borderaxespad": 0,
    }
    legend = _in_columns(below, handles, labels, extent.width, {**style, **place})
    if legend.get_window_extent().width > extent.width:
        # Narrow axes lose some of their width to numbers and labels, and texts to the handles.
        room = 0.8 * points * extent.width
        _wrap(legend.get_title(), room)
        for text in legend.get_texts():
            _wrap(text, room - 4 * text.get_fontsize())
    _wrap(ax.yaxis.label, points * (extent.height - legend.get_window_extent().height))


def _in_columns(
    where: Any, handles: Any, labels: Sequence[str], width: float, style: Mapping[str, Any]
) -> Any:
    """Legend of axes or a figure in as many columns as the width has room for."""
    for n_columns in range(len(labels), 1, -1):
        legend = where.legend(handles, labels, ncols=n_columns, **style)
        if legend.get_window_extent().width <= width:
            return legend
        legend.remove()
    return where.legend(handles, labels, **style)


def _wrap(text: Any, points: float) -> None:
    """Break each line of a text into lines of so many points, of about equal length."""
    most = max(12, int(points / (LETTER * text.get_fontsize())))
    lines = []
    for line in text.get_text().splitlines():
        n_lines = -(-len(line) // most)
        lines.append(textwrap.fill(line, min(most, len(line) // n_lines + 5)) if line else "")
    text.set_text("\n".join(lines))


def _down(ax: Any) -> Any:
    """Shift by the height of the labels of the x-axis, which is the same on axes of any size."""
    from matplotlib.transforms import ScaledTranslation

    tick, label = ax.xaxis.get_major_ticks()[0], ax.xaxis.label
    points = tick.get_pad() + 1.2 * tick.label1.get_fontsize() + ax.xaxis.labelpad
    points += 1.2 * label.get_fontsize() * (1.5 + label.get_text().count("\n"))
    return ScaledTranslation(0, -points / 72, ax.figure.dpi_scale_trans)


def colour_bar(ax: Any, contours: Any, label: str) -> None:
    """Colour bar with round numbers, and its label in lines that the height has room for."""
    from matplotlib.ticker import MaxNLocator

    height = ax.get_window_extent().height / ax.figure.dpi * 72
    bar = ax.figure.colorbar(contours, ax=ax, ticks=MaxNLocator(6, steps=ROUND), label=label)
    text = bar.ax.yaxis.label
    _wrap(text, height - 3 * text.get_fontsize())


def legend_of_figure(ax: Any) -> None:
    """Legend under the figure for all of its axes that show the same as ``ax``."""
    handles, labels = ax.get_legend_handles_labels()
    figure = ax.figure
    there = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    if labels in there:
        return
    if there or figure.get_layout_engine() is None:
        legend_under(ax)
        return
    _in_columns(figure, handles, labels, figure.bbox.width, {"loc": "outside lower center"})


def fewer_ticks(ax: Any) -> None:
    """Ticks of the x-axis that leave room for numbers of six digits."""
    ax.locator_params(axis="x", nbins=5)


def number_ticks(ax: Any, values: FloatArray) -> None:
    """Ticks of a logarithmic x-axis at values, with a number where there is room for it."""
    width = ax.get_window_extent().width / ax.figure.dpi * 72
    low, high = np.log(ax.get_xlim())
    digit = DIGIT * ax.xaxis.get_major_ticks()[0].label1.get_fontsize()
    texts, end = [], -np.inf
    for value in values:
        text = f"{value:g}"
        middle, half = width * (np.log(value) - low) / (high - low), digit * (len(text) + 1) / 2
        texts.append(text if middle - half > end else "")
        end = middle + half if texts[-1] else end
    ax.set_xticks(values, texts)
    ax.minorticks_off()


def look(index: int) -> dict[str, Any]:
    """Colour, marker and line of the model of that number."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
    }


def data_frame(display: object, data: Mapping[str, Any]) -> Any:
    """Give the columns as a pandas.DataFrame; pandas is imported only here."""
    return check_pandas_support(f"{type(display).__name__}.frame").DataFrame(data)


def long_frame(display: object, names: tuple[str, ...], tables: Sequence[Mapping[str, Any]]) -> Any:
    """Put the tables of several models under each other, the model's name in the first column."""
    pandas = check_pandas_support(f"{type(display).__name__}.frame")
    parts = [pandas.DataFrame(table) for table in tables]
    for name, part in zip(names, parts, strict=True):
        part.insert(0, "model", name)
    return pandas.concat(parts, ignore_index=True)


def number(value: float, digits: int = 2) -> str:
    """Give a number with as many digits that count, written as an axis writes it."""
    text = f"{value:#.{digits}g}"
    if "e" in text and 1e-5 <= abs(value) < 1e6:
        text = np.format_float_positional(float(text), trim="-")
    return text.rstrip(".")
