"""``memory`` of the estimators: a fit is the same with it, whatever happened to code and files."""

import importlib
import logging
import os
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest
from joblib import Memory
from numpy.testing import assert_array_equal
from sklearn.base import clone
from torch import nn
from user_nets import (
    MLP,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
    regressor_net,
)

import sksubnet
from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor, TabularNet
from sksubnet.baselines import (
    DeepEnsembleClassifier,
    MAPRegressor,
    MCDropoutClassifier,
    SWAGClassifier,
    VOGNClassifier,
)
from sksubnet.estimators import base, noise
from sksubnet.estimators.folds import FOLDS
from sksubnet.selection.greedy import Growth

LOCK = threading.Lock()


class LockedMLP(MLP):
    """Reaches what cannot be compared."""

    def forward(self, X):
        with LOCK:
            return super().forward(X)


class DropoutMLP(MLP):
    """With masks to draw."""

    def __init__(self, n_features=4, n_outputs=3):
        super().__init__(n_features, n_outputs)
        self.layers.insert(2, nn.Dropout(0.5))


@pytest.fixture
def trainings(monkeypatch):
    """A list that grows by one for every training."""
    calls = []

    def counted(*args):
        calls.append(1)
        return original(*args)

    original = base.fit_net
    monkeypatch.setattr(base, "fit_net", counted)
    return calls


def entries(folder):
    return sorted(folder.rglob("output.pkl"))


