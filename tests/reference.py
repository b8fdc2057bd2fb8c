"""Slow and obvious implementations, the oracles of the tests."""

import torch
from torch import Tensor, nn


def jacobian(module: nn.Module, X: Tensor) -> Tensor:
    """Full Jacobian (B, C, P) of module(X), one output of one row at a time."""
    parameters = list(module.parameters())
    trained = [p for p in parameters if p.requires_grad]
    rows = []
    for x in X:
        outputs = module(x.unsqueeze(0))[0]
        for output in outputs:
            found = torch.autograd.grad(output, trained, retain_graph=True, allow_unused=True)
            by_id = {id(p): g for p, g in zip(trained, found, strict=True) if g is not None}
            rows.append(
                torch.cat([by_id.get(id(p), torch.zeros_like(p)).flatten() for p in parameters])
            )
    return torch.stack(rows).unflatten(0, (len(X), -1))


def ggn(J: Tensor, hessian: Tensor) -> Tensor:
    """Generalised Gauss-Newton matrix (P, P) = Σ_b J_bᵀ H_b J_b from (B, C, P) and (B, C, C)."""
    return sum((j.T @ h @ j for j, h in zip(J, hessian, strict=True)), torch.zeros(()))
