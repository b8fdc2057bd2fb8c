"""The GGN in its three representations against the sum over rows of explicit products."""

from dataclasses import replace

import dense
import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose
from torch import nn

from sksubnet.jacobian.factored_rows import FactoredRows, LayerRows
from sksubnet.jacobian.rows import JacobianPlan, plan_jacobian
from sksubnet.posterior import curvature
from sksubnet.posterior.curvature import (
    Curvature,
    batches,
    ggn,
    ggn_diagonal,
    ggn_factors,
    hessian_rank,
    output_energy,
    plan_for,
)
from sksubnet.posterior.memory import FEW_ROWS, MEMORY_BUDGET, RECYCLED_BYTES, rows_within_budget
from sksubnet.predictive.likelihood import Bernoulli, Categorical, Gaussian

N = 30
NOISE_VARIANCE = torch.tensor([0.3, 2.0], dtype=torch.float64)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
WEIGHTS = RNG.uniform(0.1, 3, size=N)


def softmax_case():
    return dense.mlp(n_outputs=3), Categorical(), RNG.integers(3, size=N)


def logit_case():
    return dense.mlp(n_outputs=1), Bernoulli(), RNG.integers(2, size=N).astype(float)


def gaussian_case():
    return dense.mlp(n_outputs=2), Gaussian(NOISE_VARIANCE), RNG.normal(size=(N, 2))


CASES = {
    "softmax": (softmax_case, 2),
    "logit": (logit_case, 1),
    "gaussian": (gaussian_case, 2),
}
every_case = pytest.mark.parametrize("name", CASES)


def build(name):
    """The trained net, and the loss of one row from torch, as a function of its outputs."""
    module, likelihood, y = CASES[name][0]()
    trained = dense.trained_net(module, likelihood, X, y, WEIGHTS)

    def loss(f, target):
        if name == "softmax":
            return nn.functional.cross_entropy(f, target)
        if name == "logit":
            return nn.functional.binary_cross_entropy_with_logits(f[0], target)
        return nn.functional.gaussian_nll_loss(f, target, NOISE_VARIANCE, full=True) * 2

    return trained, loss


def explicit(trained, loss):
    """Σ_n w_n J_nᵀ (∂²loss/∂f²) J_n (P, P), and the weighted log likelihood."""
    rows = trained.train
    outputs = trained.module(rows.X).detach()
    hessian = torch.stack(
        [
            w * torch.autograd.functional.hessian(lambda f, y=y: loss(f, y), f)
            for f, y, w in zip(outputs, rows.y, rows.weights, strict=True)
        ]
    )
    losses = torch.stack([loss(f, y) for f, y in zip(outputs, rows.y, strict=True)])
    G = reference.ggn(reference.jacobian(trained.module, rows.X), hessian)
    return G.numpy(), -float(rows.weights @ losses)


def as_matrix(curvature):
    if curvature.diagonal is not None:
        return np.diag(curvature.diagonal)
    if curvature.factors is not None:
        n = len(curvature.factors)
        phi = curvature.factors.combine(torch.eye(n, dtype=torch.float64))
        return (phi.mT @ phi).numpy()
    return curvature.matrix.numpy()


def compute(trained, indices, kind, rows, **options):
    if kind == "diagonal":
        return ggn_diagonal(trained, rows, **options).part(indices)
    plan = plan_jacobian(trained.latent, indices, rows.X[:3])
    compute_ggn = ggn_factors if kind == "dual" else ggn
    return compute_ggn(trained, plan, rows, **options)


