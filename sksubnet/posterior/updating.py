"""New rows in the posterior of a net that stays as it is: precisions add up, and the mean moves.

Around the trained weights w* the net is linear, f(w) = f* + J (w - w*), so that new rows make of
the posterior N(w* + Δ₀, H⁻¹) that of a generalised linear model. Its mode minimises
½ (Δ - Δ₀)ᵀ H (Δ - Δ₀) - Σ log p(y | f* + J Δ), and its precision there is H + Σ Jᵀ Λ J. For
Gaussian noise that is Bayesian linear regression, in one step of Newton's; for other likelihoods it
is Laplace's approximation, in some.

Shape letters: B rows of a batch, C outputs, K columns of a root of Λ, S weights, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sksubnet.jacobian import FactoredRows, JacobianPlan, LayerRows
from sksubnet.posterior.cholesky import CholeskyPosterior, ShiftedCholesky
from sksubnet.posterior.curvature import Curvature, batches, n_factors, rounding_error
from sksubnet.posterior.diagonal import DiagonalPosterior
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.kernel import KernelPosterior
from sksubnet.posterior.kinds import Posterior
from sksubnet.posterior.memory import EIGEN_LIMIT, MEMORY_BUDGET
from sksubnet.predictive import Gaussian

if TYPE_CHECKING:
    from sksubnet.nets import Rows, TrainedNet
    from sksubnet.predictive import Likelihood

MOST_STEPS, MOST_HALVINGS = 100, 30

CONVERGED = 1e-18
"""Decrement of Newton's method, as a share of the objective, that rounding leaves."""

FullPosterior = GaussianPosterior | CholeskyPosterior


@dataclass(frozen=True, eq=False)
class Updated:
    """A posterior that knows more rows.

    Attributes
    ----------
    posterior : Posterior
        With the new mean and precision.
    shift : Tensor of shape (S,)
        What its mean differs by from the trained weights.
    log_evidence : float
        Log of the probability of the new rows given the old ones, in nats: exact for Gaussian
        noise, Laplace's approximation for other likelihoods.
    """

    posterior: Posterior
    shift: Tensor
    log_evidence: float


@dataclass(frozen=True, eq=False)
class Linearised:
    """A batch of rows as a generalised linear model of the weights, in float64 on the CPU.

    ``latents`` (B, C) are those of the trained net, ``jacobian`` is (B, C, S).
    """

    latents: Tensor
    jacobian: Tensor | FactoredRows
    likelihood: Likelihood
    y: Tensor
    weights: Tensor

    def along(self, vector: Tensor) -> Tensor:
        """Change (B, C) of the latents for a change (S,) of the weights."""
        if isinstance(self.jacobian, FactoredRows):
            return self.jacobian.times(vector).view(self.latents.shape)
        return self.jacobian @ vector

    def combined(self, seeds: Tensor) -> Tensor | FactoredRows:
        """Rows (B, K, S) that are sums over the outputs with coefficients (B, C, K)."""
        if not isinstance(self.jacobian, FactoredRows):
            return torch.einsum("bcs,bck->bks", self.jacobian, seeds)
        return FactoredRows(
            tuple(
                LayerRows(torch.einsum("bco,bck->bko", layer.left, seeds), layer.right)
                for layer in self.jacobian.layers
            )
        )

    def loss(self, latents: Tensor) -> float:
        """Negative log likelihood at latents (B, C)."""
        return -float(self.weights @ self.likelihood.log_prob(latents, self.y))

    def gradient(self, latents: Tensor) -> Tensor:
        """Gradient (S,) of the log likelihood in the weights."""
        with torch.enable_grad():
            f = latents.clone().requires_grad_()
            total = self.weights @ self.likelihood.log_prob(f, self.y)
            (slope,) = torch.autograd.grad(total, f)
        if isinstance(self.jacobian, FactoredRows):
            return self.jacobian.combine(slope.reshape(1, -1))[0]
        return torch.tensordot(slope, self.jacobian, dims=2)

    def roots(self, latents: Tensor) -> Tensor | FactoredRows:
        """Rows (B, K, S) whose outer products add up to the GGN at latents (B, C)."""
        roots = self.likelihood.hessian_root(latents)
        return self.combined(roots * self.weights.sqrt()[:, None, None])


