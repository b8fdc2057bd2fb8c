"""Reference inputs, their scaled Jacobian rows, and the rows that stand for the data."""

from dataclasses import replace

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sksubnet.nets.trained import Rows
from sksubnet.predictive.likelihood import Categorical, Gaussian
from sksubnet.selection import reference
from sksubnet.selection.reference import (
    data_rows,
    evidence_precision,
    explained_variance,
    reference_energy,
    reference_inputs,
    reference_rows,
    ridge_leverage,
    selection_problem,
)

RNG = np.random.default_rng(0)
N, P = 30, 45
X = RNG.normal(size=(N, 3))
WEIGHTS = RNG.uniform(0.5, 2, size=N)
ALL = torch.arange(P)
NOISE = torch.tensor([0.3, 2.0], dtype=torch.float64)


def softmax_net(weights=WEIGHTS, seed=0):
    module = dense.mlp(n_outputs=3, seed=1)
    return dense.trained_net(module, Categorical(), X, RNG.integers(3, size=N), weights, seed=seed)


def regression_net(seed=0):
    module = dense.mlp(n_outputs=2, hidden=5, seed=2)
    return dense.trained_net(
        module, Gaussian(NOISE), X, RNG.normal(size=(N, 2)), WEIGHTS, seed=seed
    )


def dense_ggn(net):
    J = dense.jacobian(net.module, X)
    if isinstance(net.likelihood, Categorical):
        hessian = dense.softmax_hessian(dense.evaluate(net.module, X))
    else:
        hessian = np.broadcast_to(np.diag(1 / NOISE.numpy()), (N, 2, 2))
    return dense.ggn(J, hessian, WEIGHTS)


def evidence(ggn, weights, delta):
    """Terms of the log evidence that depend on the prior precision, by a determinant."""
    P = len(ggn)
    occam = np.linalg.slogdet(np.eye(P) + ggn / delta)[1]
    return -(delta * weights @ weights + occam) / 2


