"""A fit on rows that come in blocks: what they say is found block by block, and added up.

Sums over all rows go through ``RowBlocks.reduced``: the targets' mean and variance, the residuals
and the curvature. What looks at single rows gets a sample of them, whose weights add up to those of
all: the selection of the subnetwork, the reference inputs, and the rows held out to tune on. A net
is trained by reading the blocks in turn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import check_array, check_consistent_length
from torch import Tensor

from sksubnet.estimators.base import (
    LARGE_TABLE,
    InitialFold,
    InitialNet,
    TrainedFold,
    draw_seed,
    rows_of,
)
from sksubnet.estimators.curved import CurvedNet, curved_by
from sksubnet.estimators.fitted import FORWARD_ROWS, FittedNet
from sksubnet.estimators.folds import Fold, Table
from sksubnet.estimators.jobs import cores, work_of_batch
from sksubnet.estimators.noise import constant_noise, squared_residuals
from sksubnet.estimators.regressor import BayesianNetRegressor
from sksubnet.estimators.table_kinds import plain_targets
from sksubnet.estimators.target_transform import fit_target_transform
from sksubnet.estimators.updating import read_rows
from sksubnet.jacobian import JacobianPlan, threads_for
from sksubnet.nets import (
    BlockedRows,
    Rows,
    Schedule,
    TrainedNet,
    fit_net,
    held_out_share,
    is_frozen,
    load,
    trains_in_blocks,
)
from sksubnet.posterior import Curvature, batches, block_curvature
from sksubnet.predictive import Gaussian
from sksubnet.selection import candidate_mask

if TYPE_CHECKING:
    from sksubnet.estimators.subnet import SubnetLaplace

BLOCK_NUMBERS, MOST_OF_PIECE = 2**22, 1024
"""Numbers of a block of a large array, and most consecutive rows in it."""

SAMPLE_ROWS = 20_000
"""Rows of the sample of such an array, and most rows that are held out."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows as a user has them: inputs, targets and weights, ``None`` for ones."""

    X: Any
    y: Any
    weights: Any = None

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, index: np.ndarray) -> Block:
        """Take some of the rows."""
        return Block(
            *(part if part is None else _taken(part, index) for part in vars(self).values())
        )

    @classmethod
    def joined(cls, first: Block, second: Block) -> Block:
        """Rows of both."""
        pairs = zip(vars(first).values(), vars(second).values(), strict=True)
        return cls(*(None if one is None else _joined(one, other) for one, other in pairs))


