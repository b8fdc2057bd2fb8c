"""Graphs in another runtime, against the estimator's own predictions."""

import json
import sys
from unittest import mock

import numpy as np
import pytest
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import (
    OPTIONS,
    FlatMLP,
    SoftmaxMLP,
    assert_refused,
    binary_net,
    classifier_net,
    regressor_net,
)

from sksubnet import (
    DeepEnsembleRegressor,
    MAPClassifier,
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


def test_a_module_that_is_one_layer(tmp_path, monkeypatch):
    net = regressor_net(nn.Linear, module__in_features=3, module__out_features=1)
    model = SubnetLaplaceRegressor(net, noise=1.0, **LAST).fit(Z, Y)
    mean, std = model.predict(Z, return_std=True)
    # A net so large that less than the probe is a batch of predictions is exported as well.
    monkeypatch.setattr(type(model.folds_[0]), "rows_per_batch", 3)
    found, facts = run(model, tmp_path / "m.onnx", Z)
    assert "in closed form" in facts["sksubnet.posterior"]
    np.testing.assert_allclose(found["mean"][:, 0], mean, **CLOSE)
    np.testing.assert_allclose(found["std"][:, 0], std, **CLOSE)


def test_one_logit_without_an_axis_of_its_own(tmp_path):
    net = binary_net(FlatMLP, module__n_features=3, module__n_outputs=1)
    model = MAPClassifier(net, random_state=0).fit(Z, LABELS == "a")
    found, _ = run(model, tmp_path / "m.onnx", Z)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(Z), **CLOSE)
    odds = found["probabilities"][:, 1] / found["probabilities"][:, 0]
    np.testing.assert_allclose(found["logits"], np.log(odds)[:, None], **CLOSE)


def test_a_module_of_probabilities_under_a_link_of_draws(tmp_path):
    net = classifier_net(SoftmaxMLP, criterion=nn.NLLLoss, module__n_features=3)
    model = SubnetLaplaceClassifier(net, link="mc", **LAST).fit(Z, LABELS)
    found, facts = run(model, tmp_path / "m.onnx", Z)
    logits = found["logits"] - found["logits"].max(1, keepdims=True)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(softmax, model.predict_proba_map(Z), **CLOSE)
    assert "not in the graph" in facts["sksubnet.posterior"]
    drawn = SubnetLaplaceClassifier(classifier_net(), link="mc", **LAST).fit(Z, LABELS)
    found, facts = run(drawn, tmp_path / "m.onnx", Z)
    assert list(found) == ["logits", "variance"]
    variance = drawn.latent_mean_and_variance(Z)[1]
    np.testing.assert_allclose(found["variance"], variance, **CLOSE)


def test_log_rates_of_counts(tmp_path):
    net = regressor_net(criterion=nn.PoissonNLLLoss)
    model = MAPRegressor(net, random_state=0).fit(Z, np.round(np.exp(Z[:, 0])))
    found, _ = run(model, tmp_path / "m.onnx", Z)
    assert list(found) == ["outputs"]
    np.testing.assert_allclose(np.exp(found["outputs"][:, 0]), model.predict(Z), **CLOSE)


def test_a_posterior_by_its_rows_is_not_in_the_graph(tmp_path):
    whole = {**LAST, "selection": "magnitude", "candidates": "all", "subnetwork_size": "all"}
    net = regressor_net(module__hidden=40)
    model = SubnetLaplaceRegressor(net, noise=1.0, **whole).fit(Z[:20], Y[:20])
    assert model.folds_[0].n_rows_held == 20
    found, facts = run(model, tmp_path / "m.onnx", Z)
    assert list(found) == ["mean", "aleatoric_std"]
    assert "not in the graph" in facts["sksubnet.posterior"]
    np.testing.assert_allclose(found["mean"][:, 0], model.predict(Z), **CLOSE)


class Doubled(NeuralNetRegressor):
    """Code of its own for the rows."""

    def infer(self, x, **fit_params):
        return super().infer(2 * x, **fit_params)


class FirstOutput(NeuralNetRegressor):
    """Code of its own for the outputs."""

    def infer(self, x, **fit_params):
        return super().infer(x, **fit_params)[:, :1]


@pytest.mark.parametrize(("net", "n_outputs"), [(Doubled, 1), (FirstOutput, 2)])
def test_code_around_the_module_is_refused(net, n_outputs, tmp_path):
    sizes = {"module__in_features": 3, "module__out_features": n_outputs}
    model = MAPRegressor(net(nn.Linear, **sizes, **OPTIONS), random_state=0).fit(Z, Y)
    told = ["does not give what the net does", "code of its own for its rows or outputs"]
    assert_refused(lambda: model.export_onnx(tmp_path / "m.onnx"), *told)
    assert not (tmp_path / "m.onnx").exists()


def test_an_update_of_weights_of_several_layers_is_refused(tmp_path):
    several = {**LAST, "selection": "magnitude", "candidates": "all", "subnetwork_size": 30}
    model = SubnetLaplaceRegressor(regressor_net(), noise=1.0, **several).fit(Z, Y)
    model.update(Z[:20], Y[:20] + 30)
    told = ["update has moved weights", "Fit again with all rows"]
    assert_refused(lambda: model.export_onnx(tmp_path / "m.onnx"), *told)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_libraries_that_are_missing_are_named(missing, tmp_path, monkeypatch):
    model = MAPRegressor(QUICK, random_state=0).fit(X, Y)
    monkeypatch.setitem(sys.modules, missing, None)
    told = ["onnx and onnxscript", "sksubnet[onnx]"]
    assert_refused(lambda: model.export_onnx(tmp_path / "m.onnx"), *told, error=ImportError)


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
