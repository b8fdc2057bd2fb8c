"""Paths over sizes against separate fits, and the searches against GridSearchCV."""

import pickle
from dataclasses import replace

import dense
import numpy as np
import pytest
import torch
from frozen_models import (
    X_NEW,
    classification_ggn,
    classifier,
    epistemic_variance,
    labelled_rows,
    regression_ggn,
    regression_rows,
    regressor,
)
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from user_nets import (
    CountedMLP,
    assert_refused,
    cancer,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
)

from sksubnet import (
    SubnetLaplaceClassifier,
    SubnetLaplaceClassifierCV,
    SubnetLaplaceRegressor,
    SubnetLaplaceRegressorCV,
    TabularNet,
    subnetwork_path,
)
from sksubnet.displays import SizePathDisplay
from sksubnet.estimators import curved, size_path
from sksubnet.estimators.size_path import SubnetworkPath
from sksubnet.metrics import neg_gaussian_nll_scorer
from sksubnet.posterior import kinds
from sksubnet.posterior.cholesky import CholeskyPosterior
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.kernel import KernelPosterior

SMALL = TabularNet(hidden=(5,), bins=0, max_epochs=4)
SIZES = [30, 3, "all", 0.2]


def assert_same_fit(found, expected, X):
    """Everything that a fit keeps of its posterior, and what it predicts."""
    rtol = 1e-9 if expected.dtype == "float64" else 1e-6
    assert found.subnetwork_size == expected.subnetwork_size
    assert len(found.folds_) == len(expected.folds_)
    for one, other in zip(found.folds_, expected.folds_, strict=True):
        assert_array_equal(one.subnetwork.indices, other.subnetwork.indices)
        assert one.subnetwork.n_inert == other.subnetwork.n_inert
        assert type(one.posterior) is type(other.posterior)
        assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=rtol)
    assert found.prior_precision_ == pytest.approx(expected.prior_precision_, rel=rtol)
    evidence = expected.log_marginal_likelihood()
    assert found.log_marginal_likelihood() == pytest.approx(evidence, rel=rtol)
    pairs = [(found.predictive(X), expected.predictive(X))]
    if hasattr(expected, "out_of_fold_"):
        pairs.append((found.out_of_fold_, expected.out_of_fold_))
    for one, other in pairs:
        if is_classifier(expected):
            assert_allclose(one.probabilities(), other.probabilities(), rtol=rtol)
        else:
            assert_allclose(one.mean, other.mean, rtol=rtol)
            assert_allclose(one.std("epistemic"), other.std("epistemic"), rtol=rtol)
            assert_allclose(one.std(), other.std(), rtol=rtol)


TUNED = {"prior_precision": "validation_half_se"}
PATHS = {
    "default net": (SubnetLaplaceRegressor(SMALL, cv=2), diabetes),
    "noise by row, refit": (
        SubnetLaplaceRegressor(SMALL, cv=2, noise="input", refit=True, selection="gradient"),
        diabetes,
    ),
    "greedy": (quick_regressor(cv=None, selection="greedy", **TUNED), diabetes),
    "refit": (quick_regressor(cv=2, refit=True, **TUNED), diabetes),
    "evidence": (quick_regressor(cv=2, prior_precision="evidence"), diabetes),
    "given prior": (quick_regressor(cv=2, selection="gradient"), diabetes),
    "given noise": (quick_regressor(cv=2, noise=0.5), diabetes),
    "transform": (quick_regressor(cv=2, target_transform="log", **TUNED), diabetes),
    "diagonal": (quick_classifier(covariance="diag", **TUNED), iris),
    "classes": (quick_classifier(cv=2, **TUNED), iris),
    "class weights": (quick_classifier(SMALL, cv=2, class_weight="balanced", **TUNED), cancer),
    "all weights": (quick_classifier(candidates="all", selection="swag"), iris),
    "last layer": (quick_classifier(selection="last_layer", candidates="all"), iris),
    "float32": (quick_classifier(dtype="float32", selection="random"), iris),
}


