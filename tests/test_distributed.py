"""Fits and predictions on dask collections, against those of the same rows in one place."""

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import PowerTransformer
from user_nets import binary_net, classifier_net, regressor_net

from sksubnet import MAPRegressor, SubnetLaplaceClassifier, SubnetLaplaceRegressor

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
pytest.importorskip("distributed")

from sksubnet.distributed import fit, predict  # noqa: E402
from sksubnet.estimators.blocks import Split  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(900, 3))
Y = np.sin(2 * X[:, 0]) + X[:, 1] + 0.2 * RNG.normal(size=900)
TARGETS = np.column_stack([Y, X[:, 2] - Y])
LABELS = np.array(["low", "middle", "high"])[np.digitize(Y, [-0.7, 0.7])]
CODES = np.unique(LABELS, return_inverse=True)[1]
WEIGHTS = RNG.integers(0, 3, size=900).astype(float)
LATE = np.where(np.arange(900) < 500, 0, WEIGHTS)
HOLE = np.where(np.arange(2700).reshape(900, 3) == 2401, np.nan, X)

LAPLACE = {"subnetwork_size": 20, "selection": "magnitude", "random_state": 0}
FEW = {"sample_rows": 100}


def blocks(values: np.ndarray, rows: int = 250) -> Any:
    return da.from_array(values, chunks=(rows, *values.shape[1:]))


def frozen(net: Any, targets: np.ndarray) -> Any:
    return FrozenEstimator(net.fit(X.astype("float32"), targets))


@pytest.fixture(scope="module")
def of_targets() -> Any:
    net = regressor_net(module__n_features=3, module__n_outputs=2)
    return frozen(net, TARGETS.astype("float32"))


@pytest.fixture(scope="module")
def of_classes() -> Any:
    return frozen(classifier_net(module__n_features=3, module__n_outputs=3), CODES)


def assert_same_posterior(one: Any, other: Any) -> None:
    assert_allclose(one.prior_precision_, other.prior_precision_, rtol=1e-8)
    assert_array_equal(one.subnetwork_.indices, other.subnetwork_.indices)
    first, second = one.posterior_, other.posterior_
    assert_allclose(first.mean, second.mean, rtol=1e-12)
    assert_allclose(first.eigenvalues, second.eigenvalues, rtol=1e-8, atol=1e-8)
    evidence = [model.log_marginal_likelihood() for model in (one, other)]
    assert_allclose(*evidence, rtol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"prior_precision": "evidence"},
        {"prior_precision": "evidence", "covariance": "diag"},
        {"prior_precision": 3.0, "noise": 0.2, "normalize_y": False},
        {"prior_precision": "evidence", "dtype": "float32"},
    ],
)
@pytest.mark.parametrize("weights", [None, WEIGHTS, LATE], ids=["ones", "some 0", "blocks of 0"])
def test_a_regressor_is_that_of_rows_in_one_place(of_targets, options, weights):
    model = SubnetLaplaceRegressor(of_targets, **LAPLACE, **options)
    local = model.fit(X, TARGETS, weights)
    apart = fit(
        model, blocks(X), blocks(TARGETS), None if weights is None else blocks(weights), **FEW
    )
    tolerance = 1e-4 if "dtype" in options else 1e-8
    for one, two in zip(*(m.predict(X[:50], return_std=True) for m in (local, apart)), strict=True):
        assert_allclose(one, two, rtol=tolerance)
    if "dtype" not in options:
        assert_same_posterior(local, apart)


@pytest.mark.parametrize(
    "class_weight", [None, "balanced", {"low": 2.0, "middle": 1.0, "high": 0.5}]
)
def test_a_classifier_is_that_of_rows_in_one_place(of_classes, class_weight):
    options = {"prior_precision": "evidence", "class_weight": class_weight}
    model = SubnetLaplaceClassifier(of_classes, **LAPLACE, **options)
    local = model.fit(X, LABELS, WEIGHTS)
    apart = fit(model, blocks(X), blocks(LABELS), blocks(WEIGHTS), **FEW)
    assert_allclose(apart.predict_proba(X), local.predict_proba(X), rtol=1e-8)
    assert_same_posterior(local, apart)
    assert apart.get_params()["class_weight"] == class_weight


def test_the_net_is_trained_on_all_blocks_and_scales_by_all_targets():
    options = {"prior_precision": 1.0, "noise": 0.2, **LAPLACE}
    net = regressor_net(max_epochs=60, train_split=None, batch_size=50)
    model = fit(SubnetLaplaceRegressor(net, **options), blocks(X), blocks(Y), **FEW)
    assert_allclose(model._y_mean, [Y.mean()], rtol=1e-10)
    assert_allclose(model._y_scale, [Y.std()], rtol=1e-10)
    local = SubnetLaplaceRegressor(net, **options).fit(X, Y)
    assert model.score(X, Y) > local.score(X, Y) - 0.05
    again = fit(SubnetLaplaceRegressor(net, **options), blocks(X), blocks(Y), **FEW)
    assert_array_equal(model.predict(X), again.predict(X))


