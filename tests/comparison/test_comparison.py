"""Comparisons against explicit loops over folds."""

from pickle import PicklingError

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from scipy import stats
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import BayesianRidge, LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sksubnet import SubnetLaplaceRegressor
from sksubnet.comparison.same_folds import compare
from sksubnet.metrics import expected_calibration_error, gaussian_crps, gaussian_nll

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3))
CODES = np.digitize(X[:, 0] + 0.8 * RNG.normal(size=90), [-0.4, 0.5])
LABELS = np.array(["high", "low", "mid"])[CODES]
TARGETS = X @ [1.0, -2.0, 0.5] + 0.3 * RNG.normal(size=90)
SHIFTED_X = RNG.normal(size=(40, 3)) + 1.0
SHIFTED_CODES = np.digitize(SHIFTED_X[:, 0] + RNG.normal(size=40), [-0.4, 0.5])
SHIFTED_LABELS = np.array(["high", "low", "mid"])[SHIFTED_CODES]
SHIFTED_TARGETS = SHIFTED_X @ [1.0, -2.0, 0.5] + 0.3 * RNG.normal(size=40)

CLASSIFIERS = {
    "Bayes": GaussianNB(),
    "linear": make_pipeline(StandardScaler(), LogisticRegression()),
}
REGRESSORS = {
    "plain": LinearRegression(),
    "ridge": make_pipeline(StandardScaler(), BayesianRidge()),
    "process": GaussianProcessRegressor(alpha=0.1),
}


def scores_by_hand(estimator, splits, score, X, y, shifted):
    """Scores (n_sets, n_scores, n_folds) from one fit for each fold."""
    on_test, on_shifted = [], []
    for train, test in splits:
        fit = clone(estimator).fit(X[train], y[train])
        on_test.append(score(fit, X[test], y[test]))
        on_shifted.append(score(fit, *shifted))
    return np.array([np.transpose(on_test), np.transpose(on_shifted)])


def scores_of_classes(fit, X, y):
    p = fit.predict_proba(X)
    truth = (y[:, None] == fit.classes_).astype(float)
    return [
        -np.mean(np.log((p * truth).sum(axis=1))),
        np.mean(((p - truth) ** 2).sum(axis=1)) / (2 if p.shape[1] == 2 else 1),
        np.mean(fit.predict(X) != y),
        expected_calibration_error(y, p, labels=fit.classes_),
    ]


def scores_of_targets(fit, X, y):
    mean, std = fit.predict(X, return_std=True)
    lower, upper = stats.norm(mean, std).interval(0.9)
    return [
        -stats.norm(mean, std).logpdf(y).mean(),
        gaussian_crps(y, mean, std),
        np.sqrt(np.mean((y - mean) ** 2)),
        np.mean((lower <= y) & (y <= upper)),
        np.mean(upper - lower),
    ]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifiers_against_a_loop_over_the_folds(n_classes):
    keep, keep_shifted = np.isin(CODES, range(n_classes)), np.isin(SHIFTED_CODES, range(n_classes))
    rows, labels = X[keep], LABELS[keep]
    shifted = SHIFTED_X[keep_shifted], SHIFTED_LABELS[keep_shifted]
    result = compare(CLASSIFIERS, rows, labels, cv=4, shifted={"moved": shifted})
    splits = list(StratifiedKFold(4).split(rows, labels))
    assert (result.sets, result.names) == (("test folds", "moved"), ("Bayes", "linear"))
    assert list(result.better) == ["log loss", "Brier", "error", "ECE", "fit s", "score s"]
    for e, estimator in enumerate(CLASSIFIERS.values()):
        expected = scores_by_hand(estimator, splits, scores_of_classes, rows, labels, shifted)
        np.testing.assert_allclose(result.values[:, e, :4], expected, rtol=1e-10)
    assert (result.values[0, :, 4:] > 0).all() and np.isnan(result.values[1, :, 4:]).all()


def test_regressors_against_a_loop_over_the_folds():
    shifted = SHIFTED_X, SHIFTED_TARGETS
    result = compare(REGRESSORS, X, TARGETS, shifted={"moved": shifted})
    assert list(result.better)[:5] == ["NLL", "CRPS", "RMSE", "90 % coverage", "90 % width"]
    splits = list(KFold(5).split(X))
    for e, name in [(1, "ridge"), (2, "process")]:
        expected = scores_by_hand(REGRESSORS[name], splits, scores_of_targets, X, TARGETS, shifted)
        np.testing.assert_allclose(result.values[:, e, :5], expected, rtol=1e-10)


def test_a_regressor_without_a_standard_deviation_has_a_squared_error_only():
    search = GridSearchCV(BayesianRidge(), {"tol": [1e-3]}, cv=2)
    target = TransformedTargetRegressor(BayesianRidge(), transformer=StandardScaler())
    models = {"plain": LinearRegression(), "search": search, "target": target}
    result = compare(models, X, TARGETS)
    rmse = list(result.better).index("RMSE")
    assert np.isnan(np.delete(result.values, [rmse, 5, 6], axis=2)).all()
    for f, (train, test) in enumerate(KFold(5).split(X)):
        error = LinearRegression().fit(X[train], TARGETS[train]).predict(X[test]) - TARGETS[test]
        assert result.values[0, 0, rmse, f] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert str(result).splitlines()[0].split() == [
        "test",
        "folds",
        "RMSE",
        "fit",
        "s",
        "score",
        "s",
    ]


