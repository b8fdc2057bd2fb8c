"""The same results on a GPU, where there is one."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

import sksubnet.posterior.kinds
from sksubnet import MAPClassifier, SubnetLaplaceClassifier, SubnetLaplaceRegressor, SWAGClassifier
from sksubnet.selection.scores import SCORES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def on_both_devices(task, **options):
    """One trained net on the CPU and the GPU, and the two estimators fitted around it."""
    classify = task == "classification"
    X, y = (load_iris if classify else load_diabetes)(return_X_y=True)
    net_class = NeuralNetClassifier if classify else NeuralNetRegressor
    kind = SubnetLaplaceClassifier if classify else SubnetLaplaceRegressor
    n_outputs = 3 if classify else 1
    torch.manual_seed(0)
    state = nn.Sequential(
        nn.Linear(X.shape[1], 16), nn.Tanh(), nn.Linear(16, n_outputs)
    ).state_dict()
    fitted = []
    for device in ("cpu", "cuda"):
        module = nn.Sequential(nn.Linear(X.shape[1], 16), nn.Tanh(), nn.Linear(16, n_outputs))
        module.load_state_dict(state)
        criterion = {"criterion": nn.CrossEntropyLoss} if classify else {}
        net = net_class(module, device=device, **criterion).initialize()
        fitted.append(kind(FrozenEstimator(net), random_state=0, **options).fit(X, y))
    return X, *fitted


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("size", [20, "all"])
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_gpu_equals_cpu(task, size, covariance):
    options = {"selection": "magnitude", "subnetwork_size": size, "covariance": covariance}
    X, cpu, gpu = on_both_devices(task, prior_precision=0.5, **options)
    np.testing.assert_array_equal(cpu.subnetwork_.indices, gpu.subnetwork_.indices)
    first, second = cpu.predictive(X), gpu.predictive(X)
    np.testing.assert_allclose(second.mean, first.mean, rtol=1e-8)
    np.testing.assert_allclose(second.covariance, first.covariance, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("selection", [*SCORES, "greedy"])
def test_every_strategy_runs_on_the_device_of_the_net(selection):
    X, _, gpu = on_both_devices("classification", selection=selection, subnetwork_size=20)
    assert np.allclose(gpu.predict_proba(X).sum(axis=1), 1)
    assert gpu.posterior_.mean.device.type == "cpu"


def test_many_weights_on_the_gpu(monkeypatch):
    monkeypatch.setattr(sksubnet.posterior.kinds, "EIGEN_LIMIT", 10)
    X, cpu, gpu = on_both_devices(
        "regression", selection="magnitude", subnetwork_size=50, prior_precision=0.5, noise=50.0
    )
    np.testing.assert_allclose(
        gpu.predictive(X).covariance, cpu.predictive(X).covariance, rtol=1e-6
    )


WITHOUT_A_GPU = """
import pickle, sys
model, X, expected = pickle.load(open(sys.argv[1], "rb"))
assert abs(model.predict_proba(X) - expected).max() < 1e-8
"""


def test_pickle_predicts_the_same_without_a_gpu(tmp_path):
    X, _, gpu = on_both_devices("classification", selection="random")
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps((gpu, X, gpu.predict_proba(X))))
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", WITHOUT_A_GPU, path], check=True, env=hidden)


def test_pickle_predicts_the_same():
    X, _, gpu = on_both_devices("classification", selection="random")
    again = pickle.loads(pickle.dumps(gpu))
    np.testing.assert_allclose(again.predict_proba(X), gpu.predict_proba(X), rtol=1e-10)


def test_baselines_start_from_the_same_net():
    X, cpu, gpu = on_both_devices("classification", selection="random", subnetwork_size=20)
    y = load_iris(return_X_y=True)[1]
    first, second = (MAPClassifier(FrozenEstimator(m.net_)).fit(X, y) for m in (cpu, gpu))
    np.testing.assert_allclose(second.predict_proba(X), first.predict_proba(X), rtol=1e-8)
    swag = SWAGClassifier(FrozenEstimator(gpu.net_), n_draws=3, random_state=0).fit(X, y)
    np.testing.assert_allclose(swag.predict_proba(X).sum(axis=1), 1)