Known = Callable[[], Iterable[Linearised]]
"""Gives the new rows, batch by batch, as often as asked."""


def updated(
    posterior: Posterior, shift: Tensor, trained: TrainedNet, plan: JacobianPlan, rows: Rows
) -> Updated:
    """Posterior that knows these rows too; ``shift`` (S,) is what its mean differs by so far.

    ``trained`` has the likelihood, with the noise that was tuned.
    """
    prior = _with_room(posterior, n_factors(trained.likelihood, trained.n_outputs, len(rows)))
    known = _linearised(prior, trained, plan, rows)
    is_quadratic = isinstance(trained.likelihood, Gaussian)
    at, pull = shift, torch.zeros_like(shift)  # Δ, and H (Δ - Δ₀)
    latents = [part.latents + part.along(shift) for part in known()]
    objective = _loss(known, latents)
    for _ in range(MOST_STEPS):
        new = _with_curvature(prior, known, latents)
        gradients = [part.gradient(f) for part, f in zip(known(), latents, strict=True)]
        downhill = torch.stack(gradients).sum(dim=0) - pull
        step = _covariance_times(new, downhill)
        if float(downhill @ step) <= CONVERGED * (1 + abs(objective)):
            break
        changes, pulled = [part.along(step) for part in known()], _precision_times(prior, step)
        size = 1.0
        for _ in range(MOST_HALVINGS):
            moved = [f + size * change for f, change in zip(latents, changes, strict=True)]
            distance = (at + size * step - shift) @ (pull + size * pulled) / 2
            tried = _loss(known, moved) + float(distance)
            if tried <= objective or is_quadratic:
                break
            size /= 2
        else:
            break  # rounding leaves no lower objective
        at, pull, latents, objective = at + size * step, pull + size * pulled, moved, tried
        if is_quadratic:
            break
    occam = (_log_occam(new) - _log_occam(posterior)) / 2
    mean = posterior.mean + (at - shift)
    return Updated(replace(new, mean=mean), at, -objective - occam)


def _with_room(posterior: Posterior, n_new: int) -> FullPosterior:
    """Posterior in terms of weights instead of rows, where there are to be more of these."""
    if isinstance(posterior, DiagonalPosterior):
        raise ValueError(
            "update needs the covariance between the weights, along which their mean moves, but "
            "covariance='diag' keeps none; fit with covariance='full', and a smaller "
            "subnetwork_size where that is too large."
        )
    assert isinstance(posterior, GaussianPosterior | CholeskyPosterior)
    n_weights = len(posterior.mean)
    if not isinstance(posterior, KernelPosterior) or n_weights > EIGEN_LIMIT:
        return posterior
    if len(posterior.training_rows) + n_new < n_weights:
        return posterior
    values, delta = posterior.eigenvalues, posterior.prior_precision
    return GaussianPosterior(posterior.mean, values, _directions(posterior), delta)


def _directions(posterior: KernelPosterior) -> Tensor:
    """Eigenvectors (S, R)."""
    assert posterior.basis is not None
    return posterior.training_rows.combine(posterior.basis.mT).mT


def _linearised(prior: FullPosterior, trained: TrainedNet, plan: JacobianPlan, rows: Rows) -> Known:
    """Linearise the net at the rows: once where their Jacobian fits the memory, else anew."""
    step = prior.rows_per_batch(plan, trained.n_outputs, trained.latent.dtype)

    def computed() -> Iterator[Linearised]:
        for batch in batches(rows, step):
            latents, jacobian = prior.jacobian(trained.latent, plan, batch.X)
            if isinstance(jacobian, Tensor):
                jacobian = jacobian.contiguous()  # its rows come last, and are asked for often
            y = batch.y.double() if batch.y.is_floating_point() else batch.y
            likelihood, weights = batch.likelihood(trained.likelihood), batch.weights.double()
            yield Linearised(latents, jacobian.double(), likelihood, y.cpu(), weights.cpu())

    numbers = plan.n_kept if isinstance(prior, KernelPosterior) else plan.n_selected
    if 8 * len(rows) * trained.n_outputs * numbers > MEMORY_BUDGET:
        return computed
    kept = list(computed())
    return lambda: kept


def _loss(known: Known, latents: list[Tensor]) -> float:
    """Negative log likelihood, ``inf`` where there is none."""
    total = sum(part.loss(f) for part, f in zip(known(), latents, strict=True))
    return math.inf if math.isnan(total) else total


