"""The default net for tables, as a skorch net."""

from __future__ import annotations

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from skorch.utils import noop
from torch import nn

from sksubnet.nets.tabular import TabularMLP, robust_scale

MIN_ROWS_TO_HOLD_OUT = 100


class Tabular(NeuralNet):
    """Sets the mode of its parts only where it changes.

    In a small net, a walk through all layers before every batch takes as long as they do.
    """

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


def default_net(
    X: np.ndarray,
    weights: np.ndarray,
    *,
    task: str,
    validation_fraction: float,
    dropout: float = 0.0,
    verbose: int,
) -> NeuralNet:
    """Build the net for tables: scaled and clipped inputs, two SiLU layers, AdamW.

    With enough rows it stops early on held-out rows and keeps the best weights; fewer are one
    batch. Settled by ``examples/benchmarks/tabular_study.py``.
    """
    enough = len(X) >= MIN_ROWS_TO_HOLD_OUT
    center, scale = robust_scale(X, weights)
    kind, criterion = {
        "binary": (TabularBinaryClassifier, nn.BCEWithLogitsLoss),
        "multiclass": (TabularClassifier, nn.CrossEntropyLoss),
        "regression": (TabularRegressor, nn.MSELoss),
    }[task]
    stop = [("early_stopping", EarlyStopping(patience=15, load_best=True, sink=noop))]
    split = ValidSplit(validation_fraction, stratified=task != "regression")
    quiet = {"callbacks__print_log": None} if verbose <= 0 else {}
    no_scores = {"callbacks__valid_acc": None} if task != "regression" else {}
    return kind(
        TabularMLP,
        module__center=center,
        module__scale=scale,
        module__dropout=dropout,
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=1e-2,
        optimizer__fused=True,
        lr=5e-3,
        batch_size=min(max(len(X) // 8, 32), 512) if enough else MIN_ROWS_TO_HOLD_OUT,
        iterator_train__shuffle=True,
        max_epochs=300,
        train_split=split if enough else None,
        callbacks=stop if enough else None,
        verbose=verbose,
        **quiet | no_scores,
    )


def draws_nothing(net: NeuralNet) -> bool:
    """Whether training the net draws nothing from the global random states: the default net's."""
    return isinstance(net, Tabular) and not any(
        isinstance(layer, nn.Dropout) and layer.p > 0 for layer in net.module_.modules()
    )
