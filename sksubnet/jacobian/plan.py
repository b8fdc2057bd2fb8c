"""How each selected parameter is to be differentiated: by a rule or by autograd.

The plan is checked against plain autograd on a few rows, so that a layer used in an unusual way
costs time and never correctness.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from sksubnet.jacobian.layer_calls import (
    Call,
    Calls,
    Model,
    captured_outputs,
    chunks,
    differentiable,
    n_rows,
    on_private_copy,
    rounding,
    row_gradients,
    run_backward,
    run_forward,
    submodule,
    take_rows,
)
from sksubnet.jacobian.layer_rules import LAYER_RULES, call_vjp

PROBE_ROWS = 3
# How many of the modules around a parameter are tried before the whole net row by row.
MAX_LEVELS = 3


def trained_indices(module: nn.Module) -> Tensor:
    """Return the positions (S,) of all trained weights in the flat parameter vector."""
    flags = [torch.full((p.numel(),), p.requires_grad) for p in module.parameters()]
    return torch.cat(flags).nonzero().squeeze(1)


@dataclass(frozen=True)
class Site:
    """A module that uses a parameter: the parameter's name in it, whether its type has a rule.

    Without a rule, `batched` says which inputs of its calls hold the rows.
    """

    module: str
    parameter: str
    has_rule: bool
    batched: tuple[bool, ...] = ()


@dataclass(frozen=True, eq=False)
class PlannedParameter:
    """Selected entries of one parameter, the columns they fill, and where it is used.

    Without sites the parameter is differentiated row by row. `is_outer_product`: the gradient of a
    row is δ aᵀ (or δ) of one Linear, whose squares sum without forming it. Where moreover all of
    the Linear's weight (O, I) is selected, `factor_widths` are O and I.
    """

    name: str
    positions: Tensor
    start: int
    stop: int
    sites: tuple[Site, ...] = ()
    is_outer_product: bool = False
    factor_widths: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class JacobianPlan:
    """How each selected parameter is differentiated; names and positions only.

    `n_captured` counts the numbers that one row leaves at the layers whose gradients are needed, or
    were for all weights of which these are a part.
    """

    parameters: tuple[PlannedParameter, ...]
    n_selected: int
    n_captured: int

    @property
    def n_kept(self) -> int:
        """Count the numbers that one row takes where whole layers stay outer products."""
        return sum(sum(p.factor_widths or (p.stop - p.start,)) for p in self.parameters)

    def to(self, device: torch.device) -> "JacobianPlan":
        """Return the plan for a module on this device."""
        moved = (replace(p, positions=p.positions.to(device)) for p in self.parameters)
        return replace(self, parameters=tuple(moved))

    def part(self, places: Tensor) -> "JacobianPlan":
        """Return the plan for some of the weights: sorted places (s,) among the selected."""
        parts = []
        for p in self.parameters:
            bounds = torch.searchsorted(places, torch.tensor([p.start, p.stop]))
            start, stop = bounds.tolist()
            own = p.positions[(places[start:stop] - p.start).to(p.positions.device)]
            widths = p.factor_widths if len(own) == len(p.positions) else None
            taken = replace(p, positions=own, start=start, stop=stop, factor_widths=widths)
            parts += [taken] if stop > start else []
        return JacobianPlan(tuple(parts), len(places), self.n_captured)

    @property
    def row_by_row(self) -> tuple[str, ...]:
        """List the parameters that need plain autograd of the whole net, row by row."""
        return tuple(p.name for p in self.parameters if not p.sites)


def plan_jacobian(model: Model, indices: Tensor, probe: Any) -> JacobianPlan:
    """Decide per parameter how to differentiate it, by running a probe of two or three rows.

    `indices` (S,) are sorted positions in parameters_to_vector(model.module.parameters()).
    """
    model = on_private_copy(model)
    module = model.module
    parameters = split_indices(module, indices)
    # With one row, rows-first and rows-last layouts look the same.
    probe = take_rows(probe, slice(PROBE_ROWS)) if n_rows(probe) > 1 else _doubled(probe)
    with differentiable(module):
        uses = {p.name: _uses(module, p.name) for p in parameters}
        hooked = [name for paths in uses.values() for path in paths for name, _ in path]
        outputs, calls = run_forward(model, probe, dict.fromkeys(hooked))
        seed = _probe_seed(outputs)
        tensors = [module.get_parameter(p.name) for p in parameters]
        exact = [row[0] for row in row_gradients(model, tensors, probe, seed, outputs)]
        run_backward(outputs, calls, seed)
        scale = max((float(g.abs().max()) for row in exact for g in row), default=0.0)
        planned = []
        for column, p in enumerate(parameters):
            target = torch.stack([row[column] for row in exact]).unsqueeze(1)
            everywhere = torch.arange(target.shape[-1], device=target.device)
            for sites in _site_options(module, uses[p.name], calls, len(outputs)):
                trial = PlannedParameter(p.name, everywhere, 0, len(everywhere), sites)
                if _agrees(module, trial, calls, target, scale):
                    outer = _is_outer_product(module, sites, calls, len(outputs))
                    whole = outer and len(p.positions) == len(everywhere)
                    widths = _factor_widths(tensors[column]) if whole else None
                    p = replace(p, sites=sites, is_outer_product=outer, factor_widths=widths)
                    break
            planned.append(p)
    used = {name: calls[name] for name in hooked_modules(planned)}
    n_captured = sum(t.numel() for t in captured_outputs(used)) // len(outputs)
    return JacobianPlan(tuple(planned), len(indices), n_captured)


def hooked_modules(parameters: Iterable[PlannedParameter]) -> dict[str, None]:
    """Names of the modules whose calls the parameters need, in a fixed order."""
    return dict.fromkeys(site.module for p in parameters for site in p.sites)


def split_indices(module: nn.Module, indices: Tensor) -> list[PlannedParameter]:
    """Cut sorted positions in the flat parameter vector (S,) into one selection per parameter."""
    indices = torch.as_tensor(indices, dtype=torch.int64).cpu().contiguous()
    n_weights = sum(p.numel() for p in module.parameters())
    if indices.dim() != 1 or bool((indices[1:] <= indices[:-1]).any()):
        raise ValueError(
            "indices are not a sorted vector of distinct positions: sort them and drop repeats."
        )
    if len(indices) and not 0 <= int(indices[0]) <= int(indices[-1]) < n_weights:
        raise ValueError(
            f"indices run from {int(indices[0])} to {int(indices[-1])}, but this net has "
            f"{n_weights} weights: keep them within 0..{n_weights - 1}."
        )
    selections, offset = [], 0
    for name, parameter in module.named_parameters():
        bounds = torch.tensor([offset, offset + parameter.numel()])
        start, stop = torch.searchsorted(indices, bounds).tolist()
        if stop > start and not parameter.requires_grad:
            raise ValueError(
                f"{stop - start} of the indices belong to {name!r}, which is frozen "
                "(requires_grad=False): select among the parameters that are trained."
            )
        if stop > start:
            positions = (indices[start:stop] - offset).to(parameter.device)
            selections.append(PlannedParameter(name, positions, start, stop))
        offset += parameter.numel()
    return selections


def _uses(module: nn.Module, name: str) -> list[list[tuple[str, str]]]:
    """For each place of a parameter: the modules around it, inner first, and its name in them."""
    wanted = module.get_parameter(name)
    places = [n for n, p in module.named_parameters(remove_duplicate=False) if p is wanted]
    uses = []
    for parts in (place.split(".") for place in places):
        cuts = reversed(range(len(parts)))
        uses.append([(".".join(parts[:cut]), ".".join(parts[cut:])) for cut in cuts])
    return uses


def _site_options(
    module: nn.Module, uses: list[list[tuple[str, str]]], calls: Calls, n: int
) -> list[tuple[Site, ...]]:
    """Ways to differentiate a parameter, best first: at the inmost modules called, then around."""
    called = [[(owner, name) for owner, name in path if calls[owner]] for path in uses]
    options: list[tuple[Site, ...]] = []
    for level in range(MAX_LEVELS):
        sites: dict[int, Site] = {}
        for path in filter(None, called):
            owner, name = path[min(level, len(path) - 1)]
            layer = submodule(module, owner)
            has_rule = type(layer) in LAYER_RULES and name in ("weight", "bias")
            batched = () if has_rule else tuple(_has_rows(x, n) for x in calls[owner][0].inputs)
            sites.setdefault(id(layer), Site(owner, name, has_rule, batched))
        option = tuple(sites.values())
        if option and option not in options:
            options.append(option)
    return options


def _has_rows(x: Any, n: int) -> bool:
    """Whether this input has as many rows as the probe; the check finds a wrong guess."""
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == n


def _agrees(
    module: nn.Module, trial: PlannedParameter, calls: Calls, target: Tensor, scale: float
) -> bool:
    """Whether the layers' route gives the probe's exact gradients (B, 1, numel)."""
    found = torch.zeros_like(target)
    try:
        accumulate(module, trial, calls, found)
    except Exception:  # any module may be unfit for a rule or for vmap, each in its own way
        return False
    # Gradients that vanish but for rounding are judged by the size of the others.
    size = max(float(target.abs().max()), 1e-3 * scale)
    return float((found - target).abs().max()) <= rounding(target.dtype) * size


def _probe_seed(outputs: Tensor) -> Tensor:
    """One random combination of the outputs, (B, C, 1): it tells two Jacobians apart."""
    generator = torch.Generator().manual_seed(0)
    seed = torch.randn(*outputs.shape, 1, generator=generator, dtype=torch.float64)
    return seed.to(outputs)


def _is_outer_product(module: nn.Module, sites: tuple[Site, ...], calls: Calls, n: int) -> bool:
    """Whether one call of one Linear on (B, I) is all that uses the parameter."""
    if len(sites) != 1 or len(calls[sites[0].module]) != 1:
        return False
    layer = submodule(module, sites[0].module)
    a = calls[sites[0].module][0].first_input
    return type(layer) is nn.Linear and a.dim() == 2 and len(a) == n


def _factor_widths(parameter: Tensor) -> tuple[int, int] | None:
    """Count the outputs and inputs of a Linear's weight; None for a bias, whose rows are δ."""
    return (len(parameter), parameter.shape[1]) if parameter.dim() == 2 else None


