"""Hard tables and targets through the public estimators: they train sensibly, or scale exactly."""

import functools
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import log_loss, r2_score

from sksubnet import (
    MAPClassifier,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
)

CLASSIFIERS = pytest.mark.parametrize("classifier", [MAPClassifier, SubnetLaplaceClassifier])
REGRESSORS = pytest.mark.parametrize("regressor", [MAPRegressor, SubnetLaplaceRegressor])

N_TRAIN = 150


def table(n_rows: int = 200, n_columns: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n_rows, n_columns))


def labels(X: np.ndarray) -> np.ndarray:
    """Three classes; a linear model with Gumbel noise."""
    rng = np.random.default_rng(1)
    scores = 2 * X @ rng.normal(size=(X.shape[1], 3))
    return (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def targets(X: np.ndarray) -> np.ndarray:
    """Target of sd 2 with noise of sd 0.3."""
    rng = np.random.default_rng(2)
    linear = X @ rng.normal(size=X.shape[1])
    return linear + np.sin(2 * X[:, 0]) + 0.3 * rng.normal(size=len(X))


def prior_loss(y_train: np.ndarray, y_test: np.ndarray) -> float:
    """Log loss of the class frequencies of the training rows."""
    classes, counts = np.unique(y_train, return_counts=True)
    frequencies = np.tile(counts / counts.sum(), (len(y_test), 1))
    return log_loss(y_test, frequencies, labels=classes)


def loss_and_prior(classifier, X, y, n_train=N_TRAIN) -> tuple[float, float]:
    """Held-out log loss of a default fit, and that of the class frequencies."""
    model = classifier(random_state=0).fit(X[:n_train], y[:n_train])
    found = model.predict_proba(X[n_train:])
    assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    loss = log_loss(y[n_train:], found, labels=model.classes_)
    return loss, prior_loss(y[:n_train], y[n_train:])


@CLASSIFIERS
def test_constant_columns_never_act_on_classes(classifier):
    X = table()
    y = labels(X)

    def probabilities(constant, at_predict):
        wide = np.c_[X, np.full((len(X), 2), constant)]
        model = classifier(random_state=0).fit(wide[:N_TRAIN], y[:N_TRAIN])
        wide[:, 4] = at_predict
        return model.predict_proba(wide[N_TRAIN:])

    expected = probabilities(0.0, 0.0)
    assert log_loss(y[N_TRAIN:], expected) < 0.8 * prior_loss(y[:N_TRAIN], y[N_TRAIN:])
    for constant, at_predict in [(0.0, 1e6), (0.1, 0.1), (-7.0, 3.0), (1e300, 0.0)]:
        assert_allclose(probabilities(constant, at_predict), expected, atol=1e-10)


@REGRESSORS
def test_constant_columns_never_act_on_a_target(regressor):
    X = table()
    y = targets(X)

    def mean_and_std(constant, at_predict):
        wide = np.c_[np.full(len(X), constant), X]
        model = regressor(random_state=0).fit(wide[:N_TRAIN], y[:N_TRAIN])
        wide[:, 0] = at_predict
        return np.array(model.predict(wide[N_TRAIN:], return_std=True))

    expected = mean_and_std(0.0, 0.0)
    for constant, at_predict in [(0.0, 1e6), (0.1, 0.1), (1e300, 0.0)]:
        assert_allclose(mean_and_std(constant, at_predict), expected, rtol=1e-8)


WILD = [190, 191]


def with_outliers(X: np.ndarray) -> np.ndarray:
    """Two Cauchy columns; a cell of 1e12 and a wild row in training, and the same in ``WILD``."""
    rng = np.random.default_rng(3)
    wild = np.c_[X, 1e3 * rng.standard_cauchy((len(X), 2))]
    wild[[5, WILD[0]], [0, 1]] = 1e12, -1e12
    wild[[9, WILD[1]]] = 1e100 * rng.normal(size=(2, wild.shape[1]))
    return wild


@pytest.mark.parametrize(("dtype", "wild"), [("float64", 1e200), ("float32", 1e25)])
def test_a_wild_value_is_clipped(dtype, wild):
    X = table()
    model = MAPClassifier(dtype=dtype, random_state=0).fit(X, labels(X))
    found = [
        model.predict_proba(X * [1, 1, 0, 1] + [0, 0, at, 0]) for at in (1e8, wild, 1.1 * wild)
    ]
    assert_allclose(found[1], found[0], atol=1e-6)
    assert_array_equal(found[2], found[1])


def with_heavy_tails(X: np.ndarray) -> np.ndarray:
    """The same information in columns with values up to some 1e10."""
    return np.sign(X) * np.expm1(8 * np.abs(X))


@CLASSIFIERS
@pytest.mark.parametrize("spoil", [with_outliers, with_heavy_tails])
def test_heavy_tails_classes(classifier, spoil):
    X = table()
    loss, prior = loss_and_prior(classifier, spoil(X), labels(X))
    assert loss < 0.85 * prior


@REGRESSORS
@pytest.mark.parametrize("spoil", [with_outliers, with_heavy_tails])
def test_heavy_tails_target(regressor, spoil):
    X = table()
    X, y = spoil(X), targets(X)
    model = regressor(random_state=0).fit(X[:N_TRAIN], y[:N_TRAIN])
    tame = np.setdiff1d(np.arange(N_TRAIN, len(X)), WILD)
    mean, std = model.predict(X[tame], return_std=True)
    assert r2_score(y[tame], mean) > 0.6
    assert np.mean(np.abs(y[tame] - mean) < 2 * std) > 0.6
    mean, std = model.predict(X[WILD], return_std=True)
    assert (np.abs(mean) < 5 * np.abs(y).max()).all()
    # noise by row: no wild row has much less than the mean of all
    assert (std >= 0.5 * model.noise_std_).all() and np.isfinite(std).all()


@CLASSIFIERS
def test_five_and_two_rows_classes(classifier):
    X = table()
    y = labels(X)[:5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = classifier(random_state=0).fit(X[:5], y)
        pair = classifier(random_state=0).fit(X[:2], ["a", "b"])
    assert len(model.classes_) > 1
    # A posterior of five rows knows little more than the class frequencies.
    assert log_loss(y, model.predict_proba(X[:5])) < 1.1 * prior_loss(y, y)
    found = model.predict_proba(X)
    assert_allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    assert_array_equal(pair.predict(X[:2]), ["a", "b"])


@REGRESSORS
def test_five_and_two_rows_target(regressor):
    X = table()
    y = targets(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n_rows in (5, 2):
            model = regressor(random_state=0).fit(X[:n_rows], y[:n_rows])
            mean, std = model.predict(X, return_std=True)
            assert r2_score(y[:n_rows], mean[:n_rows]) > 0.5
            assert (std > 0).all() and np.isfinite(std).all() and np.isfinite(mean).all()
            if regressor is SubnetLaplaceRegressor:
                # What is far from the few rows is less certain than these. A net of two folds has
                # seen half of them; one net has seen all.
                unknown = model.predictive(X).std("epistemic")
                assert unknown[n_rows:].mean() > 1.5 * unknown[:n_rows].mean()
                alone = regressor(cv=None, random_state=0).fit(X[:n_rows], y[:n_rows])
                std = alone.predict(X, return_std=True)[1]
                assert std[n_rows:].mean() > 2 * std[:n_rows].mean()


def rare_categories() -> tuple[np.ndarray, np.ndarray]:
    """Rows (1000, 303) with 300 one-hot columns of some 3 rows each, and a linear signal."""
    rng = np.random.default_rng(4)
    category = rng.permutation(np.r_[np.arange(300), rng.integers(300, size=700)])
    numbers = rng.normal(size=(1000, 3))
    signal = 2 * rng.normal(size=300)[category] + numbers[:, 0]
    return np.c_[np.eye(300)[category], numbers], signal


@CLASSIFIERS
def test_300_rare_categories_classes(classifier):
    X, signal = rare_categories()
    y = (signal + np.random.default_rng(5).logistic(size=1000) > 0).astype(int)
    model = classifier(random_state=0).fit(X[:800], y[:800])
    assert log_loss(y[800:], model.predict_proba(X[800:])) < 0.95 * prior_loss(y[:800], y[800:])
    unseen = np.c_[np.zeros((200, 300)), X[800:, 300:]]
    found = model.predict_proba(unseen)[:, 1]
    # The numbers still count, and nothing is surer than for rows with a known category.
    assert np.corrcoef(found, unseen[:, 300])[0, 1] > 0.3
    known = model.predict_proba(X[:800])[:, 1]
    assert known.min() < found.min() and found.max() < known.max()


@REGRESSORS
def test_300_rare_categories_target(regressor):
    X, y = rare_categories()
    y = y + 0.3 * np.random.default_rng(5).normal(size=1000)
    model = regressor(random_state=0).fit(X[:800], y[:800])
    assert r2_score(y[800:], model.predict(X[800:])) > 0.5
    unseen = np.c_[np.zeros((200, 300)), X[800:, 300:]]
    mean, std = model.predict(unseen, return_std=True)
    assert np.corrcoef(mean, unseen[:, 300])[0, 1] > 0.5
    assert (np.abs(mean) < np.abs(y).max()).all()
    assert (std >= model.noise_std_).all()


@functools.cache
def regressor_of_the_table(regressor):
    X = table()
    return regressor(random_state=0).fit(X, targets(X))


@REGRESSORS
@pytest.mark.parametrize("scale", [1e9, 1e-9, 2.0**200])
def test_scale_of_the_target(regressor, scale):
    X = table()
    y = targets(X)
    plain, scaled = regressor_of_the_table(regressor), regressor(random_state=0).fit(X, scale * y)
    expected = np.array(plain.predict(X, return_std=True))
    assert_allclose(np.array(scaled.predict(X, return_std=True)), scale * expected, rtol=1e-6)
    assert_allclose(scaled.noise_std_, scale * plain.noise_std_, rtol=1e-6)
    assert_allclose(scaled.sample_y(X[:3], 4), scale * plain.sample_y(X[:3], 4), rtol=1e-6)
    if regressor is SubnetLaplaceRegressor:
        # A density is per unit of the target; a fifth of the rows is held out.
        change = scaled.log_marginal_likelihood() - plain.log_marginal_likelihood()
        assert_allclose(change, -0.8 * len(y) * np.log(scale), rtol=1e-6)


@REGRESSORS
def test_offset_of_the_target(regressor):
    X = table()
    y = targets(X)
    plain, far = regressor_of_the_table(regressor), regressor(random_state=0).fit(X, 1e9 + y)
    mean, std = plain.predict(X, return_std=True)
    far_mean, far_std = far.predict(X, return_std=True)
    # Numbers near 1e9 are 1e-7 apart.
    assert_allclose(far_mean - 1e9, mean, atol=1e-4)
    assert_allclose(far_std, std, rtol=1e-4)


@REGRESSORS
@pytest.mark.parametrize("constant", [0.0, 5.0, 1e9, -1e-9])
def test_constant_target(regressor, constant):
    X = table(60)  # there is no noise to stop early on, so that every net takes all its epochs
    model = regressor(random_state=0).fit(X, np.full(len(X), constant))
    mean, std = model.predict(X, return_std=True)
    assert_allclose(mean, constant, rtol=1e-14, atol=1e-140)
    assert (std > 0).all() and (std <= 1e-12 * abs(constant) + 1e-140).all()


@REGRESSORS
def test_constant_target_beside_another(regressor):
    X = table()
    y = targets(X)
    both = np.c_[y, np.full(len(y), 3.0)]
    model = regressor(random_state=0).fit(X[:N_TRAIN], both[:N_TRAIN])
    mean = model.predict(X[N_TRAIN:])
    assert r2_score(y[N_TRAIN:], mean[:, 0]) > 0.8
    assert_allclose(mean[:, 1], 3.0, rtol=1e-12)


@CLASSIFIERS
def test_one_row_in_a_hundred(classifier):
    rng = np.random.default_rng(6)
    X = rng.normal(size=(2000, 4))
    score = X[:, 0] + 0.3 * rng.normal(size=2000)
    y = np.where(score > np.quantile(score, 0.99), "rare", "common")
    loss, prior = loss_and_prior(classifier, X, y, n_train=1000)
    assert loss < 0.8 * prior


@CLASSIFIERS
def test_class_with_a_single_row(classifier):
    X = table()
    y = labels(X)
    y[0] = 7
    model = classifier(random_state=0).fit(X[:N_TRAIN], y[:N_TRAIN])
    assert_array_equal(model.classes_, [0, 1, 2, 7])
    found = model.predict_proba(X[N_TRAIN:])
    loss = log_loss(y[N_TRAIN:], found, labels=model.classes_)
    assert loss < 0.8 * prior_loss(y[:N_TRAIN], y[N_TRAIN:])
    # Calibrated for a class of one row: some few per cent everywhere, nowhere 0.
    assert (found[:, 3] > 0).all() and found[:, 3].mean() < 0.1
    pair = classifier(random_state=0).fit(X[:N_TRAIN], np.arange(N_TRAIN) == 0)
    assert 0 < pair.predict_proba(X[N_TRAIN:])[:, 1].mean() < 0.1


@functools.cache
def probabilities_with_a_scale(classifier, scale):
    X = table()
    y, scaled = labels(X), X * [scale, 1, 1, 1]
    return classifier(random_state=0).fit(scaled[:N_TRAIN], y[:N_TRAIN]).predict_proba(scaled)


@CLASSIFIERS
@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-990, 2.0**100, 2.0**990])
def test_scale_of_a_column(classifier, scale):
    found = probabilities_with_a_scale(classifier, scale)
    assert_allclose(found, probabilities_with_a_scale(classifier, 1.0), atol=1e-9)


@CLASSIFIERS
def test_types_of_the_columns(classifier):
    X = table(100)
    numbers, y = np.round(10 * X), labels(X)
    expected = classifier(random_state=0).fit(numbers, y).predict_proba(numbers)
    assert log_loss(y, expected) < 0.8 * prior_loss(y, y)
    for dtype in (np.int64, np.int8, np.float32, object):
        rows = numbers.astype(dtype)
        found = classifier(random_state=0).fit(rows, y).predict_proba(rows)
        assert_array_equal(found, expected)


@pytest.mark.parametrize("odd_rows", [0, 1])
@CLASSIFIERS
def test_duplicates_only_classes(classifier, odd_rows):
    X = np.tile([1.0, -2.0, 1e6], (N_TRAIN, 1))
    X[:odd_rows] += 1
    y = np.repeat(["a", "b", "c"], [90, 45, 15])
    y = np.random.default_rng(7).permutation(y)
    model = classifier(random_state=0).fit(X, y)
    assert_allclose(model.predict_proba(X[-1:]), [[0.6, 0.3, 0.1]], atol=0.1)


@pytest.mark.parametrize("odd_rows", [0, 1])
@REGRESSORS
def test_duplicates_only_target(regressor, odd_rows):
    X = np.tile([1.0, -2.0, 1e6], (N_TRAIN, 1))
    X[:odd_rows] += 1
    y = 50 + 3 * np.random.default_rng(7).normal(size=N_TRAIN)
    mean, std = regressor(random_state=0).fit(X, y).predict(X[-1:], return_std=True)
    assert_allclose(mean, y.mean(), atol=1)
    assert_allclose(std, y.std(), rtol=0.25)


@pytest.mark.parametrize("scale", [2.0**-900, 2.0**900])
def test_scale_of_the_sample_weights(scale):
    X = table()
    y = labels(X)
    weights = np.random.default_rng(8).uniform(0.5, 2, size=len(X))
    found, expected = (
        MAPClassifier(random_state=0).fit(X, y, factor * weights).predict_proba(X)
        for factor in (scale, 1.0)
    )
    assert_allclose(found, expected, atol=1e-9)
