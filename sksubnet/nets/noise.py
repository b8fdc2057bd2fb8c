"""Noise that differs from row to row: a second net, of the squared residuals of the first.

It leaves the mean as it is, unlike one net with two outputs; see Detlefsen, Jorgensen and Hauberg,
"Reliable training and estimation of variance networks", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sksubnet.jacobian import evaluate
from sksubnet.nets.criteria import LOG_VARIANCE_LIMIT
from sksubnet.nets.default import Schedule, TabularNet
from sksubnet.nets.encoding import Encoding
from sksubnet.nets.inputs import latent_of
from sksubnet.nets.modules import Training, load, outcome
from sksubnet.nets.randomness import RandomStream
from sksubnet.nets.trained import Latent, Rows
from sksubnet.nets.training import fit_net, prepare

NOISE_NET = TabularNet(bins=0, lr=2e-3, patience=8)


@dataclass(frozen=True, eq=False)
class NoiseNet:
    """Noise variance of each output as a function of the inputs: the mean of some nets.

    Attributes
    ----------
    nets : tuple of skorch net
        Logarithm of the variance over the level.
    levels : tuple of Tensor of shape (C,)
        Variance where the logarithm is 0.
    encodings : tuple of Encoding
        How rows, flattened, are standardised for each of the nets.
    """

    nets: tuple[Any, ...]
    levels: tuple[Tensor, ...]
    encodings: tuple[Encoding, ...]

    @property
    def latents(self) -> tuple[Latent, ...]:
        """The functions of the nets."""
        return tuple(map(latent_of, self.nets))

    def __call__(self, X: Tensor) -> Tensor:
        """Noise variances (B, C) of rows, float64 on the CPU."""
        members = zip(self.latents, self.levels, self.encodings, strict=True)
        parts = [
            level * _factor(latent, _standardised(X, encoding, latent.dtype))
            for latent, level, encoding in members
        ]
        return torch.stack(parts).mean(dim=0)

    def scaled(self, scale: float) -> NoiseNet:
        """Noise of so many times the variance."""
        return replace(self, levels=tuple(scale * level for level in self.levels))

    def to(self, device: torch.device) -> NoiseNet:
        """Move the nets, in place, to where the rows are."""
        for net in self.nets:
            net.module_.to(device)
        return self

    @classmethod
    def mean(cls, nets: Sequence[NoiseNet]) -> NoiseNet:
        """Average the variances of nets that have one member each."""
        members = tuple(member for net in nets for member in net.nets)
        levels = tuple(level for net in nets for level in net.levels)
        return cls(members, levels, tuple(one for net in nets for one in net.encodings))


def _standardised(X: Tensor, encoding: Encoding, dtype: torch.dtype) -> Tensor:
    """Rows (B, ...) as inputs (B, F) of a noise net."""
    inputs = encoding(X.flatten(1).double().cpu().numpy())
    return torch.as_tensor(inputs, dtype=dtype, device=X.device)


def _factor(latent: Latent, X: Tensor) -> Tensor:
    """Variances (B, C) over the level, float64 on the CPU."""
    with torch.inference_mode():
        change = evaluate(latent, X).double().cpu()
    return change.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT).exp()


def fit_noise(
    train: Rows,
    held_out: Rows,
    dtype: torch.dtype,
    seed: int,
    training: Training | None = None,
) -> NoiseNet:
    """Train on squared residuals, the targets (N, C) of the rows; stop early on those held out.

    Or take a training that is known.
    """
    weights = train.weights / train.weights.sum()
    level = (weights @ train.y).clamp(min=torch.finfo(train.y.dtype).tiny)
    row_weights = train.weights.double().cpu().numpy()
    encoding = Encoding.of(train.X.flatten(1).double().cpu().numpy(), row_weights, {})
    train, held_out = (
        replace(rows, X=_standardised(rows.X, encoding, dtype), y=rows.y / level)
        for rows in (train, held_out)
    )
    X = train.X.double().cpu().numpy()
    net = NOISE_NET.build(
        X,
        row_weights,
        task="noise",
        schedule=Schedule.until_stopped(len(train)),
    )
    stream = RandomStream(seed)
    with stream.everywhere():
        net = prepare(net, X[:2], n_outputs=train.y.shape[1], dtype=dtype)
    net.module_.to(train.X.device)
    load(net, training or fit_net(net, train, held_out, stream))
    return NoiseNet((net,), (level.double().cpu(),), (encoding,))


def noise_training(train: Rows, held_out: Rows, dtype: torch.dtype, seed: int) -> Training:
    """Train as :func:`fit_noise`; what is kept of it."""
    (net,) = fit_noise(train, held_out, dtype, seed).nets
    return outcome(net)
