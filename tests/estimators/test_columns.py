"""Tables as people bring them: against the same columns encoded by hand, in three libraries."""

import datetime
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from user_nets import regressor_net

from sksubnet import (
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    TabularNet,
    load,
)
from sksubnet.estimators.columns import MOST_LEVELS, Columns
from sksubnet.nets import UNSEEN

RNG = np.random.default_rng(0)
N = 120
FRAME = pd.DataFrame(
    {
        "number": RNG.normal(size=N),
        "holes": np.where(RNG.random(N) < 0.2, np.nan, RNG.lognormal(size=N)),
        "text": RNG.choice(["red", "green", "blue"], N),
        "code": pd.Categorical(RNG.choice(["10", "20", "30"], N)),
        "switch": RNG.random(N) > 0.5,
        "integer": RNG.integers(0, 50, N),
        "nullable": pd.array(np.where(RNG.random(N) < 0.2, None, RNG.integers(0, 9, N)), "Int64"),
        "flag": pd.array(np.where(RNG.random(N) < 0.1, None, RNG.random(N) > 0.5), "boolean"),
    }
)
FRAME.loc[::11, "text"] = None
Y = (
    FRAME["number"]
    + 2 * (FRAME["text"] == "red")
    - (FRAME["code"] == "10")
    + FRAME["switch"]
    + 0.2 * RNG.normal(size=N)
).to_numpy(float)
QUICK = TabularNet(max_epochs=15, hidden=(16,))


def quick(**options):
    return SubnetLaplaceRegressor(QUICK, cv=None, noise="constant", random_state=0, **options)


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(FRAME, Y)


def in_polars(frame):
    return pl.from_pandas(frame)


def in_pyarrow(frame):
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_columns_are_read_as_numbers_and_codes():
    columns = Columns.of(FRAME)
    assert columns.levels == {2: ("blue", "green", "red"), 3: ("10", "20", "30")}
    read = columns.read(FRAME)
    for j, name in enumerate(FRAME):
        if name not in ("text", "code"):
            expected = pd.to_numeric(FRAME[name]).to_numpy(dtype=float, na_value=np.nan)
            assert_array_equal(read[:, j], expected)
    codes = FRAME["text"].map({"blue": 0, "green": 1, "red": 2}).to_numpy(float)
    assert_array_equal(read[:, 2], codes)
    assert_array_equal(read[:, 3], FRAME["code"].cat.codes)


def test_numbers_are_a_category_where_their_type_says_so():
    frame = pd.DataFrame({"code": pd.Categorical([30, 10, 30]), "plain": [30, 10, 30]})
    columns = Columns.of(frame)
    assert columns.levels == {0: (10, 30)}
    assert_array_equal(columns.read(frame.astype(int)), [[1, 30], [0, 10], [1, 30]])


def test_numbers_among_objects_are_numbers():
    frame = pd.DataFrame({"any": np.array([3, 0.5, None, True, np.int8(7)], dtype=object)})
    columns = Columns.of(frame)
    assert columns.levels == {}
    assert_array_equal(columns.read(frame)[:, 0], [3, 0.5, np.nan, 1, 7])


@pytest.mark.parametrize("given", [in_polars, in_pyarrow])
def test_every_library_of_frames_gives_the_same(given):
    columns = Columns.of(given(FRAME))
    assert columns.levels[2] == ("blue", "green", "red")
    assert_array_equal(columns.read(given(FRAME)), Columns.of(FRAME).read(FRAME))


@pytest.mark.parametrize("given", [in_polars, in_pyarrow])
def test_predictions_do_not_depend_on_the_library(given, fitted):
    expected = fitted.predict(FRAME[:30], return_std=True)
    assert_array_equal(fitted.predict(given(FRAME[:30]), return_std=True), expected)
    again = clone(fitted).fit(given(FRAME), Y)
    assert_array_equal(again.predict(given(FRAME[:30]), return_std=True), expected)
    assert_array_equal(again.feature_names_in_, FRAME.columns)


