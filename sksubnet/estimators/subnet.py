"""The steps of subnetwork inference, shared by the classifier and the regressor."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sksubnet.estimators.base import draw_seed, torch_threads
from sksubnet.estimators.linearised import LinearisedNet, Posterior
from sksubnet.estimators.options import SizeOptions
from sksubnet.jacobian import PROBE_ROWS, plan_jacobian
from sksubnet.nets import Inputs, RandomStream, Rows, TrainedNet, forget_graphs
from sksubnet.posterior import (
    EIGEN_LIMIT,
    MEMORY_BUDGET,
    AnyProjection,
    CholeskyPosterior,
    Curvature,
    DiagonalPosterior,
    GaussianPosterior,
    KernelPosterior,
    ShiftedCholesky,
    Tuned,
    batches,
    check_curvature_fits,
    cholesky_dtype,
    ggn,
    ggn_diagonal,
    ggn_factors,
    hessian_rank,
    maximise_evidence,
    plan_for,
    tune_on_held_out,
)
from sksubnet.selection import (
    candidate_mask,
    effect,
    explained_variance,
    explicit_selection,
    n_selected,
    select,
    variance_share,
)

MIN_ROWS_TO_TUNE = 20
HELD_OUT_RULES = {"validation": 0.0, "validation_half_se": 0.5, "validation_1se": 1.0}
"""How many standard errors above the lowest held-out loss the chosen one may be."""

INERT_ENERGY = 1e-3


class SubnetLaplace(LinearisedNet):
    """A net whose posterior is a Laplace approximation on a subnetwork.

    ``fit`` reads as the steps of Daxberger et al. 2021: MAP, select, curvature, posterior.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **LinearisedNet._parameter_constraints,
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
    }

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the net, choose the subnetwork, and put a Gaussian posterior on it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; they count in the loss, the curvature and the tuning, and an
            integer weight is the same as repeating the row.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data, the net or an option do not fit together; the message says which.
        """
        self._is_fitted = False
        X, y, weights = self._start_fit(X, y, sample_weight)
        self._seed = draw_seed(self.random_state)
        with torch_threads(self.n_jobs):
            y = self._start_net(X, y, weights)
            candidates, size = self._resolve_size(X)
            reference = self._reference_inputs()
            trained = self._train(
                X, y, weights, hold_out_needed=self._needs_held_out(), seed=self._seed
            )
            trained = replace(self._with_noise(trained), reference=reference)
            if not torch.equal(candidates, self._candidates()):
                # A callback froze layers when the training began.
                candidates, size = self._resolve_size(X)
            self._select(trained, candidates, size)
            curvature = self._curvature(trained)
            posterior = self._posterior(trained, curvature)
            tuned = self._tune(trained, posterior, curvature)
            self._finish(trained, posterior, curvature, tuned)
        forget_graphs(self._latent.module)
        self._is_fitted = True
        return self

    def log_marginal_likelihood(self) -> float:
        """Laplace approximation of the log evidence of the subnetwork, in nats.

        The weights outside the subnetwork count as known, so compare prior precisions with it, not
        subnetworks (Daxberger et al. 2021 tune on held-out rows instead).

        Returns
        -------
        float
            Log marginal likelihood of the rows that trained the net, at the fitted prior precision
            and noise.
        """
        check_is_fitted(self)
        return self.posterior_.log_evidence(self._log_likelihood)

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
            Mean over the reference inputs, between 0 and 1.
        """
        check_is_fitted(self)
        inputs = self._check_rows(X, reset=False)
        weights = self._check_weights(sample_weight, inputs)
        rows = self._rows(inputs, weights, weights)  # the GGN does not depend on the targets
        with torch_threads(self.n_jobs):
            latent = self._latent
            trained = TrainedNet(
                module=latent.module,
                latent=latent,
                likelihood=self._likelihood,
                n_outputs=self._n_latents,
                train=rows,
                held_out=None,
                seed=self._seed,
                reference=self._reference_inputs(),
            )
            candidates = candidate_mask(trained.module, self.candidates).nonzero().squeeze(1)
            chosen = torch.as_tensor(self.subnetwork_.indices)
            return explained_variance(trained, chosen, candidates)

    def _needs_held_out(self) -> bool:
        rule = self.prior_precision
        return rule in HELD_OUT_RULES or (rule != "evidence" and self._noise_is_tuned())

    def _candidates(self) -> Tensor:
        """Mask (P,) of the weights to select among."""
        return candidate_mask(self._latent.module, self.candidates)

    def _resolve_size(self, X: np.ndarray) -> tuple[Tensor, int]:
        """Candidate mask (P,) and number of selected weights; raise before training if too many."""
        module = self._latent.module
        candidates = self._candidates()
        share = variance_share(self.subnetwork_size, self.selection)
        chosen = explicit_selection(module, self.selection, candidates)
        if chosen is None:
            size = n_selected(self.subnetwork_size, int(candidates.sum()))
            if share is not None:
                return candidates, size  # how many, and whether they fit, the search will tell
            chosen = candidates if size == candidates.sum() else None
        else:
            size = int(chosen.sum())
        if self.covariance == "full":
            n_factors, n_kept = self._n_factors(len(X)), size
            if chosen is not None and n_factors < size:
                # Which weights is known, so that whole layers are known to be cheap.
                indices, probe = chosen.nonzero().squeeze(1), self._inputs(X[:PROBE_ROWS].copy())
                n_kept = plan_jacobian(self._latent, module, indices, probe).n_kept
            check_curvature_fits(size, n_factors, n_kept)
        return candidates, size

    def _n_factors(self, n_rows: int) -> int:
        """Rows of the GGN's factor that the data give."""
        return n_rows * hessian_rank(self._likelihood, self._n_latents)

    def _select(self, trained: TrainedNet, candidates: Tensor, size: int) -> None:
        """Step 2: the subnetwork, and a plan of its Jacobian; warn if that is almost nothing."""
        share = variance_share(self.subnetwork_size, self.selection)
        # A user's own selection may draw from the global random states.
        given = callable(self.selection)
        with RandomStream(self._seed).everywhere() if given else contextlib.nullcontext():
            subnetwork = select(trained, self.selection, size, candidates, share)
        if share is not None and self.covariance == "full":
            size = len(subnetwork)
            check_curvature_fits(size, self._n_factors(len(trained.train)), size)
        self._plan = plan_for(trained, torch.as_tensor(subnetwork.indices))
        energy, n_inert = effect(trained, self._plan, candidates)
        self.subnetwork_ = replace(subnetwork, n_inert=n_inert)
        if energy < INERT_ENERGY:
            warnings.warn(
                f"The {len(subnetwork)} selected weights have almost no effect on the "
                f"training outputs ({n_inert} have none; the squared Jacobian is {energy:.1e} "
                "times that of random weights), so the predictions are those of the trained net. "
                "Choose another selection, such as 'greedy', or a larger subnetwork_size.",
                UserWarning,
                stacklevel=4,
            )

    def _reference_inputs(self) -> Inputs | str:
        """Return the user's reference inputs, or the name of how to make them."""
        if isinstance(self.reference, str):
            return self.reference
        try:
            return self._inputs(self._check_rows(self.reference, reset=False))
        except ValueError as error:
            raise ValueError(f"reference must hold rows like those of X: {error}") from error

    def _curvature(self, trained: TrainedNet) -> Curvature:
        """Step 3: the GGN of the subnetwork over the rows that trained the net."""
        # With those held out, the posterior would be narrower than what is tuned on them.
        rows = trained.train
        options = {"batch_size": self.batch_size, "verbose": self.verbose}
        if self.covariance == "diag":
            diagonal = ggn_diagonal(trained, rows, **options)
            return diagonal.restricted(torch.as_tensor(self.subnetwork_.indices))
        n_weights = len(self.subnetwork_)
        if self._n_factors(len(rows)) < n_weights:
            return ggn_factors(trained, self._plan, rows, **options)
        dtype = torch.float64 if n_weights <= EIGEN_LIMIT else cholesky_dtype(n_weights)
        return ggn(trained, self._plan, rows, dtype=dtype, **options)

    def _posterior(self, trained: TrainedNet, curvature: Curvature) -> Posterior:
        """Factorise on the CPU: once where the weights are few, for each prior where many."""
        weights = trained.weight_vector().double().cpu()
        mean = weights[torch.as_tensor(self.subnetwork_.indices)]
        if curvature.matrix is not None and len(mean) > EIGEN_LIMIT:
            return CholeskyPosterior(mean, ShiftedCholesky(curvature.matrix.cpu()))
        if curvature.diagonal is not None:
            return DiagonalPosterior(mean, curvature.diagonal.cpu(), None, prior_precision=1.0)
        values, basis = (part.cpu() for part in curvature.eigendecomposition())
        if curvature.factors is not None:
            return KernelPosterior(mean, values, basis, 1.0, rows=curvature.factors.cpu())
        return GaussianPosterior(mean, values, basis, prior_precision=1.0)

    def _tune(self, trained: TrainedNet, posterior: Posterior, curvature: Curvature) -> Tuned:
        """Prior precision and noise scale, each given or found."""
        tune_noise = self._noise_is_tuned()
        given = None if isinstance(self.prior_precision, str) else float(self.prior_precision)
        if given is not None and not tune_noise:
            return Tuned(given)
        held_out, rule = trained.held_out, self.prior_precision
        if rule == "evidence" or held_out is None or len(held_out) < MIN_ROWS_TO_TUNE:
            return maximise_evidence(
                trained, posterior, curvature.log_likelihood, given=given, tune_noise=tune_noise
            )
        held_out = self._affordable(held_out, posterior)
        latents, projection = self._project(trained, posterior, held_out)
        tuned = tune_on_held_out(
            trained,
            latents,
            projection,
            held_out,
            link=self.link,
            given=given,
            tune_noise=tune_noise,
            n_errors=HELD_OUT_RULES.get(self.prior_precision, 0.0),
        )
        if tuned.at_edge:
            warnings.warn(tuned.edge_message(), UserWarning, stacklevel=4)
        return tuned

    def _affordable(self, rows: Rows, posterior: Posterior) -> Rows:
        """Evenly spaced rows whose projected Jacobian fits the memory budget."""
        n_numbers = self._plan.n_kept if self.covariance == "diag" else posterior.rank
        bytes_per_row = 8 * self._n_latents * (n_numbers + self._n_latents)
        most = max(MIN_ROWS_TO_TUNE, MEMORY_BUDGET // (2 * bytes_per_row))
        return rows[:: -(-len(rows) // most)]

    def _project(
        self, trained: TrainedNet, posterior: Posterior, rows: Rows
    ) -> tuple[Tensor, AnyProjection]:
        """Latents (N, C) and projected Jacobian of rows."""
        latents, projections = [], []
        for batch in batches(rows, self._rows_for_batch(posterior)):
            outputs, phi = self._rows_for(posterior, batch.X)
            latents.append(outputs)
            projections.append(posterior.project(phi))
        stack: Any = type(projections[0]).stack
        return torch.cat(latents), stack(projections)

    def _finish(
        self,
        trained: TrainedNet,
        posterior: Posterior,
        curvature: Curvature,
        tuned: Tuned,
    ) -> None:
        """Store the posterior under the tuned prior precision and noise."""
        self.tuning_ = tuned
        self.prior_precision_ = tuned.prior_precision
        self.posterior_ = posterior.tuned(tuned.prior_precision, tuned.noise_scale)
        self._log_likelihood = self._scale_noise(
            trained, curvature.log_likelihood, curvature.n_rows, tuned.noise_scale
        )
