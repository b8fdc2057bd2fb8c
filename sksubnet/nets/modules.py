"""The modules of a skorch net: in one dtype, uncompiled, and what training changed about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor, nn

from sksubnet.nets.keeping import make_keepable


@dataclass(frozen=True, eq=False)
class Training:
    """What a training gives: arrays and other state by name, trainable names, epochs."""

    state: dict[str, Any]
    trainable: tuple[str, ...]
    history: list[Any]


def settle(net: NeuralNet, dtype: torch.dtype) -> None:
    """Have the modules and criteria of an initialised net in ``dtype``, and none of them compiled.

    The parameters stay the same objects, so that the optimiser keeps them.
    """
    for name in net._modules + net._criteria:
        setattr(net, f"{name}_", uncompiled(getattr(net, f"{name}_")).to(dtype))
    for name in net._optimizers:
        optimizer = getattr(net, f"{name}_", None)
        if isinstance(optimizer, torch.optim.Optimizer) and optimizer.state:
            # Some (Adagrad) begin with a state, and loading gives it the dtype of the parameters.
            optimizer.load_state_dict(optimizer.state_dict())


def uncompiled(part: Any) -> Any:
    """Return the module inside one of ``torch.compile``."""
    return getattr(part, "_orig_mod", part)


class NetModules(nn.Module):
    """Several modules of a net as one: parameter names start with the module's."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def whole_module(net: NeuralNet) -> nn.Module:
    """Return the net's ``module_``, or all its modules in one."""
    modules = {name: getattr(net, f"{name}_") for name in net._modules}
    if list(modules) == ["module"]:
        module: nn.Module = modules["module"]
        return module
    return NetModules(modules)


def infer(net: NeuralNet, module: nn.Module, inputs: Any) -> Any:
    """Call the net's own ``infer`` with the modules of another copy, and leave the net alone."""
    twin = object.__new__(type(net))
    vars(twin).update(vars(net))
    if isinstance(module, NetModules):
        vars(twin).update({f"{name}_": part for name, part in module.named_children()})
    else:
        vars(twin)["module_"] = module
    return twin.infer(inputs)


def outcome(net: NeuralNet) -> Training:
    """Return what the training of a net gave, without tensors of torch."""
    module = whole_module(net)
    state = {
        name: value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        for name, value in module.state_dict().items()
    }
    trainable = tuple(name for name, p in module.named_parameters() if p.requires_grad)
    return Training(state, trainable, net.history.to_list())


def load(net: NeuralNet, training: Training) -> None:
    """Put the outcome of a training into a net that was initialised alike."""
    module = whole_module(net)
    module.load_state_dict(
        {
            name: torch.as_tensor(value) if isinstance(value, np.ndarray) else value
            for name, value in training.state.items()
        }
    )
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in training.trainable)
    module.eval()
    net.history = type(net.history)(training.history)
    make_keepable(module)
