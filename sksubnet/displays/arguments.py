"""What displays take: ranges of numbers, options and arrays, checked where a display is entered."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

P = ParamSpec("P")
R = TypeVar("R")

FloatArray = NDArray[np.float64]

COUNT = [Interval(Integral, 1, None, closed="left")]
GRID = [Interval(Integral, 2, None, closed="left")]
INDEX = [Interval(Integral, 0, None, closed="left")]
SHARE = [Interval(Real, 0, 1, closed="neither")]
NOT_NEGATIVE = [Interval(Real, 0, None, closed="left")]
POSITIVE = [Interval(Real, 0, None, closed="neither")]
WHOLE = [Integral]
SEED = [Interval(Integral, 0, None, closed="left"), None]
SWITCH = ["boolean"]
TEXT = [str]
NAME = [str, None]
COMPONENT = [StrOptions({"total", "aleatoric", "epistemic"})]

ROUNDING = 1e-3
"""What the probabilities of a row may differ from a sum of 1, for nets of half precision."""


def one_of(*names: str) -> list[Any]:
    """Constraint of an option."""
    return [StrOptions(set(names))]


def checked(**allowed: list[Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Refuse arguments that are not allowed; those without a constraint pass."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        name = function.__qualname__

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if "ax" in kwargs and "ax" not in signature.parameters:
                raise TypeError(f"{name} computes and takes no ax; draw with {name}(...).plot(ax).")
            given = signature.bind(*args, **kwargs).arguments
            constrained = {key: given[key] for key in allowed if key in given}
            validate_parameter_constraints(allowed, constrained, caller_name=name)
            return function(*args, **kwargs)

        return call

    return decorate


def floats(values: ArrayLike, name: str = "") -> FloatArray:
    """Finite float64 array of one or two dimensions."""
    result: FloatArray = check_array(values, ensure_2d=False, dtype=np.float64, input_name=name)
    return result


def vector(values: ArrayLike, name: str) -> FloatArray:
    """Finite float64 array (N,), from (N,) or (N, 1)."""
    array = floats(values, name)
    if array.size != len(array):
        raise ValueError(f"{name} has shape {array.shape}; give one number for each row.")
    return array.reshape(-1)


def levels_of(levels: ArrayLike) -> FloatArray:
    """Levels (L,), each above 0 and below 1."""
    at = vector(np.atleast_1d(np.asarray(levels, dtype=np.float64)), "levels")
    outside = at[(at <= 0) | (at >= 1)]
    if len(outside):
        raise ValueError(
            f"levels has the value {outside[0]:g}; levels are above 0 and below 1, such as 0.9."
        )
    return at


def probability_array(values: ArrayLike, name: str) -> FloatArray:
    """Probabilities (N,), or (N, K) that sum to 1 in each row."""
    p = floats(values, name)
    if p.min() < 0 or p.max() > 1:
        worst = p.min() if p.min() < 0 else p.max()
        raise ValueError(
            f"{name} has the value {worst:g}, outside [0, 1]; give probabilities, not logits."
        )
    if p.ndim == 2:
        sums = p.sum(axis=1)
        off = np.abs(sums - 1).argmax()
        if abs(sums[off] - 1) > ROUNDING:
            raise ValueError(
                f"{name} sums to {sums[off]:g} in row {off}; the probabilities of all classes sum "
                "to 1."
            )
    return p


def labels_of(y: ArrayLike, classes: NDArray[Any]) -> NDArray[Any]:
    """Labels (N,), some of which are among the classes."""
    labels: NDArray[Any] = column_or_1d(
        check_array(y, ensure_2d=False, dtype=None, input_name="y"), input_name="y"
    )
    if not any((labels == known).any() for known in classes):
        raise ValueError(
            f"y begins with {labels.tolist()[0]!r} and has none of the classes {classes.tolist()}."
        )
    return labels


def same_rows(*arrays: Any) -> None:
    """Refuse arrays of different length."""
    check_consistent_length(*arrays)