@pytest.mark.parametrize(("estimator", "data"), PATHS.values(), ids=PATHS)
def test_path_is_separate_fits(estimator, data):
    X, y = (part[:80] for part in data())
    estimator = clone(estimator).set_params(random_state=0)
    path = subnetwork_path(estimator, X, y, sizes=SIZES)
    assert path.sizes == SIZES
    for size, found in zip(SIZES, path.estimators, strict=True):
        alone = clone(estimator).set_params(subnetwork_size=size).fit(X, y)
        assert_same_fit(found, alone, X)
    assert_array_equal(path.prior_precisions, [e.prior_precision_ for e in path.estimators])
    assert not hasattr(estimator, "folds_")


def test_path_takes_weights_and_groups():
    X, y = diabetes()
    rng = np.random.default_rng(0)
    params = {"sample_weight": rng.integers(0, 3, len(y)), "groups": rng.integers(9, size=len(y))}
    reg = quick_regressor(cv=3, **TUNED)
    path = subnetwork_path(reg, X, y, sizes=[4, 20], **params)
    for size, found in zip([4, 20], path.estimators, strict=True):
        assert_same_fit(found, clone(reg).set_params(subnetwork_size=size).fit(X, y, **params), X)
    assert path.log_scores.shape == (2, (params["sample_weight"] > 0).sum())


def test_path_takes_several_labels_and_shares_of_the_variance():
    X, y = make_multilabel_classification(60, 4, n_classes=3, random_state=0)
    clf = SubnetLaplaceClassifier(SMALL, cv=None, random_state=0)
    sizes = ["90% variance", 10]
    for size, found in zip(sizes, subnetwork_path(clf, X, y, sizes=sizes).estimators, strict=True):
        assert_same_fit(found, clone(clf).set_params(subnetwork_size=size).fit(X, y), X)


@pytest.mark.parametrize("n_rows", [9, 40], ids=["fewer rows than weights", "more"])
@pytest.mark.parametrize("eigen_limit", [3000, 10], ids=["eigenvectors", "cholesky"])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_variances_of_every_size_are_those_of_dense_algebra(n_rows, eigen_limit, task, monkeypatch):
    monkeypatch.setattr(kinds, "EIGEN_LIMIT", eigen_limit)
    if task == "regression":
        module, model, (X, y) = dense.mlp(), regressor(), regression_rows(n_rows)
        G = regression_ggn(module, X)
    else:
        module, model, (X, y) = dense.mlp(n_outputs=3, seed=1), classifier(), labelled_rows(n_rows)
        G = classification_ggn(module, X)
    J = dense.jacobian(module, X_NEW)
    model.set_params(selection="gradient")
    sizes = [1, 7, 25, len(G)]
    path = subnetwork_path(model, X, y, sizes=sizes)
    found = [type(fit.posterior_) for fit in path.estimators]
    if n_rows == 9:
        assert found[0] is GaussianPosterior and found[-1] is KernelPosterior
    else:
        assert found[-1] is (GaussianPosterior if eigen_limit == 3000 else CholeskyPosterior)
    for size, fit in zip(sizes, path.estimators, strict=True):
        at = fit.subnetwork_.indices
        assert len(at) == size
        precision = G[np.ix_(at, at)] + 0.7 * np.eye(size)
        expected = dense.outputs_covariance(J[..., at], precision)
        variance = np.diagonal(expected, axis1=1, axis2=2)
        assert_allclose(epistemic_variance(fit), variance, rtol=1e-8)


