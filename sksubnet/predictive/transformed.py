"""The predictive distribution of targets of which a net predicts a monotone function.

A net that predicts z = g(y) says everything about y: quantiles, intervals and draws go through the
inverse, densities through the derivative, means and standard deviations through quadrature.

Shape letters: M components, N rows, C targets, K nodes, Q levels of quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sksubnet.predictive import table
from sksubnet.predictive.distribution import Predictive, _check_component
from sksubnet.predictive.likelihood import Likelihood
from sksubnet.predictive.quadrature import row_chunks

FloatArray = NDArray[np.float64]

LARGEST = float(np.finfo(np.float64).max)

FINE, COARSE = 0.1, 0.5
"""Distances of nodes in standard deviations, of one integral and of nested ones. For a smooth
function either is exact to rounding; where an inverse has kinks the error is of second order."""

REACH = 10.0
"""Standard deviations within which there are nodes."""

CRPS_STEP, CRPS_REACH = 0.05, 7.0
"""The same for the quantiles of the CRPS, on the scale of a normal distribution."""


class Components(NamedTuple):
    """Gaussians of g(y): means, and variances of the outputs and of the noise, each (M, N, C)."""

    means: FloatArray
    within: FloatArray
    noise: FloatArray


class Moments(NamedTuple):
    """Mean and standard deviations (N, C) in the units of the target."""

    mean: FloatArray
    aleatoric: FloatArray
    epistemic: FloatArray


class Transform(Protocol):
    """An increasing function g of each target; arrays are (N, C, ...)."""

    def forward(self, y: FloatArray) -> FloatArray:
        """g(y); infinite, on the side where they lie, for targets beyond the domain."""

    def inverse(self, z: FloatArray) -> FloatArray:
        """Targets, always finite: the nearest ones for values that g does not take."""

    def log_derivative(self, y: FloatArray) -> FloatArray:
        """Logarithm of the derivative g'(y) at targets in the domain."""

    def moments(self, components: Components) -> Moments:
        """Moments of the target when g(y) is a mixture of Gaussians."""


