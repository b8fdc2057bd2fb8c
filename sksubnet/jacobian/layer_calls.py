"""One pass through a net that records the calls of its layers, and the gradients at their outputs.

These are what per-sample gradients are made of: see layer_rules. Recording puts hooks on the
modules, so the net is a private copy.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from sksubnet.jacobian.copies import own_rows, private_copy
from sksubnet.jacobian.process_settings import WITHOUT_CUDNN
from sksubnet.jacobian.threads import products, threads_for

Calls = dict[str, list["Call"]]

CHUNK_BYTES = 64 * 2**20

ONE_INPUT = tree_flatten(((0,), {}))[1]
"""How the arguments of a call with one input are arranged."""


class Model(Protocol):
    """A function of rows around a module, such as the latents of a net."""

    @property
    def module(self) -> nn.Module:
        """The module whose weights the function depends on."""
        ...

    def __call__(self, X: Any, /) -> Tensor:
        """Map rows to outputs (B, C)."""
        ...

    def on(self, module: nn.Module, /) -> "Model":
        """Return the same function around another copy of the module."""
        ...


@dataclass
class Call:
    """One call of a layer: its inputs, its floating outputs, and the gradients that reach those."""

    inputs: list[Any]
    spec: TreeSpec
    outputs: list[Tensor]
    deltas: list[Tensor | None] = field(default_factory=list)

    @classmethod
    def capture(cls, args: Any, kwargs: Any, output: Any) -> tuple["Call", Any]:
        """Record a call, and hand on clones, so that in-place use leaves what was captured."""
        plain = len(args) == 1 and not kwargs and type(args[0]) is type(output) is Tensor
        if plain and output.is_floating_point():
            output = output if output.requires_grad else output.detach().requires_grad_()
            return cls([args[0].detach()], ONE_INPUT, [output]), output.clone()
        inputs, spec = tree_flatten((args, kwargs))
        inputs = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
        leaves, output_spec = tree_flatten(output)
        outputs: list[Tensor] = []
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                outputs.append(leaf if leaf.requires_grad else leaf.detach().requires_grad_())
                leaves[i] = outputs[-1].clone()
        return cls(inputs, spec, outputs), tree_unflatten(leaves, output_spec)

    @property
    def first_input(self) -> Tensor:
        """Return the tensor that a layer with one input works on."""
        return next(x for x in self.inputs if isinstance(x, Tensor))


def rounding(dtype: torch.dtype) -> float:
    """Return the relative disagreement of two routes to one value that rounding explains."""
    return {torch.float64: 1e-8, torch.float32: 1e-3}.get(dtype, 1e-2)


def chunks(n: int, bytes_each: int) -> Iterator[slice]:
    """Cut range(n) into slices whose temporaries, `bytes_each` per item, fit CHUNK_BYTES."""
    step = max(1, CHUNK_BYTES // max(1, bytes_each))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def take_rows(X: Any, rows: slice) -> Any:
    """Cut the same rows out of a tensor, or of every tensor in a dict, list or tuple."""
    return tree_map(lambda t: t[rows] if isinstance(t, Tensor) else t, X)


def n_rows(X: Any) -> int:
    """Count the rows of a tensor, or of the first tensor in a dict, list or tuple."""
    return next(len(t) for t in tree_leaves(X) if isinstance(t, Tensor))


def on_private_copy(model: Model) -> Model:
    """Return the model around a copy of its module that nobody else uses."""
    return model.on(private_copy(model.module))


def evaluate(model: Model, X: Any) -> Tensor:
    """Return the outputs (B, C) of rows, and leave the module and the rows as they are."""
    shape = X.shape[1:] if isinstance(X, Tensor) else ()
    with threads_for(products(model.module, n_rows(X), shape)):
        return on_private_copy(model)(own_rows(X))


def submodule(module: nn.Module, name: str) -> nn.Module:
    """Return the module of that name, faster than `get_submodule`, which checks each step."""
    for part in name.split(".") if name else ():
        module = module._modules[part]  # type: ignore[assignment]
    return module


def run_forward(model: Model, X: Any, names: Iterable[str]) -> tuple[Tensor, Calls]:
    """Return outputs (B, C) with their graph, and every call of the named modules.

    The model's module has to be a private copy: for the time of the pass it has hooks.
    """
    calls: Calls = {name: [] for name in names}
    with ExitStack() as hooks:
        for name, record in calls.items():

            def capture(
                layer: nn.Module, args: Any, kwargs: Any, output: Any, record: list[Call] = record
            ) -> Any:
                call, passed_on = Call.capture(args, kwargs, output)
                record.append(call)
                return passed_on

            handle = submodule(model.module, name).register_forward_hook(capture, with_kwargs=True)
            hooks.callback(handle.remove)
        outputs = model(own_rows(X))
    return outputs, calls


def captured_outputs(calls: Calls) -> list[Tensor]:
    """Every captured output of every call, in a fixed order."""
    return [output for record in calls.values() for call in record for output in call.outputs]


def run_backward(outputs: Tensor, calls: Calls, seed: Tensor) -> None:
    """Set the deltas (n, K, ...) of every call from the seeds (B, C, K); None where cut off."""
    captured = captured_outputs(calls)
    gradients: list[tuple[Tensor | None, ...]] = []
    if captured and outputs.requires_grad:
        gradients = [
            torch.autograd.grad(outputs, captured, s, retain_graph=True, allow_unused=True)
            for s in seed.unbind(-1)
        ]
    by_output = iter(zip(*gradients, strict=True))
    for record in calls.values():
        for call in record:
            call.deltas = [_stacked(next(by_output, ())) for _ in call.outputs]


def _stacked(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    """Stack the gradients of all seeds along a new second dimension; None where there are none."""
    present = [g for g in gradients if g is not None]
    if present and present[0].dim() == 2:
        # Rows last in memory, as the rule of the linear layer reads them.
        stacked = present[0].new_empty(len(present), *present[0].mT.shape)
        for one, gradient in zip(stacked, present, strict=True):
            one.copy_(gradient.mT)
        return stacked.permute(2, 0, 1)
    return torch.stack(present, 1) if present else None


def row_gradients(
    model: Model,
    parameters: list[nn.Parameter],
    X: Any,
    seed: Tensor,
    outputs: Tensor | None = None,
) -> Iterator[list[list[Tensor]]]:
    """Per row and seed, the flat dense gradient of each parameter, by batches of one row.

    With `outputs` (B, C) of the batch, also check that a row alone gives the same.
    """
    if not parameters:
        return
    for b in range(len(seed)):
        alone = _one_row(model, X, b)
        if outputs is not None:
            _check_independent(alone.detach(), outputs[b : b + 1].detach())
        row = []
        for s in seed[b : b + 1].unbind(-1):
            found = torch.autograd.grad(alone, parameters, s, retain_graph=True, allow_unused=True)
            pairs = zip(parameters, found, strict=True)
            row.append(
                [(torch.zeros_like(p) if g is None else g.to_dense()).flatten() for p, g in pairs]
            )
        yield row


def _one_row(model: Model, X: Any, b: int) -> Tensor:
    """Return the outputs (1, C) of row b in a batch of its own."""
    try:
        return model(own_rows(take_rows(X, slice(b, b + 1))))
    except Exception as error:
        raise ValueError(
            f"this net fails on a batch of one row ({error}). A Jacobian per row needs rows "
            "that are independent in eval mode; with BatchNorm(track_running_stats=False) they are "
            "not."
        ) from error


def _check_independent(alone: Tensor, in_batch: Tensor) -> None:
    """Raise where the outputs (1, C) of a row alone differ from those within a batch."""
    gap = torch.inf
    if alone.shape == in_batch.shape:
        gap = float((alone - in_batch).abs().max())
    if not gap <= rounding(in_batch.dtype) * (1 + float(in_batch.abs().max())):
        raise ValueError(
            "the rows of this net are not independent in eval mode: the outputs of a row alone and "
            f"in a batch differ by {gap:.2g}. Use BatchNorm with track_running_stats=True, and no "
            "dropout or other noise that stays on in eval mode."
        )


@contextmanager
def differentiable(module: nn.Module) -> Iterator[None]:
    """Record gradients whatever the caller's mode."""
    cudnn_fails = torch.cuda.is_initialized() and _recurrent_on_cuda(module)
    setting = WITHOUT_CUDNN if cudnn_fails else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), setting:
        yield


def _recurrent_on_cuda(module: nn.Module) -> bool:
    """Whether a recurrent layer of the module runs through cuDNN."""
    layers = (layer for layer in module.modules() if isinstance(layer, nn.RNNBase))
    return any(weight.is_cuda for layer in layers for weight in layer.parameters())
