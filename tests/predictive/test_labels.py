"""Several labels for each row against quadrature, binary predictives and automatic derivatives."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from sksubnet.predictive import (
    Bernoulli,
    Mixture,
    MultiLabel,
    MultiLabelPredictive,
    Predictive,
    predictive_of,
)

MEAN = torch.tensor([[0.3, -2.0, 4.0], [-0.5, 0.0, 1.0]], dtype=torch.float64)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.9, 0.0], [0.1, -0.3, 1.7]], dtype=torch.float64)
COVARIANCE = torch.stack([ROOT @ ROOT.T, torch.eye(3, dtype=torch.float64)])


def labels(link="extended_probit") -> Predictive:
    return predictive_of(Mixture(MEAN[None], COVARIANCE[None]), MultiLabel(), link)


def binary(column: int, link="extended_probit") -> Predictive:
    part = slice(column, column + 1)
    return Predictive(MEAN[:, part], COVARIANCE[:, part, part], Bernoulli(), link)


def expectation(function, mean: float, variance: float) -> float:
    f = np.linspace(-12, 12, 4001) * variance**0.5 + mean
    return float(integrate.simpson(function(f) * stats.norm.pdf(f, mean, variance**0.5), x=f))


@pytest.mark.parametrize("link", ["probit", "extended_probit", "mc"])
def test_each_label_is_a_binary_classification(link):
    found = labels(link).probabilities()
    for column in range(3):
        expected = binary(column, link).probabilities()[:, 1]
        np.testing.assert_allclose(found[:, column], expected, atol=1e-12)


@pytest.mark.parametrize(("link", "error"), [("extended_probit", 0.02), ("mc", 2e-3)])
def test_the_link_is_near_quadrature(link, error):
    found = labels(link).probabilities()
    for row in range(2):
        for column in range(3):
            moments = float(MEAN[row, column]), float(COVARIANCE[row, column, column])
            assert found[row, column] == pytest.approx(
                expectation(special.expit, *moments), abs=error
            )


def binary_entropy(p):
    return special.entr(p) + special.entr(1 - p)


def test_entropies_are_sums_over_the_labels():
    predictive = labels()
    for component in ("total", "aleatoric", "epistemic"):
        found, expected = predictive.entropy(component), np.zeros(2)
        for row in range(2):
            for column in range(3):
                moments = float(MEAN[row, column]), float(COVARIANCE[row, column, column])
                total = binary_entropy(expectation(special.expit, *moments))
                inside = expectation(lambda f: binary_entropy(special.expit(f)), *moments)
                parts = {"total": total, "aleatoric": inside, "epistemic": total - inside}
                expected[row] += parts[component]
        np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_array_equal(predictive.mutual_information(), predictive.entropy("epistemic"))


def test_log_prob_and_draws():
    predictive = labels()
    p = predictive.probabilities()
    y = np.array([[1, 0, 1], [0, 0, 1]])
    expected = stats.bernoulli.logpmf(y, p).sum(axis=1)
    np.testing.assert_allclose(predictive.log_prob(y), expected)
    tuned_on = MultiLabel().predictive_log_prob(MEAN, COVARIANCE, torch.as_tensor(y))
    np.testing.assert_allclose(tuned_on, expected)
    draws = predictive.sample(50_000, random_state=0)
    assert draws.shape == (2, 3, 50_000) and set(np.unique(draws)) == {0, 1}
    np.testing.assert_allclose(draws.mean(axis=-1), p, atol=0.01)
    for wrong in (y[:, :2], y * 2, y[0]):
        with pytest.raises(ValueError, match="0 or 1 for each of the 3 labels of the 2 rows"):
            predictive.log_prob(wrong)


def test_mixed_stacked_and_chosen_rows():
    one, other = labels(), predictive_of(Mixture(-MEAN[None]), MultiLabel())
    mixed = Predictive.mix(
        [one, predictive_of(Mixture(-MEAN[None], COVARIANCE[None]), MultiLabel())]
    )
    assert isinstance(mixed, MultiLabelPredictive)
    mirrored = 1 - one.probabilities()
    np.testing.assert_allclose(mixed.probabilities(), (one.probabilities() + mirrored) / 2)
    np.testing.assert_allclose(other.probabilities(), special.expit(-MEAN))
    stacked = Predictive.stack([one, one.rows([1])])
    np.testing.assert_allclose(stacked.rows([2]).probabilities(), one.probabilities()[1:])
    frame = one.to_frame(names=["a", "b", "c"])
    assert list(frame) == ["p(a)", "p(b)", "p(c)", "entropy", "mutual_information"]
    assert "3 labels" in repr(one)
    with pytest.raises(TypeError, match="interval is for regression"):
        one.interval()


def test_hessian_root_and_log_prob():
    y = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    for row in MEAN:
        expected = stats.bernoulli.logpmf(y, torch.sigmoid(row)).sum()
        assert float(MultiLabel().log_prob(row, y)) == pytest.approx(expected)
        hessian = torch.func.hessian(lambda f: -MultiLabel().log_prob(f, y))(row)
        root = MultiLabel().hessian_root(row[None])[0]
        torch.testing.assert_close(root @ root.T, hessian)
