"""The layer-wise Jacobian against plain autograd, for every kind of layer."""

import pickle

import pytest
import reference
import torch
from cases import CASES, Around, Case
from torch import Tensor, nn

from sksubnet.jacobian import layer_calls, layer_rules
from sksubnet.jacobian.plan import split_indices
from sksubnet.jacobian.rows import jacobian, plan_jacobian, squared_jacobian_sum, trained_indices

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
BY_NAME = {case.name: case for case in CASES}


def some_indices(module: nn.Module, share: float) -> Tensor:
    """A random share of the trained weights, at least one."""
    trained = trained_indices(module)
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(trained), generator=generator)
    return trained[order[: max(1, int(share * len(trained)))]].sort().values


def two_seeds(outputs: Tensor) -> Tensor:
    """Two combinations of the outputs, (B, C, 2)."""
    return torch.stack([outputs.detach().sin(), outputs.detach() + 1], -1)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        found, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max()))
    )


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@every_case
def test_equals_plain_autograd(case: Case, share: float) -> None:
    module, X = case.build()
    indices = some_indices(module, share)
    plan = plan_jacobian(Around(module), indices, X[:3])
    outputs, rows = jacobian(Around(module), plan, X)
    assert_close(rows, reference.jacobian(module, X)[..., indices])
    assert_close(outputs, module(X).detach())
    assert not rows.requires_grad
    assert not outputs.requires_grad


@every_case
def test_a_part_of_a_plan_is_the_plan_of_the_part(case: Case) -> None:
    module, X = case.build()
    indices = some_indices(module, 0.5)
    plan = plan_jacobian(Around(module), indices, X[:3])
    names = [name for p in plan.parameters for name in [p.name] * (p.stop - p.start)]
    last = [k for k, name in enumerate(names) if name == names[-1]]
    for places in (torch.arange(0, len(indices), 3), torch.tensor(last), torch.arange(len(names))):
        part = plan.part(places)
        alone = plan_jacobian(Around(module), indices[places], X[:3])
        assert part.n_selected == alone.n_selected == len(places)
        assert part.n_captured >= alone.n_captured
        for found, expected in zip(part.parameters, alone.parameters, strict=True):
            assert torch.equal(found.positions, expected.positions)
            assert vars(found) | {"positions": None} == vars(expected) | {"positions": None}
        _, rows = jacobian(Around(module), part, X)
        assert_close(rows, jacobian(Around(module), alone, X)[1])


@every_case
def test_seeds_combine_outputs(case: Case) -> None:
    module, X = case.build()
    indices = some_indices(module, 0.5)
    plan = plan_jacobian(Around(module), indices, X[:2])
    _, rows = jacobian(Around(module), plan, X, two_seeds)
    J = reference.jacobian(module, X)[..., indices]
    assert_close(rows, torch.einsum("bck,bcs->bks", two_seeds(module(X)), J))


@every_case
def test_squared_sum(case: Case) -> None:
    module, X = case.build()
    found = squared_jacobian_sum(Around(module), X, two_seeds)
    J = reference.jacobian(module, X)
    assert_close(found, torch.einsum("bck,bcs->bks", two_seeds(module(X)), J).square().sum((0, 1)))


@every_case
def test_plan_takes_the_short_way_where_there_is_one(case: Case) -> None:
    # The plan makes up for a wrong rule by a slow route, so that values alone would not show it.
    module, X = case.build()
    plan = plan_jacobian(Around(module), trained_indices(module), X[:3])
    by_vjp = [p.name for p in plan.parameters if p.sites and not all(s.has_rule for s in p.sites)]
    names = [p.name for p in plan.parameters]
    assert by_vjp == [n for n in names if case.by_vjp and n.startswith(case.by_vjp)]
    assert list(plan.row_by_row) == [
        n for n in names if case.row_by_row and n.startswith(case.row_by_row)
    ]


@pytest.mark.parametrize(
    "name", ["deep_conv", "conv_transpose2d", "embedding", "folded_words", "mlp"]
)
def test_small_chunks_and_gathered_products(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, X = BY_NAME[name].build()
    monkeypatch.setattr(layer_calls, "CHUNK_BYTES", 600)
    monkeypatch.setattr(layer_rules, "DENSE_ADVANTAGE", 0)
    indices = some_indices(module, 0.4)
    plan = plan_jacobian(Around(module), indices, X[:3])
    assert not plan.row_by_row
    J = reference.jacobian(module, X)
    assert_close(jacobian(Around(module), plan, X)[1], J[..., indices])
    found = squared_jacobian_sum(Around(module), X, two_seeds)
    assert_close(found, torch.einsum("bck,bcs->bks", two_seeds(module(X)), J).square().sum((0, 1)))


@pytest.mark.parametrize("name", ["mlp", "deep_conv", "embedding", "encoder", "gru"])
def test_float32(name: str) -> None:
    module, X = BY_NAME[name].build(torch.float32)
    indices = some_indices(module, 0.5)
    plan = plan_jacobian(Around(module), indices, X[:3])
    rows = jacobian(Around(module), plan, X)[1]
    assert rows.dtype == torch.float32
    expected = reference.jacobian(*BY_NAME[name].build())[..., indices]
    assert_close(rows.double(), expected, 1e-4)


@pytest.mark.parametrize("name", ["deep_conv", "frozen_start", "encoder", "lstm", "python_branch"])
def test_module_is_left_as_found(name: str) -> None:
    module, X = BY_NAME[name].build()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    flags = [p.requires_grad for p in module.parameters()]
    random_state = torch.get_rng_state()
    plan = plan_jacobian(Around(module), trained_indices(module), X[:3])
    jacobian(Around(module), plan, X)
    squared_jacobian_sum(Around(module), X, two_seeds)
    assert all(not layer._forward_hooks for layer in module.modules())
    assert flags == [p.requires_grad for p in module.parameters()]
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


def test_hooks_are_removed_after_an_error() -> None:
    module, X = BY_NAME["mlp"].build()
    plan = plan_jacobian(Around(module), trained_indices(module), X)
    with pytest.raises(RuntimeError):
        jacobian(Around(module), plan, X[:, :2])
    assert all(not layer._forward_hooks for layer in module.modules())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["deep_conv", "lstm", "python_branch"])
