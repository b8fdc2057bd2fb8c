"""Jacobian rows of whole layers as outer products that are never multiplied out.

A row of a Linear layer's Jacobian is an outer product δ aᵀ, and two of those have the inner product
(δ·δ')(a·a'): the numbers to keep grow with the widths of the layers, not with their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerRows:
    """Jacobian rows (B, K, O·I) of one parameter: ``left`` (B, K, O) times ``right`` (B, I).

    Without ``right`` the rows are ``left`` itself.
    """

    left: Tensor
    right: Tensor | None = None

    @property
    def n_weights(self) -> int:
        """Length of a row."""
        return self.left.shape[-1] * (1 if self.right is None else self.right.shape[-1])

    def part(self, places: Tensor) -> LayerRows:
        """Rows (B, K, s) of some of the weights (s,), written out unless these are all."""
        if len(places) == self.n_weights:
            return self
        if self.right is None:
            return LayerRows(self.left[..., places])
        n_inputs = self.right.shape[-1]
        right = self.right[:, None, places % n_inputs]
        return LayerRows(self.left[..., places // n_inputs] * right)

    def dense(self) -> Tensor:
        """Rows (B, K, O·I), written out."""
        if self.right is None:
            return self.left
        return (self.left[..., None] * self.right[:, None, None, :]).flatten(-2)

    def blocks(self, scale: Tensor | None) -> Tensor:
        """Inner products (B, K, K) of the rows of each data row, weights (O·I,) times ``scale``."""
        if self.right is None:
            return (self.left if scale is None else self.left * scale) @ self.left.mT
        squares = self.right.square()
        if scale is None:
            return self.left @ self.left.mT * squares.sum(1)[:, None, None]
        # Σ_oi δ_ko δ_lo a_i² s_oi: the sum over the inputs is one number for each data row and o.
        each = squares @ scale.unflatten(0, (-1, squares.shape[1])).mT
        return (self.left * each[:, None, :]) @ self.left.mT


@dataclass(frozen=True, eq=False)
class FactoredRows:
    """Jacobian rows (B, K, S) of several parameters side by side, n = B·K rows in all."""

    layers: tuple[LayerRows, ...]

    def __len__(self) -> int:
        return self.layers[0].left.shape[:2].numel()

    def double(self) -> FactoredRows:
        """Return the rows in float64."""
        return self._each(Tensor.double)

    def cpu(self) -> FactoredRows:
        """Return the rows on the CPU."""
        return self._each(Tensor.cpu)

    @classmethod
    def stack(cls, parts: list[FactoredRows]) -> FactoredRows:
        """Rows of consecutive batches."""
        pairs = zip(*(part.layers for part in parts), strict=True)
        return cls(tuple(_stacked(list(same)) for same in pairs))

    @property
    def n_weights(self) -> int:
        """Length of a row."""
        return sum(rows.n_weights for rows in self.layers)

    def part(self, places: Tensor) -> FactoredRows:
        """Rows of some of the weights: sorted places (s,) among the S."""
        parts, start = [], 0
        for rows in self.layers:
            bounds = torch.tensor([start, start + rows.n_weights])
            first, last = torch.searchsorted(places, bounds).tolist()
            if last > first:
                parts.append(rows.part(places[first:last] - start))
            start += rows.n_weights
        return FactoredRows(tuple(parts))

    def dense(self) -> Tensor:
        """Rows (B, K, S), written out."""
        return torch.cat([rows.dense() for rows in self.layers], dim=-1)

    def inner(self, other: FactoredRows) -> Tensor:
        """Inner products (n, n') of all rows with all rows of the other."""
        total = torch.zeros((), dtype=torch.float64)
        for mine, others in zip(self.layers, other.layers, strict=True):
            product = torch.tensordot(mine.left, others.left, dims=([2], [2]))
            if mine.right is not None and others.right is not None:
                product *= (mine.right @ others.right.mT)[:, None, :, None]
            total = total + product
        return total.flatten(2).flatten(0, 1)

    def blocks(self, scale: Tensor | None = None) -> Tensor:
        """Inner products (B, K, K) of the rows of each data row, weights (S,) times ``scale``."""
        sizes = [rows.n_weights for rows in self.layers]
        scales = [None] * len(sizes) if scale is None else scale.split(sizes)
        total = torch.zeros((), dtype=torch.float64)
        for rows, own in zip(self.layers, scales, strict=True):
            total = total + rows.blocks(own)
        return total

    def times(self, vectors: Tensor) -> Tensor:
        """Inner products (..., n) of all rows with dense vectors (..., S)."""
        total = torch.zeros((), dtype=torch.float64)
        pieces = vectors.split([rows.n_weights for rows in self.layers], dim=-1)
        for rows, piece in zip(self.layers, pieces, strict=True):
            if rows.right is None:
                total = total + piece @ rows.left.flatten(0, 1).mT
            else:
                # (..., O, I) -> (..., O, B) -> (..., K, B), which is the smaller one to keep
                through = piece.unflatten(-1, (rows.left.shape[-1], -1)) @ rows.right.mT
                product = torch.einsum("...ob,bko->...bk", through, rows.left)
                total = total + product.flatten(-2)
        return total

    def combine(self, coefficients: Tensor) -> Tensor:
        """Add up all rows with coefficients (m, n): (m, S)."""
        n_rows = len(self.layers[0].left)
        each = coefficients.unflatten(-1, (n_rows, -1))
        pieces = []
        for rows in self.layers:
            left = torch.einsum("mbk,bko->mob", each, rows.left)
            pieces.append(left.sum(2) if rows.right is None else (left @ rows.right).flatten(1))
        return torch.cat(pieces, dim=1)

    def _each(self, change: Callable[[Tensor], Tensor]) -> FactoredRows:
        """Rows with every tensor changed."""
        return FactoredRows(
            tuple(
                LayerRows(change(rows.left), None if rows.right is None else change(rows.right))
                for rows in self.layers
            )
        )


def _stacked(parts: list[LayerRows]) -> LayerRows:
    """Rows of one parameter, of consecutive batches."""
    rights = [part.right for part in parts if part.right is not None]
    return LayerRows(
        torch.cat([part.left for part in parts]), torch.cat(rights) if rights else None
    )


def dense_part(rows: Tensor | FactoredRows, places: Tensor) -> Tensor:
    """Jacobian rows (B, K, s) of some of S weights, data rows last in memory where they were."""
    if isinstance(rows, FactoredRows):
        return rows.part(places).dense()
    if len(places) == rows.shape[-1]:
        return rows
    return rows.permute(2, 1, 0)[places].permute(2, 1, 0)
