"""What a training depends on, as a hash: values by their content, code by what it does.

Code is read from what Python runs, never from files, which may have been edited since. A function
is its instructions, constants, defaults, closure and the globals that it names; a class its bases
and members; and so on from there, through all modules that are the user's own. Python and installed
packages count by their versions.
"""

from __future__ import annotations

import dis
import functools
import importlib.metadata
import os
import pickle
import platform
import re
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, TypeVar

import torch
from joblib.hashing import NumpyHasher
from torch import Tensor, nn

from sksubnet.nets.modules import uncompiled

INTERNAL = set(vars(nn.Module()))
"""Attributes that every module has; parameters, buffers, submodules and hooks are among them."""

STACK = ("sksubnet", "torch", "skorch", "sklearn", "numpy")
"""Packages that every training runs on; they count by their versions wherever they lie."""

STDLIB = os.path.dirname(os.__file__)
INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")

GLOBAL_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
ANY_CODE = {"eval", "exec", "globals", "__import__"}
"""Built-in functions that reach code by a text made at run time."""
ANY_CODE_IN = {("torch", "ops"), ("sys", "modules")}
"""Members of modules from which any code may be taken."""
ANY_MEMBER = {"getattr", "vars", "__dict__", "attrgetter"}
"""Names in code that may take any member of a module."""

