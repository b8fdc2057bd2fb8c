"""Which weights are treated as random: candidates, scores, and the subnetwork they give."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sksubnet.posterior import output_energy, plan_for
from sksubnet.selection.greedy import PATIENT, POOL, Chosen, Growth, Pool, grow
from sksubnet.selection.reference import (
    SHORTLIST,
    SHORTLIST_PER_WEIGHT,
    Problem,
    n_listed,
    selection_problem,
)
from sksubnet.selection.scores import SCORES

if TYPE_CHECKING:
    from sksubnet.jacobian import JacobianPlan
    from sksubnet.nets import TrainedNet

LAYERS_SHOWN = 20
"""Most parameter tensors that a printed subnetwork lists."""

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True, eq=False)
class Subnetwork:
    """The weights that are treated as random; all others stay at the MAP.

    Attributes
    ----------
    indices : ndarray of shape (S,), dtype int64
        Sorted positions in ``parameters_to_vector(net_.module_.parameters())``.
    n_weights : int
        Number of all weights of the net, P.
    n_inert : int or None
        How many of the selected weights have no effect at all on the outputs of the training
        rows that were looked at (at most 256).
    layers : tuple of (str, int, int)
        Name, number of weights and number of selected weights of each parameter tensor.
    explained_variance : float or None
        Mean share of the candidates' predictive variance at the reference inputs that the
        selected weights keep, where the selection measures it.
    explained_curve : ndarray of shape (S,) or None
        The share that the first 1, 2, ..., S weights kept while they were added one by one.
    """

    indices: np.ndarray
    n_weights: int
    n_inert: int | None = None
    layers: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)
    explained_variance: float | None = None
    explained_curve: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def table(self) -> str:
        """Return a readable table: how many weights of each parameter tensor are selected."""
        return self._table(self.layers)

    def __repr__(self) -> str:
        shown = self._shown_layers()
        left_out = len(self.layers) - len(shown)
        more = f"\n({left_out} parameter tensors not shown)" if left_out else ""
        return f"{self._summary()}\n{self._table(shown)}{more}"

    def _repr_html_(self) -> str:
        rows = ["<th>parameter</th><th>selected</th><th>of</th><th>share</th>"]
        for name, size, selected in (*self._shown_layers(), ("all", self.n_weights, len(self))):
            share = f"{selected / max(size, 1):.1%}"
            cells = "".join(f"<td>{cell}</td>" for cell in (selected, size, share))
            rows.append(f"<th>{html.escape(name)}</th>{cells}")
        table = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<p>{html.escape(self._summary())}</p><table>{table}</table>"

    def _summary(self) -> str:
        """One line: how many weights, what they keep, and how many are without effect."""
        share = len(self) / max(self.n_weights, 1)
        parts = [f"Subnetwork: {len(self)} of {self.n_weights} weights ({share:.1%})"]
        if self.explained_variance is not None:
            kept = f"{self.explained_variance:.1%}"
            parts.append(f"keeps {kept} of the predictive variance at the reference inputs")
        if self.n_inert:
            parts.append(f"{self.n_inert} without effect on the training rows")
        return ", ".join(parts)

    def _shown_layers(self) -> tuple[tuple[str, int, int], ...]:
        """All parameter tensors; of many, those that hold most of the selected weights."""
        if len(self.layers) <= LAYERS_SHOWN:
            return self.layers
        most = sorted(self.layers, key=lambda layer: -layer[2])[:LAYERS_SHOWN]
        return tuple(layer for layer in self.layers if layer in most and layer[2])

    def _table(self, layers: Sequence[tuple[str, int, int]]) -> str:
        """Lines of a table: these parameter tensors, then the whole net."""
        total = ("all", self.n_weights, len(self))
        rows = [*layers, total]
        width = max(len("parameter"), *(len(name) for name, _, _ in rows))
        lines = [f"{'parameter':<{width}}  {'selected':>9}  {'of':>9}  share"]
        for name, size, selected in rows:
            share = f"{selected / max(size, 1):6.1%}"
            lines.append(f"{name:<{width}}  {selected:>9}  {size:>9} {share}")
        return "\n".join(lines)


SELECTIONS = (*SCORES, "greedy", "last_layer")
AUTO_SHARE, AUTO_LEAST, AUTO_MOST = 0.05, 100, 500
RANKED = SHORTLIST // SHORTLIST_PER_WEIGHT
"""Weights up to which the rankings of all sizes begin alike."""

VARIANCE_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?% variance")

CANDIDATES = ("weights", "all")


def candidate_mask(module: nn.Module, candidates: Any) -> Tensor:
    """Boolean mask (P,) of the weights that may be selected.

    ``"weights"`` follows the paper's code: trainable, no biases, no normalisation layers; and none
    that a module's class names in ``not_candidates``.
    """
    if isinstance(candidates, str) and candidates in CANDIDATES:
        left_out = {
            layer.get_parameter(name)
            for layer in module.modules()
            for name in getattr(type(layer), "not_candidates", ())
            if name in dict(layer.named_parameters())
        }
        left_out |= {
            parameter
            for layer in module.modules()
            if isinstance(layer, NORMALISATION)
            for parameter in layer.parameters(recurse=False)
        }
        return _mask(
            module,
            lambda name, parameter: (
                candidates == "all"
                or ("bias" not in name.rpartition(".")[2] and parameter not in left_out)
            ),
        )
    return explicit_mask(module, candidates, "candidates", CANDIDATES)


def explicit_mask(module: nn.Module, chosen: Any, option: str, known: Sequence[str]) -> Tensor:
    """Boolean mask (P,) from names of modules or parameters, an index array or a mask."""
    names = [chosen] if isinstance(chosen, str) else chosen
    if len(names) and all(isinstance(name, str) for name in names):
        return _named_mask(module, list(names), option, known)
    trainable = _mask(module, lambda name, parameter: True)
    array = np.asarray(chosen)
    n_weights = len(trainable)
    mask = torch.zeros(n_weights, dtype=torch.bool)
    if array.dtype == bool and array.shape == (n_weights,):
        mask = torch.as_tensor(array)
    elif array.ndim == 1 and array.size and np.issubdtype(array.dtype, np.integer):
        if array.min() < 0 or array.max() >= n_weights:
            raise ValueError(
                f"{option} has indices from {array.min()} to {array.max()}; the net's weights "
                f"are numbered 0 to {n_weights - 1}."
            )
        mask[torch.as_tensor(array.astype(np.int64))] = True
    else:
        raise ValueError(
            f"{option} is an array of dtype {array.dtype} and shape {array.shape}; use one of "
            f"{sorted(known)}, names of modules or parameters, integer indices below "
            f"{n_weights}, or a boolean mask of shape ({n_weights},)."
        )
    if not mask.any():
        raise ValueError(f"{option} selects no weight; at least one is needed.")
    if (mask & ~trainable).any():
        raise ValueError(f"{option} contains frozen weights (requires_grad=False); leave them out.")
    return mask


def explicit_selection(module: nn.Module, selection: Any, candidates: Tensor) -> Tensor | None:
    """Mask (P,) of a selection that names its weights, ``None`` for one that scores them."""
    if callable(selection) or (isinstance(selection, str) and selection in (*SCORES, "greedy")):
        return None
    if isinstance(selection, str) and selection == "last_layer":
        owners = [
            layer
            for layer in module.modules()
            if any(p.requires_grad for p in layer.parameters(recurse=False))
        ]
        last = set(owners[-1].parameters(recurse=False))
        return _mask(module, lambda name, parameter: parameter in last) & candidates
    return explicit_mask(module, selection, "selection", SELECTIONS)


def variance_share(size: int | float | str, selection: Any) -> float | None:
    """Read the share of the predictive variance to keep out of a size such as "90% variance"."""
    match = VARIANCE_SHARE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        return None
    share = float(match[1]) / 100
    if not 0 < share < 1:
        raise ValueError(
            f"subnetwork_size={size!r} is not between 0% and 100% variance; 'all' keeps all of it."
        )
    if not is_greedy(selection):
        raise ValueError(
            f"subnetwork_size={size!r} needs selection='greedy', which measures it; "
            f"selection={selection!r:.80} takes a number or share of weights."
        )
    return share


def is_greedy(selection: Any) -> bool:
    """Whether the weights are searched for together; an array is not to be compared with."""
    return isinstance(selection, str) and selection == "greedy"


def n_selected(size: int | float | str, n_candidates: int) -> int:
    """Resolve ``subnetwork_size`` to a number of weights, the most there can be for a variance."""
    if size == "auto":
        wanted = max(AUTO_LEAST, min(round(AUTO_SHARE * n_candidates), AUTO_MOST))
        return min(wanted, n_candidates)
    if isinstance(size, str):
        return n_candidates
    if isinstance(size, float):
        return max(1, round(size * n_candidates))
    if size > n_candidates:
        raise ValueError(
            f"subnetwork_size={size} exceeds the {n_candidates} candidate weights of this net; use "
            f"an int <= {n_candidates}, a share in (0.0, 1.0] or 'all' (or candidates='all')."
        )
    return int(size)


def n_wanted(
    size: int | float | str, selection: Any, candidates: Tensor, named: Tensor | None
) -> int | None:
    """Count the weights of a size; ``None`` where the search for a share of variance will tell."""
    if variance_share(size, selection) is not None:
        return None
    return int(named.sum()) if named is not None else n_selected(size, int(candidates.sum()))


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best weights by a score or a search.

    Attributes
    ----------
    order : Tensor of shape (k,)
        Positions in the weight vector, the best first.
    curve : Tensor of shape (k,) or None
        Share of the predictive variance that the first 1, 2, ..., k of them keep, where the search
        measures it.
    """

    order: Tensor
    curve: Tensor | None = None


