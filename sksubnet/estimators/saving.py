"""Fitted estimators in one file that holds no code: tensors, and JSON that says what they are.

The file is one of safetensors. Its metadata have the tree of the estimator (see ``packing``), where
an array of numbers is a reference to a tensor; the versions of the libraries; predictions of some
random rows, which the loaded estimator has to make again; and a checksum over all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from sksubnet.estimators.packing import (
    FORMS,
    Form,
    check_versions,
    pack,
    unpack,
    versions,
    wholes_of,
)
from sksubnet.nets import (
    KeptNet,
    NamedNet,
    TabularNet,
    check_writable,
    frozen_like,
    is_frozen,
    resolved,
    write_whole,
)
from sksubnet.progress import OF_CALLBACKS

if TYPE_CHECKING:
    from sksubnet.estimators.base import BayesianNet

FORMAT, FORMAT_VERSION = "sksubnet", "1"
NO_CHECKSUM = "0" * 64
"""What stands in the place of the checksum while it is computed."""

MARKS = (b'"format":"sksubnet"', rb"{\"versions\": {\"sksubnet\"")
"""What a file has of which a part is damaged."""

PROBE_ROWS = 4
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-2}
"""How far predictions of another machine may be from those of the one that saved, by the dtype of
the net, as a share of the largest."""

OF_THE_MACHINE = {"memory"}
"""Parameters that a loaded estimator has not: a cache there may hold what others put there."""

OTHER_WAYS = (
    "keep the estimator with pickle or joblib, or with cloudpickle where it has a lambda or "
    "something that a script or a notebook defines"
)
"""What a file without code cannot hold, others can."""

SAVABLE: dict[str, type[BayesianNet]] = {}
"""Estimators that a file may hold, by the names of their classes."""

E = TypeVar("E", bound="type[BayesianNet]")


def savable(kind: E) -> E:
    """Let files hold estimators of this class."""
    SAVABLE[kind.__name__] = kind
    return kind


class Given:
    """The user's net as a parameter, which no file holds."""

    def __init__(self, is_frozen: bool) -> None:
        self.is_frozen = is_frozen


