"""Predictions of a linearised net under a Gaussian over some of its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sksubnet.estimators.base import BayesianNet
from sksubnet.jacobian import JacobianPlan, factored_jacobian, jacobian
from sksubnet.posterior import (
    CholeskyPosterior,
    DiagonalPosterior,
    GaussianPosterior,
    KernelPosterior,
    factored_rows_within_budget,
    rows_within_budget,
)
from sksubnet.predictive import DEFAULT_LINK, Predictive

Posterior = GaussianPosterior | KernelPosterior | CholeskyPosterior


class LinearisedNet(BayesianNet):
    """The trained net plus its Jacobian times a Gaussian change of the weights."""

    posterior_: Posterior
    link: str = DEFAULT_LINK
    _plan: JacobianPlan

    def _rows_for(self, posterior: Posterior, X: Tensor) -> tuple[Tensor, Any]:
        """Latents (B, C) of a batch and its Jacobian as the posterior takes it, on the CPU."""
        latent = self._latent
        factored = isinstance(posterior, KernelPosterior | DiagonalPosterior)
        rows = factored_jacobian if factored else jacobian
        outputs, phi = rows(latent, self._plan, X)
        return outputs.double().cpu(), phi.cpu()

    def _batch_predictive(self, X: Tensor) -> Predictive:
        outputs, phi = self._rows_for(self.posterior_, X)
        covariance = self.posterior_.covariance(phi)
        return Predictive(outputs, covariance, self._likelihood, self.link, self._seed)

    def _jacobian(self, X: Any) -> tuple[Tensor, Tensor]:
        """Latents (N, C) and Jacobian (N, C, S) of all rows at once, on the CPU."""
        latent, plan = self._latent, self._plan
        parts = (jacobian(latent, plan, batch) for batch in self._batches(X))
        outputs, phi = zip(*parts, strict=True)
        return torch.cat(outputs).double().cpu(), torch.cat(phi).cpu()

    def _means(self, X: Any) -> Tensor:
        return self._map_latents(X)

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        outputs, phi = self._jacobian(X)
        return outputs, self.posterior_.covariance(phi.permute(1, 0, 2)).cpu()

    def _draw_functions(self, X: Any, n_samples: int, generator: torch.Generator) -> Tensor:
        change = self.posterior_.sample(n_samples, generator) - self.posterior_.mean
        outputs, phi = self._jacobian(X)
        return outputs[:, :, None] + phi.double() @ change.mT

    def _rows_per_batch(self) -> int:
        return self._rows_for_batch(self.posterior_)

    def _rows_for_batch(self, posterior: Posterior) -> int:
        """Rows whose Jacobian fits the memory budget, in the form that the posterior takes."""
        sizes = self._plan, self._n_latents, self._latent.dtype
        if isinstance(posterior, KernelPosterior):
            return factored_rows_within_budget(*sizes, len(posterior.rows))
        if isinstance(posterior, DiagonalPosterior):
            return factored_rows_within_budget(*sizes)
        return rows_within_budget(*sizes)
