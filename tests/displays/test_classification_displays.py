"""Numbers of the displays for classifiers against scikit-learn and counting by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sksubnet.displays import (
    DecisionUncertaintyDisplay,
    RejectionDisplay,
    ReliabilityDisplay,
    UncertaintyShiftDisplay,
)
from sksubnet.metrics import expected_calibration_error

pytest.importorskip("pandas")


@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_reliability_of_a_class_is_scikit_learns_calibration_curve(three_classes, strategy):
    p, y = three_classes
    display = ReliabilityDisplay.from_predictions(y, p, pos_label=2, n_bins=7, strategy=strategy)
    prob_true, prob_pred = calibration_curve(y == 2, p[:, 2], n_bins=7, strategy=strategy)
    np.testing.assert_allclose(display.curves[0].prob_true, prob_true)
    np.testing.assert_allclose(display.curves[0].prob_pred, prob_pred)
    assert display.curves[0].n.sum() == len(y)
    row = display.frame().iloc[2]
    interval = stats.binomtest(round(row["prob_true"] * row["n"]), int(row["n"]))
    low, high = interval.proportion_ci(0.95, method="wilson")
    assert (row["lower"], row["upper"]) == pytest.approx((low, high))


def test_confidence_of_the_predicted_class_has_the_calibration_error(
    known_classifier, three_classes
):
    p, y = three_classes
    display = ReliabilityDisplay.from_estimator(
        known_classifier, p, y, n_bins=15, strategy="uniform"
    )
    assert display.gap_[0] == pytest.approx(expected_calibration_error(y, p, n_bins=15))
    display.plot()
    assert display.ax_.get_ylabel() == "share correct"
    assert display.counts_ax_.get_xlabel() == "predicted probability of the predicted class"


def test_two_classes_are_about_the_second():
    y, p = np.array(["no", "yes", "yes"]), np.array([0.2, 0.6, 0.9])
    one = ReliabilityDisplay.from_predictions(y, p, n_bins=1)
    two = ReliabilityDisplay.from_predictions(y, np.column_stack([1 - p, p]), n_bins=1)
    for display in (one, two):
        assert display.curves[0].prob_pred[0] == pytest.approx(p.mean())
        assert display.curves[0].prob_true[0] == pytest.approx(2 / 3)
        assert display.event == "class yes"
    other = ReliabilityDisplay.from_predictions(y, p, n_bins=1, pos_label="no")
    assert other.curves[0].prob_true[0] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="pos_label='maybe' is not one of"):
        ReliabilityDisplay.from_predictions(y, p, pos_label="maybe")


def test_reliability_plot_of_several_models(three_classes):
    p, y = three_classes
    flat = (p + 1 / 3) / 2
    display = ReliabilityDisplay.from_predictions(y, {"sharp": p, "flat": flat})
    for scale in ("linear", "log-odds"):
        legend = display.plot(scale=scale).counts_ax_.get_legend()
        texts = [text.get_text() for text in legend.get_texts()]
        assert [text.split(",")[0] for text in texts] == ["calibrated", "sharp", "flat"]
        assert legend.get_title().get_text() == "500 rows; bars: 95% Wilson"
        drawn = sum(patch.get_data().values.sum() for patch in display.counts_ax_.patches)
        assert drawn == 2 * 500  # every row is in a bin of the histogram
    assert list(display.frame()["model"].unique()) == ["sharp", "flat"]
    points = display.ax_.containers[0].lines[0].get_xydata()
    curve = display.curves[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-points[:, 0])), curve.prob_pred, rtol=1e-9)


def test_log_odds_of_a_narrow_range_have_ticks_of_their_own():
    p = np.linspace(0.6, 0.8, 40)
    display = ReliabilityDisplay.from_predictions(np.arange(40) % 3 > 0, p, n_bins=1)
    ax = display.plot(scale="log-odds", counts=False).ax_
    expected = 1 / (1 + np.exp(-np.linspace(np.log(1.5), np.log(4), 4)))
    np.testing.assert_allclose(1 / (1 + np.exp(-ax.get_xticks())), expected)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.6", "0.68", "0.74", "0.8"]


def test_reliability_refuses_what_is_no_probability(three_classes):
    p, y = three_classes
    with pytest.raises(ValueError, match="outside"):
        ReliabilityDisplay.from_predictions(y, 3 * p)
    with pytest.raises(ValueError, match="about 3 classes, but 2 labels"):
        ReliabilityDisplay.from_predictions(y > 0, p)


def test_auroc_is_scikit_learns():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 6, 80) / 5, rng.integers(1, 8, 50) / 5  # with ties
    display = UncertaintyShiftDisplay.from_predictions(inside, outside)
    expected = roc_auc_score([0] * 80 + [1] * 50, np.concatenate([inside, outside]))
    assert display.auroc_ == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_one_row_has_no_error_of_the_auroc():
    display = UncertaintyShiftDisplay.from_predictions([0.1, 0.2, 0.3, 0.5], [0.4])
    assert display.auroc_ == 0.75
    assert np.isnan(display.auroc_error_)


def test_error_of_the_auroc_is_that_of_rows_drawn_again():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=300), rng.normal(1, 0.3, size=20)
    display = UncertaintyShiftDisplay.from_predictions(inside, outside)
    again = [
        UncertaintyShiftDisplay(rng.choice(inside, 300), rng.choice(outside, 20)).auroc_
        for _ in range(3000)
    ]
    assert display.auroc_error_ == pytest.approx(np.std(again), rel=0.05)


def test_shift_of_the_entropy_of_any_classifier(known_classifier, three_classes):
    p, _ = three_classes
    sure = np.eye(3)[np.zeros(40, int)] * 0.9 + 1 / 30
    display = UncertaintyShiftDisplay.from_estimator(known_classifier, sure, p, component="total")
    np.testing.assert_allclose(display.outside, stats.entropy(p, axis=1))
    texts = [t.get_text() for t in display.plot().ax_.get_legend().get_texts()]
    assert texts == ["in distribution (n = 40)", "out of distribution (n = 500)"]
    title = display.ax_.get_legend().get_title().get_text()
    assert title.startswith(f"AUROC {display.auroc_:.3f} ±")
    assert display.ax_.get_xlabel() == "entropy of the prediction (nats)"
    assert (display.frame()["set"] == "out").sum() == 500
    for patch in display.plot(scale="log").ax_.patches:
        assert patch.get_data().values.sum() == pytest.approx(1)
    with pytest.raises(TypeError, match="does not tell epistemic uncertainty apart"):
        UncertaintyShiftDisplay.from_estimator(known_classifier, p, p)


def test_error_on_the_rows_that_are_kept(known_classifier, three_classes):
    p, y = three_classes
    display = RejectionDisplay.from_estimator(known_classifier, p, y)
    wrong, entropy = p.argmax(axis=1) != y, stats.entropy(p, axis=1)
    for n in (1, 57, 250, 500):
        kept = np.argsort(entropy)[:n]
        assert display.error[0, n - 1] == pytest.approx(wrong[kept].mean())
        assert display.kept[n - 1] == n / 500
        best = np.sort(wrong)[:n].mean()
        assert display.best[0, n - 1] == pytest.approx(best)
    assert display.area_[0] == pytest.approx(display.error[0].mean())
    assert display.error_name == "error rate"


def test_error_of_a_regressor_is_the_root_mean_squared(known_regressor, gaussian_rows):
    X, y = gaussian_rows
    display = RejectionDisplay.from_estimator(known_regressor, X, y)
    for n in (3, 400):
        kept = np.argsort(X[:, 1])[:n]
        assert display.error[0, n - 1] == pytest.approx(np.sqrt(np.mean((y - X[:, 0])[kept] ** 2)))
    frame = display.frame()
    assert list(frame["n"]) == list(range(1, 401))
    rng = np.random.default_rng(0)
    squared = (y - X[:, 0]) ** 2
    again = [np.sqrt(rng.choice(squared, 400).mean()) for _ in range(4000)]
    assert frame["standard_error"].iloc[-1] == pytest.approx(np.std(again), rel=0.05)


def test_standard_error_of_few_rows():
    errors = np.array([0.0, 1.0, 1.0, 4.0])
    display = RejectionDisplay.from_predictions(errors, [0.1, 0.2, 0.3, 0.4])
    expected = [np.nan, *(errors[:n].std(ddof=1) / np.sqrt(n) for n in (2, 3, 4))]
    np.testing.assert_allclose(display.standard_error[0], expected)


def test_rows_of_equal_uncertainty_are_kept_at_random():
    display = RejectionDisplay.from_predictions([1, 0, 0, 1], [0.5, 0.5, 0.5, 0.9])
    np.testing.assert_allclose(display.error[0], [1 / 3, 1 / 3, 1 / 3, 1 / 2])
    useless = RejectionDisplay.from_predictions([1, 0, 0, 1], [0.5] * 4)
    np.testing.assert_allclose(useless.error[0], 0.5)


def test_rejection_plot_says_what_it_shows():
    rng = np.random.default_rng(0)
    errors = {name: rng.integers(0, 2, 100) for name in "ab"}
    uncertainty = {name: rng.uniform(size=100) for name in "ab"}
    display = RejectionDisplay.from_predictions(errors, uncertainty, error_name="error rate").plot()
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == [f"{n}, area {a:.3f}" for n, a in zip("ab", display.area_, strict=True)]
    assert display.ax_.get_legend().get_title().get_text() == "bands: ±1 s.e."
    assert "100 rows kept" in display.ax_.get_xlabel()
    alone = RejectionDisplay.from_predictions(errors["a"], uncertainty["a"]).plot(name="mine")
    texts = [text.get_text() for text in alone.ax_.get_legend().get_texts()]
    assert texts[0].startswith("mine, area") and texts[1:] == ["best", "at random"]
    with pytest.raises(ValueError, match="for the same models"):
        RejectionDisplay.from_predictions(errors, {"a": uncertainty["a"]})


def test_plane_of_two_features():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 2)), columns=["height", "age"])
    y = (X["height"] + X["age"] > 0).map({True: "old", False: "young"})
    model = LogisticRegression().fit(X, y)
    display = DecisionUncertaintyDisplay.from_estimator(model, X, y, n_points=9)
    frame = display.frame()
    p = model.predict_proba(frame[["height", "age"]])
    np.testing.assert_allclose(frame["prediction"], p[:, 1])
    np.testing.assert_allclose(frame["uncertainty"], stats.entropy(p, axis=1))
    display.plot()
    labels = [
        ax.get_ylabel().replace("\n", " ") for ax in display.figure_.axes if ax not in display.axes_
    ]
    assert labels == ["probability of class young", "entropy of the prediction (nats)"]
    (legend,) = display.figure_.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [f"class {k} (n = {(y == k).sum()})" for k in ("old", "young")]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("height", "age")
    with pytest.raises(ValueError, match="needs two"):
        DecisionUncertaintyDisplay.from_estimator(model, X.iloc[:, :1])


def test_plane_of_three_classes_and_of_a_regressor(known_regressor, gaussian_rows):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.arange(60) % 3
    model = LogisticRegression().fit(X, y)
    display = DecisionUncertaintyDisplay.from_estimator(model, X, n_points=5)
    p = model.predict_proba(display.frame()[["x0", "x1"]].to_numpy())
    np.testing.assert_allclose(display.prediction.ravel(), p.max(axis=1))
    np.testing.assert_array_equal(display.decision.ravel(), p.argmax(axis=1))
    display.plot(kind="prediction")
    display = DecisionUncertaintyDisplay.from_estimator(model, X, n_points=5, component="total")
    n_drawn = len(display.plot(kind="prediction").ax_.collections)
    display.decision[:] = 0  # one class everywhere, so that there is no boundary
    assert len(display.plot(kind="prediction").ax_.collections) == n_drawn - 1

    X, y = gaussian_rows
    display = DecisionUncertaintyDisplay.from_estimator(known_regressor, X, y, n_points=5, margin=0)
    first, second = np.meshgrid(display.x0, display.x1)
    np.testing.assert_allclose(display.prediction, first)
    np.testing.assert_allclose(display.uncertainty, second)
    display.plot()