def test_nets_are_trained_and_rows_go_through_the_jacobian_once(monkeypatch):
    X, y = iris()
    calls = []

    def counted(*args, **options):
        calls.append(options["has_parts"])
        return kinds.subnetwork_curvature(*args, **options)

    monkeypatch.setattr(curved, "subnetwork_curvature", counted)
    CountedMLP.training_passes.clear()
    clf = SubnetLaplaceClassifier(classifier_net(CountedMLP), cv=3, random_state=0, refit=True)
    path = subnetwork_path(clf, X, y, sizes=[4, 9, 20])
    # Two thirds of the rows for each fold and all for the refit, whose noise is that of its size.
    assert sum(CountedMLP.training_passes) == classifier_net().max_epochs * 3 * len(
        np.unique(X, axis=0)
    )
    assert calls == 3 * [True] + 3 * [False]
    assert len({id(fit.folds_[0].net) for fit in path.estimators}) == 1


def test_log_scores_are_those_of_the_rows_out_of_fold():
    X, y = iris()
    labels = np.array(["c", "a", "b"])[y]
    clf = quick_classifier(cv=3)
    path = subnetwork_path(clf, X, labels, sizes=[4, 20])
    for scores, fit in zip(path.log_scores, path.estimators, strict=True):
        probabilities = fit.out_of_fold_.probabilities()
        at = [fit.classes_.tolist().index(label) for label in labels]
        assert_allclose(scores, np.log(probabilities[np.arange(len(y)), at]))


def test_path_says_what_each_fit_has():
    path = SubnetworkPath(
        params=[{"subnetwork_size": 20}, {"subnetwork_size": "all", "selection": "swag"}],
        sizes=[20, "all"],
        estimators=[None, None],
        n_weights=np.array([20.0, 57.5]),
        prior_precisions=np.array([1.25, 3e4]),
        log_scores=np.array([[-1.0, -2.0], [-0.5, -1.0]]),
    )
    assert repr(path) == (
        "SubnetworkPath of 2 fits\n"
        "  subnetwork_size=20: 20 weights, prior precision 1.25, mean log score -1.5\n"
        "  subnetwork_size='all', selection='swag': 57.5 weights, prior precision 3e+04, "
        "mean log score -0.75"
    )
    assert "log score" not in repr(replace(path, log_scores=None))


def test_sizes_that_do_not_fit_are_refused_before_training():
    X, y = iris()
    CountedMLP.training_passes.clear()
    clf = quick_classifier(classifier_net(CountedMLP))
    assert_refused(lambda: subnetwork_path(clf, X, y, sizes=[4, 10**6]), "1000000", "56 candidate")
    assert_refused(lambda: subnetwork_path(clf, X, y, sizes=[]), "sizes is empty")
    assert_refused(lambda: subnetwork_path(clf, X, y, sizes=5), "sizes=5", "[5]", error=TypeError)
    for sizes, told in (([], "sizes is empty"), ([-1], "subnetwork_size")):
        search = SubnetLaplaceClassifierCV(clf, subnetwork_sizes=sizes)
        assert_refused(lambda search=search: search.fit(X, y), told)
    assert_refused(lambda: subnetwork_path(clf, X, y, sizes=[4, 2.5]), "subnetwork_size")
    assert not CountedMLP.training_passes


# Searches

SEARCHES = {
    "r2": (SubnetLaplaceRegressorCV, quick_regressor(cv=2, **TUNED), diabetes, None),
    "density": (
        SubnetLaplaceRegressorCV,
        quick_regressor(**TUNED),
        diabetes,
        neg_gaussian_nll_scorer,
    ),
    "accuracy": (SubnetLaplaceClassifierCV, quick_classifier(cv=2, **TUNED), cancer, None),
    "probability": (
        SubnetLaplaceClassifierCV,
        quick_classifier(selection="greedy", prior_precision="evidence"),
        iris,
        "neg_log_loss",
    ),
}


def both(kind, estimator, sizes, X, y, **options):
    """A search and GridSearchCV, fitted."""
    params, more = options.pop("params", {}), options.pop("more", {})
    estimator = clone(estimator).set_params(random_state=0)
    several = {f"{name}s": values for name, values in more.items()}
    found = kind(estimator, subnetwork_sizes=sizes, **several, **options).fit(X, y, **params)
    grid = {"subnetwork_size": sizes, **more}
    expected = GridSearchCV(clone(estimator), grid, **options).fit(X, y, **params)
    return found, expected


