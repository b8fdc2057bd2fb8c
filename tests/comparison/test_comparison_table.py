"""What a comparison says: numbers by hand, text, notebook, data frame."""

import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from sksubnet.comparison.table import Comparison

VALUES = np.array(
    [
        [[[1.0, 2.0, 3.0, 6.0]], [[1.5, 2.0, 3.5, 5.5]], [[9.0, 9.5, 9.0, 9.5]]],
        [[[4.0, 4.0, 6.0, 6.0]], [[2.0, 4.0, 6.0, 6.0]], [[7.0, 1.0, 1.0, 1.0]]],
    ]
)


def comparison(values, direction):
    names = tuple("abc"[: values.shape[1]])
    return Comparison(
        values, ("test folds", "moved")[: len(values)], names, {"loss": direction}, {}
    )


def test_means_errors_and_differences_in_numbers():
    result = comparison(VALUES, -1)
    np.testing.assert_allclose(result.mean()[..., 0], [[3.0, 3.125, 9.25], [5.0, 4.5, 2.5]])
    # sums of squares of the deviations: 14, 9.6875, 0.25 and 4, 11, 27
    errors = [np.sqrt(np.array([14, 9.6875, 0.25]) / 3 / 4), np.sqrt(np.array([4, 11, 27]) / 3)]
    np.testing.assert_allclose(result.error()[..., 0], errors)
    mean, error = result.difference()
    np.testing.assert_allclose(mean[..., 0], [[0.0, 0.125, 6.25], [0.0, -0.5, -2.5]])
    # of the differences: (0.5, 0, 0.5, -0.5), (8, 7.5, 6, 3.5), (-2, 0, 0, 0), (3, -3, -5, -5)
    squares = np.array([[0, 0.6875, 12.25], [0, 3.0, 43.0]])
    np.testing.assert_allclose(error[..., 0], np.sqrt(squares / 3) / [[2.0], [1.0]])


def starred(result):
    """Estimators with a star in each set, read from the text."""
    tables = [table.splitlines() for table in str(result).split("\n\n")[:-1]]
    return [
        "".join(row[0] for row in rows if row.endswith("*"))
        for (title, *rows) in tables
        if not title.startswith("minus")
    ]


def test_stars_mark_the_best_and_what_its_error_does_not_tell_from_it():
    # moved: a - c is 2.5 with a standard deviation of 3.8 (its standard error would be 1.9)
    assert starred(comparison(VALUES, -1)) == ["ab", "abc"]
    assert starred(comparison(VALUES, 1)) == ["c", "abc"]
    assert starred(comparison(VALUES, 0)) == ["", ""]
    # alone in its column: nothing to be better than
    alone = np.where(np.arange(3)[:, None, None] == 1, VALUES, np.nan)
    assert starred(comparison(alone, -1)) == ["", ""]
    gone = np.where(np.arange(3)[:, None, None] == 0, np.nan, VALUES)
    assert starred(comparison(gone, -1)) == ["b", "bc"]


TEXT = """\
test folds       loss   score s
a           3.00±1.08*  0.01000
b                       0.02000
c           9.25±0.14   0.04000

minus a         loss
b
c           +6.2±1.0

moved          loss
a           5.0±1.2*
b           4.5±1.9*
c           2.5±3.0*

minus a         loss
b           -0.5±1.0
c           -2.5±3.8

± standard error over 4 folds (standard deviation on shifted sets); * best, or within ± of it \
fold by fold"""


def small_comparison(names=("a", "b", "c")):
    values = np.concatenate([VALUES, np.full_like(VALUES, np.nan)], axis=2)
    values[0, :, 1] = [[0.01], [0.02], [0.04]]
    values[0, 1, 0] = np.nan
    better = {"loss": -1, "score s": 0}
    return Comparison(values, ("test folds", "moved"), names, better, {})


def test_text_of_a_comparison():
    assert str(small_comparison()) == repr(small_comparison()) == TEXT


class Cells(HTMLParser):
    """Texts of the cells of a page, with a star where they are bold."""

    def __init__(self):
        super().__init__()
        self.texts, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("td", "th"):
            self.texts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open:
            self.texts[-1] += data + ("*" if "b" in self.open and "*" not in data else "")


def test_notebooks_show_the_same_cells_and_any_name():
    cells = Cells()
    cells.feed(small_comparison()._repr_html_())
    in_text = [word for line in TEXT.split("\n\n")[:-1] for word in line.split()]
    in_html = [word for text in cells.texts for word in text.split()]
    assert in_html == in_text and not cells.open
    assert "<th>a &lt; b</th>" in small_comparison(("a < b", "b", "c"))._repr_html_()


@pytest.mark.parametrize(
    ("scale", "first"),
    [(1.0, "3.00±1.08*"), (1e4, "30000±10801*"), (1e-4, "0.000300±0.000108*")],
)
def test_decimals_follow_the_error(scale, first):
    text = str(comparison(VALUES * scale, -1)).splitlines()[1]
    assert text.split() == ["a", first]


def test_agreement_up_to_rounding_does_not_ask_for_decimals():
    values = np.stack([VALUES[:1, 0], VALUES[:1, 1], VALUES[:1, 0] + [0, 0, 0, 1e-9]], axis=1)
    assert "\nc           +0.00±0.00\n" in str(comparison(values, -1))


def test_frame_has_all_statistics():
    result = small_comparison()
    frame = result.to_frame()
    mean, error = result.difference()
    for s, name in enumerate(result.sets):
        for e, estimator in enumerate(result.names):
            row = frame.loc[(name, estimator)]
            for k, score in enumerate(result.better):
                expected = [result.mean(), result.error(), mean, error]
                np.testing.assert_array_equal(row[score], [part[s, e, k] for part in expected])
    assert list(frame["loss"].columns) == ["mean", "error", "difference", "difference_error"]


def test_frame_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas .* mean\(\), error\(\)"):
        small_comparison().to_frame()