class Selector:
    """Picks the subnetworks of one net: by a score, by a search, or the weights that are named.

    What several sizes share is found once. Scores of single weights rank them for every size. The
    searches of several sizes begin alike, so those that are asked for in increasing order take
    little more than the largest.
    """

    def __init__(
        self,
        trained: TrainedNet,
        selection: Any,
        candidates: Tensor,
        ranking: Ranking | None = None,
    ) -> None:
        self.trained, self.selection, self.candidates = trained, selection, candidates
        self.named = explicit_selection(trained.module, selection, candidates)
        self._rankings = {} if ranking is None else {self._kind(RANKED): ranking}
        self._growths: dict[int, tuple[Problem, Growth]] = {}
        self._pool: Pool | None = None

    def pick_each(self, sizes: Sequence[int | float | str]) -> list[Subnetwork]:
        """Pick a subnetwork of each size."""
        counts = [n_wanted(s, self.selection, self.candidates, self.named) or 0 for s in sizes]
        picked = {k: self.pick(sizes[k]) for k in np.argsort(counts, kind="stable")}
        return [picked[k] for k in range(len(sizes))]

    def pick(self, size: int | float | str) -> Subnetwork:
        """Pick a subnetwork of a size, as ``subnetwork_size`` gives it."""
        indices, explained = self._picked(size)
        layers = tuple(_per_layer(self.trained.module, indices))
        return Subnetwork(indices.numpy(), len(self.candidates), layers=layers, **explained)

    def _picked(self, size: int | float | str) -> tuple[Tensor, dict[str, Any]]:
        """Positions (S,) of the weights, sorted, and what the search says of them."""
        n = n_wanted(size, self.selection, self.candidates, self.named)
        if self.named is not None:
            return self.named.nonzero().squeeze(1), {}
        indices = self.candidates.nonzero().squeeze(1)
        if n is None:
            share = variance_share(size, self.selection)
            assert share is not None
            return _grown(self.trained, indices, share)
        if n == len(indices):
            return indices, {}
        if is_greedy(self.selection) and n <= PATIENT:
            problem, growth = self._growth(indices, n)
            self._pool = self._pool or self._ranked_pool(problem, growth)
            return _explained(problem, self._pool.choose(n))
        ranking = self.ranked(n)
        found = ranking.order[:n].sort().values
        if ranking.curve is None:
            return found, {}
        curve = ranking.curve[:n].numpy()
        return found, {"explained_variance": float(curve[-1]), "explained_curve": curve}

    def searches_once(self, size: int | float | str) -> bool:
        """Whether a subnetwork of this size is found by the order of ``RANKED`` weights.

        That of a search; scores are not worth keeping.
        """
        n = n_wanted(size, self.selection, self.candidates, self.named)
        if n is None or not is_greedy(self.selection):
            return False
        return n <= RANKED and n < int(self.candidates.sum())

    def ranked(self, n: int) -> Ranking:
        """Rank the best ``n`` weights, or more; those of a search that thinks once."""
        indices, kind = self.candidates.nonzero().squeeze(1), self._kind(n)
        n = min(n, len(indices))
        if kind not in self._rankings or len(self._rankings[kind].order) < n:
            if is_greedy(self.selection):
                problem, growth = self._growth(indices, n)
                _, order, curve = growth.to(n)
                found = Ranking(problem.columns[order.cpu()], curve.cpu())
            else:
                named = isinstance(self.selection, str)
                score = SCORES[self.selection] if named else self.selection
                scores = _checked_scores(score(self.trained), len(self.candidates))
                order = torch.sort(scores[indices], descending=True, stable=True).indices
                found = Ranking(indices[order])
            self._rankings[kind] = found
        return self._rankings[kind]

    def _kind(self, n: int) -> int:
        """Tell rankings apart of which one is not the beginning of the other."""
        return n_listed(n) if is_greedy(self.selection) else 0

    def _growth(self, indices: Tensor, size: int) -> tuple[Problem, Growth]:
        """Return the problem that a size is searched in, and how far weights have entered in it."""
        key = min(n_listed(size), len(indices))
        if key not in self._growths:
            problem = selection_problem(self.trained, indices, size)
            parts = problem.factors, problem.references, problem.prior_precision
            self._growths[key] = problem, Growth.of(*parts)
        return self._growths[key]

    def _ranked_pool(self, problem: Problem, growth: Growth) -> Pool:
        """Return the first weights of the ranking, of which few are chosen."""
        ranking, start = self.ranked(POOL), growth.start
        assert ranking.curve is not None
        places = torch.searchsorted(problem.columns, ranking.order[:POOL])
        order, curve = places.to(start.inside.device), ranking.curve[:POOL].to(start.residuals)
        return Pool(start, order, curve)


