"""Greedy choice of the weights that keep most of the predictive standard deviation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sksubnet.progress import steps
from sksubnet.selection.sweep import Sweep, dual_variance

PATIENT = 128
"""Weights up to which the search thinks twice; more leave little to win."""

POOL = 256
"""So many weights are let in before the least useful leave, until few are left."""

FEW = 32
"""Weights up to which they are exchanged; where more are left, that gains nothing."""

ENTERING, LEAVING = 8, 16
"""Weights enter and leave in blocks of one of so many parts of those inside, at first singly."""

PASSES = 3
"""Most exchange passes."""

TOLERANCE = 5e-3
"""Relative rise of the objective below which another exchange pass is not worth its time."""

ROUNDING = 1e-9
"""Relative rise of the objective that rounding may explain."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The chosen weights, and the share of the predictive variance that they keep.

    Attributes
    ----------
    indices : Tensor of shape (S,)
        Columns, in the order in which they entered or sorted.
    curve : Tensor of shape (S,)
        Mean share of the predictive variance kept by the first 1, 2, ... weights of the greedy
        order.
    shares : Tensor of shape (m,)
        Share of the predictive variance of each reference row that all S weights keep.
    """

    indices: Tensor
    curve: Tensor
    shares: Tensor

    def objective(self) -> float:
        """Sum over the reference rows of the share of the standard deviation that is kept."""
        return float(self.shares.sqrt().sum())


def grow(
    factors: Tensor,
    references: Tensor,
    prior_precision: float,
    size: int,
    *,
    share: float | None = None,
) -> Chosen:
    """Let weights enter greedily, in an order whose every beginning is a subnetwork of its own.

    The objective is that of :func:`choose`, without its second thoughts.

    Parameters
    ----------
    factors, references, prior_precision
        As in :func:`choose`.
    size : int
        Most weights that may enter.
    share : float or None, default=None
        Stop once this mean share of the predictive variance is kept.

    Returns
    -------
    Chosen
        The weights in their order, the curve of explained predictive variance, and the shares.

    Examples
    --------
    >>> import torch
    >>> factors, references = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.1]])
    >>> grown = grow(factors, references, 1.0, size=2)  # the first weight sets the second free
    >>> grown.indices.tolist(), grown.curve.tolist()
    ([1, 0], [0.500, 0.666])
    """
    growth = Growth.of(factors, references, prior_precision)
    for n_inside in steps(_stops(size)):
        _, order, curve = growth.to(n_inside)
        if share is not None and float(curve[-1]) >= share:
            n_needed = min(int((curve < share).sum()) + 1, n_inside)
            order, curve = order[:n_needed], curve[:n_needed]
            break
    return _chosen(growth.start, order, curve)


def choose(
    factors: Tensor,
    references: Tensor,
    prior_precision: float,
    size: int,
) -> Chosen:
    r"""Choose the weights that keep most of the predictive standard deviation.

    With ``H = Phi^T Phi + delta I`` and reference rows ``a_i``, each over its standard deviation
    under all candidates, weights S keep the share ``v_i(S) = a_iS H_SS^-1 a_iS^T`` of the variance
    at reference i. This maximises

    .. math:: \sum_i \sqrt{v_i(S)}

    greedily: the weights with the largest gains to first order enter next. For the sum of the
    ``v_i`` themselves that is orthogonal least squares [1]_; the root favours references of which
    little is kept so far. Where few are wanted, ``POOL`` weights enter, those that are missed least
    leave again, and of the last ones every weight leaves once and the best of the pool enters in
    its place: a weight often is of use only together with others, which let it vary without
    changing what the data pin. The result is never worse than that of plain greedy selection.

    Parameters
    ----------
    factors : Tensor of shape (n, P)
        Rows Phi of the candidates, ``GGN = Phi^T Phi``.
    references : Tensor of shape (m, P)
        Scaled Jacobian rows of the reference inputs.
    prior_precision : float
        delta, positive.
    size : int
        Number of weights to choose, S <= P.

    Returns
    -------
    Chosen
        The weights, the curve of explained predictive variance, and the shares in the end.

    References
    ----------
    .. [1] Chen, Billings & Luo, "Orthogonal least squares methods and their application to
       non-linear system identification", International Journal of Control 50, 1989.

    Examples
    --------
    >>> import torch
    >>> factors, references = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.1]])
    >>> choose(factors, references, 1.0, size=2).shares.tolist()
    [0.666]
    """
    growth = Growth.of(factors, references, prior_precision)
    if size > PATIENT:
        _, order, curve = growth.to(size)
        return _chosen(growth.start, order, curve)
    _, order, curve = growth.to(min(POOL, factors.shape[1]))
    return Pool(growth.start, order, curve).choose(size)


class Pool:
    """The first weights of a growth, of which few are chosen.

    They leave in an order whose beginnings are those of longer orders, so that several sizes, asked
    for in increasing order, share it.

    Parameters
    ----------
    start : Sweep
        Without any weight.
    order : Tensor of shape (k,)
        The weights in the order in which they entered.
    curve : Tensor of shape (k,)
        Mean share of the predictive variance kept by the first 1, 2, ... of them.
    """

    def __init__(self, start: Sweep, order: Tensor, curve: Tensor) -> None:
        self.start, self.order, self.curve = start, order, curve
        self.empty = start.among(order)
        self.kept = torch.arange(len(order), device=order.device)
        self.n_least = len(order)

    def choose(self, size: int) -> Chosen:
        """Choose so many of the weights."""
        members = first = torch.arange(size, device=self.order.device)
        try:
            plain, _ = self.empty.moved(first)
            sweep = self._of_kept(size)
            if size <= FEW:
                sweep = _improved(sweep)
            if sweep.objective() > plain.objective() * (1 + ROUNDING):
                members = sweep.members()
        except RuntimeError:  # the data pin the weights so firmly that rounding decides what leaves
            members = first
        return _chosen(self.start, self.order[members], self.curve[:size])

    def _of_kept(self, size: int) -> Sweep:
        """Return the sweep of the weights that are left when so many are."""
        if size < self.n_least:
            full, _ = self.empty.moved(self.kept.sort().values)
            self.kept, self.n_least = _last_to_leave(full, size), size
        sweep, _ = self.empty.moved(self.kept[:size])
        return sweep


class Growth:
    """The greedy order of the weights, which goes on where it has stopped.

    Weights enter in blocks, singly at first. Every beginning of the order is one of a shorter
    growth, whose last block may be cut: so sizes that are asked for in increasing order cost
    together what the largest costs.

    Parameters
    ----------
    start : Sweep
        Without any weight.
    """

    def __init__(self, start: Sweep) -> None:
        self.start = start
        self._restart()

    @classmethod
    def of(cls, factors: Tensor, references: Tensor, prior_precision: float) -> Growth:
        """Begin with nothing, as in :func:`choose`."""
        return cls(Sweep.empty(factors.double(), references.double(), prior_precision))

    def _restart(self) -> None:
        self.sweep, self.n_inside = self.start, 0
        self.order = self.start.factors.new_empty(0, dtype=torch.int64)
        self.curve = self.start.residuals.new_empty(0)

    def to(self, size: int) -> tuple[Sweep, Tensor, Tensor]:
        """Let weights enter until ``size`` are inside: the sweep, their order and their curve."""
        if size < self.n_inside:
            self._restart()
        state = self.sweep, self.order, self.curve
        for stop in steps([stop for stop in _stops(size) if stop > self.n_inside]):
            n_added, n_whole = stop - self.n_inside, 1 + self.n_inside // ENTERING
            state = self._with_block(n_added)
            if n_added == n_whole:  # of the block that the size cuts, more may enter at once
                self.sweep, self.order, self.curve = state
                self.n_inside = stop
        return state

    def _with_block(self, n_added: int) -> tuple[Sweep, Tensor, Tensor]:
        """Let so many more weights enter at once."""
        block = _first(self.sweep.slopes(), n_added)
        before = self.sweep.variances.mean()
        sweep, added = self.sweep.moved(block)
        curve = before + added.mean(1).cumsum(0)
        return sweep, torch.cat([self.order, block]), torch.cat([self.curve, curve])


def _stops(size: int) -> list[int]:
    """Numbers of weights inside after each block that enters, 1 at first, up to ``size``."""
    stops: list[int] = []
    n_inside = 0
    while n_inside < size:
        n_inside = min(n_inside + 1 + n_inside // ENTERING, size)
        stops.append(n_inside)
    return stops


def _first(values: Tensor, n: int) -> Tensor:
    """Places (n,) of the largest values, the first of equal ones."""
    return torch.sort(values, descending=True, stable=True).indices[:n]


def _last_to_leave(sweep: Sweep, size: int) -> Tensor:
    """Candidates (k,), all inside, last the one that leaves first, until ``size`` are left."""
    staying = torch.arange(len(sweep.inside), device=sweep.inside.device)
    left: list[Tensor] = []
    while (n_surplus := len(staying) - size) > 0:
        n_leaving = min(n_surplus, 1 + len(staying) // LEAVING)
        least = sweep.losses().argsort(stable=True)[:n_leaving]
        sweep, _ = sweep.moved(least)
        left.append(staying[least].flip(0))
        members = sweep.members()
        sweep, staying = sweep.among(members), staying[members]
    return torch.cat([staying, *reversed(left)])


def _improved(sweep: Sweep) -> Sweep:
    """Exchange weights while that is worth its time."""
    for _ in range(PASSES):
        before, sweep = sweep.objective(), _exchanged(sweep)
        if sweep.objective() < before * (1 + TOLERANCE):
            break
    return sweep


def _exchanged(sweep: Sweep) -> Sweep:
    """Let each weight leave and the best one enter, where that raises the objective."""
    weakest_first = sweep.losses().argsort(stable=True)[: int(sweep.inside.sum())]
    for leaving in steps(weakest_first.split(1)):
        try:
            without, _ = sweep.moved(leaving)
            entering = _first(without.gains(), 1)
            if entering == leaving:
                continue
            trial, _ = without.moved(entering)
        except RuntimeError:  # as in choose
            continue
        if trial.objective() > sweep.objective() * (1 + ROUNDING):
            sweep = trial
    return sweep


def _chosen(start: Sweep, members: Tensor, curve: Tensor) -> Chosen:
    """Value the choice of some weights, whatever path led there."""
    phi, rows = start.factors[:, members], start.residuals[:, members]
    data, own = torch.linalg.eigh(phi @ phi.mT), rows.square().sum(1)
    shares = dual_variance(data, rows @ phi.mT, own, start.delta)
    return Chosen(members, curve, shares)
