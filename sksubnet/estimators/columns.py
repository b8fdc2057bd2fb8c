"""The columns of a table as people bring it: numbers, or the levels of a category."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sksubnet.nets import UNSEEN

MOST_LEVELS = 500
"""Levels of a category; a column of more is refused."""

NUMBERS = (int, float, np.number, np.bool_)

MOST_DISTINCT = 0.5
"""Share of the rows whose texts may differ, where there are more than a few."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Which columns of a table are categories, and the levels of these.

    ``levels`` has the sorted levels of each category by its position; all others are numbers.
    """

    names: tuple[str, ...]
    levels: dict[int, tuple[Any, ...]]

    @classmethod
    def of(cls, X: Any, categorical_features: Any = None) -> Columns:
        """Learn the levels from a frame, or from an array whose columns of codes are named."""
        names = tuple(str(name) for name in _names(X))
        named = _positions(categorical_features, names)
        levels = {}
        for j, name in enumerate(names):
            column = _column(X, j)
            if j in named or not _is_number(column):
                values, declared = _values(column, name), j in named or _is_category(column)
                if declared or not all(isinstance(v, NUMBERS) for v in values if v is not None):
                    levels[j] = _levels(values, name, is_text=not declared)
        return cls(names, levels)

    @property
    def n_codes(self) -> dict[int, int]:
        """Number of levels of each category by its position."""
        return {j: len(levels) for j, levels in self.levels.items()}

    def read(self, X: Any) -> np.ndarray:
        """Give a table (N, F) as float64: numbers, and codes of levels; NaN where it is missing.

        A level that ``of`` has not seen has the code ``UNSEEN``.
        """
        if not self.levels and isinstance(X, np.ndarray) and X.dtype == np.float64:
            return X
        found = np.empty((X.shape[0], len(self.names)))
        for j, name in enumerate(self.names):
            column = _column(X, j)
            if j not in self.levels:
                found[:, j] = _numbers(column, name)
                continue
            codes = {level: code for code, level in enumerate(self.levels[j])}
            values = _values(column, name)
            found[:, j] = [np.nan if v is None else codes.get(v, UNSEEN) for v in values]
            unseen = np.flatnonzero(found[:, j] == UNSEEN)
            _check_kind([values[i] for i in unseen], self.levels[j], name)
        return found

    def check_form(self, X: Any) -> None:
        """Raise for rows without names where there are texts, which no array of numbers has."""
        texts = [self.names[j] for j, known in self.levels.items() if _are_texts(known)]
        if texts and not is_frame(X):
            raise TypeError(
                f"fit saw a DataFrame with categories, such as {texts[0]!r}, so pass one with the "
                f"same columns instead of a {type(X).__name__}."
            )


def is_frame(X: Any) -> bool:
    """Whether rows come as a pandas or polars DataFrame, or a pyarrow Table."""
    return hasattr(X, "columns") and hasattr(X, "shape") and not hasattr(X, "tocsr")


def _names(X: Any) -> Sequence[Any]:
    """Names of the columns; their numbers in an array."""
    if not is_frame(X):
        return range(X.shape[1])
    return list(getattr(X, "column_names", X.columns))


def _column(X: Any, j: int) -> Any:
    """Column j of a frame or an array."""
    if not is_frame(X):
        return X[:, j]
    if hasattr(X, "iloc"):
        return X.iloc[:, j]
    return X.column(j) if hasattr(X, "column_names") else X.to_series(j)


def _positions(chosen: Any, names: tuple[str, ...]) -> set[int]:
    """Positions of columns that are given by name, number or mask."""
    if chosen is None:
        return set()
    array = np.asarray(chosen)
    if array.dtype == bool and array.shape == (len(names),):
        return set(np.flatnonzero(array).tolist())
    found = set()
    for one in array.tolist():
        if one in names:
            found.add(names.index(one))
        elif isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(names):
            found.add(one)
        else:
            raise ValueError(
                f"categorical_features has {one!r}; use names of the {len(names)} columns, their "
                f"numbers from 0 to {len(names) - 1}, or a boolean mask of them."
            )
    return found


def _kind(column: Any) -> str:
    """Name of the type of a column, in lower case."""
    return str(getattr(column, "type", None) or column.dtype).lower()


def _is_number(column: Any) -> bool:
    """Whether a column has numbers or booleans by its type."""
    kind = getattr(column.dtype, "kind", None) if hasattr(column, "dtype") else None
    if kind is not None:
        return kind in "biuf"
    numbers = ("int", "uint", "float", "double", "half", "bool", "decimal", "null")
    return _kind(column).startswith(numbers)


def _is_category(column: Any) -> bool:
    """Whether a column is declared as a category."""
    return _kind(column).startswith(("category", "categorical", "enum", "dictionary"))


def _values(column: Any, name: str) -> list[Any]:
    """Values of a column, ``None`` where one is missing."""
    if hasattr(column, "isna"):
        given = zip(column.astype(object).tolist(), column.isna().tolist(), strict=True)
        values = [None if missing else value for value, missing in given]
    elif hasattr(column, "to_pylist"):
        values = column.to_pylist()
    else:
        values = column.to_list() if hasattr(column, "to_list") else column.tolist()
    for value in values:
        if not isinstance(value, Hashable):
            raise TypeError(
                f"Column {name!r} has values of the type {type(value).__name__}, and a cell is to "
                "be one number or one text. Make columns of what is in it, for example with "
                "MultiLabelBinarizer or pandas.json_normalize, or drop it."
            )
    return [None if v is None or v != v else v for v in values]


def _levels(values: list[Any], name: str, *, is_text: bool) -> tuple[Any, ...]:
    """Sorted levels of a category."""
    present = [v for v in values if v is not None]
    levels = set(present)
    most = max(20.0, MOST_DISTINCT * len(present)) if is_text else MOST_LEVELS
    if len(levels) > min(most, MOST_LEVELS):
        raise ValueError(
            f"Column {name!r} has {len(levels)} levels in {len(present)} rows; at most "
            f"{int(min(most, MOST_LEVELS))} are read as a category. Encode it first, for example "
            "with skrub.TableVectorizer or sklearn.preprocessing.TargetEncoder, or drop it."
        )
    try:
        return tuple(sorted(levels))
    except TypeError as error:
        kinds = sorted({type(level).__name__ for level in levels})
        raise TypeError(
            f"Column {name!r} mixes values of the types {', '.join(kinds)}; make them all text or "
            "all numbers."
        ) from error


def _are_texts(levels: tuple[Any, ...]) -> bool:
    """Whether levels are text; a category that was missing in every row has none."""
    return bool(levels) and isinstance(levels[0], str)


def _check_kind(unseen: list[Any], levels: tuple[Any, ...], name: str) -> None:
    """Raise for unseen text where the levels are numbers, or numbers where they are text.

    Such values are written otherwise, not new.
    """
    is_text = _are_texts(levels)
    for value in unseen if levels else ():
        if isinstance(value, str) != is_text:
            had, has = ("text", "numbers") if is_text else ("numbers", "text")
            raise TypeError(
                f"Column {name!r} had {had} such as {levels[0]!r} in fit and now has {has} such as "
                f"{value!r}; read it with the type that it had."
            )


def _numbers(column: Any, name: str) -> np.ndarray:
    """Column as float64 (N,), NaN where a number is missing."""
    if _is_number(column) and hasattr(column, "isna"):
        found: np.ndarray = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return found
    array = column.to_numpy() if hasattr(column, "to_numpy") else column
    if array.dtype.kind in "biuf":
        return np.asarray(array, dtype=np.float64)
    found = np.full(len(array), np.nan)
    for i, value in enumerate(_values(column, name)):
        try:
            found[i] = np.nan if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"Column {name!r} had numbers in fit and now has {value!r}; read it with the type "
                "that it had."
            ) from error
    return found
