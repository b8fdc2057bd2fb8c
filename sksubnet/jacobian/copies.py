"""Copies of a module: for one call, with the same weights, or for good, with weights of its own.

A copy for one call keeps to itself what the call leaves on the module: hooks that record the calls
of layers, and whatever a user's `forward` keeps on `self`, would otherwise meet those of other
threads that use the same module.
"""

import copy
from collections import OrderedDict
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

M = TypeVar("M", bound=nn.Module)
Memo = dict[int, tuple[Any, Any]]

MAPPINGS = (dict, OrderedDict)
CONTAINERS = frozenset((*MAPPINGS, list, set, tuple))

OF_STATE_DICTS = frozenset(
    name for name in vars(nn.Module()) if "state_dict" in name or "persistent" in name
)
"""Attributes of every module that only saving and loading look at."""

OF_MODULES = frozenset(vars(nn.Module())) - OF_STATE_DICTS
"""Attributes that torch gives every module, of which no two are the same container."""

TENSORS = ("_parameters", "_buffers")


def private_copy(module: M) -> M:
    """Copy the modules of a net, which share their tensors and whatever else is no module.

    Attributes, hooks, and containers of them are the copy's own; bound methods and hooks that
    belong to a module of the net belong to its copy. What runs outside Python is shared.
    """
    copied: M = _copied(module, {})
    return copied


def own_rows(X: Any) -> Any:
    """Copy the tensors of inputs, for a module that may work in place, or keep them for autograd.

    Autograd cannot save inference tensors; outside that mode the copy is a normal tensor.
    """
    return X.clone() if isinstance(X, Tensor) else tree_map_only(Tensor, Tensor.clone, X)


def deep_copy(module: M) -> M:
    """Copy a module with its weights.

    Tensors with a graph, which `copy.deepcopy` refuses, are what an earlier forward left on it.
    """
    left = (t for layer in module.modules() for t in tree_leaves(vars(layer)))
    memo = {id(t): t.detach() for t in left if isinstance(t, Tensor) and not t.is_leaf}
    return copy.deepcopy(module, memo)


def _copied(module: Any, memo: Memo) -> Any:
    """Return the one copy of a module that its memo has or gets."""
    if id(module) in memo:
        return memo[id(module)][1]
    if isinstance(module, torch.jit.ScriptModule):
        return module
    copied = object.__new__(type(module))
    memo[id(module)] = module, copied
    attributes = copied.__dict__
    attributes.update(module.__dict__)
    # The compiled call is that of the original.
    attributes.pop("_compiled_call_impl", None)
    for name, value in attributes.items():
        if name in OF_MODULES and type(value) in CONTAINERS and (not value or name in TENSORS):
            attributes[name] = value.copy() if value else type(value)()
        elif name not in OF_STATE_DICTS:
            attributes[name] = _own(value, memo)
    for kind in type(module).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            slot = kind.__dict__.get(name, kind.__dict__.get(f"_{kind.__name__.lstrip('_')}{name}"))
            if hasattr(slot, "__set__") and name not in ("__dict__", "__weakref__"):
                _copy_slot(slot, module, copied, memo)
    return copied


def _copy_slot(slot: Any, module: nn.Module, copied: nn.Module, memo: Memo) -> None:
    """Copy an attribute that is not in the module's dictionary, where it is set."""
    try:
        value = slot.__get__(module)
    except AttributeError:
        return
    slot.__set__(copied, _own(value, memo))


def _own(value: Any, memo: Memo) -> Any:
    """Copy modules, containers and bound methods of modules; everything else is shared."""
    kind = type(value)
    if kind in CONTAINERS:
        return _own_container(value, kind, memo)
    if kind is MethodType and isinstance(value.__self__, nn.Module):
        return MethodType(value.__func__, _copied(value.__self__, memo))
    return _copied(value, memo) if isinstance(value, nn.Module) else value


def _own_container(value: Any, kind: Any, memo: Memo) -> Any:
    """Copy a container with what is in it; one that is met again stays one."""
    if id(value) in memo:
        return memo[id(value)][1]
    if not value:
        own = kind()
        memo[id(value)] = value, own
    elif kind in MAPPINGS:
        own = kind(value)
        memo[id(value)] = value, own
        for key, item in own.items():
            own[key] = _own(item, memo)
    elif kind is list:
        own = list(value)
        memo[id(value)] = value, own
        own[:] = [_own(item, memo) for item in own]
    else:
        own = kind([_own(item, memo) for item in list(value)])
        memo[id(value)] = value, own
    return own
