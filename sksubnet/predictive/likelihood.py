"""Likelihoods: output Hessian root, log probability, and the link of a Gaussian over the latents.

Shape letters: N and B rows, C latents, K classes, M draws. The latents f are the outputs of the
net: logits (or log probabilities, which the softmax leaves as they are) or regression means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

__all__ = [
    "LIKELIHOODS",
    "LINKS",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "criterion_row_weights",
    "latent_draws",
    "likelihood_of",
    "link_of",
    "row_chunks",
]

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


def _variances(covariance: Tensor) -> Tensor:
    """Diagonals (B, C) of the covariance (B, C, C), negative rounding clamped at 0."""
    return covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0)


def _probit(mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """Softmax of the latents shrunk one by one, (B, C): Daxberger et al. 2021, section 3."""
    return torch.softmax(mean / torch.sqrt(1 + math.pi / 8 * _variances(covariance)), dim=-1)


def _extended_probit(mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """Probabilities (B, C) from the pairwise differences of the latents; a common shift cancels."""
    variance = _variances(covariance)
    spread = variance.unsqueeze(-1) + variance.unsqueeze(-2) - covariance - covariance.mT
    difference = mean.unsqueeze(-1) - mean.unsqueeze(-2)
    scaled = difference / torch.sqrt(1 + math.pi / 8 * spread.clamp_min(0))
    # Softmax of the log of 1 / sum_k exp(-scaled): no overflow whatever the latents.
    return torch.softmax(-torch.logsumexp(-scaled, dim=-1), dim=-1)


def _monte_carlo(mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """Mean softmax (B, C) over draws of the latents."""
    result = torch.empty_like(mean)
    for rows in row_chunks(len(mean), N_DRAWS, mean.shape[-1]):
        draws = latent_draws(mean[rows], covariance[rows], seed)
        result[rows] = torch.softmax(draws, dim=-1).mean(dim=0).to(mean.dtype)
    return result


Link = Callable[[Tensor, Tensor, int], Tensor]

LINKS: dict[str, Link] = {
    "probit": _probit,
    "extended_probit": _extended_probit,
    "mc": _monte_carlo,
}


def link_of(name: str) -> Link:
    """Look up the link of that name; a ValueError lists the known ones."""
    try:
        return LINKS[name]
    except KeyError:
        known = ", ".join(repr(known) for known in LINKS)
        raise ValueError(f"link={name!r} is not known; choose one of {known}.") from None


def _log_of_class(probabilities: Tensor, y: Tensor) -> Tensor:
    """Log probability (B,) of the classes y (B,) under probabilities (B, K), never -inf."""
    chosen = probabilities.gather(-1, y.long().reshape(-1, 1)).squeeze(-1)
    return chosen.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


@dataclass(frozen=True)
class Categorical:
    """Softmax over C = K logits; targets are int64 (N,)."""

    def hessian_root(self, f: Tensor) -> Tensor:
        """R (B, C, C-1) with R Rᵀ = diag(p) - p pᵀ, in closed form."""
        s = torch.softmax(f, dim=-1).sqrt()
        last = torch.zeros_like(s)
        last[..., -1] = 1
        v = s + last
        # This reflection sends s to -e_C, so its other columns span the complement of s.
        reflection = torch.diag_embed(torch.ones_like(s)) - v.unsqueeze(-1) * (
            v / (1 + s[..., -1:])
        ).unsqueeze(-2)
        return s.unsqueeze(-1) * reflection[..., :-1]

    def log_prob(self, f: Tensor, y: Tensor) -> Tensor:
        """Plug-in log p(y|f), (B,)."""
        return torch.log_softmax(f, dim=-1).gather(-1, y.long().reshape(-1, 1)).squeeze(-1)

    def probabilities(self, f: Tensor) -> Tensor:
        """Plug-in class probabilities (..., K) of latents (..., C)."""
        return torch.softmax(f, dim=-1)

    def predictive_probabilities(
        self, mean: Tensor, covariance: Tensor, link: str = "extended_probit", seed: int = 0
    ) -> Tensor:
        """Class probabilities (B, K) when the latents are N(mean (B, C), covariance (B, C, C))."""
        return link_of(link)(mean, covariance, seed)

    def predictive_log_prob(
        self,
        mean: Tensor,
        covariance: Tensor,
        y: Tensor,
        link: str = "extended_probit",
        seed: int = 0,
    ) -> Tensor:
        """Log of the predictive probability of y, (B,)."""
        return _log_of_class(self.predictive_probabilities(mean, covariance, link, seed), y)


@dataclass(frozen=True)
class Bernoulli:
    """One logit (C = 1) for two classes; targets are 0 or 1, float, (N,)."""

    def hessian_root(self, f: Tensor) -> Tensor:
        """Square root of p (1 - p), (B, 1, 1)."""
        return torch.sqrt(torch.sigmoid(f) * torch.sigmoid(-f)).unsqueeze(-1)

    def log_prob(self, f: Tensor, y: Tensor) -> Tensor:
        """Plug-in log p(y|f), (B,)."""
        logit, y = f.squeeze(-1), y.to(f.dtype).reshape(-1)
        log_sigmoid = nn.functional.logsigmoid
        return y * log_sigmoid(logit) + (1 - y) * log_sigmoid(-logit)

    def probabilities(self, f: Tensor) -> Tensor:
        """Plug-in class probabilities (..., 2) of latents (..., 1)."""
        return torch.cat([torch.sigmoid(-f), torch.sigmoid(f)], dim=-1)

    def predictive_probabilities(
        self, mean: Tensor, covariance: Tensor, link: str = "extended_probit", seed: int = 0
    ) -> Tensor:
        """Class probabilities (B, 2) when the logit is N(mean (B, 1), covariance (B, 1, 1))."""
        # A sigmoid is a softmax over the latents (0, f), so every link serves here as well.
        two = torch.cat([torch.zeros_like(mean), mean], dim=-1)
        return link_of(link)(two, nn.functional.pad(covariance, (1, 0, 1, 0)), seed)

    def predictive_log_prob(
        self,
        mean: Tensor,
        covariance: Tensor,
        y: Tensor,
        link: str = "extended_probit",
        seed: int = 0,
    ) -> Tensor:
        """Log of the predictive probability of y, (B,)."""
        return _log_of_class(self.predictive_probabilities(mean, covariance, link, seed), y)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent noise on the outputs; targets (N, C).

    Of variance noise_variance (C,), or (N, C) where each row has its own.
    """

    noise_variance: Tensor

    @property
    def by_row(self) -> bool:
        """Whether each row has a noise of its own."""
        return self.noise_variance.ndim == 2

    def _noise(self, like: Tensor) -> Tensor:
        """Noise variance (C,) or (N, C) in the dtype and on the device of `like`."""
        return self.noise_variance.to(dtype=like.dtype, device=like.device)

    def hessian_root(self, f: Tensor) -> Tensor:
        """diag(1/sigma) for every row, (B, C, C)."""
        return torch.diag_embed(self._noise(f).rsqrt().expand_as(f))

    def log_prob(self, f: Tensor, y: Tensor) -> Tensor:
        """Plug-in log p(y|f), summed over the outputs, (B,)."""
        return _normal_log_density(y, f, self._noise(f))

    def predictive_log_prob(
        self, mean: Tensor, covariance: Tensor, y: Tensor, link: str = "", seed: int = 0
    ) -> Tensor:
        """Log density of y summed over the outputs, (B,); exact: link and seed have no effect."""
        return _normal_log_density(y, mean, _variances(covariance) + self._noise(mean))

    def squared_residuals(self, log_likelihood: float, weights: Tensor) -> float:
        """Sum of squared residuals in units of the noise variance, from the log likelihood.

        Of rows with weights (N,).
        """
        log_norm = torch.log(2 * math.pi * self.noise_variance).sum(-1)
        total = (weights.to(log_norm) * log_norm).sum()
        return max(0.0, -2 * log_likelihood - float(total))

    def rescaled(self, log_likelihood: float, weights: Tensor, scale: float) -> float:
        """Log likelihood of the same residuals under ``scale`` times the noise variance."""
        squared = self.squared_residuals(log_likelihood, weights)
        n_targets = float(weights.sum()) * self.noise_variance.shape[-1]
        return log_likelihood + (squared - squared / scale - n_targets * math.log(scale)) / 2