def effects(
    trained: TrainedNet, plan: JacobianPlan, parts: Sequence[Tensor], candidates: Tensor
) -> list[tuple[float, int]]:
    """Jacobian energy of parts of the planned weights, relative to as many random candidates.

    And how many weights of each part are inert. A part is places (s,) among those of the plan.
    """
    everything = candidates.nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(trained.seed)
    most = max(map(len, parts))
    drawn, rank = everything[torch.randperm(len(everything), generator=generator)[:most]].sort()
    energy, typical = output_energy(trained, plan), output_energy(trained, plan_for(trained, drawn))
    found = []
    for part in parts:
        own, random = energy[part], typical[rank < len(part)].mean()
        share = float(own.mean() / random) if random > 0 else 1.0
        found.append((share, int((own == 0).sum())))
    return found


def _grown(trained: TrainedNet, candidates: Tensor, share: float) -> tuple[Tensor, dict[str, Any]]:
    """Fewest weights (S,) that keep a share of the variance at the reference inputs; how much."""
    problem = selection_problem(trained, candidates, None)
    size = len(problem.columns)
    parts = problem.factors, problem.references, problem.prior_precision, size
    chosen = grow(*parts, share=share)
    kept = float(chosen.shares.mean())
    if kept < share and size < len(candidates):
        raise ValueError(
            f"The {size} most influential of the {len(candidates)} candidates keep {kept:.1%} of "
            f"the predictive variance, not {share:.1%}; ask for a smaller share, or for a number "
            "of weights."
        )
    return _explained(problem, chosen)