def memory_warnings(fit) -> list[str]:
    """Messages about the memory, which have to point here."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    about = [warning for warning in caught if "memory" in str(warning.message)]
    assert {warning.filename for warning in about} <= {__file__}
    return [str(warning.message) for warning in about]


def is_numbers_of(X, text) -> bool:
    """Whether some number of the table stands in a text."""
    return any(f"{abs(value):.4f}"[:6] in text for value in np.ravel(X) if abs(value) > 0.01)


ESTIMATORS = {
    "subnet": (quick_classifier, MLP, 1),
    "dropout": (MCDropoutClassifier, DropoutMLP, 1),
    "swag": (SWAGClassifier, MLP, 1),
    "ensemble": (DeepEnsembleClassifier, MLP, 5),
}


@pytest.mark.parametrize(("make", "module", "n_nets"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_recalled_fits_are_those_without_memory(make, module, n_nets, tmp_path, trainings):
    X, y = iris()
    net = classifier_net(module)
    expected = make(net, random_state=0).fit(X, y).predict_proba(X)
    for n_trained in (n_nets, 0):
        trainings.clear()
        model = make(net, random_state=0, memory=str(tmp_path)).fit(X, y)
        assert len(trainings) == n_trained
        assert_array_equal(model.predict_proba(X), expected)


@pytest.mark.parametrize("make", [SubnetLaplaceClassifier, SubnetLaplaceRegressor])
def test_the_folds_of_a_fit_are_one_entry(make, tmp_path, trainings):
    X, y = diabetes()
    if make is SubnetLaplaceClassifier:
        y = y > y.mean()
    model = make(random_state=0, memory=str(tmp_path)).fit(X[:40], y[:40])
    assert len(trainings) == len(model.folds_) == FOLDS
    assert len(entries(tmp_path)) == 2  # the nets, and the order of their weights
    expected = clone(model).set_params(memory=None).fit(X[:40], y[:40]).predictive(X)
    trainings.clear()
    recalled = clone(model).fit(X[:40], y[:40]).predictive(X)
    assert len(trainings) == 0
    for one in (model.predictive(X), recalled):
        assert_array_equal(one.mean, expected.mean)
        assert_array_equal(one.covariance, expected.covariance)


def test_the_net_of_all_rows_is_another_entry(tmp_path, trainings):
    X, y = diabetes()
    model = quick_regressor(None, memory=str(tmp_path), cv=2, refit=True, noise=0.5)
    expected = model.fit(X[:40], y[:40]).predict(X)
    assert len(trainings) == 3
    assert len(entries(tmp_path)) == 2
    assert_array_equal(model.fit(X[:40], y[:40]).predict(X), expected)
    assert len(clone(model).set_params(refit=False).fit(X[:40], y[:40]).folds_) == 2
    assert len(trainings) == 3
    model.fit(X[:41], y[:41])
    assert len(trainings) == 6
    assert len(entries(tmp_path)) == 4


def with_value(array, index, value):
    """Copy an array, with one value changed."""
    array = array.copy()
    array[index] = value
    return array


def folds(*held_out):
    """Give splits of the 150 rows that hold these out."""
    return [(np.setdiff1d(np.arange(150), rows), rows) for rows in held_out]


THIRDS = [np.arange(k, 150, 3) for k in range(3)]
CHANGES = {
    "a value": lambda X, y, w, cv: (with_value(X, (-1, -1), 0.5), y, w, cv),
    "a label": lambda X, y, w, cv: (X, with_value(y, -1, (y[-1] + 1) % 3), w, cv),
    "a weight": lambda X, y, w, cv: (X, y, with_value(w, -1, 2.0), cv),
    "a row fewer": lambda X, y, w, cv: (X, y, with_value(w, -1, 0.0), 3),
    "the last fold": lambda X, y, w, cv: (X, y, w, folds(*THIRDS[:2], np.r_[THIRDS[2], 0])),
    "the order of folds": lambda X, y, w, cv: (X, y, w, folds(*THIRDS[::-1])),
    "a fold fewer": lambda X, y, w, cv: (X, y, w, folds(*THIRDS[:2])),
    "a fold more": lambda X, y, w, cv: (X, y, w, folds(*THIRDS, THIRDS[0])),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_in_one_fold_trains_all(change, tmp_path, trainings):
    X, y = iris()
    first = X, y, np.ones(150), folds(*THIRDS)
    model = quick_classifier(memory=str(tmp_path))
    for table in (first, change(*first), first):
        rows, labels, weights, cv = table
        model.set_params(cv=cv).fit(rows, labels, sample_weight=weights)
        plain = clone(model).set_params(memory=None).fit(rows, labels, sample_weight=weights)
        assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    assert len(entries(tmp_path)) == 2
    trainings.clear()
    model.fit(X, y)
    assert len(trainings) == 0


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "reversed": lambda X: X[::-1].copy()[::-1],
    "read-only": lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
    "list": np.ndarray.tolist,
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("net", "cv"), [(None, 2), (classifier_net(), None)], ids=["folds", "one"])
def test_the_same_rows_otherwise_laid_out_are_recalled(net, cv, layout, tmp_path, trainings):
    X, y = iris()
    X, y = X[::5], y[::5]
    model = quick_classifier(net, memory=str(tmp_path), cv=cv)
    expected = model.fit(X, y).predict_proba(X)
    assert_array_equal(model.fit(layout(X), y).predict_proba(X), expected)
    assert len(trainings) == (cv or 1)
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("with_memory", [False, True])
def test_no_fold_trains_where_the_net_of_one_is_refused(
    with_memory, tmp_path, trainings, monkeypatch
):
    X, y = iris()
    checked = []

    def refuse_the_last(*args):
        checked.append(1)
        if len(checked) == 3:
            raise ValueError("refused")

    monkeypatch.setattr(base, "check_reading", refuse_the_last)
    model = quick_classifier(cv=3, memory=str(tmp_path) if with_memory else None)
    with pytest.raises(ValueError, match="refused"):
        model.fit(X, y)
    assert trainings == entries(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_fit_that_stops_in_a_later_fold_keeps_nothing(error, tmp_path, monkeypatch):
    X, y = iris()
    original, calls = base.fit_net, []

    def stopped(*args):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return original(*args)

    model = quick_classifier(memory=str(tmp_path), cv=3)
    with monkeypatch.context() as patches, pytest.raises(error):
        patches.setattr(base, "fit_net", stopped)
        model.fit(X, y)
    assert entries(tmp_path) == []
    expected = clone(model).set_params(memory=None).fit(X, y).predict_proba(X)
    assert_array_equal(model.fit(X, y).predict_proba(X), expected)
    assert len(entries(tmp_path)) == 1


def test_without_memory_a_training_is_gone_before_the_next(monkeypatch):
    X, y = iris()
    original, met = base.fit_net, []

    def watched(net, train, held_out, stream):
        assert [one for one in met if one() is not None] == []
        outcome = original(net, train, held_out, stream)
        met.append(weakref.ref(outcome))
        return outcome

    monkeypatch.setattr(base, "fit_net", watched)
    quick_classifier(cv=3).fit(X, y)
    assert len(met) == 3


MODULE = """
from torch import nn
from skorch import NeuralNetRegressor

def block(width):
    return nn.Sequential(nn.Linear(10, width), nn.Tanh())

def make(n_outputs=1):
    return nn.Sequential(block(6), nn.Linear(6, n_outputs))

class Net(NeuralNetRegressor):
    def get_loss(self, *args, **kwargs):
        return 1.0 * super().get_loss(*args, **kwargs)
