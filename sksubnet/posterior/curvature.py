"""The generalised Gauss-Newton matrix (GGN) of a subnetwork, summed over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from sksubnet.jacobian import (
    FactoredRows,
    JacobianPlan,
    Model,
    evaluate,
    factored_jacobian,
    jacobian,
    plan_jacobian,
    squared_jacobian_sum,
    trained_indices,
)
from sksubnet.posterior.cholesky import mirror_upper_
from sksubnet.posterior.memory import (
    factored_rows_within_budget,
    rows_of_layers,
    rows_of_products,
    rows_within_budget,
)
from sksubnet.progress import steps

if TYPE_CHECKING:
    from sksubnet.nets import Rows, TrainedNet
    from sksubnet.predictive import Likelihood

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Curvature:
    """GGN of S weights, ``sum_n w_n J_n^T Lambda_n J_n``, as one of three representations.

    Attributes
    ----------
    log_likelihood : float
        Weighted log likelihood of the rows at the MAP.
    n_rows : float
        Sum of the row weights.
    matrix : Tensor of shape (S, S) or None
        The GGN itself (primal).
    factors : FactoredRows or None
        Rows Phi (n, S) with ``GGN = Phi^T Phi`` (dual), for n < S.
    diagonal : Tensor of shape (S,) or None
        Its diagonal only.
    """

    log_likelihood: float
    n_rows: float
    matrix: Tensor | None = field(default=None, repr=False)
    factors: FactoredRows | None = field(default=None, repr=False)
    diagonal: Tensor | None = field(default=None, repr=False)

    def part(self, places: Tensor) -> Curvature:
        """GGN of some of the weights: sorted places (s,) among the S."""
        if self.diagonal is not None:
            return replace(self, diagonal=self.diagonal[places])
        if self.matrix is not None:
            at = places.to(self.matrix.device)
            return replace(self, matrix=self.matrix[at[:, None], at])
        assert self.factors is not None
        factors = self.factors.part(places)
        if len(factors) < len(places):
            return replace(self, factors=factors)
        rows = factors.dense().flatten(0, 1)
        return replace(self, factors=None, matrix=rows.mT @ rows)

    def jacobian(self, model: Model, plan: JacobianPlan, X: Any) -> tuple[Tensor, Any]:
        """Latents (B, C) of a batch, and its Jacobian rows in the form of the GGN, on the CPU."""
        if self.matrix is None:
            outputs, factored = factored_jacobian(model, plan, X)
            return outputs.double().cpu(), factored.cpu()
        outputs, rows = jacobian(model, plan, X)
        return outputs.double().cpu(), rows.cpu()

    def __add__(self, other: Curvature) -> Curvature:
        """Curvature of the rows of both, where neither keeps factors."""
        sums = (
            None if one is None or two is None else one + two
            for one, two in ((self.matrix, other.matrix), (self.diagonal, other.diagonal))
        )
        matrix, diagonal = sums
        log_likelihood = self.log_likelihood + other.log_likelihood
        n_rows = self.n_rows + other.n_rows
        return Curvature(log_likelihood, n_rows, matrix=matrix, diagonal=diagonal)

    def eigendecomposition(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (R,) and basis (S, R) of the GGN.

        The basis of the dual is (n, R), and stands for ``Phi^T`` times it.

        Directions whose eigenvalue is rounding error are left out where that at least halves the
        basis; the posterior treats them as directions about which the data say nothing.
        """
        if self.factors is not None:
            values, vectors = torch.linalg.eigh(self.factors.inner(self.factors))
            keep = values > rounding_error(values)
            values = values[keep]
            return values, vectors[:, keep] * values.rsqrt()
        assert self.matrix is not None
        values, basis = torch.linalg.eigh(self.matrix)
        keep = values > rounding_error(values)
        if keep.sum() <= len(values) / 2:
            return values[keep], basis[:, keep]
        return values.clamp(min=0), basis


def ggn(
    trained: TrainedNet,
    plan: JacobianPlan,
    rows: Rows,
    *,
    dtype: torch.dtype = torch.float64,
    batch_size: int | None = None,
) -> Curvature:
    """GGN of the subnetwork that ``plan`` describes, over ``rows``, accumulated in ``dtype``."""
    if batch_size is None:
        batch_size = rows_within_budget(plan, trained.n_outputs, trained.latent.dtype)
    total = torch.zeros(plan.n_selected, plan.n_selected, dtype=dtype, device=rows.device)
    log_likelihood = 0.0
    # Large nets take few rows at once, and the product of a few columns is as slow as that of many.
    enough = rows_of_products(plan, trained.n_outputs, trained.latent.dtype)
    found: list[Tensor] = []
    for batch in steps(list(batches(rows, batch_size))):
        seeds = _weighted_roots(trained, batch)
        outputs, phi = jacobian(trained.latent, plan, batch.X, seeds)
        log_likelihood += _log_likelihood(trained, outputs, batch)
        found.append(phi)
        if sum(map(len, found)) + batch_size > enough:
            add_upper_gram_(total, _columns(found))
            found.clear()
    if found:
        add_upper_gram_(total, _columns(found))
    mirror_upper_(total)
    return Curvature(log_likelihood, float(rows.weights.sum()), matrix=total)