@pytest.mark.parametrize("make", [softmax_net, regression_net])
def test_data_rows_are_a_root_of_the_ggn(make):
    net = make()
    n_weights = len(net.weight_vector())
    columns = torch.arange(0, n_weights, 2)
    phi = data_rows(net, columns, 2 * N).numpy()
    assert phi.shape == (2 * N, len(columns))
    assert_allclose(phi.T @ phi, dense_ggn(net)[::2, ::2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_factors", [40, 20])
def test_data_rows_of_a_sample_are_right_on_average(n_factors):
    """40: a random combination of outputs for each row; 20: of a part of the rows."""
    net, columns = softmax_net(), torch.arange(0, P, 5)
    expected = dense_ggn(net)[::5, ::5]
    total, n_seeds = np.zeros_like(expected), 150
    for seed in range(n_seeds):
        phi = data_rows(replace(net, seed=seed), columns, n_factors).numpy()
        assert len(phi) == min(n_factors, N)
        total += phi.T @ phi
    error = np.linalg.norm(total / n_seeds - expected) / np.linalg.norm(expected)
    assert error < 0.12


@pytest.mark.parametrize("make", [softmax_net, regression_net])
def test_reference_rows_are_gradients_of_one_output(make):
    net = make()
    inputs = reference_inputs(net)
    columns = torch.tensor([0, 3, 20, 30])
    rows = reference_rows(net, inputs, columns).numpy()
    J = dense.jacobian(net.module, inputs)
    if isinstance(net.likelihood, Categorical):
        J = J - J.mean(axis=1, keepdims=True)
    difference = np.abs(rows[:, None] - J[:, :, columns.numpy()]).max(axis=2)
    assert (difference.min(axis=1) < 1e-12).all()
    chosen = np.bincount(difference.argmin(axis=1), minlength=net.n_outputs)
    # A binomial: four standard deviations at most
    assert (np.abs(chosen / len(rows) - 1 / net.n_outputs) < 0.15).all()
    energy = reference_energy(net, inputs)[columns]
    assert_allclose(energy, (rows**2).mean(axis=0), rtol=1e-9)


def test_mixtures_lie_uniformly_between_two_training_rows():
    inputs = reference_inputs(softmax_net()).numpy()
    assert inputs.shape == (256, 3)
    shares = []
    for x in inputs:
        start, step = X[:, None], X[None] - X[:, None]
        squared = np.maximum((step**2).sum(axis=2), 1e-300)
        share = ((x - start) * step).sum(axis=2) / squared
        distance = np.linalg.norm(start + share[..., None] * step - x, axis=2)
        distance[(share < 0) | (share > 1)] = np.inf
        i, j = np.unravel_index(distance.argmin(), distance.shape)
        assert distance[i, j] < 1e-12 or (np.abs(X - x).max(axis=1) == 0).any()
        if i != j:
            shares.append(share[i, j])
    shares = np.sort(shares)
    # Kolmogorov's distance, here from the mirrored shares too since i and j may be swapped
    shares = np.sort(np.concatenate([shares, 1 - shares]))
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 0.1


def test_training_rows_count_by_their_weight():
    weights = np.zeros(N)
    weights[[2, 9]] = 1, 3
    inputs = reference_inputs(replace(softmax_net(weights), reference="train")).numpy()
    share = (inputs == X[9]).all(axis=1).mean()
    assert share + (inputs == X[2]).all(axis=1).mean() == 1
    assert abs(share - 0.75) < 0.15


def test_given_inputs_are_the_references():
    given = torch.tensor(RNG.normal(size=(11, 3)))
    net = replace(softmax_net(), reference=given)
    assert torch.equal(reference_inputs(net), given)
    many = torch.tensor(RNG.normal(size=(1000, 3)))
    few = reference_inputs(replace(softmax_net(), reference=many))
    assert len(few) == 256
    assert {tuple(x) for x in few.tolist()} <= {tuple(x) for x in many.tolist()}
    problem = selection_problem(net, ALL, 3)
    assert problem.references.shape == (11, P)


def test_neither_the_order_of_rows_nor_their_repetition_matters():
    weights = RNG.integers(0, 4, size=N).astype(float)
    net = softmax_net(weights)
    expected = reference_inputs(net)
    repeated = RNG.permutation(np.repeat(np.arange(N), weights.astype(int)))
    rows = Rows(net.train.X[repeated], net.train.y[repeated], torch.ones(len(repeated)).double())
    assert_allclose(reference_inputs(replace(net, train=rows)), expected, rtol=1e-12)


def test_codes_are_not_mixed():
    module = nn.Sequential(nn.Embedding(7, 2), nn.Flatten(), nn.Linear(4, 2)).double()
    codes = RNG.integers(7, size=(N, 2))
    net = dense.trained_net(module, Categorical(), codes, RNG.integers(2, size=N), np.ones(N))
    inputs = reference_inputs(net)
    assert inputs.dtype == torch.int64
    assert {tuple(x) for x in inputs.tolist()} <= {tuple(x) for x in codes.tolist()}


@pytest.mark.parametrize("make", [softmax_net, regression_net])
def test_evidence_precision_maximises_the_dense_evidence(make):
    net = make()
    ggn, weights = dense_ggn(net), dense.weight_vector(net.module)
    found = evidence_precision(torch.linalg.eigvalsh(torch.tensor(ggn)), torch.tensor(weights))
    best = evidence(ggn, weights, found)
    step = 10 ** (10 / 200)
    assert best >= evidence(ggn, weights, found * step)
    assert best >= evidence(ggn, weights, found / step)
    for delta in np.logspace(-4, 4, 9):
        assert best >= evidence(ggn, weights, delta) - 1e-9


def test_evidence_precision_without_any_curvature():
    assert evidence_precision(torch.zeros(3).double(), torch.ones(4)) == 1.0


@pytest.mark.parametrize("make", [softmax_net, regression_net])
def test_references_are_in_units_of_the_full_predictive_sd(make):
    net = make()
    candidates = torch.arange(1, len(net.weight_vector()), 2)
    problem = selection_problem(net, candidates, 3)
    assert torch.equal(problem.columns, candidates)
    precision = dense_ggn(net)[1::2, 1::2] + problem.prior_precision * np.eye(len(candidates))
    rows = problem.references.numpy()
    variance = np.einsum("ip,pq,iq->i", rows, np.linalg.inv(precision), rows)
    assert_allclose(variance, 1, rtol=1e-7)
    raw = reference_rows(net, reference_inputs(net), candidates).numpy()
    sd = np.sqrt(np.einsum("ip,pq,iq->i", raw, np.linalg.inv(precision), raw))
    assert_allclose(rows * sd[:, None], raw, rtol=1e-7, atol=1e-12)
    # Directions that the data hardly touch are left out of the factors.
    left_out = dense_ggn(net)[1::2, 1::2] - (problem.factors.mT @ problem.factors).numpy()
    assert np.abs(np.linalg.eigvalsh(left_out)).max() < 0.011 * problem.prior_precision


def test_the_shortlist_has_the_largest_gradients_and_the_full_variance(monkeypatch):
    net = softmax_net()
    everything = selection_problem(net, ALL, 3)
    monkeypatch.setattr(reference, "SHORTLIST", 25)
    problem = selection_problem(net, ALL, 3)
    energy = reference_energy(net, reference_inputs(net)).numpy()
    assert problem.columns.tolist() == sorted(np.argsort(-energy)[:25])
    # All 20 others fit into the sample that stands for them, so nothing is estimated.
    assert problem.prior_precision == pytest.approx(everything.prior_precision, rel=1e-9)
    expected = everything.references[:, problem.columns]
    assert_allclose(problem.references, expected, rtol=1e-9)


def wide_net():
    """Its 401 weights take 245 numbers of a row where whole layers stay outer products."""
    module = dense.mlp(n_inputs=3, hidden=80, n_outputs=1, seed=1)
    y = RNG.normal(size=(N, 1))
    return dense.trained_net(module, Gaussian(torch.ones(1)), X, y, np.linspace(0.5, 2, N))


def test_the_variance_of_whole_layers_is_exact_beyond_the_shortlist(monkeypatch):
    net, candidates = wide_net(), torch.arange(401)
    everything = selection_problem(net, candidates, 3)
    some = everything.columns[::7]
    share = explained_variance(net, some, candidates)
    monkeypatch.setattr(reference, "SHORTLIST", 300)
    problem = selection_problem(net, candidates, 3)
    assert problem.prior_precision == pytest.approx(everything.prior_precision, rel=1e-9)
    assert_allclose(problem.references, everything.references[:, problem.columns], rtol=1e-7)
    assert explained_variance(net, some, candidates) == pytest.approx(share, rel=1e-9)


def test_the_variance_beyond_the_shortlist_is_estimated(monkeypatch):
    net, candidates = wide_net(), torch.arange(401)
    everything = selection_problem(net, candidates, 3)
    monkeypatch.setattr(reference, "SHORTLIST", 100)
    problem = selection_problem(net, candidates, 3)
    expected = everything.references[:, problem.columns]
    ratio = (problem.references / expected)[:, 0]
    assert abs(float(ratio.mean()) - 1) < 0.15


def test_size_widens_the_shortlist(monkeypatch):
    monkeypatch.setattr(reference, "SHORTLIST", 10)
    assert len(selection_problem(softmax_net(), ALL, 7).columns) == 28


@pytest.mark.parametrize("make", [softmax_net, regression_net])
def test_explained_variance_is_the_dense_ratio(make):
    net = make()
    n_weights = len(net.weight_vector())
    candidates = torch.arange(1, n_weights)
    some = torch.tensor([2, 3, 17, 30])
    ggn = dense_ggn(net)
    eigenvalues = torch.linalg.eigvalsh(torch.tensor(ggn[1:, 1:]))
    delta = evidence_precision(eigenvalues, net.weight_vector()[1:])
    rows = reference_rows(net, reference_inputs(net), torch.arange(n_weights)).numpy()

    def variance(chosen):
        precision = ggn[np.ix_(chosen, chosen)] + delta * np.eye(len(chosen))
        return np.einsum("ip,pq,iq->i", rows[:, chosen], np.linalg.inv(precision), rows[:, chosen])

    expected = (variance(some.numpy()) / variance(candidates.numpy())).mean()
    assert explained_variance(net, some, candidates) == pytest.approx(expected, rel=1e-7)
    assert explained_variance(net, candidates, candidates) == pytest.approx(1, rel=1e-7)


@pytest.mark.parametrize("n_at_once", [10_000, 7])
def test_ridge_leverage_is_the_lost_share_of_the_prior_variance(monkeypatch, n_at_once):
    monkeypatch.setattr(reference, "N_SAMPLED", n_at_once)
    net = softmax_net()
    ggn = dense_ggn(net)
    eigenvalues = torch.linalg.eigvalsh(torch.tensor(ggn))
    delta = evidence_precision(eigenvalues, net.weight_vector())
    posterior = np.linalg.inv(ggn + delta * np.eye(P))
    assert_allclose(ridge_leverage(net, ALL), 1 - delta * np.diag(posterior), atol=1e-9)
