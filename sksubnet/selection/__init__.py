"""Which weights are treated as random: candidates, scores, the search, reference inputs.

`select` takes a `TrainedNet` and a strategy, a name in the table of scores, ``"greedy"`` or a
callable, and hands on a `Subnetwork`: positions in the weight vector, and what they explain.

Read first: `select` in `subnetwork.py`.
"""

from sksubnet.selection.reference import explained_variance
from sksubnet.selection.subnetwork import (
    VARIANCE_SHARE,
    Subnetwork,
    candidate_mask,
    effect,
    explicit_selection,
    n_selected,
    select,
    variance_share,
)

__all__ = [
    "VARIANCE_SHARE",
    "Subnetwork",
    "candidate_mask",
    "effect",
    "explained_variance",
    "explicit_selection",
    "n_selected",
    "select",
    "variance_share",
]
