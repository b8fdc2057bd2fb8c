"""Which weights of a net are random: a map of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sksubnet.displays.arguments import INDEX, NAME, TEXT, checked, one_of
from sksubnet.displays.drawing import COLOURS, axes_of, data_frame
from sksubnet.displays.responses import final_estimator, fitted

MAPS_ACROSS = 3
"""Maps side by side in a picture of a column's width, and at most twice as many in all."""

NAME_LENGTH = 18
CELLS = 64
"""Most rows and columns of a layer's map; of larger layers a cell is a block of weights."""


@dataclass(frozen=True, eq=False)
class LayerMap:
    """One parameter tensor and which of its weights are selected.

    Attributes
    ----------
    name : str
        Name of the tensor in the net.
    mask : ndarray of bool
        The selected weights, in the shape of the tensor, or flat where that is not known.
    """

    name: str
    mask: NDArray[np.bool_]

    def cells(self) -> NDArray[np.float64]:
        """Share of selected weights in every cell of a matrix of at most CELLS x CELLS blocks."""
        matrix = self.mask.reshape(len(self.mask), -1) if self.mask.ndim > 1 else self.mask[None]
        return _blocks(_blocks(matrix.astype(np.float64)).T).T


@dataclass(eq=False, repr=False)
class SubnetworkDisplay:
    """Map of a net: the weights with a posterior, layer by layer.

    Parameters
    ----------
    layers : tuple of LayerMap
        The parameter tensors in the order of the net.
    name : str, default=""
        Name of the model.

    Attributes
    ----------
    ax_, axes_, figure_ : matplotlib Axes, list of Axes and Figure
        Where `plot` has drawn, and the maps inside it.

    Examples
    --------
    >>> from sksubnet.displays import SubnetworkDisplay
    >>> display = SubnetworkDisplay.from_indices(
    ...     [0, 1, 7], {"hidden.weight": (3, 2), "out.weight": (1, 3)}
    ... )
    >>> [int(layer.mask.sum()) for layer in display.layers]
    [2, 1]
    """

    layers: tuple[LayerMap, ...]
    name: str = ""
    ax_: Any = field(default=None, init=False)
    axes_: list[Any] = field(default_factory=list, init=False)
    figure_: Any = field(default=None, init=False)

    @classmethod
    @checked(fold=INDEX, name=TEXT)
    def from_estimator(cls, estimator: Any, *, fold: int = 0, name: str = "") -> Self:
        """Read the map off a fitted estimator.

        Parameters
        ----------
        estimator : fitted SubnetLaplaceClassifier or SubnetLaplaceRegressor
            Alone, or the last step of a pipeline, or found by a search.
        fold : int, default=0
            Which of the nets, where there is one for each fold.
        name : str, default=""
            Title.

        Returns
        -------
        SubnetworkDisplay
            Not drawn: `plot` draws.
        """
        fitted(estimator, name)
        final = final_estimator(estimator)
        folds = getattr(final, "folds_", [])
        if not folds or not hasattr(folds[0], "subnetwork"):
            raise TypeError(
                f"{type(final).__name__} has no subnetwork; give a fitted SubnetLaplaceClassifier "
                "or SubnetLaplaceRegressor."
            )
        if fold >= len(folds):
            nets = "one net" if len(folds) == 1 else f"{len(folds)} nets"
            raise ValueError(f"fold={fold} is not there; the fit has {nets}, numbered from 0.")
        indices = folds[fold].subnetwork.indices
        named = folds[fold].net.module_.named_parameters()
        shapes = {layer: tuple(parameter.shape) for layer, parameter in named}
        return cls.from_indices(indices, shapes, name=name)

    @classmethod
    @checked(shapes=[dict], name=TEXT)
    def from_indices(
        cls, indices: ArrayLike, shapes: dict[str, tuple[int, ...]], *, name: str = ""
    ) -> Self:
        """Build the map from positions in the vector of all weights.

        Parameters
        ----------
        indices : array-like of int of shape (S,)
            Selected weights, as ``subnetwork_.indices`` has them.
        shapes : dict of str to tuple of int
            Shape of every parameter tensor, in the order of the vector.
        name : str, default=""
            Title.

        Returns
        -------
        SubnetworkDisplay
            Not drawn: `plot` draws.
        """
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        given = np.asarray(indices)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(
                f"indices are an array of {given.dtype} of shape {given.shape}; give whole numbers "
                "in one dimension."
            )
        chosen = given.astype(np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < sum(sizes):
            raise ValueError(
                f"indices run from {chosen.min()} to {chosen.max()}, but the shapes have "
                f"{sum(sizes)} weights, numbered from 0."
            )
        mask = np.zeros(sum(sizes), dtype=bool)
        mask[chosen] = True
        parts = np.split(mask, np.cumsum(sizes)[:-1])
        layers = [
            LayerMap(layer, part.reshape(shape or (1,)))
            for (layer, shape), part in zip(shapes.items(), parts, strict=True)
        ]
        return cls(tuple(layers), name)

    def frame(self) -> Any:
        """Give the numbers of the picture.

        Returns
        -------
        pandas.DataFrame
            A row for each parameter tensor: ``parameter``, ``shape``, ``selected``, ``of`` and
            ``share``.
        """
        selected = [int(layer.mask.sum()) for layer in self.layers]
        sizes = [layer.mask.size for layer in self.layers]
        return data_frame(
            self,
            {
                "parameter": [layer.name for layer in self.layers],
                "shape": [layer.mask.shape for layer in self.layers],
                "selected": selected,
                "of": sizes,
                "share": np.divide(selected, sizes),
            },
        )

    @checked(name=NAME, kind=one_of("map", "share"))
    def plot(
        self, ax: Any = None, *, name: str | None = None, kind: str = "map", **kwargs: Any
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where; a new figure of a column's width if ``None``.
        name : str, default=None
            Title; the name of the display if ``None``.
        kind : {"map", "share"}, default="map"
            For each tensor that has selected weights a matrix, outputs down and inputs across, or
            for every tensor a bar.
        **kwargs : dict
            For the matrices (``imshow``), or the bars (``barh``).

        Returns
        -------
        self
        """
        title = self.name if name is None else name
        drawn = self._most()
        height = 0.17 * len(self.layers) + 0.8
        if kind == "map":
            height = 2.4 if len(drawn) <= MAPS_ACROSS else 4.2
        with axes_of(self, ax, height) as ax:
            if kind == "share":
                self._draw_shares(ax, title, kwargs)
            else:
                self.axes_ = self._draw_maps(ax, drawn, title, kwargs)
            self.ax_, self.figure_ = ax, ax.figure
        return self

    def _most(self) -> list[LayerMap]:
        """Tensors whose maps are drawn: with selected weights, and of many those with most."""
        most = sorted(self.layers, key=lambda layer: -int(layer.mask.sum()))[: 2 * MAPS_ACROSS]
        return [layer for layer in self.layers if layer in most and layer.mask.any()]

    def _counts(self) -> str:
        """How many weights in all."""
        selected = sum(int(layer.mask.sum()) for layer in self.layers)
        size = sum(layer.mask.size for layer in self.layers)
        return f"{selected} of {size} weights ({selected / size:.1%})"

    def _draw_shares(self, ax: Any, title: str, kwargs: dict[str, Any]) -> None:
        """One bar for every parameter tensor, with its counts."""
        selected = [int(layer.mask.sum()) for layer in self.layers]
        sizes = [layer.mask.size for layer in self.layers]
        share = np.divide(selected, sizes)
        bars = ax.barh(
            [layer.name for layer in self.layers], share, **{"color": COLOURS[0], **kwargs}
        )
        counts = [f"{few} of {many}" for few, many in zip(selected, sizes, strict=True)]
        ax.bar_label(bars, counts, padding=2, fontsize="small")
        ax.invert_yaxis()
        ax.set(xlabel="share of the tensor's weights selected", xlim=(0, 1.3))
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        ax.set_title("\n".join(filter(None, [title, self._counts()])))

    def _draw_maps(
        self, ax: Any, shown: Sequence[LayerMap], title: str, kwargs: dict[str, Any]
    ) -> list[Any]:
        """One matrix for every tensor, side by side."""
        ax.set_axis_off()
        lines = [title, f"{self._counts()}; dark: selected"]
        with_some = sum(layer.mask.any() for layer in self.layers)
        if with_some > len(shown):
            lines.append(f"{len(shown)} of the {with_some} tensors that have some")
        elif len(self.layers) > len(shown):
            lines.append(f"no weight of the {len(self.layers) - len(shown)} other tensors")
        ax.set_title("\n".join(filter(None, lines)))
        n_across = min(MAPS_ACROSS, len(shown))
        n_down = -(-len(shown) // MAPS_ACROSS)
        gap, height = 0.13, 1 / n_down
        width = (1 - gap * (n_across - 1)) / max(n_across, 1)
        drawn = []
        for place, layer in enumerate(shown):
            matrix = layer.cells()
            down, across = divmod(place, n_across)
            bottom = 1 - (down + 1) * height + 0.12 * (n_down - 1)
            bounds = [across * (width + gap), bottom, width, height - 0.14 * n_down**0.5]
            inner = ax.inset_axes(bounds)
            options = {"cmap": "Blues", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
            inner.imshow(matrix, aspect="auto", **{**options, **kwargs})
            inner.spines[:].set_visible(True)
            outputs = layer.mask.shape[0] if layer.mask.ndim > 1 else 1
            inputs = layer.mask.size // outputs
            _number_ends(inner.xaxis, matrix.shape[1], inputs)
            _number_ends(inner.yaxis, matrix.shape[0], outputs)
            selected = f"{int(layer.mask.sum())} of {layer.mask.size}"
            inner.set_title(f"{_short(layer.name)}\n{selected}", fontsize="small")
            inner.set_xlabel("inputs", fontsize="small")
            if not across:
                inner.set_ylabel("outputs", fontsize="small")
            drawn.append(inner)
        return drawn


def _number_ends(axis: Any, n_cells: int, size: int) -> None:
    """Ticks at the first and the last cell, with the label between them."""
    if n_cells == 1:
        axis.set_ticks([0], ["1"])
        return
    axis.set_ticks([0, n_cells - 1], ["1", str(size)])
    axis.labelpad = -4


def _short(name: str) -> str:
    """Give the end of a long name, where names of one net differ."""
    return name if len(name) <= NAME_LENGTH else f"…{name[-NAME_LENGTH + 1 :]}"


def _blocks(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over blocks of rows, so that at most CELLS remain."""
    if len(matrix) <= CELLS:
        return matrix
    edges = np.linspace(0, len(matrix), CELLS + 1).astype(int)
    sums = np.add.reduceat(matrix, edges[:-1], axis=0)
    result: NDArray[np.float64] = sums / np.diff(edges)[:, None]
    return result