@dataclass(frozen=True)
class Log:
    """The natural logarithm: targets are lognormal, or mixtures of lognormals."""

    def forward(self, y: FloatArray) -> FloatArray:
        """Logarithm; -inf for targets that are not positive."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(y > 0, np.log(y), -np.inf)

    def inverse(self, z: FloatArray) -> FloatArray:
        """Exponential, at most the largest number."""
        with np.errstate(over="ignore"):
            result: FloatArray = np.minimum(np.exp(z), LARGEST)
        return result

    def log_derivative(self, y: FloatArray) -> FloatArray:
        """Return ``-log y``."""
        result: FloatArray = -np.log(y)
        return result

    def moments(self, components: Components) -> Moments:
        """Moments in closed form, as logarithms because their squares overflow."""
        means, within, noise = components
        log_means = means + (within + noise) / 2
        unit = log_means.max(axis=0)
        shares = np.exp(log_means - unit)
        with np.errstate(divide="ignore", over="ignore"):
            between = 2 * unit + np.log(np.square(shares - shares.mean(axis=0)).mean(axis=0))
            log_aleatoric = _log_mean_exp(2 * log_means + within + _log_expm1(noise))
            log_within = _log_mean_exp(2 * log_means + _log_expm1(within))
            log_epistemic = np.logaddexp(log_within, between)
            logs = (_log_mean_exp(log_means), log_aleatoric / 2, log_epistemic / 2)
            return Moments(*(np.minimum(np.exp(value), LARGEST) for value in logs))


def _log_mean_exp(values: FloatArray) -> FloatArray:
    """Logarithm of the mean over the components of exp, (M, N, C) -> (N, C)."""
    total: FloatArray = np.logaddexp.reduce(values, axis=0)
    return total - np.log(len(values))


def _log_expm1(values: FloatArray) -> FloatArray:
    """Logarithm of exp(values) - 1 of values that are not negative; -inf for 0."""
    result: FloatArray = values + np.log(-np.expm1(-values))
    return result


def quadrature_moments(
    inverse: Callable[[FloatArray], FloatArray], components: Components
) -> Moments:
    """Moments of ``inverse(z)``, z a mixture of Gaussians, by nested trapezoidal rules.

    Aleatoric is the root of E Var(y | f) and epistemic that of Var E(y | f), f the outputs.
    """
    n_components, n_rows, n_targets = components.means.shape
    result = Moments(*(np.empty((n_rows, n_targets)) for _ in Moments._fields))
    outer = _nodes(COARSE) if components.within.any() else (np.zeros(1), np.ones(1))
    n_values = n_components * max(len(outer[0]) * len(_nodes(COARSE)[0]), len(_nodes(FINE)[0]))
    for rows in row_chunks(n_rows, n_values, n_targets):
        part = Components(*(values[:, rows] for values in components))
        moments = _moments(inverse, part, outer)
        for into, values in zip(result, moments, strict=True):
            into[rows] = values
    return result


def _nodes(step: float) -> tuple[FloatArray, FloatArray]:
    """Nodes (K,) of the trapezoidal rule, and their weights under a standard normal density."""
    nodes = np.arange(-REACH, REACH + step / 2, step)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def _moments(
    inverse: Callable[[FloatArray], FloatArray],
    components: Components,
    outer: tuple[FloatArray, FloatArray],
) -> Moments:
    """Moments of some rows; ``outer`` are the nodes and weights of the outputs."""

    def at(z: FloatArray) -> FloatArray:
        """Targets (N, C, M, ...) of values (M, N, C, ...)."""
        moved = np.moveaxis(z, 0, 2)
        return inverse(moved.reshape(*moved.shape[:2], -1)).reshape(moved.shape)

    means, within, noise = components
    nodes, weights = _nodes(FINE)
    values = at(means[..., None] + np.sqrt(within + noise)[..., None] * nodes)
    mean = (values / 2 @ weights).mean(axis=2)

    inner, inner_weights = _nodes(COARSE)
    outputs = means[..., None] + np.sqrt(within)[..., None] * outer[0]
    values = at(outputs[..., None] + np.sqrt(noise)[..., None, None] * inner)
    # Halves, so that the difference of the largest numbers is one.
    expected = values / 2 @ inner_weights
    spread = values / 2 - expected[..., None]
    centre = (expected @ outer[1]).mean(axis=2)
    deviation = expected - centre[..., None, None]
    unit = np.maximum(np.abs(spread).max(axis=(2, 3, 4)), np.abs(deviation).max(axis=(2, 3)))
    unit = np.maximum(unit, np.finfo(np.float64).tiny)
    aleatoric = np.square(spread / unit[..., None, None, None]) @ inner_weights
    epistemic = np.square(deviation / unit[..., None, None])
    stds = [np.sqrt((part @ outer[1]).mean(axis=2)) for part in (aleatoric, epistemic)]
    with np.errstate(over="ignore"):
        parts = (2 * mean, *(2 * unit * std for std in stds))
        return Moments(*(np.clip(part, -LARGEST, LARGEST) for part in parts))


@dataclass(frozen=True, eq=False)
class TransformedPredictive:
    """Distribution of targets y of which g(y) has a known predictive distribution.

    What estimators with a ``target_transform`` return, with the methods of a regression's
    :class:`~sksubnet.Predictive`, in the units of the target.

    Parameters
    ----------
    base : Predictive
        Distribution of g(y), a regression's.
    transforms : tuple of transforms
        One, or those of several fits of which each row has one.
    fit : ndarray of shape (N,) or None, default=None
        Which of the transforms each row has; ``None`` is the first.

    Notes
    -----
    Quantiles, intervals, ``cdf``, ``sample`` and ``log_prob`` are exact. The mean and the standard
    deviation are those of the target, in closed form for the logarithm and by quadrature within ten
    standard deviations of g(y) otherwise. The aleatoric variance is E Var(y | f) and the epistemic
    one Var E(y | f), with f the outputs of the net: they add up to the total. The mean of a wide
    lognormal is far above what can be observed, and is at most the largest float. Where the inverse
    has a pole, as that of a PowerTransformer with a negative power has, there is no mean: it and
    the standard deviation are then those of the target limited to one training range beyond the
    training targets. In both cases the median, ``quantiles([0.5])``, is what to look at.

    A transform that does not take all values has an atom at the end of its range, where the
    predictive distribution of g(y) goes beyond it. Targets beyond have density 0.

    Examples
    --------
    >>> import torch
    >>> from sksubnet.predictive import Gaussian, Log, Predictive, TransformedPredictive
    >>> of_log = Predictive(torch.zeros(1, 1), torch.zeros(1, 1, 1), Gaussian(torch.tensor([1.0])))
    >>> predictive = TransformedPredictive(of_log, (Log(),))
    >>> predictive.quantiles([0.5]).round(3), predictive.mean.numpy().round(3)
    (array([[[1.]]]), array([[1.649]]))
    """

    base: Predictive
    transforms: tuple[Transform, ...]
    fit: NDArray[np.int64] | None = None

    @property
    def likelihood(self) -> Likelihood:
        """What g(y) is given the outputs of the net."""
        return self.base.likelihood

    @property
    def mean(self) -> Tensor:
        """Mean (N, C) of the target."""
        return torch.as_tensor(self._moments.mean)

    @staticmethod
    def stack(parts: Sequence[TransformedPredictive]) -> TransformedPredictive:
        """Predictive of the rows of all parts, whose transforms may differ."""
        transforms: list[Transform] = []
        fits = []
        for part in parts:
            for transform in part.transforms:
                if transform not in transforms:
                    transforms.append(transform)
            places = np.array([transforms.index(transform) for transform in part.transforms])
            fits.append(places[np.zeros(len(part), int) if part.fit is None else part.fit])
        base = Predictive.stack([part.base for part in parts])
        fit = np.concatenate(fits) if len(transforms) > 1 else None
        return TransformedPredictive(base, tuple(transforms), fit)

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> TransformedPredictive:
        """Predictive of some of the rows, in the order of their numbers."""
        chosen = np.asarray(index, dtype=np.int64)
        fit = None if self.fit is None else self.fit[chosen]
        return replace(self, base=self.base.rows(chosen), fit=fit)

    def std(self, component: str = "total") -> FloatArray:
        """Give the standard deviation of the target, or the part of it with one cause.

        Parameters
        ----------
        component : {"total", "aleatoric", "epistemic"}, default="total"
            Aleatoric is what stays when the outputs of the net are known, epistemic how the mean
            varies with them; their squares add to total's.

        Returns
        -------
        ndarray of shape (N, C)
            In the units of the target.
        """
        _check_component(component)
        if component != "total":
            parts: FloatArray = getattr(self._moments, component)
            return parts
        with np.errstate(over="ignore"):
            total = np.hypot(self._moments.aleatoric, self._moments.epistemic)
        return np.minimum(total, LARGEST)

    def interval(self, coverage: float = 0.9) -> FloatArray:
        """Central predictive interval of the target, noise included.

        Parameters
        ----------
        coverage : float, default=0.9
            Probability inside, above 0 and below 1.

        Returns
        -------
        ndarray of shape (N, C, 2)
            Lower and upper ends.
        """
        return self._each("inverse", self.base.interval(coverage))

    def quantiles(self, q: Sequence[float]) -> FloatArray:
        """Quantiles of the target, noise included.

        Parameters
        ----------
        q : sequence of Q floats
            Levels, each above 0 and below 1.

        Returns
        -------
        ndarray of shape (N, C, Q)
            In the order of `q`.
        """
        return self._each("inverse", self.base.quantiles(q))

    def cdf(self, y: ArrayLike) -> FloatArray:
        """Probability of a target at or below `y`, noise included; each target by itself.

        Parameters
        ----------
        y : array-like of shape (N, C), or (N,) for one target
            One value for every row and target.

        Returns
        -------
        ndarray of the shape of `y`
        """
        z = self._each("forward", self._targets(y))
        return self.base.cdf(z).reshape(np.shape(y))

    def log_prob(self, y: ArrayLike) -> FloatArray:
        """Log of the predictive density of targets.

        Parameters
        ----------
        y : array-like of shape (N, C), or (N,) for one target
            Targets.

        Returns
        -------
        ndarray of shape (N,)
            In nats, jointly for several targets, in the units of the target; ``-inf`` for targets
            that the transform cannot give.
        """
        targets = self._targets(y)
        z = self._each("forward", targets)
        inside = np.isfinite(z).all(axis=1)
        result = np.full(len(self), -np.inf)
        if inside.any():
            some = self.rows(np.flatnonzero(inside))
            change = some._each("log_derivative", targets[inside]).sum(axis=1)
            result[inside] = some.base.log_prob(z[inside]) + change
        return result

    def crps(self, y: ArrayLike) -> FloatArray:
        """Continuous ranked probability score of targets, by quadrature over the quantiles.

        Parameters
        ----------
        y : array-like of shape (N, C), or (N,) for one target
            Targets.

        Returns
        -------
        ndarray of the shape of `y`
            In units of the target; lower is better.

        References
        ----------
        Laio and Tamea, Verification tools for probabilistic forecasts of continuous hydrological
        variables, HESS 2007, eq. 7.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian, Log, Predictive, TransformedPredictive
        >>> noise = Gaussian(torch.tensor([1.0]))
        >>> of_log = Predictive(torch.zeros(1, 1), torch.zeros(1, 1, 1), noise)
        >>> TransformedPredictive(of_log, (Log(),)).crps([1.0]).round(3)
        array([0.267])
        """
        targets = self._targets(y)
        nodes = torch.arange(-CRPS_REACH, CRPS_REACH + CRPS_STEP / 2, CRPS_STEP).double()
        levels = torch.special.ndtr(nodes).numpy()
        weights = np.exp(-0.5 * nodes.numpy() ** 2)
        weights /= weights.sum()
        result = np.empty(targets.shape)
        for rows in row_chunks(len(self), len(levels), targets.shape[1]):
            some = self.rows(np.arange(len(self))[rows])
            error = targets[rows, :, None] - some.quantiles(levels.tolist())
            # twice the pinball loss of each quantile
            result[rows] = (2 * error * (levels - (error < 0))) @ weights
        return result.reshape(np.shape(y))

    def sample(
        self, n: int = 1, random_state: int | np.random.Generator | None = None
    ) -> FloatArray:
        """Draw targets, every row by itself.

        Parameters
        ----------
        n : int, default=1
            Number of draws for each row.
        random_state : int, numpy Generator or None, default=None
            Seed of the draws.

        Returns
        -------
        ndarray of shape (N, C, n)
            Targets, noise included.
        """
        return self._each("inverse", self.base.sample(n, random_state))

    def to_frame(
        self,
        index: Sequence[Hashable] | None = None,
        names: Sequence[Hashable] | None = None,
        coverage: float = 0.9,
    ) -> Any:
        """All of it as a data frame, a row for each row.

        Parameters
        ----------
        index : sequence of length N, default=None
            Labels of the rows.
        names : sequence of length C, default=None
            Names of the targets; they are numbered if ``None``.
        coverage : float, default=0.9
            Probability between ``lower`` and ``upper``.

        Returns
        -------
        pandas.DataFrame
            ``mean``, ``std``, ``std_aleatoric``, ``std_epistemic``, ``lower`` and ``upper``; for
            several targets two levels of columns, first the target.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return table.frame(self, index, names, coverage)

    def __len__(self) -> int:
        return len(self.base)

    def __repr__(self) -> str:
        return table.text(self, *self._shown())

    def _repr_html_(self) -> str:
        return table.as_html(self, *self._shown())

    def _shown(self) -> tuple[TransformedPredictive, list[int], str]:
        """Rows that a printed table has, their positions, and its title."""
        rows = table.shown_rows(len(self))
        n_targets = self.base.mean.shape[1]
        what = "1 target, lower to upper holds 90%" if n_targets == 1 else f"{n_targets} targets"
        number = f"{len(self)} row{'' if len(self) == 1 else 's'}"
        return self.rows(rows), rows, f"TransformedPredictive: {number}, {what}"

    @cached_property
    def _moments(self) -> Moments:
        """Mean and standard deviations (N, C)."""
        means, covariances = self.base._target_components("std")
        outputs = self.base._components()
        within = torch.zeros_like(means)
        if outputs.covariances is not None:
            within = outputs.covariances.detach().double().diagonal(dim1=-2, dim2=-1).clamp_min(0)
        total = covariances.diagonal(dim1=-2, dim2=-1).clamp_min(0)
        noise = (total - within).clamp_min(0)
        components = Components(*(part.cpu().numpy() for part in (means, within, noise)))
        if self.fit is None:
            return self.transforms[0].moments(components)
        result = Moments(*(np.empty(components.means.shape[1:]) for _ in Moments._fields))
        for rows, transform in self._groups(self.fit):
            part = transform.moments(Components(*(values[:, rows] for values in components)))
            for into, values in zip(result, part, strict=True):
                into[rows] = values
        return result

    def _each(self, method: str, values: FloatArray) -> FloatArray:
        """Map values (N, C, ...) by a method of each row's transform."""
        if self.fit is None:
            result: FloatArray = getattr(self.transforms[0], method)(values)
            return result
        result = np.empty(values.shape)
        for rows, transform in self._groups(self.fit):
            result[rows] = getattr(transform, method)(values[rows])
        return result

    def _groups(self, fit: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], Transform]]:
        """Numbers of the rows of each transform that has any."""
        return [(np.flatnonzero(fit == k), self.transforms[k]) for k in np.unique(fit)]

    def _targets(self, y: ArrayLike) -> FloatArray:
        """Targets (N, C)."""
        return self.base._checked_targets(y).cpu().numpy()


def lognormal_moments(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, C) and covariance (C, N, N) of exp(z), z jointly Gaussian with these moments."""
    result = (mean + covariance.diagonal(dim1=1, dim2=2).mT / 2).exp()
    columns = result.mT
    return result, columns[:, :, None] * columns[:, None, :] * covariance.expm1()


AnyPredictive = Predictive | TransformedPredictive
"""What a regressor returns."""


def stacked(parts: Sequence[AnyPredictive]) -> AnyPredictive:
    """Predictive of the rows of all parts, which are of one kind."""
    transformed = [part for part in parts if isinstance(part, TransformedPredictive)]
    if transformed:
        return TransformedPredictive.stack(transformed)
    return Predictive.stack([part for part in parts if isinstance(part, Predictive)])
