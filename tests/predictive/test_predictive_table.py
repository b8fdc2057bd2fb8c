"""A predictive distribution as a data frame, as text and as HTML."""

import sys

import numpy as np
import pytest
import torch

from sksubnet.predictive import Bernoulli, Categorical, Gaussian, Predictive

pd = pytest.importorskip("pandas")


def regression(n_rows=3, n_targets=1):
    mean = torch.arange(float(n_rows * n_targets)).reshape(n_rows, n_targets)
    return Predictive(
        mean,
        torch.eye(n_targets).repeat(n_rows, 1, 1) * 0.09,
        Gaussian(torch.tensor(0.16).repeat(n_targets)),
    )


def test_frame_of_one_target_is_flat():
    frame = regression().to_frame(index=list("abc"), coverage=0.5)
    expected = ["mean", "std", "std_aleatoric", "std_epistemic", "lower", "upper"]
    assert list(frame.columns) == expected
    assert list(frame.index) == list("abc")
    np.testing.assert_allclose(frame["mean"], [0, 1, 2])
    np.testing.assert_allclose(frame["std"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(frame["std_epistemic"], 0.3, rtol=1e-6)
    half_width = 0.5 * 0.6744897501960817  # the upper quartile of a standard normal
    np.testing.assert_allclose(frame["upper"] - frame["mean"], half_width, rtol=1e-6)
    np.testing.assert_allclose(frame["mean"] - frame["lower"], half_width, rtol=1e-6)


def test_frame_of_several_targets_has_a_block_for_each():
    predictive = regression(2, 2)
    frame = predictive.to_frame(names=["length", "width"])
    assert frame.columns.nlevels == 2
    np.testing.assert_allclose(frame["width"]["mean"], [1, 3])
    np.testing.assert_allclose(frame["length"]["upper"], predictive.interval()[:, 0, 1])
    with pytest.raises(ValueError, match="1 entries for 2 targets"):
        predictive.to_frame(names=["length"])


def test_frame_of_a_classifier():
    predictive = Predictive(torch.tensor([[0.3], [2.0]]), torch.ones(2, 1, 1), Bernoulli())
    frame = predictive.to_frame(names=np.array(["no", "yes"]))
    np.testing.assert_allclose(frame[["p(no)", "p(yes)"]], predictive.probabilities())
    np.testing.assert_allclose(frame["entropy"], predictive.entropy())
    np.testing.assert_allclose(frame["mutual_information"], predictive.mutual_information())
    with pytest.raises(ValueError, match="index has 3 labels for 2 rows"):
        predictive.to_frame(index=range(3))


def test_frame_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas .* std\(\)"):
        regression().to_frame()


def test_text_shows_the_ends_of_a_long_table():
    predictive = regression(100)
    assert len(predictive) == 100
    lines = repr(predictive).splitlines()
    assert lines[0] == "Predictive: 100 rows, 1 target, lower to upper holds 90%"
    assert lines[1].split() == list(predictive.to_frame().columns)
    assert [line.split()[0] for line in lines[2:]] == [*"01234", "...", *map(str, range(95, 100))]
    assert float(lines[-1].split()[1]) == 99
    assert predictive._repr_html_().count("<tr>") == 12


def test_a_short_table_is_shown_whole():
    predictive = regression(10)
    assert [line.split()[0] for line in repr(predictive).splitlines()[2:]] == list("0123456789")
    assert predictive._repr_html_().count("<tr>") == 11


def test_text_of_many_classes_keeps_the_entropies():
    predictive = Predictive(torch.zeros(2, 40), torch.eye(40).repeat(2, 1, 1), Categorical())
    head = repr(predictive).splitlines()[1].split()
    assert head[0] == "p(0)"
    assert head[-3:] == ["...", "entropy", "mutual_information"]
    assert len(head) <= 12


def test_text_of_several_targets_gives_mean_and_std():
    head = repr(regression(2, 2)).splitlines()[1]
    assert head.strip().split("  ") == [
        "target 0 mean",
        "target 0 std",
        "target 1 mean",
        "target 1 std",
    ]
