"""Per-sample weight gradients of one layer, from its input and the gradient of its output.

A rule adds the gradients of every row and seed, for the selected entries of one parameter:
`rule(layer, name, a, delta, positions, out)` with the layer's input `a` (n, ...), the gradient
`delta` (n, K, ...) at its output, `positions` (S,) in the flat parameter and `out` (n, K, S).
T counts the inner positions (pixels, words) that share the weights. A new layer type is one rule.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_unflatten

from sksubnet.jacobian.layer_calls import Call, chunks
from sksubnet.jacobian.process_settings import VMAP_OF_ANY_LAYER

Rule = Callable[[Any, str, Tensor, Tensor, Tensor, Tensor], None]

# Per entry, a dense product through BLAS is this much cheaper than a gathered one.
DENSE_ADVANTAGE = 16


def add_outer_products(left: Tensor, right: Tensor, positions: Tensor, out: Tensor) -> None:
    """Add Σ_t left[n,k,g,l,t] right[n,k,g,r,t] at positions of a (G, L, R) weight to (n, K, S).

    One of the two may have a single k, which then serves all seeds.
    """
    n, _, groups, n_left, n_inner = left.shape
    n_right, n_seeds, n_selected = right.shape[3], out.shape[1], len(positions)
    dense_size = groups * n_left * n_right
    if dense_size <= DENSE_ADVANTAGE * n_selected:
        for rows in chunks(n, n_seeds * dense_size * out.element_size()):
            product = torch.einsum("nkglt,nkgrt->nkglr", left[rows], right[rows]).flatten(2)
            out[rows] += product if n_selected == dense_size else product[..., positions]
        return
    group = positions // (n_left * n_right)
    left_at = group * n_left + positions // n_right % n_left
    right_at = group * n_right + positions % n_right
    left, right = left.flatten(2, 3), right.flatten(2, 3)
    for columns in chunks(n_selected, n * n_seeds * n_inner * out.element_size()):
        picked = left.index_select(2, left_at[columns]) * right.index_select(2, right_at[columns])
        out[..., columns] += picked.sum(-1)


def linear(
    layer: nn.Linear, name: str, a: Tensor, delta: Tensor, positions: Tensor, out: Tensor
) -> None:
    """Linear on (n, ..., I): the weight (O, I) gets δ aᵀ, summed over the inner positions."""
    if name == "bias":
        out += delta.flatten(2, -2).sum(2)[..., positions] if a.dim() > 2 else delta[..., positions]
    elif a.dim() > 2:
        left = delta.flatten(2, -2).transpose(-1, -2).unsqueeze(2)
        right = a.flatten(1, -2).transpose(-1, -2)[:, None, None]
        add_outer_products(left, right, positions, out)
    else:
        # Rows last: picking an output or an input then copies a contiguous run, not single numbers.
        o, i = positions // a.shape[1], positions % a.shape[1]
        left, right, last = delta.permute(1, 2, 0), a.mT.contiguous(), out.permute(1, 2, 0)
        for some in chunks(len(o), out[..., 0].numel() * out.element_size()):
            last[:, some].addcmul_(left.index_select(1, o[some]), right.index_select(0, i[some]))


def convolution(
    layer: Any, name: str, a: Tensor, delta: Tensor, positions: Tensor, out: Tensor
) -> None:
    """Conv1d to 3d: the weight (G·O, I, *kernel) gets δ times the padded input's windows."""
    if name == "bias":
        out += delta.flatten(3).sum(3)[..., positions]
        return
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(a, _padding(layer), mode)
    left = delta.flatten(3).unflatten(2, (layer.groups, -1))
    size = a.shape[1] * prod(layer.kernel_size) * left.shape[-1] * a.element_size()
    for rows in chunks(len(a), size):
        right = windows(padded[rows], layer, delta.shape[3:]).unflatten(1, (layer.groups, -1))
        add_outer_products(left[rows], right.unsqueeze(1), positions, out[rows])


def transposed_convolution(
    layer: Any, name: str, a: Tensor, delta: Tensor, positions: Tensor, out: Tensor
) -> None:
    """ConvTranspose1d to 3d: the weight (G·I, O, *kernel) gets the input times δ's windows."""
    if name == "bias":
        out += delta.flatten(3).sum(3)[..., positions]
        return
    padded = F.pad(delta, _padding(layer))
    left = a.flatten(2).unflatten(1, (layer.groups, -1)).unsqueeze(1)
    size = delta[0, :, :, 0].numel() * prod(layer.kernel_size) * a.element_size()
    for rows in chunks(len(a), size):
        right = windows(padded[rows].flatten(0, 1), layer, a.shape[2:])
        right = right.unflatten(0, (-1, delta.shape[1])).unflatten(2, (layer.groups, -1))
        add_outer_products(left[rows], right, positions, out[rows])


