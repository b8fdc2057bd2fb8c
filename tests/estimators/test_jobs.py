"""Folds and members in jobs of joblib: the same to the last bit, whatever runs them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from torch import Tensor, nn

from sksubnet import (
    DeepEnsembleRegressor,
    MAPClassifier,
    MCDropoutRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    TabularNet,
)
from sksubnet.estimators.jobs import in_jobs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.sin(X[:, 0]) + X[:, 1] + 0.1 * RNG.normal(size=60)
LABELS = np.digitize(Y, [-0.5, 0.5])
TARGETS = np.column_stack([Y, X[:, 2] - Y])


def local_module() -> type[nn.Module]:
    """A class that no other process can import, whose instances remember how they were trained."""

    class Counting(nn.Module):
        def __init__(self, n_features: int = 3, n_outputs: int = 1) -> None:
            super().__init__()
            self.first = nn.utils.parametrizations.weight_norm(nn.Linear(n_features, 6))
            self.dropout, self.last = nn.Dropout(0.1), nn.Linear(6, n_outputs)
            self.n_passes = 0

        def forward(self, X: Tensor) -> Tensor:
            self.n_passes += self.training
            hidden = self.dropout(torch.tanh(self.first(X)))
            return self.last(hidden) * (1 + 0.01 * self.n_passes)

    return Counting


MODULE = local_module()
SHORT = {"max_epochs": 4, "lr": 0.01, "train_split": None, "verbose": 0}
LAPLACE = {"subnetwork_size": 10, "random_state": 0}


def own_net(**options: Any) -> Any:
    return NeuralNetRegressor(MODULE, **{**SHORT, **options})


def stopping_net() -> Any:
    stop = EarlyStopping(patience=1, load_best=True, sink=lambda _: None)
    return own_net(max_epochs=30, train_split=ValidSplit(5), callbacks=[("stop", stop)])


KINDS: dict[str, Callable[..., Any]] = {
    "default": lambda n: SubnetLaplaceRegressor(
        TabularNet(max_epochs=3), noise="input", cv=2, refit=True, n_jobs=n, **LAPLACE
    ),
    "own": lambda n: SubnetLaplaceRegressor(own_net(), cv=3, n_jobs=n, **LAPLACE),
    "stopping": lambda n: SubnetLaplaceRegressor(stopping_net(), cv=3, n_jobs=n, **LAPLACE),
    "chosen": lambda n: SubnetLaplaceRegressor(
        own_net(),
        selection=lambda trained: trained.weight_vector().abs(),
        cv=2,
        n_jobs=n,
        **LAPLACE,
    ),
    "swag": lambda n: SWAGRegressor(
        own_net(), n_draws=3, n_snapshots=3, cv=2, n_jobs=n, random_state=0
    ),
    "dropout": lambda n: MCDropoutRegressor(own_net(), n_draws=3, cv=2, n_jobs=n, random_state=0),
    "members": lambda n: DeepEnsembleRegressor(own_net(), n_members=3, n_jobs=n, random_state=0),
}


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(
        one.predict(X, return_std=True), other.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize("name", KINDS)
def test_any_backend_gives_the_serial_fit(name: str, backend: str) -> None:
    serial = KINDS[name](1).fit(X, TARGETS)
    with joblib.parallel_config(backend):
        assert_same(KINDS[name](2).fit(X, TARGETS), serial)
    with joblib.parallel_config(backend, n_jobs=2):
        assert_same(KINDS[name](None).fit(X, TARGETS), serial)


def test_weights_and_classes_in_jobs() -> None:
    net = NeuralNetClassifier(MODULE, criterion=nn.CrossEntropyLoss, **SHORT)
    model = SubnetLaplaceClassifier(net, cv=3, class_weight="balanced", **LAPLACE)
    weights = np.arange(60) % 3
    expected = model.fit(X, LABELS, weights).predict_proba(X)
    found = model.set_params(n_jobs=2).fit(X, LABELS, weights)
    np.testing.assert_array_equal(found.predict_proba(X), expected)


def test_jobs_share_the_memory(tmp_path: Path) -> None:
    kind = KINDS["default"]
    first = kind(2).set_params(memory=str(tmp_path)).fit(X, Y)
    entries = list(tmp_path.rglob("output.pkl"))
    assert entries
    assert_same(kind(1).set_params(memory=str(tmp_path)).fit(X, Y), first)
    assert list(tmp_path.rglob("output.pkl")) == entries
    assert_same(kind(1).fit(X, Y), first)


def test_settings_of_torch_and_scikit_learn_reach_the_jobs() -> None:
    def seen(k: int) -> tuple[Any, ...]:
        return torch.get_default_dtype(), sklearn.get_config()["assume_finite"], os.getpid()

    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with sklearn.config_context(assume_finite=True):
            found = in_jobs(seen, [(0,), (1,)], 2, name="net")
    finally:
        torch.set_default_dtype(before)
    assert {one[:2] for one in found} == {(torch.float64, True)}
    assert os.getpid() not in {one[2] for one in found}
    assert {one[0] for one in in_jobs(seen, [(0,), (1,)], 2, name="net")} == {before}


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_jobs_share_the_cores(backend: str) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        cores = min(8, joblib.cpu_count())
        with joblib.parallel_config(backend):
            found = in_jobs(
                lambda _: torch.get_num_threads(), [(k,) for k in range(3)], 3, name="net"
            )
        assert found == [max(1, cores // 3)] * 3
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


class Warns(Callback):
    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        warnings.warn("of a callback", FutureWarning, stacklevel=2)


def test_warnings_of_jobs_come_once_and_from_the_line_of_the_fit() -> None:
    def fit(n_jobs: int) -> list[warnings.WarningMessage]:
        net = own_net(callbacks=[("warns", Warns())], lr=1e6)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            SubnetLaplaceRegressor(net, cv=3, n_jobs=n_jobs, **LAPLACE).fit(X, Y)
        return caught

    serial, apart = fit(1), fit(2)
    assert {w.category for w in serial} == {w.category for w in apart}
    told = [w for w in apart if w.category is FutureWarning]
    assert len(told) == 1 and told[0].filename == __file__
    assert any(issubclass(w.category, ConvergenceWarning) for w in apart)


def test_a_warning_that_is_an_error_is_one_in_jobs() -> None:
    net = own_net(callbacks=[("warns", Warns())])
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        with pytest.raises(FutureWarning, match="of a callback"):
            SubnetLaplaceRegressor(net, cv=3, n_jobs=2, **LAPLACE).fit(X, Y)


class Fails(Callback):
    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        raise RuntimeError("the third epoch is cursed")


def test_an_error_of_a_job_leaves_the_former_fit() -> None:
    model = SubnetLaplaceRegressor(own_net(), cv=2, n_jobs=2, **LAPLACE).fit(X, Y)
    before = model.predict(X)
    model.set_params(net=own_net(callbacks=[("fails", Fails())]))
    with pytest.raises(RuntimeError, match="cursed"):
        model.fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), before)


def test_no_jobs_is_refused() -> None:
    with pytest.raises(ValueError, match="n_jobs"):
        MAPClassifier(n_jobs=0, cv=None).fit(X, LABELS)


def test_fits_in_threads_leave_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before, filters = torch.get_num_threads(), list(warnings.filters)
    found: list[Any] = []

    def fit() -> None:
        with joblib.parallel_config("threading"):
            found.append(KINDS["own"](2).fit(X, Y))

    threads = [threading.Thread(target=fit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serial = KINDS["own"](1).fit(X, Y)
    assert len(found) == 3
    for model in found:
        assert_same(model, serial)
    assert torch.get_num_threads() == before and warnings.filters == filters


SCRIPT = """
import signal, sys
import numpy as np
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn
from sksubnet import SubnetLaplaceRegressor

class OfMain(nn.Module):
    def __init__(self, n_features=3, n_outputs=1):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)
    def forward(self, X):
        return self.layer(X)

class Tells(Callback):
    def on_epoch_end(self, net, **kwargs):
        open(sys.argv[1], "a").close()

if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(60, 3))
    net = NeuralNetRegressor(OfMain, max_epochs=3, train_split=None, verbose=0)
    model = SubnetLaplaceRegressor(net, cv=2, n_jobs=2, subnetwork_size=2, random_state=0)
    print(model.fit(X, X[:, 0]).predict(X).sum(), flush=True)
    endless = net.set_params(max_epochs=10**9, callbacks=[("tells", Tells())])
    try:
        model.set_params(net=endless).fit(X, X[:, 0])
    except KeyboardInterrupt:
        print(model.predict(X).sum(), torch.get_num_threads(), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_in_a_script_stops_all_jobs_and_leaves_the_former_fit(tmp_path: Path) -> None:
    script, sign = tmp_path / "script.py", tmp_path / "sign"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(sign)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    first, second = out.splitlines()
    assert second.split()[0] == first
    assert process.returncode == 0


@pytest.fixture(autouse=True, scope="module")
def workers_that_end() -> Iterator[None]:
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