"""


def test_edited_code_is_trained_anew(tmp_path, monkeypatch, trainings):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    X, y = diabetes()
    options = {"max_epochs": 5, "lr": 0.05, "train_split": None, "verbose": 0}
    texts = [MODULE, MODULE.replace("Tanh", "ReLU"), MODULE.replace("1.0 *", "0.5 *"), MODULE]
    for text, n_trained in zip(texts, (1, 1, 1, 0), strict=True):
        (tmp_path / "edited_net.py").write_text(text)
        monkeypatch.delitem(sys.modules, "edited_net", raising=False)
        importlib.invalidate_caches()
        module = importlib.import_module("edited_net")
        net = module.Net(module.make, **options)
        plain = quick_regressor(net).fit(X, y)
        trainings.clear()
        model = quick_regressor(net, memory=str(tmp_path / "memory")).fit(X, y)
        assert len(trainings) == n_trained
        assert_array_equal(model.predict(X), plain.predict(X))
    monkeypatch.delitem(sys.modules, "edited_net")


def test_another_release_trains_anew(tmp_path, monkeypatch, trainings):
    X, y = iris()
    model = quick_classifier(memory=str(tmp_path))
    for version, n_trained in (("1.0", 1), ("1.1", 1), ("1.0", 0)):
        monkeypatch.setattr(sksubnet, "__version__", version)
        trainings.clear()
        model.fit(X, y)
        assert len(trainings) == n_trained


@pytest.mark.parametrize("cv", [None, 3])
def test_damaged_files_give_the_right_model(cv, tmp_path, trainings):
    X, y = iris()
    n_nets = cv or 1
    model = quick_classifier(memory=str(tmp_path), cv=cv)
    expected = model.fit(X, y).predict_proba(X)
    other = quick_classifier(memory=str(tmp_path), cv=cv, random_state=1)
    (path,) = entries(tmp_path)
    content = path.read_bytes()
    other.fit(X, y)
    (swapped,) = (p.read_bytes() for p in entries(tmp_path) if p != path)
    rng = np.random.default_rng(0)
    flipped = bytearray(content)
    flipped[rng.integers(len(content))] ^= 4
    for damaged in (bytes(flipped), content[:-20], content[:100] + bytes(len(content)), swapped):
        path.write_bytes(damaged)
        trainings.clear()
        assert memory_warnings(lambda: model.fit(X, y)) == []
        assert len(trainings) == n_nets
        assert_array_equal(model.predict_proba(X), expected)
        model.fit(X, y)
        assert len(trainings) == n_nets


@pytest.mark.parametrize("verbose", [0, 1, 100])
def test_no_training_row_is_printed_or_logged(verbose, tmp_path, capfd, caplog):
    X, y = iris()
    caplog.set_level(logging.DEBUG)
    model = quick_classifier(memory=Memory(str(tmp_path), verbose=verbose))
    for content in (None, b"", b"garbage", b"\x80\x05garbage" * 100):
        for path in entries(tmp_path):
            path.write_bytes(content)
        model.fit(X, y)
    captured = capfd.readouterr()
    printed = captured.out + captured.err + caplog.text
    assert ("[Memory] Training the nets" in printed) == (verbose > 0)
    assert not is_numbers_of(X, printed)


def test_what_cannot_be_read_is_trained_anew_with_one_warning(tmp_path, trainings):
    X, y = iris()
    options = {"memory": str(tmp_path), "cv": 3}
    model = quick_classifier(classifier_net(LockedMLP), **options)
    for _ in range(2):
        (message,) = memory_warnings(lambda: model.fit(X, y))
        assert "lock (TypeError) in test_memory.LockedMLP.forward" in message
        assert "trained anew and not kept" in message
    assert len(trainings) == 6
    assert entries(tmp_path) == []
    assert memory_warnings(lambda: model.set_params(memory=None).fit(X, y)) == []
    assert not is_numbers_of(X, message)


def test_lambdas_are_read(tmp_path, trainings):
    X, y = iris()
    for slope, n_trained in ((0.1, 1), (0.2, 1), (0.1, 0)):
        net = classifier_net(
            lambda slope=slope: nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(slope))
        )
        trainings.clear()
        quick_classifier(net, memory=str(tmp_path)).fit(X, y)
        assert len(trainings) == n_trained


def test_folder_that_cannot_be_made(tmp_path):
    X, y = iris()
    (tmp_path / "file").write_text("")
    expected = quick_classifier().fit(X, y).predict_proba(X)
    model = quick_classifier(memory=str(tmp_path / "file" / "folder"))
    (message,) = memory_warnings(lambda: model.fit(X, y))
    assert "cannot be used (Not a directory)" in message
    assert_array_equal(model.predict_proba(X), expected)


def test_full_disk_leaves_the_fit_alive(tmp_path, monkeypatch):
    X, y = iris()
    expected = quick_classifier().fit(X, y).predict_proba(X)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    model = quick_classifier(memory=str(tmp_path))
    (message,) = memory_warnings(lambda: model.fit(X, y))
    assert "could not be kept" in message and "No space left on device" in message
    assert_array_equal(model.predict_proba(X), expected)


def test_random_state_that_changes_is_warned_about_once(tmp_path):
    X, y = iris()
    model = quick_classifier(memory=str(tmp_path), random_state=None, cv=3)
    (message,) = memory_warnings(lambda: model.fit(X, y))
    assert "set it to an integer" in message


@pytest.mark.parametrize("memory", [None, Memory(None)])
def test_no_memory(memory, trainings):
    X, y = iris()
    for _ in range(2):
        assert memory_warnings(lambda: quick_classifier(memory=memory).fit(X, y)) == []
    assert len(trainings) == 2


def test_estimators_that_train_otherwise_keep_nothing():
    X, y = iris()
    model = VOGNClassifier(classifier_net(), n_epochs=2, n_draws=3, random_state=0)
    assert memory_warnings(lambda: model.fit(X, y)) == []


def test_cleared_memory_trains_anew(tmp_path, trainings):
    X, y = diabetes()
    memory = Memory(str(tmp_path), verbose=0)
    model = MAPRegressor(regressor_net(), memory=memory, random_state=0)
    model.fit(X, y)
    memory.clear(warn=False)
    assert entries(tmp_path) == []
    model.fit(X, y).fit(X, y)
    assert len(trainings) == 2


def test_sizes_share_the_noise_nets_and_the_order_of_the_weights(tmp_path, monkeypatch):
    X, y = diabetes()
    calls = []
    for module, name in ((noise, "noise_training"), (noise, "fit_noise"), (base, "fit_net")):
        known = getattr(module, name)

        def counted(*args, name=name, known=known):
            calls.append(name if len(args) < 5 or name == "fit_net" else "recalled")
            return known(*args)

        monkeypatch.setattr(module, name, counted)
    grow = Growth.to
    monkeypatch.setattr(Growth, "to", lambda *args: calls.append("search") or grow(*args))
    options = {"net": TabularNet(max_epochs=3), "noise": "input", "cv": 2, "random_state": 0}
    reg = SubnetLaplaceRegressor(**options)
    found = {}
    for size in (150, 200, 20):
        calls.clear()
        remembers = clone(reg).set_params(memory=str(tmp_path), subnetwork_size=size)
        found[size] = remembers.fit(X, y), sorted(calls)
    trained = ["fit_net"] * 2 + ["noise_training"] * 2 + ["recalled"] * 2 + ["search"] * 2
    assert found[150][1] == trained
    assert found[200][1] == found[20][1] == ["recalled"] * 2
    for size, (remembered, _) in found.items():
        plain = clone(reg).set_params(subnetwork_size=size).fit(X, y)
        for one, other in zip(remembered.folds_, plain.folds_, strict=True):
            assert_array_equal(one.subnetwork.indices, other.subnetwork.indices)
            assert one.subnetwork.explained_variance == other.subnetwork.explained_variance
        for one, other in zip(
            remembered.predict(X, return_std=True), plain.predict(X, return_std=True), strict=True
        ):
            assert_array_equal(one, other)


@pytest.mark.parametrize(
    "change",
    [{"candidates": "all"}, {"reference": "train"}, {"net__hidden": (40, 40)}, {"random_state": 1}],
    ids=lambda change: next(iter(change)),
)
def test_another_search_is_another_order(change, tmp_path):
    X, y = diabetes()
    options = {"net": TabularNet(max_epochs=3), "cv": None, "random_state": 0}
    reg = SubnetLaplaceRegressor(**options, subnetwork_size=150, memory=str(tmp_path))
    first = reg.fit(X, y).subnetwork_.indices
    found = clone(reg).set_params(**change).fit(X, y).subnetwork_.indices
    plain = clone(reg).set_params(**change, memory=None).fit(X, y).subnetwork_.indices
    assert_array_equal(found, plain)
    assert not np.array_equal(found, first)