def test_levels_by_number_equal_levels_by_name(fitted):
    """Codes in an array, said to be categories, are what the columns of the frame are."""
    codes = Columns.of(FRAME).read(FRAME)
    net = clone(QUICK).set_params(categorical_features=[2, 3])
    given = clone(fitted).set_params(net=net).fit(codes, Y)
    assert_array_equal(
        given.predict(codes[:20], return_std=True), fitted.predict(FRAME[:20], return_std=True)
    )
    mask = np.isin(np.arange(8), [2, 3])
    by_mask = clone(given).set_params(net__categorical_features=mask).fit(codes, Y)
    assert_array_equal(by_mask.predict(codes[:20]), given.predict(codes[:20]))


def test_columns_of_codes_by_their_names():
    """A column of whole numbers that is named is a category, by its name or by its position."""
    by_name, by_place = (
        Columns.of(FRAME, chosen) for chosen in (["integer", "switch"], np.array([4, 5]))
    )
    assert sorted(by_name.levels) == [2, 3, 4, 5]
    assert by_name.levels == by_place.levels
    assert by_name.levels[5] == tuple(sorted(FRAME["integer"].unique()))


def test_one_hot_by_hand_predicts_alike():
    """As far as two fits from other random weights do."""
    frame = FRAME[["number", "text", "switch"]].fillna({"text": "none"})
    by_hand = pd.get_dummies(frame, columns=["text"], dtype=float).astype(float)
    half = N // 2
    scores = [
        SubnetLaplaceRegressor(random_state=0).fit(X[:half], Y[:half]).score(X[half:], Y[half:])
        for X in (frame, by_hand)
    ]
    assert abs(scores[0] - scores[1]) < 0.03


def test_levels_and_holes_that_fit_has_not_seen_are_less_certain(fitted):
    known = fitted.predictive(FRAME).std("epistemic")
    for name, value in {"text": "purple", "code": "99", "number": np.nan}.items():
        new = FRAME.astype({"code": object})
        new[name] = value
        assert np.median(fitted.predictive(new).std("epistemic") / known) > 1.3, name


@pytest.mark.parametrize(
    "known, given, message",
    [
        (
            ["10", "20", "30"],
            [10, 30, 20],
            "'code' had text such as '10' in fit and now has numbers",
        ),
        (["10", "20", "30"], ["10", 20, None], "now has numbers such as 20"),
        (pd.Categorical([10, 20, 30]), ["10", "30", "20"], "'code' had numbers such as 10"),
        (pd.Categorical([True, False, True]), ["True", "False", None], "now has text such as 'Tr"),
    ],
    ids=["text", "some", "numbers", "booleans"],
)
def test_levels_that_are_written_otherwise_are_refused(known, given, message):
    """They are the known ones in another form, and no new ones."""
    columns = Columns.of(pd.DataFrame({"code": known}))
    with pytest.raises(TypeError, match=message):
        columns.read(pd.DataFrame({"code": pd.Series(given, dtype=object)}))
    new = pd.DataFrame({"code": pd.Series(["40"] * 3 if isinstance(known, list) else [40.0] * 3)})
    assert_array_equal(columns.read(new), [[UNSEEN]] * 3)


def test_a_category_that_was_missing_in_every_row_knows_no_level():
    frame = FRAME[["number"]].assign(code=pd.Categorical([None] * N, categories=["10", "20"]))
    columns = Columns.of(frame)
    assert columns.levels == {1: ()}
    assert_array_equal(columns.read(frame)[:, 1], np.full(N, np.nan))
    seen = frame.assign(code="10")
    assert_array_equal(columns.read(seen)[:, 1], np.full(N, UNSEEN))
    model = quick().fit(frame, Y)
    assert np.isfinite(model.predict(frame, return_std=True)).all()
    assert np.isfinite(model.predict(seen, return_std=True)).all()


