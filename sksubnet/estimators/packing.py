"""Values of a fit as plain trees, of what JSON knows and arrays of numbers, and back.

Pickles and the files of ``save`` hold the same trees. Each kind of value has one entry in
``FORMS``: its parts by name, and the value that such parts make.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from sklearn import model_selection, preprocessing
from sklearn.exceptions import InconsistentVersionWarning
from torch import Tensor

from sksubnet.estimators.columns import Columns
from sksubnet.estimators.fitted import FittedNet
from sksubnet.estimators.linearised import LinearisedNet
from sksubnet.estimators.target_transform import ByColumn, FittedColumn
from sksubnet.jacobian import FactoredRows, JacobianPlan, LayerRows, PlannedParameter, Site
from sksubnet.nets import (
    PLAIN,
    Bins,
    Encoding,
    NoiseNet,
    Rows,
    Schedule,
    StoredTabular,
    TabularNet,
    Tails,
    Training,
    kept,
    latent_of,
    library_versions,
)
from sksubnet.posterior import (
    CholeskyPosterior,
    DiagonalPosterior,
    GaussianPosterior,
    KernelPosterior,
    ShiftedCholesky,
    Tuned,
)
from sksubnet.predictive import (
    Bernoulli,
    Categorical,
    CompoundPredictive,
    Gaussian,
    Log,
    MeanVariance,
    Mixture,
    MultiLabel,
    MultiLabelPredictive,
    Poisson,
    Predictive,
    TransformedPredictive,
)
from sksubnet.sampling import DropoutDraws, WeightDraws
from sksubnet.selection import Subnetwork

NUMBERS, TEXTS = "biuf", "OU"
"""Kinds of the data types of arrays that are kept as they are, and item by item."""


@dataclass(frozen=True)
class Form:
    """How values of a kind become parts by name, and parts such a value."""

    kind: type
    parts: Callable[[Any], Mapping[str, Any]]
    whole: Callable[[dict[str, Any]], Any]

    @classmethod
    def of_fields(cls, kind: type) -> Form:
        """Form of a dataclass: its fields."""
        names = [field.name for field in fields(kind)]
        return cls(
            kind,
            lambda value: {name: getattr(value, name) for name in names},
            lambda parts: kind(**parts),
        )

    @classmethod
    def of_attributes(cls, kind: type) -> Form:
        """Form of a class whose attributes are all there is to it."""

        def whole(parts: dict[str, Any]) -> Any:
            value: Any = object.__new__(kind)
            vars(value).update(parts)
            return value

        return cls(kind, vars, whole)

    @classmethod
    def of_fitted_net(cls, kind: type[FittedNet]) -> Form:
        """Form of a fitted net: its fields, with the net in the form that is kept of it."""
        names = [field.name for field in fields(kind) if field.name != "latent"]

        def parts(value: FittedNet) -> dict[str, Any]:
            found = {name: getattr(value, name) for name in names}
            origin = found.get("origin")
            if origin is not None:  # the same net, of which only this differs
                found["origin"] = {
                    name: getattr(origin, name)
                    for name in names
                    if getattr(origin, name) is not found[name]
                }
            return {**found, "net": kept(value.net)}

        def whole(parts: dict[str, Any]) -> FittedNet:
            net = parts["net"].restored()
            latent = latent_of(net)
            latent.module.eval()
            device = latent.device
            moved = {
                name: parts[name].to(device)
                for name in ("plan", "noise", "added")
                if parts.get(name) is not None
            }
            made = kind(**{**parts, **moved, "net": net, "latent": latent})
            if parts.get("origin") is None:
                return made
            return replace(made, origin=replace(made, **parts["origin"]))  # type: ignore[call-arg]

        return cls(kind, parts, whole)


def _tensor_parts(value: Tensor) -> dict[str, Any]:
    kept = value.detach().cpu()
    name = str(value.dtype).removeprefix("torch.")
    if value.dtype == torch.bfloat16:
        kept = kept.view(torch.int16)
    return {"dtype": name, "array": kept.numpy()}


def _tensor(parts: dict[str, Any]) -> Tensor:
    # A copy in memory of torch's own, which is aligned as it was: products depend on that in the
    # last bit.
    array = parts["array"]
    kept = torch.from_numpy(array).clone()
    dtype = getattr(torch, parts["dtype"])
    return kept.view(dtype) if dtype == torch.bfloat16 else kept.to(dtype)


def _array_parts(value: np.ndarray) -> dict[str, Any]:
    if value.dtype.kind in NUMBERS:
        # What is stored in another order of its axes goes on so: products depend on that, too.
        axes = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))
        return {"axes": axes, "array": np.ascontiguousarray(value.transpose(axes))}
    return {"dtype": value.dtype.str, "shape": list(value.shape), "items": value.ravel().tolist()}


def _array(parts: dict[str, Any]) -> np.ndarray:
    if "axes" in parts:
        ordered: np.ndarray = parts["array"].transpose(np.argsort(parts["axes"]))
        return ordered
    values = np.empty(parts["shape"], dtype=_text_dtype(parts["dtype"]))
    values.ravel()[:] = parts["items"]
    return values


def _text_dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if dtype.kind not in TEXTS:
        raise ValueError(f"{name} is no data type of labels or names")
    return dtype


def _scalar_form(kind: type[np.generic]) -> Form:
    return Form(kind, lambda value: {"value": value.item()}, lambda parts: kind(parts["value"]))


def _training_parts(value: Training) -> dict[str, Any]:
    # one text of many small numbers, each of which would otherwise be an object of its own
    return {**vars(value), "history": json.dumps(value.history)}


def _training(parts: dict[str, Any]) -> Training:
    return Training(**{**parts, "history": json.loads(parts["history"])})


def _ufunc(parts: dict[str, Any]) -> np.ufunc:
    found = getattr(np, parts["name"])
    if not isinstance(found, np.ufunc):
        raise TypeError(f"{parts['name']} is no ufunc of NumPy")
    return found


def _noise(parts: dict[str, Any]) -> NoiseNet:
    nets = tuple(net.restored() for net in parts["nets"])
    return NoiseNet(nets, parts["levels"], parts["encodings"])


def _random_state(parts: dict[str, Any]) -> np.random.RandomState:
    state = np.random.RandomState()
    state.set_state(parts)
    return state


SPLITTERS = (
    model_selection.GroupKFold,
    model_selection.GroupShuffleSplit,
    model_selection.KFold,
    model_selection.LeaveOneGroupOut,
    model_selection.LeaveOneOut,
    model_selection.PredefinedSplit,
    model_selection.ShuffleSplit,
    model_selection.StratifiedGroupKFold,
    model_selection.StratifiedKFold,
    model_selection.StratifiedShuffleSplit,
    model_selection.TimeSeriesSplit,
)

TRANSFORMERS = (
    preprocessing.FunctionTransformer,
    preprocessing.MinMaxScaler,
    preprocessing.PowerTransformer,
    preprocessing.QuantileTransformer,
    preprocessing.RobustScaler,
    preprocessing.StandardScaler,
)
"""Transformers of targets."""

FORMS: dict[type, Form] = {}
"""How each kind of value is kept."""


def keep(*forms: Form) -> None:
    """Have values of these kinds kept in pickles and files."""
    FORMS.update({form.kind: form for form in forms})


keep(
    Form(tuple, lambda v: {"items": list(v)}, lambda p: tuple(p["items"])),
    Form(Tensor, _tensor_parts, _tensor),
    Form(np.ndarray, _array_parts, _array),
    *map(_scalar_form, (np.bool_, np.str_, np.int32, np.int64, np.float32, np.float64)),
    Form(np.random.RandomState, lambda v: v.get_state(legacy=False), _random_state),
    Form.of_fitted_net(LinearisedNet),
    Form(TabularNet, lambda v: v.get_params(), lambda p: TabularNet(**p)),
    Form(Training, _training_parts, _training),
    Form(
        NoiseNet,
        lambda v: {**vars(v), "nets": [kept(net) for net in v.nets]},
        _noise,
    ),
    *map(
        Form.of_fields,
        (
            Bernoulli,
            Bins,
            ByColumn,
            Categorical,
            Columns,
            CompoundPredictive,
            CholeskyPosterior,
            DiagonalPosterior,
            DropoutDraws,
            Encoding,
            FactoredRows,
            FittedColumn,
            Gaussian,
            GaussianPosterior,
            JacobianPlan,
            KernelPosterior,
            LayerRows,
            Log,
            MeanVariance,
            Mixture,
            MultiLabel,
            MultiLabelPredictive,
            PlannedParameter,
            Poisson,
            Predictive,
            Rows,
            Schedule,
            Site,
            StoredTabular,
            Subnetwork,
            Tails,
            TransformedPredictive,
            Tuned,
            WeightDraws,
        ),
    ),
    *map(Form.of_attributes, (ShiftedCholesky, *SPLITTERS, *TRANSFORMERS)),
    Form(np.ufunc, lambda v: {"name": v.__name__}, _ufunc),
)


Elsewhere = Callable[[Any, str], Any]
"""What becomes of a value that does not go into the tree itself, told where it is."""


def pack(
    value: Any, forms: Mapping[type, Form], array: Elsewhere, other: Elsewhere, where: str
) -> Any:
    """Return a value as a tree; arrays of numbers, and what has no form, go elsewhere."""
    kind = type(value)
    if kind in PLAIN:
        return value
    inner = partial(pack, forms=forms, array=array, other=other)
    if kind is list:
        return [inner(item, where=f"{where}.{k}") for k, item in enumerate(value)]
    if kind is dict:
        items = [[inner(k, where=where), inner(v, where=f"{where}.{k}")] for k, v in value.items()]
        return {"type": "dict", "items": items}
    if kind is np.ndarray and value.dtype.kind in NUMBERS and value.flags.c_contiguous:
        return array(value, where)
    form = forms.get(kind)
    if form is None or (kind is np.ndarray and value.dtype.kind not in NUMBERS + TEXTS):
        return other(value, where)
    parts = form.parts(value)
    return {"type": kind.__name__} | {
        name: inner(part, where=f"{where}.{name}") for name, part in parts.items()
    }


def unpack(tree: Any, wholes: Mapping[str, Callable[[dict[str, Any]], Any]]) -> Any:
    """Return the value of a tree."""
    kind = type(tree)
    if kind is list:
        return [unpack(item, wholes) for item in tree]
    if isinstance(tree, np.ndarray):  # one that is mapped to a file is read
        return tree if kind is np.ndarray and tree.flags.writeable else np.array(tree)
    if kind is not dict:
        return tree
    if tree.get("type") not in wholes:
        raise ValueError(f"{tree.get('type')!r} is no kind of value that is known here")
    parts = {name: unpack(part, wholes) for name, part in tree.items() if name != "type"}
    return wholes[tree["type"]](parts)


def wholes_of(forms: Iterable[Form]) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Return what makes the values, by the names of their kinds."""
    return {
        "dict": lambda parts: dict(parts["items"]),
        **{form.kind.__name__: form.whole for form in forms},
    }


