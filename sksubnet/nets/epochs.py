"""The epochs of a training, as parts of the task that is being worked on."""

from __future__ import annotations

from typing import Any

from skorch.callbacks import Callback

from sksubnet.progress import CURRENT, Task


class EpochTasks(Callback):
    """Tells the current task of every epoch, and stops the training where it is asked to.

    It comes last: one before it may have stopped the training in an epoch that has not ended yet.
    """

    def __init__(self) -> None:
        self.training = CURRENT.get()
        self.epoch: Task | None = None

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin an epoch."""
        self.epoch = self.training and self.training.begin("epoch")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """End it."""
        if self._ends():
            raise KeyboardInterrupt  # as skorch's callbacks stop a training

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """End one that was stopped."""
        self._ends()

    def _ends(self) -> bool:
        epoch, self.epoch = self.epoch, None
        return epoch is not None and epoch.end()
