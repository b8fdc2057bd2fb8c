"""Variational online Gauss-Newton (VOGN): a Gaussian over independent weights, found by training.

Khan et al. 2018 (arXiv 1806.04854), Osawa et al. 2019 (arXiv 1906.02506), and the bias-corrected
momentum and the large initial curvature of Shen et al. 2024 (arXiv 2402.17641).

Shape letters: N rows, B rows of a batch, C latents, K columns of the output Hessian's root, P
weights of the net, S trained ones.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sksubnet.jacobian import (
    JacobianPlan,
    differentiable,
    own_rows,
    squared_jacobian_sum,
    trained_indices,
)
from sksubnet.nets import Rows
from sksubnet.posterior import GaussianPosterior, plan_for, tuned_noise
from sksubnet.predictive import Gaussian, Likelihood, Mixture, predictive_of
from sksubnet.progress import steps
from sksubnet.sampling.weight_draws import WeightDraws, set_weights, with_batch_statistics

if TYPE_CHECKING:
    from sksubnet.nets import Latent, TrainedNet

INITIAL_CURVATURE = 1.0
"""Curvature that every weight starts with. It is far above what nets have, so that training starts
with narrow draws and short steps (the ``h0`` of Shen et al. 2024)."""

N_TIME_CONSTANTS = 20.0
"""Time constants of the moving averages in one training, at whose end the start has a weight of
e⁻²⁰, however few the steps."""

MAX_STEP = 0.3
"""Largest Newton step of a weight, before the learning rate (the clipping of Shen et al. 2024). A
training meets it where the curvature rises faster than its average."""

HELD_OUT_DRAWS = 16
"""Draws of the weights with which held-out rows are predicted after an epoch."""

DIVERGED = 10.0
"""Times the loss of latents 0 at which a training counts as diverged."""

Trained = tuple[GaussianPosterior, Likelihood]
"""What a training has come to."""


def vogn(
    start: TrainedNet,
    *,
    prior_precision: float,
    temperature: float,
    n_epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    damping: float,
    learn_noise: bool,
) -> tuple[GaussianPosterior, Likelihood]:
    """Posterior of the S trained weights, and the likelihood, from the weights of ``start``.

    Minimises E_q[-Σ_n w_n log p(y_n | x_n, w)] + τ KL(q ‖ N(0, I/δ)) over the Gaussians q with a
    diagonal covariance; τ is the temperature, δ the prior precision. At the minimum the precision
    is the expected diagonal of the GGN over τ, plus δ. ``learn_noise`` makes the noise variance of
    a regression the expected squared residual, as the M step of variational EM does.

    Where rows are held out, the epoch counts after which they are predicted best, with a learned
    noise as it suits them.
    """
    with start.row_order() as order:
        epochs = _epochs(
            start,
            order,
            prior_precision=prior_precision,
            temperature=temperature,
            n_epochs=n_epochs,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            damping=damping,
            learn_noise=learn_noise,
        )
        if start.held_out is None:
            posterior, likelihood = deque(epochs, maxlen=1).pop()
        else:
            tune_noise = learn_noise and isinstance(start.likelihood, Gaussian)
            posterior, likelihood = _best(epochs, start, start.held_out, tune_noise)
    weights = start.weight_vector().double()
    indices = trained_indices(start.module).to(weights.device)
    set_weights(start.module, weights.index_copy(0, indices, posterior.mean.to(weights)))
    return posterior, likelihood


def _best(
    epochs: Iterable[Trained], start: TrainedNet, held_out: Rows, tune_noise: bool
) -> Trained:
    """Posterior and likelihood after the epoch in which held-out rows are predicted best."""
    weights, y = held_out.weights.double().cpu(), held_out.y.cpu()
    best, least = None, math.inf
    for posterior, likelihood in epochs:
        latents = draw_weights(start, posterior, HELD_OUT_DRAWS).latents(start.latent, held_out.X)
        if tune_noise:
            likelihood = tuned_noise(predictive_of(Mixture(latents), likelihood), held_out)
        log = torch.stack([likelihood.log_prob(draw, y) for draw in latents]).logsumexp(dim=0)
        loss = -float(weights @ log)
        if best is None or loss < least:
            best, least = (posterior, likelihood), loss
    assert best is not None
    return best


def draw_weights(start: TrainedNet, posterior: GaussianPosterior, n_draws: int) -> WeightDraws:
    """Draws of all weights (M, P): of the trained ones from their posterior, the others as is."""
    weights = start.weight_vector().repeat(n_draws, 1)
    draws = posterior.sample(n_draws, torch.Generator().manual_seed(start.seed))
    weights[:, trained_indices(start.module).to(weights.device)] = draws.to(weights)
    return with_batch_statistics(start.latent, weights, start.train.X)


def _epochs(
    start: TrainedNet,
    order: torch.Generator,
    *,
    prior_precision: float,
    temperature: float,
    n_epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    damping: float,
    learn_noise: bool,
) -> Iterator[Trained]:
    """Run the training; give what it has come to after each epoch."""
    latent, module, rows, likelihood = start.latent, start.module, start.train, start.likelihood
    indices = trained_indices(module)
    # Batch normalisation ties the rows of a batch together, so curvature is that in eval mode.
    module.eval()
    plan = plan_for(start, indices)
    weights = start.weight_vector().double()
    indices = indices.to(weights.device)
    mean = weights[indices]
    velocity, curvature = torch.zeros_like(mean), torch.full_like(mean, INITIAL_CURVATURE)
    draw = torch.zeros_like(mean)
    noise = likelihood.noise_variance.to(mean) if isinstance(likelihood, Gaussian) else None
    initial_noise = noise

    n_rows = float(rows.weights.sum())
    n_batches = -(-len(rows) // batch_size)
    n_steps = n_epochs * n_batches
    new = 1 - math.exp(-N_TIME_CONSTANTS / n_steps)
    null_loss = average_loss = _null_loss(start, rows)
    # All but the order of the rows is drawn from here, so that it does not depend on how many rows
    # there are: weight two is the same as two rows.
    generator = torch.Generator().manual_seed(start.seed)
    batches = _batches(rows, n_epochs, n_batches, order)
    for step in steps(range(n_steps)):
        batch = next(batches)
        unit, scale = _in_units_of_noise(likelihood, noise)
        n_effective = n_rows / (temperature * scale)
        decay = prior_precision / n_effective
        # Every second draw mirrors the one before: what is odd in it cancels in the momentum.
        draw = -draw if step % 2 else _standard_normals(mean, generator)
        std = (n_effective * (curvature + decay)).rsqrt()
        set_weights(module, weights.index_copy(0, indices, mean + std * draw))

        outputs, loss, gradient = _gradient(latent, unit, batch)
        squares = _curvature(latent, unit, batch, plan, generator)[indices]
        velocity.lerp_(gradient, 1 - momentum)
        curvature.lerp_(squares, new)
        average_loss += new * (loss - average_loss)
        if noise is not None and learn_noise:
            residuals = (batch.y - outputs).square()
            noise = noise.lerp((batch.weights @ residuals).double(), new)

        rate = lr * (1 + math.cos(math.pi * step / n_steps)) / 2
        slope = velocity / (1 - momentum ** (step + 1)) + decay * mean
        newton = slope / (curvature + decay + damping)
        mean -= rate * newton.clamp(-MAX_STEP, MAX_STEP)

        if (step + 1) % n_batches == 0:
            # What the averages started with is no estimate, and few epochs leave much of it.
            started = (1 - new) ** (step + 1)
            found = (curvature - started * INITIAL_CURVATURE) / (1 - started)
            reached = noise
            if noise is not None and initial_noise is not None and learn_noise:
                reached = (noise - started * initial_noise) / (1 - started)
            if reached is not None:
                likelihood = Gaussian(reached.cpu())
            precision = n_rows / (temperature * _in_units_of_noise(likelihood, reached)[1]) * found
            yield (
                GaussianPosterior(mean.cpu().clone(), precision.cpu(), None, prior_precision),
                likelihood,
            )

    if not average_loss - null_loss <= (DIVERGED - 1) * abs(null_loss):
        raise ValueError(
            f"VOGN diverged with lr={lr}: the mean loss of a row is {average_loss:.3g}, that of a "
            f"constant prediction {null_loss:.3g}. Lower lr or raise damping={damping}."
        )


def _standard_normals(like: Tensor, generator: torch.Generator) -> Tensor:
    """One standard normal number for each weight (S,), the same on all devices."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def _null_loss(start: TrainedNet, rows: Rows) -> float:
    """Mean loss of latents 0, in the units of the noise that training starts with."""
    likelihood = start.likelihood
    unit, _ = _in_units_of_noise(likelihood, getattr(likelihood, "noise_variance", None))
    zeros = rows.weights.new_zeros(len(rows), start.n_outputs)
    return float(_loss(unit, zeros, rows) / rows.weights.sum())