def _with_curvature(prior: FullPosterior, known: Known, latents: list[Tensor]) -> FullPosterior:
    """Posterior whose precision has the GGN of the rows at these latents (B, C) added."""
    roots = (part.roots(f) for part, f in zip(known(), latents, strict=True))
    if isinstance(prior, KernelPosterior):
        rows = [phi for phi in roots if isinstance(phi, FactoredRows)]
        return _with_rows(prior, FactoredRows.stack(rows))
    total = torch.zeros(len(prior.mean), len(prior.mean), dtype=torch.float64)
    for phi in roots:
        assert isinstance(phi, Tensor)
        total += phi.flatten(0, 1).mT @ phi.flatten(0, 1)
    if isinstance(prior, CholeskyPosterior):
        return _refactorised(prior, total)
    assert prior.basis is not None
    matrix = prior.basis * prior.eigenvalues @ prior.basis.mT + total
    values, basis = Curvature(0.0, 0.0, matrix=matrix).eigendecomposition()
    return replace(prior, eigenvalues=values, basis=basis).tuned(prior.prior_precision)


def _with_rows(prior: KernelPosterior, new: FactoredRows) -> KernelPosterior:
    """Posterior from the inner products of the old directions and the new rows.

    An old direction is an eigenvector times the root of its eigenvalue: these (R) and the new rows
    have the whole GGN as the sum of their outer products.
    """
    assert prior.basis is not None
    scaled = prior.basis * prior.eigenvalues.sqrt()
    mixed = scaled.mT @ prior.training_rows.inner(new)
    upper = torch.cat([torch.diag(prior.eigenvalues), mixed], dim=1)
    gram = torch.cat([upper, torch.cat([mixed.mT, new.inner(new)], dim=1)])
    values, vectors = torch.linalg.eigh(gram)
    keep = values > rounding_error(values)
    values, vectors = values[keep], vectors[:, keep] * values[keep].rsqrt()
    rank = len(prior.eigenvalues)
    basis = torch.cat([scaled @ vectors[:rank], vectors[rank:]])
    rows = FactoredRows.stack([prior.training_rows, new])
    return replace(prior, training_rows=rows, eigenvalues=values, basis=basis)


def _refactorised(prior: CholeskyPosterior, ggn: Tensor) -> CholeskyPosterior:
    """Posterior with factors in memory of its own, so that the old one stays valid."""
    matrix = prior.factor.matrix.clone()
    matrix.diagonal().copy_(prior.factor.diagonal)
    matrix += prior.noise_scale * ggn
    fresh = replace(prior, factor=ShiftedCholesky(matrix))
    return fresh.tuned(prior.prior_precision, prior.noise_scale)


def _covariance_times(posterior: FullPosterior, vector: Tensor) -> Tensor:
    """H⁻¹ v, for v (S,)."""
    if isinstance(posterior, CholeskyPosterior):
        return posterior.noise_scale * posterior.factor.solve(vector[None])[0]
    delta = posterior.prior_precision
    shares = posterior.eigenvalues / (posterior.eigenvalues + delta)
    return (vector - _within(posterior, shares, vector)) / delta


def _precision_times(posterior: FullPosterior, vector: Tensor) -> Tensor:
    """H v, for v (S,)."""
    if isinstance(posterior, CholeskyPosterior):
        return posterior.factor.multiply(vector[None])[0] / posterior.noise_scale
    within = _within(posterior, posterior.eigenvalues, vector)
    return within + posterior.prior_precision * vector


def _within(posterior: GaussianPosterior, scale: Tensor, vector: Tensor) -> Tensor:
    """V diag(scale) Vᵀ v, with the eigenvectors V."""
    assert posterior.basis is not None
    if isinstance(posterior, KernelPosterior):
        inside = posterior.training_rows.times(vector) @ posterior.basis
        return posterior.training_rows.combine((posterior.basis @ (inside * scale))[None])[0]
    return posterior.basis @ (vector @ posterior.basis * scale)


def _log_occam(posterior: Posterior) -> float:
    """Log determinant of the precision over that of the prior."""
    penalty = posterior.prior_precision * float(posterior.mean.square().sum())
    return -2 * posterior.log_evidence(0.0) - penalty
