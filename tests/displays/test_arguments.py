"""What no display takes: numbers out of range, arrays that are none, models that do not fit."""

import functools

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import BayesianRidge, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksubnet import MAPClassifier, SubnetLaplaceRegressor, SubnetLaplaceRegressorCV
from sksubnet.displays import (
    DecisionUncertaintyDisplay,
    IntervalCoverageDisplay,
    PredictiveBandDisplay,
    QuantileCalibrationDisplay,
    RejectionDisplay,
    ReliabilityDisplay,
    SizePathDisplay,
    SubnetworkDisplay,
    UncertaintyShiftDisplay,
)
from sksubnet.predictive import Categorical, Predictive

Y = np.linspace(-1, 1, 30)
GAP = np.where(Y > 0.9, np.nan, Y)
GAUSSIAN = (np.zeros(30), np.ones(30))
P = (Y + 1) / 2
X1, X2 = Y[:, None], np.column_stack([Y, Y**2])
REGRESSOR = BayesianRidge().fit(X1, Y)
PLANE = BayesianRidge().fit(X2, Y)
CLASSIFIER = LogisticRegression().fit(X2, Y > 0)
NAMES = LogisticRegression().fit(X2, np.where(Y > 0, "b", "a"))

SEVERAL = GridSearchCV(BayesianRidge(), {"alpha_init": [1.0], "tol": [0.1, 0.01]}, cv=2)
SEVERAL.fit(X1, Y)

bands = functools.partial(PredictiveBandDisplay.from_estimator, REGRESSOR, X1)
made_bands = PredictiveBandDisplay.from_predictions
plane = functools.partial(DecisionUncertaintyDisplay.from_estimator, CLASSIFIER, X2, n_points=3)
quantiles = QuantileCalibrationDisplay.from_predictions
intervals = IntervalCoverageDisplay.from_predictions
reliability = ReliabilityDisplay.from_predictions
rejection = RejectionDisplay.from_predictions
shift = UncertaintyShiftDisplay.from_predictions
sizes = SizePathDisplay.from_scores
weights = functools.partial(SubnetworkDisplay.from_indices, shapes={"w": (2, 3)})

