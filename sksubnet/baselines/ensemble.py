"""What the ensembles share: members that differ in their random state alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import _fit_context, clone, is_regressor
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sksubnet.estimators import FORWARD_ROWS, BayesianNet, mixed_moments
from sksubnet.nets import has_module_instance, is_frozen
from sksubnet.predictive import Predictive
from sksubnet.progress import progress

OF_THE_NET = ("noise", "normalize_y", "dtype", "validation_fraction", "memory")


class DeepEnsemble(BayesianNet):
    """A mixture of estimators that differ in their random state alone."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_members": [Interval(Integral, 1, None, closed="left")],
    }

    n_members: int
    estimators_: list[Any]

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the members, each on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, given to every member.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the net is frozen or its module an instance, so that all members would start from the
            same weights, if parameters of the net are set beside an estimator as `net`, or if a
            member cannot be fitted.
        """
        self._is_fitted = False
        table = self._start_fit(X, y, sample_weight)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=self.n_members)
        member, targets = self._member(), self._targets_of_members(table.y)
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_member)(member, table.X, targets, table.weights, int(seed))
            for seed in progress(seeds, "members", self.verbose)
        )
        self._is_fitted = True
        return self

    def _member(self) -> BayesianNet:
        """Return an unfitted member."""
        given = isinstance(self.net, BayesianNet)
        net = self.net.net if given else self.net
        if is_frozen(net) or has_module_instance(net):
            what = "The net is frozen" if is_frozen(net) else "net.module is a module instance"
            raise ValueError(
                f"{what}, so that all {self.n_members} members would start from the same weights; "
                "pass an unfitted net with the module's class."
            )
        settings = {name: getattr(self, name) for name in OF_THE_NET if hasattr(self, name)}
        if not given:
            return self._default_member(self.net, settings)
        if is_regressor(self.net) != is_regressor(self):
            raise TypeError(
                f"{type(self.net).__name__} cannot be a member of {type(self).__name__}."
            )
        defaults = inspect.signature(type(self)).parameters
        changed = [
            name
            for name, value in settings.items()
            if not np.array_equal(value, defaults[name].default)
        ]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} of the ensemble would not be used, because the members are "
                f"{type(self.net).__name__}; set net__{changed[0]} instead."
            )
        return self.net

    def _inputs(self, X: Any) -> np.ndarray:
        """Validate rows; the members know no column names."""
        check_is_fitted(self)
        inputs: np.ndarray = self._check_rows(X, reset=False)
        return inputs

    def _predictives(self, X: Any) -> Iterator[Predictive]:
        inputs = self._inputs(X)
        for start in range(0, len(inputs), FORWARD_ROWS):
            batch = inputs[start : start + FORWARD_ROWS]
            yield Predictive.mix([member.predictive(batch) for member in self.estimators_])

    def _means(self, X: Any) -> Tensor:
        inputs = self._inputs(X)
        return torch.stack([member._means(inputs) for member in self.estimators_]).mean(dim=0)

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        inputs = self._inputs(X)
        return mixed_moments([member._joint_moments(inputs) for member in self.estimators_])

    def _default_member(self, net: Any, settings: dict[str, Any]) -> BayesianNet:
        """Return what a member is where no estimator is given."""
        raise NotImplementedError

    def _targets_of_members(self, y: np.ndarray) -> np.ndarray:
        """Undo what ``_start_fit`` did to the targets."""
        raise NotImplementedError


def _fit_member(
    member: BayesianNet, X: np.ndarray, y: np.ndarray, weights: np.ndarray, seed: int
) -> BayesianNet:
    fitted: BayesianNet = clone(member).set_params(random_state=seed).fit(X, y, weights)
    return fitted