def test_several_targets():
    Y = np.column_stack([TARGETS, 2 * TARGETS + X[:, 0]])
    model = GaussianProcessRegressor(alpha=0.1)
    result = compare({"process": model}, X, Y, cv=3)
    train, test = next(KFold(3).split(X))
    mean, std = model.fit(X[train], Y[train]).predict(X[test], return_std=True)
    assert result.values[0, 0, 0, 0] == pytest.approx(-stats.norm(mean, std).logpdf(Y[test]).mean())


def test_subnetwork_in_a_pipeline_is_scored_with_its_standard_deviation():
    subnetwork = SubnetLaplaceRegressor(subnetwork_size=20, selection="magnitude", random_state=0)
    model = make_pipeline(StandardScaler(), subnetwork)
    result = compare(
        {"subnetwork": model}, X, TARGETS, cv=2, shifted={"moved": (SHIFTED_X, SHIFTED_TARGETS)}
    )
    for f, (_, test) in enumerate(KFold(2).split(X)):
        fit = result.estimators["subnetwork"][f]
        mean, std = fit.predict(X[test], return_std=True)
        assert result.values[0, 0, 0, f] == gaussian_nll(TARGETS[test], mean, std)
        mean, std = fit.predict(SHIFTED_X, return_std=True)
        assert result.values[1, 0, 0, f] == gaussian_nll(SHIFTED_TARGETS, mean, std)


def test_folds_are_drawn_once_for_all_estimators():
    twins = {"one": GaussianNB(), "other": GaussianNB()}
    for cv in (StratifiedKFold(3, shuffle=True), (s for s in [*KFold(3).split(X)])):
        result = compare(twins, X, LABELS, cv=cv)
        np.testing.assert_array_equal(result.values[0, 0, :4], result.values[0, 1, :4])


def test_groups_reach_the_splitter():
    groups = np.arange(90) // 7
    expected = compare(CLASSIFIERS, X, LABELS, cv=list(GroupKFold(4).split(X, groups=groups)))
    result = compare(CLASSIFIERS, X, LABELS, cv=GroupKFold(4), groups=groups)
    np.testing.assert_array_equal(result.values[:, :, :4], expected.values[:, :, :4])


def test_params_reach_fit():
    weights = np.random.default_rng(1).integers(1, 4, size=90)
    result = compare({"Bayes": GaussianNB()}, X, LABELS, params={"sample_weight": weights})
    for f, (train, test) in enumerate(StratifiedKFold(5).split(X, LABELS)):
        repeated = np.repeat(train, weights[train])
        fit = GaussianNB().fit(X[repeated], LABELS[repeated])
        assert result.values[0, 0, 0, f] == pytest.approx(
            scores_of_classes(fit, X[test], LABELS[test])[0]
        )


def test_tables_columns_of_labels_and_jobs_change_nothing():
    expected = compare(CLASSIFIERS, X, CODES, shifted={"moved": (SHIFTED_X, SHIFTED_CODES)})
    frame, moved = (pd.DataFrame(rows, columns=list("abc")) for rows in (X, SHIFTED_X))
    names = pd.Series(LABELS, index=np.arange(90)[::-1])
    # the names are sorted as their codes are
    with parallel_config(backend="threading"):
        result = compare(
            CLASSIFIERS,
            frame,
            names,
            shifted={"moved": (moved, pd.Series(SHIFTED_LABELS))},
            n_jobs=2,
        )
    np.testing.assert_allclose(result.values[:, :, :4], expected.values[:, :, :4], rtol=1e-12)


def test_test_rows_may_lack_a_class():
    order = np.argsort(LABELS, kind="stable")
    test = order[:20]
    train = np.setdiff1d(order, test)
    shifted = X[test], LABELS[test]
    assert set(LABELS[test]) < set(LABELS[train])
    result = compare(
        {"Bayes": GaussianNB()}, X, LABELS, cv=[(train, test)], shifted={"same": shifted}
    )
    fit = GaussianNB().fit(X[train], LABELS[train])
    expected = scores_of_classes(fit, X[test], LABELS[test])
    for s in range(2):
        np.testing.assert_allclose(result.values[s, 0, :4, 0], expected, rtol=1e-12)


def log_loss_by_hand(fit, X, y):
    return -scores_of_classes(fit, X, y)[0]


