"""Jacobian of a net's outputs with respect to a few of its weights.

Backward passes go to the outputs of the layers, never to their weights; a rule per layer type then
forms the products of the selected weights only. See `plan` for what serves which parameter.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sksubnet.jacobian.copies import own_rows
from sksubnet.jacobian.factored_rows import FactoredRows, LayerRows
from sksubnet.jacobian.layer_calls import (
    Call,
    Calls,
    Model,
    captured_outputs,
    chunks,
    differentiable,
    on_private_copy,
    row_gradients,
    run_backward,
    run_forward,
    take_rows,
)
from sksubnet.jacobian.plan import (
    PROBE_ROWS,
    JacobianPlan,
    PlannedParameter,
    accumulate,
    hooked_modules,
    plan_jacobian,
    trained_indices,
)

__all__ = [
    "FactoredRows",
    "JacobianPlan",
    "factored_jacobian",
    "jacobian",
    "plan_jacobian",
    "squared_jacobian_sum",
    "trained_indices",
]

Seeds = Callable[[Tensor], Tensor]


def jacobian(
    model: Model, plan: JacobianPlan, X: Any, seeds: Seeds | None = None
) -> tuple[Tensor, Tensor]:
    """Return outputs (B, C) and rows (B, K, S), rows[b, k] = Σ_c seed[b, c, k] ∂f_c(x_b)/∂w_S.

    `seeds` maps outputs (B, C) to (B, C, K); None is the identity, K = C. In memory the data rows
    come last, which is the order in which layers are gathered and products are formed fastest.
    """
    model = on_private_copy(model)
    with differentiable(model.module):
        outputs, calls, seed = _forward(model, plan, X, seeds)
        n, _, n_seeds = seed.shape
        rows = outputs.new_zeros(plan.n_selected, n_seeds, n).permute(2, 1, 0)
        for group in _backward(outputs, calls, seed):
            for p in plan.parameters:
                accumulate(model.module, p, calls, rows[:, group, p.start : p.stop])
        of_parameter = {p.name: rows[..., p.start : p.stop] for p in plan.parameters}
        _fill_last_resort(model, plan, X, seed, of_parameter)
    return outputs.detach(), rows


def factored_jacobian(
    model: Model, plan: JacobianPlan, X: Any, seeds: Seeds | None = None
) -> tuple[Tensor, FactoredRows]:
    """Return what `jacobian` does, but the rows of whole Linear layers as their two factors."""
    model = on_private_copy(model)
    with differentiable(model.module):
        outputs, calls, seed = _forward(model, plan, X, seeds)
        n, _, n_seeds = seed.shape
        lengths = {p.name: (p.factor_widths or [p.stop - p.start])[0] for p in plan.parameters}
        left = {name: outputs.new_zeros(n, n_seeds, length) for name, length in lengths.items()}
        whole = {p.name: calls[p.sites[0].module][0] for p in plan.parameters if p.factor_widths}
        for group in _backward(outputs, calls, seed):
            for p in plan.parameters:
                if p.name not in whole:
                    accumulate(model.module, p, calls, left[p.name][:, group])
                elif (delta := whole[p.name].deltas[0]) is not None:
                    left[p.name][:, group] = delta
        _fill_last_resort(model, plan, X, seed, left)
    right = {name: call.first_input for name, call in whole.items()}
    layers = [LayerRows(left[p.name], right.get(p.name)) for p in plan.parameters]
    return outputs.detach(), FactoredRows(tuple(layers))


def _forward(
    model: Model, plan: JacobianPlan, X: Any, seeds: Seeds | None
) -> tuple[Tensor, Calls, Tensor]:
    """Return outputs (B, C) with their graph, the calls of the plan, and seeds (B, C, K)."""
    outputs, calls = run_forward(model, X, hooked_modules(plan.parameters))
    return outputs, calls, _identity(outputs) if seeds is None else seeds(outputs.detach())


def _backward(outputs: Tensor, calls: Calls, seed: Tensor) -> Iterator[slice]:
    """Backward passes for as many seeds at a time as memory allows; the calls hold their deltas."""
    captured = sum(t.numel() * t.element_size() for t in captured_outputs(calls))
    for group in chunks(seed.shape[2], captured):
        run_backward(outputs, calls, seed[..., group])
        yield group


def _fill_last_resort(
    model: Model,
    plan: JacobianPlan,
    X: Any,
    seed: Tensor,
    rows: dict[str, Tensor],
) -> None:
    """Fill in, by parameter name (B, K, s), what no layer's gradients give."""
    last_resort, tensors = _last_resort(model.module, plan)
    for b, row in enumerate(row_gradients(model, tensors, X, seed)):
        for k, gradients in enumerate(row):
            for p, gradient in zip(last_resort, gradients, strict=True):
                rows[p.name][b, k] = gradient[p.positions]