RANGES = {
    "bands n_points": (lambda: bands(n_points=1), r"'n_points' .* range \[2, inf\).* Got 1 "),
    "bands margin": (lambda: bands(margin=-0.1), r"'margin' .* range \[0.0, inf\).* Got -0.1"),
    "bands n_std": (lambda: bands(n_points=3).plot(n_std=0), r"'n_std' .* \(0.0, inf\).* Got 0 "),
    "bands target": (lambda: bands(target=1.0), r"'target' .* 'int'.* Got 1.0"),
    "bands target there": (lambda: bands(target=1), "target=1 is not one of the 1 targets"),
    "plane n_points": (lambda: plane(n_points=0), r"'n_points' .* range \[2, inf\).* Got 0 "),
    "plane margin": (lambda: plane(margin=np.nan), r"'margin' .* \[0.0, inf\).* Got nan"),
    "plane component": (lambda: plane(component="all"), r"'component' .* among .* Got 'all'"),
    "plane axes": (lambda: plane().plot(ax=object()), "kind='both' needs 2 axes in ax, not 1"),
    "plane kind": (lambda: plane().plot(kind="sd"), "'kind' .* among .* Got 'sd'"),
    "quantiles 50": (lambda: quantiles(Y, GAUSSIAN, levels=[0.5, 50]), "levels has the value 50;"),
    "quantiles -1": (lambda: quantiles(Y, GAUSSIAN, levels=[-1]), "levels has the value -1;"),
    "quantiles 0": (lambda: quantiles(Y, GAUSSIAN, levels=0), "levels has the value 0;"),
    "quantiles none": (lambda: quantiles(Y, GAUSSIAN, levels=[]), "0 sample"),
    "quantiles NaN": (lambda: quantiles(Y, GAUSSIAN, levels=[np.nan]), "Input levels contains NaN"),
    "quantiles confidence": (
        lambda: quantiles(Y, GAUSSIAN, confidence=90),
        r"'confidence' .* range \(0.0, 1.0\).* Got 90 ",
    ),
    "quantiles n_bootstraps": (
        lambda: quantiles(Y, GAUSSIAN, n_bootstraps=0),
        r"'n_bootstraps' .* range \[1, inf\).* Got 0 ",
    ),
    "quantiles random_state": (
        lambda: quantiles(Y, GAUSSIAN, random_state=-1),
        r"'random_state' .* range \[0, inf\) or None. Got -1 ",
    ),
    "quantiles counts": (
        lambda: quantiles(Y, GAUSSIAN).plot(counts="no"),
        "'counts' .* 'bool'.* Got 'no'",
    ),
    "intervals levels": (lambda: intervals(Y, GAUSSIAN, levels=[90]), "levels has the value 90;"),
    "intervals coverage": (
        lambda: intervals(Y, GAUSSIAN, coverage=1),
        r"'coverage' .* range \(0.0, 1.0\).* Got 1 ",
    ),
    "intervals n_groups": (
        lambda: intervals(Y, GAUSSIAN, n_groups=0),
        r"'n_groups' .* range \[1, inf\).* Got 0 ",
    ),
    "intervals confidence": (
        lambda: intervals(Y, GAUSSIAN, confidence=0),
        r"'confidence' .* range \(0.0, 1.0\).* Got 0 ",
    ),
    "intervals plot": (lambda: intervals(Y, GAUSSIAN).plot(by="width"), "'by' .* Got 'width'"),
    "intervals frame": (lambda: intervals(Y, GAUSSIAN).frame("width"), "'by' .* Got 'width'"),
    "reliability n_bins": (
        lambda: reliability(Y > 0, P, n_bins=-3),
        r"'n_bins' .* range \[1, inf\).* Got -3 ",
    ),
    "reliability bins of a text": (
        lambda: reliability(Y > 0, P, n_bins="sqrt"),
        "'n_bins' .* Got 'sqrt'",
    ),
    "reliability strategy": (
        lambda: reliability(Y > 0, P, strategy="kmeans"),
        "'strategy' .* Got 'kmeans'",
    ),
    "reliability confidence": (
        lambda: reliability(Y > 0, P, confidence=95),
        "'confidence' .* Got 95 ",
    ),
    "reliability scale": (
        lambda: reliability(Y > 0, P).plot(scale="odds"),
        "'scale' .* among .*'log-odds'.* Got 'odds'",
    ),
    "rejection average": (
        lambda: rejection(Y**2, Y, average="median"),
        "'average' .* Got 'median'",
    ),
    "rejection best": (lambda: rejection(Y**2, Y).plot(best=2), "'best' .* Got 2 "),
    "shift scale of zeros": (
        lambda: shift(0 * P, 0 * P).plot(scale="log"),
        "No uncertainty is above 0, so there is no log scale; use 'linear'",
    ),
    "shift scale": (lambda: shift(P, P).plot(scale="sqrt"), "'scale' .* Got 'sqrt'"),
    "shift component": (
        lambda: UncertaintyShiftDisplay.from_estimator(REGRESSOR, X1, X1, component="sd"),
        "'component' .* Got 'sd'",
    ),
    "size path direction": (
        lambda: sizes([1], [0.5], higher_is_better="up"),
        "'higher_is_better' .* Got 'up'",
    ),
    "size path size": (lambda: sizes([0, 2], [0.5, 0.4]), "sizes has the value 0;"),
    "size path same size": (lambda: sizes([5, 2, 5], [0, 1, 2]), "sizes has 5 more than once"),
    "size path of several settings": (
        lambda: SizePathDisplay.from_search(SEVERAL, param="alpha_init"),
        "several settings for one alpha_init; give from_scores those of one",
    ),
    "weights kind": (lambda: weights([0]).plot(kind="bars"), "'kind' .* Got 'bars'"),
    "weights indices": (lambda: weights([0.5]), "indices are an array of float64 of shape"),
    "weights fold": (
        lambda: SubnetworkDisplay.from_estimator(REGRESSOR, fold=-1),
        r"'fold' .* range \[0, inf\).* Got -1 ",
    ),
}

