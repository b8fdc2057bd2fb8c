"""Parameters whose allowed values scikit-learn's own constraints cannot say."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from sksubnet.selection import VARIANCE_SHARE

FOLD_OPTIONS = [
    Interval(Integral, 2, None, closed="left"),
    StrOptions({"auto"}),
    HasMethods(["split", "get_n_splits"]),
    "array-like",
    None,
]
"""What says how rows are dealt out to folds."""


class SizeOptions(StrOptions):
    """``"auto"``, ``"all"``, or a share of the predictive variance in words."""

    def __init__(self) -> None:
        super().__init__({"auto", "all"})

    def is_satisfied_by(self, value: Any) -> bool:
        """Whether the value is one of these."""
        is_share = isinstance(value, str) and VARIANCE_SHARE.fullmatch(value) is not None
        return is_share or bool(super().is_satisfied_by(value))

    def __str__(self) -> str:
        return "a str: 'auto', 'all', or a share of the predictive variance such as '90% variance'"
