"""Rows of a fit, and which of them each net trains on and which it does not see."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

FOLDS = 5
"""Folds of ``cv="auto"``."""

LEAST_FOLDED_ROWS, MOST_FOLDED_ROWS = 20, 4000
"""Distinct rows from which on, and up to which, ``cv="auto"`` makes folds: of fewer a net may miss
whole classes, and of more five nets are hardly worth their time."""

MOST_MERGED_ROWS = 20_000
"""Rows among which equal ones are looked for before it is known how many differ."""


class Fold(NamedTuple):
    """Numbers of the rows that a net trains on, and of those that it does not see."""

    train: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a fit: inputs (N, ...), targets (N,) or (N, C), weights (N,) and group codes (N,).

    ``parts`` (N, 2 K) counts how often each of the user's own K folds trains on a row, and how
    often it holds it out. ``place`` (n,) says for each row that the user gave which of these it is;
    -1 where its weight is zero.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    groups: np.ndarray | None
    parts: np.ndarray | None
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.X)

    @classmethod
    def of(
        cls,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray,
        groups: Any = None,
        parts: np.ndarray | None = None,
    ) -> Table:
        """Rows of positive weight, without a copy where all are."""
        codes = None if groups is None else np.unique(groups, return_inverse=True)[1]
        positive = weights > 0
        if positive.all():
            return cls(X, y, weights, codes, parts, np.arange(len(X)))
        place = np.where(positive, np.cumsum(positive) - 1, -1)
        codes, parts = (v if v is None else v[positive] for v in (codes, parts))
        return cls(X[positive], y[positive], weights[positive], codes, parts, place)

    def merged(self) -> Table:
        """Distinct rows in an order of their own, with the weights of equal ones added up.

        So that neither the order of the rows nor whether one is repeated or weighted matters. Equal
        rows of other groups, or that the user's folds take otherwise, stay apart.
        """
        parts = (self.X, self.y, self.groups, self.parts)
        content = np.hstack([part.reshape(len(self), -1) for part in parts if part is not None])
        if (missing := np.isnan(content)).any():  # which is not even equal to itself
            content = np.hstack([np.where(missing, 0.0, content), missing])
        _, first, inverse = np.unique(content + 0.0, axis=0, return_index=True, return_inverse=True)
        inverse = inverse.reshape(-1)
        place = np.where(self.place >= 0, inverse[self.place], -1)
        return Table(
            self.X[first] + 0.0,  # -0.0 is 0.0, whichever came first
            self.y[first],
            np.bincount(inverse, weights=self.weights, minlength=len(first)),
            None if self.groups is None else self.groups[first],
            None if self.parts is None else self.parts[first],
            place,
        )

    def with_targets(self, y: np.ndarray) -> Table:
        """Give the same rows other targets."""
        return replace(self, y=y)


def merges_rows(cv: Any, n_rows: int, default_net: bool) -> bool:
    """Whether there may be folds, in which equal rows are to be one."""
    if isinstance(cv, str):
        return default_net and n_rows <= MOST_MERGED_ROWS
    return cv is not None


def parts_of(cv: Any, X: np.ndarray, y: np.ndarray, groups: Any) -> np.ndarray | None:
    """Count (N, 2 K) how the user's splits of all rows take each; ``None`` without any.

    Before rows of weight zero go, for a list of splits has the numbers of the rows as given.
    """
    if cv is None or isinstance(cv, str | int | np.integer):
        return None
    rows = np.arange(len(X))
    splits = _checked(check_cv(cv).split(X, y, groups))
    counts = [np.bincount(rows[part], minlength=len(X)) for fold in splits for part in fold]
    return np.stack(counts, axis=1)


def folds_of(
    table: Table, cv: Any, *, default_net: bool, classify: bool, seed: int
) -> list[Fold] | None:
    """Folds of a cross-fit; ``None`` where one net is trained, and holds rows out by itself."""
    if isinstance(cv, str):
        enough = LEAST_FOLDED_ROWS <= len(table) <= MOST_FOLDED_ROWS
        n_folds = min(FOLDS, _n_parts(table)) if default_net and enough else 1
    elif cv is None:
        n_folds = 1
    elif table.parts is not None:
        rows = np.arange(len(table))
        numbers = [np.repeat(rows, counts) for counts in table.parts.T]
        return _checked(zip(numbers[::2], numbers[1::2], strict=True))
    else:
        n_folds, most = int(cv), _n_parts(table)
        if n_folds > most:
            kind = "distinct rows" if table.groups is None else "groups of rows"
            raise ValueError(
                f"cv={n_folds} is more folds than there are {kind} with a positive weight, {most}; "
                f"take at most {most} folds, or cv=None for one net."
            )
    if n_folds < 2:
        if table.groups is not None and _n_parts(table) > 1:
            warnings.warn(
                "groups are ignored where one net is trained, which holds out rows of any group; "
                "a number for cv, such as cv=5, keeps groups together.",
                UserWarning,
                stacklevel=7,
            )
        return None
    if table.groups is not None:
        kind = StratifiedGroupKFold if classify else GroupKFold
        splitter = kind(n_folds, shuffle=True, random_state=seed)
        return _checked(splitter.split(table.X, table.y, table.groups))
    if classify:
        _warn_of_rare_classes(table.y, n_folds, 2 if isinstance(cv, str) else n_folds)
    number = _dealt(table.y, n_folds, classify, seed)
    return [Fold(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in range(n_folds)]


def _n_parts(table: Table) -> int:
    """Count what the folds are made of: distinct rows, or whole groups of them."""
    return len(table) if table.groups is None else len(np.unique(table.groups))


def _warn_of_rare_classes(y: np.ndarray, n_folds: int, needed: int) -> None:
    """Warn where a class (of y, (N,)) has fewer rows than are needed."""
    counts = np.bincount(y)
    fewest = int(counts[counts > 0].min())
    if fewest < needed:
        what = "the net that does not see it trains without that class"
        if fewest > 1:
            what = "some nets have no row of that class to stop on"
        warnings.warn(
            f"The least populated class in y has only {fewest} distinct row"
            f"{'s' if fewest > 1 else ''}, which is less than the {n_folds} folds: {what}.",
            UserWarning,
            stacklevel=8,
        )


def _dealt(y: np.ndarray, n_folds: int, classify: bool, seed: int) -> np.ndarray:
    """Deal out fold numbers (N,): neighbours in the order of the targets get different ones.

    That stratifies classes, and the distribution of a numerical target as well.
    """
    rng = np.random.default_rng(seed)
    if classify:
        # In turn, or a class that lies across two blocks could have all its rows in one fold;
        # at random within a class, or columns that take turns as well would follow the folds.
        order = rng.permutation(len(y))
        order = order[np.argsort(y[order], kind="stable")]
        dealt = np.resize(rng.permutation(n_folds), len(y))
    else:
        order = np.argsort(y.reshape(len(y), -1)[:, 0], kind="stable")
        n_blocks = -(-len(y) // n_folds)
        dealt = np.concatenate([rng.permutation(n_folds) for _ in range(n_blocks)])[: len(y)]
    number = np.empty(len(y), dtype=np.int64)
    number[order] = dealt
    return number


def _checked(splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[Fold]:
    """Folds of a splitter; raise where one has no rows."""
    folds = [Fold(np.sort(train), np.sort(held_out)) for train, held_out in splits]
    if not folds or any(len(part) == 0 for fold in folds for part in fold):
        raise ValueError("cv gives a fold without rows to train on or without rows to hold out.")
    return folds