DESCRIPTORS = (
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
BOOKKEEPING = {"_abc_impl", "_backward_cls", "__annotate__", "__annotate_func__"}
LRU_CACHE = type(functools.lru_cache(len))
BY_REPR = (torch.dtype, torch.layout, torch.memory_format, TypeVar)
AS_IT_IS = {bool, bytes, dict, float, int, list, str, tuple, type(None)}


@dataclass(frozen=True)
class Fingerprint:
    """A hash that is equal for equal content, also across processes.

    ``unreadable`` names what the hash could not see; with any of it, equal hashes tell nothing.
    """

    digest: str
    unreadable: tuple[str, ...]


def fingerprint(*objects: Any) -> Fingerprint:
    """Hash objects, and the code that they reach."""
    hasher = _Hasher(hash_name="md5")
    versions = [_version(name) for name in ("sys", *STACK)]
    digest = hasher.hash((versions, torch.get_default_dtype(), objects))
    return Fingerprint(digest, tuple(hasher.unreadable))


class _Hasher(NumpyHasher):
    """joblib's hasher, for code, modules and tensors by their content instead of name or address.

    Code and modules are numbered where they are met and described in turn, so that circles and
    long chains of functions are no deeper than one function.
    """

    def __init__(self, hash_name: str) -> None:
        super().__init__(hash_name=hash_name)
        self.reached: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.unreadable: dict[str, None] = {}
        self.owner = "the net's parameters"

    def dump(self, obj: Any) -> None:
        super().dump(obj)
        for met in self.reached:  # grows meanwhile
            self.owner = _full_name(met)
            try:
                super().dump(self._described(met))
            except Exception as error:  # of a class that hides what it is
                self._give_up(f"{type(met).__qualname__} ({type(error).__name__})")

    def save(self, obj: Any) -> None:
        try:
            super().save(self._content(obj))
        except Exception as error:  # of any object's own way to be pickled
            self._give_up(f"{type(obj).__qualname__} ({type(error).__name__})")

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Save what pickles by name alone: its value is known only for that of a package."""
        module = getattr(obj, "__module__", None)
        if _version(module) is None:
            self._give_up(f"{type(obj).__qualname__} {name}")
        self.save((module, _version(module), name))

    def save_reduce(
        self, func: Any, args: Any, state: Any = None, *rest: Any, **named: Any
    ) -> None:
        """Save an instance; the order of its attributes says nothing."""
        if type(state) is dict:
            state = sorted(state.items())
        super().save_reduce(func, args, state, *rest, **named)

    def _batch_setitems(self, items: Iterable[Any], *args: Any) -> None:
        """Save a dictionary in its order, which code may follow."""
        pickle._Pickler._batch_setitems(self, items, *args)  # type: ignore[attr-defined]

    def _give_up(self, what: str) -> None:
        self.unreadable[f"{what} in {self.owner}"] = None

    def _content(self, obj: Any) -> Any:
        """Replace what has no stable pickle by what it consists of."""
        if type(obj) in AS_IT_IS:
            return obj
        match obj:
            case nn.Parameter() | nn.Module():
                return "part", self._number(uncompiled(obj))  # perhaps shared, or in a circle
            case Tensor():
                return _tensor(obj)
            case FunctionType() | type() | ModuleType():
                return _named(obj) or ("code", self._number(obj))
            case MethodType():
                return "method", obj.__func__, obj.__self__
            case BuiltinFunctionType():
                return "built-in", obj.__qualname__, obj.__self__
            case set() | frozenset():
                return type(obj).__name__, sorted(obj, key=lambda x: (type(x).__name__, repr(x)))
            case staticmethod() | classmethod():
                return type(obj).__name__, obj.__func__
            case property():
                return "property", obj.fget, obj.fset, obj.fdel
            case functools.cached_property():
                return "cached property", obj.func
            case MappingProxyType():
                return "mapping", dict(obj)
            case weakref.ref():
                return "reference", obj()
        if isinstance(obj, LRU_CACHE):
            return "cache", obj.__wrapped__
        if isinstance(obj, DESCRIPTORS):
            return "descriptor", obj.__qualname__
        return repr(obj) if isinstance(obj, BY_REPR) else obj

    def _number(self, met: Any) -> int:
        """Give the number of what is to be described, in the order in which it is met."""
        if id(met) not in self.numbers:
            self.numbers[id(met)] = len(self.reached)
            self.reached.append(met)
        return self.numbers[id(met)]

    def _described(self, met: Any) -> Any:
        """Return what code or a part of a net consists of."""
        match met:
            case nn.Parameter():
                return "parameter", met.requires_grad, _tensor(met)
            case nn.Module():
                return _layer(met)
            case FunctionType():
                return self._function(met)
        if _is_compiled(met if isinstance(met, ModuleType) else sys.modules.get(met.__module__)):
            self._give_up("compiled code")
        members = [(k, v) for k, v in sorted(vars(met).items()) if not _is_bookkeeping(k, v)]
        if isinstance(met, ModuleType):
            return "file", members
        return "class", met.__qualname__, met.__mro__[1:], type(met), members

    def _function(self, function: FunctionType) -> Any:
        """Return what a function consists of; the globals of a package are known by its version."""
        cells = [_cell_content(cell) for cell in function.__closure__ or ()]
        defaults = function.__defaults__, function.__kwdefaults__
        parts = _text(function.__code__), defaults, cells, vars(function)
        if _version(function.__globals__.get("__name__")) is not None:
            return "function", *parts
        return "function", *parts, self._referred(function)

    def _referred(self, function: FunctionType) -> list[tuple[str, Any]]:
        """Return the globals and the imports that a function of the user's names."""
        space, names = function.__globals__, set()
        found: dict[str, Any] = {}
        for code in _codes(function.__code__):
            names |= set(code.co_names)
            steps = [s for s in dis.get_instructions(code) if s.opname != "EXTENDED_ARG"]
            for i, step in enumerate(steps):
                if step.opname == "IMPORT_NAME":
                    level, members = steps[i - 2].argval, steps[i - 1].argval
                    found["." * level + step.argval] = _imported(step.argval, space, members, level)
                elif step.opname in GLOBAL_LOADS:
                    value = found[step.argval] = space.get(step.argval, "no global")
                    path = getattr(value, "__name__", ""), steps[i + 1].argval
                    if path in ANY_CODE_IN:
                        self._give_up(".".join(path))
        for name in sorted((ANY_CODE & found.keys() - space.keys()) | ({"import_module"} & names)):
            self._give_up(name)
        if not ANY_MEMBER & names:
            names.add("__getattr__")
            seen: set[int] = set()
            found = {name: self._members(value, names, seen) for name, value in found.items()}
        return sorted(found.items())

    def _members(self, value: Any, names: set[str], seen: set[int]) -> Any:
        """Return a value; of a module of the user's only the members of these names."""
        if not isinstance(value, ModuleType) or _named(value):
            return value
        if id(value) in seen:
            return value.__name__
        seen.add(id(value))
        if _is_compiled(value):
            self._give_up(f"compiled code ({value.__name__})")
        members = sorted(names & vars(value).keys())
        return [(name, self._members(vars(value)[name], names, seen)) for name in members]


def _named(code: Any) -> tuple[str, ...] | None:
    """Return the name and version of a package's code; ``None`` for any other."""
    if isinstance(code, ModuleType):
        version = _version(code.__name__)
        return None if version is None else (code.__name__, version)
    module, name = code.__module__, code.__qualname__
    version = _version(module)
    if version is None or _found(module, name) is not code:
        return None
    return module, version, name


def _version(module: Any) -> str | None:
    """Return the version that says what a module does; ``None`` where it is the user's."""
    if not isinstance(module, str) or module == "__main__":
        return None
    top = module.partition(".")[0]
    files = (getattr(sys.modules.get(name), "__file__", None) for name in (module, top))
    file = next(filter(None, files), "")
    if top in STACK or INSTALLED.search(file):
        return _package_version(top)
    if top in sys.stdlib_module_names and (not file or file.startswith(STDLIB)):
        return platform.python_version()
    return None


def _package_version(name: str) -> str | None:
    """Return the version of a package, ``None`` where it has none."""
    version = getattr(sys.modules.get(name), "__version__", None)
    if version is not None:
        return str(version)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _found(module: str, qualname: str) -> Any:
    """Look code up by its name."""
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _full_name(met: Any) -> str:
    """Return the name of code, or of the class of a part of a net, for people."""
    if isinstance(met, ModuleType):
        return met.__name__
    code = met if isinstance(met, FunctionType | type) else type(met)
    return f"{code.__module__}.{code.__qualname__}"


def _is_compiled(module: Any) -> bool:
    return isinstance(
        getattr(getattr(module, "__spec__", None), "loader", None), ExtensionFileLoader
    )


def _is_bookkeeping(name: str, value: Any) -> bool:
    """Whether Python or torch keeps a member for itself, perhaps only after some use."""
    if name in BOOKKEEPING:
        return True
    code = isinstance(value, FunctionType | staticmethod | classmethod | property)
    return name.startswith("__") and name.endswith("__") and not code


def _tensor(tensor: Tensor) -> tuple[Any, ...]:
    """Return the content of a tensor of any type, in any memory format."""
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1)
    return "tensor", str(tensor.dtype), [*tensor.shape], flat.view(torch.uint8).numpy()


