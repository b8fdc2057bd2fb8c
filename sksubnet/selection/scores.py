"""How single weights are ranked, each on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sksubnet.jacobian import trained_indices
from sksubnet.posterior import ggn_diagonal
from sksubnet.sampling import swag_moments
from sksubnet.selection.reference import reference_energy, reference_inputs, ridge_leverage

if TYPE_CHECKING:
    from sksubnet.nets import TrainedNet


def random_scores(trained: TrainedNet) -> Tensor:
    """Uniform scores (P,), so that every subnetwork of a size is equally likely."""
    generator = torch.Generator().manual_seed(trained.seed)
    return torch.rand(len(trained.weight_vector()), generator=generator, dtype=torch.float64)


def magnitude_scores(trained: TrainedNet) -> Tensor:
    """Absolute value of each weight (P,)."""
    return trained.weight_vector().abs()


def variance_scores(trained: TrainedNet) -> Tensor:
    """Marginal variances (P,) under diagonal Laplace with unit prior precision.

    The literal rule of the paper (Daxberger et al. 2021, section 5). Weights without any
    effect on the training outputs keep the prior's variance, the largest there is.
    """
    diagonal = ggn_diagonal(trained, trained.train).diagonal
    assert diagonal is not None
    return 1 / (diagonal + 1)


def swag_scores(trained: TrainedNet) -> Tensor:
    """Variances (P,) along SGD from the MAP, as in the code of the paper's authors."""
    return swag_moments(trained).variance


def gradient_scores(trained: TrainedNet) -> Tensor:
    """Mean squared gradients (P,) of an output at the reference inputs.

    The score of Gradient-Laplace (Raha, Khare & Patra 2026).
    """
    return reference_energy(trained, reference_inputs(trained))


def saliency_scores(trained: TrainedNet) -> Tensor:
    """Rise of the loss (P,) if a weight were zero, to second order: w² G_jj / 2.

    Optimal brain damage (LeCun, Denker & Solla 1990), which prunes the smallest.
    """
    diagonal = ggn_diagonal(trained, trained.train).diagonal
    assert diagonal is not None
    # Weights of zero come before those without influence.
    return trained.weight_vector().double().square().clamp(min=1e-100) * diagonal / 2


def leverage_scores(trained: TrainedNet) -> Tensor:
    """Ridge leverages (P,): one minus the posterior over the prior variance of a weight."""
    indices = trained_indices(trained.module)
    scores = torch.zeros(len(trained.weight_vector()), dtype=torch.float64)
    scores[indices] = ridge_leverage(trained, indices).cpu()
    return scores


SCORES: dict[str, Callable[[TrainedNet], Tensor]] = {
    "swag": swag_scores,
    "variance": variance_scores,
    "random": random_scores,
    "magnitude": magnitude_scores,
    "gradient": gradient_scores,
    "saliency": saliency_scores,
    "leverage": leverage_scores,
}
