"""What all displays have in common: where they draw, and what they import for it."""

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
    legend = DISPLAYS[name]().plot(name="my model").ax_.get_legend()
    assert any(text.get_text().startswith("my model") for text in legend.get_texts())