def _in_units_of_noise(likelihood: Likelihood, noise: Tensor | None) -> tuple[Likelihood, float]:
    """Likelihood in which the mean noise variance is 1, and that variance; 1 for classes.

    In these units neither the step nor the averages change their size when the noise is learned.
    """
    if noise is None:
        return likelihood, 1.0
    scale = float(noise.mean())
    return Gaussian(noise / scale), scale


def _batches(
    rows: Rows, n_epochs: int, n_batches: int, generator: torch.Generator
) -> Iterator[Rows]:
    """Batches in random order, with weights that make their sum estimate the mean of all rows."""
    total = rows.weights.sum()
    for _ in range(n_epochs):
        if n_batches == 1:
            order = torch.arange(1)
        else:
            order = torch.randperm(len(rows), generator=generator)
        # Batches of about the same size: a batch of a single row would break batch normalisation.
        for index in order.to(rows.device).tensor_split(n_batches):
            batch = rows if n_batches == 1 else rows[index]
            share = len(batch) / len(rows)
            yield Rows(batch.X, batch.y, batch.weights / (share * total))


def _loss(likelihood: Likelihood, outputs: Tensor, batch: Rows) -> Tensor:
    """Weighted sum of the negative log likelihood of a batch."""
    return -(batch.weights * likelihood.log_prob(outputs, batch.y)).sum()


