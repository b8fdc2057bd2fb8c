"""The scorers where scikit-learn takes scorers, and what reaches an estimator through others."""

import copy
import functools
import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingRegressor
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.feature_selection import RFECV
from sklearn.inspection import permutation_importance
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.metrics import check_scoring
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sksubnet.metrics
from sksubnet import (
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    TabularNet,
    cross_val_predictive,
)
from sksubnet.metrics import (
    expected_calibration_error,
    gaussian_crps,
    gaussian_nll,
    neg_expected_calibration_error_scorer,
    neg_gaussian_crps_scorer,
    neg_gaussian_nll_scorer,
    neg_predictive_crps_scorer,
    neg_predictive_nll_scorer,
)

SCORERS = [getattr(sksubnet.metrics, n) for n in sksubnet.metrics.__all__ if n.endswith("_scorer")]
OF_REGRESSORS = [s for s in SCORERS if s is not neg_expected_calibration_error_scorer]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X @ [1.0, -2.0, 0.0] + 0.3 * RNG.normal(size=60)
LABELS = np.array(["a", "b", "c"])[np.digitize(Y, [-1, 1])]
WEIGHTS = np.arange(60) % 3 + 0.5
OPTIONS = {"cv": None, "subnetwork_size": 8, "random_state": 0}
REGRESSOR = SubnetLaplaceRegressor(TabularNet(hidden=(8,), max_epochs=3), **OPTIONS)
CLASSIFIER = SubnetLaplaceClassifier(TabularNet(hidden=(8,), max_epochs=3), **OPTIONS)


@functools.cache
def fitted(piped=False):
    model = make_pipeline(StandardScaler(), REGRESSOR) if piped else clone(REGRESSOR)
    return model.fit(X, Y)


@pytest.mark.parametrize("scorer", SCORERS)
def test_each_is_one_of_scikit_learns_with_a_name(scorer):
    name = repr(scorer)
    assert getattr(sksubnet.metrics, name) is scorer and scorer.__name__ == name
    assert check_scoring(REGRESSOR, scoring=scorer) is scorer
    assert pickle.loads(pickle.dumps(scorer)) is scorer
    assert copy.deepcopy(scorer) is clone(scorer, safe=False) is scorer


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_request_is_of_a_copy(scorer):
    with sklearn.config_context(enable_metadata_routing=True):
        asking = scorer.set_score_request(sample_weight="w")
        for one in (asking, pickle.loads(pickle.dumps(asking)), copy.deepcopy(asking)):
            assert repr(one) == repr(scorer) and one is not scorer
            assert one.get_metadata_routing().score.requests == {"sample_weight": "w"}
        assert scorer.get_metadata_routing().score.requests == {"sample_weight": None}
        again = asking.set_score_request(sample_weight=False)
        assert again.get_metadata_routing().score.requests == {"sample_weight": False}
    with pytest.raises(RuntimeError, match="metadata routing"):
        scorer.set_score_request(sample_weight=True)


def by_hand(scorer, model, rows):
    """Score from public predictions alone."""
    mean, std = model.predict(X[rows], return_std=True)
    weights = WEIGHTS[rows]
    if scorer in (neg_gaussian_nll_scorer, neg_predictive_nll_scorer):
        return -gaussian_nll(Y[rows], mean, std, sample_weight=weights)
    return -gaussian_crps(Y[rows], mean, std, sample_weight=weights)


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("scorer", OF_REGRESSORS)
def test_weights_are_routed_in_and_without_a_pipeline(scorer, piped):
    model = fitted(piped)
    # with one net and constant noise the predictive distribution is a Gaussian
    close = 1e-9 if scorer in (neg_gaussian_nll_scorer, neg_gaussian_crps_scorer) else 1e-6
    expected = by_hand(scorer, model, np.arange(60))
    assert scorer(model, X, Y, sample_weight=WEIGHTS) == pytest.approx(expected, rel=close)
    assert scorer(model, X, Y, WEIGHTS) == scorer(model, X, Y, sample_weight=WEIGHTS)
    assert scorer(model, X, Y) != scorer(model, X, Y, WEIGHTS)
    with sklearn.config_context(enable_metadata_routing=True):
        last = clone(REGRESSOR).set_fit_request(sample_weight=True)
        last.set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        asked = make_pipeline(scaler, last) if piped else last
        options = {"cv": KFold(2), "params": {"sample_weight": WEIGHTS}}
        scoring = {"own": scorer.set_score_request(sample_weight=True)}
        found = cross_validate(asked, X, Y, scoring=scoring, return_estimator=True, **options)
        for k, (_, test) in enumerate(KFold(2).split(X)):
            expected = by_hand(scorer, found["estimator"][k], test)
            assert found["test_own"][k] == pytest.approx(expected, rel=close)
        with pytest.raises(UnsetMetadataPassedError):
            cross_validate(asked, X, Y, scoring=scorer, **options)


def test_weights_of_a_search_without_routing():
    search = GridSearchCV(REGRESSOR, {"subnetwork_size": [8]}, cv=KFold(2), refit=False)
    search.set_params(scoring={"own": neg_gaussian_nll_scorer, "r2": "r2"})
    search.fit(X, Y, sample_weight=WEIGHTS)
    for k, (train, test) in enumerate(KFold(2).split(X)):
        model = clone(REGRESSOR).fit(X[train], Y[train], WEIGHTS[train])
        expected = by_hand(neg_gaussian_nll_scorer, model, test)
        assert search.cv_results_[f"split{k}_test_own"][0] == pytest.approx(expected)


