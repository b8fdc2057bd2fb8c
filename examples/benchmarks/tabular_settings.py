"""Settings of the default net that `settings_study.py` compares."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from sksubnet.nets.default import Schedule, TabularNet
from sksubnet.nets.encoding import robust_scale
from sksubnet.nets.tabular import TabularMLP


class Variant(TabularMLP):
    """The net for tables with scaling, activation and clip of its own."""

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        center: np.ndarray,
        scale: np.ndarray,
        activation: type[nn.Module] = nn.SiLU,
        clip: float = 3.0,
        **options: Any,
    ) -> None:
        super().__init__(n_features, n_outputs, **options)
        self.register_buffer("center", torch.as_tensor(center))
        self.register_buffer("scale", torch.as_tensor(scale))
        self.clip = clip
        for i, layer in enumerate(self.rest):
            if isinstance(layer, nn.SiLU):
                self.rest[i] = activation()

    def forward(self, X: Tensor) -> Tensor:
        z = (X - self.center) * self.scale
        units = self.dense(z / torch.sqrt(1 + (z / self.clip) ** 2))
        if self.binned is not None:
            units = units + self.binned(self._dropped(self._bins(z)))
        outputs: Tensor = self.rest(units)
        return outputs


def net_of(changes: dict[str, Any], X: np.ndarray, task: str) -> NeuralNet:
    """The net of some changes to `START`."""
    value = START | changes
    held_out, batch_size = value["held_out"], value["batch_size"]
    center, scale = value["scaling"](X)
    settings = TabularNet(
        hidden=value["hidden"],
        bins=value["bins"],
        bin_dropout=value["bin_dropout"],
        dropout=value["dropout"],
        lr=value["lr"],
        weight_decay=value["weight_decay"],
        batch_size=batch_size(len(X)) if callable(batch_size) else batch_size,
        max_epochs=value["max_epochs"],
    )
    net = settings.build(
        (X - center) * scale,
        np.ones(len(X)),
        task=task,
        schedule=Schedule.alone(len(X)),
        validation_fraction=held_out,
    )
    stop = EarlyStopping(
        patience=value["patience"], threshold=value["threshold"], load_best=True, sink=silent
    )
    schedule = value["schedule"]
    return net.set_params(
        module=Variant,
        module__activation=value["activation"],
        module__clip=value["clip"],
        module__center=center,
        module__scale=scale,
        module__tails=None,
        callbacks=[
            ("early_stopping", stop),
            *([("schedule", schedule(value))] if schedule else []),
        ],
    )


def silent(message: str) -> None:
    """Drop what early stopping prints; with a name, so that the net can be pickled."""


def inverse(spread: np.ndarray) -> np.ndarray:
    return np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)


def quartiles(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and interquartile range, or half the range where the quartiles coincide."""
    low, median, high = np.quantile(X, [0.25, 0.5, 0.75], axis=0, method="inverted_cdf")
    half_range = (X.max(axis=0) - X.min(axis=0)) / 2
    return median, inverse(np.where(high > low, high - low, half_range))


def deviations(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation."""
    return X.mean(axis=0), inverse(X.std(axis=0))


def robust(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation without outliers, but half the distance of two values."""
    return robust_scale(X, np.ones(len(X)))


def share(divisor: int, most: int = 512) -> Callable[[int], int]:
    """Batches of a share of the rows, at least 32."""
    return lambda n_rows: min(max(n_rows // divisor, 32), most)


def cosine(value: dict[str, Any]) -> LRScheduler:
    return LRScheduler(CosineAnnealingLR, T_max=value["max_epochs"])


def one_cycle(value: dict[str, Any]) -> LRScheduler:
    return LRScheduler(OneCycleLR, max_lr=value["lr"], total_steps=value["max_epochs"] + 1)


def plateau(value: dict[str, Any]) -> LRScheduler:
    return LRScheduler(ReduceLROnPlateau, monitor="valid_loss", patience=3, factor=0.3)


def epochs(n: int, schedule: Callable[..., LRScheduler], lr: float) -> dict[str, Any]:
    """A schedule of so many epochs, of which the best one's weights are kept."""
    return {"max_epochs": n, "patience": n, "schedule": schedule, "lr": lr}


START: dict[str, Any] = {
    "hidden": (64, 64),
    "bins": 0,
    "bin_dropout": 0.4,
    "activation": nn.SiLU,
    "dropout": 0.0,
    "scaling": quartiles,
    "clip": 3.0,
    "lr": 3e-3,
    "weight_decay": 1e-2,
    "batch_size": lambda n_rows: 128 if n_rows <= 10_000 else 512,
    "max_epochs": 300,
    "patience": 20,
    "threshold": 1e-4,
    "schedule": None,
    "held_out": 0.2,
}
CHOSEN = {"scaling": robust, "batch_size": share(8), "lr": 5e-3, "patience": 15, "bins": 8}
ONE_CHANGE: dict[str, dict[str, Any]] = {
    "no bins": {"bins": 0},
    "16 bins": {"bins": 16},
    "bins without dropout": {"bin_dropout": 0.0},
    "batch 64": {"batch_size": 64},
    "batch 256": {"batch_size": 256},
    "batch N/4": {"batch_size": share(4)},
    "batch N/16": {"batch_size": share(16)},
    "batch N/8, at most 256": {"batch_size": share(8, 256)},
    "lr 1e-3": {"lr": 1e-3},
    "lr 3e-3": {"lr": 3e-3},
    "lr 1e-2": {"lr": 1e-2},
    "patience 5": {"patience": 5},
    "patience 10": {"patience": 10},
    "patience 20": {"patience": 20},
    "patience 10, threshold 1e-2": {"patience": 10, "threshold": 1e-2},
    "dropout .1": {"dropout": 0.1},
    "dropout .2": {"dropout": 0.2},
    "hidden 32": {"hidden": (32, 32)},
    "hidden 128": {"hidden": (128, 128)},
    "1 layer": {"hidden": (64,)},
    "1 layer of 128": {"hidden": (128,)},
    "3 layers": {"hidden": (64, 64, 64)},
    "ReLU": {"activation": nn.ReLU},
    "GELU": {"activation": nn.GELU},
    "weight decay .1": {"weight_decay": 0.1},
    "held out .1": {"held_out": 0.1},
    "clip 2": {"clip": 2.0},
    "clip 5": {"clip": 5.0},
    "scaling by quartiles": {"scaling": quartiles},
    "scaling by deviations": {"scaling": deviations},
    "cosine, 30 epochs": epochs(30, cosine, 1e-2),
    "cosine, 50 epochs": epochs(50, cosine, 1e-2),
    "one cycle, 20 epochs": epochs(20, one_cycle, 2e-2),
    "one cycle, 30 epochs": epochs(30, one_cycle, 2e-2),
    "plateau": {"lr": 1e-2, "patience": 10, "schedule": plateau},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "start": {},
    "chosen": CHOSEN,
    **{f"start, {name}": changes for name, changes in ONE_CHANGE.items()},
    **{f"chosen, {name}": CHOSEN | changes for name, changes in ONE_CHANGE.items()},
}
