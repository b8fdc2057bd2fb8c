"""What a comparison says: numbers by hand, text, notebook, data frame."""

import sys
from dataclasses import replace
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


FIVE_FOLDS = np.concatenate([VALUES, VALUES.mean(axis=-1, keepdims=True)], axis=-1)


def comparison(values, direction):
    names = tuple("abc"[: values.shape[1]])
    return Comparison(
        values, ("test folds", "moved")[: len(values)], names, {"loss": direction}, {}
    )


def test_means_errors_and_differences_in_numbers():
    result = comparison(VALUES, -1)
    np.testing.assert_allclose(result.mean()[..., 0], [[3.0, 3.125, 9.25], [5.0, 4.5, 2.5]])
    # sums of squares of the deviations: 14, 9.6875, 0.25 and 4, 11, 27
    # on the test folds of 4: 1 / 4, and 1 / 3 for the rows that the trainings share
    corrected = 1 / 4 + 1 / 3
    squares = np.array([[14, 9.6875, 0.25], [4, 11, 27]])
    errors = np.sqrt(squares / 3 * [[corrected], [1.0]])
    np.testing.assert_allclose(result.error()[..., 0], errors)
    mean, error = result.difference()
    np.testing.assert_allclose(mean[..., 0], [[0.0, 0.125, 6.25], [0.0, -0.5, -2.5]])
    # of the differences: (0.5, 0, 0.5, -0.5), (8, 7.5, 6, 3.5), (-2, 0, 0, 0), (3, -3, -5, -5)
    squares = np.array([[0, 0.6875, 12.25], [0, 3.0, 43.0]])
    np.testing.assert_allclose(error[..., 0], np.sqrt(squares / 3 * [[corrected], [1.0]]))
    given = replace(result, test_share=0.1)
    np.testing.assert_allclose(given.error()[0, :, 0], errors[0] * np.sqrt(0.35 / corrected))
    np.testing.assert_allclose(given.error()[1, :, 0], errors[1])


def starred(result):
    """Estimators with a star in each set, read from the text."""
    tables = [table.splitlines() for table in str(result).split("\n\n")[:-1]]
    return [
        "".join(row[0] for row in rows if row.endswith("*"))
        for (title, *rows) in tables
        if not title.startswith("minus")
    ]


def test_stars_mark_the_best_and_what_its_error_does_not_tell_from_it():
    # moved: a - c is 2.5 with a standard deviation of 3.3 (its standard error would be 1.5)
    assert starred(comparison(FIVE_FOLDS, -1)) == ["ab", "abc"]
    assert starred(comparison(FIVE_FOLDS, 1)) == ["c", "abc"]
    assert starred(comparison(FIVE_FOLDS, 0)) == ["", ""]
    for n_folds in range(1, 5):
        few = comparison(FIVE_FOLDS[..., :n_folds], -1)
        assert "*" not in str(few) and "<b>" not in few._repr_html_()
    # alone in its column: nothing to be better than
    alone = np.where(np.arange(3)[:, None, None] == 1, FIVE_FOLDS, np.nan)
    assert starred(comparison(alone, -1)) == ["", ""]
    gone = np.where(np.arange(3)[:, None, None] == 0, np.nan, FIVE_FOLDS)
    assert starred(comparison(gone, -1)) == ["b", "bc"]


TEXT = """\
test folds       loss   score s
a           3.00±1.25*  0.01000
b                       0.02000
c           9.25±0.17   0.04000

minus a         loss
b
c           +6.2±1.2

moved          loss
a           5.0±1.0*
b           4.5±1.7*
c           2.5±2.6*

minus a         loss
b           -0.5±0.9
c           -2.5±3.3

± corrected standard error over 5 folds (standard deviation on shifted sets); * best, or within \
± of it fold by fold"""


def small_comparison(names=("a", "b", "c")):
    values = np.concatenate([FIVE_FOLDS, np.full_like(FIVE_FOLDS, np.nan)], axis=2)
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
    [(1.0, "3.00±1.25*"), (1e4, "30000±12550*"), (1e-4, "0.000300±0.000125*")],
)
def test_decimals_follow_the_error(scale, first):
    text = str(comparison(FIVE_FOLDS * scale, -1)).splitlines()[1]
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
