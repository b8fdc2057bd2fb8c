"""What the estimators share that predict by draws of the net's function."""

from __future__ import annotations

from typing import Any, Self

import torch
from sklearn.base import _fit_context
from torch import Tensor

from sksubnet.estimators import FORWARD_ROWS, BayesianNet, draw_seed, torch_threads
from sksubnet.nets import TrainedNet, forget_graphs
from sksubnet.posterior import tuned_noise
from sksubnet.predictive import Mixture, Predictive, pick_components


class NetDraws(BayesianNet):
    """A net with draws of its function: a mixture of points with the same weight.

    Subclasses give ``_infer`` and ``_latent_draws``. A draw is one function for all rows, so that a
    prediction does not depend on the rows around it.
    """

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the net and what its draws are made from.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; they count in the loss and in the noise, and an integer weight is
            the same as repeating the row.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data, the net or an option do not fit together; the message says which.
        """
        self._is_fitted = False
        X, y, weights = self._start_fit(X, y, sample_weight)
        self._seed = draw_seed(self.random_state)
        with torch_threads(self.n_jobs):
            y = self._start_net(X, y, weights)
            trained = self._train(
                X, y, weights, hold_out_needed=self._noise_is_tuned(), seed=self._seed
            )
            trained = self._with_noise(trained)
            self._infer(trained)
            self._keep_likelihood(trained.likelihood)
            if self._noise_is_tuned():
                rows = trained.train if trained.held_out is None else trained.held_out
                steps = range(0, len(rows), FORWARD_ROWS)
                batches = (rows[start : start + FORWARD_ROWS].X for start in steps)
                parts = [self._batch_predictive(batch) for batch in batches]
                self._keep_likelihood(tuned_noise(Predictive.stack(parts), rows))
        forget_graphs(self._latent.module)
        self._is_fitted = True
        return self

    def _infer(self, trained: TrainedNet) -> None:
        """Store what the draws are made from, where that is more than the trained net."""

    def _latent_draws(self, X: Tensor) -> Tensor:
        """Latents (M, B, C) of a batch at every draw, float64 on the CPU."""
        raise NotImplementedError

    def _batch_predictive(self, X: Tensor) -> Predictive:
        draws = self._latent_draws(X)
        return Predictive.of_mixture(Mixture(draws), self._likelihood, seed=self._seed)

    def _all_draws(self, X: Any) -> Tensor:
        """Latents (M, N, C) of all rows."""
        return torch.cat([self._latent_draws(batch) for batch in self._batches(X)], dim=1)

    def _means(self, X: Any) -> Tensor:
        return torch.cat([self._latent_draws(batch).mean(dim=0) for batch in self._batches(X)])

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        draws = self._all_draws(X)
        mean = draws.mean(dim=0)
        deviations = (draws - mean).permute(2, 1, 0)
        return mean, deviations @ deviations.mT / len(draws)

    def _draw_functions(self, X: Any, n_samples: int, generator: torch.Generator) -> Tensor:
        draws = self._all_draws(X)
        return draws[pick_components(len(draws), n_samples, generator)].permute(1, 2, 0)