def save(model: BayesianNet, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; see ``BayesianNet.save``."""
    check_is_fitted(model)
    check_writable(path)
    safetensors = _safetensors("save")
    forms = dict(FORMS)
    named = partial(
        NamedNet.of,
        is_frozen=is_frozen(_given_net(model)),
        n_outputs=model._fitted_nets()[0].n_outputs,
    )
    forms[KeptNet] = Form(KeptNet, lambda kept: {"named": named(kept)}, dict)
    forms[NamedNet] = Form.of_fields(NamedNet)
    forms[Given] = Form.of_attributes(Given)
    forms |= {kind: Form(kind, _parts_of_estimator, dict) for kind in SAVABLE.values()}
    arrays: dict[str, np.ndarray] = {}

    def refer(array: np.ndarray, where: str) -> dict[str, str]:
        arrays[where] = array
        return {"type": "reference", "to": where}

    packed = partial(pack, forms=forms, array=refer, other=_refuse)
    content = {
        "versions": versions(),
        "model": packed(model, where=type(model).__name__),
        "probe": packed(_probe(model), where="probe"),
    }
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sha256": NO_CHECKSUM,
        "content": json.dumps(content),
    }
    blank = safetensors.save(arrays, metadata)
    digest = hashlib.sha256(blank).hexdigest()
    file = blank.replace(_entry(NO_CHECKSUM), _entry(digest), 1)
    name = os.fspath(path)
    try:
        _, same = _loaded(*_read(file, safetensors, name), name, _given_net(model))
    except ValueError as error:
        reason = error.reason if isinstance(error, _Damaged) else error
        raise ValueError(
            f"No file was written, because it could not be loaded again: {reason}"
        ) from error
    if not same:
        raise ValueError(
            "The estimator would predict something else once it is loaded, so no file was written: "
            "training has changed something in the net that is neither a parameter nor a buffer. "
            f"Make it one (register_buffer), or {OTHER_WAYS}."
        )
    write_whole(path, file)
    if any(net.n_rows_held for net in model._fitted_nets()):
        warnings.warn(
            f"{name} holds {model.held_training_data_}. A posterior over fewer weights "
            "than rows, or with covariance='diag', holds sums over the rows only.",
            UserWarning,
            stacklevel=3,
        )


def load(path: str | os.PathLike[str], net: Any = None) -> Any:
    """Load a fitted estimator from a file of its ``save``, without running code of the file.

    Parameters
    ----------
    path : str or path-like
        The file.
    net : skorch net, FrozenEstimator, TabularNet or callable, default=None
        The net that was given to the estimator, or a function that makes it, fitted or not. The
        names of its classes and the shapes of its weights have to be those of the file, which gives
        the weights. Not needed for the default net, of which the file says how it is made, also
        where a :class:`TabularNet` is passed.

    Returns
    -------
    estimator
        The fitted estimator. Its parameter `memory` is ``None``, for a cache belongs to a machine.

    Raises
    ------
    ValueError
        If the file is damaged, none of ``save`` or of a newer format; if `net` is not the net of
        the file; or if the loaded estimator does not predict what the saved one did.

    Warns
    -----
    InconsistentVersionWarning
        If it was saved with other versions of sksubnet, torch, skorch or scikit-learn.

    Notes
    -----
    The checksum finds damage. It is no signature: who can write the file can write a valid one.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> import sksubnet
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = sksubnet.SubnetLaplaceClassifier(cv=None, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "iris.safetensors")
    ...     clf.save(path)
    ...     again = sksubnet.load(path)
    >>> bool((again.predict_proba(X) == clf.predict_proba(X)).all())
    True
    """
    safetensors = _safetensors("load")
    name = os.fspath(path)
    with open(name, "rb") as file:
        content, arrays = _read(file.read(), safetensors, name)
    with _as_damage(name):
        kind, before = str(content["model"]["type"]), dict(content["versions"])
    check_versions(kind, before)
    if type(net) in SAVABLE.values():  # the member that was given to an ensemble
        net = _given_net(net)
    model, same = _loaded(content, arrays, name, resolved(net))
    if not same:
        raise ValueError(
            f"The {kind} in {name} does not predict what it did when it was saved, "
            "so it is not used. The code of the net may have changed, or the versions of the "
            "libraries: load it with those of then, or fit it anew."
        )
    return model


def _loaded(
    content: dict[str, Any], arrays: dict[str, np.ndarray], name: str, net: Any
) -> tuple[Any, bool]:
    """Return the estimator of a file, and whether it predicts what the saved one did."""
    with _as_damage(name):
        model = _rebuilt(content["model"], arrays, net)
        probe = _rebuilt(content["probe"], arrays, net)
        if arrays:
            raise ValueError(f"the tensors {sorted(arrays)} belong to nothing")
        if not (net is None or isinstance(net, TabularNet)) and _given_net(model) is None:
            raise _Refused("The estimator has the default net, so load it without net.")
        return model, probe is None or _agree(
            _predicted(model, probe["X"]), probe["predicted"], _tolerance(model)
        )


class _Refused(ValueError):
    """What is wrong with what the user gave, rather than with the file."""


class _Damaged(ValueError):
    """What is wrong with a file, and why that was found."""

    def __init__(self, name: str, error: Exception) -> None:
        self.reason = f"{type(error).__name__}: {error!s:.200}"
        super().__init__(f"{name} is damaged ({self.reason}); use another copy of it.")


def _rebuilt(tree: Any, arrays: dict[str, np.ndarray], net: Any) -> Any:
    """Return the value of a tree, and take the arrays that it refers to."""
    wholes: dict[str, Callable[[dict[str, Any]], Any]] = wholes_of(FORMS.values())
    wholes |= {
        "reference": lambda parts: arrays.pop(parts["to"]),
        "NamedNet": lambda parts: NamedNet(**parts),
        "KeptNet": lambda parts: _restored(parts["named"], net),
        "Given": lambda parts: Given(**parts),
    }
    wholes |= {name: partial(_estimator, kind, net) for name, kind in SAVABLE.items()}
    return unpack(tree, wholes)


def _restored(named: NamedNet, net: Any) -> KeptNet:
    try:
        return named.restored(net)
    except ValueError as error:
        raise _Refused(str(error)) from error


def _parts_of_estimator(model: BayesianNet) -> dict[str, Any]:
    """Parameters, and what else the estimator has."""
    model._validate_params()  # of what set_params changed after the fit
    params = model.get_params(deep=False)
    net, others = model.net, set(vars(model)) - {*params, *OF_CALLBACKS}
    params |= {name: None for name in OF_THE_MACHINE & params.keys()}
    if net is not None and type(net) not in (TabularNet, *SAVABLE.values()):
        params["net"] = Given(is_frozen(net))
    fit = {name: vars(model)[name] for name in sorted(others - {"_metadata_request"})}
    return {"params": params, "fit": fit, "requests": _requests(model)}


def _estimator(kind: type[BayesianNet], net: Any, parts: dict[str, Any]) -> BayesianNet:
    """Make an estimator of its parts."""
    params, fit = parts["params"], parts["fit"]
    given = params["net"]
    if isinstance(given, Given):
        params["net"] = net
    model = kind(**params)
    model._validate_params()
    model.__dict__.update(fit)
    if isinstance(given, Given) and given.is_frozen and "folds_" in fit:
        model.net = frozen_like(net, fit["folds_"][0].net)
    if parts["requests"]:
        model._metadata_request = model._get_metadata_request()
        for method, requests in parts["requests"].items():
            getattr(model._metadata_request, method)._requests.update(requests)
    return model


def _requests(model: BayesianNet) -> dict[str, dict[str, Any]]:
    """Parameters of methods that the user asked meta-estimators to pass on."""
    asked = vars(model).get("_metadata_request")
    if asked is None:
        return {}
    return {name: r._requests for name, r in vars(asked).items() if hasattr(r, "_requests")}


def _given_net(model: Any) -> Any:
    """Return the user's net, which may be that of the members; ``None`` with the default net."""
    if isinstance(model.net, TabularNet):
        return None
    return _given_net(model.net) if type(model.net) in SAVABLE.values() else model.net


def _refuse(value: Any, where: str) -> Any:
    raise TypeError(
        f"{where} is of type {type(value).__module__}.{type(value).__qualname__}, which a file "
        "without code cannot hold. If it is a parameter that only fit uses, set_params(...) it to "
        f"something plain first; otherwise {OTHER_WAYS}."
    )


def _probe(model: BayesianNet) -> dict[str, Any] | None:
    """Make some random rows and say what the estimator predicts, where its net takes such rows."""
    shape = (PROBE_ROWS, *model._row_shape)
    normal = np.random.default_rng(0).normal(size=shape)
    if "_columns" in vars(model):
        for column, n_codes in model._columns.n_codes.items():
            normal[:, column] = np.arange(PROBE_ROWS) % n_codes
    for rows in (normal, np.zeros(shape)):  # numbers of categories or words may be zeros
        with contextlib.suppress(Exception):  # of a user's code, which may fail in any way
            return {"X": rows, "predicted": _predicted(model, rows)}
    return None


def _predicted(model: BayesianNet, rows: np.ndarray) -> list[np.ndarray]:
    """Moments of rows, and what follows from them, whatever the columns are called."""
    nameless = object.__new__(type(model))
    nameless.__dict__.update(vars(model))
    nameless.__dict__.pop("feature_names_in_", None)
    if "_columns" in vars(model):  # the rows have codes already
        nameless._columns = replace(model._columns, levels={})
    predictive = nameless.predictive(rows)
    mean = predictive.mean.numpy()
    if is_classifier(model):
        return [mean, predictive.covariance.numpy(), predictive.probabilities()]
    return [mean, predictive.std(), predictive.std("epistemic")]


def _agree(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether arrays are the same but for rounding."""
    for one, other in zip(found, expected, strict=True):
        size = np.abs(other[np.isfinite(other)]).max(initial=0)
        if one.shape != other.shape or not np.allclose(
            one, other, rtol=0, atol=tolerance * size, equal_nan=True
        ):
            return False
    return True


def _tolerance(model: BayesianNet) -> float:
    return max(TOLERANCE.get(net.latent.dtype, 1e-2) for net in model._fitted_nets())


def _read(content: bytes, safetensors: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check a file's content; return what its metadata say, and its arrays by name."""
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    _check_is_ours(header, content, name)
    with _as_damage(name):
        metadata = json.loads(header)["__metadata__"]
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{name} has version {metadata.get('format_version')!r} of the format, this release of "
            f"sksubnet reads version {FORMAT_VERSION!r}; install the one that saved it."
        )
    with _as_damage(name):
        digest = metadata["sha256"]
        blank = content.replace(_entry(digest), _entry(NO_CHECKSUM), 1)
        if hashlib.sha256(blank).hexdigest() != digest:
            raise ValueError("its checksum is another")
        arrays = {key: np.array(array) for key, array in safetensors.load(content).items()}
        return json.loads(metadata["content"]), arrays


def _check_is_ours(header: bytes, content: bytes, name: str) -> None:
    """Say of a file that something else wrote what it is, as far as that can be told."""
    try:
        described = json.loads(header)
        is_foreign = described.get("__metadata__", {}).get("format") != FORMAT
    except (ValueError, AttributeError, RecursionError):
        described, is_foreign = None, True
    if not is_foreign or any(mark in content for mark in MARKS):
        return
    if not content:
        kind = "it is empty"
    elif described is not None:
        kind = "it has tensors that something else wrote, in the format of safetensors"
    elif content.startswith(b"\x80"):
        kind = "it looks like a pickle, such as joblib.load reads"
    elif content.startswith(b"PK\x03\x04"):
        kind = "it is a zip archive, such as torch.save and skops write"
    else:
        kind = "there is nothing of such a file in it"
    raise ValueError(
        f"{name} is no file of an estimator's save: {kind}. Give the name of one, or, if it was "
        "one, use another copy of it."
    )


def _entry(digest: str) -> bytes:
    """Entry of the checksum in the header; quotes within other entries are escaped."""
    return f'"sha256":"{digest}"'.encode()


@contextlib.contextmanager
def _as_damage(name: str) -> Iterator[None]:
    """Say of a file that cannot be read what is wrong with it."""
    try:
        yield
    except _Refused as error:
        raise ValueError(str(error)) from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever a wrong number or name in the file leads to
        raise _Damaged(name, error) from error


def _safetensors(verb: str) -> Any:
    try:
        from safetensors import numpy
    except ImportError as error:
        raise ImportError(
            f"{verb} needs safetensors; install it with pip install 'sksubnet[save]'."
        ) from error
    return numpy
