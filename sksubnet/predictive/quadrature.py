"""Gaussians over the latents as weighted points: quasi-random draws, and nodes of a quadrature.

Shape letters: B rows, C latents, M draws or nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

N_NODES = 257
"""Nodes of the trapezoidal rule for a single latent."""

NODE_RANGE = 8.5
"""Standard deviations on each side that the nodes cover."""

N_DRAWS = 1000
_CHUNK_BYTES = 64 * 2**20


def row_chunks(n_rows: int, n_draws: int, n_outputs: int) -> Iterator[slice]:
    """Slices over the rows such that the (M, B, C) float64 draws of a slice take about 64 MiB."""
    # The draws live next to their exponentials and to the normalised probabilities.
    step = max(1, _CHUNK_BYTES // (3 * 8 * n_draws * n_outputs))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def _base_normals(n_draws: int, n_outputs: int, seed: int) -> Tensor:
    """Float64 standard normals (M, C), scrambled Sobol; the global random state stays as it is."""
    engine = SobolEngine(n_outputs, scramble=True, seed=seed)
    uniform: Tensor = engine.draw(n_draws, dtype=torch.float64)
    # The sequence has 30 bits, so 0 occurs; half a step keeps both tails finite.
    normals: Tensor = torch.special.ndtri(uniform.clamp(2.0**-31, 1 - 2.0**-31))
    return normals


def _symmetric_root(covariance: Tensor) -> Tensor:
    """Symmetric square root of covariance (B, C, C), negative eigenvalues clamped at 0."""
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    root: Tensor = (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
    return root


def latent_draws(mean: Tensor, covariance: Tensor, seed: int, n_draws: int = N_DRAWS) -> Tensor:
    """Quasi-random draws (M, B, C), float64, of N(mean (B, C), covariance (B, C, C)).

    All rows share the base normals, so the draws of a row do not depend on the rows around it.
    """
    mean, covariance = mean.double(), covariance.double()
    n_rows, n_outputs = mean.shape
    base = _base_normals(n_draws, n_outputs, seed).to(mean.device)
    # Unlike other roots, the symmetric one does not depend on the signs of the eigenvectors.
    root = _symmetric_root(covariance)
    stacked = root.permute(1, 0, 2).reshape(n_outputs, n_rows * n_outputs)
    return (base @ stacked).view(n_draws, n_rows, n_outputs) + mean


def latent_nodes(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes (M, B, C) and weights (M,) for expectations over each latent by itself, float64.

    By the trapezoidal rule, which converges faster than any power of the step for smooth functions
    that a normal density damps, and stays good where they are steep: a node is no further from the
    next than 1/15 of a standard deviation.
    """
    z = torch.linspace(-NODE_RANGE, NODE_RANGE, N_NODES, dtype=torch.float64, device=mean.device)
    std = covariance.double().diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    return mean.double() + std * z[:, None, None], torch.softmax(-z.square() / 2, dim=0)
