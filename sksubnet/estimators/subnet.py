"""The steps of subnetwork inference, shared by the classifier and the regressor."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from numbers import Integral, Real
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sksubnet.estimators.base import (
    BayesianNet,
    InitialNet,
    TrainedFold,
    all_or_nothing,
    as_read,
    draw_seed,
    read,
    rows_of,
    tensor_of,
)
from sksubnet.estimators.blocks import (
    SAMPLE_ROWS,
    ArrayBlocks,
    fit_in_blocks,
    is_for_blocks,
)
from sksubnet.estimators.curved import MIN_ROWS_TO_TUNE, Curved, CurvedNet, contents, curved_parts
from sksubnet.estimators.folds import Table
from sksubnet.estimators.jobs import cores, in_jobs, work_of_batch
from sksubnet.estimators.linearised import LinearisedNet
from sksubnet.estimators.noise import mean_likelihood, with_noise_net
from sksubnet.estimators.options import FOLD_OPTIONS, SizeOptions
from sksubnet.estimators.updating import ONE_UPDATE, read_rows, updated_net
from sksubnet.jacobian import PROBE_ROWS, evaluate, plan_jacobian, threads_for
from sksubnet.nets import (
    Inputs,
    Latent,
    NoiseNet,
    RandomStream,
    TrainedNet,
    TrainingMemory,
    make_keepable,
    n_epochs_kept,
)
from sksubnet.posterior import (
    Posterior,
    Tuned,
    below_mean,
    check_curvature_fits,
    lowest,
    maximise_evidence,
    mixture_scale,
    n_factors,
    prior_limits,
    tune_on_held_out,
    within_errors,
)
from sksubnet.predictive import DEFAULT_LINK
from sksubnet.progress import task, unwatched
from sksubnet.selection import (
    RANKED,
    Ranking,
    Selector,
    Subnetwork,
    candidate_mask,
    explained_variance,
    explicit_selection,
    n_wanted,
    variance_share,
)

HELD_OUT_RULES = {
    "validation": lowest,
    "validation_1sd": below_mean,
    "validation_half_se": within_errors(0.5),
    "validation_1se": within_errors(1.0),
}

INERT_ENERGY = 1e-3


T = TypeVar("T")


class SubnetLaplace(BayesianNet):
    """Nets whose posterior is a Laplace approximation on a subnetwork.

    ``fit`` reads as the steps of Daxberger et al. 2021: MAP, select, curvature, posterior.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianNet._parameter_constraints,
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "subnetwork_size": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
            SizeOptions(),
        ],
        "selection": [str, "array-like", callable],
        "candidates": [str, "array-like"],
        "reference": [StrOptions({"mixtures", "train"}), "array-like"],
        "covariance": [StrOptions({"full", "diag"})],
        "prior_precision": [
            StrOptions({*HELD_OUT_RULES, "evidence"}),
            Interval(Real, 0, None, closed="neither"),
        ],
        "refit": ["boolean"],
        "cv": FOLD_OPTIONS,
    }

    folds_: list[LinearisedNet]
    refit: bool
    subnetwork_size: Any

    link: str = DEFAULT_LINK

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the nets, choose a subnetwork of each, and put a Gaussian posterior on it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; they count in the loss, the curvature and the tuning. With folds
            an integer weight is the same as repeating the row; a single net (``cv=None``, or a net
            of your own) holds rows out at random, and others where there are more of them.
        groups : array-like of shape (n_samples,), default=None
            Groups of rows that belong together, such as those of one patient: a fold has all rows
            of a group or none. Passed on by meta-estimators with metadata routing.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data, the net or an option do not fit together; the message says which.

        Notes
        -----
        An array of more than 2²⁵ numbers, such as a :class:`numpy.memmap` that is larger than the
        memory, is read in blocks where there is one net: its curvature is the sum over all, and
        the selection and the tuning look at a sample of rows, as in :mod:`sksubnet.distributed`.
        """
        if is_for_blocks(self, X, groups):
            fitted = fit_in_blocks(self, ArrayBlocks.of(X, y, sample_weight), SAMPLE_ROWS)
            self.__dict__.update(fitted._all_but_parameters())
            return self
        table = self._start_fit(X, y, sample_weight, groups)
        seed, needed = draw_seed(self.random_state), self._needs_held_out()
        with torch.inference_mode(False):  # in which nothing can be trained
            nets = list(self._trained_nets(table, seed, needed=needed, check=self._check_start))
            infer_alike([self], self._with_noise(nets), table, seed)
        return self

    def _n_tasks(self) -> int:
        return n_tasks([self])

    def update(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows to the posterior of each net, without training.

        What ``fit`` has found stays: the trained weights, the subnetworks, the prior, the noise and
        how inputs and targets are scaled. Around the trained weights the net is linear, so that the
        posterior of ``fit`` is a prior for a generalised linear model of the new rows: their
        precision adds to its own, and the mean of the subnetwork moves. For Gaussian noise that is
        exact, and for a linear net the posterior of all rows; for other likelihoods it is Laplace's
        approximation at the mode. Several updates give what one with all of their rows gives, in
        any order.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows, one or more, with the columns of ``fit``. Every net takes in all of them. Rows
            that ``fit`` has seen would count twice.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their labels, among ``classes_``, or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. Those of ``class_weight`` and of the criterion are multiplied in
            as they were in ``fit``.

        Returns
        -------
        self : object
            The estimator. Predictions that other threads have begun end with the nets they began
            with.

        Raises
        ------
        ValueError
            If rows do not fit what ``fit`` has seen, or with ``covariance="diag"``.

        Notes
        -----
        A prediction takes the Jacobian from then on, because the mean is no longer the net's own.
        Without Gaussian noise the added rows are kept, and every update goes through all of them.
        ``out_of_fold_``, ``tuning_``, ``prior_precision_`` and ``predict_proba_map`` stay those of
        ``fit``; ``log_marginal_likelihood`` is of all rows, by the chain rule. Where there are many
        new rows, or ones unlike the old, the net itself is out of date: ``fit`` again.

        There is no ``partial_fit``: by its convention the first call would train the net, and fix
        the features that it has learned, on whatever the first batch happens to hold.

        Examples
        --------
        >>> from sklearn.datasets import load_diabetes
        >>> from sksubnet import SubnetLaplaceRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> reg = SubnetLaplaceRegressor(cv=None, random_state=0).fit(X[:200], y[:200])
        >>> before = reg.predictive(X[400:]).std("epistemic")
        >>> after = reg.update(X[200:400], y[200:400]).predictive(X[400:]).std("epistemic")
        >>> bool((after < before).all())
        True
        """
        check_is_fitted(self)
        with ONE_UPDATE.lock:
            table = self._new_rows(X, y, sample_weight)
            table = replace(table, X=self._as_inputs(table.X))
            work = max(net.work(len(table), table.X.shape[1:]) for net in self.folds_)
            with cores(self.n_jobs), threads_for(work), torch.inference_mode(False):
                nets = [
                    updated_net(net, read_rows(net, table), self._log_units) for net in self.folds_
                ]
            # All at once: no prediction sees some nets with the rows and some without.
            self.folds_ = nets
        return self

    def _all_but_parameters(self) -> dict[str, Any]:
        """Give what a fit has left."""
        names = self._get_param_names()
        return {name: value for name, value in vars(self).items() if name not in names}

    def _infer(self, nets: Sequence[CurvedNet], table: Table, seed: int) -> None:
        """Step 4 for the subnetworks of one size: tune, and keep the nets."""
        tuned = self._tune(nets, table, seed)
        self.folds_ = [self._finished(net, *tuned.of_net(k)) for k, net in enumerate(nets)]
        self._keep_out_of_fold(self.folds_, table)
        self._seed, self.tuning_, self.prior_precision_ = seed, tuned, tuned.prior_precision

    def _refitted(
        self,
        nets: Sequence[LinearisedNet],
        tuned: Tuned,
        trained_on_all: Callable[[int], TrainedFold],
    ) -> LinearisedNet:
        """Return one net of all rows, with the epochs, prior and noise of those of the folds."""
        fold = trained_on_all(int(np.median([n_epochs_kept(net.net) for net in nets])))
        trained = replace(fold.trained, likelihood=mean_likelihood([n.likelihood for n in nets]))
        noise = [net.noise for net in nets if net.noise is not None]
        if noise:
            trained = with_noise_net(trained, NoiseNet.mean(noise))
        sizes = [self.subnetwork_size]
        ((curved,),) = self._curved([fold.with_net(trained)], sizes, tunes=False)
        # One net has no others to differ from.
        return self._finished(curved, tuned.prior_precision, 1 / tuned.mixture_scale)

    def _curved(
        self, nets: Sequence[TrainedFold], sizes: Sequence[Any], *, tunes: bool
    ) -> list[list[CurvedNet]]:
        """Take steps 2 and 3 for each net and size, in jobs that do not wait for each other."""
        folds = [
            net.with_net(
                replace(
                    net.trained,
                    reference=self._reference_inputs(net.initial.net, net.trained.latent),
                    novel=self._novel(net.trained.latent),
                )
            )
            for net in nets
        ]
        # What jobs need to know of the options, without the net that came in and its rows.
        options = {**self.get_params(deep=False), "net": None, "memory": None}
        apart = type(self)(**{**options, "reference": "mixtures"})
        rankings = self._rankings([(apart, fold.trained) for fold in folds], sizes, nets[0].memory)
        calls = [
            (apart, fold.trained, sizes, tunes, ranking)
            for fold, ranking in zip(folds, rankings, strict=True)
        ]
        with task("posterior", len(calls)):
            parts = in_jobs(type(self)._curvatures_of, calls, self.n_jobs, name="net", n_subtasks=2)
        curved = [
            [CurvedNet(fold=fold, **vars(part)) for part in of_net]
            for fold, of_net in zip(folds, parts, strict=True)
        ]
        for net in chain.from_iterable(curved):
            self._warn_if_inert(net)
        return curved

    def _rankings(
        self,
        calls: Sequence[tuple[SubnetLaplace, TrainedNet]],
        sizes: Sequence[Any],
        memory: TrainingMemory | None,
    ) -> Sequence[Ranking | None]:
        """Recall the order of the weights of each net, or find it for the memory."""
        selector = self._selector(calls[0][1])
        if memory is None or not any(map(selector.searches_once, sizes)):
            return [None] * len(calls)

        def rank() -> list[Ranking]:
            with unwatched():
                return in_jobs(type(self)._ranking_of, calls, self.n_jobs, name="net")

        content = [contents(trained) for _, trained in calls]
        return memory.recall_or(rank, selector.candidates, content)

    def _ranking_of(self, trained: TrainedNet) -> Ranking:
        """Rank the weights of a net."""
        with threads_for(work_of_batch(trained)):
            return self._selector(trained).ranked(RANKED)

    def _selector(self, trained: TrainedNet, ranking: Ranking | None = None) -> Selector:
        """Return what picks the subnetworks of a net."""
        candidates = candidate_mask(trained.module, self.candidates)
        return Selector(trained, self.selection, candidates, ranking)

    def _curvatures_of(
        self, trained: TrainedNet, sizes: Sequence[Any], tunes: bool, ranking: Ranking | None
    ) -> list[Curved]:
        """Choose the subnetworks of a net, and find their curvature over the training rows."""
        with task("select"), threads_for(work_of_batch(trained)):
            subnetworks = self._select(trained, sizes, ranking)
        work = work_of_batch(trained, max(map(len, subnetworks)))
        with task("curvature"), threads_for(work):
            return curved_parts(
                trained,
                subnetworks,
                candidate_mask(trained.module, self.candidates),
                covariance=self.covariance,
                batch_size=self.batch_size,
                tunes=tunes,
            )

    def _tunes_by_rows(self, nets: Sequence[TrainedFold]) -> bool:
        """Whether rows that the nets have not seen tell the prior precision or the noise."""
        n_unseen = sum(len(net.trained.held_out or ()) for net in nets)
        return self._needs_held_out() and n_unseen >= MIN_ROWS_TO_TUNE

    def _tune(self, nets: Sequence[CurvedNet], table: Table, seed: int) -> Tuned:
        """Step 4: one prior precision and the noise of each net, given or found by unseen rows."""
        tune_noise, rule = self._noise_is_tuned(), self.prior_precision
        given = None if isinstance(rule, str) else float(rule)
        if given is not None and not tune_noise:
            return Tuned(given, noise_scales=(1.0,) * len(nets), given=True)
        parts = [net.unseen for net in nets if net.unseen is not None]
        if not parts:
            return self._evidence(nets, given, tune_noise)
        tuned = tune_on_held_out(
            parts,
            link=self.link,
            seed=seed,
            given=given,
            tune_noise=tune_noise,
            costly=any(net.posterior.costly for net in nets),
            limits=prior_limits(parts, torch.as_tensor(self._target_units())),
            rule=HELD_OUT_RULES.get(rule),
        )
        if not tune_noise or len(nets) == 1:
            return tuned
        inputs = read(table.X, nets[0].fold.initial.net, nets[0].trained.latent)
        with torch.inference_mode():
            latents = [evaluate(net.trained.latent, inputs).double().cpu() for net in nets]
        weights = torch.as_tensor(table.weights)
        scale = mixture_scale(torch.stack(latents), weights, parts, tuned)
        return replace(tuned, mixture_scale=scale)

    def _finished(self, net: CurvedNet, prior_precision: float, scale: float) -> LinearisedNet:
        """Return the net under the tuned prior precision and noise."""
        trained = net.trained
        likelihood, log_likelihood = self._tuned_noise(trained, net.curvature, scale)
        make_keepable(trained.module)
        return LinearisedNet(
            net=net.fold.initial.net,
            latent=trained.latent,
            likelihood=likelihood,
            n_outputs=trained.n_outputs,
            seed=trained.seed,
            held_out=net.fold.held_out,
            noise=trained.noise and trained.noise.scaled(scale),
            subnetwork=net.subnetwork,
            plan=net.plan,
            posterior=net.posterior.tuned(prior_precision, scale),
            log_likelihood=log_likelihood,
            link=self.link,
        )

    @property
    def subnetwork_(self) -> Subnetwork:
        """The selected weights, where there is one net."""
        subnetwork: Subnetwork = self._only("subnetwork")
        return subnetwork

    @property
    def posterior_(self) -> Posterior:
        """The posterior over them, where there is one net."""
        posterior: Posterior = self._only("posterior")
        return posterior

    def log_marginal_likelihood(self) -> float:
        """Laplace approximation of the log evidence of the subnetwork, in nats.

        The weights outside the subnetwork count as known, so compare prior precisions with it, not
        subnetworks (Daxberger et al. 2021 tune on held-out rows instead).

        Returns
        -------
        float
            Log marginal likelihood of the rows that trained the net, at the fitted prior precision
            and noise; the mean over the folds where there are several nets.
        """
        check_is_fitted(self)
        return float(
            np.mean([net.posterior.log_evidence(net.log_likelihood) for net in self.folds_])
        )

    def explained_variance(self, X: Any, sample_weight: Any = None) -> float:
        """Share of the predictive variance that the subnetwork keeps, of all candidates.

        At the reference inputs, as in the search of ``selection="greedy"``, whatever the selection
        was. It takes about as long as training a small net, and the training rows once more.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Their weights.

        Returns
        -------
        float
            Mean over the reference inputs and the nets, between 0 and 1.
        """
        check_is_fitted(self)
        inputs = self._inputs(X)
        weights = self._check_weights(sample_weight, inputs)
        # the GGN does not depend on the targets
        table = Table.of(inputs, weights, weights)
        with cores(self.n_jobs), torch.inference_mode(False):
            return float(np.mean([self._explained(net, table) for net in self.folds_]))

    def _explained(self, net: LinearisedNet, table: Table) -> float:
        """Share of the candidates' predictive variance that the subnetwork of one net keeps."""
        latent = net.latent
        trained = TrainedNet(
            module=latent.module,
            latent=latent,
            likelihood=net.likelihood,
            n_outputs=net.n_outputs,
            train=as_read(rows_of(latent, table), net.net),
            held_out=None,
            seed=net.seed,
            reference=self._reference_inputs(net.net, latent),
            novel=self._novel(latent),
        )
        candidates = candidate_mask(trained.module, self.candidates).nonzero().squeeze(1)
        return explained_variance(trained, torch.as_tensor(net.subnetwork.indices), candidates)

    def _needs_held_out(self) -> bool:
        rule = self.prior_precision
        return rule in HELD_OUT_RULES or (rule != "evidence" and self._noise_is_tuned())

    def _check_start(self, initial: InitialNet, table: Table) -> None:
        """Raise before training if the subnetwork or the reference inputs do not fit the net."""
        self._check_size(initial, table)
        self._reference_inputs(initial.net, initial.latent)

    def _check_size(self, initial: InitialNet, table: Table) -> None:
        """Raise before training if a full covariance over so many weights does not fit."""
        net, latent = initial.net, initial.latent
        candidates = candidate_mask(latent.module, self.candidates)
        named = explicit_selection(latent.module, self.selection, candidates)
        chosen, size = named, n_wanted(self.subnetwork_size, self.selection, candidates, named)
        if self.covariance != "full" or size is None:
            return  # how many, and whether they fit, the search will tell
        n_rows, n_kept = n_factors(initial.likelihood, initial.n_outputs, len(table)), size
        if chosen is None and size == candidates.sum():
            chosen = candidates
        if chosen is not None and n_rows < size:
            # Which weights is known, so that whole layers are known to be cheap.
            probe = read(table.X[:PROBE_ROWS], net, latent)
            n_kept = plan_jacobian(latent, chosen.nonzero().squeeze(1), probe).n_kept
        check_curvature_fits(size, n_rows, n_kept)

    def _select(
        self, trained: TrainedNet, sizes: Sequence[Any], ranking: Ranking | None
    ) -> list[Subnetwork]:
        """Step 2: the subnetwork of each size, by a ranking where there is one."""
        selector = self._selector(trained, ranking)
        # A user's own selection may draw from the global random states.
        given = callable(self.selection)
        with RandomStream(trained.seed).everywhere() if given else contextlib.nullcontext():
            subnetworks = selector.pick_each(sizes)
        if self.covariance == "full":
            n_rows = n_factors(trained.likelihood, trained.n_outputs, len(trained.train))
            for size, found in zip(sizes, subnetworks, strict=True):
                if variance_share(size, self.selection) is not None:
                    check_curvature_fits(len(found), n_rows, len(found))
        return subnetworks

    def _warn_if_inert(self, net: CurvedNet) -> None:
        """Warn of a subnetwork that does almost nothing."""
        if net.energy < INERT_ENERGY:
            warnings.warn(
                f"The {len(net.subnetwork)} selected weights have almost no effect on the "
                f"training outputs ({net.subnetwork.n_inert} have none; the squared Jacobian is "
                f"{net.energy:.1e} times that of random weights), so the predictions are those of "
                "the trained net. Choose another selection, such as 'greedy', or a larger "
                "subnetwork_size.",
                UserWarning,
                stacklevel=8,
            )

    def _reference_inputs(self, net: Any, latent: Latent) -> Inputs | str:
        """Return the user's reference inputs, or the name of how to make them."""
        if isinstance(self.reference, str):
            return self.reference
        try:
            return read(self._inputs(self.reference), net, latent)
        except ValueError as error:
            raise ValueError(f"reference must hold rows like those of X: {error}") from error

    def _novel(self, latent: Latent) -> Tensor | None:
        """Return what a cell of a new kind adds to reference inputs (F,) of the default net."""
        novel = None if self._tabular is None else self._encoding.novel
        return None if novel is None else tensor_of(novel, latent)

    def _evidence(self, nets: Sequence[CurvedNet], given: float | None, tune_noise: bool) -> Tuned:
        """Prior precision and noise by the marginal likelihood of each net: their means."""
        found = [
            maximise_evidence(
                net.trained,
                net.posterior,
                net.curvature.log_likelihood,
                given=given,
                tune_noise=tune_noise,
            )
            for net in nets
        ]
        if len(found) == 1:
            return found[0]
        scales = tuple(tuned.noise_scale for tuned in found)
        precision = float(np.exp(np.mean([np.log(tuned.prior_precision) for tuned in found])))
        return replace(
            found[0],
            prior_precision=precision,
            noise_scale=float(np.mean(scales)),
            noise_scales=scales,
        )


