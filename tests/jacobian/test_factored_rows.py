"""Factored Jacobian rows against the same rows written out."""

import pytest
import torch
from cases import CASES, Around, Case
from torch import Tensor, nn

from sksubnet.jacobian.factored_rows import FactoredRows, dense_part
from sksubnet.jacobian.rows import factored_jacobian, jacobian, plan_jacobian, trained_indices

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def written_out(rows: FactoredRows) -> Tensor:
    """All rows (n, S), by their sums with unit coefficients."""
    return rows.combine(torch.eye(len(rows), dtype=rows.layers[0].left.dtype))


def two_seeds(outputs: Tensor) -> Tensor:
    return torch.stack([outputs.detach().sin(), outputs.detach() + 1], -1)


def build(seed: int = 0) -> tuple[FactoredRows, Tensor]:
    """Rows of a net in which one layer is whole, one is not, and a bias is there; and dense."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3))
    net, X = net.double(), torch.randn(5, 3, dtype=torch.float64)
    indices = torch.cat([torch.arange(14), torch.arange(16, 22), torch.tensor([28, 33])])
    plan = plan_jacobian(Around(net), indices, X)
    # Weights of 4 by 3, then a part of the bias, a part of 2 by 4, a few of the last layer.
    assert [p.factor_widths for p in plan.parameters] == [(4, 3), None, None, None, None]
    assert plan.n_kept == 4 + 3 + 10
    _, rows = factored_jacobian(Around(net), plan, X)
    return rows, jacobian(Around(net), plan, X)[1]


@every_case
def test_equal_the_rows_written_out(case: Case) -> None:
    module, X = case.build()
    plan = plan_jacobian(Around(module), trained_indices(module), X[:3])
    outputs, expected = jacobian(Around(module), plan, X, two_seeds)
    found_outputs, rows = factored_jacobian(Around(module), plan, X, two_seeds)
    assert torch.equal(found_outputs, outputs)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(
        written_out(rows), expected.flatten(0, 1), rtol=0, atol=1e-11 * scale
    )


def test_products_are_those_of_the_rows_written_out() -> None:
    rows, dense = build()
    other, other_dense = build(seed=1)
    vectors = torch.randn(2, 4, dense.shape[2], dtype=torch.float64)
    coefficients = torch.randn(6, len(rows), dtype=torch.float64)
    flat, scale = dense.flatten(0, 1), torch.rand(dense.shape[2], dtype=torch.float64)
    expected = {
        rows.inner(other): flat @ other_dense.flatten(0, 1).mT,
        rows.blocks(): dense @ dense.mT,
        rows.blocks(scale): dense * scale @ dense.mT,
        rows.times(vectors): vectors @ flat.mT,
        rows.combine(coefficients): coefficients @ flat,
    }
    for found, product in expected.items():
        torch.testing.assert_close(found, product, rtol=1e-11, atol=1e-12)


PARTS = [[0], [3, 5, 11], [11, 12, 13, 14], list(range(12)), [21], list(range(22))]


@pytest.mark.parametrize("places", PARTS, ids=len)
def test_parts_are_columns_of_the_rows_written_out(places: list[int]) -> None:
    rows, dense = build()
    assert rows.n_weights == dense.shape[2] == 22
    torch.testing.assert_close(rows.dense(), dense, rtol=1e-12, atol=1e-12)
    at = torch.tensor(places)
    part = rows.part(at)
    torch.testing.assert_close(part.dense(), dense[..., at], rtol=1e-12, atol=1e-12)
    # A whole layer stays factored.
    assert (part.layers[0].right is not None) == (set(range(12)) <= set(places))
    for given in (rows, dense):
        torch.testing.assert_close(dense_part(given, at), dense[..., at], rtol=1e-12, atol=1e-12)


def test_consecutive_batches_stack() -> None:
    rows, _ = build()
    both = FactoredRows.stack([rows, build(seed=1)[0]])
    assert len(both) == 30
    torch.testing.assert_close(written_out(both)[:15], written_out(rows))


def test_whole_layers_take_as_many_numbers_as_their_widths() -> None:
    net = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 1)).double()
    X = torch.randn(7, 30, dtype=torch.float64)
    plan = plan_jacobian(Around(net), trained_indices(net), X)
    _, rows = factored_jacobian(Around(net), plan, X)
    numbers = [
        t.numel() for layer in rows.layers for t in (layer.left, layer.right) if t is not None
    ]
    assert sum(numbers) == 7 * ((40 + 30) + 40 + (1 + 40) + 1) == 7 * plan.n_kept
