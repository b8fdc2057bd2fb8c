"""A predictive distribution as a table: columns of numbers, a data frame, text and HTML."""

from __future__ import annotations

import html
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sksubnet.predictive.distribution import Predictive
    from sksubnet.predictive.transformed import AnyPredictive

ROWS_SHOWN = 10
"""Rows of a printed table; of longer ones the first and the last half as many."""

COLUMNS_SHOWN = 10

FloatArray = NDArray[np.float64]
Key = tuple[Hashable, ...]


def columns(
    predictive: AnyPredictive, names: Sequence[Hashable] | None, coverage: float
) -> dict[Key, FloatArray]:
    """Columns (N,) by key: one name, or target and name where there are several targets."""
    if predictive.likelihood.task == "regression":
        return _targets(predictive, names, coverage)
    return _classes(cast("Predictive", predictive), names)


def frame(predictive: AnyPredictive, index: Any, names: Any, coverage: float) -> Any:
    """Give the columns as a pandas.DataFrame, with two levels where there are several targets."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "to_frame needs pandas (pip install pandas). Without it, use the arrays of std(), "
            "interval(), probabilities() or entropy()."
        ) from error
    if index is not None and len(index) != len(predictive):
        raise ValueError(
            f"index has {len(index)} labels for {len(predictive)} rows; give one label a row."
        )
    data = columns(predictive, names, coverage)
    if len(next(iter(data))) == 1:
        labels = pd.Index([key[0] for key in data])
    else:
        labels = pd.MultiIndex.from_tuples(list(data), names=["target", "value"])
    return pd.DataFrame(np.column_stack(list(data.values())), index=index, columns=labels)


def text(
    predictive: AnyPredictive, shown: AnyPredictive, numbers: Sequence[int], title: str
) -> str:
    """Lines of a table: the rows ``shown``, whose positions in all are ``numbers``."""
    head, *body = _cells(shown, numbers)
    if len(numbers) < len(predictive):
        body.insert(len(body) // 2, ["..."] * len(head))
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (head, *body)
    ]
    return "\n".join([title, *lines])


def as_html(
    predictive: AnyPredictive, shown: AnyPredictive, numbers: Sequence[int], title: str
) -> str:
    """Give the same table in HTML."""
    head, *body = _cells(shown, numbers)
    if len(numbers) < len(predictive):
        body.insert(len(body) // 2, ["…"] * len(head))
    rows = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    for label, *cells in body:
        data = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        rows.append(f"<th>{html.escape(label)}</th>{data}")
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<p>{html.escape(title)}</p><table>{table}</table>"


def shown_rows(n_rows: int) -> list[int]:
    """Positions of the rows that a printed table has."""
    if n_rows <= ROWS_SHOWN:
        return list(range(n_rows))
    half = ROWS_SHOWN // 2
    return [*range(half), *range(n_rows - half, n_rows)]


def _cells(predictive: AnyPredictive, numbers: Sequence[int]) -> list[list[str]]:
    """Texts, header first, of every row of a predictive; ``numbers`` are its row labels."""
    data = columns(predictive, None, 0.9)
    kept = [key for key in data if len(key) == 1 or key[1] in ("mean", "std")]
    wide = len(kept) > COLUMNS_SHOWN
    # the last two columns of classes are the entropies, which no table should lose
    kept = [*kept[: COLUMNS_SHOWN - 2], *kept[-2:]] if wide else kept
    texts = [[f"{value:.4g}" for value in data[key]] for key in kept]
    head = ["", *(" ".join(map(str, key)) for key in kept)]
    if wide:
        head.insert(-2, "...")
        texts.insert(-2, ["..."] * len(numbers))
    return [head, *([str(label), *row] for label, *row in zip(numbers, *texts, strict=True))]


def _targets(
    predictive: AnyPredictive, names: Sequence[Hashable] | None, coverage: float
) -> dict[Key, FloatArray]:
    """Mean, standard deviations and interval of every target."""
    n_targets = predictive.mean.shape[1]
    names = _checked(names, [f"target {c}" for c in range(n_targets)], "targets")
    interval = predictive.interval(coverage)
    values = {
        "mean": predictive.mean.detach().double().cpu().numpy(),
        "std": predictive.std(),
        "std_aleatoric": predictive.std("aleatoric"),
        "std_epistemic": predictive.std("epistemic"),
        "lower": interval[..., 0],
        "upper": interval[..., 1],
    }
    if n_targets == 1:
        return {(value,): array[:, 0] for value, array in values.items()}
    return {
        (name, value): array[:, c]
        for c, name in enumerate(names)
        for value, array in values.items()
    }


def _classes(predictive: Predictive, names: Sequence[Hashable] | None) -> dict[Key, FloatArray]:
    """Probability of every class, entropy and mutual information."""
    probabilities = predictive.probabilities()
    names = _checked(names, range(probabilities.shape[1]), "classes")
    data: dict[Key, FloatArray] = {
        (f"p({name})",): column for name, column in zip(names, probabilities.T, strict=True)
    }
    data[("entropy",)] = predictive.entropy()
    data[("mutual_information",)] = predictive.mutual_information()
    return data


def _checked(
    names: Sequence[Hashable] | None, default: Sequence[Hashable], what: str
) -> Sequence[Hashable]:
    """Names, or the default ones; they must be as many."""
    if names is None:
        return default
    if len(names) != len(default):
        raise ValueError(
            f"names has {len(names)} entries for {len(default)} {what}; give one for each."
        )
    return names
