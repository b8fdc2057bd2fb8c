"""Metrics against scipy, numerical integration and explicit loops."""

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.model_selection import cross_val_score

from sksubnet.metrics import (
    expected_calibration_error,
    gaussian_crps,
    gaussian_nll,
    interval_coverage,
    interval_width,
    neg_expected_calibration_error_scorer,
    neg_gaussian_crps_scorer,
    neg_gaussian_nll_scorer,
)

RNG = np.random.default_rng(0)
Y = RNG.normal(size=6)
MEAN = RNG.normal(size=6)
STD = RNG.uniform(0.3, 2.0, size=6)
WEIGHT = np.array([1.0, 2.0, 0.0, 1.0, 3.0, 1.0])
REPEATED = np.repeat(np.arange(6), WEIGHT.astype(int))


def test_gaussian_nll_is_minus_the_log_density():
    assert gaussian_nll(Y, MEAN, STD) == pytest.approx(-stats.norm(MEAN, STD).logpdf(Y).mean())


def test_gaussian_crps_is_the_integral_of_the_squared_difference_of_the_cdfs():
    scores = []
    for y, mean, std in zip(Y, MEAN, STD, strict=True):
        below, _ = integrate.quad(lambda t, m=mean, s=std: stats.norm.cdf(t, m, s) ** 2, -30, y)
        above, _ = integrate.quad(lambda t, m=mean, s=std: stats.norm.sf(t, m, s) ** 2, y, 30)
        scores.append(below + above)
    assert gaussian_crps(Y, MEAN, STD) == pytest.approx(np.mean(scores), abs=1e-7)


def test_gaussian_crps_of_a_tiny_std_is_the_absolute_error():
    assert gaussian_crps(Y, MEAN, 1e-9) == pytest.approx(np.abs(Y - MEAN).mean(), rel=1e-7)


@pytest.mark.parametrize("score", [gaussian_nll, gaussian_crps])
def test_weights_act_as_repeated_rows_and_targets_are_averaged(score):
    weighted = score(Y, MEAN, STD, sample_weight=WEIGHT)
    assert weighted == pytest.approx(score(Y[REPEATED], MEAN[REPEATED], STD[REPEATED]))
    two = score(*(np.column_stack([values, values[::-1]]) for values in (Y, MEAN, STD)))
    assert two == pytest.approx(score(Y, MEAN, STD))
    assert score(Y, MEAN, 0.7) == pytest.approx(score(Y, MEAN, np.full(6, 0.7)))


def test_intervals_of_the_right_distribution_cover_what_they_promise():
    y = stats.norm(2.0, 3.0).ppf((np.arange(1000) + 0.5) / 1000)
    lower, upper = (np.full(1000, end) for end in stats.norm(2.0, 3.0).interval(0.8))
    assert interval_coverage(y, lower, upper) == pytest.approx(0.8)
    assert interval_width(lower, upper) == pytest.approx(2 * 3.0 * stats.norm.ppf(0.9))


def test_interval_ends_count_as_inside_and_weights_count():
    y, lower, upper = [0.0, 1.0, 2.0, 5.0], [0.0] * 4, [1.0, 1.0, 1.0, 3.0]
    assert interval_coverage(y, lower, upper) == 0.5
    assert interval_coverage(y, lower, upper, sample_weight=[1, 1, 3, 3]) == 0.25
    assert interval_width(lower, upper, sample_weight=[1, 1, 1, 1]) == 1.5
    assert interval_width(lower, upper, sample_weight=[0, 0, 0, 1]) == 3.0


def calibration_error_by_loop(y, prob, n_bins, weight):
    confidence, correct = prob.max(axis=1), prob.argmax(axis=1) == y
    error = 0.0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if weight[inside].sum() > 0:
            accuracy = np.average(correct[inside], weights=weight[inside])
            mean = np.average(confidence[inside], weights=weight[inside])
            error += weight[inside].sum() / weight.sum() * abs(accuracy - mean)
    return error


