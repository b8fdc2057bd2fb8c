"""Files of ``save``: the same predictions, no code, and no wrong model from a damaged one."""

import copy
import hashlib
import json
import os
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kept_models import LABELS, MODELS, SMALL, Tanh, X, Y, assert_same, few_epochs, variance_net
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import MLP, assert_refused, classifier_net, regressor_net

import sksubnet
import sksubnet.estimators.saving
from sksubnet import (
    DeepEnsembleClassifier,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
)
from sksubnet.posterior import CholeskyPosterior, ShiftedCholesky

safetensors = pytest.importorskip("safetensors.numpy")

USER_NETS = {
    "user_classes": classifier_net,
    "frozen": lambda: NeuralNetRegressor(MLP, module__n_features=3, module__n_outputs=1),
    "updated_classes": classifier_net,
    "swag": classifier_net,
    "counts": lambda: regressor_net(criterion=nn.PoissonNLLLoss),
    "variances": variance_net,
}
"""The nets of those models that have not the default one, as a user would make them again."""

__all__ = ["few_epochs"]


def given_net(name: str) -> Any:
    return USER_NETS[name]() if name in USER_NETS else None


@pytest.fixture(scope="module", params=MODELS)
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return request.param, MODELS[request.param]()


@pytest.fixture(scope="module")
def small() -> Any:
    """A regressor with a user's net, the quickest to save."""
    net = regressor_net()
    return SubnetLaplaceRegressor(net, subnetwork_size=12, prior_precision=1.0, random_state=0).fit(
        X, Y
    )


def saved(model: Any, folder: Path) -> Path:
    path = folder / "model.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


UNPICKLED: list[str] = []


def notice(event: str, _: Any) -> None:
    if event == "pickle.find_class":
        UNPICKLED.append(event)


sys.addaudithook(notice)


