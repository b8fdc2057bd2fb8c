"""The known criteria in training: targets in the shape of the outputs, rows with their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LOG_VARIANCE_LIMIT = 10.0
"""Largest change of a log variance, which keeps early steps finite."""


@dataclass(eq=False)
class BatchWeights:
    """Weights of the rows of a batch, which its loader leaves here for the criterion."""

    values: Tensor | None = None
    are_used: bool = True
    are_needed: bool = True
    were_left: bool = False

    def leave(self, values: Tensor) -> None:
        """Leave the weights (B,) of the batch that is handed out next."""
        self.check_used()
        self.values, self.are_used, self.were_left = values, not self.are_needed, True

    def take(self) -> Tensor | None:
        """Return the weights of the batch, any number of times; ``None`` is one for each row."""
        self.are_used = True
        return self.values

    def clear(self) -> None:
        """Forget the last batch."""
        self.check_used()
        self.values = None

    def beside(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield batches that perhaps are predicted only, while another one may be in training."""
        before = self.values, self.are_used, self.are_needed
        self.are_used, self.are_needed = True, False
        try:
            yield from batches
        finally:
            self.values, self.are_used, self.are_needed = before

    def check_used(self) -> None:
        """Raise if the loss of a batch was computed without its weights."""
        if not self.are_used:
            raise ValueError(
                "sample_weight needs the net's own criterion, but the net's get_loss did not use "
                "it for a batch, so the weights had no effect. Fit without sample_weight, or call "
                "super().get_loss(...) or self.criterion_(...) in get_loss."
            )


class _RowLoss(nn.Module):
    """A criterion that fits targets to the outputs and averages with the weights of the batch."""

    batch_weights: BatchWeights
    reduction: str

    def forward(self, outputs: Tensor, targets: Tensor, *more: Tensor) -> Tensor:
        """Loss of outputs (B, ...) for targets (B, ...)."""
        if targets.is_floating_point():
            targets = targets.to(outputs.dtype)
            if targets.numel() == outputs.numel():
                targets = targets.reshape(outputs.shape)
        elif outputs.ndim == 1 and len(targets) == 1:
            outputs = outputs.reshape(1, -1)  # a squeeze dropped the axis of the rows
        weights = self.batch_weights.take()
        if weights is None and _may_weigh_nothing(self):
            weights = torch.ones_like(targets, dtype=outputs.dtype)
        if weights is None:
            return self._plain_loss(outputs, targets, *more)
        reduction = getattr(self, "reduction", "")
        if reduction not in ("mean", "sum"):
            raise ValueError(
                "sample_weight needs a criterion that sums or averages the losses of the rows; "
                f"this one has reduction={reduction!r}. Fit without sample_weight, or set "
                "criterion__reduction='mean'."
            )
        self.reduction = "none"
        try:
            losses = self._plain_loss(outputs, targets, *more)
        finally:
            self.reduction = reduction
        if losses.ndim == 0:
            raise ValueError(
                "sample_weight needs the losses of the rows, but the net's criterion gives one "
                "number with reduction='none'. Fit without sample_weight, or have its forward look "
                "at self.reduction."
            )
        losses = losses.reshape(len(weights), -1)
        if reduction == "sum":
            return (weights * losses.sum(dim=1)).sum()
        class_weights = getattr(self, "weight", None)
        if class_weights is not None and not targets.is_floating_point():
            total = (weights * class_weights[targets]).sum()
            least = torch.finfo(total.dtype).tiny  # of a batch whose classes all weigh nothing
            return (weights * losses.mean(dim=1)).sum() / total.clamp_min(least)
        return (weights * losses.mean(dim=1)).sum() / weights.sum()

    def _plain_loss(self, outputs: Tensor, targets: Tensor, *more: Tensor) -> Tensor:
        loss: Tensor = super().forward(outputs, targets, *more)
        return loss

    def __reduce__(self) -> tuple[Any, ...]:
        plain: nn.Module = object.__new__(type(self).__mro__[2])
        plain.__dict__.update(vars(self))
        weights = plain.__dict__.pop("batch_weights")
        return with_row_weights, (plain, weights)


def _may_weigh_nothing(criterion: nn.Module) -> bool:
    """Whether a class has weight 0, so that a batch of its rows has the mean loss 0 / 0."""
    weight = getattr(criterion, "weight", None)
    of_classes = isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss)
    return of_classes and weight is not None and bool((weight == 0).any())


class RowCrossEntropyLoss(_RowLoss, nn.CrossEntropyLoss):
    """``CrossEntropyLoss`` with row weights."""


class RowNLLLoss(_RowLoss, nn.NLLLoss):
    """``NLLLoss`` with row weights."""


class RowBCEWithLogitsLoss(_RowLoss, nn.BCEWithLogitsLoss):
    """``BCEWithLogitsLoss`` with row weights."""


class RowMSELoss(_RowLoss, nn.MSELoss):
    """``MSELoss`` with row weights."""


class RowPoissonNLLLoss(_RowLoss, nn.PoissonNLLLoss):
    """``PoissonNLLLoss`` with row weights."""


class RowGaussianNLLLoss(_RowLoss, nn.GaussianNLLLoss):
    """``GaussianNLLLoss`` with row weights, called with a pair or by a ``get_loss`` that does."""

    def forward(  # type: ignore[override]
        self, input: Any, target: Tensor, var: Tensor | None = None
    ) -> Tensor:
        """Loss of a mean and a variance, or of both as a pair, for targets (B, ...)."""
        mean, variance = input if var is None else (input, var)
        if variance.numel() == mean.numel():
            variance = variance.reshape(mean.shape)
        return super().forward(mean, target, variance)


class LogVarianceLoss(nn.Module):
    """Negative log likelihood of residuals under variances whose logarithm is the output.

    Of squared residuals over their mean, so that outputs 0 are one noise for all rows.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of log variances (B, C) for squared residuals (B, C)."""
        outputs = outputs.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        losses = (outputs + targets * torch.exp(-outputs)) / 2
        return losses if self.reduction == "none" else losses.mean()


class RowLogVarianceLoss(_RowLoss, LogVarianceLoss):
    """``LogVarianceLoss`` with row weights."""


ROW_LOSSES: dict[type[nn.Module], type[_RowLoss]] = {
    nn.CrossEntropyLoss: RowCrossEntropyLoss,
    nn.NLLLoss: RowNLLLoss,
    nn.BCEWithLogitsLoss: RowBCEWithLogitsLoss,
    nn.MSELoss: RowMSELoss,
    nn.PoissonNLLLoss: RowPoissonNLLLoss,
    nn.GaussianNLLLoss: RowGaussianNLLLoss,
    LogVarianceLoss: RowLogVarianceLoss,
}


def with_row_weights(criterion: Any, batch_weights: BatchWeights) -> nn.Module:
    """Return the same criterion, with its options and tensors, for weighted rows."""
    kind = type(criterion)
    weighted: nn.Module = object.__new__(ROW_LOSSES.get(kind) or _row_loss_of(kind))
    weighted.__dict__.update(vars(criterion), batch_weights=batch_weights)
    return weighted


def _row_loss_of(kind: type[nn.Module]) -> type[nn.Module]:
    """Make a criterion of the user's, whose likelihood is declared, one for weighted rows."""
    return type(f"Row{kind.__name__}", (_RowLoss, kind), {})
