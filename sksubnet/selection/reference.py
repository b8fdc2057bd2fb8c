"""Where predictions are wanted: the reference inputs, and the posterior that is seen from there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine
from torch.utils._pytree import tree_leaves, tree_map

from sksubnet.jacobian import FactoredRows, factored_jacobian, jacobian, squared_jacobian_sum
from sksubnet.nets import Inputs, count_rows, take_rows
from sksubnet.posterior import hessian_rank, plan_for
from sksubnet.predictive import Categorical
from sksubnet.selection.sweep import dual_variance

if TYPE_CHECKING:
    from sksubnet.nets import TrainedNet

N_REFERENCES = 256
"""Reference inputs that are drawn; twice as many change little."""

N_FACTORS, N_EXACT = 256, 1024
"""Most rows of Phi in a search, and for a report; of more data a sample stands for all."""

SHORTLIST = 2048
"""Candidates that are never dropped before the search."""

SHORTLIST_PER_WEIGHT = 4
"""Candidates for each weight of the subnetwork, where these are more."""

N_SAMPLED = 10_000
"""Most candidates in a search for a share of the variance, and most whose variance is computed."""

NEGLIGIBLE = 1e-2
"""Directions whose eigenvalue is below this share of the prior precision are left to the prior."""

NOVEL_EVERY = 8
"""One of so many mixtures has a cell of a kind that training has not seen, where there can be."""

PRECISIONS = torch.logspace(-8, 2, 201, dtype=torch.float64)
"""Prior precisions to compare, in units of the largest eigenvalue."""

BATCH_BYTES = 2**25
"""Bytes that the Jacobian rows of one batch may take."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a function-space selection works on: some candidates and what they do to predictions.

    Attributes
    ----------
    columns : Tensor of shape (P,)
        Positions of the candidates in the weight vector, sorted.
    factors : Tensor of shape (n, P)
        Rows Phi with ``GGN = Phi^T Phi``, rotated to its eigenvectors.
    references : Tensor of shape (m, P)
        A reference input's Jacobian row, over its predictive sd under all candidates.
    prior_precision : float
        Prior precision that maximises the evidence of all candidates.
    """

    columns: Tensor
    factors: Tensor
    references: Tensor
    prior_precision: float


@dataclass(frozen=True, eq=False)
class Kernels:
    """Inner products of rows over some weights: data (n, n), references by data (m, n) and (m,)."""

    data: Tensor
    cross: Tensor
    own: Tensor

    @classmethod
    def of(cls, factors: Tensor, references: Tensor) -> Kernels:
        """Kernels of data rows (n, P) and reference rows (m, P)."""
        return cls(factors @ factors.mT, references @ factors.mT, references.square().sum(1))

    @classmethod
    def of_factored(cls, factors: FactoredRows, references: FactoredRows) -> Kernels:
        """Kernels of rows that are never written out."""
        own = references.blocks().flatten()
        return cls(factors.inner(factors), references.inner(factors), own)

    def plus(self, other: Kernels, times: float) -> Kernels:
        """Add the kernels of other weights, that many times."""
        return Kernels(
            self.data + times * other.data,
            self.cross + times * other.cross,
            self.own + times * other.own,
        )

    def variance(self, spectrum: tuple[Tensor, Tensor], prior_precision: float) -> Tensor:
        """Predictive variance (m,) at the references, given eigenpairs of the data's kernel."""
        return dual_variance(spectrum, self.cross, self.own, prior_precision)


