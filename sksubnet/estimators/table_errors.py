"""What to do about a table that cannot be used, where scikit-learn only says that it cannot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

HINTS = {
    "could not convert string": (
        "{what} has text where numbers are needed ({error}). Encode categories first, for example "
        "with a ColumnTransformer and OneHotEncoder in a Pipeline."
    ),
    "not 'NAType'": (
        "{what} has missing values (pandas.NA) in a column of objects. Drop their rows, or fill "
        "them in, for example with SimpleImputer."
    ),
    "float() argument": (
        "{what} has values that are not numbers ({error}). Turn them into numbers first."
    ),
    "setting an array element with a sequence": (
        "{what} has cells with lists or arrays, or rows of different lengths ({error}). Give one "
        "number for each cell, and a column for each number."
    ),
    "converting to COO matrix": (
        "{what} has sparse columns ({error}), but dense data is needed; use X.sparse.to_dense()."
    ),
    "Unknown label type: unknown": (
        "y has labels that are neither numbers nor text ({error}) Turn them into text, for example "
        "with y.astype(str)."
    ),
    "while dim <= 2 is required": (
        "{error} The default net takes tables; pass a skorch net whose module takes such rows."
    ),
}
"""By a part of the message that scikit-learn, NumPy or pandas gives."""


HINTS_OF = {
    "y": {
        "could not convert string": (
            "y has text where a regressor needs numbers ({error}). Turn it into numbers, or take "
            "the classifier, such as SubnetLaplaceClassifier, if these are classes."
        ),
    },
    "sample_weight": {
        "could not convert string": (
            "sample_weight has text where numbers are needed ({error}). Turn it into numbers."
        ),
    },
}
"""Those of one argument alone."""


@contextlib.contextmanager
def hints(what: str) -> Iterator[None]:
    """Say what to do about an error in the check of ``what``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        for part, hint in (HINTS | HINTS_OF.get(what, {})).items():
            if part in str(error):
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(hint.format(what=what, error=error)) from error
        raise


def check_range(inputs: Tensor, array: np.ndarray) -> None:
    """Raise where finite float64 values of the array are too large for the dtype of the inputs."""
    if inputs.dtype != torch.float64 and not inputs.isfinite().all():
        raise ValueError(
            f"X has values up to {np.abs(array).max():.1e}, too large for {inputs.dtype}. Use "
            "dtype='float64', or scale that column."
        )
