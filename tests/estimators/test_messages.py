"""What a user reads after a mistake: what was given, what is allowed here, what to do."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from user_nets import (
    assert_refused,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
)

from sksubnet import (
    DeepEnsembleRegressor,
    MAPRegressor,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    TabularNet,
)

ESTIMATORS = pytest.mark.parametrize(
    ("model", "data"),
    [(quick_classifier(), iris), (quick_regressor(), diabetes)],
    ids=["class", "regr"],
)


@ESTIMATORS
@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_values_that_are_not_finite(model, data, bad, word):
    X, y = data()
    holed = X.copy()
    holed[3, 1] = bad
    assert_refused(lambda: model.fit(holed, y), "Input X contains", word)
    assert_refused(lambda: model.fit(X, y).predict(holed), "Input X contains", word)
    holed = y.astype(float)
    holed[3] = bad
    assert_refused(lambda: model.fit(X, holed), "Input y contains", word)


@ESTIMATORS
@pytest.mark.parametrize("library", ["numpy", "pandas", "polars"])
def test_text_in_a_numeric_column(model, data, library):
    X, y = data()
    if library == "numpy":
        table = X.astype(object)
        table[0, 1] = "red"
    else:
        columns = {f"column {i}": X[:, i].tolist() for i in range(X.shape[1])}
        columns["column 1"] = ["red"] * len(X)
        table = pytest.importorskip(library).DataFrame(columns)
    hints = ["ColumnTransformer", "OneHotEncoder", "red"]
    assert_refused(lambda: model.fit(table, y), *hints)
    if library == "numpy":
        assert_refused(lambda: model.fit(X, y).predict(table), *hints)


def test_one_class():
    X, y = iris()
    assert_refused(
        lambda: quick_classifier().fit(X, np.full(len(y), "a")), "1 class", "'a'", "at least 2"
    )
    only_first = (y == 0).astype(float)
    assert_refused(lambda: quick_classifier().fit(X, y, only_first), "1 class", "positive weight")


def test_numbers_as_classes():
    X, _ = iris()
    assert_refused(lambda: quick_classifier().fit(X, X[:, 0]), "continuous", "classifier")


@ESTIMATORS
def test_shapes_of_the_table(model, data):
    X, y = data()
    assert_refused(lambda: model.fit(X[:1], y[:1]), "1 sample", "minimum of 2")
    assert_refused(lambda: model.fit(X[0], y), "Expected 2D array", "Reshape your data")
    assert_refused(lambda: model.fit(X, y[:-1]), "inconsistent numbers of samples")
    model.fit(X, y)
    wide = np.c_[X, X[:, 0]]
    for method in ("predict", "predictive"):
        call = getattr(model, method)
        assert_refused(
            lambda call=call: call(wide),
            f"X has {wide.shape[1]} features",
            f"{X.shape[1]} features",
        )
        assert_refused(lambda call=call: call(X[:, 1:]), f"X has {X.shape[1] - 1} features")
    assert_refused(lambda: model.predict(X[0]), "Expected 2D array", "Reshape your data")


@ESTIMATORS
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_feature_names_at_predict(model, data, library):
    X, y = data()
    frame_class = pytest.importorskip(library).DataFrame
    names = [f"column {i}" for i in range(X.shape[1])]
    renamed = [*names[:-1], "height"]
    model.fit(frame_class(dict(zip(names, X.T, strict=True))), y)
    other = frame_class(dict(zip(renamed, X.T, strict=True)))
    assert_refused(
        lambda: model.predict(other), "unseen at fit time", "height", "now missing", names[-1]
    )


@ESTIMATORS
def test_sample_weight(model, data):
    X, y = data()
    weights = np.ones(len(y))
    weights[5] = -1
    assert_refused(lambda: model.fit(X, y, weights), "Negative values", "sample_weight")
    assert_refused(lambda: model.fit(X, y, 0 * weights), "zero", "weight")
    assert_refused(lambda: model.fit(X, y, weights[:-1]), "sample_weight.shape")
    weights[5] = np.nan
    assert_refused(lambda: model.fit(X, y, weights), "sample_weight contains NaN")
    one_left = (np.arange(len(y)) == 5).astype(float)
    assert_refused(lambda: model.fit(X, y, one_left), "1 ", "positive weight")


@ESTIMATORS
@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("selection", ["swag", "variance", "random", "magnitude", "last_layer", "layers.0.weight"]),
        ("candidates", ["weights", "all", "layers.0", "layers.2.bias"]),
        ("covariance", ["full", "diag"]),
        (
            "prior_precision",
            [
                "validation",
                "validation_1sd",
                "validation_half_se",
                "validation_1se",
                "evidence",
                "float",
            ],
        ),
        ("dtype", ["float32", "float64"]),
        ("subnetwork_size", ["all", "int", "float", "90% variance"]),
        ("cv", ["auto", "int", "split", "None"]),
    ],
)
def test_unknown_name(model, data, option, known):
    X, y = data()
    wrong = type(model)(**{**model.get_params(deep=False), option: "typo"})
    assert_refused(lambda: wrong.fit(X, y), option, "typo", *known)


def test_unknown_name_of_the_task():
    known = ["extended_probit", "probit", "mc"]
    assert_refused(lambda: quick_classifier(link="typo").fit(*iris()), "link", "typo", *known)
    assert_refused(
        lambda: quick_classifier(class_weight="typo").fit(*iris()),
        "class_weight",
        "typo",
        "balanced",
    )
    known = ["auto", "constant", "input"]
    assert_refused(lambda: quick_regressor(noise="typo").fit(*diabetes()), "noise", "typo", *known)


@ESTIMATORS
@pytest.mark.parametrize("size", [0, -3, 0.0, 1.5, 10_000])
def test_subnetwork_size_out_of_range(model, data, size):
    X, y = data()
    wrong = type(model)(**{**model.get_params(deep=False), "subnetwork_size": size})
    parts = ["subnetwork_size", str(size), "(0.0, 1.0]", "all"]
    if size == 10_000:
        n_candidates = 8 * X.shape[1] + 8 * (3 if data is iris else 1)
        parts += [f"the {n_candidates} candidate weights", f"<= {n_candidates}"]
    assert_refused(lambda: wrong.fit(X, y), *parts)


def test_numeric_options_out_of_range():
    for option, value in [
        ("prior_precision", 0.0),
        ("prior_precision", -1.0),
        ("validation_fraction", 1.0),
        ("batch_size", 0),
        ("cv", 1),
    ]:
        assert_refused(
            lambda o=option, v=value: quick_classifier(**{o: v}).fit(*iris()), option, str(value)
        )


@pytest.mark.parametrize("noise", [[1.0, 2.0], [[1.0]], [0.0], [-1.0], [np.nan]])
def test_noise_of_the_wrong_shape_or_sign(noise):
    assert_refused(
        lambda: quick_regressor(noise=noise).fit(*diabetes()),
        f"noise={noise!r}",
        "'auto'",
        "positive",
        "each of the 1 targets",
    )


def test_selection_that_names_no_weight_of_the_net():
    X, y = iris()
    n_weights = 8 * 4 + 8 + 8 * 3 + 3
    for option in ("selection", "candidates"):
        assert_refused(
            lambda o=option: quick_classifier(**{o: [3, n_weights]}).fit(X, y),
            option,
            f"3 to {n_weights}",
            f"0 to {n_weights - 1}",
        )
        assert_refused(
            lambda o=option: quick_classifier(**{o: np.ones(5, bool)}).fit(X, y),
            option,
            "shape (5,)",
            f"({n_weights},)",
        )
        assert_refused(
            lambda o=option: quick_classifier(**{o: np.zeros(n_weights, bool)}).fit(X, y),
            option,
            "no weight",
        )
    assert_refused(
        lambda: quick_classifier(selection=[]).fit(X, y), "selection", "names of modules"
    )
    assert_refused(
        lambda: quick_classifier(selection=lambda trained: torch.ones(3)).fit(X, y),
        "selection",
        "shape (3,)",
        f"{n_weights} weights",
    )


def test_std_and_cov_at_once():
    X, y = diabetes()
    model = quick_regressor().fit(X, y)
    assert_refused(
        lambda: model.predict(X, return_std=True, return_cov=True), "return_std", "return_cov"
    )


def test_a_classifier_has_no_standard_deviation():
    model = quick_classifier().fit(*iris())
    told = ["SubnetLaplaceClassifier", "without return_std", "predict_proba", "predictive(X)"]
    assert_refused(lambda: model.predict(iris()[0], return_std=True), *told, error=TypeError)


def test_levels_out_of_range():
    X, y = diabetes()
    model = quick_regressor().fit(X, y)
    assert_refused(lambda: model.predict_interval(X, coverage=1.5), "coverage", "1.5")
    assert_refused(lambda: model.predict_quantiles(X, [0.5, 2.0]), "quantiles", "2")
    assert_refused(lambda: model.predict_quantiles(X, []), "quantiles []", "one or more")


@ESTIMATORS
@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_numbers_of_draws(model, data, n):
    X, y = data()
    predictive = model.fit(X, y).predictive(X)
    assert_refused(lambda: predictive.sample(n), f"n={n}", "integer of at least 1")
    assert predictive.sample(np.int64(2)).shape[-1] == 2


@ESTIMATORS
def test_no_out_of_fold_predictions_where_there_is_one_net(model, data):
    fresh = type(model)(**model.get_params(deep=False))
    assert not hasattr(fresh, "out_of_fold_")
    assert_refused(
        lambda: fresh.out_of_fold_, type(model).__name__, "before fit", error=AttributeError
    )
    model.fit(*data())
    told = ["no 'out_of_fold_'", "cv=5", "cross_val_predictive"]
    assert_refused(lambda: model.out_of_fold_, *told, error=AttributeError)
    assert "out_of_fold_" not in vars(model)


@pytest.mark.parametrize(
    "kind", [SubnetLaplaceRegressor, MAPRegressor, SWAGRegressor, DeepEnsembleRegressor]
)
def test_no_noise_before_fit(kind):
    told = f"{kind.__name__} has no attribute 'noise_std_' before fit"
    assert_refused(lambda: kind().noise_std_, told, error=AttributeError)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("cell", [["a"], {"b": 1}, np.array([1, 2])], ids=["list", "dict", "array"])
def test_cells_that_hold_several_values(library, cell):
    if library != "pandas" and isinstance(cell, np.ndarray):
        cell = cell.tolist()
    frames = pytest.importorskip(library)
    make = frames.table if library == "pyarrow" else frames.DataFrame
    X, y = diabetes()
    good = make({"a": X[:, 0], "tags": ["x", "y"] * (len(X) // 2) + ["x"] * (len(X) % 2)})
    bad = make({"a": X[:, 0], "tags": [cell] * len(X)})
    model = MAPRegressor(TabularNet(max_epochs=1), random_state=0)
    told = ["'tags'", f"of the type {type(cell).__name__}", "MultiLabelBinarizer"]
    assert_refused(lambda: model.fit(bad, y), *told, error=TypeError)
    model.fit(good, y)
    assert_refused(lambda: model.predict(bad), *told, error=TypeError)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("noise", "limit"), [(0.01, "lower limit"), (1e4, "upper limit")])
def test_a_best_value_at_a_limit_is_told_by_the_summary(noise, limit):
    model = quick_regressor(prior_precision="validation", noise=noise).fit(*diabetes())
    assert limit in model.tuning_.summary()


@ESTIMATORS
def test_methods_before_fit(model, data):
    X, _ = data()
    fresh = type(model)(**model.get_params(deep=False))
    for method in ("predict", "predictive"):
        assert_refused(
            lambda m=method: getattr(fresh, m)(X), "not fitted yet", error=NotFittedError
        )
    assert_refused(fresh.log_marginal_likelihood, "not fitted yet", error=NotFittedError)