def _normal_log_density(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Sum over the outputs of log N(y_c; mean_c, variance_c), (B,)."""
    squared = (y.to(mean.dtype).reshape(mean.shape) - mean).square() / variance
    return -0.5 * (squared + torch.log(2 * math.pi * variance)).sum(dim=-1)


Likelihood = Categorical | Bernoulli | Gaussian


def _categorical(n_outputs: int) -> Likelihood:
    """Softmax over the outputs."""
    return Categorical()


def _bernoulli(n_outputs: int) -> Likelihood:
    """Sigmoid of the single output."""
    if n_outputs != 1:
        raise ValueError(
            f"BCEWithLogitsLoss needs a net with one output, this one has {n_outputs}; "
            "use CrossEntropyLoss with one output for each class."
        )
    return Bernoulli()


def _unit_gaussian(n_outputs: int) -> Likelihood:
    """Gaussian noise of variance one."""
    return Gaussian(torch.ones(n_outputs, dtype=torch.float64))


LIKELIHOODS: dict[type[nn.Module], Callable[[int], Likelihood]] = {
    nn.CrossEntropyLoss: _categorical,
    nn.NLLLoss: _categorical,
    nn.BCEWithLogitsLoss: _bernoulli,
    nn.MSELoss: _unit_gaussian,
}


def likelihood_of(criterion: nn.Module, n_outputs: int) -> Likelihood:
    """Return the likelihood whose negative log is the criterion, for C = n_outputs."""
    try:
        factory = LIKELIHOODS[type(criterion)]
    except KeyError:
        known = ", ".join(known.__name__ for known in LIKELIHOODS)
        raise ValueError(
            f"The criterion {type(criterion).__name__} has no known likelihood; "
            f"train the net with one of {known}."
        ) from None
    if getattr(criterion, "label_smoothing", 0.0):
        raise ValueError(
            f"label_smoothing={criterion.label_smoothing} makes the criterion something else than "
            "a log likelihood; train the net with label_smoothing=0."
        )
    return factory(n_outputs)


def criterion_row_weights(criterion: nn.Module, targets: Tensor) -> Tensor | None:
    """Weight (N,) that the criterion's class weights give each row, None where it has none."""
    weight = getattr(criterion, "weight", None)
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        if weight is not None:
            raise ValueError(
                "BCEWithLogitsLoss has `weight` set, which scales positions of a batch and has no "
                "meaning for a likelihood; use `pos_weight`, class_weight or sample_weight."
            )
        if criterion.pos_weight is None:
            return None
        positive = targets.reshape(-1) > 0.5
        pos_weight = criterion.pos_weight.detach().reshape(()).to(targets.device)
        return torch.where(positive, pos_weight, torch.ones_like(pos_weight))
    if weight is None:
        return None
    row_weights: Tensor = weight.detach().to(targets.device)[targets.long().reshape(-1)]
    return row_weights