def for_pickles(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes of a fit as trees; what has no form stays an object."""
    found: dict[str, Any] = pack(
        attributes,
        FORMS,
        array=lambda value, _: value,
        other=lambda value, _: {"type": "", "value": value},
        where="",
    )
    return found


def of_pickles(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that were given to ``for_pickles``."""
    wholes = {**wholes_of(FORMS.values()), "": lambda parts: parts["value"]}
    found: dict[str, Any] = unpack(tree, wholes)
    return found


def versions() -> dict[str, str]:
    """Versions of this package and of those whose values it keeps."""
    return {"sksubnet": import_module("sksubnet").__version__, **library_versions()}


def check_versions(name: str, stored: Mapping[str, str] | None) -> None:
    """Warn as scikit-learn does where an estimator was kept by other versions."""
    present = versions()
    if stored is None:
        before, now = "an older one", f"sksubnet {present['sksubnet']}"
    else:
        differing = [lib for lib in present if stored.get(lib) != present[lib]]
        before = ", ".join(f"{lib} {stored.get(lib, 'unknown')}" for lib in differing)
        now = ", ".join(f"{lib} {present[lib]}" for lib in differing)
    if now:
        warnings.warn(
            InconsistentVersionWarning(
                estimator_name=name,
                current_sklearn_version=now,
                original_sklearn_version=before,
            ),
            stacklevel=3,
        )