@pytest.mark.parametrize(
    ("scoring", "better"),
    [
        ("neg_log_loss", {"log_loss": -1}),
        (["neg_log_loss", "accuracy"], {"log_loss": -1, "accuracy": 1}),
        ({"neg_nats": log_loss_by_hand, "share": "accuracy"}, {"nats": -1, "share": 1}),
        (log_loss_by_hand, {"score": 1}),
        (
            lambda fit, X, y: {"neg_nats": log_loss_by_hand(fit, X, y), "error": fit.score(X, y)},
            {"nats": -1, "error": 1},
        ),
    ],
    ids=["name", "list", "dict", "number", "numbers"],
)
def test_other_scores(scoring, better):
    shifted = SHIFTED_X, SHIFTED_LABELS
    result = compare(CLASSIFIERS, X, LABELS, scoring=scoring, shifted={"moved": shifted})
    assert result.better == {**better, "fit s": 0, "score s": 0}
    splits = StratifiedKFold(5).split(X, LABELS)
    expected = scores_by_hand(GaussianNB(), splits, scores_of_classes, X, LABELS, shifted)
    loss = -result.values[:, 0, 0] if better == {"score": 1} else result.values[:, 0, 0]
    np.testing.assert_allclose(loss, expected[:, 0], rtol=1e-10)
    if len(better) > 1:
        np.testing.assert_allclose(result.values[:, 0, 1], 1 - expected[:, 2])


def test_one_fold_has_no_error():
    result = compare(
        CLASSIFIERS, X, LABELS, cv=ShuffleSplit(1, random_state=0), shifted={"same": (X, LABELS)}
    )
    assert np.isnan(result.error()).all() and np.isnan(result.difference()[1]).all()
    assert "±" not in str(result).replace("so without ±", "")
    assert "*" not in str(result)


FRAME = pd.DataFrame(X, columns=list("abc"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimators": GaussianNB()}, "must be a dict of names and estimators.*got GaussianNB"),
        ({"estimators": {}}, "must be a dict of names and estimators.*got {}"),
        (
            {"estimators": {"a": "GaussianNB"}},
            r"estimators\['a'\] is 'GaussianNB', which has no fit",
        ),
        (
            {"estimators": {"a": GaussianNB}},
            r"is the class GaussianNB; give an instance, GaussianNB\(\)",
        ),
        (
            {"estimators": {"a": GaussianNB(), "b": BayesianRidge()}},
            "they are {'a': classifier, 'b': regressor}",
        ),
        ({"y": TARGETS}, "Unknown label type: continuous"),
        ({"estimators": {"a": StandardScaler()}}, "they are {'a': neither}"),
        (
            {"estimators": {"a": LinearSVC()}},
            r"\['a'\] has no predict_proba.*CalibratedClassifierCV",
        ),
        ({"shifted": (X, LABELS)}, "shifted must be a dict.*got tuple"),
        ({"shifted": {"s": X}}, r"shifted\['s'\] must be a pair \(X, y\); got ndarray"),
        ({"shifted": {"s": (X, LABELS[:5])}}, r"inconsistent numbers of samples.*90.*5"),
        ({"shifted": {"s": (X[:, :2], LABELS)}}, r"rows of shape \(2,\), but those of X.*\(3,\)"),
        (
            {"X": FRAME, "shifted": {"s": (FRAME.rename(columns={"b": "z"}), LABELS)}},
            r"columns of X in their order; missing: \['b'\], not in X: \['z'\]",
        ),
        (
            {"X": FRAME, "shifted": {"s": (FRAME[list("cba")], LABELS)}},
            r"in their order; missing: \[\].*shifted_X\[X.columns\]",
        ),
        (
            {"cv": [(np.flatnonzero(LABELS != "mid"), np.arange(90))]},
            r"training rows of fold 1 have no row of the classes \['mid'\].*test rows of fold 1",
        ),
        (
            {"shifted": {"s": (X[:2], ["low", "unseen"])}},
            r"no row of the classes \['unseen'\], which are in shifted\['s'\]",
        ),
    ],
)
def test_messages_before_anything_is_trained(arguments, message):
    arguments = {"estimators": {"broken": Broken()}, "X": X, "y": LABELS, **arguments}
    with pytest.raises((ValueError, TypeError), match=message):
        compare(**arguments)


class Broken(GaussianNB):
    def fit(self, X, y):
        raise RuntimeError("fit was called")


def test_an_error_inside_an_estimator_tells_its_name():
    with pytest.raises(RuntimeError, match="fit was called") as caught:
        compare({"good": GaussianNB(), "bad": Broken()}, X, LABELS)
    assert caught.value.__notes__ == ["This happened with estimators['bad']."]


class Unpicklable(GaussianNB):
    def fit(self, X, y):
        raise PicklingError("not a module's")


def test_a_fit_that_cannot_come_back_from_its_process_is_told_what_to_do():
    with pytest.raises(PicklingError) as caught:
        compare({"lost": Unpicklable()}, X, LABELS)
    where, what_to_do = caught.value.__notes__
    assert where == "This happened with estimators['lost']."
    assert "Write the classes of the net in a module" in what_to_do and "n_jobs=None" in what_to_do


def test_classes_without_training_rows_are_allowed_where_a_scoring_allows_them():
    cv = [(np.flatnonzero(LABELS != "mid"), np.arange(90))]
    result = compare({"Bayes": GaussianNB()}, X, LABELS, cv=cv, scoring="accuracy")
    assert 0 < result.values[0, 0, 0, 0] <= np.mean(LABELS != "mid")
