"""scikit-learn's tools around the estimators: each gives what its parts give."""

import pickle

import numpy as np
import pytest
from joblib import parallel_backend
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay, calibration_curve
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.utils import estimator_html_repr
from user_nets import (
    CountedMLP,
    SmallConvNet,
    cancer,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
)

from sksubnet import SubnetLaplaceClassifier


def mixed_table() -> tuple[dict[str, list], np.ndarray]:
    """Two numeric columns and one of text."""
    X, y = iris()
    colours = np.where(y == 0, "red", np.where(X[:, 1] > 0, "green", "blue"))
    return {"length": X[:, 0].tolist(), "width": X[:, 1].tolist(), "colour": colours.tolist()}, y


def encoder() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("number", StandardScaler(), ["length", "width"]),
            ("text", OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["colour"]),
        ]
    )


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_pipeline_on_frames(library):
    columns, y = mixed_table()
    frame = pytest.importorskip(library).DataFrame(columns)
    pipeline = make_pipeline(encoder(), quick_classifier()).fit(frame, y)
    encoded = encoder().fit_transform(frame)
    alone = quick_classifier().fit(encoded, y)
    np.testing.assert_array_equal(pipeline.predict_proba(frame), alone.predict_proba(encoded))
    assert pipeline.score(frame, y) > 0.6


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_give_column_names_and_the_values_of_arrays(library):
    X, y = diabetes()
    names = [f"column {i}" for i in range(X.shape[1])]
    frame = pytest.importorskip(library).DataFrame(dict(zip(names, X.T, strict=True)))
    by_frame, by_array = quick_regressor().fit(frame, y), quick_regressor().fit(X, y)
    assert by_frame.feature_names_in_.tolist() == names
    for found, expected in zip(
        by_frame.predict(frame, return_std=True), by_array.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("subnetwork_size", [5, 0.5, "all"]),
        ("selection", ["random", "last_layer"]),
        ("net__module__hidden", [2, 6]),
        ("net__lr", [1e-3, 0.05]),
    ],
)
def test_grid_search(name, values):
    X, y = iris()
    folds = StratifiedKFold(3)
    search = GridSearchCV(quick_classifier(), {name: values}, scoring="neg_log_loss", cv=folds)
    search.fit(X, y)
    by_hand = [
        cross_val_score(
            quick_classifier().set_params(**{name: v}), X, y, scoring="neg_log_loss", cv=folds
        ).mean()
        for v in values
    ]
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], by_hand)
    assert len(set(by_hand)) == len(values)
    assert search.best_params_ == {name: values[int(np.argmax(by_hand))]}


def test_halving_grid_search():
    X, y = iris()
    search = HalvingGridSearchCV(
        quick_classifier(), {"subnetwork_size": [4, 16, "all"]}, cv=3, factor=3, random_state=0
    ).fit(X, y)
    assert search.n_candidates_ == [3, 1]
    refitted = quick_classifier(**search.best_params_).fit(X, y)
    np.testing.assert_array_equal(search.predict_proba(X), refitted.predict_proba(X))


def test_cross_val_predict():
    X, y = iris()
    folds = list(StratifiedKFold(3).split(X, y))
    found = cross_val_predict(quick_classifier(), X, y, cv=folds, method="predict_proba")
    for train, test in folds:
        expected = quick_classifier().fit(X[train], y[train]).predict_proba(X[test])
        np.testing.assert_array_equal(found[test], expected)


def test_calibration_curve_and_display():
    X, y = cancer()
    model = quick_classifier().fit(X, y)
    probability = model.predict_proba(X)[:, 1]
    share, mean = calibration_curve(y, probability, n_bins=4)
    bins = np.digitize(probability, np.linspace(0, 1, 5)[1:-1])
    filled = np.unique(bins)
    np.testing.assert_allclose(share, [y[bins == b].mean() for b in filled])
    np.testing.assert_allclose(mean, [probability[bins == b].mean() for b in filled])

    pytest.importorskip("matplotlib").use("Agg")
    display = CalibrationDisplay.from_estimator(model, X, y, n_bins=4)
    np.testing.assert_array_equal(display.prob_true, share)
    np.testing.assert_array_equal(display.prob_pred, mean)


@pytest.mark.parametrize("method", ["sigmoid", "temperature"])
def test_calibrated_classifier(method):
    X, y = iris()
    model = CalibratedClassifierCV(quick_classifier(), method=method, cv=3).fit(X, y)
    parts = [part.predict_proba(X) for part in model.calibrated_classifiers_]
    np.testing.assert_allclose(model.predict_proba(X), np.mean(parts, axis=0), atol=1e-12)
    train, _ = next(StratifiedKFold(3).split(X, y))
    first = model.calibrated_classifiers_[0]
    alone = quick_classifier().fit(X[train], y[train]).predict_proba(X)
    np.testing.assert_array_equal(first.estimator.predict_proba(X), alone)
    if method == "temperature":
        calibrator = first.calibrators[0]
        scaled = np.exp(np.log(alone) * calibrator.beta_)
        np.testing.assert_allclose(parts[0], scaled / scaled.sum(axis=1, keepdims=True), atol=1e-10)


def test_bagging():
    X, y = iris()
    model = BaggingClassifier(quick_classifier(), n_estimators=3, random_state=0).fit(X, y)
    parts = [part.predict_proba(X) for part in model.estimators_]
    np.testing.assert_allclose(model.predict_proba(X), np.mean(parts, axis=0), atol=1e-12)
    assert np.abs(parts[0] - parts[1]).max() > 1e-3