def _layer(module: nn.Module) -> tuple[Any, ...]:
    """Return what a module consists of: its class, tensors, layers, hooks and plain attributes."""
    state = sorted(vars(module).items())
    plain = [(key, value) for key, value in state if key not in INTERNAL]
    # The numbers of hooks count those of the process.
    hooks = [(k, [*v.values()]) for k, v in state if k in INTERNAL and k.endswith("hooks")]
    parts = module._parameters, module._buffers, module._modules
    return "layer", type(module), *parts, hooks, plain


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield code and the code inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _text(constant: Any) -> str:
    """Write a constant of code, or code itself without its place in a file."""
    match constant:
        case CodeType():
            parts = (
                constant.co_code,
                constant.co_exceptiontable,
                constant.co_names,
                constant.co_varnames,
                constant.co_cellvars,
                constant.co_freevars,
                constant.co_argcount,
                constant.co_posonlyargcount,
                constant.co_kwonlyargcount,
                constant.co_flags,
                constant.co_consts,
            )
            return f"code{_text(parts)}"
        case tuple():
            return f"({', '.join(map(_text, constant))})"
        case frozenset():
            return f"frozenset({sorted(map(_text, constant))})"
    return repr(constant)


def _cell_content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _imported(name: str, space: dict[str, Any], members: Any, level: int) -> Any:
    """Import what code imports when it runs."""
    try:
        return __import__(name, space, None, members, level)
    except Exception:  # of any module's own code
        return "not there"