class RowBlocks(Protocol):
    """Blocks of rows, wherever they are."""

    def __len__(self) -> int:
        """Count the blocks."""

    def read(self, index: int) -> Block:
        """Fetch one block."""

    def reduced(self, function: Callable[[int, Block], T], combine: Callable[[T, T], T]) -> T:
        """Apply a function to the number of each block and to the block; combine the results."""


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """Blocks of arrays that may be files, each of pieces from everywhere in them.

    So that a block has rows of all kinds, whatever the order of the rows.
    """

    whole: Block
    n_blocks: int
    piece: int

    @classmethod
    def of(cls, X: np.ndarray, y: Any, weights: Any) -> ArrayBlocks:
        """Cut rows into blocks."""
        check_consistent_length(X, y, weights)
        per_row = max(1, X[:1].size)
        piece = max(1, min(MOST_OF_PIECE, BLOCK_NUMBERS // per_row))
        n_blocks = max(1, min(-(-X.size // BLOCK_NUMBERS), -(-len(X) // piece)))
        targets = np.asarray(plain_targets(y))
        weights = None if weights is None else np.asarray(weights)
        return cls(Block(np.asarray(X), targets, weights), n_blocks, piece)

    def __len__(self) -> int:
        return self.n_blocks

    def read(self, index: int) -> Block:
        """Copy the rows of one block."""
        starts = range(index * self.piece, len(self.whole), self.n_blocks * self.piece)
        return Block(
            *(
                part if part is None else np.concatenate([part[i : i + self.piece] for i in starts])
                for part in vars(self.whole).values()
            )
        )

    def reduced(self, function: Callable[[int, Block], T], combine: Callable[[T, T], T]) -> T:
        """Apply a function to one block after the other, and combine the results."""
        return functools.reduce(
            combine, (function(index, self.read(index)) for index in range(self.n_blocks))
        )


@dataclass(frozen=True)
class Split:
    """Which rows of a block are held out, and which are in the sample, at random by its number."""

    seed: int
    held_out: float
    sample: float

    def of(self, index: int, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the rows to train on, of those held out, and of the sample of the former."""
        rng = np.random.default_rng([self.seed, index])
        order = rng.permutation(n_rows)
        n_held = _rounded(self.held_out * n_rows, rng)
        n_sample = min(_rounded(self.sample * n_rows, rng), n_rows - n_held)
        train = order[n_held:]
        return np.sort(train), np.sort(order[:n_held]), np.sort(train[:n_sample])


@dataclass(frozen=True, eq=False)
class Facts:
    """How many rows there are, the sum of their weights, and the weight and a row of each class."""

    n_rows: int
    weight: float
    of_class: dict[Any, tuple[float, Block]]

    @classmethod
    def of(cls, index: int, block: Block, *, classify: bool) -> Facts:
        """Facts of one block."""
        weights = _weights(block)
        if len(block):
            check_array(
                weights, ensure_2d=False, ensure_non_negative=True, input_name="sample_weight"
            )
        of_class = {}
        if classify and np.ndim(block.y) == 1:
            labels, first, codes = np.unique(block.y, return_index=True, return_inverse=True)
            sums = np.bincount(codes, weights=weights, minlength=len(labels))
            of_class = {
                label: (float(weight), block.rows(np.array([row])))
                for label, weight, row in zip(labels.tolist(), sums, first, strict=True)
            }
        return cls(len(block), float(weights.sum()), of_class)

    def joined(self, other: Facts) -> Facts:
        """Facts of both."""
        of_class = dict(self.of_class)
        for label, (weight, row) in other.of_class.items():
            known, example = of_class.get(label, (0.0, row))
            of_class[label] = (known + weight, example)
        return Facts(self.n_rows + other.n_rows, self.weight + other.weight, of_class)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sum of weights, and weighted mean (C,) and sum of squared deviations (C,) of targets."""

    weight: float
    mean: np.ndarray
    squared: np.ndarray

    def joined(self, other: Moments) -> Moments:
        """Moments of both (Chan, Golub and LeVeque 1983)."""
        weight = self.weight + other.weight
        if not weight:
            return self
        apart = other.mean - self.mean
        share = other.weight / weight
        squared = self.squared + other.squared + apart**2 * self.weight * share
        return Moments(weight, self.mean + apart * share, squared)


class Sums(NamedTuple):
    """Sum of weights, and weighted sums (C,) of squared residuals and of squared targets."""

    weight: float
    squared: Tensor
    second: Tensor

    def __add__(self, other: Any) -> Sums:
        return Sums(*(one + two for one, two in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class Sampled:
    """Rows of some weight: a sample of those to train on, and those held out.

    ``sizes`` counts all those to train on of each block, by its number.
    """

    train: Block
    held_out: Block
    sizes: dict[int, int]

    @classmethod
    def of(cls, split: Split, index: int, block: Block) -> Sampled:
        """Take them from one block."""
        train, held_out, sample = split.of(index, len(block))
        weights = _weights(block)
        counted, held_out, sample = (part[weights[part] > 0] for part in (train, held_out, sample))
        return cls(block.rows(sample), block.rows(held_out), {index: len(counted)})

    def joined(self, other: Sampled) -> Sampled:
        """Rows of both."""
        return Sampled(
            Block.joined(self.train, other.train),
            Block.joined(self.held_out, other.held_out),
            self.sizes | other.sizes,
        )


@dataclass(frozen=True, eq=False)
class Reader:
    """What turns blocks into the rows of a net: the estimator, which knows columns and targets."""

    model: SubnetLaplace
    net: FittedNet
    split: Split

    def table(self, index: int, block: Block) -> Table | None:
        """Rows of a block to train on, with codes or scaled targets; ``None`` if none counts."""
        kept = block.rows(self.split.of(index, len(block))[0])
        if not (_weights(kept) > 0).any():
            return None
        model = object.__new__(type(self.model))
        model.__dict__.update(self.model.__dict__, folds_=[self.net], _is_fitted=True)
        table = model._new_rows(kept.X, kept.y, kept.weights)
        return replace(table, X=model._as_inputs(table.X))

    def plain_rows(self, index: int, block: Block) -> Rows | None:
        """Rows of a block for the net's own criterion, which weighs classes itself."""
        table = self.table(index, block)
        return None if table is None else rows_of(self.net.latent, table)

    def trained(self, index: int, block: Block) -> TrainedNet | None:
        """Give the net with the rows of a block as those it was trained on."""
        table = self.table(index, block)
        if table is None:
            return None
        return TrainedNet(
            module=self.net.latent.module,
            latent=self.net.latent,
            likelihood=self.net.likelihood,
            n_outputs=self.net.n_outputs,
            train=read_rows(self.net, table),
            held_out=None,
            seed=self.net.seed,
        )


def fit_in_blocks(estimator: SubnetLaplace, blocks: RowBlocks, sample_rows: int) -> SubnetLaplace:
    """Fit a clone of the estimator, with one net, on rows in blocks."""
    model: SubnetLaplace = clone(estimator)
    params = clone(estimator).get_params(deep=False)
    check_options(model)
    seed, classify = draw_seed(model.random_state), is_classifier(model)
    facts = blocks.reduced(partial(Facts.of, classify=classify), Facts.joined)
    if not facts.weight:
        raise ValueError("sample_weight is zero for every row; at least 2 rows need a weight.")
    if classify and model.get_params()["class_weight"] == "balanced":
        model.set_params(class_weight=_balanced(facts))
    share = min(1.0, sample_rows / facts.n_rows)
    split = Split(seed, min(held_out_fraction(model), share), share)
    sampled = blocks.reduced(partial(Sampled.of, split), Sampled.joined)
    train, held_out = sampled.train, sampled.held_out
    with torch.inference_mode(False):
        table, n_train = _sample_table(model, blocks, facts, train, held_out)
        schedule = Schedule.until_stopped(facts.n_rows)
        initial, table = model._start_net(table, seed, schedule)
        model._reference_inputs(initial.net, initial.latent)
        fold = Fold(np.arange(n_train), np.arange(n_train, len(table)))
        start = InitialFold(initial, fold, seed)
        if not is_frozen(model.net):
            _train(
                start, table, Reader(model, _as_fitted(initial, seed), split), blocks, sampled.sizes
            )
        trained = model._trained_net(start, table)
        reader = Reader(model, _as_fitted(replace(initial, latent=trained.latent), seed), split)
        trained = _with_noise(model, TrainedFold(initial, trained, np.arange(0)), reader, blocks)
        noisy = replace(reader.net, likelihood=trained.likelihood, noise=trained.noise)
        reader = replace(reader, net=noisy)
        curved = _curved(model, TrainedFold(initial, trained, np.arange(0)), reader, blocks)
        with cores(model.n_jobs), threads_for(curved.work):
            model._infer([curved], table, seed)
    model._is_fitted = True
    return model.set_params(**params)


def is_for_blocks(model: SubnetLaplace, X: Any, groups: Any) -> bool:
    """Whether the rows are so many that they are fitted in blocks, and nothing speaks against."""
    if not (isinstance(X, np.ndarray) and X.dtype.kind in "biuf" and X.size > LARGE_TABLE):
        return False
    one_net = model.cv is None or (isinstance(model.cv, str) and model.cv == "auto")
    kept_apart = groups is not None or model.memory is not None
    transform = getattr(model, "target_transform", None)
    if not one_net or kept_apart or not (transform is None or isinstance(transform, str)):
        return False
    return model._tabular is not None or is_frozen(model.net) or trains_in_blocks(model.net)


def check_options(model: SubnetLaplace) -> None:
    """Refuse what needs all rows in one place."""
    model._validate_params()
    if model.cv not in (None, "auto"):
        raise ValueError(f"cv={model.cv!r} is for rows in one place; rows in blocks take cv=None.")
    model.cv = None
    if getattr(model, "target_transform", None) not in (None, "log"):
        raise ValueError("target_transform is fitted on rows in one place; use 'log' or None.")


def held_out_fraction(model: SubnetLaplace) -> float:
    """Share of the rows that training stops on, or that the prior and the noise are tuned on."""
    if not is_frozen(model.net):
        share = model.validation_fraction if model._tabular else held_out_share(model.net)
        if share:
            return share
    is_tuned = isinstance(getattr(model, "noise", 0.0), str)
    rule = model.prior_precision
    needed = rule != "evidence" and (isinstance(rule, str) or is_tuned)
    return model.validation_fraction if needed else 0.0


def _sample_table(
    model: SubnetLaplace, blocks: RowBlocks, facts: Facts, train: Block, held_out: Block
) -> tuple[Table, int]:
    """Table of the sample, first the rows to train on, and how many these are.

    Their weights add up to those of all rows that are not held out.
    """
    weights = _weights(train)
    left = facts.weight - float(_weights(held_out).sum())
    train = Block(train.X, train.y, weights * (left / weights.sum()))
    seen = set(np.unique(train.y).tolist()) if facts.of_class else set()
    for label, (_, row) in facts.of_class.items():
        if label not in seen:  # of a rare class one row, which weighs next to nothing
            train = Block.joined(train, Block(row.X, row.y, np.full(1, np.finfo(float).tiny)))
    sample = train
    if len(held_out):
        sample = Block.joined(train, replace(held_out, weights=_weights(held_out)))
    table = model._start_fit(sample.X, sample.y, sample.weights)
    if isinstance(model, BayesianNetRegressor):
        y = table.y * model._y_scale + model._y_mean
        moments = blocks.reduced(partial(_moments, model), Moments.joined)
        model._set_units(moments.mean, np.sqrt(moments.squared / moments.weight))
        table = table.with_targets((y - model._y_mean) / model._y_scale)
    return table, len(train)


def _train(
    start: InitialFold, table: Table, reader: Reader, blocks: RowBlocks, sizes: dict[int, int]
) -> None:
    """Train a net by reading the blocks in turn."""

    def read(index: int) -> Rows | None:
        return reader.plain_rows(index, blocks.read(index))

    sample, held_out = start.rows_of(table)
    rows = BlockedRows(sample, [sizes[index] for index in range(len(blocks))], read)
    net = start.initial.net
    with cores(reader.model.n_jobs):
        load(net, fit_net(net, rows, held_out, start.initial.stream))


def _with_noise(
    model: SubnetLaplace, fold: TrainedFold, reader: Reader, blocks: RowBlocks
) -> TrainedNet:
    """Give a regression net its noise; a constant one by all rows where none are held out."""
    trained = model._with_noise([fold])[0].trained
    is_given = not isinstance(getattr(model, "noise", None), str)
    if is_given or not isinstance(trained.likelihood, Gaussian):
        return trained
    if trained.held_out is not None or trained.noise is not None:
        return trained
    found = blocks.reduced(partial(_residuals, reader), _added)
    assert found is not None
    weight, squared, second = found
    return replace(trained, likelihood=constant_noise(squared / weight, second / weight))


def _curved(
    model: SubnetLaplace, fold: TrainedFold, reader: Reader, blocks: RowBlocks
) -> CurvedNet:
    """Select by the sample, and add up the curvature of all blocks."""
    latent = fold.trained.latent
    trained = replace(
        fold.trained,
        reference=model._reference_inputs(fold.initial.net, latent),
        novel=model._novel(latent),
    )
    fold = fold.with_net(trained)

    def curvature_of(plan: JacobianPlan, indices: Tensor) -> Curvature:
        step = partial(_curvature, reader, plan, indices, model.covariance, model.batch_size)
        found: Curvature | None = blocks.reduced(step, _added)
        assert found is not None
        return found

    with cores(model.n_jobs), threads_for(work_of_batch(trained)):
        (subnetwork,) = model._select(trained, [model.subnetwork_size], None)
    candidates = candidate_mask(trained.module, model.candidates)
    with cores(model.n_jobs), threads_for(work_of_batch(trained, len(subnetwork))):
        (part,) = curved_by(
            curvature_of, trained, [subnetwork], candidates, tunes=model._tunes_by_rows([fold])
        )
    curved = CurvedNet(fold=fold, **vars(part))
    model._warn_if_inert(curved)
    return curved


def _curvature(
    reader: Reader,
    plan: JacobianPlan,
    indices: Tensor,
    covariance: str,
    batch_size: int | None,
    index: int,
    block: Block,
) -> Curvature | None:
    trained = reader.trained(index, block)
    if trained is None:
        return None
    return block_curvature(trained, plan, indices, covariance=covariance, batch_size=batch_size)


def _residuals(reader: Reader, index: int, block: Block) -> Sums | None:
    trained = reader.trained(index, block)
    if trained is None:
        return None
    total = Sums(0.0, torch.zeros(()), torch.zeros(()))
    for rows in batches(trained.train, FORWARD_ROWS):
        weights = rows.weights.double().cpu()
        squared = squared_residuals(trained, rows).y.double().cpu()
        second = weights @ rows.y.double().cpu().square()
        total = total + Sums(float(weights.sum()), weights @ squared, second)
    return total


def _moments(model: BayesianNetRegressor, index: int, block: Block) -> Moments:
    """Moments of the targets of a block, as the net is trained on them."""
    block = block.rows(np.flatnonzero(_weights(block)))
    y, weights = np.asarray(block.y, np.float64), _weights(block)
    if y.ndim == 1:
        y = y[:, None]
    transform = fit_target_transform(model.target_transform, y)
    if transform is not None:
        y = transform.forward(y)
    weight = weights.sum()
    if not weight:
        return Moments(0.0, np.zeros(y.shape[1]), np.zeros(y.shape[1]))
    mean = weights @ y / weight
    return Moments(float(weight), mean, weights @ (y - mean) ** 2)


def _added(first: Any, second: Any) -> Any:
    """Sum of what two blocks gave; of blocks without rows there is nothing."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _as_fitted(initial: InitialNet, seed: int) -> FittedNet:
    """Give a net as one that reads rows."""
    return FittedNet(
        net=initial.net,
        latent=initial.latent,
        likelihood=initial.likelihood,
        n_outputs=initial.n_outputs,
        seed=seed,
        held_out=np.arange(0),
    )


def _balanced(facts: Facts) -> dict[Any, float]:
    """Weights of the classes that make their rows weigh the same, as scikit-learn's."""
    seen = {label: weight for label, (weight, _) in facts.of_class.items() if weight > 0}
    return {label: facts.weight / (len(seen) * weight) for label, weight in seen.items()}


def _weights(block: Block) -> np.ndarray:
    """Weights (n,) of a block."""
    if block.weights is None:
        return np.ones(len(block))
    return np.asarray(block.weights, dtype=np.float64)


def _rounded(number: float, rng: np.random.Generator) -> int:
    """Return a whole number that is right on average, so that small blocks give rows, too."""
    return int(number + (rng.random() if number % 1 else 0.0))


def _taken(values: Any, index: np.ndarray) -> Any:
    """Take some rows of an array, a frame or a column."""
    return values.iloc[index] if hasattr(values, "iloc") else np.asarray(values)[index]


def _joined(first: Any, second: Any) -> Any:
    if not hasattr(first, "iloc"):
        return np.concatenate([first, second])
    import pandas

    return pandas.concat([first, second], ignore_index=True)
