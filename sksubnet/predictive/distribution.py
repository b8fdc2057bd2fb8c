"""The predictive distribution: probabilities, uncertainty decompositions, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sksubnet.predictive.likelihood import (
    N_DRAWS,
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    link_of,
    row_chunks,
)
from sksubnet.predictive.mixture import Mixture

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
    likelihood : Categorical, Bernoulli or Gaussian
        Distribution of the target given the outputs.
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

    @staticmethod
    def of_mixture(
        mixture: Mixture, likelihood: Likelihood, link: str = DEFAULT_LINK, seed: int = 0
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
        return Predictive(*mixture.moments(), likelihood, link, seed, mixture)

    @staticmethod
    def mix(parts: Sequence[Predictive]) -> Predictive:
        """Mixture of the predictive distributions of the members of an ensemble."""
        components = Mixture.union([p._components().with_noise(p.likelihood) for p in parts])
        return Predictive.of_mixture(components, parts[0].likelihood, parts[0].link, parts[0].seed)

    @staticmethod
    def stack(parts: Sequence[Predictive]) -> Predictive:
        """Predictive of the rows of all parts, which come from the same model."""
        mixtures = [part.mixture for part in parts if part.mixture is not None]
        likelihoods = [part.likelihood for part in parts]
        noise = [like.noise_variance for like in likelihoods if isinstance(like, Gaussian)]
        by_row = bool(noise) and noise[0].ndim == 2
        return replace(
            parts[0],
            likelihood=Gaussian(torch.cat(noise)) if by_row else parts[0].likelihood,
            mean=torch.cat([part.mean for part in parts]),
            covariance=torch.cat([part.covariance for part in parts]),
            mixture=Mixture.stack(mixtures) if mixtures else None,
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
        likelihood = self._classification("entropy")
        _check_component(component)
        components = self._components()
        result = torch.empty(len(self.mean), dtype=torch.float64)
        for rows in row_chunks(len(self.mean), N_DRAWS, self.mean.shape[-1]):
            draws = components.latents(rows, self.seed)
            probabilities = likelihood.probabilities(draws)
            total = torch.special.entr(probabilities.mean(dim=0)).sum(dim=-1)
            aleatoric = torch.special.entr(probabilities).sum(dim=-1).mean(dim=0)
            # Concavity makes the difference non-negative; rounding does not know.
            aleatoric = torch.minimum(aleatoric, total)
            parts = {"total": total, "aleatoric": aleatoric, "epistemic": total - aleatoric}
            result[rows] = parts[component]
        return _array(result)

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
        noise = self._regression("std").noise_variance
        _check_component(component)
        covariance = self.covariance.detach().double()
        epistemic = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0)
        aleatoric = noise.to(epistemic).expand_as(epistemic)
        total = epistemic + aleatoric
        parts = {"total": total, "aleatoric": aleatoric, "epistemic": epistemic}
        return _array(parts[component].sqrt())

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
        self._regression("interval")
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
        noise = self._regression("quantiles").noise_variance
        levels = torch.as_tensor(np.asarray(q, dtype=np.float64))
        if levels.ndim != 1 or not bool(((levels > 0) & (levels < 1)).all()):
            raise ValueError(
                f"The quantiles {q!r} must be a sequence of levels above 0 and below 1, such as "
                "(0.05, 0.95)."
            )
        return _array(self._components().quantiles(levels, noise))

    def _classification(self, method: str) -> Categorical | Bernoulli:
        """Return the likelihood if it is over classes."""
        if isinstance(self.likelihood, Gaussian):
            raise TypeError(
                f"{method} is for classification, this predictive distribution is a regression's; "
                "use std, interval or quantiles."
            )
        return self.likelihood

    def _regression(self, method: str) -> Gaussian:
        """Return the likelihood if it is Gaussian."""
        if not isinstance(self.likelihood, Gaussian):
            raise TypeError(
                f"{method} is for regression, this predictive distribution is a classifier's; "
                "use probabilities, entropy or mutual_information."
            )
        return self.likelihood


def _check_component(component: str) -> None:
    """Refuse a component that is not known."""
    if component not in COMPONENTS:
        known = ", ".join(repr(known) for known in COMPONENTS)
        raise ValueError(f"component={component!r} is not known; choose one of {known}.")


def _array(tensor: Tensor) -> FloatArray:
    """Return the tensor as a float64 array of the same shape."""
    result: FloatArray = tensor.detach().double().cpu().numpy()
    return result