ARRAYS = {
    "bands y": (lambda: bands(GAP), "Input y contains NaN"),
    "bands y of rows": (lambda: bands(Y[1:]), r"inconsistent numbers of samples: \[30, 29\]"),
    "bands constant X": (
        lambda: PredictiveBandDisplay.from_estimator(REGRESSOR, np.ones((3, 1))),
        "X has the value 1 only",
    ),
    "made bands x": (lambda: made_bands(GAP, GAUSSIAN), "Input x contains NaN"),
    "made bands mean": (lambda: made_bands(Y, (GAP, GAUSSIAN[1])), "Input mean contains NaN"),
    "made bands data": (lambda: made_bands(Y, GAUSSIAN, (Y, GAP)), r"data\[1\] contains NaN"),
    "plane y": (lambda: plane(GAP), "Input y contains NaN"),
    "plane of other labels": (
        lambda: DecisionUncertaintyDisplay.from_estimator(NAMES, X2, Y > 0),
        r"y begins with False and has none of the classes \['a', 'b'\]",
    ),
    "plane y in regression": (
        lambda: DecisionUncertaintyDisplay.from_estimator(PLANE, X2, GAP, n_points=3),
        "Input y contains NaN",
    ),
    "plane constant X": (
        lambda: DecisionUncertaintyDisplay.from_estimator(PLANE, X2 * [1, 0]),
        "x1 has the value 0 only",
    ),
    "quantiles y": (lambda: quantiles(GAP, GAUSSIAN), "Input y contains NaN"),
    "quantiles rows": (lambda: quantiles(Y[1:], GAUSSIAN), r"samples: \[29, 30\]"),
    "quantiles std": (lambda: quantiles(Y, (Y, Y)), "std has the value -1"),
    "quantiles shapes": (
        lambda: quantiles(Y, (Y, X1)),
        r"mean has shape \(30,\) and std \(30, 1\); give one shape",
    ),
    "quantiles targets": (
        lambda: quantiles(X2, GAUSSIAN),
        "y has 2 targets, the predictions have 1",
    ),
    "quantiles no model": (lambda: quantiles(Y, {}), "No model is given; give one, or a mapping"),
    "shift without probabilities": (
        lambda: UncertaintyShiftDisplay.from_estimator(
            RidgeClassifier().fit(X2, Y > 0), X2, X2, component="total"
        ),
        "RidgeClassifier has no predict_proba; use a classifier that has, or from_predictions",
    ),
    "quantiles no pair": (lambda: quantiles(Y, Y), "A ndarray is no prediction here"),
    "intervals y": (lambda: intervals(GAP, GAUSSIAN), "Input y contains NaN"),
    "intervals rows": (lambda: intervals(Y[1:], GAUSSIAN), r"samples: \[29, 30\]"),
    "reliability NaN": (lambda: reliability(Y > 0, GAP), "Input y_prob contains NaN"),
    "reliability range": (lambda: reliability(Y > 0, 2 * P), r"value 2, outside \[0, 1\]"),
    "reliability sum": (
        lambda: reliability(Y > 0, np.column_stack([P, P]) / 4 + 0.5),
        "y_prob sums to 1.5 in row 29",
    ),
    "reliability y": (lambda: reliability(GAP, P), "Input y contains NaN"),
    "reliability y of a table": (lambda: reliability(X2, P), r"y should be a 1d array.*\(30, 2\)"),
    "rejection errors": (lambda: rejection(GAP**2, Y), "Input errors contains NaN"),
    "rejection uncertainty": (lambda: rejection(Y**2, GAP), "Input uncertainty contains NaN"),
    "rejection signed": (lambda: rejection(Y, Y), "errors has the value -1"),
    "rejection shape": (lambda: rejection(X2**2, Y), r"errors has shape \(30, 2\)"),
    "rejection y": (
        lambda: RejectionDisplay.from_estimator(REGRESSOR, X1, GAP),
        "Input y contains NaN",
    ),
    "rejection labels": (
        lambda: RejectionDisplay.from_estimator(CLASSIFIER, X2, GAP),
        "Input y contains NaN",
    ),
    "shift": (lambda: shift(P, GAP), "Input outside contains NaN"),
    "size path scores": (lambda: sizes([1, 2], [0.5, np.nan]), "Input scores contains NaN"),
    "size path sizes": (lambda: sizes([1, np.inf], [0.5, 0.4]), "Input sizes contains infinity"),
    "size path reference": (
        lambda: sizes([1, 2], [0.5, 0.4], reference={"net": np.nan}),
        "reference 'net' contains NaN",
    ),
}


