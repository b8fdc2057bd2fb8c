"""What memory there is, in a container and out of one, and what is refused for want of it."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from frozen_models import NOISE, X_NEW, regression_rows, regressor
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris
from user_nets import assert_refused

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.posterior import KernelPosterior, memory
from sksubnet.posterior.memory import available_memory

GIB = 2**30
FREE = 32 * GIB
UNLIMITED_V1 = 9223372036854771712

V1 = "9:name=systemd:/\n4:memory:{}\n1:cpu,cpuacct:/\n"
HYBRID = "4:cpu,memory:{}\n0::/user.slice\n"
V2 = "0::{}\n"


def v1(limit: int, used: int, cache: int = 0) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": f"cache 5\ninactive_file 7\ntotal_inactive_file {cache}\n",
    }


def v2(limit: int | str, used: int, cache: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon 5\nfile 9\ninactive_file {cache}\n",
    }


UNIFIED, CONTROLLER = "sys/fs/cgroup", "sys/fs/cgroup/memory"
MACHINES = {
    "no groups": (None, {}, FREE),
    "v1": (V1.format("/"), {CONTROLLER: v1(3 * GIB, GIB)}, 2 * GIB),
    "v1 without a limit": (V1.format("/"), {CONTROLLER: v1(UNLIMITED_V1, GIB)}, FREE),
    "v1, its group below": (
        V1.format("/docker/a1"),
        {CONTROLLER: v1(UNLIMITED_V1, 9 * GIB), f"{CONTROLLER}/docker/a1": v1(GIB, GIB // 4)},
        3 * GIB // 4,
    ),
    "v1, told the path of the host": (
        V1.format("/docker/a1"),
        {CONTROLLER: v1(GIB, GIB // 2)},
        GIB // 2,
    ),
    "v1, the tightest is around it": (
        V1.format("/pod/a1"),
        {
            CONTROLLER: v1(UNLIMITED_V1, 0),
            f"{CONTROLLER}/pod": v1(2 * GIB, GIB),
            f"{CONTROLLER}/pod/a1": v1(8 * GIB, GIB),
        },
        GIB,
    ),
    "v1 beside v2": (HYBRID.format("/job"), {f"{CONTROLLER}/job": v1(5 * GIB, GIB)}, 4 * GIB),
    "v1, files in the cache make room": (
        V1.format("/"),
        {CONTROLLER: v1(3 * GIB, 3 * GIB, cache=2 * GIB)},
        2 * GIB,
    ),
    "v2": (V2.format("/"), {UNIFIED: v2(GIB, GIB // 2)}, GIB // 2),
    "v2 without a limit": (V2.format("/"), {UNIFIED: v2("max", 9 * GIB)}, FREE),
    "v2, its group below": (
        V2.format("/user.slice/job.scope"),
        {f"{UNIFIED}/user.slice": v2("max", GIB), f"{UNIFIED}/user.slice/job.scope": v2(GIB, 0)},
        GIB,
    ),
    "v2, the tightest is around it": (
        V2.format("/a/b/c"),
        {
            f"{UNIFIED}/a": v2(9 * GIB, 8 * GIB),
            f"{UNIFIED}/a/b": v2(4 * GIB, GIB),
            f"{UNIFIED}/a/b/c": v2("max", GIB),
        },
        GIB,
    ),
    "v2, told a path outside": (V2.format("/../other"), {UNIFIED: v2(GIB, 0)}, GIB),
    "v2, files in the cache make room": (
        V2.format("/"),
        {UNIFIED: v2(GIB, GIB, cache=GIB // 4)},
        GIB // 4,
    ),
    "above its limit": (V2.format("/"), {UNIFIED: v2(GIB, 2 * GIB)}, 0),
    "without statistics": (
        V2.format("/"),
        {UNIFIED: {**v2(GIB, 0), "memory.stat": "odd"}},
        GIB,
    ),
}


@pytest.mark.parametrize(("groups", "files", "expected"), MACHINES.values(), ids=MACHINES)
def test_limits_of_containers(groups, files, expected, tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: {64 * 2**20} kB\nMemAvailable:   {FREE // 1024} kB\n"
    )
    if groups is not None:
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for folder, contents in files.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (tmp_path / folder / name).write_text(text)
    assert available_memory(tmp_path) == expected


def test_without_linux_all_memory_counts_where_the_system_tells(
    tmp_path: Path, monkeypatch
) -> None:
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert available_memory(tmp_path) == 4_096_000

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert available_memory(tmp_path) is None


def test_this_machine_has_some_memory() -> None:
    assert 2**20 < available_memory() < 2**50


def fitted(kind: str):
    X, y = regression_rows(60)
    if kind == "folds":
        return SubnetLaplaceRegressor(cv=2, subnetwork_size=9, random_state=0, noise=NOISE).fit(
            X, y
        )
    return regressor(**({"covariance": "diag"} if kind == "diagonal" else {})).fit(X, y)


@pytest.mark.parametrize("kind", ["one", "diagonal", "folds"])
def test_covariance_between_more_rows_than_fit(kind, monkeypatch) -> None:
    reg = fitted(kind)
    rows = np.tile(X_NEW, (20, 1))[:100]
    expected = reg.predict(rows[:7], return_cov=True)[1]
    # 100 rows and two targets: four arrays of 2 x 100 x 100 numbers of 8 bytes
    monkeypatch.setattr(memory, "available_memory", lambda: 4 * 8 * 2 * 100**2 - 1)
    assert_refused(
        lambda: reg.predict(rows, return_cov=True),
        "between 100 rows takes 0.0 GiB",
        "at most 99 rows at once",
        "return_std",
        "sample_y",
    )
    assert reg.predict(rows[:99], return_cov=True)[1].shape == (99, 99, 2)
    assert_allclose(reg.predict(rows[:7], return_cov=True)[1], expected, rtol=1e-9)
    assert reg.sample_y(rows, 3).shape == (100, 2, 3)
    assert reg.predict(rows, return_std=True)[1].shape == (100, 2)


def test_size_in_the_message(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 12 * GIB)
    largest = math.isqrt(12 * GIB // 32)
    assert_refused(
        lambda: memory.check_joint_covariance_fits(44_000, 1),
        "between 44000 rows takes 14.4 GiB",
        "12.0 GiB are available",
        f"at most {largest} rows",
    )
    memory.check_joint_covariance_fits(largest, 1)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    memory.check_joint_covariance_fits(44_000, 1)


def test_weights_are_kept_where_rows_would_not_fit(monkeypatch) -> None:
    X, y = load_iris(return_X_y=True)
    X, y = X[::3][:49], y[::3][:49]
    options = {"subnetwork_size": 100, "prior_precision": 1.0, "cv": None, "random_state": 0}
    by_rows = SubnetLaplaceClassifier(**options).fit(X, y)
    n_weights, n_rows = 100, 2 * len(X)  # of Jacobian
    assert n_rows < n_weights
    # three matrices of the weights; those of the rows would fit, without what is kept of each
    room = 24 * n_weights**2
    monkeypatch.setattr(memory, "available_memory", lambda: room)
    by_weights = SubnetLaplaceClassifier(**options).fit(X, y)
    assert isinstance(by_rows.posterior_, KernelPosterior)
    assert not isinstance(by_weights.posterior_, KernelPosterior)
    found, expected = (m.predictive(X).covariance for m in (by_weights, by_rows))
    assert_allclose(found, expected, rtol=1e-6)
    assert by_rows.held_training_data_ != by_weights.held_training_data_
