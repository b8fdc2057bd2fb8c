"""What a table holds: numbers, or what NumPy would turn into numbers without a word.

Dates and durations become counts of nanoseconds, missing ones a number near -9.2e18, and masked
values what lies under the mask.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor

ADVICE = {
    "dates": "days since a date, or the hour and the month",
    "times of day": "hours",
    "durations": "days or hours",
    "periods": "the year and the month",
}
"""What to turn each kind into, by its name in a message."""

DTYPES = {
    "duration": "durations",
    "timedelta": "durations",
    "period": "periods",
    "date": "dates",
    "timestamp": "dates",
    "time": "times of day",
}
"""By the first letters of the dtype's name in NumPy, pandas, polars and pyarrow, in this order."""

TYPES: tuple[tuple[type, str], ...] = (
    (datetime.timedelta, "durations"),
    (np.timedelta64, "durations"),
    (datetime.date, "dates"),
    (np.datetime64, "dates"),
    (datetime.time, "times of day"),
)
"""By the type of a cell, where the dtype says nothing."""


def plain(values: Any, what: str) -> Any:
    """Return a table, targets or weights as scikit-learn can check them, or raise.

    Tensors become arrays, and a mask without a masked value goes. Dates, durations and masked
    values are refused, wherever they are.
    """
    if issparse(values):
        return values  # which scikit-learn refuses, where it has to
    if isinstance(values, str | bytes):
        raise TypeError(
            f"{what} is a text, {values!r:.80}, not a table. Read it first, for example with "
            "pandas.read_csv."
        )
    if isinstance(values, Mapping):
        raise TypeError(
            f"{what} is a {type(values).__name__}, not a table. Give a DataFrame or an array with "
            "a row for each sample; a net with several inputs gets its columns by name "
            "with dataset=sksubnet.NamedInputs."
        )
    if isinstance(values, list | tuple) and len(values) and isinstance(values[0], Tensor):
        values = torch.stack(list(values))
    if isinstance(values, Tensor):
        return _array_of(values, what)
    if getattr(getattr(values, "dtype", None), "names", None):
        raise TypeError(
            f"{what} is a structured array with the fields {values.dtype.names}. Give an array of "
            "numbers, for example by numpy.lib.recfunctions.structured_to_unstructured."
        )
    if isinstance(values, np.ma.MaskedArray):
        n_masked = int(np.ma.count_masked(values))
        if n_masked:
            raise ValueError(
                f"{what} has {n_masked} masked values, which are missing. Drop their rows, or fill "
                "them in, for example with SimpleImputer on filled(numpy.nan)."
            )
        return values.data
    for name, column in _columns(values):
        _check_kind(name, column, what)
    return values


def plain_targets(y: Any) -> Any:
    """Return targets or labels as scikit-learn can check them, or raise; also if one is missing."""
    if y is None:
        return None  # of which scikit-learn tells
    y = plain(y, "y")
    cells = y if isinstance(y, np.ndarray) else _as_array(y)
    if cells is not None and cells.dtype == object:
        missing = [cell for cell in cells.ravel() if _is_missing(cell)]
        if missing:
            raise ValueError(
                f"Input y contains NaN: {len(missing)} values are missing ({missing[0]!r}). Drop "
                "their rows; for a classifier, they may also be a class, such as 'unknown'."
            )
    return y


def _array_of(tensor: Tensor, what: str) -> np.ndarray:
    """Return the numbers of a tensor, whatever it remembers and wherever it is."""
    if tensor.layout != torch.strided:
        raise TypeError(f"{what} is a sparse tensor, but dense data is needed; use to_dense().")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _columns(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield each column of a data frame with its name, or the values as they are."""
    if hasattr(values, "get_columns"):  # polars
        yield from ((column.name, column) for column in values.get_columns())
    elif hasattr(values, "column_names"):  # pyarrow
        yield from zip(values.column_names, values.columns, strict=True)
    elif hasattr(values, "items") and getattr(values, "ndim", 1) == 2:  # pandas
        yield from values.items()
    elif hasattr(values, "dtype") or hasattr(values, "type"):
        yield "", values
    elif isinstance(values, list | tuple):
        array = _as_array(values)
        if array is not None:
            yield "", array


def _check_kind(name: Any, column: Any, what: str) -> None:
    """Raise if the values of a column are no numbers, but NumPy may make some of them."""
    dtype = getattr(column, "dtype", None) or getattr(column, "type", None)
    dtype = getattr(getattr(dtype, "categories", None), "dtype", dtype)  # of categories
    if isinstance(dtype, np.dtype):
        dtype = dtype.newbyteorder("=")  # for the same name on every machine
    text = str(dtype).lower()
    kind = next((kind for start, kind in DTYPES.items() if text.startswith(start)), None)
    if text.startswith("object"):
        given = {type(cell) for cell in np.asarray(column, dtype=object).ravel()}
        found = [(cell, kind) for cell in given for known, kind in TYPES if issubclass(cell, known)]
        if found:
            cell, kind = min(found, key=str)
            text = f"{cell.__module__}.{cell.__name__}"
    if kind is None:
        return
    labels = "; as labels of classes, turn them into text" if what == "y" else ""
    where = f" in column {name!r}" if name != "" else ""
    raise TypeError(
        f"{what} has {kind}{where} ({text}), which are not numbers. Turn them into numbers first, "
        f"such as {ADVICE[kind]}, and fill in or drop missing ones{labels}."
    )


def _as_array(values: Any) -> np.ndarray | None:
    """Return lists or a series as an array, ``None`` where they are no table."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError):
        return None


def _is_missing(cell: Any) -> bool:
    """Whether a cell of an array of objects stands for a missing value."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float | np.floating) and cell != cell
