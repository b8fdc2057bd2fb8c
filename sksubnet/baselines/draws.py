"""What the estimators share that predict by draws of the net's function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from sklearn.base import _fit_context
from torch import Tensor

from sksubnet.estimators import (
    FORWARD_ROWS,
    BayesianNet,
    FittedNet,
    Form,
    InitialNet,
    TrainedFold,
    all_or_nothing,
    cores,
    draw_seed,
    keep,
    work_of_batch,
)
from sksubnet.jacobian import threads_for
from sksubnet.nets import Latent, TrainedNet, make_keepable
from sksubnet.posterior import tuned_noise
from sksubnet.predictive import Mixture, Predictive, pick_components, predictive_of
from sksubnet.progress import task


class Draws(Protocol):
    """Draws of the function of a net: a frozen value."""

    def latents(self, latent: Latent, X: Tensor) -> Tensor:
        """Latents (M, B, C) of a batch at every draw, float64 on the CPU."""


DrawnFrom = tuple[TrainedNet, Draws]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class DrawnNet(FittedNet):
    """A net with draws of its function: a mixture of points with the same weight.

    A draw is one function for all rows, so that a prediction does not depend on the rows around it.
    """

    draws: Draws

    def means(self, X: Tensor) -> Tensor:
        """Predictive mean (B, C) of the latents of a batch."""
        return self.draws.latents(self.latent, X).mean(dim=0)

    def predictive(self, X: Tensor) -> Predictive:
        """Predictive of a batch, in the units of the net."""
        mixture = Mixture(self.draws.latents(self.latent, X))
        return predictive_of(mixture, self.likelihood, seed=self.seed)

    def joint_moments(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean (N, C) of all rows and covariance between them (C, N, N)."""
        draws = self._all_draws(batches)
        mean = draws.mean(dim=0)
        deviations = (draws - mean).permute(2, 1, 0)
        return mean, deviations @ deviations.mT / len(draws)

    def functions(
        self, batches: Iterable[Tensor], n_draws: int, generator: torch.Generator
    ) -> Tensor:
        """Draws (N, C, n_draws) of functions, each over all rows."""
        draws = self._all_draws(batches)
        return draws[pick_components(len(draws), n_draws, generator)].permute(1, 2, 0)

    def _all_draws(self, batches: Iterable[Tensor]) -> Tensor:
        """Latents (M, N, C) of all rows."""
        return torch.cat([self.draws.latents(self.latent, batch) for batch in batches], dim=1)


keep(Form.of_fitted_net(DrawnNet))


class NetDraws(BayesianNet):
    """A net with draws of its function; subclasses give ``_draws_of``."""

    folds_: list[DrawnNet]

    def _n_tasks(self) -> int:
        return 2 + self._may_have_noise_net()

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the net and what its draws are made from.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; they count in the loss and in the noise. With folds an
            integer weight is the same as repeating the row; a single net (``cv=None``, or a net of
            your own) holds rows out at random, and others where there are more of them.
        groups : array-like of shape (n_samples,), default=None
            Groups of rows that belong together, for folds: a fold has all rows of a group or none.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data, the net or an option do not fit together; the message says which.
        """
        table = self._start_fit(X, y, sample_weight, groups)
        seed = draw_seed(self.random_state)
        with torch.inference_mode(False):  # in which nothing can be trained
            trained = list(self._trained_nets(table, seed, needed=self._noise_is_tuned()))
            trained = self._with_noise(trained)
            with task("draws", len(trained)):
                drawn = self._draws(trained)
            work = max(work_of_batch(net.trained) for net in trained)
            with cores(self.n_jobs), threads_for(work):
                nets = [self._drawn_net(*net) for net in zip(trained, drawn, strict=True)]
                self._keep_out_of_fold(nets, table)
        self._seed, self.folds_ = seed, nets
        return self

    def _drawn_net(self, net: TrainedFold, drawn_from: DrawnFrom) -> DrawnNet:
        """Draws of a net, with the noise that they leave to the rows it has not seen."""
        trained, draws = drawn_from
        drawn = DrawnNet(
            net=net.initial.net,
            latent=trained.latent,
            likelihood=trained.likelihood,
            n_outputs=trained.n_outputs,
            seed=trained.seed,
            held_out=net.held_out,
            draws=draws,
        )
        if self._noise_is_tuned():
            rows = trained.train if trained.held_out is None else trained.held_out
            steps = range(0, len(rows), FORWARD_ROWS)
            parts = [drawn.predictive(rows[i : i + FORWARD_ROWS].X) for i in steps]
            drawn = replace(drawn, likelihood=tuned_noise(Predictive.stack(parts), rows))
        make_keepable(drawn.latent.module)
        return drawn

    def _draws(self, nets: Sequence[TrainedFold]) -> list[DrawnFrom]:
        """Return what ``_draws_of`` does for each net."""
        drawn = []
        with cores(self.n_jobs), threads_for(max(work_of_batch(net.trained) for net in nets)):
            for net in nets:
                with task("net"):
                    drawn.append(self._draws_of(net.trained, net.initial))
        return drawn

    def _draws_of(self, trained: TrainedNet, initial: InitialNet) -> DrawnFrom:
        """Return the net that draws are made from, and the draws."""
        raise NotImplementedError
