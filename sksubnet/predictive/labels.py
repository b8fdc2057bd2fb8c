"""Several labels for each row, each of them there or not: the likelihood, and its predictive.

Shape letters: N and B rows, L labels, M draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sksubnet.predictive.distribution import FloatArray, Predictive
from sksubnet.predictive.likelihood import Bernoulli, Likelihood


@dataclass(frozen=True)
class MultiLabel(Likelihood):
    """A logit for each of L labels, independent given the logits; targets are 0 or 1, (N, L)."""

    task: ClassVar[str] = "multilabel"

    def log_prob(self, f: Tensor, y: Tensor) -> Tensor:
        """Plug-in log p(y|f) summed over the labels, (...)."""
        y = y.to(f.dtype)
        each = y * nn.functional.logsigmoid(f) + (1 - y) * nn.functional.logsigmoid(-f)
        return each.sum(dim=-1)

    def hessian_root(self, f: Tensor) -> Tensor:
        """Root of p (1 - p) of each label, (..., L, L)."""
        return torch.diag_embed((torch.sigmoid(f) * torch.sigmoid(-f)).sqrt())

    def probabilities(self, f: Tensor) -> Tensor:
        """Plug-in probabilities (..., L) that the labels are there."""
        return torch.sigmoid(f)

    def predictive_probabilities(
        self, mean: Tensor, covariance: Tensor, link: str = "extended_probit", seed: int = 0
    ) -> Tensor:
        """Probabilities (B, L) of labels whose logits are Gaussian, each label by itself."""
        variance = covariance.diagonal(dim1=-2, dim2=-1).reshape(-1, 1, 1)
        one = Bernoulli().predictive_probabilities(mean.reshape(-1, 1), variance, link, seed)
        return one[:, 1].reshape(mean.shape)

    def predictive_log_prob(
        self,
        mean: Tensor,
        covariance: Tensor,
        y: Tensor,
        link: str = "extended_probit",
        seed: int = 0,
    ) -> Tensor:
        """Sum over the labels of the log of their predictive probabilities, (B,)."""
        there = self.predictive_probabilities(mean, covariance, link, seed)
        right = torch.where(y > 0.5, there, 1 - there)
        return right.clamp_min(torch.finfo(right.dtype).tiny).log().sum(dim=-1)


@dataclass(frozen=True, eq=False, repr=False)
class MultiLabelPredictive(Predictive):
    """Predictive of several labels for each row, which are taken one by one.

    ``probabilities()`` (N, L) are those that each label is there, and columns do not sum to one.
    Entropies are sums over the labels of the entropy of each, and so is the mutual information:
    what the weights say of how labels go together is left out.

    Examples
    --------
    >>> import torch
    >>> from sksubnet.predictive import MultiLabel, MultiLabelPredictive
    >>> logits = torch.tensor([[0.0, 2.0]])
    >>> labels = MultiLabelPredictive(logits, torch.eye(2)[None], MultiLabel())
    >>> labels.probabilities().round(3), labels.entropy().round(2)
    (array([[0.5  , 0.845]]), array([1.13]))
    """

    def log_prob(self, y: ArrayLike) -> FloatArray:
        """Sum over the labels of the log of their probabilities.

        Parameters
        ----------
        y : array-like of shape (N, L)
            1 where a label is there, 0 where not.

        Returns
        -------
        ndarray of shape (N,)
            In nats.
        """
        there = self.probabilities()
        labels = np.asarray(y)
        if labels.shape != there.shape or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"y has shape {labels.shape}; give 0 or 1 for each of the {there.shape[1]} labels "
                f"of the {len(there)} rows."
            )
        with np.errstate(divide="ignore"):
            result: FloatArray = np.log(np.where(labels == 1, there, 1 - there)).sum(axis=1)
        return result

    def sample(
        self, n: int = 1, random_state: int | np.random.Generator | None = None
    ) -> NDArray[np.int64]:
        """Draw labels, every row and label by itself.

        Parameters
        ----------
        n : int, default=1
            Number of draws for each row.
        random_state : int, numpy Generator or None, default=None
            Seed of the draws.

        Returns
        -------
        ndarray of shape (N, L, n)
            1 where a label is there, 0 where not.
        """
        there = self.probabilities()[..., None]
        uniform = np.random.default_rng(random_state).random((*there.shape[:2], n))
        return (uniform < there).astype(np.int64)

    def _outcomes(self, latents: Tensor) -> Tensor:
        there = torch.sigmoid(latents)
        return torch.cat([there, 1 - there], dim=-1)
