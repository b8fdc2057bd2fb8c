"""The predictive distribution: probabilities, uncertainty decompositions, intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sksubnet.predictive import table
from sksubnet.predictive.likelihood import Gaussian, Likelihood, link_of
from sksubnet.predictive.mixture import Mixture
from sksubnet.predictive.quadrature import N_DRAWS, row_chunks

__all__ = ["Predictive"]

DEFAULT_LINK = "extended_probit"
COMPONENTS = ("total", "aleatoric", "epistemic")

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Predictive:
    """Gaussian or mixture over the outputs of a net for every row, and the likelihood on top of it.

    Parameters
    ----------
    mean : Tensor of shape (N, C)
        Mean of the outputs: logits, or regression means.
    covariance : Tensor of shape (N, C, C)
        Covariance of the outputs that the posterior over the weights gives, such as J H⁻¹ Jᵀ.
    likelihood : Likelihood
        Distribution of the target given the outputs: ``Categorical``, ``Bernoulli`` or
        ``Gaussian``; of all others see ``CompoundPredictive``.
    link : {"extended_probit", "probit", "mc"}, default="extended_probit"
        How class probabilities come from the Gaussian over the logits; unused in regression.
    seed : int, default=0
        Seed of the draws of "mc" and of the entropies.
    mixture : Mixture or None, default=None
        Equally weighted components that the outputs are a mixture of, with `mean` and `covariance`
        in all: draws of the net, or the members of an ensemble. See ``Predictive.of_mixture``.

    Notes
    -----
    A Gaussian is the linearised Laplace approximation of [1]_ with the subnetwork posterior of
    [2]_. Aleatoric is the uncertainty that stays when the weights are known, epistemic what knowing
    them would remove; for a mixture that includes how its components differ. All methods return
    float64 arrays.

    References
    ----------
    .. [1] Immer, Korzepa and Bauer, Improving predictions of Bayesian neural nets via local
       linearization, AISTATS 2021.
    .. [2] Daxberger, Nalisnick, Allingham, Antorán and Hernández-Lobato, Bayesian deep learning via
       subnetwork inference, ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from sksubnet.predictive import Gaussian
    >>> from sksubnet.predictive import Predictive
    >>> noise = Gaussian(torch.tensor([0.16]))
    >>> predictive = Predictive(torch.zeros(1, 1), torch.tensor([[[0.09]]]), noise)
    >>> predictive.std().round(3), predictive.std("epistemic").round(3)
    (array([[0.5]]), array([[0.3]]))
    """

    mean: Tensor
    covariance: Tensor
    likelihood: Likelihood
    link: str = DEFAULT_LINK
    seed: int = 0
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together and unknown links."""
        link_of(self.link)
        expected = (*self.mean.shape, *self.mean.shape[-1:])
        if self.mean.ndim != 2 or tuple(self.covariance.shape) != expected:
            raise ValueError(
                f"mean has shape {tuple(self.mean.shape)} and covariance "
                f"{tuple(self.covariance.shape)}; they must be (N, C) and (N, C, C)."
            )

    @classmethod
    def of_mixture(
        cls, mixture: Mixture, likelihood: Likelihood, link: str = DEFAULT_LINK, seed: int = 0
    ) -> Predictive:
        """Predictive of a mixture, its moments by the law of total variance.

        The noise in all is the mean of the components' noise where they have their own.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian
        >>> from sksubnet.predictive import Mixture
        >>> from sksubnet.predictive import Predictive
        >>> draws = Mixture(torch.tensor([[[-1.0]], [[1.0]]]))
        >>> Predictive.of_mixture(draws, Gaussian(torch.tensor([0.0]))).std()
        array([[1.]])
        """
        if mixture.noise is not None:
            likelihood = Gaussian(mixture.noise.mean(dim=0))
        return cls(*mixture.moments(), likelihood, link, seed, mixture)

    @staticmethod
    def mix(parts: Sequence[Predictive]) -> Predictive:
        """Mixture of the predictive distributions of the members of an ensemble."""
        components = Mixture.union([p._components().with_noise(p.likelihood) for p in parts])
        first = parts[0]
        return type(first).of_mixture(components, first.likelihood, first.link, first.seed)

    @staticmethod
    def stack(parts: Sequence[Predictive]) -> Predictive:
        """Predictive of the rows of all parts, which have the same kind of model.

        Where their noise differs, each row has its own.
        """
        mixtures = [part.mixture for part in parts if part.mixture is not None]
        likelihood = parts[0].likelihood
        noise = [
            part.likelihood.noise_variance
            for part in parts
            if isinstance(part.likelihood, Gaussian)
        ]
        if noise and any(not torch.equal(one, noise[0]) for one in noise):
            by_row = [n.expand_as(part.mean) for n, part in zip(noise, parts, strict=True)]
            likelihood = Gaussian(torch.cat(by_row))
        return replace(
            parts[0],
            likelihood=likelihood,
            mean=torch.cat([part.mean for part in parts]),
            covariance=torch.cat([part.covariance for part in parts]),
            mixture=Mixture.stack(mixtures) if mixtures else None,
        )

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> Predictive:
        """Predictive of some of the rows, in the order of their numbers.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian, Predictive
        >>> noise = Gaussian(torch.tensor([1.0]))
        >>> predictive = Predictive(torch.tensor([[0.0], [5.0]]), torch.ones(2, 1, 1), noise)
        >>> predictive.rows([1]).mean
        tensor([[5.]])
        """
        chosen = torch.as_tensor(np.asarray(index, dtype=np.int64), device=self.mean.device)
        likelihood = self.likelihood
        if isinstance(likelihood, Gaussian) and likelihood.by_row:
            likelihood = Gaussian(likelihood.noise_variance[chosen])
        return replace(
            self,
            mean=self.mean[chosen],
            covariance=self.covariance[chosen],
            likelihood=likelihood,
            mixture=self.mixture and self.mixture.rows(chosen),
        )

    def scaled(self, scale: Tensor, offset: Tensor) -> Predictive:
        """Regression predictive of ``target * scale + offset``, both of shape (C,)."""
        noise = self._regression("scaled").noise_variance
        return replace(
            self,
            mean=self.mean * scale + offset,
            covariance=self.covariance * torch.outer(scale, scale),
            likelihood=Gaussian((noise.sqrt() * scale).square()),
            mixture=self.mixture and self.mixture.scaled(scale, offset),
        )

    def _components(self) -> Mixture:
        """Return the mixture, or the Gaussian as a mixture of one."""
        if self.mixture is not None:
            return self.mixture
        return Mixture(self.mean.detach()[None], self.covariance.detach()[None])

    def probabilities(self) -> FloatArray:
        """Class probabilities under the link.

        Returns
        -------
        ndarray of shape (N, K)
            Rows sum to one; K = C, and K = 2 for a single logit.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Bernoulli
        >>> from sksubnet.predictive import Predictive
        >>> mean, covariance = torch.tensor([[2.0]]), torch.tensor([[[4.0]]])
        >>> Predictive(mean, covariance, Bernoulli()).probabilities().round(3)
        array([[0.223, 0.777]])
        """
        likelihood = self._classification("probabilities")
        return _array(self._components().probabilities(likelihood, self.link, self.seed))

    def entropy(self, component: str = "total") -> FloatArray:
        """Entropy of the class, or the part of it with one cause, in nats.

        Parameters
        ----------
        component : {"total", "aleatoric", "epistemic"}, default="total"
            With p the class probabilities at a draw of the logits, or at a point of the mixture:
            total is H[E p], aleatoric is E H[p], epistemic is their difference, the mutual
            information of class and weights.

        Returns
        -------
        ndarray of shape (N,)
            Never negative. The three come from the same draws, so total is exactly the sum.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Categorical
        >>> from sksubnet.predictive import Predictive
        >>> sure = Predictive(torch.zeros(1, 4), torch.zeros(1, 4, 4), Categorical())
        >>> sure.entropy().round(4), sure.entropy("epistemic").round(4)
        (array([1.3863]), array([0.]))
        """
        self._classification("entropy")
        _check_component(component)
        components = self._components()
        result = torch.empty(len(self.mean), dtype=torch.float64)
        for rows in row_chunks(len(self.mean), N_DRAWS, self.mean.shape[-1]):
            draws = components.latents(rows, self.seed)
            probabilities = self._outcomes(draws)
            total = torch.special.entr(probabilities.mean(dim=0)).sum(dim=-1)
            aleatoric = torch.special.entr(probabilities).sum(dim=-1).mean(dim=0)
            # Concavity makes the difference non-negative; rounding does not know.
            aleatoric = torch.minimum(aleatoric, total)
            parts = {"total": total, "aleatoric": aleatoric, "epistemic": total - aleatoric}
            result[rows] = parts[component]
        return _array(result)

    def _outcomes(self, latents: Tensor) -> Tensor:
        """Probabilities (..., K) of the classes at latents (..., C)."""
        return self.likelihood.probabilities(latents)

    def mutual_information(self) -> FloatArray:
        """Mutual information of class and weights in nats: ``entropy("epistemic")``.

        Returns
        -------
        ndarray of shape (N,)
        """
        self._classification("mutual_information")
        return self.entropy("epistemic")

    def std(self, component: str = "total") -> FloatArray:
        """Give the standard deviation of the target, or the part of it with one cause.

        Parameters
        ----------
        component : {"total", "aleatoric", "epistemic"}, default="total"
            Aleatoric is the noise, epistemic comes from the weights; their squares add to total's.

        Returns
        -------
        ndarray of shape (N, C)
        """
        self._check_regression("std")
        _check_component(component)
        epistemic, aleatoric = self._variances()
        total = epistemic + aleatoric
        parts = {"total": total, "aleatoric": aleatoric, "epistemic": epistemic}
        return _array(parts[component].sqrt())

    def _variances(self) -> tuple[Tensor, Tensor]:
        """Epistemic and aleatoric variance (N, C) of the targets."""
        covariance = self.covariance.detach().double()
        epistemic = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0)
        return epistemic, self._regression("std").noise_variance.to(epistemic).expand_as(epistemic)

    def interval(self, coverage: float = 0.9) -> FloatArray:
        """Central predictive interval of the target, noise included.

        Parameters
        ----------
        coverage : float, default=0.9
            Probability inside, above 0 and below 1.

        Returns
        -------
        ndarray of shape (N, C, 2)
            Lower and upper ends.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian
        >>> from sksubnet.predictive import Predictive
        >>> noise = Gaussian(torch.tensor([0.75]))
        >>> predictive = Predictive(torch.zeros(1, 1), torch.tensor([[[0.25]]]), noise)
        >>> predictive.interval(0.95).round(2)
        array([[[-1.96,  1.96]]])
        """
        self._check_regression("interval")
        if not isinstance(coverage, float | int | np.number) or isinstance(coverage, bool):
            raise TypeError(
                f"coverage={coverage!r} must be one number above 0 and below 1, such as 0.9. For "
                "several intervals take their ends from the quantiles: those of the intervals of "
                "50 % and 90 % are (0.05, 0.25, 0.75, 0.95)."
            )
        if not 0 < coverage < 1:
            raise ValueError(f"coverage={coverage!r} must be above 0 and below 1, such as 0.9.")
        return self.quantiles(((1 - coverage) / 2, (1 + coverage) / 2))

    def quantiles(self, q: Sequence[float]) -> FloatArray:
        """Quantiles of the target, noise included.

        Parameters
        ----------
        q : sequence of Q floats
            Levels, each above 0 and below 1.

        Returns
        -------
        ndarray of shape (N, C, Q)
            In the order of `q`.
        """
        self._check_regression("quantiles")
        levels = torch.as_tensor(np.asarray(q, dtype=np.float64))
        within = bool(((levels > 0) & (levels < 1)).all())
        if levels.ndim != 1 or len(levels) == 0 or not within:
            raise ValueError(
                f"The quantiles {q!r} must be a sequence of one or more levels above 0 and below "
                "1, such as (0.05, 0.95)."
            )
        return _array(self._target_quantiles(levels))

    def _target_quantiles(self, levels: Tensor) -> Tensor:
        """Quantiles (N, C, Q) of the targets."""
        return self._components().quantiles(levels, self._regression("quantiles").noise_variance)

    def _classification(self, method: str) -> Likelihood:
        """Return the likelihood if it is over classes."""
        if self.likelihood.task == "regression":
            raise TypeError(
                f"{method} is for classification, this predictive distribution is a regression's; "
                "use std, interval or quantiles."
            )
        return self.likelihood

    def _check_regression(self, method: str) -> None:
        """Raise unless the likelihood is over targets."""
        if self.likelihood.task != "regression":
            raise TypeError(
                f"{method} is for regression, this predictive distribution is a classifier's; "
                "use probabilities, entropy or mutual_information."
            )

    def _regression(self, method: str) -> Gaussian:
        """Return the likelihood if it is Gaussian."""
        self._check_regression(method)
        assert isinstance(self.likelihood, Gaussian)
        return self.likelihood

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return table.text(self, *self._shown())

    def _repr_html_(self) -> str:
        return table.as_html(self, *self._shown())

    def _shown(self) -> tuple[Predictive, list[int], str]:
        """Rows that a printed table has, their positions, and its title."""
        rows = table.shown_rows(len(self))
        if self.likelihood.task == "regression":
            n_columns, what, ending = self.mean.shape[1], "target", "s"
            rest = ", lower to upper holds 90%" if n_columns == 1 else ""
        else:
            several = self.likelihood.task == "multilabel"
            n_columns = self.mean.shape[1] if several else max(2, self.mean.shape[1])
            what, ending = ("label", "s") if several else ("class", "es")
            rest = ", entropies in nats"
        number = f"{n_columns} {what}{ending if n_columns > 1 else ''}"
        title = f"Predictive: {len(self)} row{'' if len(self) == 1 else 's'}, {number}{rest}"
        return self.rows(rows), rows, title

    def to_frame(
        self,
        index: Sequence[Hashable] | None = None,
        names: Sequence[Hashable] | None = None,
        coverage: float = 0.9,
    ) -> Any:
        """All of it as a data frame, a row for each row.

        Parameters
        ----------
        index : sequence of length N, default=None
            Labels of the rows, such as the index of the frame that was predicted.
        names : sequence of length C or K, default=None
            Names of the targets, or of the classes as ``classes_`` has them; they are numbered if
            ``None``.
        coverage : float, default=0.9
            Probability between ``lower`` and ``upper``; regression only.

        Returns
        -------
        pandas.DataFrame
            Regression: ``mean``, ``std``, ``std_aleatoric``, ``std_epistemic``, ``lower`` and
            ``upper``; for several targets two levels of columns, first the target. Classification:
            ``p(name)`` for every class, ``entropy`` and ``mutual_information`` in nats.

        Raises
        ------
        ImportError
            If pandas is not installed.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Bernoulli, Predictive
        >>> predictive = Predictive(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1, 1), Bernoulli())
        >>> predictive.to_frame(index=["ann", "bob"], names=["no", "yes"]).round(2)
             p(no)  p(yes)  entropy  mutual_information
        ann   0.50    0.50     0.69                0.09
        bob   0.16    0.84     0.43                0.05
        """
        return table.frame(self, index, names, coverage)

    def cdf(self, y: ArrayLike) -> FloatArray:
        """Probability of a target at or below `y`, noise included; each target by itself.

        Parameters
        ----------
        y : array-like of shape (N, C), or (N,) for one target
            One value for every row and target.

        Returns
        -------
        ndarray of the shape of `y`
            Uniform on [0, 1] over rows whose targets follow the predictive distribution.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian, Predictive
        >>> noise = Gaussian(torch.tensor([0.75]))
        >>> Predictive(torch.zeros(1, 1), torch.tensor([[[0.25]]]), noise).cdf([1.96]).round(3)
        array([0.975])
        """
        self._check_regression("cdf")
        return _array(self._target_cdf(self._checked_targets(y))).reshape(np.shape(y))

    def _target_cdf(self, y: Tensor) -> Tensor:
        """Probabilities (N, C) of targets at or below y (N, C)."""
        means, covariances = self._target_components("cdf")
        std = covariances.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
        # A target without any variance is a step.
        z = (y - means) / std.clamp_min(torch.finfo(std.dtype).tiny)
        return torch.special.ndtr(z).mean(dim=0)

    def log_prob(self, y: ArrayLike) -> FloatArray:
        """Log of the predictive density of targets, or of the probability of classes.

        Parameters
        ----------
        y : array-like of shape (N, C), or (N,) for one target or for classes
            Targets; or classes as the numbers of the columns of ``probabilities``.

        Returns
        -------
        ndarray of shape (N,)
            In nats. Several targets of a row are taken together: their joint density, with what
            the posterior says about how they vary together.

        Raises
        ------
        ValueError
            If a target has no density, because neither noise nor weights give it any variance.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian, Predictive
        >>> noise = Gaussian(torch.tensor([0.75]))
        >>> Predictive(torch.zeros(1, 1), torch.tensor([[[0.25]]]), noise).log_prob([0.0]).round(4)
        array([-0.9189])
        """
        if self.likelihood.task != "regression":
            probabilities = self.probabilities()
            codes = np.asarray(y)
            classes = range(probabilities.shape[1])
            if codes.shape != (len(self),) or not np.isin(codes, classes).all():
                raise ValueError(
                    f"y has shape {codes.shape}; give the {len(self)} rows' classes as numbers "
                    f"of the columns, 0 to {classes[-1]}."
                )
            with np.errstate(divide="ignore"):
                result: FloatArray = np.log(probabilities[np.arange(len(self)), codes.astype(int)])
            return result
        return _array(self._target_log_prob(self._checked_targets(y)))

    def _target_log_prob(self, y: Tensor) -> Tensor:
        """Log densities (N,) of targets (N, C)."""
        means, covariances = self._target_components("log_prob")
        root, failed = torch.linalg.cholesky_ex(covariances)
        if bool(failed.any()):
            raise ValueError(
                "Some target has no predictive variance, so it has no density; use cdf or "
                "quantiles, or give the model noise."
            )
        residual = (y - means).unsqueeze(-1)
        z = torch.linalg.solve_triangular(root, residual, upper=False).squeeze(-1)
        log_norm = root.diagonal(dim1=-2, dim2=-1).log() + 0.5 * math.log(2 * math.pi)
        by_component = -(0.5 * z.square() + log_norm).sum(dim=-1)
        return torch.logsumexp(by_component, dim=0) - math.log(len(means))

    def crps(self, y: ArrayLike) -> FloatArray:
        """Continuous ranked probability score of targets; each target by itself.

        Parameters
        ----------
        y : array-like of shape (N, C), or (N,) for one target
            Targets.

        Returns
        -------
        ndarray of the shape of `y`
            In units of the target; lower is better. For a prediction without any spread it is the
            absolute error.

        Notes
        -----
        In closed form for Gaussians and their mixtures [1]_; else, by its definition, the sum over
        all counts, or the integral, of the squared difference of the two distribution functions.

        References
        ----------
        .. [1] Grimit, Gneiting, Berrocal and Johnson, The continuous ranked probability score for
           circular variables and its application to mesoscale forecast ensemble verification,
           Q. J. R. Meteorol. Soc. 2006, eq. 5.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian, Predictive
        >>> noise = Gaussian(torch.tensor([0.75]))
        >>> Predictive(torch.zeros(1, 1), torch.tensor([[[0.25]]]), noise).crps([0.0]).round(4)
        array([0.2337])
        """
        self._check_regression("crps")
        return _array(self._target_crps(self._checked_targets(y))).reshape(np.shape(y))

    def _target_crps(self, y: Tensor) -> Tensor:
        """Scores (N, C) of targets (N, C)."""
        means, covariances = self._target_components("crps")
        variances = covariances.diagonal(dim1=-2, dim2=-1).clamp_min(0)
        parts = []
        for rows in row_chunks(len(y), len(means) ** 2, y.shape[1]):
            mean, variance = means[:, rows], variances[:, rows]
            error = _mean_absolute(y[rows] - mean, variance).mean(dim=0)
            between = mean - mean[:, None], variance + variance[:, None]
            parts.append(error - 0.5 * _mean_absolute(*between).mean(dim=(0, 1)))
        return torch.cat(parts)

    def sample(
        self, n: int = 1, random_state: int | np.random.Generator | None = None
    ) -> NDArray[Any]:
        """Draw targets or classes, every row by itself.

        Parameters
        ----------
        n : int, default=1
            Number of draws for each row.
        random_state : int, numpy Generator or None, default=None
            Seed of the draws.

        Returns
        -------
        ndarray of shape (N, C, n) or (N, n)
            Targets, noise included; or classes as the numbers of the columns of ``probabilities``.
            Draws of functions that hang together over the rows are the regressors' ``sample_y``.

        Examples
        --------
        >>> import torch
        >>> from sksubnet.predictive import Gaussian, Predictive
        >>> noise = Gaussian(torch.tensor([0.16]))
        >>> predictive = Predictive(torch.zeros(1, 1), torch.tensor([[[0.09]]]), noise)
        >>> predictive.sample(10_000, random_state=0).std().round(1)
        np.float64(0.5)
        """
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n={n!r} must be an integer of at least 1.")
        generator = np.random.default_rng(random_state)
        if self.likelihood.task != "regression":
            levels = self.probabilities().cumsum(axis=1)[:, None]
            uniform = generator.random((len(self), n, 1)) * levels[..., -1:]
            classes: NDArray[np.int64] = (levels <= uniform).sum(axis=-1)
            return classes
        return self._target_draws(n, generator)

    def _target_draws(self, n: int, generator: np.random.Generator) -> FloatArray:
        """Draws (N, C, n) of the targets."""
        draws = gaussian_draws(*self._target_components("sample"), n, generator)
        result: FloatArray = draws.swapaxes(1, 2)
        return result

    def _target_components(self, method: str) -> tuple[Tensor, Tensor]:
        """Means (M, N, C) and covariances (M, N, C, C) of the target's Gaussians, with noise."""
        components = self._components().with_noise(self._regression(method))
        assert components.row_noise is not None
        means = components.means.detach().double()
        covariances = torch.diag_embed(components.row_noise.to(means))
        if components.covariances is not None:
            covariances = covariances + components.covariances.detach().double()
        return means, covariances.expand(*means.shape, means.shape[-1])

    def _checked_targets(self, y: ArrayLike) -> Tensor:
        """Targets (N, C) from an array of that shape, or (N,) where there is one target."""
        # of a copy, for torch warns of arrays that cannot be written to
        targets = np.asarray(y, dtype=np.float64).copy()
        n_targets = self.mean.shape[1]
        shapes = [(len(self), n_targets)] + [(len(self),)] * (n_targets == 1)
        if targets.shape not in shapes:
            raise ValueError(
                f"y has shape {targets.shape}; it must be one of {shapes}, a value for every row "
                "and target."
            )
        return torch.as_tensor(targets.reshape(shapes[0]), device=self.mean.device)


