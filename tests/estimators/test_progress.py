"""What a fit tells of itself: to scikit-learn's callbacks, and by its bar and its table."""

import importlib.util
import io
import pickle
import sys
import threading
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from user_nets import regressor_net

import sksubnet
from sksubnet import (
    DeepEnsembleRegressor,
    MAPRegressor,
    SubnetLaplaceRegressor,
    SubnetLaplaceRegressorCV,
    SWAGRegressor,
    TabularNet,
    VOGNRegressor,
    progress,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.sin(X[:, 0]) + X[:, 1] + 0.1 * RNG.normal(size=60)
QUICK = TabularNet(hidden=(8,), max_epochs=3)
LAPLACE = {"subnetwork_size": 8, "noise": "constant", "random_state": 0}

with_callbacks = pytest.mark.skipif(
    not hasattr(MAPRegressor, "set_callbacks"), reason="this scikit-learn has no callbacks"
)


class Recorder:
    """Keeps what it is told: the event and the names from the fit down to the task."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[tuple[str, str]] = []
        self.threads: set[int] = set()
        self.rows: Any = None
        self.stop_at = stop_at

    def _note(self, event: str, context: Any) -> None:
        path, node = [], context
        while node is not None:
            path.append(f"{node.task_name} {node.task_id}" if node.parent else node.task_name)
            node = node.parent
        self.events.append((event, "/".join(reversed(path))))
        self.threads.add(threading.get_ident())

    def setup(self, estimator: Any, context: Any) -> None:
        self._note("setup", context)

    def teardown(self, estimator: Any, context: Any) -> None:
        self._note("teardown", context)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self._note("begin", context)

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, X: Any = None, metadata: Any = None
    ) -> bool:
        self._note("end", context)
        if context.parent is None:
            self.rows = X, metadata
        return self.stop_at == context.task_id and context.task_name == "epoch"

    def begun(self) -> list[str]:
        return [path for event, path in self.events if event == "begin"]

    def kinds(self) -> list[str]:
        """Names of the tasks without epochs, as they begin."""
        names = [path.rsplit("/")[-1].split(" ")[0] for path in self.begun()]
        return [name for name in names if name != "epoch"]


class Propagated(Recorder):
    """The same, which meta-estimators hand on."""

    max_propagation_depth = None


def assert_nested(events: list[tuple[str, str]]) -> None:
    """Every task ends once, after its parts and before its whole."""
    assert events[0][0] == "setup" and events[-1][0] == "teardown"
    open_tasks: list[str] = []
    for event, path in events[1:-1]:
        if event == "begin":
            assert path.rpartition("/")[0] == (open_tasks[-1] if open_tasks else "")
            open_tasks.append(path)
        else:
            assert open_tasks.pop() == path
    assert not open_tasks


OF_A_NET = ["net", "select", "curvature"]
TASKS: dict[str, tuple[Any, list[str]]] = {
    "one net": (
        lambda: SubnetLaplaceRegressor(QUICK, cv=None, **LAPLACE),
        ["fit", "MAP", "net", "posterior", *OF_A_NET, "tune"],
    ),
    "folds": (
        lambda: SubnetLaplaceRegressor(QUICK, cv=2, refit=True, **LAPLACE),
        [
            *("fit", "MAP", "net", "net", "posterior", *OF_A_NET, *OF_A_NET, "tune"),
            *("refit", "MAP", "net", "posterior", *OF_A_NET),
        ],
    ),
    "noise net": (
        lambda: SubnetLaplaceRegressor(QUICK, cv=None, **LAPLACE | {"noise": "input"}),
        ["fit", "MAP", "net", "noise", "net", "posterior", *OF_A_NET, "tune"],
    ),
    "MAP": (
        lambda: MAPRegressor(QUICK, noise=1.0, cv=2, random_state=0),
        ["fit", "MAP", "net", "net", "draws", "net", "net"],
    ),
    "SWAG": (
        lambda: SWAGRegressor(QUICK, noise=1.0, n_snapshots=2, n_draws=2, random_state=0),
        ["fit", "MAP", "net", "draws", "net"],
    ),
    "VOGN": (
        lambda: VOGNRegressor(QUICK, noise=1.0, n_epochs=2, n_draws=2, random_state=0),
        ["fit", "draws", "net"],
    ),
    "members": (
        lambda: DeepEnsembleRegressor(QUICK, noise=1.0, n_members=2, random_state=0),
        ["fit", "member", "member"],
    ),
    "user's net": (
        lambda: SubnetLaplaceRegressor(regressor_net(max_epochs=2), cv=None, **LAPLACE),
        ["fit", "MAP", "net", "posterior", *OF_A_NET, "tune"],
    ),
    "sizes": (
        lambda: SubnetLaplaceRegressorCV(
            SubnetLaplaceRegressor(QUICK, cv=None, **LAPLACE), subnetwork_sizes=[3, 5], cv=2
        ),
        ["fit", "search", "refit"],
    ),
}


@with_callbacks
@pytest.mark.parametrize("name", TASKS)
def test_tasks_of_a_fit_in_their_order(name: str) -> None:
    make, expected = TASKS[name]
    recorder = Recorder()
    make().set_callbacks(recorder).fit(X, Y)
    assert_nested(recorder.events)
    assert recorder.kinds() == expected


@with_callbacks
def test_epochs_are_those_of_the_history() -> None:
    recorder = Recorder()
    net = TabularNet(hidden=(8,), lr=0.05, max_epochs=60, patience=1)
    model = MAPRegressor(net, cv=3, random_state=0).set_callbacks(recorder).fit(X, Y)
    lengths = [len(fold.net.history) for fold in model.folds_]
    assert min(lengths) < 60  # early stopping ended them
    for k, n_epochs in enumerate(lengths):
        for event in ("begin", "end"):
            path = f"fit/MAP 0/net {k}/epoch "
            told = [p for e, p in recorder.events if e == event and p.startswith(path)]
            assert told == [f"{path}{i}" for i in range(n_epochs)]
    assert "epoch_tasks" not in dict(model.folds_[0].net.callbacks_)


@with_callbacks
def test_a_callback_stops_the_epochs_of_each_net() -> None:
    model = MAPRegressor(TabularNet(hidden=(8,), max_epochs=9), cv=2, random_state=0)
    model.set_callbacks(Recorder(stop_at=3)).fit(X, Y)
    assert [len(fold.net.history) for fold in model.folds_] == [4, 4]


@with_callbacks
def test_callbacks_see_the_rows_and_do_not_change_the_fit() -> None:
    weights = np.arange(60) % 3
    recorder = Recorder()
    watched = SubnetLaplaceRegressor(QUICK, cv=2, **LAPLACE).set_callbacks(recorder)
    plain = clone(watched).set_callbacks()
    watched.fit(X, Y, sample_weight=weights)
    np.testing.assert_array_equal(watched.predict(X), plain.fit(X, Y, weights).predict(X))
    rows, metadata = recorder.rows
    assert rows is X and metadata["sample_weight"] is weights


@with_callbacks
@pytest.mark.parametrize("step", ["_train", "_select", "_tune", "_start_fit"])
def test_teardown_after_an_exception(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    model = SubnetLaplaceRegressor(QUICK, cv=None, **LAPLACE).fit(X, Y).set_callbacks(recorder)
    before = model.predict(X)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), step, broken)
        with pytest.raises(RuntimeError, match="broken"):
            model.fit(X, Y)
    assert recorder.events[-1] == ("teardown", "fit")
    assert ("end", "fit") not in recorder.events
    np.testing.assert_array_equal(model.predict(X), before)
    assert progress.CURRENT.get() is None
    of_callbacks = {name for name in vars(model) if "callback" in name}
    assert of_callbacks == {"_skl_callbacks"}
    recorder.events.clear()
    model.fit(X, Y)
    assert_nested(recorder.events)


@with_callbacks
def test_clone_and_pickle_keep_callbacks_and_files_do_not(tmp_path: Path) -> None:
    recorder = Recorder()
    model = MAPRegressor(QUICK, random_state=0).set_callbacks(recorder)
    assert clone(model)._skl_callbacks == [recorder]
    for fitted in (model, model.fit(X, Y)):
        copy = pickle.loads(pickle.dumps(fitted))
        (own,) = copy._skl_callbacks
        assert own.events == recorder.events and own is not recorder
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    assert_nested(recorder.events)
    pytest.importorskip("safetensors")
    model.save(tmp_path / "model")
    assert not hasattr(sksubnet.load(tmp_path / "model"), "_skl_callbacks")


@with_callbacks
@pytest.mark.parametrize("backend", ["loky", "threading", "sequential"])
def test_jobs_are_told_of_from_where_they_are_handed_out(backend: str) -> None:
    recorder = Recorder()
    model = SubnetLaplaceRegressor(QUICK, cv=2, **LAPLACE).set_callbacks(recorder)
    serial = clone(model).set_callbacks().fit(X, Y)
    with joblib.parallel_config(backend, n_jobs=2):
        np.testing.assert_array_equal(model.fit(X, Y).predict(X), serial.predict(X))
    assert recorder.threads == {threading.get_ident()}
    for task in ("MAP 0", "posterior 1"):
        for event in ("begin", "end"):
            told = [p for e, p in recorder.events if e == event and p.startswith(f"fit/{task}/")]
            nets = [path for path in told if path.count("/") == 2]
            assert nets == [f"fit/{task}/net {k}" for k in range(2)]
    assert recorder.events[-2:] == [("end", "fit"), ("teardown", "fit")]


@with_callbacks
def test_fits_in_threads_each_tell_their_own_callbacks() -> None:
    recorders = [Recorder() for _ in range(4)]
    models = [MAPRegressor(QUICK, cv=2, random_state=0).set_callbacks(r) for r in recorders]
    threads = [threading.Thread(target=model.fit, args=(X, Y)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for recorder in recorders:
        assert_nested(recorder.events)
        assert recorder.events == recorders[0].events


@with_callbacks
def test_meta_estimators_hand_callbacks_on() -> None:
    recorder = Propagated()
    model = SubnetLaplaceRegressor(QUICK, cv=None, **LAPLACE)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {"subnetlaplaceregressor__subnetwork_size": [3, 5]},
        cv=2,
    )
    search.set_callbacks(recorder).fit(X, Y)
    assert_nested(recorder.events)
    assert recorder.kinds().count("tune") == 5  # 2 x 2 fits and the last
    assert not hasattr(search.best_estimator_[-1], "_parent_callback_ctx")

    recorder = Propagated()
    DeepEnsembleRegressor(model, n_members=2, random_state=0).set_callbacks(recorder).fit(X, Y)
    assert_nested(recorder.events)
    assert recorder.kinds().count("tune") == 2
    assert "fit/fit 1/MAP 0/net 0/epoch 2" in recorder.begun()

    recorder = Propagated()
    SubnetLaplaceRegressorCV(model, subnetwork_sizes=[3, 5], cv=2).set_callbacks(recorder).fit(X, Y)
    assert_nested(recorder.events)
    assert recorder.kinds().count("MAP") == 3  # 2 folds and the last fit
    assert recorder.kinds().count("tune") == 5


@with_callbacks
def test_scikit_learn_s_own_callbacks() -> None:
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar, ScoringMonitor

    monitor = ScoringMonitor(scoring="r2")
    model = SubnetLaplaceRegressor(QUICK, cv=2, n_jobs=2, **LAPLACE)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_callbacks(monitor, ProgressBar()).fit(X, Y)
        search = GridSearchCV(MAPRegressor(QUICK, random_state=0), {"noise": [1.0]}, cv=2)
        search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, Y)
    # Nothing can be predicted before the end.
    (row,) = monitor.get_logs().data
    assert row["task_name"] == "fit"
    assert row["r2"] == r2_score(Y, model.predict(X))


@pytest.mark.parametrize("make", [make for make, _ in list(TASKS.values())[:-1]])
def test_verbose_1_is_one_bar_that_ends_full(make: Any) -> None:
    out, err = io.StringIO(), io.StringIO()
    model = make().set_params(verbose=1)
    with redirect_stdout(out), redirect_stderr(err):
        model.fit(X, Y)
    assert out.getvalue() == ""
    shown = [line for line in err.getvalue().split("\r") if line.strip()]
    assert all(line.startswith((type(model).__name__, " ")) for line in shown)
    shares = [int(line.split("%")[0].split()[-1]) for line in shown]
    assert shares == sorted(shares) and shares[-1] == 100


@with_callbacks
def test_the_bar_needs_no_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a scikit-learn that has none, where nobody is told."""
    err = io.StringIO()
    model = DeepEnsembleRegressor(QUICK, noise=1.0, n_members=2, random_state=0)
    expected = model.set_callbacks(recorder := Recorder()).fit(X, Y).predict(X)
    told = len(recorder.events)
    monkeypatch.delattr(progress.CallbackSupportMixin, "_init_callback_context")
    with redirect_stderr(err):
        found = model.set_params(verbose=1).fit(X, Y).predict(X)
    np.testing.assert_array_equal(found, expected)
    assert len(recorder.events) == told > 0
    assert "100%" in err.getvalue() and "member 2/2" in err.getvalue()


def test_verbose_2_is_the_table_and_0_is_silent() -> None:
    for verbose in (0, 2):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            model = SubnetLaplaceRegressor(QUICK, cv=2, verbose=verbose, **LAPLACE).fit(X, Y)
        assert err.getvalue() == ""
        assert out.getvalue().count("train_loss") == (2 if verbose else 0)
        lines = [line for line in out.getvalue().splitlines() if line.strip()[:1].isdigit()]
        n_epochs = sum(len(fold.net.history) for fold in model.folds_)
        assert len(lines) == (n_epochs if verbose else 0)


def test_no_warning_in_a_notebook_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    find = importlib.util.find_spec
    found = lambda name: None if name == "ipywidgets" else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", found)
    spec = importlib.util.spec_from_file_location("anew", progress.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "anew", module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec.loader.exec_module(module)
        list(module.bar_over([1], "some", shown=False))


@pytest.mark.parametrize("n_parts", range(1, 25))
def test_parts_of_a_bar_are_never_more_than_all_of_it(n_parts: int) -> None:
    err = io.StringIO()
    with redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        with progress.fitting(MAPRegressor(), X, Y, None, n_parts, shown=True):
            for _ in range(n_parts):
                with progress.task("part", 3):
                    for _ in range(3):
                        with progress.task("step"):
                            pass
    assert "100%" in err.getvalue()
