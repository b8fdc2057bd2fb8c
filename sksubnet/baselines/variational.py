"""What both VOGN estimators share: training the Gaussian instead of the weights, and its draws."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from sksubnet.baselines.draws import NetDraws
from sksubnet.estimators import criterion_weighted
from sksubnet.jacobian import trained_indices
from sksubnet.nets import TrainedNet, draws_nothing, is_frozen
from sksubnet.sampling import vogn, with_batch_statistics

CONSTRAINTS = {
    "prior_precision": [Interval(Real, 0, None, closed="neither")],
    "temperature": [Interval(Real, 0, None, closed="neither")],
    "n_draws": [Interval(Integral, 1, None, closed="left")],
    "n_epochs": [Interval(Integral, 1, None, closed="left")],
    "lr": [Interval(Real, 0, None, closed="neither")],
    "momentum": [Interval(Real, 0, 1, closed="left")],
    "damping": [Interval(Real, 0, None, closed="left")],
}


def constraints(of_task: dict[str, Any]) -> dict[str, Any]:
    """Constraints of the task and of VOGN, which neither holds rows out nor keeps trained nets."""
    shared = {key: of_task[key] for key in of_task.keys() - {"validation_fraction", "memory"}}
    return shared | CONSTRAINTS


class VOGN(NetDraws):
    """Draws of the weights from a Gaussian that was trained instead of them.

    Subclasses run ``_variational`` once the noise to start from is known.
    """

    prior_precision: float
    temperature: float
    n_draws: int
    n_epochs: int
    lr: float
    momentum: float
    damping: float
    # What the default net would hold out if skorch trained it.
    validation_fraction: ClassVar[float] = 0.2

    def _train(
        self, X: np.ndarray, y: np.ndarray, weights: np.ndarray, *, hold_out_needed: bool, seed: int
    ) -> TrainedNet:
        """Give the net as initialised, and all rows to train it on."""
        if is_frozen(self.net):
            raise ValueError(
                "VOGN trains all weights of the net, so it cannot use the fitted one in "
                "FrozenEstimator. Pass the net itself, or take SWAG or SubnetLaplace, which keep "
                "trained weights."
            )
        self._check_reading(X, y)
        latent = self._latent
        return TrainedNet(
            module=latent.module,
            latent=latent,
            likelihood=self._likelihood,
            n_outputs=self._n_latents,
            train=criterion_weighted(self._rows(X, y, weights), self.net_.criterion_),
            held_out=None,
            seed=seed,
            verbose=self.verbose,
            stream=self._take_stream(),
            draws_nothing=draws_nothing(self.net_),
        )

    def _variational(self, start: TrainedNet, *, learn_noise: bool) -> TrainedNet:
        """Train the posterior and draw from it; return the net at its mean."""
        batch_size = self.net_.batch_size
        self.posterior_, likelihood = vogn(
            start,
            prior_precision=self.prior_precision,
            temperature=self.temperature,
            n_epochs=self.n_epochs,
            batch_size=len(start.train) if batch_size == -1 else batch_size,
            lr=self.lr,
            momentum=self.momentum,
            damping=self.damping,
            learn_noise=learn_noise,
        )
        weights = start.weight_vector().repeat(self.n_draws, 1)
        draws = self.posterior_.sample(self.n_draws, torch.Generator().manual_seed(self._seed))
        weights[:, trained_indices(start.module).to(weights.device)] = draws.to(weights)
        self._draws = with_batch_statistics(start.latent, weights, start.train.X)
        return replace(start, likelihood=likelihood)

    def _latent_draws(self, X: Tensor) -> Tensor:
        return self._draws.latents(self._latent, X)