def _explained(problem: Problem, chosen: Chosen) -> tuple[Tensor, dict[str, Any]]:
    """Positions of what a search has chosen, sorted, and the variance that it keeps."""
    found = problem.columns[chosen.indices.cpu()].sort().values
    kept, curve = float(chosen.shares.mean()), chosen.curve.cpu().numpy()
    return found, {"explained_variance": kept, "explained_curve": curve}


def _checked_scores(scores: Any, n_weights: int) -> Tensor:
    scores = torch.as_tensor(scores).detach().cpu().double()
    if scores.shape != (n_weights,) or not torch.isfinite(scores).all():
        raise ValueError(
            f"selection returned scores of shape {tuple(scores.shape)}; one finite score for each "
            f"of the {n_weights} weights of the net is needed."
        )
    return scores


def _named_mask(module: nn.Module, names: list[str], option: str, known: Sequence[str]) -> Tensor:
    parameters = [name for name, _ in module.named_parameters()]
    modules = [name for name, _ in module.named_modules() if name]
    for name in names:
        if name not in parameters and name not in modules:
            raise ValueError(
                f"{option}={name!r} is unknown; use one of {sorted(known)}, or names among this "
                f"net's modules {modules} and parameters {parameters}."
            )
    return _mask(
        module,
        lambda name, _: any(name == chosen or name.startswith(f"{chosen}.") for chosen in names),
    )


def _mask(module: nn.Module, keep: Callable[[str, nn.Parameter], bool]) -> Tensor:
    """Mask (P,) of the trainable parameters that ``keep(name, parameter)`` admits."""
    pieces = [
        torch.full((parameter.numel(),), parameter.requires_grad and keep(name, parameter))
        for name, parameter in module.named_parameters()
    ]
    return torch.cat(pieces)


def _per_layer(module: nn.Module, indices: Tensor) -> list[tuple[str, int, int]]:
    layers, start = [], 0
    for name, parameter in module.named_parameters():
        stop = start + parameter.numel()
        selected = int(((indices >= start) & (indices < stop)).sum())
        layers.append((name, parameter.numel(), selected))
        start = stop
    return layers
