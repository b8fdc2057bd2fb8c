"""What all regressors share: target scaling, standard deviations, intervals, draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sksubnet.estimators.base import BayesianNet, draw_seed, with_positive_weight
from sksubnet.estimators.table_errors import hints
from sksubnet.jacobian import evaluate
from sksubnet.nets import TrainedNet, check_net, is_frozen
from sksubnet.predictive import Gaussian, Predictive

SMALLEST_SCALE = 1e-150
"""Scale of a target that is 0 everywhere: its square is still a number."""

NOISE_FLOOR = 1e-8
"""Smallest noise variance, as a share of the target's, of a net that fits every row."""


class BayesianNetRegressor(RegressorMixin, BayesianNet):
    """Targets in, a mean with a standard deviation out; see ``BayesianNet``."""

    normalize_y: bool
    noise: Any

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNet._parameter_constraints,
        "noise": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), "array-like"],
        "normalize_y": ["boolean"],
    }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _start_fit(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, ...]:
        """Validate and standardise: X (N, ...), targets (N, C), weights (N,)."""
        X, y = self._check_rows(X, y, reset=True, multi_output=True, y_numeric=True)
        weights = self._check_weights(sample_weight, X)
        with hints("y"):
            y = np.asarray(y, np.float64)
        X, y, weights = with_positive_weight(X, y, weights)
        if len(X) < 2:
            raise ValueError(
                f"sample_weight leaves {len(X)} row with positive weight; at least 2 are needed."
            )
        self._single_target = y.ndim == 1
        y = y.reshape(len(y), -1)
        self._y_mean, self._y_scale = np.zeros(y.shape[1]), np.ones(y.shape[1])
        if self._scales_targets():
            self._y_mean = np.average(y, axis=0, weights=weights)
            spread = np.sqrt(np.average((y - self._y_mean) ** 2, axis=0, weights=weights))
            # A constant target has a spread of rounding error at most, and noise of that size.
            rounding = np.finfo(float).eps * 10 * np.abs(self._y_mean)
            self._y_scale = np.maximum(spread, np.maximum(rounding, SMALLEST_SCALE))
        return X, (y - self._y_mean) / self._y_scale, weights

    def _scales_targets(self) -> bool:
        return self.normalize_y and not is_frozen(self.net)

    def _start_net(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Prepare the net for the targets and check its width."""
        if self.net is not None:
            check_net(self.net)
        self._prepare_net(X, weights, "regression", y.shape[1])
        if not isinstance(self._likelihood, Gaussian):
            raise ValueError(
                f"{type(self.net_.criterion_).__name__} is a classification loss; train a "
                "regressor's net with MSELoss."
            )
        if self._n_latents != y.shape[1]:
            raise ValueError(
                f"The net has {self._n_latents} outputs, but y has {y.shape[1]} targets; give the "
                "net as many outputs as targets."
            )
        return y

    def _noise_variance(self) -> np.ndarray | None:
        """Given noise variance (C,) in the scaled units, ``None`` if it is to be found."""
        if isinstance(self.noise, str):
            return None
        noise = np.asarray(self.noise, dtype=np.float64)
        if noise.shape not in ((), self._y_scale.shape) or not (noise > 0).all():
            raise ValueError(
                f"noise={self.noise!r} has shape {noise.shape}; use 'auto', one positive standard "
                f"deviation, or one for each of the {len(self._y_scale)} targets."
            )
        return np.broadcast_to((noise / self._y_scale) ** 2, self._y_scale.shape).copy()

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """Predictive mean, with its uncertainty if asked for.

        The mean of a Laplace approximation is that of the trained net and costs one forward pass;
        that of draws or an ensemble takes a pass for each draw or member.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.
        return_std : bool, default=False
            Also return the standard deviation, noise included, in the units of the target. The
            part of the model alone is ``predictive(X).std("epistemic")``.
        return_cov : bool, default=False
            Also return the covariance between all rows, noise included.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Predictive mean.
        std : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Only with ``return_std``.
        cov : ndarray of shape (n_samples, n_samples) or (n_samples, n_samples, n_targets)
            Only with ``return_cov``.

        Raises
        ------
        ValueError
            If both ``return_std`` and ``return_cov`` are set.
        """
        if return_std and return_cov:
            raise ValueError("Ask for return_std or return_cov, not both at once.")
        if return_std:
            parts = [(part.mean.numpy(), part.std()) for part in self._predictives(X)]
            mean, std = (np.concatenate(values) for values in zip(*parts, strict=True))
            return self._shaped(mean), self._shaped(std)
        if not return_cov:
            return self._shaped(self._means(X).numpy())
        means, covariance = self._joint_moments(X)
        noise = torch.as_tensor(np.square(self.noise_std_).reshape(-1))
        covariance.diagonal(dim1=1, dim2=2).add_(noise[:, None])
        by_target = covariance.permute(1, 2, 0).numpy()
        return self._shaped(means.numpy()), by_target[:, :, 0] if self._single_target else by_target

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Central predictive interval.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.
        coverage : float in (0, 1), default=0.9
            Probability that the target lies in the interval.

        Returns
        -------
        ndarray of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Lower and upper ends, in the units of the target.
        """
        parts = [part.interval(coverage) for part in self._predictives(X)]
        return self._shaped(np.concatenate(parts))

    def predict_quantiles(
        self, X: Any, quantiles: Sequence[float] = (0.05, 0.5, 0.95)
    ) -> np.ndarray:
        """Quantiles of the predictive distribution.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.
        quantiles : sequence of float in (0, 1), default=(0.05, 0.5, 0.95)
            Levels.

        Returns
        -------
        ndarray of shape (n_samples, n_quantiles) or (n_samples, n_targets, n_quantiles)
            Quantiles, in the units of the target.
        """
        parts = [part.quantiles(quantiles) for part in self._predictives(X)]
        return self._shaped(np.concatenate(parts))

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draw targets jointly for all rows: one draw is one function plus noise.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, n_features)
            Rows to draw for.
        n_samples : int, default=1
            Number of draws for each row.
        random_state : int, RandomState or None, default=0
            Seed of the draws.

        Returns
        -------
        ndarray of shape (n_samples_X, n_samples) or (n_samples_X, n_targets, n_samples)
            Draws in the units of the target.
        """
        check_is_fitted(self)
        generator = torch.Generator().manual_seed(draw_seed(random_state))
        return self._shaped(self._draw_targets(X, n_samples, generator).numpy())

    def _draw_targets(self, X: Any, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draws (N, C, n_samples) of targets: functions over all rows, and noise."""
        functions = self._draw_functions(X, n_samples, generator)
        noise = torch.randn(functions.shape, generator=generator, dtype=torch.float64)
        scale, offset = self._units
        std = torch.as_tensor(np.reshape(self.noise_std_, (-1, 1)))
        return functions * scale[:, None] + offset[:, None] + std * noise

    def _predictives(self, X: Any) -> Iterator[Predictive]:
        return (part.scaled(*self._units) for part in super()._predictives(X))

    def _means(self, X: Any) -> Tensor:
        means = super()._means(X)
        scale, offset = self._units
        return means * scale + offset

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        mean, covariance = super()._joint_moments(X)
        scale, offset = self._units
        return mean * scale + offset, covariance * scale[:, None, None] ** 2

    @property
    def _units(self) -> tuple[Tensor, Tensor]:
        """Scale and offset (C,) from latents to targets."""
        return torch.as_tensor(self._y_scale), torch.as_tensor(self._y_mean)

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        """Drop the target axis (N, C, ...) where fit saw a 1-d target."""
        return values[:, 0] if self._single_target else values

    def _noise_is_tuned(self) -> bool:
        return isinstance(self.noise, str)

    def _with_noise(self, trained: TrainedNet) -> TrainedNet:
        """Add the given noise, or the variance of the residuals on rows that were held out."""
        given = self._noise_variance()
        if given is not None:
            return replace(trained, likelihood=Gaussian(torch.as_tensor(given)))
        rows = trained.train if trained.held_out is None else trained.held_out
        with torch.no_grad():
            squared = (rows.y - evaluate(trained.latent, rows.X)).square()
        weights = rows.weights / rows.weights.sum()
        smallest = NOISE_FLOOR * (weights @ rows.y.square()).clamp(min=NOISE_FLOOR)
        variance = torch.maximum(weights @ squared, smallest).double().cpu()
        return replace(trained, likelihood=Gaussian(variance))

    def _scale_noise(
        self, trained: TrainedNet, log_likelihood: float, n_rows: float, noise_scale: float
    ) -> float:
        """Store the tuned noise; return the log likelihood under it, in the target's units."""
        assert isinstance(trained.likelihood, Gaussian)
        self._keep_likelihood(Gaussian(trained.likelihood.noise_variance * noise_scale))
        log_likelihood = trained.likelihood.rescaled(log_likelihood, n_rows, noise_scale)
        return log_likelihood - n_rows * float(np.log(self._y_scale).sum())

    def _keep_likelihood(self, likelihood: Gaussian) -> None:
        """Keep the likelihood of the latents, and the noise in the units of the target."""
        self._likelihood = likelihood
        std = np.sqrt(likelihood.noise_variance.numpy()) * self._y_scale
        self.noise_std_ = float(std[0]) if self._single_target else std
