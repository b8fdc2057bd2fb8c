"""Numbers of the displays for regressors against counting by hand and closed forms."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import BayesianRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksubnet.displays import (
    IntervalCoverageDisplay,
    PredictiveBandDisplay,
    QuantileCalibrationDisplay,
)
from sksubnet.predictive import Gaussian, Mixture, Predictive

pytest.importorskip("pandas")


def test_observed_quantiles_are_counted(known_regressor, gaussian_rows):
    X, y = gaussian_rows
    levels = [0.1, 0.5, 0.9]
    display = QuantileCalibrationDisplay.from_estimator(known_regressor, X, y, levels=levels)
    for level, observed in zip(levels, display.observed[0], strict=True):
        quantile = stats.norm.ppf(level, X[:, 0], X[:, 1])
        assert observed == pytest.approx(sum(y <= quantile) / len(y))
    np.testing.assert_allclose(display.pit[0], stats.norm.cdf(y, X[:, 0], X[:, 1]))
    expected_gap = np.mean(np.abs(display.observed[0] - levels))
    assert display.gap_[0] == pytest.approx(expected_gap)


def test_bootstrap_bands_are_those_of_the_rows_drawn_again(gaussian_rows):
    X, y = gaussian_rows
    display = QuantileCalibrationDisplay.from_predictions(
        y, tuple(X.T), levels=[0.2, 0.7], confidence=0.9, n_bootstraps=4000
    )
    rng = np.random.default_rng(5)
    pit = display.pit[0]
    again = pit[rng.integers(len(pit), size=(4000, len(pit)))]
    for index, level in enumerate([0.2, 0.7]):
        low, high = np.quantile((again <= level).mean(axis=1), [0.05, 0.95])
        assert display.lower[0, index] == pytest.approx(low, abs=0.005)
        assert display.upper[0, index] == pytest.approx(high, abs=0.005)


def test_quantiles_of_a_mixture_are_not_taken_for_a_gaussian():
    two = Mixture(torch.tensor([[[-2.0]] * 3, [[2.0]] * 3]).reshape(2, 3, 1))
    predictive = Predictive.of_mixture(two, Gaussian(torch.tensor([0.01])))
    display = QuantileCalibrationDisplay.from_predictions([-1.0, 0.0, 1.0], predictive)
    np.testing.assert_allclose(display.pit[0], 0.5, atol=1e-9)


def test_target_on_a_quantile_counts_as_below_it():
    display = QuantileCalibrationDisplay.from_predictions([0.0], ([0.0], [1.0]), levels=[0.4, 0.5])
    np.testing.assert_array_equal(display.observed, [[0, 1]])


def test_quantile_plot_says_what_it_shows(known_regressor, gaussian_rows):
    X, y = gaussian_rows
    models = {"known": known_regressor, "ridge": BayesianRidge().fit(X, y)}
    display = QuantileCalibrationDisplay.from_estimator(models, X, y).plot()
    legend = display.counts_ax_.get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0] == "calibrated"
    assert texts[1].startswith("known, gap 0.0")
    assert legend.get_title().get_text() == "400 rows; bands: 90% bootstrap"
    assert display.counts_ax_.get_xlabel() == "level of the predicted quantile"
    drawn = display.counts_ax_.patches[0].get_data().values
    np.testing.assert_array_equal(drawn, np.histogram(display.pit[0], np.linspace(0, 1, 11))[0])
    frame = display.frame()
    assert list(frame["model"].unique()) == ["known", "ridge"]
    np.testing.assert_allclose(frame.query("model == 'ridge'")["observed"], display.observed[1])
    assert (frame["n"] == 400).all()


def test_coverage_and_width_by_level(known_regressor, gaussian_rows):
    X, y = gaussian_rows
    display = IntervalCoverageDisplay.from_estimator(known_regressor, X, y, levels=[0.5, 0.9])
    frame = display.frame()
    for level, row in zip([0.5, 0.9], frame.itertuples(), strict=True):
        lower, upper = stats.norm.interval(level, X[:, 0], X[:, 1])
        inside = int(((lower <= y) & (y <= upper)).sum())
        wilson = stats.binomtest(inside, len(y)).proportion_ci(0.95, method="wilson")
        assert row.level == level
        assert row.coverage == pytest.approx(inside / len(y))
        assert row.width == pytest.approx(np.mean(upper - lower))
        assert (row.lower, row.upper) == pytest.approx((wilson.low, wilson.high))
        assert row.n == 400


def test_coverage_by_decile_of_the_standard_deviation(known_regressor, gaussian_rows):
    X, y = gaussian_rows
    display = IntervalCoverageDisplay.from_estimator(known_regressor, X, y, coverage=0.8)
    frame = display.frame(by="std")
    order = np.argsort(X[:, 1])
    half_width = stats.norm.ppf(0.9) * X[:, 1]
    inside = np.abs(y - X[:, 0]) <= half_width
    for rows, row in zip(np.split(order, 10), frame.itertuples(), strict=True):
        assert row.n == len(rows)
        assert row.std == pytest.approx(X[rows, 1].mean())
        assert row.coverage == pytest.approx(inside[rows].mean())
        assert row.width == pytest.approx(2 * half_width[rows].mean())


@pytest.mark.parametrize("by", ["level", "std"])
def test_coverage_plot_says_what_it_shows(known_regressor, gaussian_rows, by):
    display = IntervalCoverageDisplay.from_estimator(known_regressor, *gaussian_rows).plot(by=by)
    title = display.width_ax_.get_legend().get_title().get_text()
    assert "Wilson" in title and ("400 rows" in title or "groups of 40 rows" in title)
    assert "units of y" in display.width_ax_.get_ylabel()
    xlabel = display.width_ax_.get_xlabel()
    assert xlabel.startswith("nominal coverage" if by == "level" else "predicted sd")


def test_one_target_of_several(gaussian_rows):
    class Two:
        def predict(self, X, return_std):
            assert return_std
            return np.column_stack([X[:, 0], X[:, 0]]), np.column_stack([X[:, 1], 9 * X[:, 1]])

    X, y = gaussian_rows
    display = IntervalCoverageDisplay.from_estimator(
        Two(), X, np.column_stack([y, y]), levels=[0.5], target=1
    )
    lower, upper = stats.norm.interval(0.5, X[:, 0], 9 * X[:, 1])
    assert display.by_level[0].coverage[0] == np.mean((lower <= y) & (y <= upper))
    with pytest.raises(ValueError, match="target=2 is not one of the 2"):
        IntervalCoverageDisplay.from_estimator(Two(), X, np.column_stack([y, y]), target=2)


def test_bands_of_a_gaussian_process_in_a_pipeline():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(30, 1))
    y = np.sin(6 * X[:, 0])
    model = make_pipeline(StandardScaler(), GaussianProcessRegressor(alpha=0.01)).fit(X, y)
    display = PredictiveBandDisplay.from_estimator(model, X, y, n_points=7, margin=0.5)
    reach = 0.5 * np.ptp(X)
    np.testing.assert_allclose(display.x, np.linspace(X.min() - reach, X.max() + reach, 7))
    mean, std = model.predict(display.x[:, None], return_std=True)
    np.testing.assert_allclose(display.mean, mean)
    np.testing.assert_allclose(display.std, std)
    assert list(display.frame().columns) == ["x", "mean", "std"]
    assert display.name == "GaussianProcessRegressor"
    assert len(display.plot().ax_.collections) == 1  # one band: no parts are known


def test_bands_with_parts():
    predictive = Predictive(
        torch.zeros(3, 1), torch.full((3, 1, 1), 0.09), Gaussian(torch.tensor([0.16]))
    )
    display = PredictiveBandDisplay.from_predictions(
        [2.0, 0.0, 1.0], predictive, ([0.5, 1.5], [0.0, 1.0]), x_name="x (s)", y_name="y (m)"
    )
    frame = display.frame()
    np.testing.assert_allclose(frame["x"], [0, 1, 2])
    np.testing.assert_allclose(frame["std"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(frame["std_aleatoric"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(frame["std_epistemic"], 0.3, rtol=1e-6)
    ax = display.plot(n_std=3).ax_
    heights = [band.get_paths()[0].vertices[:, 1] for band in ax.collections]
    np.testing.assert_allclose([h.max() for h in heights], [1.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose([h.min() for h in heights], [-1.5, -0.9], rtol=1e-6)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["±3 sd, new target, with noise", "±3 sd, function (epistemic)"]
    assert texts[-1] == "data (n = 2)"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (s)", "y (m)")


def test_label_of_the_target_is_the_name_of_its_series():
    pd = pytest.importorskip("pandas")
    X, y = np.arange(5.0)[:, None], np.array([0.0, 1.0, 3.0, 2.0, 4.0])
    model = BayesianRidge().fit(X, y)
    for given, options, label in (
        (y, {}, "y"),
        (pd.Series(y), {}, "y"),
        (pd.Series(y, name="price"), {}, "price"),
        (pd.Series(y, name="price"), {"y_name": "price (k$)"}, "price (k$)"),
    ):
        display = PredictiveBandDisplay.from_estimator(model, X, given, **options)
        assert display.plot().ax_.get_ylabel() == label


def test_bands_need_one_input_and_a_spread(gaussian_rows):
    X, y = gaussian_rows
    with pytest.raises(ValueError, match="X has 2 columns"):
        PredictiveBandDisplay.from_estimator(BayesianRidge().fit(X, y), X)

    class Plain:
        def predict(self, X):
            return np.zeros(len(X))

    with pytest.raises(TypeError, match="Plain has no predictive distribution"):
        QuantileCalibrationDisplay.from_estimator(Plain(), X, y)