def windows(x: Tensor, layer: Any, counts: Sequence[int]) -> Tensor:
    """Cut padded (n, C, *spatial) into the kernel's windows: (n, C·prod(kernel), T)."""
    n_dims = len(counts)
    geometry = zip(layer.kernel_size, layer.stride, layer.dilation, counts, strict=True)
    for i, (kernel, stride, dilation, count) in enumerate(geometry):
        x = x.unfold(2 + i, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
        x = x.narrow(2 + i, 0, count)
    inner = range(2, 2 + n_dims)
    return (
        x.permute(0, 1, *range(2 + n_dims, 2 + 2 * n_dims), *inner).flatten(-n_dims).flatten(1, -2)
    )


def _padding(layer: Any) -> list[int]:
    """List the padding before and after each dimension, last dimension first, for F.pad."""
    amounts: list[int] = []
    for i in reversed(range(len(layer.kernel_size))):
        if layer.padding == "same":
            total = layer.dilation[i] * (layer.kernel_size[i] - 1)
            amounts += [total // 2, total - total // 2]
        else:
            amounts += [0, 0] if layer.padding == "valid" else [layer.padding[i]] * 2
    return amounts


def embedding(
    layer: nn.Embedding, name: str, a: Tensor, delta: Tensor, positions: Tensor, out: Tensor
) -> None:
    """Embedding of codes (n, ...): row v of the weight (V, D) gets the δ of the places coded v."""
    codes = a.reshape(len(a), 1, -1)
    right = delta.reshape(*delta.shape[:2], -1, delta.shape[-1]).transpose(-1, -2).unsqueeze(2)
    used, place = torch.unique(positions // delta.shape[-1], return_inverse=True)
    compact = place * delta.shape[-1] + positions % delta.shape[-1]
    trained = used != (-1 if layer.padding_idx is None else layer.padding_idx)
    for rows in chunks(len(a), len(used) * codes.shape[-1] * delta.element_size()):
        hit = (codes[rows] == used[:, None]) & trained[:, None]
        left = hit.to(delta.dtype)[:, None, None]
        add_outer_products(left, right[rows], compact, out[rows])


def normalisation(
    layer: Any, name: str, a: Tensor, delta: Tensor, positions: Tensor, out: Tensor
) -> None:
    """Affine part of a normalisation: the weight gets δ times the normalised input, the bias δ."""
    n, n_seeds, width = len(a), out.shape[1], layer.weight.numel()
    last = isinstance(layer, (nn.LayerNorm, nn.RMSNorm))
    inner = (-1, width) if last else (width, -1)
    product = delta.reshape(n, n_seeds, *inner)
    if name == "weight":
        product = product * NORMALISE[type(layer)](layer, a).reshape(n, 1, *inner)
    out += product.sum(2 if last else 3)[..., positions]


def prelu(
    layer: nn.PReLU, name: str, a: Tensor, delta: Tensor, positions: Tensor, out: Tensor
) -> None:
    """PReLU: the slope, of a channel or of all, gets δ times the negative part of the input."""
    product = (delta * a.clamp(max=0).unsqueeze(1)).flatten(2)
    out += product.unflatten(2, (layer.num_parameters, -1)).sum(3)[..., positions]


def _batch_normalise(layer: Any, a: Tensor) -> Tensor:
    return F.batch_norm(a, layer.running_mean, layer.running_var, eps=layer.eps)


def _instance_normalise(layer: Any, a: Tensor) -> Tensor:
    own = not layer.track_running_stats
    return F.instance_norm(
        a, layer.running_mean, layer.running_var, use_input_stats=own, eps=layer.eps
    )


NORMALISE: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.LayerNorm: lambda layer, a: F.layer_norm(a, layer.normalized_shape, eps=layer.eps),
    nn.RMSNorm: lambda layer, a: F.rms_norm(a, layer.normalized_shape, eps=layer.eps),
    nn.GroupNorm: lambda layer, a: F.group_norm(a, layer.num_groups, eps=layer.eps),
    nn.BatchNorm1d: _batch_normalise,
    nn.BatchNorm2d: _batch_normalise,
    nn.BatchNorm3d: _batch_normalise,
    nn.InstanceNorm1d: _instance_normalise,
    nn.InstanceNorm2d: _instance_normalise,
    nn.InstanceNorm3d: _instance_normalise,
}

LAYER_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: transposed_convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.ConvTranspose3d: transposed_convolution,
    nn.Embedding: embedding,
    nn.PReLU: prelu,
    **dict.fromkeys(NORMALISE, normalisation),
}


def call_vjp(
    layer: nn.Module,
    name: str,
    call: Call,
    batched: tuple[bool, ...],
    positions: Tensor,
    out: Tensor,
) -> None:
    """Add the gradient of any module's parameter, by a vjp of that module on one row at a time.

    `batched` says which of the call's inputs hold the rows; all rows share the others.
    """
    n, n_seeds = out.shape[:2]
    deltas = {i: delta for i, delta in enumerate(call.deltas) if delta is not None}
    with_rows = [i for i, flag in enumerate(batched) if flag]
    weight = layer.get_parameter(name).detach()
    batched_weights = {}
    if any(isinstance(inner, nn.RNNBase) for inner in layer.modules()):
        # They add to their state in place, which vmap allows only if everything has the rows.
        named = layer.named_parameters()
        batched_weights = {key: p.detach().expand(n, *p.shape) for key, p in named}

    def one_row(tensors: list[Tensor], weights: dict[str, Tensor], seeds: list[Tensor]) -> Tensor:
        leaves = list(call.inputs)
        for i, x in zip(with_rows, tensors, strict=True):
            leaves[i] = x.unsqueeze(0)
        args, kwargs = tree_unflatten(leaves, call.spec)

        def forward(w: Tensor) -> list[Tensor]:
            outputs = tree_leaves(functional_call(layer, {**weights, name: w}, args, kwargs))
            floating = [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]
            return [floating[i].squeeze(0) for i in deltas]

        pull = vjp(forward, weights.get(name, weight))[1]
        return vmap(lambda d: pull(d)[0].flatten())(seeds)

    with VMAP_OF_ANY_LAYER:
        for rows in chunks(n, n_seeds * weight.numel() * weight.element_size()):
            tensors = [call.inputs[i][rows] for i in with_rows]
            weights = {key: w[rows] for key, w in batched_weights.items()}
            found = vmap(one_row)(tensors, weights, [delta[rows] for delta in deltas.values()])
            out[rows] += found[..., positions]
