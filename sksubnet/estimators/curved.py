"""Trained nets with subnetworks of some sizes: the curvature of all from one pass over the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sksubnet.estimators.base import TrainedFold
from sksubnet.estimators.jobs import work_of_batch
from sksubnet.jacobian import JacobianPlan
from sksubnet.nets import TrainedNet
from sksubnet.posterior import (
    MEMORY_BUDGET,
    Curvature,
    HeldOut,
    Posterior,
    batches,
    factorised,
    plan_for,
    subnetwork_curvature,
)
from sksubnet.selection import Subnetwork, effects

MIN_ROWS_TO_TUNE = 20
"""Unseen rows below which they do not tell the prior precision."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Curved:
    """A subnetwork with its curvature and posterior, before the tuning.

    ``energy`` is the squared Jacobian of the subnetwork over that of random weights; ``unseen`` are
    the rows that tell the prior precision, where any do.
    """

    subnetwork: Subnetwork
    plan: JacobianPlan
    curvature: Curvature
    posterior: Posterior
    energy: float
    unseen: HeldOut | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class CurvedNet(Curved):
    """The same with the net."""

    fold: TrainedFold

    @property
    def trained(self) -> TrainedNet:
        """The net and its rows."""
        return self.fold.trained

    @property
    def work(self) -> int:
        """Products of a batch of its curvature."""
        return work_of_batch(self.trained, len(self.subnetwork))


def curved_parts(
    trained: TrainedNet,
    subnetworks: Sequence[Subnetwork],
    candidates: Tensor,
    *,
    covariance: str,
    batch_size: int | None,
    tunes: bool,
) -> list[Curved]:
    """Give the subnetworks of a net their posteriors by its training rows, before the tuning."""

    def curvature_of(plan: JacobianPlan, indices: Tensor) -> Curvature:
        # With the rows held out, the posterior would be narrower than what is tuned on them.
        return subnetwork_curvature(
            trained,
            plan,
            indices,
            trained.train,
            covariance=covariance,
            has_parts=len(subnetworks) > 1,
            batch_size=batch_size,
        )

    return curved_by(curvature_of, trained, subnetworks, candidates, tunes=tunes)


def curved_by(
    curvature_of: Callable[[JacobianPlan, Tensor], Curvature],
    trained: TrainedNet,
    subnetworks: Sequence[Subnetwork],
    candidates: Tensor,
    *,
    tunes: bool,
) -> list[Curved]:
    """Give the subnetworks of a net their posteriors by the curvature of planned weights (S,).

    The Jacobian is that of all weights that are in one of them, which for nested ones are those of
    the largest; each takes its columns.
    """
    union = np.unique(np.concatenate([each.indices for each in subnetworks]))
    places = [torch.as_tensor(np.searchsorted(union, each.indices)) for each in subnetworks]
    indices, is_path = torch.as_tensor(union), len(subnetworks) > 1
    plan = plan_for(trained, indices)
    found = effects(trained, plan, places, candidates)
    curvature = curvature_of(plan, indices)
    curvatures = [curvature.part(part) for part in places] if is_path else [curvature]
    weights = trained.weight_vector().double().cpu()[indices]
    posteriors = [
        factorised(weights[part], own) for part, own in zip(places, curvatures, strict=True)
    ]
    plans = [plan.part(part) for part in places] if is_path else [plan]
    made = zip(subnetworks, found, plans, curvatures, posteriors, strict=True)
    parts = [
        Curved(
            subnetwork=replace(subnetwork, n_inert=n_inert),
            plan=own_plan,
            curvature=own,
            posterior=posterior,
            energy=energy,
        )
        for subnetwork, (energy, n_inert), own_plan, own, posterior in made
    ]
    return with_unseen_rows(trained, parts, plan, curvature, places) if tunes else parts


def with_unseen_rows(
    trained: TrainedNet,
    curved: Sequence[Curved],
    plan: JacobianPlan,
    curvature: Curvature,
    places: Sequence[Tensor],
) -> list[Curved]:
    """Give the projected Jacobian of the rows that the net has not seen to each subnetwork of it.

    The plan and the curvature are those of all weights, of which a subnetwork has some places.
    """
    assert trained.held_out is not None
    found = {}
    every = [_every(trained, part) for part in curved]
    for stride in set(every):
        own = [k for k, other in enumerate(every) if other == stride]
        rows = trained.held_out[::stride]
        posteriors = [curved[k].posterior for k in own]
        step = min(
            each.rows_per_batch(plan, trained.n_outputs, trained.latent.dtype)
            for each in posteriors
        )
        latents, projections = [], []
        for batch in batches(rows, step):
            outputs, jacobian = curvature.jacobian(trained.latent, plan, batch.X)
            parts = [curved[k].posterior.part_of(jacobian, places[k]) for k in own]
            latents.append(outputs)
            projections.append([p.project(part) for p, part in zip(posteriors, parts, strict=True)])
        for k, of_net in zip(own, zip(*projections, strict=True), strict=True):
            found[k] = HeldOut(
                torch.cat(latents),
                type(of_net[0]).stack(list(of_net)),
                rows.y.cpu(),
                rows.weights.double().cpu(),
                rows.likelihood(trained.likelihood),
            )
    return [replace(part, unseen=found[k]) for k, part in enumerate(curved)]


def _every(trained: TrainedNet, curved: Curved) -> int:
    """Count the unseen rows of which one is taken, so that what is kept fits the memory budget."""
    assert trained.held_out is not None
    numbers_per_row = curved.posterior.numbers_per_row(curved.plan) + trained.n_outputs
    most = max(MIN_ROWS_TO_TUNE, MEMORY_BUDGET // (2 * 8 * trained.n_outputs * numbers_per_row))
    return -(-len(trained.held_out) // most)


def contents(trained: TrainedNet) -> list[Any]:
    """Return all that the ranking of a net's weights depends on, besides what its training did."""
    rows = trained.train
    values = list(trained.module.state_dict().values())
    inputs = tree_leaves([rows.X, trained.reference, trained.novel])
    targets = [rows.y, rows.weights, rows.noise]
    return [values, inputs, targets, sorted(vars(trained.likelihood).items()), trained.seed]
