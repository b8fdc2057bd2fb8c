"""Dates, durations, masks and missing values never become numbers; numbers in any array do."""

import datetime
import decimal
import functools
import warnings

import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from user_nets import (
    assert_refused,
    classifier_net,
    quick_classifier,
    quick_regressor,
    regressor_net,
)

pandas = pytest.importorskip("pandas")

RNG = np.random.default_rng(0)
N = 40
# of float32, so that a conversion to that loses nothing
X = RNG.normal(size=(N, 4)).astype(np.float32).astype(float)
Y = {
    "regressor": X[:, 0] + X[:, 1].round(1),
    "classifier": (X[:, 0] > 0).astype(int) + (X[:, 1] > 0),
}
WEIGHTS = RNG.integers(1, 9, N) / 4.0
HOURS = pandas.to_timedelta(X[:, 0], unit="h")
DATES = pandas.Timestamp("2026-01-31") + HOURS
SHORT = {"max_epochs": 2}
MODELS = {
    "regressor": quick_regressor(regressor_net(**SHORT), noise=1.0),
    "classifier": quick_classifier(classifier_net(**SHORT)),
}
EACH = pytest.mark.parametrize("kind", MODELS)


@functools.cache
def fitted(kind):
    """The model of plain float64 arrays."""
    return clone(MODELS[kind]).fit(X, Y[kind], WEIGHTS)


def objects(cell, rows=slice(None)) -> np.ndarray:
    """Numbers, with another cell in some rows."""
    cells = X[:, 0].astype(object)
    cells[rows] = cell
    return cells


NO_NUMBERS = {
    "durations": {
        "numpy": HOURS.to_numpy(),
        "numpy big endian": HOURS.to_numpy().astype(">m8[s]"),
        "pandas": pandas.Series(HOURS),
        "index": HOURS,
        "missing": pandas.Series(HOURS).mask(X[:, 0] > 0),
        "categories": pandas.Series(HOURS).astype("category"),
        "list": HOURS.to_pytimedelta().tolist(),
        "objects": objects(np.timedelta64(3, "D")),
        "one object": objects(datetime.timedelta(1), 3),
    },
    "dates": {
        "numpy": DATES.to_numpy(),
        "days": DATES.to_numpy().astype("M8[D]"),
        "only missing": np.full(N, np.datetime64("NaT", "D")),
        "pandas": pandas.Series(DATES),
        "time zone": pandas.Series(DATES).dt.tz_localize("UTC"),
        "list": [datetime.date(2026, 1, 31)] * N,
        "one missing": objects(pandas.NaT, 3),
    },
    "periods": {"pandas": pandas.Series(DATES.to_period("D"))},
    "times of day": {"objects": objects(datetime.time(12))},
}
EACH_NO_NUMBERS = pytest.mark.parametrize(
    ("unit", "values"),
    [
        pytest.param(unit, values, id=f"{unit}, {name}")
        for unit, examples in NO_NUMBERS.items()
        for name, values in examples.items()
    ],
)


@EACH
@EACH_NO_NUMBERS
def test_units_as_targets(kind, unit, values):
    parts = ["y has", unit, "numbers first", "such as"]
    assert_refused(lambda: MODELS[kind].fit(X, values), *parts, error=TypeError)


@EACH_NO_NUMBERS
def test_units_as_columns_and_weights(unit, values):
    model, y = MODELS["regressor"], Y["regressor"]
    frame = pandas.DataFrame({"a": X[:, 0], "when": values})
    parts = ["X has", unit, "'when'", "numbers first"]
    assert_refused(lambda: model.fit(frame, y), *parts, error=TypeError)
    parts = ["sample_weight has", unit, "numbers first"]
    assert_refused(lambda: model.fit(X, y, values), *parts, error=TypeError)
    if unit == "periods":
        return  # no array has them
    table = np.stack([np.asarray(values)] * 4, axis=1)
    parts = ["X has", unit, "numbers first"]
    assert_refused(lambda: model.fit(table, y), *parts, error=TypeError)
    assert_refused(lambda: fitted("regressor").predict(table), *parts, error=TypeError)