def fit_alike(
    fits: Sequence[SubnetLaplace], X: Any, y: Any, sample_weight: Any, groups: Any
) -> None:
    """Fit estimators that differ in selection, size and prior precision, by nets trained once."""
    first = fits[0]
    table = first._start_fit(X, y, sample_weight, groups)
    seed = draw_seed(first.random_state)
    for fit in fits:
        fit.__dict__.update(first._all_but_parameters())
    splits_anyhow = first._tabular or first._folds(table, table.y.ndim == 1, seed)

    def check(initial: InitialNet, table: Table) -> None:
        for fit in fits:
            fit._check_start(initial, table)

    with torch.inference_mode(False):
        for same in _grouped(fits, lambda fit: bool(splits_anyhow) or fit._needs_held_out()):
            one, needed = same[0], same[0]._needs_held_out()
            nets = list(one._trained_nets(table, seed, needed=needed, check=check))
            infer_alike(same, one._with_noise(nets), table, seed)


def infer_alike(
    fits: Sequence[SubnetLaplace], nets: Sequence[TrainedFold], table: Table, seed: int
) -> None:
    """Take steps 2 to 4 for estimators of the same nets, which the first of them has trained."""
    first = fits[0]
    for fit in fits:
        fit.__dict__.update(first._all_but_parameters())
    trained_on_all = functools.cache(partial(first._trained_on_all, table, seed))
    for same in _grouped(fits, _selection_of):
        _infer_each(same, nets, table, seed, trained_on_all)