def test_unseen_codes():
    columns = Columns.of(FRAME)
    new = FRAME.astype({"code": object})[:3]
    new["text"] = ["purple", None, "red"]
    new["code"] = ["20", "11", np.nan]
    read = columns.read(new)
    assert_array_equal(read[:, 2], [UNSEEN, np.nan, 2])
    assert_array_equal(read[:, 3], [1, UNSEEN, np.nan])


def test_missing_numbers_are_learned():
    X = RNG.normal(size=(300, 1))
    gone = RNG.random(300) < 0.3
    y = np.where(gone, 3.0, X[:, 0]) + 0.1 * RNG.normal(size=300)
    X[gone] = np.nan
    reg = MAPRegressor(random_state=0).fit(X, y)
    assert_allclose(reg.predict([[np.nan]]), 3, atol=0.2)
    assert reg.score(X, y) > 0.98


def test_a_hole_where_fit_had_none_is_refused_by_name():
    frame = FRAME[["number", "integer"]]
    reg = MAPRegressor(QUICK, random_state=0).fit(frame, Y)
    with pytest.raises(ValueError, match=r"NaN.*'integer'.*fit had none"):
        reg.predict(frame.astype(float).assign(integer=np.nan))
    with pytest.raises(ValueError, match=r"NaN.*'1'.*fit had none"):
        MAPRegressor(QUICK).fit(frame.to_numpy(), Y).predict([[0.0, np.nan]])


def test_weights_equal_repetition_of_a_raw_table():
    counts = np.resize([1, 2, 3], N)
    repeated_frame = FRAME.loc[FRAME.index.repeat(counts)]
    weighted = quick().set_params(cv=2).fit(FRAME, Y, sample_weight=counts)
    repeated = quick().set_params(cv=2).fit(repeated_frame, Y.repeat(counts))
    assert_array_equal(
        weighted.predict(FRAME, return_std=True), repeated.predict(FRAME, return_std=True)
    )


def test_rows_of_no_weight_tell_nothing():
    strange = FRAME[:5].assign(text="only here", number=1e6)
    more = pd.concat([FRAME, strange])
    weights = np.r_[np.ones(N), np.zeros(5)]
    one = quick().fit(FRAME, Y)
    other = quick().fit(more, np.r_[Y, np.zeros(5)], sample_weight=weights)
    assert_array_equal(one.predict(FRAME), other.predict(FRAME))


def test_ensembles_read_tables_once_for_all_members():
    for member in (QUICK, MAPRegressor(QUICK)):
        ensemble = DeepEnsembleRegressor(member, n_members=2, random_state=0).fit(FRAME, Y)
        seeds = np.random.RandomState(0).randint(2**31 - 1, size=2)
        alone = [MAPRegressor(QUICK, random_state=int(s)).fit(FRAME, Y) for s in seeds]
        expected = np.mean([one.predict(FRAME) for one in alone], axis=0)
        assert_allclose(ensemble.predict(FRAME), expected, rtol=1e-6)


def test_searches_over_the_default_net():
    clf = MAPClassifier(random_state=0).set_params(net__max_epochs=5)
    grid = {"net__lr": [1e-4, 2e-2], "net__hidden": [(4,)]}
    search = GridSearchCV(clf, grid, cv=2).fit(FRAME, np.median(Y) < Y)
    assert search.best_params_ == {"net__lr": 2e-2, "net__hidden": (4,)}


