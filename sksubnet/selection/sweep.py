"""A subnetwork's predictive variance under the entry and exit of weights, without refactorising."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

TINY = torch.finfo(torch.float64).tiny

CACHED = 1024
"""Candidates whose gains are computed at once."""

ROWS = 32
"""References whose residuals are squared at once."""

FLOOR = 1e-3
"""Share of a reference's variance below which less of it makes it no more urgent."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The posterior of a subnetwork K as all P candidates see it; weights enter and leave exactly.

    With ``H = Phi^T Phi + delta I`` it keeps ``M = I - Phi_K H_KK^-1 Phi_K^T``, the residuals
    ``E = A - A_K H_KK^-1 Phi_K^T Phi``, ``q_j = phi_j^T M phi_j`` and ``v = diag(A_K H_KK^-1
    A_K^T)``. A candidate outside K adds ``E_j^2 / (delta + q_j)`` to v when it enters, one inside
    takes ``E_j^2 / (delta - q_j)`` away when it leaves: the pivots of orthogonal least squares.
    """

    delta: float
    factors: Tensor
    inverse: Tensor
    residuals: Tensor
    energies: Tensor
    variances: Tensor
    inside: Tensor

    @classmethod
    def empty(cls, factors: Tensor, references: Tensor, delta: float) -> Sweep:
        """No weight is in yet: factors (n, P), reference rows (m, P)."""
        n, n_candidates = factors.shape
        return cls(
            delta,
            factors,
            torch.eye(n, dtype=factors.dtype, device=factors.device),
            references,
            factors.square().sum(0),
            references.new_zeros(len(references)),
            torch.zeros(n_candidates, dtype=torch.bool, device=factors.device),
        )

    def moved(self, block: Tensor) -> tuple[Sweep, Tensor]:
        """Let weights (b,), all inside or all outside, change sides.

        Also return the variance (b, m) that each of them adds after those before it, or takes.
        """
        sign = -1 if self.inside[block[0]] else 1
        phi = self.factors[:, block]
        through = self.inverse @ phi
        pivots = self.delta * torch.eye(len(block)).to(phi) + sign * (phi.mT @ through)
        root = torch.linalg.cholesky(pivots)
        left = torch.linalg.solve_triangular(root, through.mT, upper=False)
        rows = torch.linalg.solve_triangular(root, self.residuals[:, block].mT, upper=False)
        across = left @ self.factors
        moved = rows.square()
        inside = self.inside.clone()
        inside[block] = sign > 0
        after = replace(
            self,
            inverse=torch.addmm(self.inverse, left.mT, left, alpha=-sign),
            residuals=torch.addmm(self.residuals, rows.mT, across, alpha=-sign),
            energies=self.energies - sign * across.square().sum(0),
            variances=(self.variances + sign * moved.sum(0)).clamp(min=0),
            inside=inside,
        )
        return after, moved

    def among(self, columns: Tensor) -> Sweep:
        """Look at a few of the candidates only."""
        return replace(
            self,
            factors=self.factors[:, columns],
            residuals=self.residuals[:, columns],
            energies=self.energies[columns],
            inside=self.inside[columns],
        )

    def members(self) -> Tensor:
        """Weights inside, sorted."""
        return self.inside.nonzero().squeeze(1)

    def objective(self) -> float:
        """Sum over the reference rows of the standard deviation that is kept."""
        return float(self.variances.sqrt().sum())

    def slopes(self) -> Tensor:
        """Return twice the :meth:`gains` to first order (P,), some five times as fast."""
        weights = self.variances.clamp(min=FLOOR).rsqrt()
        total = torch.zeros_like(self.energies)
        for some, rows in zip(weights.split(ROWS), self.residuals.split(ROWS), strict=True):
            total += some @ rows.square()  # few enough to stay in the processor's cache
        return (total / (self.delta + self.energies)).masked_fill_(self.inside, -1.0)

    def gains(self) -> Tensor:
        """Return what each candidate would add to the objective (P,); -1 for those inside."""
        before = self.variances[:, None]
        pieces = []
        columns = zip(
            self.residuals.split(CACHED, dim=1),
            (self.delta + self.energies).split(CACHED),
            strict=True,
        )
        for residuals, pivots in columns:
            added = residuals.square().div_(pivots)
            # A difference of roots without cancellation: positive where there is any influence.
            sums = (before + added).sqrt_().add_(before.sqrt() + TINY)
            pieces.append(added.div_(sums).sum(0))
        return torch.cat(pieces).masked_fill_(self.inside, -1.0)

    def losses(self) -> Tensor:
        """Return what each candidate would take from the objective (P,); inf for those outside."""
        pivots = (self.delta - self.energies).clamp(min=TINY)
        taken = self.residuals.square().div_(pivots)
        kept = (self.variances[:, None] - taken).clamp_(min=0).sqrt_()
        return (self.objective() - kept.sum(0)).masked_fill_(~self.inside, torch.inf)


def dual_variance(
    data: tuple[Tensor, Tensor], cross: Tensor, own: Tensor, prior_precision: float
) -> Tensor:
    """Diagonal of ``A H^-1 A^T`` (m,) by the matrix inversion lemma, so that H is never formed.

    From the eigenvalues and eigenvectors of ``Phi Phi^T`` (n, n), ``A Phi^T`` (m, n), |a|^2 (m,).
    """
    values, vectors = data
    inside = (cross @ vectors).square() / (values.clamp(min=0) + prior_precision)
    return (own - inside.sum(1)).clamp(min=0) / prior_precision
