"""Fits and predictions on dask collections, whose rows stay where they are.

What a fit needs of all rows are sums: of the targets, of the residuals, and of the curvature, an
S × S matrix for a subnetwork of S weights. Each block of rows gives its own and a tree adds them
up, so that no machine holds more than some blocks and such matrices. Predictions are made block by
block and come back as dask arrays.

The extra ``sksubnet[distributed]`` brings dask. Searches and folds need nothing of this module:
they go through joblib, so inside ``joblib.parallel_config("dask")`` they run on the cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sksubnet.estimators import Block, SubnetLaplace, fit_in_blocks
from sksubnet.jacobian import torch_threads

__all__ = ["fit", "predict"]

T = TypeVar("T")

BRANCHES = 8
"""Results that are added up at once."""


def fit(
    estimator: SubnetLaplace, X: Any, y: Any, sample_weight: Any = None, *, sample_rows: int = 10000
) -> SubnetLaplace:
    """Fit a subnetwork Laplace estimator to the rows of dask collections.

    Parameters
    ----------
    estimator : SubnetLaplaceClassifier or SubnetLaplaceRegressor
        The estimator, with ``cv=None`` or ``"auto"``: one net is fitted. It stays as it is.
    X : dask array of shape (n_samples, n_features) or dask dataframe
        Training rows. Each chunk or partition is a block.
    y : dask array of shape (n_samples,) or (n_samples, n_targets), or dask dataframe or series
        Labels or targets, with the blocks of ``X``; those of an array are made so.
    sample_weight : dask array of shape (n_samples,) or dask series, default=None
        Non-negative weights.
    sample_rows : int, default=10000
        Rows of a sample that comes to this process, drawn at random from all blocks, and most rows
        that are held out, which come as well.

    Returns
    -------
    SubnetLaplaceClassifier or SubnetLaplaceRegressor
        A fitted clone, which holds nothing of dask.

    Raises
    ------
    ImportError
        If dask is missing; the extra is ``sksubnet[distributed]``.
    ValueError
        If blocks do not belong together, or an option needs all rows in one place.

    Notes
    -----
    The curvature, the scale of the targets, the noise and the evidence are sums over all rows, the
    same as those of ``estimator.fit`` up to rounding. What looks at single rows looks at the
    sample: the selection of the subnetwork, how the default net encodes columns, and the rows
    held out to stop training and to tune the prior precision. With the derivative of
    ``target_transform="log"`` that holds for ``log_marginal_likelihood`` as well.

    A net that is not in :class:`~sklearn.frozen.FrozenEstimator` is trained in this process, which
    reads one block at a time, in an order at random, so that no batch has rows of two blocks. Rows
    that are sorted by their targets should be shuffled first. For a large net train it elsewhere.

    A block that is lost with its worker is computed again, and the fit is the same. The scheduler
    is the one that :func:`dask.compute` takes: a ``Client`` if there is one, else threads.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn.datasets import load_diabetes
    >>> from sksubnet import SubnetLaplaceRegressor
    >>> from sksubnet.distributed import fit, predict
    >>> X, y = (da.from_array(part, chunks=100) for part in load_diabetes(return_X_y=True))
    >>> reg = fit(SubnetLaplaceRegressor(random_state=0), X, y)
    >>> predict(reg, X)
    dask.array<concatenate, shape=(442,), dtype=float64, chunksize=(100,), chunktype=numpy.ndarray>
    """
    if not isinstance(estimator, SubnetLaplace):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}; fit takes a SubnetLaplaceClassifier or a "
            "SubnetLaplaceRegressor."
        )
    if sample_rows < 2:
        raise ValueError(f"sample_rows={sample_rows} must be at least 2.")
    return fit_in_blocks(estimator, DaskBlocks.of(X, y, sample_weight), sample_rows)


def predict(estimator: Any, X: Any, method: str = "predict", **options: Any) -> Any:
    """Predict the rows of a dask collection, block by block.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator, of this package or any other.
    X : dask array of shape (n_samples, n_features) or dask dataframe
        Rows to predict.
    method : str, default="predict"
        Name of the method that predicts: ``"predict_proba"``, ``"predict_interval"`` and others
        that take rows one by one.
    **options : dict
        Arguments of the method, such as ``return_std=True``.

    Returns
    -------
    dask array, or tuple of dask arrays
        What the method gives for all rows, not yet computed. The number of rows is unknown for a
        dataframe.

    Raises
    ------
    ImportError
        If dask is missing.
    ValueError
        If the method gives covariances between rows.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from sklearn.linear_model import BayesianRidge
    >>> from sksubnet.distributed import predict
    >>> X = np.arange(6.0)[:, None]
    >>> model = BayesianRidge().fit(X, X[:, 0])
    >>> mean, std = predict(model, da.from_array(X, chunks=2), return_std=True)
    >>> mean.compute().round(1)
    array([0., 1., 2., 3., 4., 5.])
    """
    dask, da = _dask(), _dask("array")
    if options.get("return_cov"):
        raise ValueError("return_cov is between all rows, which blocks do not know of each other.")
    parts, lengths, example = _parts(X)
    made = getattr(estimator, method)(example, **options)
    several = isinstance(made, tuple)
    nothing = tuple(one[:0] for one in made) if several else made[:0]
    shapes = [(one.shape[1:], one.dtype) for one in (nothing if several else (nothing,))]
    shared = dask.delayed(estimator)
    results = [dask.delayed(_called)(shared, method, options, part, nothing) for part in parts]

    def joined(k: int) -> Any:
        shape, dtype = shapes[k]
        blocks = [
            da.from_delayed(result[k] if several else result, shape=(length, *shape), dtype=dtype)
            for result, length in zip(results, lengths, strict=True)
        ]
        return da.concatenate(blocks, allow_unknown_chunksizes=True)

    found = tuple(joined(k) for k in range(len(shapes)))
    return found if several else found[0]


@dataclass(frozen=True, eq=False)
class DaskBlocks:
    """Blocks that dask has or can make."""

    parts: list[Any]

    @classmethod
    def of(cls, X: Any, y: Any, sample_weight: Any) -> DaskBlocks:
        """Blocks of collections that belong together."""
        dask = _dask()
        X_parts, lengths, _ = _parts(X)
        columns = [
            None if values is None else _parts(values, lengths)[0] for values in (y, sample_weight)
        ]
        for name, parts in zip(("y", "sample_weight"), columns, strict=True):
            if parts is not None and len(parts) != len(X_parts):
                raise ValueError(
                    f"{name} has {len(parts)} blocks, but X has {len(X_parts)}; give both the same "
                    "chunks or partitions."
                )
        y_parts, weights = columns
        assert y_parts is not None
        return cls(
            [
                dask.delayed(_block)(part, y_parts[k], None if weights is None else weights[k])
                for k, part in enumerate(X_parts)
            ]
        )

    def __len__(self) -> int:
        return len(self.parts)

    def read(self, index: int) -> Block:
        """Fetch one block."""
        block: Block = self.parts[index].compute()
        return block

    def reduced(self, function: Callable[[int, Block], T], combine: Callable[[T, T], T]) -> T:
        """Apply a function to each block where it is, and combine the results by a tree."""
        dask = _dask()
        shared = dask.delayed(_Held(function))
        level = [dask.delayed(_applied)(shared, k, part) for k, part in enumerate(self.parts)]
        while len(level) > 1:
            groups = [level[i : i + BRANCHES] for i in range(0, len(level), BRANCHES)]
            level = [dask.delayed(_combined)(combine, group) for group in groups]
        (result,) = dask.compute(level[0])
        found: T = result
        return found


@dataclass(frozen=True, eq=False)
class _Held:
    """A function as a value, which dask sends once and does not call."""

    function: Callable[..., Any]


def _applied(held: _Held, index: int, block: Block) -> Any:
    with torch_threads(1):  # the blocks are what splits the work
        return held.function(index, block)


def _combined(combine: Callable[[Any, Any], Any], results: list[Any]) -> Any:
    total = results[0]
    for result in results[1:]:
        total = combine(total, result)
    return total


def _block(X: Any, y: Any, weights: Any) -> Block:
    if len(X) != len(y):
        raise ValueError(f"A block of X has {len(X)} rows, and that of y has {len(y)}.")
    return Block(X, y, weights)


def _called(estimator: Any, method: str, options: dict[str, Any], X: Any, nothing: Any) -> Any:
    """Call a method; an empty partition gives nothing."""
    return getattr(estimator, method)(X, **options) if len(X) else nothing


def _parts(collection: Any, lengths: list[float] | None = None) -> tuple[list[Any], Any, Any]:
    """Delayed blocks of a collection, their numbers of rows, and a row or two like its own."""
    da = _dask("array")
    if isinstance(collection, da.Array):
        rows = collection.chunks[0]
        if lengths is not None and not np.isnan([*lengths, *rows]).any():
            rows = tuple(lengths)
            if sum(rows) != len(collection):
                raise ValueError(
                    f"X has {int(sum(rows))} rows, but y or sample_weight {len(collection)}."
                )
        whole = {axis: -1 for axis in range(1, collection.ndim)}
        collection = collection.rechunk({0: rows, **whole} if not np.isnan(rows).any() else whole)
        example = np.zeros((1, *collection.shape[1:]), dtype=collection.dtype)
        return list(collection.to_delayed().ravel()), list(collection.chunks[0]), example
    if hasattr(collection, "to_delayed") and hasattr(collection, "partitions"):
        parts = list(collection.to_delayed())
        return parts, [float("nan")] * len(parts), collection._meta_nonempty
    raise TypeError(
        f"A {type(collection).__name__} is no dask array or dataframe; make one by "
        "dask.array.from_array, or call the estimator's own method."
    )


def _dask(part: str | None = None) -> Any:
    """Import dask, or a part of it."""
    from importlib import import_module

    try:
        return import_module("dask" if part is None else f"dask.{part}")
    except ImportError as error:
        raise ImportError(
            "sksubnet.distributed needs dask: pip install 'sksubnet[distributed]'."
        ) from error
