"""What lets a trained net be kept: copied and pickled with all that its modules are made of.

skorch pickles its modules for every copy, so that local classes cannot be copied; torch refuses to
pickle modules with parametrizations, and to copy what has a graph.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from skorch import NeuralNet
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_any, tree_leaves, tree_map


class Packed:
    """Stands for a skorch net that is copied, or sent: becomes one with the same state there."""

    def __init__(self, net: NeuralNet) -> None:
        self.net = net

    def __reduce__(self) -> tuple[Callable[..., NeuralNet], tuple[Any, ...]]:
        return _unpacked, (type(self.net), vars(self.net))


def keepable_copy(net: NeuralNet) -> NeuralNet:
    """Copy a trained net of the user's, and make the copy keepable."""
    parts = [part for part in vars(net).values() if isinstance(part, nn.Module)]
    left = (t for part in parts for layer in part.modules() for t in tree_leaves(vars(layer)))
    # `copy.deepcopy` refuses tensors with a graph.
    memo = {id(t): t.detach() for t in left if _has_graph(t)}
    copied: Any = copy.deepcopy(Packed(net), memo)
    for part in vars(copied).values():
        if isinstance(part, nn.Module):
            make_keepable(part)
    result: NeuralNet = copied
    return result


def _unpacked(kind: type[NeuralNet], state: dict[str, Any]) -> NeuralNet:
    net: NeuralNet = object.__new__(kind)
    net.__dict__ = state
    return net


def make_keepable(module: nn.Module) -> None:
    """Detach what layers keep of their last pass, and let those with parametrizations be pickled.

    ``torch.nn.utils.weight_norm`` and pruning keep a weight that they compute.
    """
    for layer in module.modules():
        kept = {k: v for k, v in vars(layer).items() if tree_any(_has_graph, v)}
        detached = {name: tree_map(_without_graph, value) for name, value in kept.items()}
        vars(layer).update(detached)
        if parametrize.is_parametrized(layer):
            kind = type(layer)
            own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
            own.pop("__getstate__", None)  # torch's, which refuses
            layer.__class__ = type(kind.__name__, kind.__bases__, own | {"__reduce__": _reduced})


def _has_graph(value: Any) -> bool:
    return isinstance(value, Tensor) and value.grad_fn is not None


def _without_graph(value: Any) -> Any:
    return value.detach() if _has_graph(value) else value


def _reduced(layer: nn.Module) -> tuple[Callable[..., nn.Module], tuple[Any, ...]]:
    """Say how to make a layer with parametrizations: by its original class and its attributes."""
    # Hooks of torch's that read weights of its older versions are local functions.
    name = "_load_state_dict_pre_hooks"
    hooks = {k: h for k, h in vars(layer)[name].items() if not h.__module__.startswith("torch.")}
    attributes = vars(layer) | {name: OrderedDict(hooks)}
    return _with_parametrizations, (type(layer).__bases__[0], attributes)


def _with_parametrizations(kind: type[nn.Module], attributes: dict[str, Any]) -> nn.Module:
    """Make a layer whose parametrized tensors are properties of its class, as torch has them."""
    layer: nn.Module = object.__new__(kind)
    layer.__dict__ = attributes
    names = list(attributes["_modules"]["parametrizations"])
    own: dict[str, Any] = {name: _parametrized(name) for name in names}
    own["__reduce__"] = _reduced
    layer.__class__ = type(f"Parametrized{kind.__name__}", (kind,), own)
    return layer


def _parametrized(name: str) -> property:
    """Return a tensor as the property of a layer that its parametrizations make it."""

    def read(layer: nn.Module) -> Any:
        return layer.get_submodule(f"parametrizations.{name}")()

    def write(layer: Any, value: Tensor) -> None:
        layer.parametrizations[name].right_inverse(value)

    return property(read, write)