def reference_inputs(trained: TrainedNet) -> Inputs:
    """Return inputs (m, ...) at which the predictive variance is to be kept.

    Mixtures of two training rows with a uniform share, unless the net carries others; codes, which
    cannot be mixed, are taken as they are. Some have a cell of a new kind where there can be one.
    """
    given = trained.reference
    if not isinstance(given, str):
        generator = torch.Generator().manual_seed(trained.seed)
        few = torch.randperm(count_rows(given), generator=generator)[:N_REFERENCES]
        return take_rows(given, few.sort().values.to(trained.train.device))
    # Evenly spread, which for the choice of weights is worth twice as many random ones.
    spread = SobolEngine(3, scramble=True, seed=trained.seed)
    uniforms = spread.draw(N_REFERENCES, dtype=torch.float64).mT
    X = trained.train.X
    first = take_rows(X, _drawn(trained, uniforms[0]))
    if given == "train" or not any(leaf.is_floating_point() for leaf in tree_leaves(X)):
        return first
    second = take_rows(X, _drawn(trained, uniforms[1]))
    mixtures = tree_map(functools.partial(_mixtures, uniforms[2]), first, second)
    if trained.novel is not None:
        mixtures[::NOVEL_EVERY] += trained.novel.to(mixtures)
    return mixtures


