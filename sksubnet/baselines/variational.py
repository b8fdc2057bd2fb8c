"""What both VOGN estimators share: training the Gaussian instead of the weights, and its draws."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from sksubnet.baselines.draws import Draws, NetDraws
from sksubnet.estimators import InitialNet, Table, criterion_weighted, rows_of
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

    def _train_one(self, initial: InitialNet, table: Table, *, seed: int) -> tuple[TrainedNet, Any]:
        """Give the net as initialised, and all rows to train it on."""
        if is_frozen(self.net):
            raise ValueError(
                "VOGN trains all weights of the net, so it cannot use the fitted one in "
                "FrozenEstimator. Pass the net itself, or take SWAG or SubnetLaplace, which keep "
                "trained weights."
            )
        start = TrainedNet(
            module=initial.net.module_,
            latent=initial.latent,
            likelihood=initial.likelihood,
            n_outputs=initial.n_outputs,
            train=criterion_weighted(rows_of(initial.latent, table), initial.net.criterion_),
            held_out=None,
            seed=seed,
            verbose=self.verbose,
            stream=initial.stream,
            draws_nothing=draws_nothing(initial.net),
        )
        return start, np.arange(0)

    def _draws_of(self, trained: TrainedNet, initial: InitialNet) -> tuple[TrainedNet, Draws]:
        """Train the posterior and draw from it; return the net at its mean."""
        net = initial.net
        self.posterior_, likelihood = vogn(
            trained,
            prior_precision=self.prior_precision,
            temperature=self.temperature,
            n_epochs=self.n_epochs,
            batch_size=len(trained.train) if net.batch_size == -1 else net.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            damping=self.damping,
            # Training starts from the residuals of the initial net where no noise is given.
            learn_noise=isinstance(getattr(self, "noise", None), str),
        )
        weights = trained.weight_vector().repeat(self.n_draws, 1)
        draws = self.posterior_.sample(self.n_draws, torch.Generator().manual_seed(trained.seed))
        weights[:, trained_indices(trained.module).to(weights.device)] = draws.to(weights)
        drawn = with_batch_statistics(trained.module, weights, trained.train.X).latents
        return replace(trained, likelihood=likelihood), drawn
