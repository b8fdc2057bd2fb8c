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
@pytest.mark.parametrize("weights", [None, WEIGHTS])
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
    none = parts[parts["a"] > 1.0]  # some partitions may be empty, and their lengths are unknown
    assert_allclose(predict(apart, none).compute(), apart.predict(frame[X[:, 0] > 1.0]), rtol=1e-12)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_predictions_are_lazy_and_those_of_the_estimator(of_classes, method):
    model = SubnetLaplaceClassifier(of_classes, prior_precision=1.0, **LAPLACE).fit(X, LABELS)
    found = predict(model, blocks(X, 400), method)
    expected = getattr(model, method)(X)
    assert isinstance(found, da.Array) and found.shape == expected.shape
    assert found.chunks[0] == (400, 400, 100)
    assert_array_equal(found.compute(), expected)


def test_what_needs_all_rows_is_refused(of_targets):
    X_blocks, y_blocks = blocks(X), blocks(Y)
    with pytest.raises(ValueError, match="cv=3"):
        fit(SubnetLaplaceRegressor(cv=3), X_blocks, y_blocks)
    with pytest.raises(TypeError, match="MAPRegressor"):
        fit(MAPRegressor(), X_blocks, y_blocks)
    with pytest.raises(TypeError, match="ndarray is no dask array"):
        fit(SubnetLaplaceRegressor(), X, y_blocks)
    with pytest.raises(ValueError, match="rows"):
        fit(SubnetLaplaceRegressor(), X_blocks, y_blocks[:-1])
    model = SubnetLaplaceRegressor(of_targets, prior_precision=1.0, noise=1.0, **LAPLACE)
    with pytest.raises(ValueError, match="return_cov"):
        predict(model.fit(X, TARGETS), X_blocks, return_cov=True)
    with pytest.raises(ValueError, match="NaN"):
        fit(model, blocks(np.where(np.arange(900) == 800, np.nan, X.T).T), blocks(TARGETS), **FEW)


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
