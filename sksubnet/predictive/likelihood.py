"""Likelihoods: output Hessian root, log probability, and the link of a Gaussian over the latents.

Shape letters: N and B rows, C latents, T targets, K classes, M draws. The latents f are the outputs
of the net: logits (or log probabilities, which the softmax leaves as they are), regression means,
or what else the targets' distribution is written in, such as the logarithm of a rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sksubnet.predictive.quadrature import N_DRAWS, latent_draws, latent_nodes, row_chunks

__all__ = [
    "LINKS",
    "LOG_UNIT",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "check_shapes",
    "link_of",
]


LOG_UNIT = 0.1
"""Unit of outputs that are logarithms, so that their prior has a standard deviation of at most 1:
their exponential has a mean that grows with exp(variance / 2), which held-out rows hardly tell."""


class Likelihood:
    """Distribution of the targets of a row given the outputs f of a net; subclass it for your own.

    The net's criterion says which it is: those of torch that are a negative log likelihood do by
    their name, and any other one by an attribute ``likelihood``, an instance of a subclass of this.
    :class:`LikelihoodLoss` is such a criterion for any likelihood; a class of your own may train by
    something else, as one with smoothed labels does::

        class Smoothed(torch.nn.CrossEntropyLoss):
            likelihood = sksubnet.predictive.Categorical()

    For a regressor's likelihood give the methods below. Predictions follow from them: averages over
    the posterior of the outputs, by a quadrature for each target, or by 1000 quasi-random draws
    where a target depends on several outputs or several targets are taken together. Classifiers
    have ``Categorical``, ``Bernoulli`` and ``MultiLabel`` of :mod:`sksubnet.predictive`.

    Outputs are of shape (..., C) and targets broadcast to (..., T), both float tensors. Targets are
    independent given the outputs.

    ========================  ====================================================================
    ``log_prob(f, y)``        log density or log probability (...) of all targets of a row
    ``hessian_root(f)``       R (..., C, R) with R Rᵀ the Hessian of -log p(y|f) in f. Where that
                              depends on y, its mean over the targets that f predicts, which is the
                              Fisher information: never negative, and the generalised Gauss-Newton
                              matrix follows from it
    ``mean(f)``               mean (..., T) of the targets
    ``variance(f)``           their variance (..., T)
    ``cdf(f, y)``             probability (..., T) of a target at or below y
    ``sample(f, generator)``  one draw (..., T) of the targets
    ``check_targets(y)``      raise for targets (N, T) that cannot be; optional
    ========================  ====================================================================

    Attributes
    ----------
    task : {"regression", "classification", "multilabel"}
        Which estimators it serves.
    discrete : bool
        Whether targets are whole numbers, so that quantiles are.
    scales_targets : bool
        Whether the net may be trained on targets of mean 0 and variance 1 instead.
    outputs_per_target : int
        Outputs of the net for each target: those of target t are t, T + t, ...

    Examples
    --------
    Targets with tails of a Laplace distribution, whose negative log is the absolute error:

    >>> import torch
    >>> from sksubnet import Likelihood, LikelihoodLoss, SubnetLaplaceRegressor
    >>> class Laplacian(Likelihood):
    ...     def __init__(self, scale):
    ...         self.scale = scale
    ...     def around(self, f):
    ...         return torch.distributions.Laplace(f, self.scale)
    ...     def log_prob(self, f, y):
    ...         return self.around(f).log_prob(y).sum(-1)
    ...     def hessian_root(self, f):
    ...         return torch.diag_embed(torch.ones_like(f) / self.scale)
    ...     def mean(self, f):
    ...         return f
    ...     def variance(self, f):
    ...         return self.around(f).variance
    ...     def cdf(self, f, y):
    ...         return self.around(f).cdf(y)
    ...     def sample(self, f, generator):
    ...         uniform = torch.rand(f.shape, generator=generator, dtype=f.dtype)
    ...         return self.around(f).icdf(uniform)

    >>> from skorch import NeuralNetRegressor
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(100, 3, noise=5.0, random_state=0)
    >>> net = NeuralNetRegressor(
    ...     torch.nn.Linear,
    ...     module__out_features=1,
    ...     criterion=LikelihoodLoss,
    ...     criterion__likelihood=Laplacian(scale=0.1),
    ...     optimizer=torch.optim.Adam,
    ...     lr=0.1,
    ...     train_split=None,
    ...     verbose=0,
    ... )
    >>> reg = SubnetLaplaceRegressor(net, random_state=0).fit(X, y / 50)
    >>> reg.predict_quantiles(X[:2], (0.05, 0.95)).shape
    (2, 2)

    To tune its scale, search ``net__criterion__likelihood`` by the log density of held-out rows.
    """

    task: ClassVar[str] = "regression"
    discrete: ClassVar[bool] = False
    scales_targets: ClassVar[bool] = False
    outputs_per_target: ClassVar[int] = 1

    def log_prob(self, f: Tensor, y: Tensor) -> Tensor:
        """Plug-in log p(y|f), (...)."""
        raise self._missing("log_prob(f, y)")

    def hessian_root(self, f: Tensor) -> Tensor:
        """R (..., C, R) with R Rᵀ the expected Hessian of -log p(y|f) in f."""
        raise self._missing("hessian_root(f)")

    def mean(self, f: Tensor) -> Tensor:
        """Mean (..., T) of the targets given the outputs."""
        raise self._missing("mean(f)")

    def variance(self, f: Tensor) -> Tensor:
        """Variance (..., T) of the targets given the outputs."""
        raise self._missing("variance(f)")

    def cdf(self, f: Tensor, y: Tensor) -> Tensor:
        """Probability (..., T) of each target at or below y, given the outputs."""
        raise self._missing("cdf(f, y)")

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """One draw (..., T) of the targets for each row of outputs."""
        raise self._missing("sample(f, generator)")

    def check_targets(self, y: Tensor) -> None:
        """Raise where targets (N, T) are none that it knows."""

    def scaled_outputs(self, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and offsets (C,) of the outputs for targets times a scale plus an offset (T,).

        Only where ``scales_targets``.
        """
        raise self._missing("scaled_outputs(scale, offset)")

    def output_units(self, target_variance: Tensor) -> Tensor:
        """Squares (C,) of what is one unit in the outputs, for targets of variance (T,).

        The prior says between 1 and 10 of them. Logits are their own units; of logarithms it is
        ``LOG_UNIT``.
        """
        n_outputs = self.outputs_per_target * len(target_variance)
        return torch.ones(n_outputs, dtype=target_variance.dtype)

    def probabilities(self, f: Tensor) -> Tensor:
        """Plug-in class probabilities (..., K) of latents (..., C); classifiers."""
        raise self._missing("probabilities(f)")

    def predictive_probabilities(
        self, mean: Tensor, covariance: Tensor, link: str = "extended_probit", seed: int = 0
    ) -> Tensor:
        """Class probabilities (B, K) when the latents are Gaussian; classifiers."""
        raise self._missing("predictive_probabilities(mean, covariance, link, seed)")

    def nodes(self, mean: Tensor, covariance: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Give outputs (M, B, C) and weights (M,) whose mixture is the predictive of each target.

        For outputs that are N(mean (B, C), covariance (B, C, C)).
        """
        if self.outputs_per_target == 1:
            return latent_nodes(mean, covariance)
        return _even(latent_draws(mean, covariance, seed))

    def joint_nodes(self, mean: Tensor, covariance: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Do the same for all targets of a row together."""
        if mean.shape[-1] == self.outputs_per_target:
            return self.nodes(mean, covariance, seed)
        return _even(latent_draws(mean, covariance, seed))

    def predictive_moments(
        self, mean: Tensor, covariance: Tensor, seed: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, T) of the targets, covariance (B, T, T) of ``mean(f)``, mean of ``variance(f)``.

        For outputs that are N(mean (B, C), covariance (B, C, C)): the last two are what the weights
        leave open and what stays when they are known.
        """
        f, weights = self.joint_nodes(mean, covariance, seed)
        means = self.mean(f)
        average = torch.einsum("m,mbt->bt", weights, means)
        change = means - average
        between = torch.einsum("m,mbs,mbt->bst", weights, change, change)
        return average, between, torch.einsum("m,mbt->bt", weights, self.variance(f))

    def predictive_log_prob(
        self, mean: Tensor, covariance: Tensor, y: Tensor, link: str = "", seed: int = 0
    ) -> Tensor:
        """Log of the predictive density of y, (B,)."""
        found = []
        for rows in row_chunks(len(mean), N_DRAWS, mean.shape[-1]):
            f, weights = self.joint_nodes(mean[rows], covariance[rows], seed)
            log_prob = self.log_prob(f, y[rows].to(f))
            found.append(torch.logsumexp(weights.log()[:, None] + log_prob, dim=0))
        return torch.cat(found)

    def _missing(self, method: str) -> NotImplementedError:
        return NotImplementedError(
            f"The likelihood {type(self).__name__} has no {method}, which this needs; define it in "
            "that class, see sksubnet.Likelihood."
        )


def check_shapes(likelihood: Likelihood, n_outputs: int, y: Tensor) -> None:
    """Raise where methods of a regressor's likelihood give other shapes than they have to.

    For a few targets (B, T), and outputs with and without another axis in front.
    """
    n_rows, n_targets = y.shape
    for lead in ((n_rows,), (3, n_rows)):
        f = torch.zeros(*lead, n_outputs, dtype=y.dtype)
        found = {
            "log_prob(f, y)": (likelihood.log_prob(f, y), lead),
            "hessian_root(f)": (likelihood.hessian_root(f)[..., :1], (*lead, n_outputs, 1)),
            "mean(f)": (likelihood.mean(f), (*lead, n_targets)),
        }
        for method, (values, shape) in found.items():
            if tuple(values.shape) != shape:
                wanted = shape if "root" not in method else f"(*{lead}, {n_outputs}, R)"
                raise ValueError(
                    f"{method} of the likelihood {type(likelihood).__name__} gives the shape "
                    f"{tuple(values.shape)} for outputs of shape {tuple(f.shape)} and targets of "
                    f"shape {tuple(y.shape)}; it has to be {wanted}."
                )


def _even(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Draws (M, B, C) with equal weights (M,)."""
    return draws, torch.full(draws.shape[:1], 1 / len(draws)).to(draws)


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


SIGN_LINKS = frozenset({"probit", "extended_probit"})
"""Links under which a single logit with a mean above 0 has a probability above one half."""


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
class Categorical(Likelihood):
    """Softmax over C = K logits; targets are int64 (N,)."""

    task: ClassVar[str] = "classification"

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
class Bernoulli(Likelihood):
    """One logit (C = 1) for two classes; targets are 0 or 1, float, (N,)."""

    task: ClassVar[str] = "classification"

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
class Gaussian(Likelihood):
    """Independent noise on the outputs; targets (N, C).

    Of variance noise_variance (C,), or (N, C) where each row has its own.
    """

    scales_targets: ClassVar[bool] = True

    def output_units(self, target_variance: Tensor) -> Tensor:
        """Variances (C,) of the targets."""
        return target_variance

    noise_variance: Tensor

    @property
    def by_row(self) -> bool:
        """Whether each row has a noise of its own."""
        return self.noise_variance.ndim == 2

    def _noise(self, like: Tensor) -> Tensor:
        """Noise variance (C,) or (N, C) in the dtype and on the device of `like`."""
        return self.noise_variance.to(dtype=like.dtype, device=like.device)

    def mean(self, f: Tensor) -> Tensor:
        """Give the outputs (..., C) themselves."""
        return f

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
    squared = (y.to(mean.dtype).reshape(mean.shape[-2:]) - mean).square() / variance
    return -0.5 * (squared + torch.log(2 * math.pi * variance)).sum(dim=-1)