def test_predicts_the_same_to_the_last_bit(named: tuple[str, Any], tmp_path: Path) -> None:
    name, model = named
    if name == "user":  # its module has an attribute that training changes
        assert_refused(lambda: saved(model, tmp_path), "no file", "register_buffer")
        assert not list(tmp_path.iterdir())
        return
    path = saved(model, tmp_path)
    seeds = torch.get_rng_state(), np.random.get_state()[1].copy()
    UNPICKLED.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = sksubnet.load(path, net=given_net(name))
    assert not UNPICKLED
    assert torch.equal(torch.get_rng_state(), seeds[0])
    assert (np.random.get_state()[1] == seeds[1]).all()
    assert content_of(path)["probe"] is not None
    assert type(again) is type(model) and vars(again).keys() == vars(model).keys()
    theirs, ours = again.get_params(), model.get_params()
    plain = [key for key in ours if "net" not in key]
    assert repr([theirs[key] for key in plain]) == repr([ours[key] for key in plain])
    assert_same(again, model)
    second = saved(again, tmp_path)
    assert_same(sksubnet.load(second, net=given_net(name)), model)
    if name == "folds":
        assert repr(again.tuning_) == repr(model.tuning_)
        assert repr(again.folds_[0].subnetwork) == repr(model.folds_[0].subnetwork)
        assert again.log_marginal_likelihood() == model.log_marginal_likelihood()
        assert again.net is None
        losses = [m.folds_[0].net.history[:, "valid_loss"] for m in (again, model)]
        assert losses[0] == losses[1]
        assert again.fit(X, Y).predict(X) == pytest.approx(model.predict(X))
    if name == "frozen":
        assert isinstance(again.net, FrozenEstimator)
        assert again.set_params(subnetwork_size=3).fit(X, Y).predict(X) == pytest.approx(
            model.predict(X)
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_posterior_by_a_cholesky_factor(small: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    model = copy.deepcopy(small)
    root = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    posterior = CholeskyPosterior(model.posterior_.mean, ShiftedCholesky((root @ root.T).to(dtype)))
    object.__setattr__(model.folds_[0], "posterior", posterior.tuned(0.7, 1.3))
    assert_same(pickle.loads(pickle.dumps(model)), model)
    assert_same(sksubnet.load(saved(model, tmp_path), net=regressor_net()), model)


class Digits(nn.Module):
    """Rows of numbers of symbols."""

    def __init__(self, n_outputs: int = 2) -> None:
        super().__init__()
        self.symbols, self.last = nn.Embedding(4, 3), nn.Linear(3, n_outputs)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.last(self.symbols(X.long()).mean(1))


class Image(nn.Module):
    """One channel of 4 by 5 pixels, statistics of batches, and a state that is no tensor."""

    def __init__(self, n_outputs: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten())
        self.last = nn.Linear(18, n_outputs)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(X))

    def get_extra_state(self) -> dict[str, Any]:
        return {"scales": (0.5, None)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        assert state == {"scales": (0.5, None)}


SHAPES = {
    "symbols": (Digits, np.random.default_rng(0).integers(4, size=(40, 6))),
    "images": (Image, np.random.default_rng(0).normal(size=(40, 1, 4, 5))),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    "labels", [["a", "b"], [7, 3], [True, False], np.array(["x", "long"], object)], ids=repr
)
def test_other_rows_and_labels(kind: str, labels: Any, tmp_path: Path) -> None:
    module, rows = SHAPES[kind]
    y = np.asarray(labels)[np.arange(40) % 2]
    model = SubnetLaplaceClassifier(classifier_net(module), subnetwork_size=5, random_state=0)
    model.fit(rows, y)
    path = saved(model, tmp_path)
    again = sksubnet.load(path, net=lambda: classifier_net(module))
    assert content_of(path)["probe"] is not None
    np.testing.assert_array_equal(again.classes_, model.classes_)
    assert again.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_parameters_and_names_of_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    model = SubnetLaplaceClassifier(
        subnetwork_size=0.01,
        cv=KFold(2, shuffle=True, random_state=3),
        class_weight={"low": 2.0, "mid": 1, "high": np.float64(0.5)},
        reference=X[:5],
        candidates=["dense", "rest.1"],
        random_state=np.random.RandomState(4),
        memory=str(tmp_path / "cache"),
    ).fit(frame, LABELS)
    again = sksubnet.load(saved(model, tmp_path))
    assert list(again.feature_names_in_) == ["a", "b", "c"] and again.memory is None
    assert repr(again.cv) == repr(model.cv) and again.class_weight == model.class_weight
    assert again.candidates == model.candidates
    np.testing.assert_array_equal(again.reference, model.reference)
    assert again.random_state.randint(10**9) == model.random_state.randint(10**9)
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
    model.set_params(memory=None)
    sksubnet.load(saved(model.fit(frame, LABELS), tmp_path))  # with the same state, to go on


def test_a_table_with_categories_is_checked_as_well(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"]).assign(d=LABELS)
    model = SubnetLaplaceRegressor(subnetwork_size=5, **SMALL).fit(frame, Y)
    path = saved(model, tmp_path)
    assert content_of(path)["probe"] is not None
    found = sksubnet.load(path).predict(frame, return_std=True)
    np.testing.assert_array_equal(found, model.predict(frame, return_std=True))


class Positive(MLP):
    """Of amounts, which it checks."""

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        assert bool((X > 0).all())
        return super().forward(X.log())


def test_a_net_that_takes_no_probe_rows_is_kept_without_that_check(tmp_path: Path) -> None:
    rows = np.exp(X)
    model = SubnetLaplaceRegressor(regressor_net(Positive), subnetwork_size=5, **SMALL)
    path = saved(model.fit(rows, Y), tmp_path)
    assert content_of(path)["probe"] is None
    found = sksubnet.load(path, net=regressor_net(Positive)).predict(rows, return_std=True)
    np.testing.assert_array_equal(found, model.predict(rows, return_std=True))


def test_nested_posteriors_of_an_ensemble(tmp_path: Path) -> None:
    member = SubnetLaplaceClassifier(classifier_net(), subnetwork_size=12, cv=2)
    model = DeepEnsembleClassifier(member, n_members=2, random_state=0).fit(X, LABELS)
    path = saved(model, tmp_path)
    assert_same(sksubnet.load(path, net=member), model)
    again = sksubnet.load(path, net=classifier_net())
    assert_same(again, model)
    assert isinstance(again.net, SubnetLaplaceClassifier) and again.net.subnetwork_size == 12
    assert_same(again.fit(X, LABELS), model)


def test_routed_metadata(small: Any, tmp_path: Path) -> None:
    sklearn = pytest.importorskip("sklearn")
    with sklearn.config_context(enable_metadata_routing=True):
        model = copy.deepcopy(small).set_fit_request(sample_weight=True)
        again = sksubnet.load(saved(model, tmp_path), net=regressor_net())
        assert again.get_metadata_routing().fit.requests["sample_weight"] is True


def test_training_rows_are_announced(tmp_path: Path) -> None:
    model = MODELS["kernel"]()
    with pytest.warns(UserWarning, match=r"70 training rows.*covariance='diag'") as caught:
        model.save(tmp_path / "model")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MODELS["diagonal"]().save(tmp_path / "model")


class Relu(MLP):
    """The names and shapes of another."""

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layers[2](torch.relu(self.layers[0](X)))


Relu.__qualname__ = "MLP"


class OwnNet(NeuralNetRegressor):
    """A class of nets of the user's."""


REFUSED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "no net": (lambda: None, ("load(path, net=", "NeuralNetRegressor", "MLP")),
    "another module": (lambda: regressor_net(Tanh), ("Tanh", "MLP")),
    "another net": (
        lambda: OwnNet(MLP, train_split=None, verbose=0),
        ("OwnNet", "NeuralNetRegressor around a MLP"),
    ),
    "another criterion": (lambda: regressor_net(criterion=nn.L1Loss), ("L1Loss", "MSELoss")),
    "other widths": (
        lambda: regressor_net(module__hidden=9),
        ("layers.0.bias", "(9,)", "(8,)"),
    ),
    "other code": (lambda: regressor_net(Relu), ("does not predict",)),
    "frozen": (
        lambda: FrozenEstimator(regressor_net(module__n_features=3).initialize()),
        ("FrozenEstimator", "net itself"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_net_is_refused(case: str, small: Any, tmp_path: Path) -> None:
    make, parts = REFUSED[case]
    path = saved(small, tmp_path)
    assert_refused(lambda: sksubnet.load(path, net=make()), *parts)
    with pytest.raises(TypeError, match="skorch net"):
        sksubnet.load(path, net="MLP")


def test_a_net_that_is_not_needed(tmp_path: Path) -> None:
    path = saved(MODELS["diagonal"](), tmp_path)
    assert_refused(lambda: sksubnet.load(path, net=regressor_net()), "default net", "without net")


@pytest.mark.parametrize("net", [sksubnet.TabularNet(), sksubnet.TabularNet], ids=["one", "class"])
def test_the_default_net_may_be_passed(net: Any, small: Any, tmp_path: Path) -> None:
    model = MODELS["diagonal"]()
    path = saved(model, tmp_path)
    assert_same(sksubnet.load(path, net=net), model)
    path = saved(small, tmp_path)
    assert_refused(lambda: sksubnet.load(path, net=net), "TabularNet", "NeuralNetRegressor")


def frozen_and_unfitted() -> FrozenEstimator:
    return FrozenEstimator(USER_NETS["frozen"]())


@pytest.mark.parametrize("net", [frozen_and_unfitted(), frozen_and_unfitted], ids=["net", "maker"])
def test_a_frozen_net_gets_its_weights_from_the_file(net: Any, tmp_path: Path) -> None:
    model = MODELS["frozen"]()
    path = saved(model, tmp_path)
    again = sksubnet.load(path, net=net)
    assert_same(again, model)
    assert isinstance(again.net, FrozenEstimator) and again.net.estimator.initialized_
    assert again.set_params(subnetwork_size=3).fit(X, Y).predict(X) == pytest.approx(
        model.predict(X)
    )
    assert_same(sksubnet.load(saved(model, tmp_path), net=model.net), model)
    assert_refused(
        lambda: sksubnet.load(path, net=FrozenEstimator(regressor_net(Tanh))), "Tanh", "MLP"
    )


def content_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["content"])


def forge(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], None]) -> None:
    """Change tensors or metadata, and make the file a valid one with a valid checksum."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays, metadata = dict(safetensors.load(content)), header["__metadata__"]
    metadata["content"] = json.loads(metadata["content"])
    change(arrays, metadata)
    metadata["content"] = json.dumps(metadata["content"])
    metadata["sha256"] = "0" * 64
    blank = safetensors.save(arrays, metadata)
    digest = hashlib.sha256(blank).hexdigest()
    path.write_bytes(blank.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest.encode(), 1))


def fit_of(metadata: dict[str, Any]) -> dict[str, Any]:
    return dict(metadata["content"]["model"]["fit"]["items"])


def swap(arrays: dict[str, np.ndarray], _: Any) -> None:
    """Exchange two tensors of the same shape that are not the same."""
    names = sorted(arrays)
    one, other = next(
        (a, b)
        for a in names
        for b in names
        if a < b
        and ".model." not in (a, b)
        and arrays[a].shape == arrays[b].shape
        and arrays[a].dtype == arrays[b].dtype == np.float64
        and not np.allclose(arrays[a], arrays[b])
    )
    arrays[one], arrays[other] = arrays[other], arrays[one]


def weights(factor: float) -> Callable[..., None]:
    def change(arrays: dict[str, np.ndarray], _: Any) -> None:
        name = next(name for name in arrays if name.endswith("layers.0.weight"))
        arrays[name] = arrays[name] * factor

    return change


FORGED: dict[str, Callable[[dict[str, np.ndarray], dict[str, Any]], Any]] = {
    "unchanged": lambda a, m: None,
    "swapped tensors": swap,
    "other weights": weights(1.01),
    "not a number": weights(np.nan),
    "a tensor less": lambda a, m: a.pop(min(a)),
    "a tensor more": lambda a, m: a.update(more=np.zeros(3)),
    "another shape": lambda a, m: a.update({max(a): np.zeros((2, 3))}),
    "a shorter mean": lambda a, m: [a.update({k: a[k][1:]}) for k in a if ".mean." in k],
    "other columns": lambda a, m: m["content"]["model"]["fit"]["items"].append(
        ["n_features_in_", 2]
    ),
    "another class": lambda a, m: m["content"]["model"].update(type="MAPRegressor"),
    "a class of another library": lambda a, m: m["content"]["model"].update(type="Ridge"),
    "code": lambda a, m: m["content"]["model"]["params"]["items"][0].__setitem__(
        1, {"type": "system", "command": "true"}
    ),
    "a parameter that is none": lambda a, m: m["content"]["model"]["params"]["items"].append(
        ["more", 1]
    ),
    "a value that is not allowed": lambda a, m: m["content"]["model"]["params"]["items"].append(
        ["subnetwork_size", -3]
    ),
    "a function that is no ufunc": lambda a, m: m["content"]["model"]["fit"]["items"].append(
        ["more", {"type": "ufunc", "name": "save"}]
    ),
    "dates as labels": lambda a, m: m["content"]["model"]["fit"]["items"].append(
        ["more", {"type": "ndarray", "dtype": "<M8[s]", "shape": [1], "items": [0]}]
    ),
    "no parts": lambda a, m: m["content"]["model"].pop("fit"),
    "no model": lambda a, m: m["content"].pop("model"),
    "no versions": lambda a, m: m["content"].update(versions=3),
    "a list as model": lambda a, m: m["content"].update(model=[1]),
    "deep nesting": lambda a, m: m["content"].update(model=json.loads("[" * 900 + "]" * 900)),
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_files_give_no_wrong_model(case: str, small: Any, tmp_path: Path) -> None:
    path = saved(small, tmp_path)
    forge(path, FORGED[case])
    if case == "unchanged":
        assert_same(sksubnet.load(path, net=regressor_net()), small)
        return
    with pytest.raises(ValueError, match=r"damaged|does not predict") as caught:
        sksubnet.load(path, net=regressor_net())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_what_is_no_fault_of_the_file_is_not_blamed_on_it(
    error: Exception, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(small, tmp_path)

    def fail(_: bytes) -> None:
        raise error

    monkeypatch.setattr(safetensors, "load", fail)
    with pytest.raises(type(error)) as caught:
        sksubnet.load(path, net=regressor_net())
    assert caught.value is error


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of the ways that disks, networks and editors have."""
    found = bytearray(content)
    at = int(rng.integers(len(content)))
    n_header = int.from_bytes(content[:8], "little")
    kind = rng.integers(7)
    if kind == 0:
        return content[:at]
    if kind == 1:  # a bit anywhere
        found[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:  # a bit of the header
        found[at % (8 + n_header)] ^= 1 << int(rng.integers(8))
    elif kind == 3:  # a sector that was never written
        found[at : at + 512] = bytes(min(512, len(found) - at))
    elif kind == 4:  # two stretches of the tensors in each other's place
        start = 8 + n_header
        first, second = sorted(rng.integers(start, len(found) - 64, size=2).tolist())
        found[first : first + 64], found[second : second + 64] = (
            found[second : second + 64],
            found[first : first + 64],
        )
    elif kind == 5:  # metadata edited, with the length of the header made right
        header = content[8 : 8 + n_header]
        digits = [match.start() for match in re.finditer(rb"[1-9]", header)]
        place = digits[int(rng.integers(len(digits)))]
        edited = header[:place] + b"1" * int(rng.integers(2, 9)) + header[place + 1 :]
        edited += b" " * (-len(edited) % 8)
        return len(edited).to_bytes(8, "little") + edited + content[8 + n_header :]
    else:  # something more at the end
        return content + bytes(rng.integers(256, size=int(rng.integers(1, 99))).tolist())
    return bytes(found)


def test_damaged_files_give_no_model(small: Any, tmp_path: Path) -> None:
    path = saved(small, tmp_path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    n_damaged = 0
    for _ in range(400):
        found = damaged(content, rng)
        if found == content:
            continue
        path.write_bytes(found)
        with pytest.raises(ValueError, match=r"damaged|version|is no file of"):
            sksubnet.load(path, net=regressor_net())
        n_damaged += 1
    assert n_damaged > 350


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "text": (b"hello, this is no file of ours", "nothing of such a file"),
    "accents": ("h\xe9 ".encode("latin-1") * 9, "nothing of such a file"),
    "pickle": (pickle.dumps({"a": sksubnet.TabularNet()}), "pickle"),
    "zip": (b"PK\x03\x04" + bytes(30), "torch.save and skops"),
    "zeros": (bytes(100), "nothing of such a file"),
    "list": ((2).to_bytes(8, "little") + b"[]", "nothing of such a file"),
    "nested": ((9999).to_bytes(8, "little") + b"[" * 9999, "nothing of such a file"),
    "safetensors": (safetensors.save({"a": np.zeros(3)}), "something else wrote"),
    "other metadata": (
        safetensors.save({"a": np.zeros(3)}, {"format": "pt", "format_version": "1"}),
        "something else wrote",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    content, part = FOREIGN[kind]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is no file of an estimator's save: ") as caught:
        sksubnet.load(path)
    message = str(caught.value)
    assert part in message
    for internal in ("Error", "__metadata__", "codec", "char", "damaged"):
        assert internal not in message


def test_other_versions(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(small, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sksubnet, "__version__", "99.1")
        with pytest.warns(InconsistentVersionWarning, match=r"using version sksubnet 99.1") as seen:
            sksubnet.load(path, net=regressor_net())
    assert seen[0].filename == __file__
    forge(path, lambda arrays, metadata: metadata.update(format_version="2"))
    assert_refused(lambda: sksubnet.load(path), "version '2'", "'1'")


def by_size(trained: Any) -> torch.Tensor:
    return trained.weight_vector().abs()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"selection": by_size}, ("selection", "function", "set_params", "cloudpickle")),
        ({"reference": memoryview(b"")}, ("'reference' parameter",)),
        ({"net_": memoryview(b"")}, ("net_", "memoryview")),
        ({"extra_": {"a": [1, np.float16(3)]}}, ("extra_", "float16", "pickle")),
        ({"when_": np.array(["2020"], "M8[Y]")}, ("when_", "ndarray")),
    ],
    ids=["function", "parameter", "value", "attribute", "dates"],
)
def test_what_cannot_be_held(change: Any, parts: Any, small: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(small)
    vars(model).update(change)
    assert_refused(lambda: model.save(tmp_path / "model"), *parts, error=TypeError)
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_loaded_again_is_not_written(small: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(small).set_params(net=regressor_net(module__hidden=9))
    assert_refused(lambda: model.save(tmp_path / "model"), "No file was written", "layers.0.bias")
    assert not list(tmp_path.iterdir())


def test_what_breaks_loading_is_told_without_a_file(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: bytes) -> None:
        raise KeyError("tensor")

    monkeypatch.setattr(safetensors, "load", fail)
    with pytest.raises(ValueError, match=r"^No file was written") as caught:
        small.save(tmp_path / "model")
    assert "KeyError: 'tensor'" in str(caught.value)
    assert "damaged" not in str(caught.value) and "another copy" not in str(caught.value)


def test_a_parameter_that_was_set_wrong_after_the_fit_is_named(tmp_path: Path) -> None:
    model = MODELS["diagonal"]().set_params(prior_precision="zz")
    with pytest.raises(ValueError, match=r"^The 'prior_precision' parameter of .*'zz'"):
        model.save(tmp_path / "model")
    member = SubnetLaplaceClassifier(classifier_net(), subnetwork_size=12, cv=2)
    ensemble = DeepEnsembleClassifier(member, n_members=2, random_state=0).fit(X, LABELS)
    ensemble.set_params(net__link="zz")
    with pytest.raises(ValueError, match=r"^The 'link' parameter of SubnetLaplaceClassifier.*'zz'"):
        ensemble.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


class Sub(SubnetLaplaceRegressor):
    """A class of the user's."""


def test_a_class_of_the_users_is_refused(tmp_path: Path) -> None:
    model = Sub(regressor_net(), subnetwork_size=5, prior_precision=1.0).fit(X, Y)
    assert_refused(lambda: model.save(tmp_path / "model"), "Sub", error=TypeError)


def test_an_unfitted_estimator(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        SubnetLaplaceRegressor().save(tmp_path / "model")


@pytest.mark.parametrize("at", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_is_written_whole_or_not_at_all(
    at: str, error: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(small, tmp_path)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, at, fail)
        with pytest.raises(type(error)):
            copy.deepcopy(small).set_params(verbose=1).save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_file_behind_a_link_and_the_permissions(small: Any, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "model.safetensors"
    link.symlink_to(tmp_path / "real" / "model")
    assert saved(small, tmp_path) == link and link.is_symlink()
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert (tmp_path / "real" / "model").stat().st_mode == plain.stat().st_mode


def test_readers_meet_whole_files_only(small: Any, tmp_path: Path) -> None:
    path, found = saved(small, tmp_path), []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found.append(sksubnet.load(path, net=regressor_net()).predict(X))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        saved(small, tmp_path)
    stop.set()
    reader.join()
    assert found and all(np.array_equal(one, small.predict(X)) for one in found)


@pytest.mark.parametrize("verb", ["save", "load"])
def test_without_safetensors(
    verb: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(small, tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    calls = {"save": lambda: small.save(path), "load": lambda: sksubnet.load(path)}
    assert_refused(calls[verb], verb, "sksubnet[save]", error=ImportError)


def test_the_tensors_are_any_readers(tmp_path: Path) -> None:
    model = MAPRegressor(random_state=0).fit(X, Y)
    arrays = safetensors.load_file(saved(model, tmp_path))
    found = [array for array in arrays.values() if array.shape == (64, 3)]
    expected = model.net_.module_.dense.weight.detach().numpy()
    assert any(np.array_equal(array, expected) for array in found)


def test_a_path_that_cannot_be_written_is_named_and_told_before_the_work(small, tmp_path):
    path = str(tmp_path / "not" / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=f"^{path!r} cannot be written.*{tmp_path}/not'"):
        small.save(path)
    with pytest.raises(IsADirectoryError, match=f"^{str(tmp_path)!r} is a folder"):
        small.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_is_told_with_the_name_that_was_given(small, tmp_path, monkeypatch):
    path = str(tmp_path / "model.safetensors")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "a draft", None, "its target")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        small.save(path)
    assert (caught.value.filename, caught.value.filename2) == (path, None)
