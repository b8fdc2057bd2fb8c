"""Columns of a table as several arguments of a module's ``forward``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skorch.dataset import Dataset

Columns = int | str | slice | Sequence[int] | Sequence[str]


class NamedInputs(Dataset):
    """skorch data set that hands columns to the arguments of ``forward``, by their names.

    Parameters
    ----------
    X : array of shape (N, D)
        Rows.
    y : array or None, default=None
        Targets.
    columns : dict
        For each argument of ``forward`` its columns: positions, a slice, or names. A single
        position or name gives a tensor (N,), all others one (N, number of columns).
    names : sequence of D str or None, default=None
        Names of the columns of `X`, such as ``list(frame.columns)``; needed where `columns` has
        names, for an estimator hands on the numbers of a data frame alone.

    Raises
    ------
    ValueError
        If `columns` is no dict with an entry, or a name is not in `names`.

    Notes
    -----
    All columns arrive in the same floating type. Numbers of categories, up to 2²⁴ exact in float32,
    are made integers in ``forward``, as in the example.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skorch import NeuralNetRegressor
    >>> from torch import nn
    >>> from sksubnet import NamedInputs, SubnetLaplaceRegressor
    >>> class Prices(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.town = nn.Embedding(3, 2)
    ...         self.rest = nn.Linear(4, 1)
    ...     def forward(self, sizes, town):
    ...         return self.rest(torch.cat([sizes, self.town(town.long())], dim=1))
    >>> net = NeuralNetRegressor(
    ...     Prices,
    ...     dataset=NamedInputs,
    ...     dataset__columns={"sizes": ["rooms", "area"], "town": "town"},
    ...     dataset__names=["town", "rooms", "area"],
    ...     verbose=0,
    ... )
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([rng.integers(0, 3, 90), rng.normal(size=(90, 2))]).astype("float32")
    >>> reg = SubnetLaplaceRegressor(net, subnetwork_size=5, random_state=0)
    >>> reg = reg.fit(X, X[:, 0] + X[:, 1])
    >>> reg.predict(X[:2]).shape
    (2,)
    """

    def __init__(
        self,
        X: Any,
        y: Any = None,
        *,
        columns: Mapping[str, Columns] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(X, y)
        if not isinstance(columns, Mapping) or not columns:
            raise ValueError(
                f"columns={columns!r} must say which columns each argument of forward gets, such "
                "as dataset__columns={'numbers': [0, 1], 'town': 2}."
            )
        self.positions = {key: _positions(value, names) for key, value in columns.items()}

    def transform(self, X: Any, y: Any) -> tuple[dict[str, Any], Any]:
        """Return the columns of a row by argument, and its target."""
        X, y = super().transform(X, y)
        return {key: X[positions] for key, positions in self.positions.items()}, y


def _positions(columns: Columns, names: Sequence[str] | None) -> Any:
    """Positions, or a slice, of columns."""
    if isinstance(columns, int | slice):
        return columns
    if isinstance(columns, str):
        return _position(columns, names)
    return [_position(one, names) if isinstance(one, str) else one for one in columns]


def _position(name: str, names: Sequence[str] | None) -> int:
    known = [] if names is None else list(names)
    if name not in known:
        raise ValueError(
            f"The column {name!r} is not among the names {known}; give all columns of X in their "
            "order as dataset__names=list(frame.columns)."
        )
    return known.index(name)