@pytest.mark.parametrize("n_bins", [1, 4, 15])
@pytest.mark.parametrize("weighted", [False, True])
def test_calibration_error_against_a_loop(n_bins, weighted):
    prob = np.random.default_rng(1).dirichlet([0.5, 1.0, 2.0], size=60)
    y = np.random.default_rng(2).integers(0, 3, size=60)
    weight = np.random.default_rng(3).uniform(size=60) if weighted else np.ones(60)
    result = expected_calibration_error(y, prob, n_bins, sample_weight=weight if weighted else None)
    assert result == pytest.approx(calibration_error_by_loop(y, prob, n_bins, weight))


def test_calibration_error_of_known_cases():
    sure = np.eye(2)[[0, 0, 1, 1]]
    assert expected_calibration_error([0, 0, 1, 1], sure) == 0.0
    assert expected_calibration_error([1, 1, 0, 0], sure) == 1.0
    assert expected_calibration_error([0, 1, 1, 1], [0.75] * 4) == pytest.approx(0.0)
    assert expected_calibration_error([0, 0, 0, 1], [0.9] * 4) == pytest.approx(0.65)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    prob = [[0.5, 0.5], [0.4, 0.6]]
    assert expected_calibration_error([1, 1], prob, 2, labels=[0, 1]) == pytest.approx(0.45)


def test_calibration_error_of_one_column_equals_that_of_two_and_of_named_labels():
    p = np.random.default_rng(4).uniform(size=30)
    y = np.random.default_rng(5).integers(0, 2, size=30)
    both = expected_calibration_error(y, np.column_stack([1 - p, p]))
    assert expected_calibration_error(y, p) == both
    names = np.array(["no", "yes"])[y]
    assert expected_calibration_error(names, p) == both
    swapped = np.column_stack([p, 1 - p])
    assert expected_calibration_error(names, swapped, labels=["yes", "no"]) == both


def test_a_class_that_does_not_occur_needs_labels():
    prob = np.array([[0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    with pytest.raises(ValueError, match="about 3 classes but y_true has 2; give `labels`"):
        expected_calibration_error([1, 0], prob)
    result = expected_calibration_error([1, 0], prob, labels=[0, 1, 2])
    assert result == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_nll(Y[:, None], MEAN, STD), r"y \(6, 1\), mean \(6,\)"),
        (lambda: gaussian_nll(Y, MEAN, STD * 0), "std has the value 0.0"),
        (lambda: gaussian_crps(Y, MEAN, STD[:, None]), "shapes differ"),
        (lambda: interval_width(Y, MEAN[:5]), "shapes differ"),
        (lambda: expected_calibration_error([0, 1], [-3.0, 2.0]), "not logits"),
        (lambda: expected_calibration_error([0, 1], [0.3, 0.2], 0), "n_bins=0"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("scorer", "score"),
    [(neg_gaussian_nll_scorer, gaussian_nll), (neg_gaussian_crps_scorer, gaussian_crps)],
)
@pytest.mark.parametrize("regressor", [BayesianRidge(), GaussianProcessRegressor(alpha=0.1)])
def test_regression_scorers(scorer, score, regressor):
    X = np.random.default_rng(6).normal(size=(20, 2))
    y = X @ [1.0, -2.0] + 0.3 * np.random.default_rng(7).normal(size=20)
    regressor.fit(X, y)
    mean, std = regressor.predict(X, return_std=True)
    assert scorer(regressor, X, y) == -score(y, mean, std)
    weight = np.arange(20.0)
    expected = -score(y, mean, std, sample_weight=weight)
    assert scorer(regressor, X, y, sample_weight=weight) == expected
    assert np.isfinite(cross_val_score(regressor, X, y, cv=2, scoring=scorer)).all()


def test_calibration_scorer_knows_the_classes_of_the_estimator():
    X = np.random.default_rng(8).normal(size=(60, 2))
    y = np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.4, 0.4])]
    classifier = LogisticRegression().fit(X, y)
    expected = -expected_calibration_error(y, classifier.predict_proba(X))
    assert neg_expected_calibration_error_scorer(classifier, X, y) == expected
    few = y != "b"
    assert np.isfinite(neg_expected_calibration_error_scorer(classifier, X[few], y[few]))
