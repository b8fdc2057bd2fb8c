"""Other libraries on a tiny table, each by its own call; those that are not there are skipped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor, TabularNet
from sksubnet.metrics import neg_gaussian_nll_scorer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
Y = X @ [1.0, -2.0, 0.0] + 0.3 * RNG.normal(size=80)
LABELS = (Y > 1).astype(int)
NET = TabularNet(hidden=(8,), max_epochs=30)
OPTIONS = {"cv": None, "subnetwork_size": 8, "random_state": 0}
REGRESSOR = SubnetLaplaceRegressor(NET, **OPTIONS)
CLASSIFIER = SubnetLaplaceClassifier(NET, **OPTIONS)


def test_skore_report() -> None:
    skore = pytest.importorskip("skore")
    model = clone(CLASSIFIER).fit(X[:60], LABELS[:60])
    report = skore.EstimatorReport(model, X_test=X[60:], y_test=LABELS[60:])
    expected = model.score(X[60:], LABELS[60:])
    assert report.metrics.default_score() == pytest.approx(expected)


def test_mapie_intervals() -> None:
    mapie = pytest.importorskip("mapie.regression")
    split = mapie.SplitConformalRegressor(
        clone(REGRESSOR).fit(X[:40], Y[:40]), confidence_level=0.8, prefit=True
    )
    split.conformalize(X[40:], Y[40:])
    mean, interval = split.predict_interval(X[40:])
    covered = (interval[:, 0, 0] <= Y[40:]) & (Y[40:] <= interval[:, 1, 0])
    assert mean.shape == (40,) and 0.8 <= covered.mean() < 1


def test_skpro_distribution() -> None:
    residual = pytest.importorskip("skpro.regression.residual")
    model = residual.ResidualDouble(REGRESSOR, cv=None)
    model.fit(X, Y)
    assert np.isfinite(model.predict_proba(X).var().to_numpy()).all()


def test_skrub_table() -> None:
    skrub, pd = pytest.importorskip("skrub"), pytest.importorskip("pandas")
    table = pd.DataFrame({"x": X[:, 1], "city": np.where(X[:, 0] > 0, "Oslo", "Lima")})
    model = make_pipeline(skrub.TableVectorizer(), REGRESSOR).fit(table, Y)
    mean, std = model.predict(table, return_std=True)
    assert np.corrcoef(mean, Y)[0, 1] > 0.8 and (std > 0).all()


def test_imbalanced_learn_pipeline() -> None:
    sampling = pytest.importorskip("imblearn.over_sampling")
    pipeline = pytest.importorskip("imblearn.pipeline")
    model = pipeline.make_pipeline(sampling.RandomOverSampler(random_state=0), CLASSIFIER)
    model.fit(X, LABELS)
    assert model.score(X, LABELS) > 0.8


def test_optuna_study() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def loss(trial: Any) -> float:
        size = trial.suggest_int("size", 2, 8)
        model = clone(REGRESSOR).set_params(subnetwork_size=size)
        return cross_val_score(model, X, Y, cv=2, scoring=neg_gaussian_nll_scorer).mean()

    study = optuna.create_study(direction="maximize")
    study.optimize(loss, n_trials=2)
    assert np.isfinite(study.best_value)


@pytest.mark.parametrize("kind", ["pickle", "skops"])
def test_mlflow_both_formats(kind: str, tmp_path: Path) -> None:
    flavor = pytest.importorskip("mlflow.sklearn")
    if kind == "skops":
        pytest.importorskip("skops")
    model = clone(REGRESSOR).fit(X, Y)
    names = [f"{type(part).__module__}.{type(part).__name__}" for part in (model, NET)]
    trust = {"skops_trusted_types": names} if kind == "skops" else {}
    wanted = "cloudpickle" if kind == "pickle" else "skops"
    flavor.save_model(model, tmp_path / "model", serialization_format=wanted, **trust)
    loaded = flavor.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_shap_values_add_up() -> None:
    shap = pytest.importorskip("shap")
    model = clone(REGRESSOR).fit(X, Y)
    found = shap.Explainer(model.predict, X[:20])(X[:5])
    total = found.base_values + found.values.sum(axis=1)
    np.testing.assert_allclose(total, model.predict(X[:5]), atol=1e-6)


def test_netcal_error_of_probabilities() -> None:
    metrics = pytest.importorskip("netcal.metrics")
    probabilities = clone(CLASSIFIER).fit(X, LABELS).predict_proba(X)
    assert 0 <= metrics.ECE(bins=5).measure(probabilities[:, 1], LABELS) <= 1
