"""Greedy choice of the weights that keep most of the predictive standard deviation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from sksubnet.progress import steps
from sksubnet.selection.sweep import TINY, Sweep, dual_variance

PATIENT = 128
"""Weights up to which every gain is exact and the search thinks twice; more leave little to win."""

EXCESS = 2
"""So many times the wanted weights are let in before the least useful leave."""

BLOCKS, FEW_BLOCKS = 32, 8
"""Weights enter and leave in blocks of one of so many parts of those inside, at first singly; the
fewer where many are wanted."""

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
    growth = Growth.of(factors, references, prior_precision, size <= PATIENT)
    for n_inside in steps(growth.stops(size)):
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

    greedily: the weight with the largest gain enters next. For the sum of the ``v_i`` themselves
    that is orthogonal least squares [1]_; the root favours references of which little is kept so
    far. Twice as many weights enter as are wanted, those that are missed least leave again, and in
    exchange passes every weight leaves once and the best one enters in its place: a weight often
    is of use only together with others, which let it vary without changing what the data pin. The
    result is never worse than that of plain greedy selection. Beyond ``BLOCKS`` weights, they
    enter and leave in blocks, whose members are chosen one by one among the best of the step.

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
    growth = Growth.of(factors, references, prior_precision, size <= PATIENT)
    return choose_grown(growth, size)


def choose_grown(growth: Growth, size: int) -> Chosen:
    """Choose as in :func:`choose`, from a growth that may have gone some way for other sizes."""
    start, patient = growth.start, growth.patient
    n_entering = min(EXCESS * size, start.factors.shape[1]) if patient else size
    sweep, order, curve = growth.to(n_entering)
    curve = curve[:size]
    plain = _chosen(start, order[:size], curve)
    if not patient:
        return plain
    try:
        sweep = _pruned_to(sweep, size)
    except RuntimeError:  # the data pin the weights so firmly that rounding decides what leaves
        return plain
    best = _chosen(start, sweep.members(), curve)
    for _ in range(PASSES):
        sweep = _exchanged(sweep)
        found = _chosen(start, sweep.members(), curve)
        gain = found.objective() / max(best.objective(), TINY) - 1
        if gain > ROUNDING:
            best = found
        if gain < TOLERANCE:
            break
    return best if best.objective() > plain.objective() * (1 + ROUNDING) else plain


class Growth:
    """The greedy order of the weights, which goes on where it has stopped.

    Weights enter in blocks, singly at first. Every beginning of the order is one of a shorter
    growth, whose last block may be cut: so sizes that are asked for in increasing order cost
    together what the largest costs.

    Parameters
    ----------
    start : Sweep
        Without any weight.
    patient : bool
        Whether gains are exact, and blocks small.
    """

    def __init__(self, start: Sweep, patient: bool) -> None:
        self.start, self.patient = start, patient
        self._restart()

    @classmethod
    def of(
        cls, factors: Tensor, references: Tensor, prior_precision: float, patient: bool
    ) -> Growth:
        """Begin with nothing, as in :func:`choose`."""
        return cls(Sweep.empty(factors.double(), references.double(), prior_precision), patient)

    def _restart(self) -> None:
        self.sweep, self.n_inside = self.start, 0
        self.order = self.start.factors.new_empty(0, dtype=torch.int64)
        self.curve = self.start.residuals.new_empty(0)

    @property
    def n_blocks(self) -> int:
        """How many blocks would make up the weights inside."""
        return BLOCKS if self.patient else FEW_BLOCKS

    def stops(self, size: int) -> list[int]:
        """Numbers of weights inside after each block, up to ``size``."""
        return list(accumulate(_block_sizes(size, self.n_blocks)))

    def to(self, size: int) -> tuple[Sweep, Tensor, Tensor]:
        """Let weights enter until ``size`` are inside: the sweep, their order and their curve."""
        if size < self.n_inside:
            self._restart()
        stops = [stop for stop in self.stops(size) if stop > self.n_inside]
        state = self.sweep, self.order, self.curve
        for stop in steps(stops):
            n_added, n_whole = stop - self.n_inside, 1 + self.n_inside // self.n_blocks
            state = self._with_block(n_added)
            if n_added == n_whole:  # of the block that the size cuts, more may enter at once
                self.sweep, self.order, self.curve = state
                self.n_inside = stop
        return state

    def _with_block(self, n_added: int) -> tuple[Sweep, Tensor, Tensor]:
        """Let so many more weights enter at once."""
        sweep = self.sweep
        block = sweep.best(n_added) if self.patient else _first(sweep.slopes(), n_added)
        before = self.sweep.variances.mean()
        sweep, added = self.sweep.moved(block)
        curve = before + added.mean(1).cumsum(0)
        return sweep, torch.cat([self.order, block]), torch.cat([self.curve, curve])


def _block_sizes(size: int, n_blocks: int) -> list[int]:
    """Numbers of weights that enter at once, 1 at first, with the sum ``size``."""
    sizes: list[int] = []
    n_inside = 0
    while n_inside < size:
        sizes.append(min(1 + n_inside // n_blocks, size - n_inside))
        n_inside += sizes[-1]
    return sizes


def _first(values: Tensor, n: int) -> Tensor:
    """Places (n,) of the largest values, the first of equal ones."""
    return torch.sort(values, descending=True, stable=True).indices[:n]


def _pruned_to(sweep: Sweep, size: int) -> Sweep:
    """Let those weights leave that are missed least, until ``size`` are inside."""
    while (n_surplus := int(sweep.inside.sum()) - size) > 0:
        members = sweep.members()
        n_leaving = min(n_surplus, 1 + len(members) // BLOCKS)
        least = sweep.losses(members).argsort(stable=True)[:n_leaving]
        sweep, _ = sweep.moved(members[least])
    return sweep


def _exchanged(sweep: Sweep) -> Sweep:
    """Let each block leave and the best weights enter, where that raises the objective."""
    members = sweep.members()
    weakest_first = members[sweep.losses(members).argsort(stable=True)]
    for block in steps(weakest_first.split(1 + len(members) // BLOCKS)):
        try:
            without, _ = sweep.moved(block)
            entering = without.best(len(block))
            if set(entering.tolist()) == set(block.tolist()):
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