@pytest.mark.parametrize("case", RANGES)
def test_numbers_and_options_out_of_range_are_refused(case):
    ask, message = RANGES[case]
    with pytest.raises(ValueError, match=message):
        ask()


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_cannot_be_are_refused(case):
    ask, message = ARRAYS[case]
    with pytest.raises((ValueError, TypeError), match=message):
        ask()


def test_ends_of_the_ranges_are_taken():
    assert bands(n_points=2, margin=0).x.tolist() == [-1, 1]
    assert len(reliability(Y > 0, P, n_bins=1).curves[0].n) == 1
    assert len(intervals(Y, GAUSSIAN, n_groups=1).by_std[0].n) == 1
    assert quantiles(Y, GAUSSIAN, levels=0.5, n_bootstraps=1, random_state=None).levels == [0.5]
    half = np.column_stack([P, 1 - P]).astype(np.float16)  # sums are a little off 1
    assert reliability(Y > 0, half).event == "class True"
    one = rejection([4.0], [0.1], average="root mean")
    assert one.error.tolist() == [[2.0]] and np.isnan(one.standard_error).all()
    assert one.plot().ax_.get_ylim() == pytest.approx((0, 2.1))


def test_columns_of_targets_are_not_broadcast():
    column = RejectionDisplay.from_estimator(REGRESSOR, X1, Y[:, None])
    np.testing.assert_array_equal(
        column.error, RejectionDisplay.from_estimator(REGRESSOR, X1, Y).error
    )


UNFITTED = {
    "bands": lambda m: PredictiveBandDisplay.from_estimator(m, X1),
    "plane": lambda m: DecisionUncertaintyDisplay.from_estimator(m, X2),
    "quantiles": lambda m: QuantileCalibrationDisplay.from_estimator(m, X1, Y),
    "intervals": lambda m: IntervalCoverageDisplay.from_estimator({"model": m}, X1, Y),
    "reliability": lambda m: ReliabilityDisplay.from_estimator(m, X1, Y > 0),
    "rejection": lambda m: RejectionDisplay.from_estimator(m, X1, Y),
    "shift": lambda m: UncertaintyShiftDisplay.from_estimator(m, X1, X1),
    "weights": SubnetworkDisplay.from_estimator,
    "size path": SizePathDisplay.from_search,
}


@pytest.mark.parametrize("name", UNFITTED)
def test_models_that_are_not_fitted(name):
    models = [
        MAPClassifier() if name == "reliability" else SubnetLaplaceRegressor(),
        make_pipeline(StandardScaler(), BayesianRidge()),
        GridSearchCV(BayesianRidge(), {"alpha_init": [1.0]}),
    ]
    if name == "size path":
        models = [models[-1], SubnetLaplaceRegressorCV()]
    for model in models:
        with pytest.raises(NotFittedError):
            UNFITTED[name](model)


@pytest.mark.parametrize("name", ["bands", "quantiles", "intervals"])
def test_classifiers_are_sent_to_their_display(name):
    message = "is for regressors, and LogisticRegression is a classifier; use ReliabilityDisplay"
    with pytest.raises(TypeError, match=message):
        UNFITTED[name](make_pipeline(LogisticRegression()).fit(X1, Y > 0))


def test_regressors_are_sent_to_their_display():
    with pytest.raises(TypeError, match="is a regressor; use QuantileCalibrationDisplay"):
        ReliabilityDisplay.from_estimator(REGRESSOR, X1, Y > 0)


def test_predictions_about_classes_are_not_targets():
    logits = Predictive(torch.zeros(30, 3), torch.eye(3).expand(30, 3, 3), Categorical())
    for ask in (quantiles, intervals, made_bands):
        with pytest.raises(TypeError, match=r"about classes, .* ReliabilityDisplay takes"):
            ask(Y, logits)


@pytest.mark.parametrize("ask", [bands, plane, quantiles, rejection, sizes])
def test_axes_are_for_plot(ask):
    with pytest.raises(TypeError, match=r"computes and takes no ax; draw with .*\.plot\(ax\)"):
        ask(ax=None)