def assert_same_search(found, expected, X):
    assert found.cv_results_.keys() == expected.cv_results_.keys()
    for name, values in expected.cv_results_.items():
        if "time" in name:
            assert found.cv_results_[name].shape == values.shape
        elif "score" in name:
            assert_allclose(found.cv_results_[name], values, rtol=1e-9)
            assert found.cv_results_[name].dtype == values.dtype
        else:
            assert list(found.cv_results_[name]) == list(values)
    assert found.best_params_ == expected.best_params_
    assert found.best_index_ == expected.best_index_
    assert found.subnetwork_size_ == expected.best_params_["subnetwork_size"]
    assert_allclose(found.best_score_, expected.best_score_, rtol=1e-9)
    assert found.n_splits_ == expected.n_splits_
    one, other = found.predictive(X), expected.best_estimator_.predictive(X)
    assert_allclose(one.mean, other.mean, rtol=1e-9)
    assert_allclose(one.covariance, other.covariance, rtol=1e-9)


@pytest.mark.parametrize(("kind", "estimator", "data", "scoring"), SEARCHES.values(), ids=SEARCHES)
def test_search_is_grid_search(kind, estimator, data, scoring):
    X, y = data()
    found, expected = both(kind, estimator, [20, 2, "all"], X, y, cv=2, scoring=scoring)
    assert_same_search(found, expected, X)
    assert found.score(X, y) == pytest.approx(expected.score(X, y), rel=1e-9)


def drawn_scores(trained):
    """A selection of the user's own."""
    return trained.weight_vector().abs() + torch.rand(len(trained.weight_vector()))


EVERYTHING = {
    "folds": (SubnetLaplaceRegressorCV, SubnetLaplaceRegressor(SMALL, cv=2), diabetes),
    "noise by row": (
        SubnetLaplaceRegressorCV,
        SubnetLaplaceRegressor(SMALL, cv=None, noise="input"),
        diabetes,
    ),
    "refit": (SubnetLaplaceRegressorCV, quick_regressor(cv=2, refit=True), diabetes),
    "user's net, held out or not": (SubnetLaplaceClassifierCV, quick_classifier(), iris),
}


@pytest.mark.parametrize(("kind", "estimator", "data"), EVERYTHING.values(), ids=EVERYTHING)
def test_search_over_all_but_the_net_is_grid_search(kind, estimator, data):
    X, y = (part[::3] for part in data())
    more = {
        "selection": ["greedy", np.arange(7), drawn_scores],
        "prior_precision": ["validation", 0.5, "evidence"],
    }
    scoring = None if is_classifier(estimator) else neg_gaussian_nll_scorer
    options = {"cv": KFold(2, shuffle=True, random_state=0), "scoring": scoring}
    found, expected = both(kind, estimator, [6, 0.5], X, y, more=more, **options)
    assert len(found.cv_results_["params"]) == 18
    assert_same_search(found, expected, X)


def test_path_over_selections_and_priors_is_separate_fits():
    X, y = (part[:80] for part in diabetes())
    reg = SubnetLaplaceRegressor(SMALL, cv=2, random_state=0)
    varied = {"selections": ["gradient", "greedy"], "prior_precisions": ["evidence", "validation"]}
    path = subnetwork_path(reg, X, y, sizes=[1, 1.0, 9], **varied)
    assert path.sizes == 4 * [1, 1.0, 9]
    assert path.params[4] == {
        "prior_precision": "evidence",
        "selection": "greedy",
        "subnetwork_size": 1.0,
    }
    for point, found in zip(path.params, path.estimators, strict=True):
        assert_same_fit(found, clone(reg).set_params(**point).fit(X, y), X)
    empty = {"selections": []}
    assert_refused(lambda: subnetwork_path(reg, X, y, sizes=[1], **empty), "selections is empty")