@every_case
@pytest.mark.parametrize("kind", ["primal", "dual", "diagonal"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_equals_the_explicit_sum(name, kind, batch_size):
    trained, loss = build(name)
    G, log_likelihood = explicit(trained, loss)
    indices = torch.tensor([0, 3, 4, 11, 18, 20, 23, 24, 29, 30])
    found = compute(trained, indices, kind, trained.train, batch_size=batch_size)
    expected = G[np.ix_(indices, indices)]
    if kind == "diagonal":
        expected = np.diag(np.diag(expected))
    assert_allclose(as_matrix(found), expected, rtol=1e-9, atol=1e-10)
    assert found.log_likelihood == pytest.approx(log_likelihood, rel=1e-10)
    assert found.n_rows == pytest.approx(WEIGHTS.sum())
    if kind == "dual":
        assert len(found.factors) == N * CASES[name][1]


@pytest.mark.parametrize("enough", [1, 4, 5, 100])
def test_rows_of_several_batches_are_added_at_once(enough, monkeypatch):
    monkeypatch.setattr(curvature, "rows_of_products", lambda *_: enough)
    trained, loss = build("softmax")
    G, _ = explicit(trained, loss)
    found = compute(trained, torch.arange(10), "primal", trained.train, batch_size=2)
    assert_allclose(as_matrix(found), G[:10, :10], rtol=1e-9, atol=1e-10)


def rank_deficient():
    """Eight rows for twelve weights, one row repeated: rank seven."""
    rows = torch.randn(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[7] = rows[0]
    return rows


@pytest.mark.parametrize("n_weights", [12, 5])
@pytest.mark.parametrize("kind", ["primal", "dual"])
def test_eigendecomposition_reconstructs(n_weights, kind):
    factors = rank_deficient()[:, :n_weights]
    matrix = factors.mT @ factors
    value = {
        "primal": {"matrix": matrix},
        "dual": {"factors": FactoredRows((LayerRows(factors[:, None]),))},
    }[kind]
    values, basis = Curvature(0.0, 8.0, **value).eigendecomposition()
    assert (values >= 0).all()
    if kind == "dual":
        basis = factors.mT @ basis
    assert_allclose((basis * values) @ basis.mT, matrix, atol=1e-11)
    assert_allclose(basis.mT @ basis, np.eye(len(values)), atol=1e-10)
    if kind == "dual":
        assert len(values) == min(7, n_weights)


def test_primal_of_low_rank_keeps_what_the_data_say():
    factors = rank_deficient()[:3]
    values, basis = Curvature(0.0, 3.0, matrix=factors.mT @ factors).eigendecomposition()
    assert basis.shape == (12, 3)
    assert_allclose((basis * values) @ basis.mT, factors.mT @ factors, atol=1e-11)


@pytest.mark.parametrize("kind", ["matrix", "factors"])
def test_nothing_known_gives_an_empty_basis(kind):
    zeros = torch.zeros(4, 4, dtype=torch.float64)
    value = zeros if kind == "matrix" else FactoredRows((LayerRows(zeros[:, None]),))
    values, basis = Curvature(0.0, 2.0, **{kind: value}).eigendecomposition()
    assert values.shape == (0,)
    assert basis.shape == (4, 0)


@every_case
def test_rows_of_the_dual_per_data_row(name):
    trained, _ = build(name)
    assert hessian_rank(trained.likelihood, trained.n_outputs) == CASES[name][1]


def test_frozen_weights_have_no_curvature():
    trained, loss = build("gaussian")
    trained.module[0].weight.requires_grad_(False)
    found = ggn_diagonal(trained, trained.train).diagonal.numpy()
    expected = np.diag(explicit(trained, loss)[0]).copy()
    assert (found[:18] == 0).all()
    assert (found[18:] > 0).all()
    assert_allclose(found[18:], expected[18:], rtol=1e-9)


def test_output_energy_is_the_squared_jacobian_of_evenly_spaced_rows():
    trained, _ = build("logit")
    indices = torch.tensor([1, 7, 20])
    J = dense.jacobian(trained.module, X)[:, :, indices]
    found = output_energy(trained, plan_for(trained, indices))
    assert_allclose(found, (J**2).sum(axis=(0, 1)), rtol=1e-9)
    # 30 rows in steps of 5
    found = output_energy(trained, plan_for(trained, indices), n_rows=7)
    assert_allclose(found, (J[::5] ** 2).sum(axis=(0, 1)), rtol=1e-9)


def test_output_energy_adds_outputs_up_in_expectation():
    trained, _ = build("softmax")
    indices = torch.tensor([1, 7, 17])  # of the first layer, so that all outputs depend on them
    plan = plan_for(trained, indices)
    J = dense.jacobian(trained.module, X)[:, :, indices]
    found = np.stack([output_energy(replace(trained, seed=seed), plan) for seed in range(400)])
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (error > 0).all()
    assert (np.abs(found.mean(axis=0) - (J**2).sum(axis=(0, 1))) < 4 * error).all()


def test_batches_are_consecutive_and_within_the_budget():
    trained, _ = build("gaussian")
    parts = list(batches(trained.train, 8))
    assert [len(part) for part in parts] == [8, 8, 8, 6]
    assert torch.equal(torch.cat([part.X for part in parts]), trained.train.X)


@pytest.mark.parametrize("n_outputs, n_weights", [(10, 10_000), (1, 5), (3, 800)])
def test_the_jacobian_of_a_batch_is_within_the_budget(n_outputs, n_weights):
    plan = JacobianPlan((), n_weights, n_captured=10)
    n_rows = rows_within_budget(plan, n_outputs, torch.float64)
    assert 1 <= n_rows <= 4096
    assert n_rows * 8 * n_outputs * n_weights <= MEMORY_BUDGET
    large = JacobianPlan((), 2**40, n_captured=10)
    assert rows_within_budget(large, n_outputs, torch.float64) == 1


def test_wide_layers_make_batches_smaller_down_to_a_few_rows():
    narrow, wide = JacobianPlan((), 5, n_captured=10), JacobianPlan((), 5, n_captured=10**4)
    assert rows_within_budget(narrow, 10, torch.float32) == 4096
    n_rows = rows_within_budget(wide, 10, torch.float32)
    assert n_rows == RECYCLED_BYTES // (10 * 10**4 * 4)
    wide = replace(wide, n_captured=10**8)
    assert rows_within_budget(wide, 10, torch.float32) == FEW_ROWS


def test_a_plan_counts_what_a_row_leaves_at_the_selected_layers():
    trained, _ = build("softmax")
    widths = [layer.out_features for layer in trained.module if isinstance(layer, nn.Linear)]
    assert plan_for(trained, torch.tensor([0])).n_captured == widths[0]
    everything = torch.arange(len(trained.weight_vector()))
    assert plan_for(trained, everything).n_captured == sum(widths)


@pytest.mark.parametrize("kind", ["primal", "dual", "diagonal"])
@pytest.mark.parametrize("places", [[4], [0, 1, 7], list(range(20))], ids=len)
def test_parts_are_curvatures_of_their_own(kind, places):
    trained, _ = build("softmax")
    indices, at = torch.arange(20), torch.tensor(places)
    found = compute(trained, indices, kind, trained.train).part(at)
    expected = compute(trained, indices[at], "primal", trained.train)
    expected_matrix = as_matrix(expected)
    if kind == "diagonal":
        expected_matrix = np.diag(np.diag(expected_matrix))
    assert_allclose(as_matrix(found), expected_matrix, rtol=1e-10, atol=1e-12)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood)
    # in the form that takes least
    assert (found.matrix is None) == (kind != "primal" and kind != "dual")