def test_inside_a_mode_without_gradients(mode: type, name: str) -> None:
    module, X = BY_NAME[name].build()
    expected = reference.jacobian(module, X)
    seeds = two_seeds(module(X))
    with mode():
        X = X.clone()
        plan = plan_jacobian(Around(module), trained_indices(module), X)
        assert_close(jacobian(Around(module), plan, X)[1], expected)
        found = squared_jacobian_sum(Around(module), X, two_seeds, plan)
        assert_close(found, torch.einsum("bck,bcs->bks", seeds, expected).square().sum((0, 1)))


def test_model_around_the_module() -> None:
    module, X = BY_NAME["mlp"].build()
    model = Around(module, lambda module, X: module(X)[:, :2] ** 2)
    plan = plan_jacobian(model, trained_indices(module), X)
    outputs, rows = jacobian(model, plan, X)
    inner = module(X)[:, :2].detach()
    assert_close(outputs, inner**2)
    assert_close(rows, 2 * inner[..., None] * reference.jacobian(module, X)[:, :2])


def test_plan_survives_pickling() -> None:
    module, X = BY_NAME["encoder"].build()
    plan = plan_jacobian(Around(module), some_indices(module, 0.5), X)
    again = pickle.loads(pickle.dumps(plan))
    assert torch.equal(jacobian(Around(module), again, X)[1], jacobian(Around(module), plan, X)[1])


def test_plan_from_one_row_serves_more() -> None:
    module, X = BY_NAME["words_first"].build()
    plan = plan_jacobian(Around(module), trained_indices(module), X[:1])
    assert_close(jacobian(Around(module), plan, X)[1], reference.jacobian(module, X))


def test_no_weights_selected() -> None:
    module, X = BY_NAME["mlp"].build()
    plan = plan_jacobian(Around(module), torch.empty(0, dtype=torch.int64), X)
    assert jacobian(Around(module), plan, X)[1].shape == (5, 3, 0)


def test_dependent_rows_are_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match="independent in eval mode"):
        plan_jacobian(Around(module), torch.arange(3), torch.randn(3, 4))
    with pytest.raises(ValueError, match="independent in eval mode"):
        model = Around(module, lambda module, X: module[0](X) - X.mean())
        plan_jacobian(model, torch.arange(3), torch.randn(3, 4))
    with pytest.raises(ValueError, match="a row alone and in a batch differ by inf"):
        model = Around(module, lambda module, X: module[0](X)[:, : len(X)])
        plan_jacobian(model, torch.arange(3), torch.randn(3, 4))


def test_impossible_indices_are_refused() -> None:
    module, X = BY_NAME["frozen"].build()
    for indices, message in [
        ([3, 2], "sorted"),
        ([2, 2], "distinct"),
        ([0, 83], "83 weights"),
        ([0, 30], "'2.weight', which is frozen"),
    ]:
        with pytest.raises(ValueError, match=message):
            plan_jacobian(Around(module), torch.tensor(indices), X)
    assert [p.name for p in split_indices(module, torch.tensor([0, 24]))] == [
        "0.weight",
        "0.bias",
    ]


def test_rows_of_several_tensors() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Embedding(4, 2)

        def forward(self, x: Tensor, code: Tensor) -> Tensor:
            return self.a(x).tanh() * self.b(code)

    module = Pair().double()
    X = {"x": torch.randn(5, 3, dtype=torch.float64), "code": torch.tensor([0, 3, 1, 3, 2])}
    model = Around(module, lambda module, X: module(**X))
    plan = plan_jacobian(model, trained_indices(module), X)
    rows = jacobian(model, plan, X)[1]
    scaled = module.b(X["code"]) * (1 - module.a(X["x"]).tanh() ** 2)
    assert_close(rows[:, 0, :3], (scaled[:, :1] * X["x"]).detach())
    assert not rows[:, 0, 3:6].any()