@pytest.mark.parametrize("with_memory", [False, True])
def test_a_search_over_all_but_the_net_trains_once_a_fold(with_memory, tmp_path):
    """Of the search itself, or of GridSearchCV with a memory: three folds and the last fit."""
    X, y = iris()
    grid = {
        "selection": ["greedy", "gradient"],
        "prior_precision": ["validation", 1.0, "evidence"],
        "subnetwork_size": [4, 9],
    }
    net = classifier_net(CountedMLP)
    clf = SubnetLaplaceClassifier(net, cv=2, random_state=0)
    CountedMLP.training_passes.clear()
    if with_memory:
        GridSearchCV(clf.set_params(memory=str(tmp_path)), grid, cv=3).fit(X, y)
    else:
        sizes, more = grid["subnetwork_size"], {f"{k}s": grid[k] for k in list(grid)[:2]}
        SubnetLaplaceClassifierCV(clf, subnetwork_sizes=sizes, **more, cv=3).fit(X, y)
    seen = sum(CountedMLP.training_passes) / net.max_epochs
    # A fold of the search has two thirds of the rows, each of which trains one of two nets; equal
    # rows are merged.
    assert seen <= 3 * (2 / 3) * len(X) + len(X)
    assert seen >= 2.5 * len(X)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_search_with_memory_and_workers(n_jobs, tmp_path):
    X, y = diabetes()
    reg = quick_regressor(cv=2, **TUNED)
    options = {"cv": KFold(2), "scoring": neg_gaussian_nll_scorer}
    remembers = clone(reg).set_params(memory=str(tmp_path))
    search = SubnetLaplaceRegressorCV(remembers, subnetwork_sizes=[5, 30], n_jobs=n_jobs, **options)
    with parallel_config("threading"):
        found = search.fit(X, y)
    expected = GridSearchCV(reg, {"subnetwork_size": [5, 30]}, **options).fit(X, y)
    assert_same_search(found, expected, X)


@pytest.mark.parametrize("cv", [GroupKFold(3), ShuffleSplit(2, random_state=0)])
def test_search_hands_on_weights_and_groups(cv):
    X, y = iris()
    rng = np.random.default_rng(1)
    params = {"sample_weight": rng.uniform(0.5, 3, len(y))}
    if isinstance(cv, GroupKFold):
        params["groups"] = rng.integers(12, size=len(y))
    found, expected = both(
        SubnetLaplaceClassifierCV, quick_classifier(), [4, 30], X, y, cv=cv, params=params
    )
    assert_same_search(found, expected, X)


def test_search_warns_of_scores_without_weights():
    X, y = iris()
    scoring = make_scorer(lambda y, predicted: float((y == predicted).mean()))
    search = SubnetLaplaceClassifierCV(quick_classifier(), subnetwork_sizes=[4], scoring=scoring)
    with pytest.warns(UserWarning, match="does not support sample_weight"):
        search.fit(X, y, sample_weight=np.ones(len(y)))


def test_metadata_routing():
    X, y = iris()
    weights = np.random.default_rng(0).integers(1, 5, len(y)).astype(float)
    groups = np.arange(len(y)) % 7
    with config_context(enable_metadata_routing=True):
        clf = quick_classifier().set_fit_request(sample_weight=True, groups=False)
        clf.set_score_request(sample_weight=True)
        params = {"sample_weight": weights, "groups": groups}
        found, expected = both(
            SubnetLaplaceClassifierCV, clf, [4, 30], X, y, cv=GroupKFold(2), params=params
        )
        assert_same_search(found, expected, X)
        score = found.score(X, y, sample_weight=weights)
        in_pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), found)
        in_pipeline.fit(X, y, **params)
    assert score == accuracy_score(y, found.predict(X), sample_weight=weights)
    assert_array_equal(in_pipeline[-1].predict(X), found.predict(X))