def test_held_out_rows_tell_the_noise_and_are_in_no_sum(of_targets):
    model = SubnetLaplaceRegressor(of_targets, prior_precision=2.0, **LAPLACE)
    apart = fit(model, blocks(X), blocks(TARGETS), sample_rows=900)
    split = Split(apart._seed, model.validation_fraction, 1.0)
    starts = range(0, 900, 250)
    parts = [split.of(k, min(250, 900 - start)) for k, start in enumerate(starts)]
    train, held_out = (
        np.concatenate([start + part[side] for start, part in zip(starts, parts, strict=True)])
        for side in (0, 1)
    )
    assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(900))
    assert 170 <= len(held_out) <= 190
    local = model.set_params(noise=apart.noise_std_).fit(X[train], TARGETS[train])
    for one, two in zip(*(m.predict(X, return_std=True) for m in (local, apart)), strict=True):
        assert_allclose(one, two, rtol=1e-8)
    residuals = apart.predict(X[held_out]) - TARGETS[held_out]
    assert_allclose(apart.noise_std_, residuals.std(axis=0), rtol=0.1)


def test_the_default_net_and_rare_classes():
    rare = np.where(np.arange(900) == 777, "rare", LABELS)
    model = SubnetLaplaceClassifier(random_state=0, subnetwork_size=20)
    apart = fit(model, blocks(X), blocks(rare), **FEW)
    assert_array_equal(apart.classes_, ["high", "low", "middle", "rare"])
    assert apart.score(X, rare) > 0.85
    binary = fit(
        SubnetLaplaceClassifier(binary_net(), **LAPLACE), blocks(X), blocks(LABELS == "low"), **FEW
    )
    assert binary.score(X, LABELS == "low") > 0.8


def test_frames_come_and_arrays_go(of_targets):
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    frame["kind"] = pandas.Categorical(np.where(X[:, 0] > 0, "plus", "minus"))
    model = SubnetLaplaceRegressor(random_state=0, subnetwork_size=20)
    parts = dd.from_pandas(frame, npartitions=4)
    y = dd.from_pandas(pandas.Series(Y), npartitions=4)
    apart = fit(model, parts, y, **FEW)
    assert list(apart.feature_names_in_) == list(frame.columns)
    mean, std = predict(apart, parts, return_std=True)
    assert isinstance(mean, da.Array)
    expected = apart.predict(frame, return_std=True)
    assert_allclose(mean.compute(), expected[0], rtol=1e-12)
    assert_allclose(std.compute(), expected[1], rtol=1e-12)
    some = parts[parts["a"] > 1.0]  # the lengths of partitions are unknown
    assert_allclose(predict(apart, some).compute(), apart.predict(frame[X[:, 0] > 1.0]), rtol=1e-12)


def test_rows_without_weight_say_nothing():
    targets = np.exp(Y)
    found = []
    for y in (targets, np.where(LATE > 0, targets, -1.0)):  # which has no logarithm
        model = SubnetLaplaceRegressor(
            regressor_net(max_epochs=2), target_transform="log", **LAPLACE
        )
        found.append(fit(model, blocks(X), blocks(y), blocks(LATE), **FEW))
    assert_allclose(found[1]._y_mean, [np.average(Y, weights=LATE)], rtol=1e-10)
    assert_array_equal(*(model.predict(X) for model in found))


