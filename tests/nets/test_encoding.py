"""Inputs of the default net against repetition, the formula and scikit-learn's transformers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from sksubnet.nets.encoding import NOVEL, UNSEEN, Encoding, robust_scale

RNG = np.random.default_rng(0)
X = RNG.normal(size=(41, 3)) * [1, 100, 1e-3] + [0, 5, -1]


def test_scale_is_the_mean_and_the_standard_deviation():
    center, scale = robust_scale(X, np.ones(41))
    assert_allclose(center, X.mean(axis=0))
    assert_allclose(1 / scale, X.std(axis=0))


def test_outliers_count_as_values_ten_interquartile_ranges_from_the_median():
    # With 41 rows the quartiles are the 11th, 21st and 31st value.
    low, median, high = np.sort(X, axis=0)[[10, 20, 30]]
    wild, moved = X.copy(), X.copy()
    most, least = X.argmax(axis=0), X.argmin(axis=0)
    columns = range(3)
    wild[most, columns], wild[least, columns] = [1e4, 1e12, 1e200], [-1e9, -1e4, -1e300]
    moved[most, columns] = (median + 10 * (high - low))[columns]
    moved[least, columns] = (median - 10 * (high - low))[columns]
    center, scale = robust_scale(wild, np.ones(41))
    assert_allclose(center, moved.mean(axis=0))
    assert_allclose(1 / scale, moved.std(axis=0))


def test_mostly_zero_columns_are_scaled_by_what_is_not_zero():
    counts = np.zeros((41, 1))
    counts[:4, 0] = [1, 5, 7, 700]
    center, scale = robust_scale(counts, np.ones(41))
    assert_allclose([center[0], 1 / scale[0]], [713 / 41, counts.std()])


def test_scale_of_huge_and_tiny_columns_neither_overflows_nor_vanishes():
    center, scale = robust_scale(X * [1e200, 1e-200, 1], np.ones(41))
    expected = robust_scale(X, np.ones(41))
    assert_allclose(center / [1e200, 1e-200, 1], expected[0])
    assert_allclose(scale * [1e200, 1e-200, 1], expected[1])


def test_integer_weights_equal_repetition():
    counts = np.resize([1, 4, 2, 3], 41)
    weighted = robust_scale(X, counts.astype(float))
    repeated = robust_scale(X.repeat(counts, axis=0), np.ones(counts.sum()))
    assert_allclose(weighted, repeated, rtol=1e-12)
    assert (weighted[0] != robust_scale(X, np.ones(41))[0]).any()
    assert_allclose(robust_scale(X, 0.5 * counts), weighted)


@pytest.mark.parametrize("value", [0.0, 7.3, -1e9])
def test_constant_columns_never_act(value):
    encoding = Encoding.of(np.full((41, 1), value), np.ones(41), {})
    assert_array_equal(encoding(np.array([[value], [value + 1e6]])), 0)


@pytest.mark.parametrize("n_rare", [1, 3, 20])
def test_two_values_are_scaled_by_half_their_distance_however_rare_one_is(n_rare):
    two = np.zeros((41, 2))
    two[:n_rare, 0] = 1
    two[:n_rare, 1] = -6
    center, scale = robust_scale(two, np.ones(41))
    assert_allclose(center, 0)
    assert_allclose(scale, [2, 1 / 3])
    center, scale = robust_scale(1 - two, np.ones(41))
    assert_allclose(center, 1)
    assert_allclose(scale, [2, 1 / 3])


def table():
    """60 rows: a number, one with holes, and codes of which 0 to 3 are common and 4, 5 rare."""
    X = np.column_stack([RNG.normal(size=60), RNG.lognormal(size=60), np.arange(60) % 4])
    X[:7, 1] = np.nan
    X[[0, 1, 2], 2] = [4, 5, 5]
    return X


def test_numbers_holes_and_levels_are_those_of_scikit_learn():
    X = table()
    encoding = Encoding.of(X, np.ones(60), {2: 6})
    mean = robust_scale(X[7:, 1:2], np.ones(53))[0]
    filled = SimpleImputer(strategy="constant", fill_value=mean[0]).fit_transform(X[:, :2])
    one_hot = OneHotEncoder(min_frequency=3, sparse_output=False).fit_transform(X[:, 2:])
    holes = MissingIndicator().fit_transform(X)
    raw = np.column_stack([filled, holes, one_hot])
    center, scale = robust_scale(raw, np.ones(60))
    center[1], scale[1] = mean[0], robust_scale(X[7:, 1:2], np.ones(53))[1][0]
    inputs = encoding(X)
    assert inputs.shape == (60, 9)
    assert_allclose(inputs[:, :-1], (raw - center) * scale, atol=1e-12)
    assert_array_equal(inputs[:, -1], 0)


@pytest.mark.parametrize(("n_rows", "least"), [(1000, 20), (200, 10), (100, 5), (20, 2)])
def test_levels_are_rare_below_a_twentieth_of_the_rows_or_20(n_rows, least):
    codes = np.zeros((n_rows, 1))
    codes[:least], codes[-(least - 1) :], codes[-2 * (least - 1) : 1 - least] = 1, 2, 3
    encoding = Encoding.of(codes, np.ones(n_rows), {0: 4})
    levels = encoding(np.arange(4.0)[:, None])
    assert len(np.unique(levels, axis=0)) == 3
    assert_array_equal(levels[2], levels[3])


def test_what_is_new_is_counted_and_acts_as_nothing_else():
    X = table()
    encoding = Encoding.of(X, np.ones(60), {2: 6})
    new = X[10:13].copy()
    new[0, 2] = UNSEEN
    new[1, 2] = np.nan  # no row of fit had a missing category
    new[2, [0, 2]] = np.nan, UNSEEN  # nor a missing first number
    inputs, known = encoding(new), encoding(X[10:13])
    assert_array_equal(inputs[:, -1], [NOVEL, NOVEL, 2 * NOVEL])
    assert_array_equal(known[:, -1], 0)
    assert_array_equal(inputs[:2, :3], known[:2, :3])
    assert inputs[2, 0] == 0
    levels = inputs[:, 3:-1] / encoding.scale[3:-1] + encoding.center[3:-1]
    assert_allclose(levels, 0, atol=1e-12)
    assert_array_equal(encoding.novel, np.r_[np.zeros(8), NOVEL])


def test_integer_weights_equal_repetition_of_a_whole_table():
    X, counts = table(), np.resize([1, 3, 2], 60)
    weighted = Encoding.of(X, counts.astype(float), {2: 6})
    repeated = Encoding.of(X.repeat(counts, axis=0), np.ones(counts.sum()), {2: 6})
    assert_allclose(weighted(X), repeated(X), atol=1e-12)
    assert weighted.n_inputs == repeated.n_inputs


def test_small_weights_do_not_make_all_levels_rare():
    X = table()
    one, small = Encoding.of(X, np.ones(60), {2: 6}), Encoding.of(X, np.full(60, 1e-3), {2: 6})
    assert_allclose(one(X), small(X), atol=1e-12)


def test_numbers_alone_have_no_input_more_and_say_where_holes_are_new():
    encoding = Encoding.of(X, np.ones(41), {})
    assert encoding.n_inputs == 3 and encoding.novel is None
    with_holes = X[:4].copy()
    with_holes[1, 2] = np.nan
    assert_array_equal(encoding.unfilled(with_holes), [2])
    assert_array_equal(encoding.unfilled(X), [])


def test_wild_values_stay_finite_and_large_offsets_lose_nothing():
    encoding = Encoding.of(X, np.ones(41), {})
    wild = encoding(np.array([[1e300, -1e300, 0.0]]))
    assert_array_equal(wild[0, :2], [1e9, -1e9])
    offset = Encoding.of(X + 1.7e9, np.ones(41), {})
    assert_allclose(offset(X + 1.7e9)[:, 1], encoding(X)[:, 1], atol=1e-6)
