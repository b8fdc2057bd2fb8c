"""The default net for tables, as a skorch net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from skorch.utils import noop
from torch import nn

from sksubnet.nets.averaging import AveragedWeights
from sksubnet.nets.criteria import LogVarianceLoss
from sksubnet.nets.tabular import TabularMLP, robust_scale

MIN_ROWS_TO_HOLD_OUT = 100
MOST_EPOCHS = 300


@dataclass(frozen=True)
class Schedule:
    """How the default net trains: in batches of a size, until unseen rows stop it or to the end."""

    batch_size: int
    stops_early: bool
    n_epochs: int = MOST_EPOCHS

    @classmethod
    def until_stopped(cls, n_rows: int) -> Schedule:
        """Train on so many rows until those held out are no longer predicted better."""
        return cls(_batch_size(n_rows), stops_early=True)

    @classmethod
    def of_epochs(cls, n_rows: int, n_epochs: int) -> Schedule:
        """Train on so many rows, for so many epochs."""
        return cls(_batch_size(n_rows), stops_early=False, n_epochs=n_epochs)

    @classmethod
    def alone(cls, n_rows: int) -> Schedule:
        """Train a net that holds rows out by itself; too few of them are one batch."""
        if n_rows < MIN_ROWS_TO_HOLD_OUT:
            return cls(MIN_ROWS_TO_HOLD_OUT, stops_early=False)
        return cls.until_stopped(n_rows)


def _batch_size(n_rows: int) -> int:
    return min(max(n_rows // 8, 32), 512)


class Tabular(NeuralNet):
    """Averages the weights over the steps, and validates, stops and keeps the averages.

    The mode of its parts is set only where it changes: in a small net, a walk through all layers
    before every batch takes as long as they do.
    """

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run the epoch of a training with the weights themselves, all else with the averages."""
        if not training:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        if "averages_" not in vars(self):
            self.averages_ = AveragedWeights(list(self.module_.parameters()))
        self.averages_.hide()
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        self.averages_.show()

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Take a step of the optimiser, and count the weights in the averages."""
        step = super().train_step(batch, **fit_params)
        self.averages_.update()
        return step

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Forget the averages, which the module now has."""
        super().on_train_end(net, **kwargs)
        self.__dict__.pop("averages_", None)

    def _set_training(self, training: bool = True) -> None:
        parts = (getattr(self, f"{name}_") for name in self._modules + self._criteria)
        if any(part.training != training for part in parts):
            super()._set_training(training)


class TabularBinaryClassifier(Tabular, NeuralNetBinaryClassifier):
    """The default net for two classes."""


class TabularClassifier(Tabular, NeuralNetClassifier):
    """The default net for more classes."""


class TabularRegressor(Tabular, NeuralNetRegressor):
    """The default net for targets."""


TASKS: dict[str, tuple[type[Tabular], type[nn.Module]]] = {
    "binary": (TabularBinaryClassifier, nn.BCEWithLogitsLoss),
    "multiclass": (TabularClassifier, nn.CrossEntropyLoss),
    "multilabel": (TabularClassifier, nn.BCEWithLogitsLoss),
    "regression": (TabularRegressor, nn.MSELoss),
    "noise": (TabularRegressor, LogVarianceLoss),
}


def default_net(
    X: np.ndarray,
    weights: np.ndarray,
    *,
    task: str,
    schedule: Schedule,
    validation_fraction: float = 0.2,
    dropout: float = 0.0,
    verbose: int,
) -> NeuralNet:
    """Build the net for tables: scaled and clipped inputs, two SiLU layers, AdamW.

    The weights are averaged over the steps; where it stops early it keeps the best of them. Settled
    by ``examples/benchmarks/settings_study.py``.
    """
    center, scale = robust_scale(X, weights)
    return tabular_net(
        task,
        schedule,
        {"center": center, "scale": scale, "dropout": dropout},
        validation_fraction=validation_fraction,
        verbose=verbose,
    )


def tabular_net(
    task: str,
    schedule: Schedule,
    module: dict[str, Any],
    *,
    validation_fraction: float,
    verbose: int,
) -> NeuralNet:
    """Build the default net around a ``TabularMLP`` with these parameters."""
    kind, criterion = TASKS[task]
    split = ValidSplit(validation_fraction, stratified=task in ("binary", "multiclass"))
    patience, lr = (8, 2e-3) if task == "noise" else (15, 5e-3)
    stop = [("early_stopping", EarlyStopping(patience=patience, load_best=True, sink=noop))]
    quiet = {"callbacks__print_log": None} if verbose <= 0 else {}
    no_scores = {} if issubclass(kind, NeuralNetRegressor) else {"callbacks__valid_acc": None}
    return kind(
        TabularMLP,
        **{f"module__{name}": value for name, value in module.items()},
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=1e-2,
        optimizer__fused=True,
        lr=lr,
        batch_size=schedule.batch_size,
        iterator_train__shuffle=True,
        max_epochs=schedule.n_epochs,
        train_split=split if schedule.stops_early else None,
        callbacks=stop if schedule.stops_early else None,
        verbose=verbose,
        **quiet | no_scores,
    )


def draws_nothing(net: NeuralNet) -> bool:
    """Whether training the net draws nothing from the global random states: the default net's."""
    return isinstance(net, Tabular) and not any(
        isinstance(layer, nn.Dropout) and layer.p > 0 for layer in net.module_.modules()
    )


def n_epochs_kept(net: NeuralNet) -> int:
    """Epochs after which the weights were what they are now: the best where these were kept."""
    stops = [callback for _, callback in net.callbacks_ if isinstance(callback, EarlyStopping)]
    if any(stop.load_best for stop in stops):
        best = [epoch["epoch"] for epoch in net.history if epoch.get("valid_loss_best")]
        return int(best[-1]) if best else len(net.history)
    return len(net.history)