def test_empty_partitions_change_nothing(of_targets):
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    parts = dd.from_pandas(
        pandas.DataFrame(np.c_[X, TARGETS], columns=list("abcyz")), npartitions=3
    )
    nowhere = parts[parts["a"] > 100]
    several = dd.concat([nowhere, parts, nowhere])
    rows, targets = several[["a", "b", "c"]], several[["y", "z"]]
    model = SubnetLaplaceRegressor(of_targets, prior_precision="evidence", **LAPLACE)
    local = model.fit(pandas.DataFrame(X, columns=list("abc")), TARGETS)
    apart = fit(model, rows, targets, **FEW)
    assert_same_posterior(local, apart)
    assert_allclose(predict(apart, rows).compute(), local.predict(rows.compute()), rtol=1e-8)
    empty = predict(apart, nowhere[["a", "b", "c"]], return_std=True)
    assert [one.compute().shape for one in empty] == [(0, 2), (0, 2)]


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_predictions_are_lazy_and_those_of_the_estimator(of_classes, method):
    model = SubnetLaplaceClassifier(of_classes, prior_precision=1.0, **LAPLACE).fit(X, LABELS)
    found = predict(model, blocks(X, 400), method)
    expected = getattr(model, method)(X)
    assert isinstance(found, da.Array) and found.shape == expected.shape
    assert found.chunks[0] == (400, 400, 100)
    assert_array_equal(found.compute(), expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": SubnetLaplaceRegressor(cv=3)}, ValueError, "cv=3 is for rows in one place"),
        (
            {"model": SubnetLaplaceRegressor(target_transform=PowerTransformer())},
            ValueError,
            "target_transform is fitted on rows in one place; use 'log' or None",
        ),
        (
            {
                "model": SubnetLaplaceRegressor(target_transform="log", random_state=0),
                "y": blocks(np.where(np.arange(900) == 755, -1.0, np.exp(Y))),
            },
            ValueError,
            "target_transform='log' needs targets above 0, but 1 of the 150 in y are not",
        ),
        ({"model": MAPRegressor()}, TypeError, "estimator is a MAPRegressor"),
        ({"X": X}, TypeError, "ndarray is no dask array"),
        ({"y": blocks(Y[:-1])}, ValueError, "X has 900 rows, but y or sample_weight 899"),
        ({"X": blocks(HOLE)}, ValueError, "NaN"),
        ({"sample_rows": 1}, ValueError, "sample_rows=1 must be at least 2"),
        ({"sample_weight": blocks(-WEIGHTS)}, ValueError, "Negative values in .*sample_weight"),
    ],
)
def test_refused(options, error, message):
    given = {"model": SubnetLaplaceRegressor(regressor_net()), "X": blocks(X), "y": blocks(Y)}
    model, *rows = ({**given, **options}.pop(name) for name in given)
    others = {name: value for name, value in options.items() if name not in given}
    with pytest.raises(error, match=message):
        fit(model, *rows, **{**FEW, **others})


def test_partitions_that_do_not_belong_together_are_refused():
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    model = SubnetLaplaceRegressor(regressor_net())
    rows, targets = dd.from_pandas(pandas.DataFrame(X), npartitions=3), pandas.Series(Y)
    with pytest.raises(ValueError, match="y has 2 blocks, but X has 3; give both the same"):
        fit(model, rows, dd.from_pandas(targets, npartitions=2))
    with pytest.raises(ValueError, match="A block of X has 300 rows, and that of y has 200"):
        fit(model, rows, dd.from_pandas(targets[:600], npartitions=3))


def test_covariances_between_all_rows_are_refused(of_targets):
    model = SubnetLaplaceRegressor(of_targets, prior_precision=1.0, noise=1.0, **LAPLACE)
    with pytest.raises(ValueError, match="return_cov is between all rows"):
        predict(model.fit(X, TARGETS), blocks(X), return_cov=True)


@pytest.mark.parametrize("missing", ["dask", "dask.array"])
def test_dask_that_is_missing_is_named(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'sksubnet\[distributed\]'"):
        fit(SubnetLaplaceRegressor(), X, Y)


def test_dask_is_imported_when_it_is_used():
    code = "import sys, sksubnet, sksubnet.distributed; assert 'dask' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        Client(local) as client,
    ):
        yield client


def slow(block: np.ndarray, sign: str) -> np.ndarray:
    Path(sign).touch()
    time.sleep(0.3)
    return block


def test_a_worker_that_is_killed_changes_nothing(cluster, of_targets, tmp_path):
    model = SubnetLaplaceRegressor(of_targets, prior_precision="evidence", **LAPLACE)
    with dask.config.set(scheduler="synchronous"):
        expected = fit(model, blocks(X, 50), blocks(TARGETS, 50), **FEW)
    sign = tmp_path / "sign"
    rows = blocks(X, 50).map_blocks(slow, str(sign), dtype=X.dtype, meta=X[:0])
    pids = set(cluster.run(os.getpid).values())

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not sign.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(min(pids), 9)

    thread = threading.Thread(target=kill)
    thread.start()
    found = fit(model, rows, blocks(TARGETS, 50), **FEW)
    thread.join()
    assert set(cluster.run(os.getpid).values()) != pids
    assert_array_equal(found.predict(X), expected.predict(X))
    assert_same_posterior(found, expected)
    lazy = predict(found, rows, return_std=True)
    for one, other in zip(dask.compute(*lazy), expected.predict(X, return_std=True), strict=True):
        assert_allclose(one, other, rtol=1e-12)
    pickle.dumps(found)


def test_folds_run_on_the_cluster(cluster):
    model = SubnetLaplaceRegressor(regressor_net(max_epochs=3), cv=3, **LAPLACE).fit(X[:90], Y[:90])
    with joblib.parallel_config("dask"):
        apart = SubnetLaplaceRegressor(regressor_net(max_epochs=3), cv=3, **LAPLACE)
        apart.fit(X[:90], Y[:90])
    for one, two in zip(*(m.predict(X, return_std=True) for m in (model, apart)), strict=True):
        assert_array_equal(one, two)
