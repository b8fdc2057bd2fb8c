"""Increasing functions of the targets that a net is trained on instead of the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from sklearn.base import clone

from sksubnet.jacobian import SharedSetting
from sksubnet.predictive import Components, Log, Moments, Transform, quadrature_moments

N_CHECKED = 257
"""Points between the smallest and the largest training target at which a transform is looked at."""

INVERTED = 1e-6
"""Share of the training range by which what was transformed and back may miss."""

N_DOUBLINGS, N_BISECTIONS = 40, 60
"""Steps outwards, from the training range on, and steps back to the end of the values."""

RELATIVE_STEP = float(np.cbrt(np.finfo(np.float64).eps))
"""Step of a central difference, at which its rounding is as large as its bias."""

SMALLEST_STEP = 1e-4
"""Share of the training range that scales the step at least, near targets of 0."""

N_WIDER_STEPS = 6
"""Steps of ten times the last one that are tried where a transformer is flat."""

POLE, STEEP = 1e-3, 10.0
"""An inverse that grows so many times in this last share of its values has a pole there."""

Function = Callable[[np.ndarray], np.ndarray]


@contextmanager
def _quiet() -> Iterator[None]:
    with catch_warnings():
        simplefilter("ignore")
        yield


QUIET = SharedSetting(_quiet)
"""Without warnings of values outside the domain, which a search for its end meets."""


@dataclass(frozen=True, eq=False)
class FittedColumn:
    """A transformer of scikit-learn's, fitted to one target.

    Attributes
    ----------
    transformer : transformer
        The fitted copy.
    targets : tuple of two floats
        Smallest and largest training target.
    values : tuple of two floats
        Ends of the values up to which transform and inverse undo each other; those of the training
        targets lie within. The square root of a predicted -1 is no target.
    bounds : tuple of two floats
        Ends of the targets that moments count. Where the inverse has a pole the mean of the target
        does not exist, and these are one training range beyond the training targets.
    """

    transformer: Any
    targets: tuple[float, float]
    values: tuple[float, float]
    bounds: tuple[float, float] = (-np.inf, np.inf)

    def forward(self, y: np.ndarray) -> np.ndarray:
        """g(y), of any shape; infinite beyond the domain."""
        z = self._transform(y)
        low, high = self.targets
        beyond = (y < low) | (y > high)
        if beyond.any():
            known = self._undoes(self.inverse, z[beyond], y[beyond], high - low)
            z[beyond] = np.where(known, z[beyond], np.where(y[beyond] < low, -np.inf, np.inf))
        return z

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Targets, of any shape; of values that g does not take the nearest that it takes."""
        return self._inverse(np.clip(z, *self.values))

    def bounded_inverse(self, z: np.ndarray) -> np.ndarray:
        """Targets of which there is a mean."""
        return np.clip(self.inverse(z), *self.bounds)

    def within_limits(self) -> FittedColumn:
        """Follow the values from those of the training targets to where the inverse ends."""
        (low, high), (z_low, z_high) = self.targets, self.values
        with QUIET:
            spread = z_high - z_low or 1.0
            ends = self._limit(z_low, -spread), self._limit(z_high, spread)
            found = replace(self, values=ends)
            bounds = (
                2 * low - high if found._has_pole(ends[0], z_low) else -np.inf,
                2 * high - low if found._has_pole(ends[1], z_high) else np.inf,
            )
        return replace(found, bounds=bounds)

    def _has_pole(self, end: float, start: float) -> bool:
        """Whether the inverse goes up or down without limit just before the end of its values."""
        low, high = self.targets
        before, last = self._inverse(np.array([end + POLE * (start - end), end]))
        size = high - low + max(abs(high), abs(low))
        return bool(abs(last) > STEEP * max(abs(before), size))

    def log_derivative(self, y: np.ndarray) -> np.ndarray:
        """Log g'(y), by central differences, or one-sided ones at the ends of the domain."""
        low, high = self.targets
        spread = high - low if high > low else max(abs(high), 1.0)
        step = RELATIVE_STEP * np.clip(np.abs(y), SMALLEST_STEP * spread, spread)
        slope = self._slope(y, step)
        # A transformer may take all targets as one that are as near to its ends as this.
        for _ in range(N_WIDER_STEPS):
            flat = (slope == 0) & (y >= low) & (y <= high)
            if not flat.any():
                break
            step = np.where(flat, 10 * step, step)
            slope[flat] = self._slope(y[flat], step[flat])
        with np.errstate(divide="ignore"):
            result: np.ndarray = np.log(slope)
        return result

    def _slope(self, y: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Slope of g over a step to both sides, or to the one on which there is a value."""
        z, ends = self._transform(y), []
        for at in (y - step, y + step):
            value = self._transform(at)
            known = np.isfinite(value)
            ends.append((np.where(known, at, y), np.where(known, value, z)))
        (below, z_below), (above, z_above) = ends
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.maximum(z_above - z_below, 0) / (above - below)
        return np.nan_to_num(slope, nan=0.0, posinf=0.0)

    def _limit(self, known: float, outwards: float) -> float:
        """Last value from a known one on, in steps from the one ``outwards``, that has a target."""
        near, spread = known, abs(outwards)
        for doublings in range(N_DOUBLINGS):
            tried = near + outwards * 2.0**doublings
            if not self._is_value(tried, known, spread):
                break
            known = tried
        else:
            return known
        for _ in range(N_BISECTIONS):
            middle = (known + tried) / 2
            if self._is_value(middle, known, spread):
                known = middle
            else:
                tried = middle
        return known

    def _is_value(self, z: float, known: float, spread: float) -> bool:
        """Whether g takes a value, at a target on the same side as the value is of a known one."""
        at = np.array([z, known])
        y = self._inverse(at)
        undone = self._undoes(self._transform, y[:1], at[:1], spread)
        return bool(undone[0] and (y[0] - y[1]) * (z - known) >= 0)

    @staticmethod
    def _undoes(
        function: Function, images: np.ndarray, values: np.ndarray, spread: float
    ) -> np.ndarray:
        """Whether the function takes images (n,) back to the values that they are of."""
        finite = np.isfinite(images)
        back = np.full(images.shape, np.nan)
        if finite.any():
            back[finite] = function(images[finite])
        tolerance = INVERTED * np.maximum(spread, np.abs(values))
        with np.errstate(invalid="ignore"):
            undone: np.ndarray = np.abs(back - values) <= tolerance
        return undone

    def _transform(self, y: np.ndarray) -> np.ndarray:
        return _called(self.transformer.transform, y)

    def _inverse(self, z: np.ndarray) -> np.ndarray:
        return _called(self.transformer.inverse_transform, z)


def _called(method: Function, values: np.ndarray) -> np.ndarray:
    """Values of any shape through a transformer of one column; ``nan`` where it raises."""
    with np.errstate(all="ignore"):
        try:
            result = np.asarray(method(values.reshape(-1, 1)), dtype=np.float64)
        except ValueError:
            # Some refuse a whole column for one value that is not in their domain.
            if values.size == 1:
                return np.full(values.shape, np.nan)
            halves = np.array_split(values.ravel(), 2)
            result = np.concatenate([_called(method, half) for half in halves])
    return result.reshape(values.shape).copy()


@dataclass(frozen=True, eq=False)
class ByColumn:
    """A fitted transformer for each target; arrays are (N, C, ...)."""

    columns: tuple[FittedColumn, ...]

    def forward(self, y: np.ndarray) -> np.ndarray:
        """g(y)."""
        return self._each("forward", y)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Targets."""
        return self._each("inverse", z)

    def log_derivative(self, y: np.ndarray) -> np.ndarray:
        """Log g'(y)."""
        return self._each("log_derivative", y)

    def moments(self, components: Components) -> Moments:
        """Moments of the target, by quadrature."""
        return quadrature_moments(lambda z: self._each("bounded_inverse", z), components)

    def _each(self, method: str, values: np.ndarray) -> np.ndarray:
        parts = [getattr(column, method)(values[:, c]) for c, column in enumerate(self.columns)]
        return np.stack(parts, axis=1)


def fit_target_transform(target_transform: Any, y: np.ndarray) -> Transform | None:
    """Fit to training targets (N, C), each column by itself; refuse what does not increase."""
    if target_transform is None:
        return None
    if isinstance(target_transform, str):
        n_outside = int((y <= 0).any(axis=1).sum())
        if n_outside:
            raise ValueError(
                f"target_transform='log' needs targets above 0, but {n_outside} of the {len(y)} "
                f"in y are not; the lowest is {y.min():g}. For counts and other targets from 0 on "
                "use FunctionTransformer(np.log1p, np.expm1), or PowerTransformer() for any."
            )
        return Log()
    return ByColumn(tuple(_fitted_column(target_transform, column) for column in y.T))


def _fitted_column(target_transform: Any, y: np.ndarray) -> FittedColumn:
    """Fit a copy to the targets (N,) and look at it between the smallest and the largest."""
    transformer = clone(target_transform).fit(y.reshape(-1, 1))
    targets = np.unique(y)
    z = np.asarray(transformer.transform(targets.reshape(-1, 1)), dtype=np.float64)
    if z.shape != (len(targets), 1):
        raise ValueError(
            f"{_named(target_transform)} makes {z.shape} of a target of shape "
            f"{(len(targets), 1)}; it must give one number for each."
        )
    if not np.isfinite(z).all():
        raise ValueError(
            f"{_named(target_transform)} gives {int((~np.isfinite(z)).sum())} of the "
            f"{len(targets)} different targets, from {targets[0]:g} to {targets[-1]:g}, no finite "
            "value; use one that is defined for all of them."
        )
    z = z[:, 0]
    grid = np.linspace(targets[0], targets[-1], N_CHECKED)
    between = np.asarray(transformer.transform(grid.reshape(-1, 1)), dtype=np.float64)[:, 0]
    rounding = 8 * np.finfo(np.float64).eps * max(np.abs(z).max(), np.finfo(np.float64).tiny)
    steps = np.concatenate([np.diff(z), np.diff(between)])
    if (steps < -rounding).any():
        falls = "decreases" if (steps <= rounding).all() else "both rises and falls"
        raise ValueError(
            f"{_named(target_transform)} {falls} between the targets {targets[0]:g} and "
            f"{targets[-1]:g}; it must increase. Change the sign of one that decreases, as in "
            "FunctionTransformer(lambda y: -1 / y, lambda z: -1 / z)."
        )
    ends = (float(targets[0]), float(targets[-1]))
    column = FittedColumn(transformer, ends, (float(z[0]), float(z[-1])))
    back = _called(transformer.inverse_transform, z)
    if not (np.abs(back - targets) <= INVERTED * max(ends[1] - ends[0], abs(ends[1]))).all():
        worst = int(np.nan_to_num(np.abs(back - targets), nan=np.inf).argmax())
        raise ValueError(
            f"inverse_transform of {_named(target_transform)} does not undo its transform: of the "
            f"target {targets[worst]:g} it makes {back[worst]:g}. Give it both directions, as in "
            "FunctionTransformer(np.log1p, np.expm1); a QuantileTransformer of many rows needs "
            "subsample=None."
        )
    return column.within_limits()


def _named(target_transform: Any) -> str:
    return f"target_transform={target_transform!r}"
