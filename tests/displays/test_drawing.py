"""What all displays have in common: where they draw, and what they import for it."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

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
from sksubnet.displays.drawing import number

Y = np.linspace(-1, 1, 30)
GAUSSIAN = (np.zeros(30), np.ones(30))
PLANE = np.arange(12.0).reshape(3, 4)

DISPLAYS = {
    "bands": lambda: PredictiveBandDisplay.from_predictions(Y, GAUSSIAN),
    "quantiles": lambda: QuantileCalibrationDisplay.from_predictions(Y, GAUSSIAN),
    "intervals": lambda: IntervalCoverageDisplay.from_predictions(Y, GAUSSIAN),
    "reliability": lambda: ReliabilityDisplay.from_predictions(Y > 0, (Y + 1) / 2),
    "shift": lambda: UncertaintyShiftDisplay.from_predictions(Y, Y + 1),
    "rejection": lambda: RejectionDisplay.from_predictions(Y**2, Y),
    "subnetwork": lambda: SubnetworkDisplay.from_indices([0, 3], {"w": (2, 3)}),
    "size_path": lambda: SizePathDisplay.from_scores([1, 2], [0.1, 0.2]),
    "decision": lambda: DecisionUncertaintyDisplay(
        np.arange(4.0), np.arange(3.0), PLANE, PLANE, "mean", "sd"
    ),
}


@pytest.mark.parametrize("name", DISPLAYS)
def test_draws_on_the_given_axes_or_on_its_own_at_print_size(name):
    plt = pytest.importorskip("matplotlib.pyplot")
    before = plt.rcParams.copy()
    own = DISPLAYS[name]()
    assert own.plot() is own
    width = own.figure_.get_size_inches()[0]
    assert width == pytest.approx(3.35 * (2 if name == "decision" else 1))
    own.figure_.canvas.draw()

    figure, given = plt.subplots(1, 2) if name == "decision" else plt.subplots()
    display = DISPLAYS[name]().plot(ax=given)
    assert display.ax_ is np.ravel(given)[0]
    assert display.figure_ is figure
    figure.canvas.draw()
    assert plt.rcParams == before


@pytest.mark.parametrize("name", ["quantiles", "reliability", "intervals"])
@pytest.mark.parametrize("free", [False, True])
def test_panel_below_keeps_its_labels_inside_the_figure(name, free):
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plt.figure(layout=None if free else "constrained")
    ax = figure.add_axes((0.2, 0.5, 0.7, 0.4)) if free else figure.add_subplot(1, 2, 1)
    display = DISPLAYS[name]().plot(ax=ax)
    lower = getattr(display, "width_ax_" if name == "intervals" else "counts_ax_")
    figure.canvas.draw()
    assert lower.get_xlim() == ax.get_xlim()
    label = lower.xaxis.label.get_window_extent()
    assert label.y0 > 0
    assert lower.get_position().y1 < ax.get_position().y0
    assert ax.get_xlabel() == ""


LONG = ["a subnetwork of the default net", "Bayesian ridge on the numbers"]
OF_TWO = {
    "quantiles": lambda: QuantileCalibrationDisplay.from_predictions(
        Y, dict.fromkeys(LONG, GAUSSIAN)
    ),
    "intervals": lambda: IntervalCoverageDisplay.from_predictions(Y, dict.fromkeys(LONG, GAUSSIAN)),
    "reliability": lambda: ReliabilityDisplay.from_predictions(
        Y > 0, dict.fromkeys(LONG, (Y + 1) / 2)
    ),
    "rejection": lambda: RejectionDisplay.from_predictions(
        dict.fromkeys(LONG, 1e4 * Y**2), dict.fromkeys(LONG, Y), error_name="RMSE (units of y)"
    ),
    "bands": DISPLAYS["bands"],
    "size_path": DISPLAYS["size_path"],
}


@pytest.mark.parametrize("name", OF_TWO)
@pytest.mark.parametrize("n_across", [0, 1, 2])
def test_legend_and_labels_are_beside_the_curves_and_inside_the_figure(name, n_across):
    plt = pytest.importorskip("matplotlib.pyplot")
    if n_across:
        figure, axes = plt.subplots(1, n_across, figsize=(4.7, 4.2), layout="constrained")
        OF_TWO[name]().plot(ax=np.ravel(axes)[0])
    else:
        figure = OF_TWO[name]().plot().figure_
    figure.canvas.draw()
    (legend,) = filter(None, (ax.get_legend() for ax in figure.axes))
    place = legend.get_window_extent()
    labels = [text.get_window_extent() for ax in figure.axes for text in (ax.xaxis.label,)]
    for other in [*(ax.get_window_extent() for ax in figure.axes), *labels]:
        assert not (place.overlaps(other) and other.width and other.height)
    slack = 2
    for box in [place, *(ax.yaxis.label.get_window_extent() for ax in figure.axes)]:
        assert box.x0 > -slack and box.x1 < figure.bbox.width + slack
        assert box.y0 > -slack and box.y1 < figure.bbox.height + slack


@pytest.mark.parametrize("name", ["quantiles", "reliability"])
def test_without_counts_there_is_one_panel_with_the_legend(name):
    pytest.importorskip("matplotlib")
    display = DISPLAYS[name]().plot(counts=False)
    assert display.counts_ax_ is None
    assert display.figure_.axes == [display.ax_]
    assert "30 rows" in display.ax_.get_legend().get_title().get_text()
    assert display.ax_.get_xlabel().startswith(("level of", "predicted probability"))


def test_without_layout_the_legend_is_inside():
    plt = pytest.importorskip("matplotlib.pyplot")
    figure, ax = plt.subplots()
    DISPLAYS["quantiles"]().plot(ax=ax)
    figure.canvas.draw()
    assert ax.get_window_extent().overlaps(ax.get_legend().get_window_extent())


def plane_of(n_classes):
    p = np.linspace(1 / n_classes, 1, 12).reshape(3, 4)
    rows, labels = np.ones((2 * n_classes, 2)), np.arange(2 * n_classes) % n_classes
    what = "class 1" if n_classes == 2 else "the predicted class"
    return DecisionUncertaintyDisplay(
        *(np.arange(4.0), np.arange(3.0), p, 1.386 * p[::-1]),
        *(f"probability of {what}", "entropy of the prediction (nats)"),
        (rows, np.array([f"kind {k}" for k in labels])),
        (12 * p).astype(int) % n_classes,
    )


@pytest.mark.parametrize("n_classes", [2, 4, 9])
def test_planes_share_a_legend_and_have_round_colour_bars(n_classes, recwarn):
    plt = pytest.importorskip("matplotlib.pyplot")
    for n_rows in (0, 1, 2):
        if n_rows:
            size = (4.7, 2.4 * n_rows + 0.5)
            figure, axes = plt.subplots(n_rows, 2, figsize=size, layout="constrained")
            for pair in np.reshape(axes, (n_rows, 2)):
                display = plane_of(n_classes).plot(ax=pair)
        else:
            display = plane_of(n_classes).plot()
            figure = display.figure_
        figure.canvas.draw()
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == [f"class kind {k} (n = 2)" for k in range(n_classes)]
        place = legend.get_window_extent()
        assert place.x0 >= 0 and place.x1 <= figure.bbox.width
        for ax in figure.axes:
            assert not place.overlaps(ax.get_tightbbox())
            assert ax.get_legend() is None
        bars = [ax for ax in figure.axes if ax not in np.ravel(axes if n_rows else display.axes_)]
        of_probability, of_entropy = bars[-2:]
        assert of_probability.get_ylim()[1] == 1
        for bar, limits in ((of_probability, (0, 1)), (of_entropy, (0, 1.4))):
            low, high = bar.get_ylim()
            assert limits[0] <= low < high <= limits[1] + 1e-9
            shown = [tick for tick in bar.get_yticks() if low <= tick <= high]
            np.testing.assert_allclose(np.round(shown, 1), shown, atol=1e-9)
    assert not [warned for warned in recwarn if "constrained_layout" in str(warned.message)]


def test_planes_of_other_classes_have_legends_of_their_own():
    plt = pytest.importorskip("matplotlib.pyplot")
    figure, axes = plt.subplots(1, 2, layout="constrained")
    for ax, n_classes in zip(axes, (2, 3), strict=True):
        plane_of(n_classes).plot(ax=ax, kind="prediction")
    assert len(figure.legends) == 1
    assert len(axes[1].get_legend().get_texts()) == 3


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (19634.0, 3, "19600"),
        (253000.0, 2, "250000"),
        (0.0378, 2, "0.038"),
        (0.5, 2, "0.50"),
        (31.4, 2, "31"),
        (0.000012345, 2, "0.000012"),
        (2.53e7, 3, "2.53e+07"),
    ],
)
def test_numbers_are_written_as_axes_write_them(value, digits, text):
    assert number(value, digits) == text


def test_sizes_have_a_number_where_there_is_room():
    plt = pytest.importorskip("matplotlib.pyplot")
    sizes = [10, 50, 1000, 100_000, 120_000]
    ax = SizePathDisplay.from_scores(sizes, np.arange(5)).plot().ax_
    plt.gcf().canvas.draw()
    np.testing.assert_array_equal(ax.get_xticks(), sizes)
    texts = [label for label in ax.get_xticklabels() if label.get_text()]
    assert [label.get_text() for label in texts] == ["10", "50", "1000", "100000"]
    boxes = [label.get_window_extent() for label in texts]
    assert all(left.x1 + 3 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("name", DISPLAYS)
def test_without_matplotlib_there_are_numbers_still(name, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    display = DISPLAYS[name]()
    assert len(display.frame()) > 0
    with pytest.raises(ImportError, match=rf"{type(display).__name__}\.plot requires matplotlib"):
        display.plot()


@pytest.mark.parametrize("name", DISPLAYS)
def test_without_pandas_there_are_attributes_still(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    display = DISPLAYS[name]()
    with pytest.raises(ImportError, match=rf"{type(display).__name__}\.frame requires pandas"):
        display.frame()


def test_import_and_numbers_do_not_load_matplotlib():
    code = (
        "import sys; from sksubnet.displays import ReliabilityDisplay as D; "
        "D.from_predictions([0, 1, 1], [.1, .5, .9]); "
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["quantiles", "reliability", "rejection", "bands", "size_path"])
def test_options_reach_the_line(name):
    pytest.importorskip("matplotlib")
    ax = DISPLAYS[name]().plot(color="#123456").ax_
    assert "#123456" in [line.get_color() for line in ax.get_lines()]


@pytest.mark.parametrize("name", ["quantiles", "reliability", "rejection", "intervals"])
def test_name_is_in_the_legend(name):
    pytest.importorskip("matplotlib")
    figure = DISPLAYS[name]().plot(name="my model").figure_
    (legend,) = filter(None, (ax.get_legend() for ax in figure.axes))
    assert any(text.get_text().startswith("my model") for text in legend.get_texts())