@EACH
def test_units_in_polars_and_pyarrow(kind):
    polars, model = pytest.importorskip("polars"), MODELS[kind]
    dates = polars.Series(DATES.to_numpy())
    durations = polars.Series(HOURS.to_numpy())
    for unit, column in [
        ("dates", dates),
        ("dates", dates.cast(polars.Date)),
        ("times of day", dates.dt.time()),
        ("durations", durations),
        ("durations", durations.to_frame().select(polars.first().shift(1)).to_series()),
    ]:
        parts = [unit, "numbers first"]
        assert_refused(lambda c=column: model.fit(X, c), "y has", *parts, error=TypeError)
        frame = polars.DataFrame({"a": X[:, 0], "when": column})
        parts += ["X has", "'when'"]
        assert_refused(lambda f=frame: model.fit(f, Y[kind]), *parts, error=TypeError)
        arrow = frame.to_arrow() if pytest.importorskip("pyarrow") else None
        assert_refused(lambda f=arrow: model.fit(f, Y[kind]), *parts, error=TypeError)


MISSING = {
    "None": objects(None, 3),
    "NA": objects(pandas.NA, 3),
    "Int64": pandas.Series(np.arange(N), dtype="Int64").mask(X[:, 0] > 0),
    "boolean": pandas.Series(X[:, 1] > 0, dtype="boolean").mask(X[:, 0] > 0),
    "NaN": np.where(X[:, 0] > 1, np.nan, 1.0),
    "text": pandas.Series(["a", "b"] * (N // 2)).mask(X[:, 0] > 0),
}


@EACH
@pytest.mark.parametrize("name", MISSING)
def test_missing_targets(kind, name):
    assert_refused(lambda: MODELS[kind].fit(X, MISSING[name]), "NaN")


@EACH
def test_masked_values(kind):
    model, y = MODELS[kind], Y[kind]
    masked = np.ma.masked_array(X, mask=X > 1)
    parts = [f"{(X > 1).sum()} masked values", "missing", "fill them in"]
    assert_refused(lambda: model.fit(masked, y), "X has", *parts)
    assert_refused(lambda: fitted(kind).predict(masked), "X has", *parts)
    masked = np.ma.masked_array(y, mask=X[:, 0] > 1)
    assert_refused(lambda: model.fit(X, masked), "y has", "masked values")
    weights = np.ma.masked_array(WEIGHTS, mask=X[:, 0] > 1)
    assert_refused(lambda: model.fit(X, y, weights), "sample_weight has", "masked values")


def reordered(array):
    return np.ascontiguousarray(array[::-1])[::-1]


def read_only(array):
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def tensor_with_grad(array):
    tensor = torch.tensor(array)
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def inference_tensor(array):
    with torch.inference_mode():
        return torch.as_tensor(array) + 0


ARRAYS = {
    "reversed rows": reordered,
    "reversed columns": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "reversed and read-only": lambda a: read_only(a[::-1])[::-1],
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "narrow": lambda a: a.astype(np.int8 if a.dtype == int else np.float32),
    "objects": lambda a: a.astype(object) if a.dtype == float else a,
    "no mask": np.ma.masked_array,
    "lists": lambda a: a.tolist(),
    "tensor": torch.tensor,
    "tensor with grad": tensor_with_grad,
    "inference tensor": inference_tensor,
    "list of tensors": lambda a: list(torch.tensor(a)),
    "decimals": lambda a: [decimal.Decimal(repr(float(v))) for v in a] if a is WEIGHTS else a,
    "pandas": lambda a: (pandas.DataFrame if a.ndim == 2 else pandas.Series)(a, index=range(9, 49)),
    "nullable": lambda a: (pandas.DataFrame if a.ndim == 2 else pandas.Series)(a).convert_dtypes(),
}


def predictions(model, rows) -> np.ndarray:
    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)
    return np.c_[model.predict(rows, return_std=True)]


@EACH
@pytest.mark.parametrize("name", ARRAYS)
def test_the_same_numbers_in_any_array(kind, name):
    model, given, y = MODELS[kind], ARRAYS[name], Y[kind]
    expected = predictions(fitted(kind), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        model.fit(given(X), given(y), given(WEIGHTS))
        assert_allclose(predictions(model, given(X)), expected, rtol=1e-6)


@EACH
@pytest.mark.parametrize("mode", ["r", "c"])
def test_arrays_on_disk(kind, mode, tmp_path):
    model = MODELS[kind]
    expected = predictions(fitted(kind), X)
    np.save(tmp_path / "X.npy", X)
    rows = np.load(tmp_path / "X.npy", mmap_mode=mode)
    assert_allclose(predictions(model.fit(rows, Y[kind], WEIGHTS), rows), expected, rtol=1e-12)


@EACH
@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, lambda: sklearn.config_context(assume_finite=True)],
    ids=["no_grad", "inference_mode", "assume_finite"],
)
def test_whatever_the_caller_is_in(kind, mode):
    model = clone(MODELS[kind])
    with mode():
        model.fit(X, Y[kind], WEIGHTS)
        assert_allclose(predictions(model, X), predictions(fitted(kind), X), rtol=1e-12)
        tensor = torch.tensor(X)
    assert_allclose(predictions(model, tensor), predictions(fitted(kind), X), rtol=1e-12)


