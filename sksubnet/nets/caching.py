"""A hash of content for the things a MAP fit depends on."""

from __future__ import annotations

import inspect
from typing import Any

from joblib.hashing import NumpyHasher
from torch import Tensor, nn

INTERNAL = set(vars(nn.Module()))
"""Attributes that every module has; parameters, buffers and submodules are among them."""


class _ContentHasher(NumpyHasher):
    """joblib's hasher, but tensors and modules count by content, not by storage address."""

    def save(self, obj: Any) -> None:
        if isinstance(obj, Tensor):
            obj = ("tensor", str(obj.dtype), obj.detach().cpu().numpy())
        elif isinstance(obj, nn.Module):
            obj = ("module", repr(obj), [_content(part) for part in obj.named_modules()])
        elif isinstance(obj, type) and issubclass(obj, nn.Module):
            obj = ("module class", obj.__qualname__, _source(obj))
        super().save(obj)


def content_hash(*objects: Any) -> str:
    """Hash that is equal for equal content, also across processes."""
    digest: str = _ContentHasher(hash_name="md5").hash(objects)
    return digest


def _content(part: tuple[str, nn.Module]) -> tuple[Any, ...]:
    """Own content of a named module: code, tensors, trainable names and plain attributes."""
    name, module = part
    tensors = {**module._parameters, **module._buffers}
    trainable = [
        key for key, value in module._parameters.items() if getattr(value, "requires_grad", False)
    ]
    plain = {key: value for key, value in vars(module).items() if key not in INTERNAL}
    return name, _source(type(module)), tensors, trainable, plain


def _source(cls: type) -> str:
    """Source of a class, so that an edited ``forward`` is another key."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return cls.__qualname__