def test_stacking():
    X, y = iris()
    folds = KFold(3)
    model = StackingClassifier(
        [("subnet", quick_classifier())], LogisticRegression(), cv=folds, passthrough=False
    ).fit(X, y)
    held_out = cross_val_predict(quick_classifier(), X, y, cv=folds, method="predict_proba")
    final = LogisticRegression().fit(held_out, y)
    expected = final.predict_proba(quick_classifier().fit(X, y).predict_proba(X))
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-12)


def test_voting():
    X, y = iris()
    members = [("subnet", quick_classifier()), ("linear", LogisticRegression())]
    model = VotingClassifier(members, voting="soft", weights=[3, 1]).fit(X, y)
    parts = [clone(member).fit(X, y).predict_proba(X) for _, member in members]
    expected = (3 * parts[0] + parts[1]) / 4
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-12)


def test_permutation_importance():
    X, y = iris()
    X = np.c_[X, np.zeros(len(X))]
    model = quick_classifier().fit(X, y)
    importance = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert importance.importances[-1].tolist() == [0.0, 0.0]
    assert importance.importances_mean.max() > 0.05


def test_metadata_routing_takes_weights_through_a_pipeline_and_a_search():
    X, y = iris()
    weights = np.random.default_rng(0).integers(1, 5, len(y)).astype(float)
    with config_context(enable_metadata_routing=True):
        model = quick_classifier().set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        pipeline = Pipeline(
            [("scale", StandardScaler().set_fit_request(sample_weight=False)), ("model", model)]
        )
        search = GridSearchCV(pipeline, {"model__subnetwork_size": [4, 16]}, cv=KFold(2))
        search.fit(X, y, sample_weight=weights)
    train, test = next(KFold(2).split(X))
    scaler = StandardScaler().fit(X[train])
    alone = quick_classifier(subnetwork_size=4).fit(
        scaler.transform(X[train]), y[train], sample_weight=weights[train]
    )
    predicted = alone.predict(scaler.transform(X[test]))
    expected = accuracy_score(y[test], predicted, sample_weight=weights[test])
    assert search.cv_results_["split0_test_score"][0] == expected


def test_clone_has_the_parameters_but_no_fit():
    X, y = iris()
    model = quick_classifier(net=classifier_net(module__hidden=5)).fit(X, y)
    copy = clone(model)
    assert copy.get_params()["net__module__hidden"] == 5
    assert not hasattr(copy, "net_") and not hasattr(copy, "posterior_")
    np.testing.assert_array_equal(copy.fit(X, y).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("net", [None, classifier_net()], ids=["default", "user"])
def test_pickle(net):
    X, y = iris()
    model = quick_classifier(net=net).fit(X[:60], y[:60])
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(
        restored.fit(X[60:], y[60:]).predict_proba(X), model.fit(X[60:], y[60:]).predict_proba(X)
    )


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_two_workers_score_as_one(backend):
    X, y = diabetes()
    model = quick_regressor(selection="swag")
    alone = cross_val_score(model, X, y, cv=4)
    with parallel_backend(backend):
        together = cross_val_score(model, X, y, cv=4, n_jobs=2)
    np.testing.assert_array_equal(alone, together)


def test_html_repr_shows_the_net():
    html = estimator_html_repr(quick_classifier())
    assert "NeuralNetClassifier" in html and "MLP" in html


def counted_search(memory) -> tuple[GridSearchCV, int]:
    """Search over three sizes, and how many rows went through the net in training."""
    X, y = iris()
    CountedMLP.training_passes.clear()
    model = SubnetLaplaceClassifier(
        classifier_net(CountedMLP), prior_precision=1.0, random_state=0, memory=memory
    )
    grid = {"subnetwork_size": [4, 8, "all"], "selection": ["magnitude"]}
    search = GridSearchCV(model, grid, cv=StratifiedKFold(3), scoring="neg_log_loss").fit(X, y)
    return search, sum(CountedMLP.training_passes)


def test_memory_trains_once_for_each_fold(tmp_path):
    n_epochs, n_rows = classifier_net().max_epochs, len(iris()[0])
    plain, n_plain = counted_search(None)
    cached, n_cached = counted_search(str(tmp_path))
    again, n_again = counted_search(str(tmp_path))
    # Three folds of two thirds of the rows, three sizes, and the final fit on all rows.
    assert n_plain == n_epochs * (3 * 2 * n_rows + n_rows)
    assert n_cached == n_epochs * (2 * n_rows + n_rows)
    assert n_again == 0
    for other in (cached, again):
        np.testing.assert_array_equal(
            other.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
        )
        np.testing.assert_array_equal(
            other.predict_proba(iris()[0]), plain.predict_proba(iris()[0])
        )


@pytest.mark.parametrize("change", ["net__lr", "net__module__hidden", "random_state", "dtype"])
def test_memory_tells_different_fits_apart(tmp_path, change):
    X, y = iris()
    value = {"net__lr": 0.05, "net__module__hidden": 5, "random_state": 1, "dtype": "float32"}
    stored = quick_classifier(memory=str(tmp_path)).fit(X, y)
    other = clone(stored).set_params(**{change: value[change]})
    plain = clone(other).set_params(memory=None)
    np.testing.assert_array_equal(
        other.fit(X, y).predict_proba(X), plain.fit(X, y).predict_proba(X)
    )


def test_images():
    images, y = load_digits(return_X_y=True)
    X = images[:200].reshape(-1, 1, 8, 8)
    model = quick_classifier(net=classifier_net(SmallConvNet, max_epochs=30, batch_size=32))
    model.fit(X, y[:200])
    assert model.score(X, y[:200]) > 0.8
    flat = make_pipeline(FunctionTransformer(np.reshape, kw_args={"shape": (-1, 1, 8, 8)}), model)
    np.testing.assert_array_equal(
        flat.fit(images[:200], y[:200]).predict_proba(images[:50]), model.predict_proba(X[:50])
    )
