"""What the experiments of the paper compute by themselves, against other implementations."""

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from sksubnet import SubnetLaplaceClassifier

PAPER = Path(__file__).parent.parent / "examples" / "paper"


pytestmark = pytest.mark.usefixtures("paper_scripts")


@pytest.fixture
def rows():
    """Factors (40, 30), references (12, 30) and the covariance under a prior precision of 0.7."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(40, 30, generator=generator, dtype=torch.float64)
    factors[:, 20:] = 0  # about which the data say nothing
    references = torch.randn(12, 30, generator=generator, dtype=torch.float64)
    return factors, references, torch.linalg.inv(factors.mT @ factors + 0.7 * torch.eye(30))


def variance(basis, factors, references):
    """Variance of references under the posterior in the span of a basis, by an explicit inverse."""
    precision = basis.mT @ (factors.mT @ factors + 0.7 * torch.eye(30)) @ basis
    rows = references @ basis
    return ((rows @ torch.linalg.inv(precision)) * rows).sum(1)


def test_best_subspace_of_full_rank_is_the_full_posterior_at_the_references(rows):
    from subspace import best_subspace

    factors, references, covariance = rows
    basis = best_subspace(factors, references, 0.7, 12)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(12, dtype=torch.float64))
    full = ((references @ covariance) * references).sum(1)
    torch.testing.assert_close(variance(basis, factors, references), full)


def test_best_subspace_keeps_the_largest_eigenvalues_and_more_than_others(rows):
    from subspace import best_subspace

    factors, references, covariance = rows
    kept = variance(best_subspace(factors, references, 0.7, 4), factors, references).sum()
    eigenvalues = torch.linalg.eigvalsh(references @ covariance @ references.mT)
    torch.testing.assert_close(kept, eigenvalues[-4:].sum())
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        other = torch.randn(30, 4, generator=generator, dtype=torch.float64)
        places = torch.eye(30, dtype=torch.float64)[torch.randperm(30, generator=generator)[:4]].mT
        assert variance(torch.linalg.qr(other).Q, factors, references).sum() < kept
        assert variance(places, factors, references).sum() < kept


def test_covariances_of_the_study_are_those_of_the_estimator():
    from subspace import Problem, Rows, covariances, digit_net, in_basis, linearised, positions

    from sksubnet.predictive import Categorical

    X, y = load_digits(return_X_y=True)
    X, y = X[:160] / 16, y[:160]
    net = digit_net(6).set_params(max_epochs=3, train_split=None, callbacks=None).initialize()
    net.partial_fit(X.astype(np.float32), y)
    model = SubnetLaplaceClassifier(
        FrozenEstimator(net), selection="random", subnetwork_size=40, prior_precision=2.0
    ).fit(X[::2], y[::2])
    module, likelihood = net.module_.double(), Categorical()
    at_train, at_test = (linearised(module, torch.as_tensor(part)) for part in (X[::2], X[1::2]))
    none = Rows(torch.empty(0), torch.empty(0))
    factors = at_train.factors(likelihood)
    problem = Problem(
        net, likelihood, False, none, none, none, factors, at_test, at_test, seconds=0.0
    )
    places = np.searchsorted(positions(module), model.subnetwork_.indices)
    chosen = in_basis(problem, torch.as_tensor(places))
    expected = model.predictive(X[1::2]).covariance
    found = covariances(chosen.values, chosen.test, 2.0, 1.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_process_of_the_toy_is_scikit_learns_gaussian_process():
    from regression_1d import inputs_of_paper, made, process

    toy, x = made(), inputs_of_paper()
    new = np.linspace(-1, 1.5, 7)[:, None]
    found = process(toy, new)
    kernel = Matern(0.5, nu=1.5) + WhiteKernel(0.15**2)
    regressor = GaussianProcessRegressor(kernel, optimizer=None, alpha=0)
    # far away are the mean and the scale of the targets by themselves
    far = process(toy, np.array([[1e6]]))
    unit = np.sqrt(far.variance[0] / (1 + 0.15**2))
    regressor.fit(x[:, None], (toy.y - far.mean[0]) / unit)
    mean, std = regressor.predict(new * x.std() + x.mean(), return_std=True)
    np.testing.assert_allclose(found.mean, far.mean[0] + unit * mean, rtol=1e-6)
    np.testing.assert_allclose(found.variance, (unit * std) ** 2, rtol=1e-6)

    def evidence(centre, unit):
        regressor.fit(x[:, None], (toy.y - centre) / unit)
        return regressor.log_marginal_likelihood_value_ - len(x) * np.log(unit)

    best = evidence(far.mean[0], unit)
    for shift, factor in ((0.05, 1), (-0.05, 1), (0, 1.05), (0, 0.95)):
        assert evidence(far.mean[0] + shift, unit * factor) < best


def test_expected_log_likelihood_is_the_mean_over_draws():
    from regression_1d import Normal

    rng = np.random.default_rng(0)
    found = Normal(rng.normal(size=7), rng.uniform(0.5, 2, 7))
    draws = rng.normal(found.mean, np.sqrt(found.variance), (200_000, 7))
    other = Normal(found.mean + 0.1, 1.3 * found.variance)
    density = -((draws - other.mean) ** 2) / other.variance / 2
    density -= np.log(2 * np.pi * other.variance) / 2
    assert other.log_likelihood(found) == pytest.approx(density.mean(), abs=5e-3)


class Job(NamedTuple):
    data: str
    seed: int


def test_results_are_not_measured_again_and_half_a_line_is_dropped(tmp_path):
    from common import carried_out

    ran = []

    def measure(job):
        ran.append(job)
        return {"loss": job.seed / 2}

    arguments = Namespace(cache=tmp_path / "lines.jsonl", deadline=float("inf"))
    jobs = [Job("toy", seed) for seed in range(3)]
    carried_out(jobs[:2], measure, arguments)
    text = arguments.cache.read_text()
    arguments.cache.write_text(text[:-10])  # as a process leaves it that is killed
    lines = carried_out(jobs, measure, arguments)
    assert ran == [*jobs[:2], *jobs[1:]]
    assert [line["loss"] for line in lines] == [0, 0.5, 1]
    assert arguments.cache.read_text().count("\n") == 3
    arguments.deadline = 0.0
    late = carried_out([*jobs, Job("toy", 9)], measure, arguments)
    assert [line["seed"] for line in late] == [0, 1, 2]
