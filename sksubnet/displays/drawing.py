"""How all displays look: colours, print size, panels. Imports matplotlib only to draw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sklearn.utils._optional_dependencies import check_matplotlib_support, check_pandas_support

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
    """Give a number as a legend wants it, with as many digits that count."""
    return f"{value:#.{digits}g}".rstrip(".")