def _infer_each(
    fits: Sequence[SubnetLaplace],
    nets: Sequence[TrainedFold],
    table: Table,
    seed: int,
    trained_on_all: Callable[[int], TrainedFold],
) -> None:
    """Take steps 2 to 4 for estimators of one selection: each size has one curvature."""
    tunes = [fit._tunes_by_rows(nets) for fit in fits]
    of_size = _grouped(zip(fits, tunes, strict=True), lambda pair: _size_of(pair[0]))
    sizes = [pairs[0][0].subnetwork_size for pairs in of_size]
    curved = fits[0]._curved(nets, sizes, tunes=any(tunes))
    for pairs, parts in zip(of_size, zip(*curved, strict=True), strict=True):
        for fit, by_rows in pairs:
            own = parts if by_rows else [replace(part, unseen=None) for part in parts]
            work = threads_for(max(part.work for part in own))
            with task("tune"), cores(fit.n_jobs), work:
                fit._infer(own, table, seed)
            if fit.refit and len(nets) > 1:
                with task("refit", 2):
                    fit.folds_ = [fit._refitted(fit.folds_, fit.tuning_, trained_on_all)]


def n_tasks(fits: Sequence[SubnetLaplace]) -> int:
    """Most tasks of a fit of estimators that share their training."""
    first, n_selections = fits[0], len(_grouped(fits, _selection_of))
    return 1 + first._may_have_noise_net() + n_selections + len(fits) * (1 + first.refit)


def _grouped(items: Iterable[T], key: Callable[[T], Any]) -> list[list[T]]:
    """Group what has equal keys, in the order of the first ones."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _selection_of(fit: SubnetLaplace) -> Any:
    """Tell selections apart, of which arrays cannot be compared."""
    selection = fit.get_params(deep=False)["selection"]
    return selection if isinstance(selection, str) else id(selection)


def _size_of(fit: SubnetLaplace) -> Any:
    """Tell sizes apart: 1 is one weight, and 1.0 all of them."""
    return type(fit.subnetwork_size), fit.subnetwork_size