def test_without_refit_there_is_nothing_to_predict_with():
    X, y = iris()
    search = SubnetLaplaceClassifierCV(quick_classifier(), subnetwork_sizes=[4, 30], refit=False)
    with pytest.raises(NotFittedError):
        search.predict(X)
    search.fit(X, y)
    assert search.subnetwork_size_ in (4, 30)
    assert not hasattr(search, "best_estimator_") and not hasattr(search, "n_features_in_")
    assert_refused(lambda: search.predict(X), "refit=False", "best_params_", error=AttributeError)


def test_search_in_a_pickle_on_frames_and_in_a_display():
    X, y = diabetes()
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"column {j}" for j in range(X.shape[1])])
    reg = quick_regressor(random_state=0)
    search = SubnetLaplaceRegressorCV(reg, subnetwork_sizes=[4, 30], cv=2).fit(frame, y)
    assert search.feature_names_in_.tolist() == list(frame.columns)
    again = pickle.loads(pickle.dumps(search))
    for one, other in zip(
        again.predict(frame, return_std=True), search.predict(frame, return_std=True), strict=True
    ):
        assert_array_equal(one, other)
    assert again.cv_results_["params"] == search.cv_results_["params"]
    assert not hasattr(clone(search), "cv_results_")
    display = SizePathDisplay.from_search(search)
    assert_allclose(display.mean_, search.cv_results_["mean_test_score"])
    best = search.best_estimator_
    assert_array_equal(search.predict_interval(frame, 0.5), best.predict_interval(frame, 0.5))
    assert_array_equal(search.predict_quantiles(frame), best.predict_quantiles(frame))
    assert_array_equal(search.sample_y(frame, 2), best.sample_y(frame, 2))


def test_a_failing_fold_is_a_missing_score():
    X, y = iris()
    order = np.argsort(y, kind="stable")
    X, y = X[order], y[order]
    folds = [(np.arange(100), np.arange(100, 150)), (np.arange(50), np.arange(50, 150))]
    with pytest.warns(FitFailedWarning):
        found, expected = both(
            SubnetLaplaceClassifierCV, quick_classifier(), [4, 30], X, y, cv=folds
        )
    assert np.isnan(found.cv_results_["split1_test_score"]).all()
    assert_same_search(found, expected, X)


def test_estimators_of_the_other_task_are_refused():
    X, y = iris()
    wrong = [(SubnetLaplaceClassifierCV, quick_regressor()), (SubnetLaplaceRegressorCV, 3)]
    for kind, estimator in wrong:
        assert_refused(lambda k=kind, e=estimator: k(e).fit(X, y), "estimator", "SubnetLaplace")
    default = SubnetLaplaceRegressorCV()
    assert not is_classifier(default) and is_classifier(SubnetLaplaceClassifierCV())


@pytest.mark.parametrize("stage", ["search", "refit"])
def test_a_search_that_stops_leaves_the_former_one(stage, monkeypatch):
    X, y = iris()
    search = SubnetLaplaceClassifierCV(quick_classifier(), subnetwork_sizes=[4, 30], cv=2)
    search.fit(X, y)
    before = dict(vars(search))
    fit = SubnetLaplaceClassifier.fit

    def stopped(self, *args, **params):
        raise KeyboardInterrupt

    if stage == "search":
        monkeypatch.setattr(size_path, "fitted_path", stopped)
    else:
        monkeypatch.setattr(SubnetLaplaceClassifier, "fit", stopped)
    search.set_params(refit=True, cv=3)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X[:, :2], y)
    assert vars(search) | {"cv": 2} == before
    fresh = clone(search)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(X, y)
    assert not [name for name in vars(fresh) if name.endswith("_")]
    monkeypatch.setattr(SubnetLaplaceClassifier, "fit", fit)
    assert search.predict(X).shape == y.shape


def test_a_search_without_refit_forgets_the_former_fit():
    X, y = iris()
    search = SubnetLaplaceClassifierCV(quick_classifier(), subnetwork_sizes=[4, 30], cv=2)
    search.fit(X, y).set_params(refit=False).fit(X, y)
    assert not hasattr(search, "best_estimator_")
