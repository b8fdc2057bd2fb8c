"""What is kept of a trained net: enough to predict, nothing that only its training needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sklearn
import skorch
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from torch import nn
from torch.utils._pytree import tree_leaves

from sksubnet.jacobian import deep_copy
from sksubnet.nets.default import TASKS, Schedule, Tabular, TabularNet, tabular_net
from sksubnet.nets.encoding import Encoding
from sksubnet.nets.keeping import keepable_copy
from sksubnet.nets.modules import Training, load, outcome, settle, whole_module
from sksubnet.nets.randomness import RandomStream
from sksubnet.nets.training import check_net, is_fitted, is_frozen
from sksubnet.nets.widths import INPUT_WIDTHS, OUTPUT_WIDTHS, with_widths

PLAIN = frozenset((bool, int, float, str, type(None)))
"""Types of values that a file holds as they are."""


def library_versions() -> dict[str, str]:
    """Versions of what a kept net depends on, without what they were built for."""
    found = {"torch": torch.__version__, "skorch": skorch.__version__}
    found["scikit-learn"] = sklearn.__version__
    return {name: str(version).partition("+")[0] for name, version in found.items()}


@dataclass(frozen=True, eq=False)
class StoredTabular:
    """The default net: how it is made, and what its training gave."""

    settings: TabularNet
    task: str
    schedule: Schedule
    module: dict[str, Any]
    encoding: Encoding | None
    validation_fraction: float
    verbose: int
    dtype: str
    training: Training

    def restored(self) -> NeuralNet:
        """Make the net again."""
        settings = clone(self.settings)
        if not torch.cuda.is_available() and str(settings.device).startswith("cuda"):
            settings.set_params(device="cpu")
        net = tabular_net(
            settings,
            self.task,
            self.schedule,
            self.module,
            self.encoding,
            self.validation_fraction,
            self.verbose,
        )
        with RandomStream(0).everywhere():
            net = with_widths(net, {}, self.module["n_outputs"], getattr(torch, self.dtype))
        load(net, self.training)
        return net


class KeptNet:
    """A net of the user's, which pickles without its optimisers and from any device."""

    def __init__(self, net: NeuralNet) -> None:
        self.net = net

    def restored(self) -> NeuralNet:
        """Return the net."""
        return self.net

    def __getstate__(self) -> dict[str, Any]:
        shell = object.__new__(type(self.net))
        attributes = shell.__dict__
        attributes.update(vars(self.net))
        for name in self.net._optimizers:
            attributes.pop(f"{name}_", None)
        # skorch would pickle these by a pickler of its own, which may know less than the one at
        # work: cloudpickle takes classes of __main__ along.
        names = [f"{name}_" for name in self.net._modules + self.net._criteria]
        parts = {name: _on_cpu(attributes.pop(name)) for name in names if name in attributes}
        attributes["history_"] = type(self.net.history)(_epochs(self.net))
        return {"net": shell, "parts": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.net = state["net"]
        for name, part in state["parts"].items():
            device = self.net.device
            vars(self.net)[name] = part if device is None else part.to(device)
        self.net.initialize_optimizer()


def kept(net: NeuralNet) -> StoredTabular | KeptNet:
    """Return what is kept of a trained net, which makes it again."""
    tasks = {parts: task for task, parts in TASKS.items()}
    if not isinstance(net, Tabular):
        return KeptNet(net)
    stops_early = net.train_split is not None
    settings = TabularNet(
        lr=net.lr,
        weight_decay=net.optimizer__weight_decay,
        batch_size=net.batch_size,
        device=str(net.device),
    )
    if stops_early:
        settings.set_params(patience=dict(net.callbacks)["early_stopping"].patience)
    return StoredTabular(
        settings=settings,
        task=tasks[type(net), net.criterion],
        schedule=Schedule(len(net.history), stops_early, net.max_epochs),
        module=net.get_params_for("module"),
        encoding=net.encoding,
        validation_fraction=net.train_split.cv if stops_early else 0.2,
        verbose=net.verbose,
        dtype=_dtype_name(net),
        training=replace(outcome(net), history=_epochs(net)),
    )


@dataclass(frozen=True, eq=False)
class NamedNet:
    """A net of the user's by the names of its classes, and what its training gave: no code."""

    net: str
    module: str
    criterion: str
    is_frozen: bool
    widths: dict[str, int]
    n_outputs: int
    dtype: str
    training: Training

    @classmethod
    def of(cls, kept: KeptNet, *, is_frozen: bool, n_outputs: int) -> NamedNet:
        """Name the parts of a trained net."""
        return cls(
            **_names(kept.net),
            is_frozen=is_frozen,
            widths=_widths(kept.net),
            n_outputs=n_outputs,
            dtype=_dtype_name(kept.net),
            training=replace(
                outcome(kept.net),
                history=[
                    {name: value for name, value in epoch.items() if type(value) in PLAIN}
                    for epoch in _epochs(kept.net)
                ],
            ),
        )

    def restored(self, given: Any) -> KeptNet:
        """Make the net again from one of the user's, whose classes have to have these names."""
        net, described = resolved(given), f"{self.net} around a {self.module}"
        if net is None:
            raise ValueError(
                f"The file holds the weights of a {described}, but not its code, which no file can "
                "be trusted with: load(path, net=...) takes the net that was given to the "
                "estimator, or a function that makes it."
            )
        if isinstance(net, TabularNet):
            raise ValueError(
                f"The file holds the weights of a {described}, but net is a TabularNet; pass the "
                "net that was given to the estimator."
            )
        if is_frozen(net) and not self.is_frozen:
            raise ValueError(
                "The estimator trained its net, so pass the net itself instead of FrozenEstimator."
            )
        inner = net.estimator if is_frozen(net) else net
        names = _names(inner)
        if names != {name: getattr(self, name) for name in names}:
            raise ValueError(
                f"The file holds the weights of a {described} with {self.criterion}, but net is a "
                f"{names['net']} around a {names['module']} with {names['criterion']}; pass the "
                "net that was given to the estimator."
            )
        dtype = getattr(torch, self.dtype)
        with RandomStream(0).everywhere():
            if is_frozen(net) and is_fitted(inner):
                made = keepable_copy(inner)
                settle(made, dtype)
            else:
                made = clone(inner)
                given_widths = made.get_params_for("module")
                missing = {k: v for k, v in self.widths.items() if k not in given_widths}
                made = with_widths(made, missing, self.n_outputs, dtype)
        self._check_tensors(whole_module(made))
        load(made, self.training)
        return KeptNet(made)

    def _check_tensors(self, module: nn.Module) -> None:
        """Raise unless the module has tensors of the same names and shapes."""
        theirs = {name: _shape(value) for name, value in module.state_dict().items()}
        ours = {name: _shape(value) for name, value in self.training.state.items()}
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                raise ValueError(
                    f"{name!r} of {self.module} is {theirs.get(name, 'missing')} in the given "
                    f"net, but {ours.get(name, 'missing')} in the file; give the net the "
                    "parameters that it was trained with."
                )


def resolved(given: Any) -> Any:
    """Return the net that is given, or made by a function; ``None`` stays.

    A frozen one need not be fitted, for its weights are those of the file.
    """
    if callable(given) and not isinstance(given, NeuralNet):
        given = given()
    if given is None or isinstance(given, TabularNet):
        return given
    inner = given.estimator if is_frozen(given) else given
    check_net(given if is_fitted(inner) else inner)
    return given


def frozen_like(given: Any, trained: NeuralNet) -> FrozenEstimator:
    """Freeze a trained net, unless it is given that way."""
    given_fitted = is_frozen(given) and is_fitted(given.estimator)
    return given if given_fitted else FrozenEstimator(trained)


def _widths(net: NeuralNet) -> dict[str, int]:
    """Widths that its module was made with, which the estimator may have set."""
    params = net.get_params_for("module")
    return {name: int(params[name]) for name in params.keys() & (INPUT_WIDTHS | OUTPUT_WIDTHS)}


def _names(net: NeuralNet) -> dict[str, str]:
    """Names of the classes of a net and its parts."""
    return {
        "net": type(net).__qualname__,
        "module": _class_name(net.module),
        "criterion": _class_name(net.criterion),
    }


def _class_name(part: type | Callable[..., Any] | nn.Module) -> str:
    name: str = getattr(part, "__qualname__", type(part).__qualname__)
    return name


def _shape(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if hasattr(value, "shape") else "no tensor"


def _dtype_name(net: NeuralNet) -> str:
    return str(next(whole_module(net).parameters()).dtype).removeprefix("torch.")


def _epochs(net: NeuralNet) -> list[dict[str, Any]]:
    """Return what was recorded of each epoch, without its batches."""
    return [
        {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in epoch.items()
            if name != "batches"
        }
        for epoch in net.history
    ]


def _on_cpu(part: nn.Module) -> nn.Module:
    """Return a module on the CPU, a copy where it is elsewhere."""
    tensors = tree_leaves(part.state_dict())
    elsewhere = any(isinstance(t, torch.Tensor) and t.device.type != "cpu" for t in tensors)
    return deep_copy(part).cpu() if elsewhere else part
