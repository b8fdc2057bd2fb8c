"""A trained net plus its Jacobian times a Gaussian change of some of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sksubnet.estimators.fitted import FittedNet
from sksubnet.jacobian import FactoredRows, JacobianPlan, jacobian
from sksubnet.nets import Rows, count_rows, take_rows
from sksubnet.posterior import Posterior, rows_of_products
from sksubnet.predictive import (
    SIGN_LINKS,
    Bernoulli,
    Mixture,
    MultiLabel,
    Predictive,
    predictive_of,
)
from sksubnet.selection import Subnetwork


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LinearisedNet(FittedNet):
    """A trained, selected, curved and factorised net.

    Attributes
    ----------
    subnetwork : Subnetwork
        The selected weights.
    posterior : Posterior
        The Gaussian over them.
    log_likelihood : float
        Log likelihood of the rows that trained the net, in the units of the target.
    shift : Tensor of shape (S,) or None
        What ``update`` has moved the mean of the weights by, from the trained ones.
    origin : LinearisedNet or None
        What ``fit`` has left, where ``update`` begins with it each time: without Gaussian noise.
    added : Rows or None
        All rows of the updates since then.
    """

    subnetwork: Subnetwork
    plan: JacobianPlan
    posterior: Posterior
    log_likelihood: float
    link: str
    shift: Tensor | None = None
    origin: LinearisedNet | None = None
    added: Rows | None = None

    def _facts(self) -> list[str]:
        return [*super()._facts(), f"a posterior on {len(self.subnetwork)} of them"]

    def __post_init__(self) -> None:
        """Refuse parts that are not of one subnetwork."""
        sizes = {len(self.subnetwork), self.plan.n_selected, len(self.posterior.mean)}
        if len(sizes) > 1:
            raise ValueError(f"subnetwork, plan and posterior have {sorted(sizes)} weights.")

    @property
    def rows_per_batch(self) -> int:
        """Rows of a batch whose Jacobian fits the memory budget, from one pass or several."""
        # Solves read all of a large factor, and refined ones widen it: a few rows take long, too.
        most = rows_of_products if self.posterior.costly else self.posterior.rows_per_batch
        return max(1, most(self.plan, self.n_outputs, self.latent.dtype))

    def _passes(self, X: Tensor) -> Iterator[Tensor]:
        """Parts of a batch that pass through the net and back at once."""
        step = self.posterior.rows_per_batch(self.plan, self.n_outputs, self.latent.dtype)
        for start in range(0, count_rows(X), step):
            yield take_rows(X, slice(start, start + step))

    def work(self, n_rows: int, shape: Sequence[int]) -> int:
        """Count the products of weights and rows of a prediction, and those of its Jacobian."""
        projected = len(self.subnetwork) * self.posterior.numbers_per_row(self.plan)
        return super().work(n_rows, shape) + n_rows * self.n_outputs * projected

    @property
    def n_rows_held(self) -> int:
        """Count the training rows that can be computed from what is kept."""
        return self.posterior.n_rows_held

    @property
    def decides_by_sign(self) -> bool:
        """Whether a class, or a label, is probable where the mean of its logit is positive."""
        return isinstance(self.likelihood, Bernoulli | MultiLabel) and self.link in SIGN_LINKS

    def means(self, X: Tensor) -> Tensor:
        """Predictive mean (B, C) of the latents of a batch."""
        if self.shift is None:
            return self.map(X)
        parts = (self.posterior.jacobian(self.latent, self.plan, part) for part in self._passes(X))
        return torch.cat([self._moved(*part) for part in parts])

    def predictive(self, X: Tensor) -> Predictive:
        """Predictive of a batch, in the units of the net."""
        parts = [self.posterior.jacobian(self.latent, self.plan, part) for part in self._passes(X)]
        outputs, rows = parts[0]
        if len(parts) > 1:
            outputs, rows = (torch.cat(found) for found in zip(*parts, strict=True))
        outputs = self._moved(outputs, rows)
        latents = Mixture(outputs[None], self.posterior.covariance(rows)[None])
        return predictive_of(latents, self.likelihood_at(X), self.link, self.seed)

    def joint_moments(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean (N, C) of all rows and covariance between them (C, N, N)."""
        outputs, rows = self._jacobian(batches)
        return outputs, self.posterior.covariance(rows.permute(1, 0, 2)).cpu()

    def functions(
        self, batches: Iterable[Tensor], n_draws: int, generator: torch.Generator
    ) -> Tensor:
        """Draws (N, C, n_draws) of functions, each over all rows."""
        change = self.posterior.sample(n_draws, generator) - self.posterior.mean
        parts = []
        for batch in batches:
            outputs, rows = self._jacobian([batch])
            parts.append(outputs[:, :, None] + rows.double() @ change.mT)
        return torch.cat(parts)

    def _moved(self, outputs: Tensor, rows: Tensor | FactoredRows) -> Tensor:
        """Latents (B, C) at the mean of the weights, from those of the trained net."""
        if self.shift is None:
            return outputs
        if isinstance(rows, FactoredRows):
            return outputs + rows.double().times(self.shift).view(outputs.shape)
        return outputs + rows.double() @ self.shift

    def _jacobian(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean latents (N, C) and Jacobian (N, C, S) of all rows at once, on the CPU."""
        latent, plan = self.latent, self.plan
        parts = (jacobian(latent, plan, part) for batch in batches for part in self._passes(batch))
        outputs, rows = zip(*parts, strict=True)
        all_rows = torch.cat(rows).cpu()
        return self._moved(torch.cat(outputs).double().cpu(), all_rows), all_rows
