"""Graphs in another runtime, against the estimator's own predictions."""

import json
from unittest import mock

import numpy as np
import pytest
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import classifier_net, regressor_net

from sksubnet import (
    DeepEnsembleRegressor,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    TabularNet,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3)) * [1, 50, 0.1] + [0, 1000, 3]
Z = (X - X.mean(0)) / X.std(0)
Y = 100 + 7 * (Z[:, 0] - Z[:, 1]) + RNG.normal(size=90)
LABELS = np.array(["a", "b", "c"])[np.digitize(Z[:, 0] + 0.3 * RNG.normal(size=90), [-0.5, 0.5])]
HOLES = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
HOLES[:, 0] = X[:, 0]
QUICK = TabularNet(hidden=(8,), max_epochs=5)
LAST = {"cv": None, "selection": "last_layer", "random_state": 0}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def run(model, path, rows):
    """Outputs by name, and the metadata."""
    model.export_onnx(path)
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    facts = session.get_modelmeta().custom_metadata_map
    assert list(json.loads(facts["sksubnet.outputs"])) == names
    return dict(zip(names, session.run(None, {"X": rows}), strict=True)), facts


@pytest.mark.parametrize(
    ("rows", "noise"), [(X, "constant"), (HOLES, "input")], ids=["numbers", "holes"]
)
def test_regression_with_the_posterior_of_the_last_layer(rows, noise, tmp_path):
    model = SubnetLaplaceRegressor(QUICK, noise=noise, **LAST).fit(rows, Y)
    new = np.concatenate([rows, 3 * rows, rows[:1] * np.nan if rows is HOLES else rows[:1]])
    found, facts = run(model, tmp_path / "m.onnx", new)
    mean, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(found["mean"][:, 0], mean, **CLOSE)
    np.testing.assert_allclose(found["std"][:, 0], std, **CLOSE)
    for part in ("epistemic", "aleatoric"):
        expected = model.predictive(new).std(part)
        np.testing.assert_allclose(found[f"{part}_std"], expected, **CLOSE)
        assert (np.ptp(expected) > 0.01) == (part == "epistemic" or noise == "input")
    assert "in closed form" in facts["sksubnet.posterior"]
    before = std
    model.update(rows[:20], Y[:20] + 30)
    found, _ = run(model, tmp_path / "m.onnx", new)
    mean, std = model.predict(new, return_std=True)
    assert not np.allclose(std, before)
    np.testing.assert_allclose(found["mean"][:, 0], mean, **CLOSE)
    np.testing.assert_allclose(found["std"][:, 0], std, **CLOSE)


def test_noise_by_row_of_several_nets_and_targets_on_one_of_all_rows(tmp_path):
    targets = np.c_[Y, 5 * Z[:, 2] + np.exp(Z[:, 0]) * RNG.normal(size=90)]
    options = {**LAST, "cv": 2, "refit": True, "noise": "input"}
    model = SubnetLaplaceRegressor(QUICK, **options).fit(X, targets)
    assert len(model.folds_[0].noise.nets) == 2
    found, _ = run(model, tmp_path / "m.onnx", X)
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(found["mean"], mean, **CLOSE)
    np.testing.assert_allclose(found["std"], std, **CLOSE)
    assert (np.ptp(found["aleatoric_std"], axis=0) > 0.01).all()


class Means(nn.Module):
    """A module with an operation that is named like an output of the graph."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, X):
        return self.layer(X).mean(dim=1, keepdim=True)


def test_a_module_may_take_means(tmp_path):
    net = NeuralNetRegressor(Means, max_epochs=2, train_split=None, verbose=0)
    model = MAPRegressor(net, random_state=0).fit(Z, Y)
    found, _ = run(model, tmp_path / "m.onnx", Z)
    np.testing.assert_allclose(found["mean"][:, 0], model.predict(Z), **CLOSE)


def test_a_net_without_a_posterior_has_its_noise(tmp_path):
    model = MAPRegressor(QUICK, random_state=0).fit(X, Y)
    found, _ = run(model, tmp_path / "m.onnx", X)
    assert list(found) == ["mean", "aleatoric_std"]
    _, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(found["aleatoric_std"][:, 0], std, **CLOSE)


def test_a_folder_that_is_not_there_is_told_before_the_export(tmp_path):
    model = MAPRegressor(QUICK, random_state=0).fit(X, Y)
    path = str(tmp_path / "not" / "m.onnx")
    with (
        mock.patch("torch.onnx.export", side_effect=AssertionError),
        pytest.raises(FileNotFoundError, match=f"{path!r} cannot be written, .* no folder"),
    ):
        model.export_onnx(path)


@pytest.mark.parametrize("link", ["probit", "extended_probit"])
@pytest.mark.parametrize("labels", [LABELS, LABELS == "a"], ids=["three", "two"])
def test_probabilities_under_the_link(labels, link, tmp_path):
    model = SubnetLaplaceClassifier(QUICK, link=link, **LAST).fit(X, labels)
    found, facts = run(model, tmp_path / "m.onnx", X)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(X), **CLOSE)
    variance = model.latent_mean_and_variance(X)[1]
    np.testing.assert_allclose(np.squeeze(found["variance"]), np.squeeze(variance), **CLOSE)
    assert json.loads(facts["sksubnet.classes"]) == [str(label) for label in model.classes_]


def test_weights_of_other_layers_are_said_not_to_be_there(tmp_path):
    model = SubnetLaplaceClassifier(
        classifier_net(max_epochs=5), cv=None, subnetwork_size=12, random_state=0
    ).fit(Z, LABELS)
    found, facts = run(model, tmp_path / "m.onnx", Z)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba_map(Z), **CLOSE)
    assert list(found) == ["logits", "probabilities"]
    assert "not in the graph" in facts["sksubnet.posterior"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nets_of_the_users(dtype, tmp_path):
    net = regressor_net(max_epochs=5)
    model = SubnetLaplaceRegressor(net, noise=1.0, dtype=dtype, **LAST).fit(Z, Y)
    found, _ = run(model, tmp_path / "m.onnx", Z)
    mean, std = model.predict(Z, return_std=True)
    np.testing.assert_allclose(found["mean"][:, 0], mean, **CLOSE)
    np.testing.assert_allclose(found["std"][:, 0], std, **CLOSE)


def test_refused(tmp_path):
    folds = SubnetLaplaceRegressor(QUICK, cv=2, subnetwork_size=4, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match=r"has 2 nets.*refit=True"):
        folds.export_onnx(tmp_path / "m.onnx")
    members = DeepEnsembleRegressor(QUICK, n_members=2, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match="each of estimators_"):
        members.export_onnx(tmp_path / "m.onnx")
    codes = TabularNet(hidden=(8,), max_epochs=2, categorical_features=[2])
    of_codes = MAPRegressor(codes, random_state=0).fit(np.c_[Z[:, :2], LABELS == "a"], Y)
    with pytest.raises(ValueError, match="are categories"):
        of_codes.export_onnx(tmp_path / "m.onnx")
    logs = MAPRegressor(QUICK, target_transform="log", random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match="target_transform"):
        logs.export_onnx(tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
