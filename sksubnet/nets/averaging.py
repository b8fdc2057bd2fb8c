"""Averages of the weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

DECAY = 0.98
"""Share of the average that a step leaves, once it has been through enough of them."""


class AveragedWeights:
    """Exponential moving averages of parameters, which take their place and leave it again.

    Early steps count more, so that the initial weights are soon forgotten (as the warm-up of
    ``num_updates`` in TensorFlow's moving average does).
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.averages = [parameter.detach().clone() for parameter in parameters]
        self.hidden = [parameter.detach().clone() for parameter in parameters]
        self.are_shown = False
        self.n_steps = 0

    def update(self) -> None:
        """Count the present weights."""
        self.n_steps += 1
        decay = min(DECAY, (1 + self.n_steps) / (10 + self.n_steps))
        present = [parameter.detach() for parameter in self.parameters]
        torch._foreach_lerp_(self.averages, present, 1 - decay)

    def show(self) -> None:
        """Put the averages in the place of the weights, and keep these."""
        self._copy(self.parameters, self.hidden)
        self._copy(self.averages, self.parameters)
        self.are_shown = True

    def hide(self) -> None:
        """Put the weights back."""
        if self.are_shown:
            self._copy(self.hidden, self.parameters)
            self.are_shown = False

    @staticmethod
    def _copy(source: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_([t.detach() for t in target], [s.detach() for s in source])
