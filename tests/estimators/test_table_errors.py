"""What a user reads about a table that is no table of numbers."""

import datetime

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from user_nets import assert_refused, diabetes, iris, quick_classifier, quick_regressor

ESTIMATORS = pytest.mark.parametrize(
    ("model", "data"),
    [(quick_classifier(None, cv=None), iris), (quick_regressor(None, cv=None), diabetes)],
    ids=["class", "regr"],
)
USER_NETS = pytest.mark.parametrize(
    ("model", "data"),
    [(quick_classifier(cv=None), iris), (quick_regressor(cv=None), diabetes)],
    ids=["class", "regr"],
)


@ESTIMATORS
def test_dates_and_durations(model, data):
    pandas = pytest.importorskip("pandas")
    X, y = data()
    frame = pandas.DataFrame(X).rename(columns=str)
    dated = frame.assign(when=pandas.Timestamp("2026-01-31"))
    parts = ["dates", "numbers first", "days since"]
    assert_refused(lambda: model.fit(dated, y), *parts, error=TypeError)
    timed = frame.assign(took=pandas.Timedelta("1D"))
    assert_refused(lambda: model.fit(timed, y), "durations", "numbers first", error=TypeError)
    objects = X.astype(object)
    objects[:, 1] = datetime.date(2026, 1, 31)
    parts = ["datetime.date", "not numbers", "numbers first"]
    assert_refused(lambda: model.fit(objects, y), *parts, error=TypeError)


@ESTIMATORS
def test_arrays_of_more_dimensions_need_a_net(model, data):
    X, y = data()
    assert_refused(lambda: model.fit(X[:, :, None], y), "dim 3", "tables", "pass a skorch net")


@USER_NETS
def test_categories_as_text_for_a_net_of_the_user(model, data):
    pandas = pytest.importorskip("pandas")
    X, y = data()
    kinds = pandas.Categorical(["red", "blue"] * (len(X) // 2))
    table = pandas.DataFrame(X).rename(columns=str).assign(kind=kinds)
    assert_refused(lambda: model.fit(table, y), "X", "text", "'red'", "OneHotEncoder")


def test_text_in_the_target_of_a_regressor():
    X, y = diabetes()
    assert_refused(lambda: quick_regressor().fit(X, ["low"] * len(X)), "y has text", "'low'")
    y = y.astype(object)
    y[3] = "unknown"
    assert_refused(lambda: quick_regressor().fit(X, y), "X or y", "text", "'unknown'")


@USER_NETS
def test_values_beyond_the_dtype_of_a_net_of_the_user(model, data):
    X, y = data()
    large = X.copy()
    large[3, 1] = -1e39
    single = type(model)(**{**model.get_params(deep=False), "dtype": "float32"})
    parts = ["1.0e+39", "float32", "dtype='float64'", "scale that column"]
    assert_refused(lambda: single.fit(large, y), *parts)
    assert_refused(lambda: single.fit(X, y).predict(large), *parts)


@ESTIMATORS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_default_net_clips_values_beyond_any_dtype(model, data, dtype):
    X, y = data()
    large = X.copy()
    large[3, 1] = -1e39
    fitted = type(model)(**{**model.get_params(deep=False), "dtype": dtype}).fit(large, y)
    assert np.isfinite(fitted.predict(large)).all()


@ESTIMATORS
def test_no_threads(model, data):
    none = type(model)(**{**model.get_params(deep=False), "n_jobs": 0})
    assert_refused(lambda: none.fit(*data()), "n_jobs=0", "1 or more", "-1 for all", "None")


@ESTIMATORS
def test_lists_and_numbers_as_text(model, data):
    X, y = data()
    expected = model.fit(X, y).predict(X)
    assert_array_equal(model.fit(X.tolist(), y.tolist()).predict(X.tolist()), expected)
    assert_array_equal(model.fit(X.astype(str), y).predict(X.astype(str)), expected)


def test_other_errors_stay_as_they_are():
    X, y = iris()
    sparse = pytest.importorskip("scipy.sparse").csr_array(X)
    assert_refused(
        lambda: quick_classifier().fit(sparse, y), "Sparse data", "toarray", error=TypeError
    )