def test_a_classifier_of_text_labels_and_text_columns():
    labels = np.where(np.median(Y) < Y, "high", "low")
    clf = SubnetLaplaceClassifier(QUICK, cv=None, random_state=0).fit(FRAME, labels)
    assert clf.score(FRAME, labels) > 0.85


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series(pd.date_range("2020-01-01", periods=N)), "dates in column 'odd'"),
        (pd.Series(pd.to_timedelta(np.arange(N), unit="D")), "durations in column 'odd'"),
        (pd.Series([datetime.date(2020, 1, 1)] * N), "dates in column 'odd'"),
        (pd.Series([f"row {i}" for i in range(N)]), r"120 levels in 120 rows; at most 60.*skrub"),
        (pd.Series(["a", 1] * (N // 2), dtype=object), "mixes values of the types int, str"),
        (pd.Series([[1]] * N), "unhashable|mixes|list"),
    ],
)
def test_columns_that_cannot_be_read_are_refused_by_name(column, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MAPRegressor(QUICK).fit(FRAME.assign(odd=column), Y)


def test_categories_of_too_many_levels_are_refused():
    n_rows = 3 * (MOST_LEVELS + 1)
    many = pd.DataFrame({"code": pd.Categorical(np.arange(n_rows) // 3)})
    with pytest.raises(ValueError, match=f"{MOST_LEVELS + 1} levels.*at most {MOST_LEVELS}"):
        MAPRegressor(QUICK).fit(many, np.arange(n_rows))


def test_text_in_place_of_numbers_and_arrays_in_place_of_frames(fitted):
    with pytest.raises(TypeError, match=r"^Column 'number' had numbers in fit and now has 'much'"):
        fitted.predict(FRAME.assign(number="much"))
    with pytest.raises(TypeError, match=r"^Column 'switch' had numbers in fit and now has 'True'"):
        fitted.predict(FRAME.assign(switch=FRAME["switch"].astype(str)))
    with pytest.raises(TypeError, match=r"categories, such as 'text'.*ndarray"):
        fitted.predict(np.zeros((2, 8)))
    with pytest.raises(TypeError, match=r"categories, such as 'text'.*instead of a Series"):
        fitted.predict(FRAME.iloc[3])
    with pytest.raises(TypeError, match=r"categories, such as 'text'.*ndarray"):
        fitted.predict(FRAME.to_numpy())
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(FRAME[FRAME.columns[::-1]])
    with pytest.raises(ValueError, match="categorical_features has 'colour'"):
        quick().set_params(net__categorical_features=["colour"]).fit(FRAME, Y)


def test_tags_say_what_is_read():
    for net in (None, QUICK):
        tags = SubnetLaplaceRegressor(net).__sklearn_tags__().input_tags
        assert tags.allow_nan and tags.categorical
    tags = SubnetLaplaceRegressor(regressor_net()).__sklearn_tags__().input_tags
    assert not tags.allow_nan and not tags.categorical


def test_nets_of_the_user_take_what_they_took():
    reg = MAPRegressor(regressor_net(), random_state=0)
    with pytest.raises(ValueError, match="text where numbers are needed"):
        reg.fit(FRAME[["number", "text"]].dropna(), Y[FRAME["text"].notna()])
    with pytest.raises(ValueError, match="NaN"):
        reg.fit(FRAME[["holes"]], Y)


def test_updates_read_tables_too(fitted):
    one, codes = pickle.loads(pickle.dumps(fitted)), Columns.of(FRAME).read(FRAME)
    net = clone(QUICK).set_params(categorical_features=[2, 3])
    other = clone(fitted).set_params(net=net).fit(codes, Y)
    one.update(FRAME[:20], Y[:20])
    other.update(codes[:20], Y[:20])
    found = one.predict(FRAME, return_std=True)
    assert_allclose(found, other.predict(codes, return_std=True), rtol=1e-10)
    assert not np.allclose(found, fitted.predict(FRAME, return_std=True), rtol=1e-3)


def test_estimators_that_read_tables_are_kept(fitted, tmp_path):
    pytest.importorskip("safetensors")
    fitted.save(tmp_path / "kept")
    expected = fitted.predict(FRAME, return_std=True)
    for again in (load(tmp_path / "kept"), pickle.loads(pickle.dumps(fitted))):
        assert_array_equal(again.predict(FRAME, return_std=True), expected)
        assert again.get_params()["net__hidden"] == (16,)