def _gradient(latent: Latent, likelihood: Likelihood, batch: Rows) -> tuple[Tensor, float, Tensor]:
    """Latents (B, C), loss, and its gradient (S,), in training mode."""
    module = latent.module.train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    with differentiable(module):
        outputs = latent(own_rows(batch.X))
        loss = _loss(likelihood, outputs, batch)
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    module.eval()
    flat = torch.cat([g.to_dense().reshape(-1) for g in gradients])
    return outputs.detach(), float(loss.detach()), flat.double()


def _curvature(
    latent: Latent,
    likelihood: Likelihood,
    batch: Rows,
    plan: JacobianPlan,
    generator: torch.Generator,
) -> Tensor:
    """Unbiased estimate of the weighted GGN diagonal (P,), exact where K = 1.

    With signs r, E[r rᵀ] = I, the squares of J R r have the expectation of the diagonal of
    J R Rᵀ Jᵀ: one backward pass instead of K. All rows share r, whose error the average over the
    steps removes. Squared gradients of the loss, as in the papers, would depend on the residuals:
    with noise-free rows they vanish, however much these rows say.
    """

    def seeds(outputs: Tensor) -> Tensor:
        root = likelihood.hessian_root(outputs)
        signs = torch.randint(2, root.shape[-1:], generator=generator).to(root) * 2 - 1
        return (root @ signs * batch.weights.sqrt()[:, None])[..., None]

    return squared_jacobian_sum(latent, batch.X, seeds, plan)
