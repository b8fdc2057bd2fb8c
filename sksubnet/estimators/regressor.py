"""What all regressors share: target scaling, standard deviations, intervals, draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sksubnet.estimators.base import (
    BayesianNet,
    InitialNet,
    TrainedFold,
    draw_seed,
    shareable,
)
from sksubnet.estimators.fitted import FittedNet, mixed_moments
from sksubnet.estimators.folds import Table
from sksubnet.estimators.linearised import LinearisedNet
from sksubnet.estimators.noise import with_constant_noise, with_noise_by_row
from sksubnet.estimators.table_errors import hints
from sksubnet.estimators.target_transform import fit_target_transform
from sksubnet.nets import Rows, Schedule, TrainedNet, check_net, criterion_of, is_frozen
from sksubnet.posterior import Curvature, noise_of
from sksubnet.predictive import (
    AnyPredictive,
    Gaussian,
    Likelihood,
    Log,
    Predictive,
    Transform,
    TransformedPredictive,
    check_shapes,
    likelihood_of,
    lognormal_moments,
    stacked,
)

SMALLEST_SCALE = 1e-150
"""Scale of a target that is 0 everywhere: its square is still a number."""


class BayesianNetRegressor(RegressorMixin, BayesianNet):
    """Targets in, a mean with a standard deviation out; see ``BayesianNet``."""

    normalize_y: bool
    target_transform: Any
    noise: Any
    target_transform_: Transform | None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNet._parameter_constraints,
        "noise": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), "array-like"],
        "normalize_y": ["boolean"],
        "target_transform": [
            StrOptions({"log"}),
            HasMethods(["fit", "transform", "inverse_transform"]),
            None,
        ],
    }

    # Asked for from the start, so that a pipeline passes them on where metadata is routed, too.
    __metadata_request__predict: ClassVar = {"return_std": True, "return_cov": True}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _start_fit(self, X: Any, y: Any, sample_weight: Any, groups: Any = None) -> Table:
        """Validate and standardise the targets (N, C)."""
        X, y = self._check_rows(X, y, reset=True, multi_output=True, y_numeric=True)
        weights = self._check_weights(sample_weight, X)
        with hints("y"):
            y = np.asarray(y, np.float64)
        n_positive = int((weights > 0).sum())
        if n_positive < 2:
            raise ValueError(
                f"sample_weight leaves {n_positive} row with positive weight; at least 2 are "
                "needed."
            )
        self._single_target = y.ndim == 1
        self._likelihood = self._checked_likelihood(y.reshape(len(y), -1)[weights > 0])
        table = self._table(X, y.reshape(len(y), -1), weights, groups)
        y, weights = table.y, table.weights
        if self.target_transform is not None and not isinstance(self._likelihood, Gaussian):
            raise ValueError(
                f"target_transform={self.target_transform!r} is for Gaussian noise on what it "
                f"gives, but this net's likelihood is {type(self._likelihood).__name__}; leave it "
                "None, or train the net with MSELoss."
            )
        self.target_transform_ = fit_target_transform(self.target_transform, y)
        if self.target_transform_ is not None:
            y = self.target_transform_.forward(y)
        mean = np.average(y, axis=0, weights=weights)
        self._set_units(mean, np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weights)))
        return table.with_targets((y - self._y_mean) / self._y_scale)

    def _set_units(self, mean: np.ndarray, spread: np.ndarray) -> None:
        """Scale targets by their mean (C,) and standard deviation (C,), where they are scaled."""
        # A constant target has a spread of rounding error at most, and noise of that size.
        rounding = np.finfo(float).eps * 10 * np.abs(mean)
        self._y_mean, self._y_scale = np.zeros(len(mean)), np.ones(len(mean))
        if self._scales_targets():
            self._y_mean = mean
            self._y_scale = np.maximum(spread, np.maximum(rounding, SMALLEST_SCALE))
        self._unit_variance = np.where(spread > rounding, (spread / self._y_scale) ** 2, 0.0)

    def _new_rows(self, X: Any, y: Any, sample_weight: Any) -> Table:
        """Validate rows for an update, and give their targets as those of fit were given."""
        X, y = self._check_rows(X, y, reset=False, multi_output=True, y_numeric=True)
        weights = self._check_weights(sample_weight, X)
        with hints("y"):
            y = np.asarray(y, np.float64).reshape(len(y), -1)
        if y.shape[1] != len(self._y_scale):
            raise ValueError(
                f"y has {y.shape[1]} targets, but those of fit had {len(self._y_scale)}."
            )
        table = Table.of(X, y, weights)
        self._likelihood.check_targets(torch.as_tensor(shareable(table.y)))
        y = table.y
        if self.target_transform_ is not None:
            y = self.target_transform_.forward(y)
            n_beyond = int((~np.isfinite(y)).any(axis=1).sum())
            if n_beyond:
                raise ValueError(
                    f"target_transform={self.target_transform!r}, as it was fitted, has no value "
                    f"for {n_beyond} of the {len(y)} targets; leave these rows out, or fit again "
                    "with them."
                )
        return table.with_targets((y - self._y_mean) / self._y_scale)

    def _scales_targets(self) -> bool:
        return self.normalize_y and self._likelihood.scales_targets and not is_frozen(self.net)

    def _checked_likelihood(self, y: np.ndarray) -> Likelihood:
        """Likelihood that the net's criterion stands for; raise where targets do not fit it."""
        if self._tabular is not None:
            return Gaussian(torch.ones(y.shape[1], dtype=torch.float64))
        net = self.net
        while isinstance(net, BayesianNet):  # as member of an ensemble
            net = net.net
        check_net(net)
        criterion = criterion_of(net)
        likelihood = likelihood_of(criterion, y.shape[1])
        if likelihood.task != "regression":
            raise ValueError(
                f"{type(criterion).__name__} is a classification loss; train a regressor's net "
                "with MSELoss, or PoissonNLLLoss for counts."
            )
        likelihood.check_targets(torch.as_tensor(y))
        if not isinstance(likelihood, Gaussian) and not np.array_equal(self.noise, "auto"):
            raise ValueError(
                f"noise={self.noise!r} is for Gaussian noise, but {type(criterion).__name__} has a "
                f"likelihood of its own, {type(likelihood).__name__}; leave noise='auto'."
            )
        return likelihood

    def _start_net(
        self, table: Table, seed: int, schedule: Schedule | None
    ) -> tuple[InitialNet, Table]:
        """Prepare a net for the targets and check its width."""
        n_outputs = table.y.shape[1] * self._likelihood.outputs_per_target
        initial = self._initial_net(table, "regression", n_outputs, seed, schedule)
        if initial.n_outputs != n_outputs:
            raise ValueError(
                f"The net has {initial.n_outputs} outputs, but y has {table.y.shape[1]} targets; "
                f"give the net {n_outputs} outputs."
            )
        check_shapes(initial.likelihood, n_outputs, torch.as_tensor(table.y[:2]))
        return initial, table

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
        that of draws or an ensemble takes a pass for each draw or member. With a `target_transform`
        the mean of the target takes the whole predictive distribution; see there for targets that
        have no mean, and :meth:`predict_quantiles` for the median.

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
            If both ``return_std`` and ``return_cov`` are set, or ``return_cov`` for a likelihood
            that is not Gaussian.
        """
        if return_std and return_cov:
            raise ValueError("Ask for return_std or return_cov, not both at once.")
        if return_std:
            parts = [(part.mean.numpy(), part.std()) for part in self._target_predictives(X)]
            mean, std = (np.concatenate(values) for values in zip(*parts, strict=True))
            return self._shaped(mean), self._shaped(std)
        if not return_cov:
            return self._shaped(self._means(X).numpy())
        check_is_fitted(self)
        if not isinstance(self._likelihood, Gaussian):
            raise ValueError(
                "return_cov is for Gaussian noise, but this net's likelihood is "
                f"{type(self._likelihood).__name__}. Use return_std, or sample_y, whose draws hang "
                "together over the rows."
            )
        means, covariance = self._joint_target_moments(X)
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
        parts = [part.interval(coverage) for part in self._target_predictives(X)]
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
        parts = [part.quantiles(quantiles) for part in self._target_predictives(X)]
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
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be an integer of at least 1.")
        generator = torch.Generator().manual_seed(draw_seed(random_state))
        draws = self._draw_targets(X, n_samples, generator).numpy()
        if self.target_transform_ is not None:
            draws = self.target_transform_.inverse(draws)
        return self._shaped(draws)

    def _draw_targets(self, X: Any, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draws (N, C, n_samples) of transformed targets: functions over all rows, and noise."""
        scale, offset = self._units
        return self._draw_functions(X, n_samples, generator) * scale[:, None] + offset[:, None]

    def _drawn(
        self, net: FittedNet, batches: list[Tensor], n_samples: int, generator: torch.Generator
    ) -> Tensor:
        functions = super()._drawn(net, batches, n_samples, generator)
        if not isinstance(net.likelihood, Gaussian):
            return net.likelihood.sample(functions.mT, generator).mT
        noise = torch.randn(functions.shape, generator=generator, dtype=torch.float64)
        return functions + self._noise_at(net, batches).sqrt()[..., None] * noise

    def _noise_at(self, net: FittedNet, batches: list[Tensor]) -> Tensor:
        """Noise variance (N, C) of a net at all rows, in its units."""
        parts = [noise_of(net.likelihood_at(batch)).expand(len(batch), -1) for batch in batches]
        return torch.cat(parts)

    def _mean_noise(self, X: Any) -> Tensor:
        """Noise variance (C, N) of all rows, the mean over the nets, in the units of the target."""
        batches = list(self._batches(X))
        each = torch.stack([self._noise_at(net, batches) for net in self._nets()])
        return (each.mean(dim=0).sqrt() * self._units[0]).square().mT

    def predictive(self, X: Any) -> AnyPredictive:
        """Predictive distribution of rows, with its parts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        Predictive or TransformedPredictive
            Value with ``std``, ``interval``, ``quantiles`` and ``log_prob``, in the units of the
            target; the latter where the estimator has a ``target_transform``.
        """
        return stacked(list(self._target_predictives(X)))

    def _target_predictives(self, X: Any) -> Iterator[AnyPredictive]:
        """Predictive values of consecutive batches of rows, in the units of the target."""
        return map(self._of_targets, self._predictives(X))

    def _predictives(self, X: Any) -> Iterator[Predictive]:
        return map(self._in_units, super()._predictives(X))

    def _in_units(self, predictive: Predictive) -> Predictive:
        """Predictive in the units of the transformed target."""
        return predictive.scaled(*self._units)

    def _keep_out_of_fold(self, nets: Sequence[FittedNet], table: Table) -> None:
        super()._keep_out_of_fold(nets, table)
        kept = self.__dict__.get("out_of_fold_")
        if kept is not None:
            self.out_of_fold_ = self._of_targets(kept)

    def _of_targets(self, predictive: Predictive) -> AnyPredictive:
        """Predictive of the targets from that of the transformed ones."""
        if self.target_transform_ is None:
            return predictive
        return TransformedPredictive(predictive, (self.target_transform_,))

    def _means(self, X: Any) -> Tensor:
        check_is_fitted(self)
        if self.target_transform_ is not None or not isinstance(self._likelihood, Gaussian):
            # the mean of the target depends on the variance
            return torch.cat([part.mean for part in self._target_predictives(X)])
        means = super()._means(X)
        scale, offset = self._units
        return means * scale + offset

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        mean, covariance = super()._joint_moments(X)
        scale, offset = self._units
        return mean * scale + offset, covariance * scale[:, None, None] ** 2

    def _joint_target_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        """Mean (N, C) of targets and covariance (C, N, N) between the rows, with noise."""
        check_is_fitted(self)
        transform = self.target_transform_
        if transform is None:
            means, covariance = self._joint_moments(X)
            covariance.diagonal(dim1=1, dim2=2).add_(self._mean_noise(X))
            return means, covariance
        nets = self.__dict__.get("folds_", [])
        gaussian = bool(nets) and all(isinstance(net, LinearisedNet) for net in nets)
        if not (gaussian and isinstance(transform, Log)):
            raise ValueError(
                f"return_cov with target_transform={self.target_transform!r} has no closed form "
                f"for {type(self).__name__}; use np.cov(reg.sample_y(X, n_samples=1000))."
            )
        scale, offset = self._units
        batches, moments = self._joint_batches(X), []
        for net in nets:
            mean, covariance = net.joint_moments(batches)
            covariance.diagonal(dim1=1, dim2=2).add_(self._noise_at(net, batches).mT)
            covariance = covariance * scale[:, None, None] ** 2
            moments.append(lognormal_moments(mean * scale + offset, covariance))
        return mixed_moments(moments)

    @property
    def _units(self) -> tuple[Tensor, Tensor]:
        """Scale and offset (C,) from latents to targets."""
        return torch.as_tensor(self._y_scale), torch.as_tensor(self._y_mean)

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        """Drop the target axis (N, C, ...) where fit saw a 1-d target."""
        return values[:, 0] if self._single_target else values

    def _noise_is_tuned(self) -> bool:
        return isinstance(self.noise, str) and isinstance(self._likelihood, Gaussian)

    def _with_noise(self, nets: list[TrainedFold]) -> list[TrainedFold]:
        """Add the given noise, or what the residuals of unseen rows say of it."""
        if not isinstance(self._likelihood, Gaussian):
            return nets
        trained = [net.trained for net in nets]
        given = self._noise_variance()
        if given is not None:
            likelihood = Gaussian(torch.as_tensor(given))
            trained = [replace(net, likelihood=likelihood) for net in trained]
        else:
            trained, kind = with_constant_noise(trained), self._noise_kind()
            if kind != "constant":
                options = {"n_jobs": self.n_jobs, "memory": nets[0].memory}
                trained = with_noise_by_row(trained, always=kind == "input", **options)
        return [net.with_net(found) for net, found in zip(nets, trained, strict=True)]

    def _noise_kind(self) -> str:
        """Whether noise is ``"constant"``, depends on the ``"input"``, or what the rows say."""
        return "constant"

    def _tuned_noise(
        self, trained: TrainedNet, curvature: Curvature, scale: float
    ) -> tuple[Likelihood, float]:
        """Likelihood with the tuned noise, and the log likelihood in the target's units."""
        likelihood = trained.train.likelihood(trained.likelihood)
        if not isinstance(likelihood, Gaussian) or not isinstance(trained.likelihood, Gaussian):
            units = curvature.n_rows * float(np.log(self._y_scale).sum())
            return likelihood, curvature.log_likelihood - units
        weights = trained.train.weights
        log_likelihood = likelihood.rescaled(curvature.log_likelihood, weights, scale)
        log_likelihood += self._log_units(trained.train)
        return Gaussian(trained.likelihood.noise_variance * scale), log_likelihood

    def _log_units(self, rows: Rows) -> float:
        """Log of the net's units in those of the target, weighted and summed over the rows."""
        log_scale = -float(rows.weights.sum()) * float(np.log(self._y_scale).sum())
        if self.target_transform_ is None:
            return log_scale
        scale, offset = self._units
        targets = self.target_transform_.inverse((rows.y.double().cpu() * scale + offset).numpy())
        by_row = self.target_transform_.log_derivative(targets).sum(axis=1)
        return log_scale + float(rows.weights.double().cpu().numpy() @ by_row)

    def _target_units(self) -> np.ndarray:
        """Squared units (C,) of the outputs: for means the variances of the targets."""
        return self._likelihood.output_units(torch.as_tensor(self._unit_variance)).numpy()

    @property
    def noise_std_(self) -> Any:
        """Standard deviation of the noise, in the units of the target."""
        nets: list[FittedNet] = self.__dict__.get("folds_", [])
        if not nets:
            raise AttributeError(f"{type(self).__name__} has no attribute 'noise_std_' before fit.")
        if not isinstance(self._likelihood, Gaussian):
            raise AttributeError(
                f"A net with the likelihood {type(self._likelihood).__name__} has no 'noise_std_'; "
                "use predictive(X).std('aleatoric')."
            )
        variance = torch.stack([noise_of(net.likelihood) for net in self._nets()]).mean(dim=0)
        std = np.sqrt(variance.numpy()) * self._y_scale
        return float(std[0]) if self._single_target else std