def test_a_report_of_skore():
    skore = pytest.importorskip("skore")
    report = skore.EstimatorReport(
        clone(REGRESSOR), X_train=X[:40], y_train=Y[:40], X_test=X[40:], y_test=Y[40:]
    )
    expected = neg_gaussian_nll_scorer(report.estimator_, X[40:], Y[40:])
    report.metrics.add(neg_gaussian_nll_scorer)
    table = report.metrics.summarize(metric="neg_gaussian_nll_scorer").frame()
    assert np.asarray(table, dtype=float).ravel() == pytest.approx([expected])
    found = report.inspection.permutation_importance(metric=neg_gaussian_nll_scorer, seed=0)
    assert found.frame()["value_mean"].argmax() == 1


def test_several_scorers_of_other_regressors():
    scoring = {"nll": neg_gaussian_nll_scorer, "crps": neg_gaussian_crps_scorer, "r2": "r2"}
    found = cross_validate(BayesianRidge(), X, Y, cv=KFold(3), scoring=scoring)
    for name in scoring:
        alone = cross_val_score(BayesianRidge(), X, Y, cv=KFold(3), scoring=scoring[name])
        np.testing.assert_array_equal(found[f"test_{name}"], alone)


@pytest.mark.parametrize("piped", [False, True])
def test_permutation_importance_and_selection_of_features(piped):
    found = permutation_importance(
        fitted(piped), X, Y, scoring=neg_gaussian_nll_scorer, n_repeats=2, random_state=0
    )
    assert found.importances_mean.argmax() == 1 and abs(found.importances_mean[2]) < 0.2
    if not piped:
        selection = RFECV(
            MAPRegressor(TabularNet(hidden=(8,), max_epochs=20), noise=1.0, random_state=0),
            cv=2,
            scoring=neg_gaussian_crps_scorer,
            importance_getter=lambda fit: np.abs(
                np.corrcoef(fit.predict(X[:, : fit.n_features_in_]), X.T[: fit.n_features_in_])
            )[0, 1:],
        ).fit(X, Y)
        assert selection.support_[1]


def test_search_by_a_scorer():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), REGRESSOR),
        {"subnetlaplaceregressor__subnetwork_size": [4, 8]},
        scoring={"nll": neg_gaussian_nll_scorer, "crps": neg_predictive_crps_scorer},
        refit="nll",
        cv=2,
    ).fit(X, Y)
    assert search.score(X, Y) == neg_gaussian_nll_scorer(search.best_estimator_, X, Y)
    mean, std = search.best_estimator_.predict(X, return_std=True)
    assert mean.shape == std.shape == (60,)


def test_calibration_error_of_what_wraps_a_classifier():
    options = {"cv": 2, "scoring": neg_expected_calibration_error_scorer}
    assert np.isfinite(cross_val_score(CLASSIFIER, X, LABELS, **options)).all()
    wrapped = [
        make_pipeline(StandardScaler(), CLASSIFIER),
        CalibratedClassifierCV(CLASSIFIER, method="sigmoid", cv=2),
        StackingClassifier([("net", CLASSIFIER)], LogisticRegression(), cv=2),
        BaggingClassifier(CLASSIFIER, n_estimators=2, random_state=0),
    ]
    for model in wrapped:
        model.fit(X, LABELS)
        probabilities = model.predict_proba(X)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert set(model.predict(X)) <= set(LABELS)
        assert neg_expected_calibration_error_scorer(model, X, LABELS) == (
            -expected_calibration_error(LABELS, probabilities, labels=model.classes_)
        )


def test_what_passes_a_regressor_inside_another():
    transformed = TransformedTargetRegressor(REGRESSOR, func=np.arcsinh, inverse_func=np.sinh)
    inner = clone(REGRESSOR).fit(X, np.arcsinh(Y))
    np.testing.assert_allclose(transformed.fit(X, Y).predict(X), np.sinh(inner.predict(X)))
    with pytest.raises(Exception, match=r".*"):  # a standard deviation does not pass
        transformed.predict(X, return_std=True)
    voting = VotingRegressor([("net", REGRESSOR), ("line", BayesianRidge())]).fit(X, Y)
    parts = [fit.predict(X) for fit in voting.estimators_]
    np.testing.assert_allclose(voting.predict(X), np.mean(parts, axis=0))
    several = MultiOutputRegressor(REGRESSOR).fit(X, np.column_stack([Y, -Y]))
    assert several.predict(X).shape == (60, 2)


def test_predictions_of_rows_that_were_held_out():
    splits = KFold(2)
    mean = cross_val_predict(REGRESSOR, X, Y, cv=splits)
    predictive = cross_val_predictive(REGRESSOR, X, Y, cv=splits)
    np.testing.assert_allclose(predictive.mean.numpy()[:, 0], mean)
    probabilities = cross_val_predict(CLASSIFIER, X, LABELS, cv=2, method="predict_proba")
    assert probabilities.shape == (60, 3)


def test_curves():
    sizes, _, scores = learning_curve(
        REGRESSOR, X, Y, cv=2, train_sizes=[0.5, 1.0], scoring=neg_gaussian_nll_scorer
    )
    assert scores.shape == (2, 2) and np.isfinite(scores).all() and list(sizes) == [15, 30]
    _, scores = validation_curve(
        REGRESSOR,
        X,
        Y,
        param_name="subnetwork_size",
        param_range=[2, 4, 8],
        cv=2,
        scoring=neg_predictive_nll_scorer,
    )
    assert scores.shape == (3, 2) and np.isfinite(scores).all()