def _columns(found: list[Tensor]) -> Tensor:
    """Jacobian rows (B, K, S) of several batches as columns of one matrix (S, ΣB·K)."""
    return torch.cat([phi.permute(2, 1, 0) for phi in found], dim=2).flatten(1)


def ggn_factors(
    trained: TrainedNet,
    plan: JacobianPlan,
    rows: Rows,
    *,
    batch_size: int | None = None,
) -> Curvature:
    """Return the same GGN by factors, one for each row and column of the output Hessian's root."""
    if batch_size is None:
        batch_size = factored_rows_within_budget(plan, trained.n_outputs, trained.latent.dtype)
    factors: list[FactoredRows] = []
    log_likelihood = 0.0
    for batch in steps(list(batches(rows, batch_size))):
        seeds = _weighted_roots(trained, batch)
        outputs, phi = factored_jacobian(trained.latent, plan, batch.X, seeds)
        log_likelihood += _log_likelihood(trained, outputs, batch)
        factors.append(phi.double())
    return Curvature(log_likelihood, float(rows.weights.sum()), factors=FactoredRows.stack(factors))


def ggn_diagonal(trained: TrainedNet, rows: Rows, *, batch_size: int | None = None) -> Curvature:
    """Diagonal of the GGN over all P weights of the net; frozen weights have curvature 0."""
    indices = trained_indices(trained.module)
    plan = plan_for(trained, indices)
    diagonal = torch.zeros(len(trained.weight_vector()), dtype=torch.float64, device=rows.device)
    log_likelihood = 0.0
    if batch_size is None:
        batch_size = rows_of_layers(plan, trained.n_outputs, trained.latent.dtype)
    for batch in steps(list(batches(rows, batch_size))):
        seeds = _weighted_roots(trained, batch)
        diagonal += squared_jacobian_sum(trained.latent, batch.X, seeds, plan)
        with torch.no_grad():
            outputs = evaluate(trained.latent, batch.X)
        log_likelihood += _log_likelihood(trained, outputs, batch)
    return Curvature(log_likelihood, float(rows.weights.sum()), diagonal=diagonal)


def plan_for(trained: TrainedNet, indices: Tensor) -> JacobianPlan:
    """Plan the Jacobian of some weights, checked on a few training rows."""
    return plan_jacobian(trained.latent, indices, trained.train.X)


def output_energy(trained: TrainedNet, plan: JacobianPlan, n_rows: int | None = None) -> Tensor:
    """Squared Jacobian (S,) of single weights, summed over the outputs of some training rows.

    Outputs are added with random signs, which gives the sum in expectation for one backward pass.
    """
    if n_rows is None:
        # A small part of the cost of the curvature itself.
        n_rows = min(max(len(trained.train) // 10, 64), 256)
    rows = trained.train[:: -(-len(trained.train) // n_rows)]
    energy = torch.zeros(plan.n_selected, dtype=torch.float64)
    generator = torch.Generator().manual_seed(trained.seed)

    def signs(outputs: Tensor) -> Tensor:
        drawn = torch.randint(2, (*outputs.shape, 1), generator=generator)
        return (2 * drawn - 1).to(outputs)

    for batch in batches(rows, rows_within_budget(plan, 1, trained.latent.dtype)):
        _, phi = jacobian(trained.latent, plan, batch.X, signs)
        energy += phi.double().square().sum(dim=(0, 1)).cpu()
    return energy


def add_upper_gram_(total: Tensor, columns: Tensor) -> None:
    """Add ``A A^T`` of A (S, n) to the upper triangle, by block rows: half of the full product."""
    block = min(max(128, len(total) // 8), 1024)
    for start in range(0, len(total), block):
        stop = min(start + block, len(total))
        total[start:stop, start:] += columns[start:stop] @ columns[start:].mT


def batches(rows: Rows, batch_size: int) -> Iterator[Rows]:
    """Cut rows into consecutive batches."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def hessian_rank(likelihood: Likelihood, n_outputs: int) -> int:
    """Columns K of the root of the output Hessian: rows of ``Phi`` that a data row gives."""
    flat = torch.zeros(1, n_outputs, dtype=torch.float64)
    return int(likelihood.hessian_root(flat).shape[-1])


def n_factors(likelihood: Likelihood, n_outputs: int, n_rows: int) -> int:
    """Count the rows of ``Phi`` that so many data rows give."""
    return n_rows * hessian_rank(likelihood, n_outputs)


def _weighted_roots(trained: TrainedNet, batch: Rows) -> Callable[[Tensor], Tensor]:
    """Seeds (B, C, K) for ``jacobian``: roots of the output Hessian, weighted."""
    root_weights = batch.weights.sqrt()[:, None, None]
    likelihood = batch.likelihood(trained.likelihood)
    return lambda outputs: likelihood.hessian_root(outputs) * root_weights


def _log_likelihood(trained: TrainedNet, outputs: Tensor, batch: Rows) -> float:
    likelihood = batch.likelihood(trained.likelihood)
    return float((batch.weights * likelihood.log_prob(outputs, batch.y)).sum())


def rounding_error(eigenvalues: Tensor) -> float:
    """Eigenvalue below which there is nothing but rounding."""
    largest = float(eigenvalues.max().clamp(min=0)) if len(eigenvalues) else 0.0
    return largest * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