def _doubled(X: Any) -> Any:
    return tree_map(lambda t: torch.cat([t, t]) if isinstance(t, Tensor) else t, X)


def accumulate(module: nn.Module, p: PlannedParameter, calls: Calls, out: Tensor) -> None:
    """Add the gradients (B, K, S) from every call of every layer that uses the parameter."""
    with torch.no_grad():
        for site in p.sites:
            layer = submodule(module, site.module)
            for call in calls[site.module]:
                if not site.has_rule:
                    call_vjp(layer, site.parameter, call, site.batched, p.positions, out)
                elif call.deltas[0] is not None:
                    _apply_rule(layer, site.parameter, call, call.deltas[0], p.positions, out)


def _apply_rule(
    layer: nn.Module, name: str, call: Call, delta: Tensor, positions: Tensor, out: Tensor
) -> None:
    """Run the layer's rule; where it saw m·B rows, m consecutive ones are one row of the net."""
    rule, a = LAYER_RULES[type(layer)], call.first_input
    n, n_seeds, n_selected = out.shape
    if len(a) != len(delta) or len(a) % n:
        raise RuntimeError(
            f"a {type(layer).__name__} layer saw {len(a)} rows in a batch of {n}, unlike when the "
            "plan was made: make a new plan from rows like these."
        )
    m = len(a) // n
    if m == 1:
        rule(layer, name, a, delta, positions, out)
        return
    for rows in chunks(n, m * n_seeds * n_selected * out.element_size()):
        inner = slice(rows.start * m, rows.stop * m)
        folded = out.new_zeros(inner.stop - inner.start, n_seeds, n_selected)
        rule(layer, name, a[inner], delta[inner], positions, folded)
        out[rows] += folded.unflatten(0, (-1, m)).sum(1)