def gaussian_draws(
    means: Tensor, covariances: Tensor, n: int, generator: np.random.Generator
) -> FloatArray:
    """Draws (N, n, C) of mixtures of Gaussians: means (M, N, C), covariances (M, N, C, C)."""
    mean, covariance = means.cpu().numpy(), covariances.cpu().numpy()
    values, vectors = np.linalg.eigh(covariance)
    roots = vectors * np.sqrt(values.clip(min=0))[..., None, :]
    n_rows, n_columns = mean.shape[1:]
    component = generator.integers(len(mean), size=(n_rows, n))
    normals = generator.standard_normal((n_rows, n, n_columns, 1))
    rows = np.arange(n_rows)[:, None]
    draws: FloatArray = mean[component, rows] + (roots[component, rows] @ normals)[..., 0]
    return draws


def _mean_absolute(mean: Tensor, variance: Tensor) -> Tensor:
    """E|Z| of Gaussians, elementwise."""
    std = variance.sqrt()
    z = mean / std.clamp_min(torch.finfo(std.dtype).tiny)
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    return mean * torch.special.erf(z / math.sqrt(2)) + 2 * std * density


def _check_component(component: str) -> None:
    """Refuse a component that is not known."""
    if component not in COMPONENTS:
        known = ", ".join(repr(known) for known in COMPONENTS)
        raise ValueError(f"component={component!r} is not known; choose one of {known}.")


def _array(tensor: Tensor) -> FloatArray:
    """Return the tensor as a float64 array of the same shape."""
    result: FloatArray = tensor.detach().double().cpu().numpy()
    return result
