"""The noise of regression nets, from the residuals of rows that each has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sksubnet.estimators.jobs import in_jobs
from sksubnet.jacobian import evaluate
from sksubnet.nets import (
    NoiseNet,
    Rows,
    TrainedNet,
    TrainingMemory,
    fit_noise,
    noise_training,
)
from sksubnet.predictive import Gaussian, Likelihood
from sksubnet.progress import task

NOISE_FLOOR = 1e-8
"""Smallest noise variance, as a share of the target's, of a net that fits every row."""

ROWS_TO_STOP = 0.2
"""Share of the unseen rows that a noise net stops on where there is one net."""

LEAST_ROWS = 100
"""Unseen rows below which the noise is not asked whether it differs from row to row."""


def unseen(net: TrainedNet) -> Rows:
    """Rows that were held out, or those of the training where none were."""
    return net.train if net.held_out is None else net.held_out


def with_constant_noise(nets: list[TrainedNet]) -> list[TrainedNet]:
    """Give all nets one noise for all rows: the variance of the residuals of all unseen rows."""
    rows = [squared_residuals(net, unseen(net)) for net in nets]
    weights = torch.cat([part.weights for part in rows]).double()
    squared = torch.cat([part.y for part in rows]).double()
    targets = torch.cat([unseen(net).y for net in nets]).double()
    shares = weights / weights.sum()
    likelihood = constant_noise(shares @ squared, shares @ targets.square())
    return [replace(net, likelihood=likelihood) for net in nets]


def constant_noise(squared: Tensor, second: Tensor) -> Gaussian:
    """Noise of mean squared residuals (C,) and mean squared targets (C,)."""
    smallest = NOISE_FLOOR * second.clamp(min=NOISE_FLOOR)
    return Gaussian(torch.maximum(squared, smallest).cpu())


def with_noise_by_row(
    nets: list[TrainedNet],
    *,
    always: bool,
    n_jobs: int | None = None,
    memory: TrainingMemory | None = None,
) -> list[TrainedNet]:
    """Give each net a noise that depends on the inputs, on top of nets with a constant one.

    Each noise net trains on the residuals of rows that the net of their own fold has not seen, and
    stops on those that its own net has not seen. Unless ``always``, only where that predicts these
    rows better than a constant by more than a standard error.
    """
    residuals = [squared_residuals(net, unseen(net)) for net in nets]
    if not all(isinstance(rows.X, torch.Tensor) for rows in residuals):
        raise ValueError(
            "noise='input' needs a net that reads its rows as one tensor, but this one's data set "
            "or collate function makes something else of them; use noise='constant'."
        )
    if sum(map(len, residuals)) < (2 if always else LEAST_ROWS):
        return nets
    splits = _splits(residuals, nets[0].seed)
    calls = [
        (train, held_out, net.latent.dtype, net.seed)
        for net, (train, held_out) in zip(nets, splits, strict=True)
    ]
    with task("noise", len(calls)):
        jobs = partial(in_jobs, calls=calls, n_jobs=n_jobs, name="net", n_subtasks=None)
        if memory is None:
            found = jobs(fit_noise)
        else:
            parts = [[rows.X, rows.y, rows.weights] for split in splits for rows in split]
            trainings = memory.recall_or(
                lambda: jobs(noise_training), parts, [call[2:] for call in calls]
            )
            known = zip(calls, trainings, strict=True)
            found = [fit_noise(*call, training) for call, training in known]
    if not always and not _is_better(found, [held_out for _, held_out in splits]):
        return nets
    return [with_noise_net(net, noise) for net, noise in zip(nets, found, strict=True)]


def squared_residuals(net: TrainedNet, rows: Rows) -> Rows:
    """Rows with their squared residuals (N, C) as targets."""
    with torch.no_grad():
        squared = (rows.y - evaluate(net.latent, rows.X)).square()
    return replace(rows, y=squared)


def _splits(residuals: list[Rows], seed: int) -> list[tuple[Rows, Rows]]:
    """Rows to train each noise net on, and to stop on: those that its net has not seen."""
    if len(residuals) == 1:
        (rows,) = residuals
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        n_stop = max(1, round(ROWS_TO_STOP * len(rows)))
        return [(rows[order[n_stop:].sort().values], rows[order[:n_stop].sort().values])]
    splits = []
    for k, held_out in enumerate(residuals):
        others = [rows for j, rows in enumerate(residuals) if j != k]
        parts = (
            torch.cat(part) for part in zip(*((r.X, r.y, r.weights) for r in others), strict=True)
        )
        splits.append((Rows(*parts), held_out))
    return splits


def _is_better(noise: list[NoiseNet], held_out: list[Rows]) -> bool:
    """Whether noise by row predicts residuals better than a constant by a standard error."""
    excess, weights = [], []
    for net, rows in zip(noise, held_out, strict=True):
        w = (rows.weights / rows.weights.sum()).double().cpu()
        squared = rows.y.double().cpu()
        losses = []
        for variance in (net(rows.X), torch.ones_like(squared)):
            scaled = variance * (w @ (squared / variance))
            losses.append((scaled.log() + squared / scaled).sum(dim=1) / 2)
        excess.append(losses[0] - losses[1])
        weights.append(rows.weights.double().cpu())
    all_excess, all_weights = torch.cat(excess), torch.cat(weights)
    shares = all_weights / all_weights.sum()
    mean = shares @ all_excess
    error = (shares @ (all_excess - mean).square() / all_weights.sum()).sqrt()
    return bool(mean < -error)


def with_noise_net(net: TrainedNet, noise: NoiseNet) -> TrainedNet:
    """Give a net and its rows this noise."""
    train, held_out = (
        rows and replace(rows, noise=noise(rows.X).to(rows.y)) for rows in (net.train, net.held_out)
    )
    assert train is not None and train.noise is not None
    shares = (train.weights / train.weights.sum()).double()
    mean: Tensor = shares.cpu() @ train.noise.double().cpu()
    return replace(net, train=train, held_out=held_out, noise=noise, likelihood=Gaussian(mean))


def mean_likelihood(likelihoods: Sequence[Likelihood]) -> Likelihood:
    """Likelihood with the mean noise variance of some of a kind."""
    noise = [like.noise_variance for like in likelihoods if isinstance(like, Gaussian)]
    return Gaussian(torch.stack(noise).mean(dim=0)) if noise else likelihoods[0]