def _mixtures(shares: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Mixtures of rows (m, ...) and others with shares (m,) of these; codes stay those of some."""
    if not first.is_floating_point():
        return first
    return torch.lerp(first, second, shares.to(first).view(-1, *[1] * (first.ndim - 1)))


def reference_energy(trained: TrainedNet, X: Inputs) -> Tensor:
    """Mean squared gradient (P,) of an output at reference inputs (m, ...)."""
    n_rows = count_rows(X)
    directions = _directions(trained, n_rows)
    total = squared_jacobian_sum(trained.latent, X, lambda f: directions.to(f))
    return total / n_rows


def n_listed(size: int) -> int:
    """Count the candidates among which so many weights are searched for."""
    return max(SHORTLIST, SHORTLIST_PER_WEIGHT * size)


def selection_problem(trained: TrainedNet, candidates: Tensor, size: int | None) -> Problem:
    """Reduce the choice of ``size`` of the candidates (P,), or of many, to one of a shortlist."""
    X = reference_inputs(trained)
    listed = _shortlist(trained, X, candidates, n_listed(size) if size else N_SAMPLED)
    factors, references = data_rows(trained, listed, N_FACTORS), reference_rows(trained, X, listed)
    of_listed = functools.partial(Kernels.of, factors, references)
    full = _full_kernels(trained, X, candidates, listed, of_listed, N_FACTORS)
    values, vectors = torch.linalg.eigh(full.data)
    delta = evidence_precision(values, trained.weight_vector()[candidates])
    sd = full.variance((values, vectors), delta).sqrt()
    references = references / sd.clamp(min=torch.finfo(sd.dtype).tiny)[:, None]
    informative = vectors[:, values > NEGLIGIBLE * delta]
    return Problem(listed, informative.mT @ factors, references, delta)


def explained_variance(trained: TrainedNet, indices: Tensor, candidates: Tensor) -> float:
    """Mean share of the candidates' predictive variance at the references that some keep.

    At the prior precision that maximises the evidence of all candidates. Of more than
    ``N_SAMPLED`` candidates whose layers know no shortcut, the variance is estimated from a part.
    """
    X = reference_inputs(trained)
    listed = _shortlist(trained, X, candidates, SHORTLIST)
    of_listed = functools.partial(_kernels, trained, X, listed, N_EXACT)
    full = _full_kernels(trained, X, candidates, listed, of_listed, N_EXACT)
    spectrum = torch.linalg.eigh(full.data)
    delta = evidence_precision(spectrum.eigenvalues, trained.weight_vector()[candidates])
    kept, variance = _kernels(trained, X, indices, N_EXACT), full.variance(spectrum, delta)
    shares = kept.variance(torch.linalg.eigh(kept.data), delta) / variance
    return float(shares[variance > 0].clamp(max=1).mean())


def ridge_leverage(trained: TrainedNet, columns: Tensor) -> Tensor:
    """Leverages ``phi_j^T (Phi Phi^T + delta I)^-1 phi_j`` (P,) of the columns of Phi.

    At the prior precision that maximises the evidence; Alaoui & Mahoney 2015, definition 1.
    """
    parts = columns.split(N_SAMPLED)
    grams = (phi @ phi.mT for phi in (data_rows(trained, part, N_EXACT) for part in parts))
    data = functools.reduce(Tensor.add_, grams)
    delta = evidence_precision(torch.linalg.eigvalsh(data), trained.weight_vector()[columns])
    root = torch.linalg.cholesky(data + delta * torch.eye(len(data)).to(data))
    pieces = []
    for phi in (data_rows(trained, part, N_EXACT) for part in parts):
        white = torch.linalg.solve_triangular(root, phi, upper=False)
        pieces.append(white.square().sum(0))
    return torch.cat(pieces)


def evidence_precision(eigenvalues: Tensor, weights: Tensor) -> float:
    """Prior precision of the largest Laplace evidence, given the GGN's eigenvalues (MacKay 1992).

    It has the units of the weights, so rescaling a layer or the data leaves the selection alone.
    """
    eigenvalues = eigenvalues.clamp(min=0)
    largest = float(eigenvalues.max())
    if largest == 0:
        return 1.0
    grid = largest * PRECISIONS.to(eigenvalues.device)
    occam = torch.log1p(eigenvalues / grid[:, None]).sum(1)
    loss = grid * float(weights.double().square().sum()) + occam
    return float(grid[loss.argmin()])


def reference_rows(trained: TrainedNet, X: Inputs, columns: Tensor) -> Tensor:
    """Jacobian rows (m, P) of one output of each reference input, in float64."""
    return _rows(trained, columns, X, _directions(trained, count_rows(X)), None)


def data_rows(trained: TrainedNet, columns: Tensor, n_most: int) -> Tensor:
    """Rows Phi (n, P) with ``GGN = Phi^T Phi``: exact for few data, in expectation for many."""
    return _rows(trained, columns, *_data(trained, n_most))


def _data(trained: TrainedNet, n_most: int) -> tuple[Inputs, Tensor, Tensor]:
    """Return inputs (B, ...) that stand for the data, their mixing (B, K', K) and weights (B,)."""
    rows = trained.train
    n_columns = hessian_rank(trained.likelihood, trained.n_outputs)
    if len(rows) * n_columns <= n_most:
        return rows.X, torch.eye(n_columns).expand(len(rows), -1, -1), rows.weights
    generator = torch.Generator().manual_seed(trained.seed)
    X, weights = rows.X, rows.weights
    if len(rows) > n_most:
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        places = (torch.arange(n_most) + offset) / n_most
        X = take_rows(X, _drawn(trained, places))
        weights = (weights.sum() / n_most).expand(n_most)
    signs = torch.randint(2, (len(weights), n_columns, 1), generator=generator) * 2 - 1
    return X, signs, weights


def _rows(
    trained: TrainedNet, columns: Tensor, X: Inputs, mix: Tensor, weights: Tensor | None
) -> Tensor:
    """Jacobian rows (B·K, P) for output combinations (B, C, K), or of the Hessian root's columns.

    With row weights (B,) the combinations are those of the weighted root's columns.
    """
    plan = plan_for(trained, columns)
    n_seeds = mix.shape[2]
    step = max(1, BATCH_BYTES // (8 * n_seeds * max(1, len(columns))))
    n_rows = count_rows(X)
    found = torch.empty(n_rows, n_seeds, len(columns), dtype=torch.float64)
    for start in range(0, n_rows, step):
        part = slice(start, start + step)
        seeds = _mixed(trained, mix[part], None if weights is None else weights[part])
        _, found[part] = jacobian(trained.latent, plan, take_rows(X, part), seeds)
    return found.flatten(0, 1)


def _mixed(trained: TrainedNet, mix: Tensor, weights: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Seeds for `jacobian`: these combinations of outputs, or of the weighted root's columns."""

    def seeds(outputs: Tensor) -> Tensor:
        if weights is None:
            return mix.to(outputs)
        root = trained.likelihood.hessian_root(outputs) @ mix.to(outputs)
        return root * weights.sqrt()[:, None, None]

    return seeds


def _directions(trained: TrainedNet, n_rows: int) -> Tensor:
    """One output at random for each row, (m, C, 1); a shift of all classes says nothing."""
    generator = torch.Generator().manual_seed(trained.seed)
    outputs = torch.randint(trained.n_outputs, (n_rows,), generator=generator)
    directions = torch.nn.functional.one_hot(outputs, trained.n_outputs).double()
    if isinstance(trained.likelihood, Categorical):
        directions -= 1 / trained.n_outputs
    return directions[..., None]


def _drawn(trained: TrainedNet, places: Tensor) -> Tensor:
    """Rows at places (m,) in [0, 1) of the cumulated weights.

    Along a fixed direction of the inputs, so that neither the order of the rows nor how equal ones
    share their weight matters.
    """
    flat, weights = _flat(trained.train.X), trained.train.weights
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64).to(flat.device)
    counted = flat if bool((weights > 0).all()) else flat[weights > 0]
    low, high = counted.aminmax(dim=0)  # whatever the units of the columns
    direction = torch.where(high > low, direction / (high.double() - low), 0.0)
    order = torch.cat([part.double() @ direction for part in flat.split(4096)]).argsort(stable=True)
    cumulated = weights[order].double().cumsum(0)
    wanted = places.to(cumulated.device) * cumulated[-1]
    drawn = torch.searchsorted(cumulated, wanted, right=True).clamp(max=len(order) - 1)
    return order[drawn]


def _flat(X: Inputs) -> Tensor:
    """All numbers of a row side by side, (N, F)."""
    parts = [leaf.reshape(len(leaf), -1) for leaf in tree_leaves(X)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _shortlist(trained: TrainedNet, X: Inputs, candidates: Tensor, n_listed: int) -> Tensor:
    """Candidates with the largest gradients at the references, sorted."""
    if len(candidates) <= n_listed:
        return candidates
    energy = reference_energy(trained, X)[candidates]
    order = torch.sort(energy, descending=True, stable=True).indices
    return candidates[order[:n_listed]].sort().values


def _kernels(trained: TrainedNet, X: Inputs, columns: Tensor, n_most: int) -> Kernels:
    """Kernels of some weights, from their Jacobian rows."""
    return Kernels.of(data_rows(trained, columns, n_most), reference_rows(trained, X, columns))


def _full_kernels(
    trained: TrainedNet,
    X: Inputs,
    candidates: Tensor,
    listed: Tensor,
    of_listed: Callable[[], Kernels],
    n_most: int,
) -> Kernels:
    """Kernels of all candidates: exact where whole layers allow it without their Jacobian.

    Otherwise those of the listed, and of the rest or a sample that stands for it.
    """
    plan = plan_for(trained, candidates)
    if plan.n_kept < min(len(candidates), max(N_SAMPLED, len(listed))):
        net = trained.latent, plan
        inputs, mix, weights = _data(trained, n_most)
        _, factors = factored_jacobian(*net, inputs, _mixed(trained, mix, weights))
        directions = _mixed(trained, _directions(trained, count_rows(X)), None)
        _, references = factored_jacobian(*net, X, directions)
        return Kernels.of_factored(factors.double().cpu(), references.double().cpu())
    rest = candidates[~torch.isin(candidates, listed)]
    if not len(rest):
        return of_listed()
    generator = torch.Generator().manual_seed(trained.seed)
    sample = rest[torch.randperm(len(rest), generator=generator)[:N_SAMPLED]].sort().values
    return of_listed().plus(_kernels(trained, X, sample, n_most), len(rest) / len(sample))
