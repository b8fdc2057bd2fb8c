"""Bins of columns against linear interpolation, and against repeated rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sksubnet.nets.bins import MOST_BINS, Bins, Tails

RNG = np.random.default_rng(0)
ONES = np.ones(200)
Z = np.column_stack(
    [
        RNG.normal(size=200),
        RNG.integers(0, 4, 200),  # four values
        RNG.integers(0, 2, 200),  # two
        np.full(200, 3.0),
        np.where(RNG.random(200) < 0.7, 0.0, RNG.lognormal(size=200)),  # mostly zero
    ]
)


def edges(bins, column):
    own = bins.column == column
    return np.append(bins.low[own], bins.low[own][-1] + bins.width[own][-1])


def test_columns_of_more_than_two_values_are_cut_at_quantiles_that_are_values():
    bins = Bins.of(Z, ONES, 8)
    assert set(bins.column) == {0, 1, 4}
    assert_allclose(edges(bins, 1), [0, 1, 2, 3])
    expected = np.quantile(Z[:, 0], np.linspace(0, 1, 9), method="inverted_cdf")
    assert_allclose(edges(bins, 0), expected)


def test_where_quantiles_coincide_those_of_the_other_values_take_their_place():
    bins = Bins.of(Z, ONES, 8)
    column = Z[:, 4]
    kept = np.unique(np.quantile(column, np.linspace(0, 1, 9), method="inverted_cdf"))
    assert len(kept) < 9
    others = np.sort(column[~np.isin(column, kept)])
    n_more = 9 - len(kept)
    ranks = np.ceil(np.linspace(0, 1, n_more + 2)[1:-1] * len(others)).astype(int) - 1
    assert_allclose(edges(bins, 4), np.union1d(kept, others[ranks]))
    assert len(edges(bins, 4)) == 9


def test_mean_shares_are_those_of_interpolation():
    bins = Bins.of(Z, ONES, 8)
    for j, low, width, mean in zip(bins.column, bins.low, bins.width, bins.mean, strict=True):
        shares = np.interp(Z[:, j], [low, low + width], [0, 1])
        assert mean == pytest.approx(shares.mean())


def test_integer_weights_equal_repetition():
    counts = np.resize([1, 3, 2], 200)
    weighted, repeated = (
        Bins.of(Z, counts * 1.0, 8),
        Bins.of(Z.repeat(counts, axis=0), np.ones(400), 8),
    )
    for name, value in vars(weighted).items():
        assert_allclose(value, getattr(repeated, name), atol=1e-12)
    assert (weighted.low != Bins.of(Z, ONES, 8).low).any()


def test_many_columns_have_fewer_bins_each_but_at_least_four():
    many = RNG.normal(size=(50, 200))
    assert len(Bins.of(many, np.ones(50), 8)) == 200 * (MOST_BINS // 200)
    more = RNG.normal(size=(50, 400))
    assert len(Bins.of(more, np.ones(50), 8)) == 400 * 4


def test_no_bins_of_columns_that_are_all_switches():
    assert len(Bins.of(Z[:, 2:4], ONES, 8)) == 0


def test_heavy_columns_have_enough_rows_far_out():
    heavy = np.column_stack([Z[:, 0], Z[:, 0], Z[:, 2] * 50])
    heavy[:10, 1] = [5, 6, 7, -8, 9, 10, -4.5, 300, 4.1, -200]
    tails = Tails.of(heavy, ONES)
    assert_array_equal(tails.column, [1])
    assert_array_equal([tails.low, tails.high], [[-100], [100]])
    heavy[0, 1] = 3.9
    assert len(Tails.of(heavy, ONES)) == 0
    assert_array_equal(Tails.of(heavy, 2 * ONES).column, [1])
