"""Which weights are treated as random: candidates, scores, the search, reference inputs.

A `Selector` takes a `TrainedNet` and a strategy, a name in the table of scores, ``"greedy"`` or a
callable, and picks a `Subnetwork` of a size: positions in the weight vector, and what they explain.

Read first: `Selector` in `subnetwork.py`.
"""

from sksubnet.selection.reference import explained_variance
from sksubnet.selection.subnetwork import (
    RANKED,
    VARIANCE_SHARE,
    Ranking,
    Selector,
    Subnetwork,
    candidate_mask,
    effects,
    explicit_selection,
    n_wanted,
    variance_share,
)

__all__ = [
    "RANKED",
    "VARIANCE_SHARE",
    "Ranking",
    "Selector",
    "Subnetwork",
    "candidate_mask",
    "effects",
    "explained_variance",
    "explicit_selection",
    "n_wanted",
    "variance_share",
]