def squared_jacobian_sum(
    model: Model, X: Any, seeds: Seeds, plan: JacobianPlan | None = None
) -> Tensor:
    """Return Σ_b Σ_k (Σ_c seed[b, c, k] ∂f_c(x_b)/∂w_j)² for every weight j, (P,) float64.

    Frozen weights get 0. `plan` is one for `trained_indices`; without it one is made here.
    """
    model = on_private_copy(model)
    if plan is None:
        probe = take_rows(X, slice(PROBE_ROWS))
        plan = plan_jacobian(model, trained_indices(model.module), probe)
    with torch.inference_mode(False), torch.no_grad():
        # seeds may depend on the batch as a whole, so they are made before it is cut into chunks
        seed = seeds(model(own_rows(X)))
        total = torch.zeros(plan.n_selected, dtype=torch.float64, device=seed.device)
    for part in chunks(len(seed), _widest(plan) * seed.element_size()):
        _add_squares(model, plan, take_rows(X, part), seed[part], total)
    out = total.new_zeros(sum(p.numel() for p in model.module.parameters()))
    out[trained_indices(model.module).to(out.device)] = total
    return out


def _add_squares(model: Model, plan: JacobianPlan, X: Any, seed: Tensor, total: Tensor) -> None:
    """Add Σ_b Σ_k J² of these rows, seeds (B, C, K), to `total` (S,)."""
    with differentiable(model.module):
        outputs, calls = run_forward(model, X, hooked_modules(plan.parameters))
        n = len(seed)
        captured = sum(t.numel() for t in captured_outputs(calls))
        size = max(n * _widest(plan), captured) * seed.element_size()
        for group in chunks(seed.shape[2], size):
            run_backward(outputs, calls, seed[..., group])
            for p in plan.parameters:
                part = total[p.start : p.stop]
                if p.is_outer_product:
                    part += _linear_squares(p, calls[p.sites[0].module][0])
                elif p.sites:
                    rows = seed.new_zeros(n, group.stop - group.start, len(part))
                    accumulate(model.module, p, calls, rows)
                    part += rows.flatten(0, 1).square().sum(0, dtype=torch.float64)
        last_resort, tensors = _last_resort(model.module, plan)
        for row in row_gradients(model, tensors, X, seed):
            for gradients in row:
                for p, gradient in zip(last_resort, gradients, strict=True):
                    total[p.start : p.stop] += gradient[p.positions].double().square()


def _widest(plan: JacobianPlan) -> int:
    """Size of the largest parameter whose squares need the gradients of the rows."""
    slow = (p.stop - p.start for p in plan.parameters if p.sites and not p.is_outer_product)
    return max(slow, default=0)


def _last_resort(
    module: nn.Module, plan: JacobianPlan
) -> tuple[list[PlannedParameter], list[nn.Parameter]]:
    """Parameters that go row by row, as planned and as tensors."""
    planned = [p for p in plan.parameters if not p.sites]
    return planned, [module.get_parameter(p.name) for p in planned]


def _linear_squares(p: PlannedParameter, call: Call) -> Tensor:
    """Σ_b Σ_k of the squared gradient of a Linear's weight or bias, (S,) float64."""
    if call.deltas[0] is None:
        return call.outputs[0].new_zeros((), dtype=torch.float64)
    squares = call.deltas[0].square().sum(1)
    if p.sites[0].parameter == "bias":
        return squares.sum(0, dtype=torch.float64)
    return (squares.T @ call.first_input.square()).flatten().double()


def _identity(outputs: Tensor) -> Tensor:
    """Seeds (B, C, C) that give every output its own row."""
    eye = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    return eye.expand(len(outputs), -1, -1)
