"""New rows for nets that are trained already: their posteriors take them in, the nets stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from sksubnet.estimators.base import as_read, criterion_weighted, rows_of
from sksubnet.estimators.fitted import FittedNet
from sksubnet.estimators.folds import Table
from sksubnet.estimators.linearised import LinearisedNet
from sksubnet.jacobian import Turn
from sksubnet.nets import Rows, TrainedNet
from sksubnet.posterior import updated
from sksubnet.predictive import Gaussian

ONE_UPDATE = Turn()
"""Two updates of an estimator at once would each begin with the same posterior, and one be lost."""


def read_rows(net: FittedNet, table: Table) -> Rows:
    """Rows as a net reads them, with its class weights and its noise at each."""
    rows = criterion_weighted(as_read(rows_of(net.latent, table), net.net), net.net.criterion_)
    if net.noise is None:
        return rows
    return replace(rows, noise=net.noise(rows.X).to(rows.y))


def updated_net(
    net: LinearisedNet, rows: Rows, log_units: Callable[[Rows], float]
) -> LinearisedNet:
    """Return a net that knows the rows; ``log_units`` takes log densities to the target's units."""
    if not isinstance(net.likelihood, Gaussian):
        # Laplace's approximations of one part after the other would depend on how they are cut.
        added = rows if net.added is None else Rows.stack([net.added, rows])
        net = net if net.origin is None else net.origin
        return replace(_with(net, added, log_units(added)), origin=net, added=added)
    return _with(net, rows, log_units(rows))


def _with(net: LinearisedNet, rows: Rows, log_units: float) -> LinearisedNet:
    """Return a net whose posterior and evidence have these rows as well."""
    trained = TrainedNet(
        module=net.latent.module,
        latent=net.latent,
        likelihood=net.likelihood,
        n_outputs=net.n_outputs,
        train=rows,
        held_out=None,
        seed=net.seed,
    )
    shift = torch.zeros_like(net.posterior.mean) if net.shift is None else net.shift
    found = updated(net.posterior, shift, trained, net.plan, rows)
    evidence = net.posterior.log_evidence(net.log_likelihood) + found.log_evidence + log_units
    return replace(
        net,
        posterior=found.posterior,
        shift=found.shift,
        log_likelihood=evidence - found.posterior.log_evidence(0.0),
    )