def test_the_default_net_trains_in_inference_mode():
    model = quick_regressor(None, cv=None, noise=1.0)
    expected = predictions(model.fit(X, Y["regressor"]), X)
    with torch.inference_mode():
        assert_allclose(predictions(model.fit(X, Y["regressor"]), X), expected, rtol=1e-12)


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_tensors_of_other_types(kind, dtype):
    rows = (10 * torch.tensor(X)).to(dtype)
    model = MODELS[kind]
    expected = predictions(model.fit(rows.double().numpy(), Y[kind]), rows.double().numpy())
    assert_allclose(predictions(model.fit(rows, Y[kind]), rows), expected, rtol=1e-12)


@EACH
def test_what_is_no_table(kind):
    model, y = MODELS[kind], Y[kind]
    for rows, parts in [
        ({"a": X[:, 0], "b": X[:, 1]}, ["X is a dict", "DataFrame"]),
        (torch.tensor(X).to_sparse(), ["sparse tensor", "to_dense"]),
        (np.array([(1.0, 2)] * N, dtype=[("a", float), ("b", int)]), ["structured", "('a', 'b')"]),
    ]:
        assert_refused(lambda r=rows: model.fit(r, y), *parts, error=TypeError)
    cells = pandas.DataFrame(X[:, :2], columns=["a", "b"]).assign(c=[np.zeros(2)] * N)
    assert_refused(lambda: model.fit(cells, y), "cells with lists", "one number for each cell")
    ragged = [[0.0] * (1 + i % 2) for i in range(N)]
    assert_refused(lambda: model.fit(ragged, y), "rows of different lengths")
    sparse = pandas.DataFrame(X).astype(pandas.SparseDtype(float))
    assert_refused(lambda: model.fit(sparse, y), "sparse", "to_dense")
    assert_refused(
        lambda: model.fit(objects(pandas.NA, 3)[:, None], y),
        "missing values",
        "SimpleImputer",
        error=TypeError,
    )


def test_labels_that_are_neither_numbers_nor_text():
    labels = [decimal.Decimal(int(v)) for v in Y["classifier"]]
    assert_refused(lambda: MODELS["classifier"].fit(X, labels), "y has labels", "astype(str)")
