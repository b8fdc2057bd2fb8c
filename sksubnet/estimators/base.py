"""What all estimators share: validation, training, and batches of predictions."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags, check_array, check_random_state, check_X_y
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    check_memory,
    validate_data,
)
from torch import Tensor

from sksubnet.documentation import Documented
from sksubnet.estimators.columns import Columns, is_frame
from sksubnet.estimators.exporting import export_onnx
from sksubnet.estimators.fitted import FORWARD_ROWS, FittedNet, mixed_moments
from sksubnet.estimators.folds import Fold, Table, folds_of, merges_rows, parts_of
from sksubnet.estimators.jobs import cores, in_jobs
from sksubnet.estimators.packing import check_versions, for_pickles, of_pickles, versions
from sksubnet.estimators.saving import save
from sksubnet.estimators.table_errors import check_range, hints
from sksubnet.estimators.table_kinds import plain, plain_targets
from sksubnet.jacobian import threads_for
from sksubnet.nets import (
    Encoding,
    Inputs,
    KeptNet,
    Latent,
    Packed,
    RandomStream,
    Rows,
    Schedule,
    TabularNet,
    TrainedNet,
    Training,
    TrainingMemory,
    check_convergence,
    check_frozen,
    check_net,
    check_reading,
    count_rows,
    draws_nothing,
    fingerprint,
    fit_net,
    has_module_instance,
    hold_out,
    inputs_of,
    is_frozen,
    keepable_copy,
    latent_of,
    learning_rates,
    load,
    make_keepable,
    n_outputs_of,
    prepare,
)
from sksubnet.posterior import check_joint_covariance_fits
from sksubnet.predictive import (
    AnyPredictive,
    Likelihood,
    Predictive,
    criterion_row_weights,
    likelihood_of,
    pick_components,
)
from sksubnet.progress import OF_CALLBACKS, CallbackSupportMixin, fitting, task

LARGE_TABLE = 2**25
"""Numbers of an array above which it is read in parts, for it may not fit the memory."""

PART_NUMBERS = 2**22
"""Numbers of such a part of an array that is predicted."""

CHECKED_ROWS = 8
"""Rows whose predictions by a user's net are compared with ours before it is trained."""

EMPTY = for_pickles({})

Fit = TypeVar("Fit", bound=Callable[..., Any])


def all_or_nothing(fit: Fit) -> Fit:
    """Have a ``fit`` fill a twin of the estimator, which this one becomes where it ends well.

    Whatever stops it, Ctrl-C too, leaves the estimator with all of its former fit or with none.
    """
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def fit_twin(self: BayesianNet, *args: Any, **kwargs: Any) -> BayesianNet:
        rows = signature.bind(self, *args, **kwargs).arguments
        facts = rows.get("X"), rows.get("y"), rows.get("sample_weight")
        with fitting(self, *facts, self._n_tasks(), shown=self.verbose == 1):
            twin = object.__new__(type(self))
            of_callbacks = {k: v for k, v in vars(self).items() if k in OF_CALLBACKS}
            twin.__dict__.update({k: v for k, v in vars(self).items() if k not in of_callbacks})
            fit(twin, *args, **kwargs)
            twin._is_fitted = True
            # One assignment: nothing can come in between, and other threads see no half of it.
            self.__dict__ = {**vars(twin), **of_callbacks}
        return self

    return cast(Fit, fit_twin)


@dataclass(frozen=True, eq=False)
class InitialNet:
    """A copy of the user's net, or the default one, before training.

    ``stream`` goes on where its initial weights were drawn.
    """

    net: Any
    latent: Latent
    likelihood: Likelihood
    n_outputs: int
    stream: RandomStream

    def __getstate__(self) -> dict[str, Any]:
        make_keepable(self.latent.module)
        return {**vars(self), "net": Packed(self.net)}


@dataclass(frozen=True, eq=False)
class InitialFold:
    """A net before training, the fold that it is for, and the seed of what is random in it."""

    initial: InitialNet
    fold: Fold
    seed: int

    def rows_of(self, table: Table) -> tuple[Rows, Rows | None]:
        """Rows of the table to train on, and those held out where there are any."""
        rows = rows_of(self.initial.latent, table)
        held_out = rows[self.fold.held_out] if len(self.fold.held_out) else None
        return rows[self.fold.train], held_out

    def with_rows(
        self, table: Table, latent: Latent, stream: RandomStream | None = None
    ) -> TrainedNet:
        """Give the net at its present weights, and the rows of the table as it reads them."""
        net, (train, held_out) = self.initial.net, self.rows_of(table)
        train, held_out = as_read(train, net), held_out and as_read(held_out, net)
        return TrainedNet(
            module=latent.module,
            latent=latent,
            likelihood=self.initial.likelihood,
            n_outputs=self.initial.n_outputs,
            train=criterion_weighted(train, net.criterion_),
            held_out=held_out and criterion_weighted(held_out, net.criterion_),
            seed=self.seed,
            stream=stream,
            draws_nothing=draws_nothing(net),
        )


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """A net that was trained on the rows of a fold, what it was before, and where it is kept."""

    initial: InitialNet
    trained: TrainedNet
    held_out: np.ndarray
    memory: TrainingMemory | None = None

    def with_net(self, trained: TrainedNet) -> TrainedFold:
        """Replace what was trained."""
        return replace(self, trained=trained)


class BayesianNet(Documented, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Base of all estimators: skorch nets, trained to their MAP estimate, with a ``Predictive``.

    Subclasses give ``fit``, which keeps a list of ``FittedNet``, one for each fold.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "net": "no_validation",
        "dtype": [StrOptions({"float32", "float64"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "memory": [str, HasMethods(["cache"]), None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    cv: Any = None
    """Folds of the rows; one net for estimators without the parameter."""

    _is_fitted = False
    _columns: Columns
    _encoding: Encoding

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted

    def __getstate__(self) -> dict[str, Any]:
        """Return the parameters, the versions of the libraries, and the fit as plain trees."""
        state: dict[str, Any] = super().__getstate__()
        names = self._get_param_names()
        fit = {k: value for k, value in state.items() if k not in (*names, *OF_CALLBACKS)}
        kept = (*names, "_skl_callbacks")
        params = {name: value for name, value in state.items() if name in kept}
        if is_frozen(self.net):
            params["net"] = FrozenEstimator(KeptNet(keepable_copy(self.net.estimator)))
        return {**params, "_versions": versions(), "_fit": for_pickles(fit)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_versions(type(self).__name__, state.get("_versions"))
        params = {k: value for k, value in state.items() if k not in ("_versions", "_fit")}
        if is_frozen(params["net"]) and isinstance(params["net"].estimator, KeptNet):
            params["net"] = FrozenEstimator(params["net"].estimator.restored())
        super().__setstate__({**params, **of_pickles(state.get("_fit", EMPTY))})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file that holds no code.

        :func:`sksubnet.load` reads it. With the same libraries on the same processor it predicts
        the same to the last bit; elsewhere sums may be rounded in another order, and predictions of
        some random rows that are further off than that are refused. A net of the user's is written
        as its weights and the names of its classes, and given to ``load`` again.

        Parameters
        ----------
        path : str or path-like
            The file, in the format of safetensors. It is replaced whole or not at all, and keeps
            its permissions.

        Raises
        ------
        ImportError
            If safetensors is missing; the extra is ``sksubnet[save]``.
        OSError
            If the file cannot be written, such as where its folder does not exist, or where it is
            read-only.
        TypeError
            If a parameter or a part of the fit is of a type that such a file cannot hold, such as
            a function as `selection`.
        ValueError
            If a parameter was set to what is not allowed after the fit, or the file could not be
            loaded again; nothing is written.

        Warns
        -----
        UserWarning
            If the posterior keeps what training rows can be computed from; see
            `held_training_data_`.

        Notes
        -----
        pickle and joblib keep any fit whose functions and classes can be imported; cloudpickle
        keeps lambdas, too, and what a script or a notebook defines. All three run code when they
        load. With ``net=None``, skops and MLflow's default format hold plain parts and ask for
        trust in the class of the estimator alone (``trusted``, ``skops_trusted_types``), and
        besides in :class:`~sksubnet.TabularNet` and the classes of members where there are such.
        """
        save(self, path)

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the net as an ONNX graph, with its posterior where that is in closed form.

        The graph takes rows ``X`` of numbers in float64, as ``predict`` does; the default net's
        standardisation, missing values and bins are in it. Its outputs are

        - of regressors with Gaussian noise ``mean`` and ``aleatoric_std``, that of the noise of
          each row, and with the posterior ``epistemic_std`` and ``std``, both parts together, which
          is that of ``predict``; all in the units of the target;
        - of classifiers ``logits`` and ``probabilities``, and with the posterior ``variance``;
          ``probabilities`` are then those of ``predict_proba`` (left out with ``link="mc"``), else
          those of ``predict_proba_map``;
        - of other likelihoods the ``outputs`` of the net.

        The posterior is in it where all selected weights are of the last linear layer, as with
        ``selection="last_layer"``, and its covariance is kept as such, not by training rows. What
        the outputs are, and whether the posterior is among them, stands in the metadata of the file
        (``sksubnet.outputs``, ``sksubnet.posterior``, ``sksubnet.classes``).

        Parameters
        ----------
        path : str or path-like
            The file.

        Raises
        ------
        ImportError
            If onnx or onnxscript is missing; the extra ``sksubnet[onnx]`` brings them, and
            onnxruntime, which runs the graph.
        OSError
            If the file cannot be written, such as where its folder does not exist.
        ValueError
            If there are several nets, categories as columns, a `target_transform`, a net with code
            of its own for its rows or outputs, or an update of weights that are not of the last
            layer.

        Notes
        -----
        Before it is written, the graph is compared with the predictions of the estimator. Unlike
        ``predict`` it does not check its rows. Some runtimes have no float64 for some functions;
        fit with ``dtype="float32"`` for them.
        """
        export_onnx(self, path)

    @property
    def held_training_data_(self) -> str:
        """What this holds of single training rows, and so do its pickles and files, in words."""
        check_is_fitted(self)
        n_rows = max(net.n_rows_held for net in self._fitted_nets())
        held = []
        if n_rows:
            held.append(
                f"the Jacobians of {n_rows} training rows (posterior.training_rows), from which "
                "the rows can be computed"
            )
        n_added = max(len(getattr(net, "added", None) or ()) for net in self._fitted_nets())
        if n_added:
            held.append(f"the {n_added} rows of updates (added of each net)")
        if "out_of_fold_" in vars(self):
            held.append("the predictions of the training rows (out_of_fold_)")
        return " and ".join(held) or "sums over the training rows only"

    def _fitted_nets(self) -> list[FittedNet]:
        """All nets that were trained."""
        nets: list[FittedNet] = self.folds_
        return nets

    def set_params(self, **params: Any) -> Self:
        """Set parameters; those of the default net (``net__lr``) are of a ``TabularNet``.

        Parameters
        ----------
        **params : dict
            Parameters by name, those of the net as ``net__<name>``.

        Returns
        -------
        self : object
            The estimator.
        """
        if params.get("net", self.net) is None and any(name.startswith("net__") for name in params):
            params = {**params, "net": TabularNet()}
        estimator: Self = super().set_params(**params)
        return estimator

    @property
    def _tabular(self) -> TabularNet | None:
        """What makes the default net; ``None`` with a net of the user's."""
        if self.net is None:
            return TabularNet()
        return self.net if isinstance(self.net, TabularNet) else None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        reads_tables = self._tabular is not None
        tags.input_tags.allow_nan = tags.input_tags.categorical = reads_tables
        return tags

    @property
    def net_(self) -> Any:
        """The trained net, where there is one."""
        return self._only("net")

    @functools.cached_property
    def out_of_fold_(self) -> AnyPredictive:
        """What the nets say of the training rows that they have not seen, where fit has kept it."""
        if not self._is_fitted:
            raise AttributeError(f"{type(self).__name__} has no 'out_of_fold_' before fit.")
        raise AttributeError(
            "This fit has no 'out_of_fold_', which is there where each row is held out by one of "
            "several nets: fit with folds, such as cv=5, or use cross_val_predictive."
        )

    def _only(self, name: str) -> Any:
        """Value of the single net of a fit; where there are more, there is no such attribute."""
        folds: list[FittedNet] = self.__dict__.get("folds_", [])
        if len(folds) == 1:
            return getattr(folds[0], name)
        if not folds:
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}_' before fit.")
        raise AttributeError(
            f"This fit has {len(folds)} nets, one for each fold, so it has no '{name}_': use "
            f"folds_[0].{name}, ..., or fit with cv=None or refit=True for a single net."
        )

    def _check_rows(self, X: Any, y: Any = "no_validation", *, reset: bool, **checks: Any) -> Any:
        """Validate: float64 ``X`` (and ``y``), with a hint on what to do where that fails.

        For the default net, missing numbers are NaN, and categories are codes.
        """
        if reset:
            checks["ensure_min_samples"] = 2
        X = plain(X, "X")
        if not isinstance(y, str):
            y = plain_targets(y)
        tabular = self._tabular
        with hints("X or y" if checks.get("y_numeric") else "X"):
            if tabular is None:
                checked = validate_data(
                    self, X, y, reset=reset, dtype=np.float64, allow_nd=True, **checks
                )
                if reset:
                    self._row_shape = checked[0].shape[1:]
                return checked
            checks |= {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
            if not is_frame(X):
                if not reset:
                    self._columns.check_form(X)
                checked = validate_data(self, X, y, reset=reset, **checks)
                rows, targets = (checked, y) if isinstance(y, str) else checked
            else:
                validate_data(self, X, y, reset=reset, skip_check_array=True)
                rows, targets = X, y
                if not isinstance(y, str):
                    targets = check_X_y(np.zeros((X.shape[0], 1)), y, **checks)[1]
            if reset:
                self._columns = Columns.of(rows, tabular.categorical_features)
            read = self._columns.read(rows)
            if is_frame(X):
                read = check_array(read, ensure_all_finite="allow-nan")
        if reset:
            self._row_shape = read.shape[1:]
        return read if isinstance(y, str) else (read, targets)

    def _inputs(self, X: Any) -> np.ndarray:
        """Validate rows, and give them as inputs (N, ...) of the nets."""
        return self._as_inputs(self._check_rows(X, reset=False))

    def _as_inputs(self, rows: np.ndarray) -> np.ndarray:
        """Give validated rows as inputs (N, ...) of the nets."""
        if self._tabular is None:
            return rows
        unfilled = self._encoding.unfilled(rows)
        if len(unfilled):
            names = ", ".join(repr(self._columns.names[j]) for j in unfilled[:5])
            raise ValueError(
                f"X has missing values (NaN) in column {names}, and fit had none in any column, so "
                "that nothing is known of such rows. Fill them first, for example with "
                "SimpleImputer, or fit with rows that have some missing."
            )
        return self._encoding(rows)

    def _check_weights(self, sample_weight: Any, X: np.ndarray) -> np.ndarray:
        """Non-negative weights (N,), ones if ``None``."""
        given = plain(sample_weight, "sample_weight")
        with hints("sample_weight"):
            weights: np.ndarray = _check_sample_weight(
                given, X, dtype=np.float64, ensure_non_negative=True
            )
        if not weights.any():
            raise ValueError("sample_weight is zero for every row; at least 2 rows need a weight.")
        return weights

    def _table(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray, groups: Any) -> Table:
        """Rows of positive weight; equal ones are one where that is what folds are made of."""
        if groups is not None:
            check_consistent_length(X, groups)
        table = Table.of(X, y, weights, groups, parts_of(self.cv, X, y, groups))
        merges = merges_rows(self.cv, len(table), self._tabular is not None)
        return self._encoded(table.merged() if merges else table)

    def _encoded(self, table: Table) -> Table:
        """Give rows as the inputs of the default net."""
        if self._tabular is None:
            return table
        self._encoding = Encoding.of(table.X, table.weights, self._columns.n_codes)
        return replace(table, X=self._encoding(table.X))

    def _folds(self, table: Table, classify: bool, seed: int) -> list[Fold] | None:
        """Folds of the rows, ``None`` for one net that holds rows out by itself."""
        if is_frozen(self.net):
            if self.cv not in (None, "auto"):
                raise ValueError(
                    f"cv={self.cv!r} would train a net for each fold, but the net in "
                    "FrozenEstimator is trained already; use cv=None."
                )
            return None
        default_net = self._tabular is not None
        return folds_of(table, self.cv, default_net=default_net, classify=classify, seed=seed)

    def _may_have_noise_net(self) -> bool:
        """Whether nets for the noise of each row may be trained."""
        noise = getattr(self, "noise", None)
        return isinstance(noise, str) and noise in ("auto", "input")

    def _n_tasks(self) -> int:
        """Most tasks of a fit."""
        raise NotImplementedError

    def _initial_net(
        self, table: Table, task: str, n_outputs: int, seed: int, schedule: Schedule | None
    ) -> InitialNet:
        """Initialise a copy of the user's net or the default net, and check its width.

        The default net trains by the schedule, ``None`` where it holds rows out itself.
        """
        net, X, tabular = self.net, table.X, self._tabular
        if tabular is not None:
            net = tabular.build(
                X,
                table.weights,
                task=task,
                schedule=schedule or Schedule.alone(len(X)),
                validation_fraction=self.validation_fraction,
                encoding=self._encoding,
                verbose=self.verbose,
            )
        check_net(net)
        if has_module_instance(net):
            warnings.warn(
                "net.module is a module instance: every fit starts from its present weights, so "
                "trained weights leak between cross-validation folds. Pass the module's class, or "
                "FrozenEstimator(net) to keep a trained net.",
                UserWarning,
                stacklevel=7,
            )
        # What initialises the modules is not known, so it draws in turn with other threads.
        stream, dtype = RandomStream(seed), getattr(torch, self.dtype)
        with stream.everywhere():
            net = prepare(net, X[:2], n_outputs=n_outputs, dtype=dtype)
        latent = latent_of(net)
        latent.module.eval()
        with RandomStream(seed).everywhere(), torch.no_grad():
            width = n_outputs_of(net, latent, tensor_of(X[:2], latent))
        return InitialNet(net, latent, likelihood_of(net.criterion_, width), width, stream)

    def _trained_nets(
        self,
        table: Table,
        seed: int,
        *,
        needed: bool,
        check: Callable[[InitialNet, Table], None] = lambda initial, table: None,
    ) -> Iterator[TrainedFold]:
        """Step 1: a net for each fold, or one that holds rows out by itself where needed.

        ``check`` raises before training where a net does not fit the options.
        """
        folds = self._folds(table, table.y.ndim == 1, seed)
        starts = []
        for k, fold_seed in enumerate(fold_seeds(seed, len(folds) if folds else 1)):
            schedule = Schedule.until_stopped(len(folds[k].train)) if folds else None
            initial, encoded = self._start_net(table, fold_seed, schedule)
            check(initial, table)
            fold = folds[k] if folds else self._own_split(initial, table, needed, fold_seed)
            starts.append(InitialFold(initial, fold, fold_seed))
        return self._train(starts, encoded)  # the targets of one criterion, whichever the fold

    def _trained_on_all(self, table: Table, seed: int, n_epochs: int) -> TrainedFold:
        """Train a net on all rows: the default net for so many epochs, a user's as it is set."""
        schedule = Schedule.of_epochs(len(table), n_epochs)
        initial, encoded = self._start_net(table, seed, schedule)
        fold = self._own_split(initial, table, False, seed)
        (trained,) = self._train([InitialFold(initial, fold, seed)], encoded)
        return trained

    def _start_net(
        self, table: Table, seed: int, schedule: Schedule | None
    ) -> tuple[InitialNet, Table]:
        """Prepare a net for the targets, and these in the type of its criterion."""
        raise NotImplementedError

    def _train(self, starts: Sequence[InitialFold], table: Table) -> Iterator[TrainedFold]:
        """Step 1: the MAP estimates."""
        for start in starts:
            self._check_reading(start.initial, table)
        memory = self._training_memory()
        if not is_frozen(self.net):
            with task("MAP", len(starts)):
                train_all(starts, table, memory, self.n_jobs)
        for start in starts:
            trained = self._trained_net(start, table)
            yield TrainedFold(start.initial, trained, start.fold.held_out, memory)

    def _trained_net(self, start: InitialFold, table: Table) -> TrainedNet:
        """Give the net of a fold and its rows after the training."""
        net = start.initial.net
        latent = latent_of(net)
        latent.module.eval()
        trained = start.with_rows(table, latent)
        if is_frozen(self.net):
            check_frozen(trained)
        else:
            check_convergence(trained, net.history, learning_rates(net))
        return trained

    def _check_reading(self, initial: InitialNet, table: Table) -> None:
        """Refuse a net of the user's that does to rows or outputs what later steps would miss."""
        if self._tabular is None:
            rows = tensor_of(table.X[:CHECKED_ROWS].copy(), initial.latent)
            targets = None if is_frozen(self.net) else table.y[:CHECKED_ROWS]
            check_reading(initial.net, rows, targets, initial.likelihood)

    def _own_split(self, initial: InitialNet, table: Table, needed: bool, seed: int) -> Fold:
        """Split the rows of a fit without folds: as the net does, or by a share of the rows."""
        return Fold(
            *hold_out(
                initial.net,
                table.X,
                table.y,
                fraction=self.validation_fraction,
                needed=needed,
                stratify=initial.likelihood.task == "classification",
                is_trained=is_frozen(self.net),
                seed=seed,
            )
        )

    def _training_memory(self) -> TrainingMemory | None:
        """Where to keep trained nets; ``None`` where they are trained anew."""
        if self.memory is None or is_frozen(self.net):
            return None
        try:
            memory = check_memory(self.memory)
        except OSError as error:
            self._warn_of_memory(f"memory={self.memory!r} cannot be used ({error.strerror})")
            return None
        if getattr(memory, "location", memory) is None:
            return None
        if self.random_state is None:
            self._warn_of_memory(
                "memory recalls a trained net only for the same random_state; set it to an integer"
            )
        net = fingerprint(self.net)
        if net.unreadable:
            self._warn_of_memory(
                "memory cannot tell whether this net is that of an earlier fit, so the net is "
                f"trained anew and not kept: training may reach {net.unreadable[0]}. Keep that out "
                "of the net's code, or set memory=None"
            )
            return None
        return TrainingMemory(memory, net.digest)

    def _warn_of_memory(self, message: str) -> None:
        warnings.warn(f"{message}.", UserWarning, stacklevel=7)

    def _batches(self, X: Any, step: int | None = None) -> Iterator[Inputs]:
        """Validate rows and give them in batches, as the net reads them."""
        nets = self._nets()
        step = step or min(net.rows_per_batch for net in nets)
        first = nets[0]
        for part in _parts(X, step):
            rows = self._check_rows(part, reset=False)
            for start in range(0, len(rows), step):
                # One batch at a time, for categories take many inputs each.
                inputs = self._as_inputs(rows[start : start + step])
                n_rows = min(step, len(rows))  # the last batch has the threads of the others
                work = max(net.work(n_rows, inputs.shape[1:]) for net in nets)
                with cores(self.n_jobs), threads_for(work):
                    yield read(inputs, first.net, first.latent)

    def _nets(self) -> list[Any]:
        """Nets that predict."""
        check_is_fitted(self)
        nets: list[Any] = self.folds_
        return nets

    def _keep_out_of_fold(self, nets: Sequence[FittedNet], table: Table) -> None:
        """Keep what each net says of its fold, where every row is in one fold."""
        self.__dict__.pop("out_of_fold_", None)
        order = np.concatenate([net.held_out for net in nets])
        if len(nets) < 2 or not np.array_equal(np.sort(order), np.arange(len(table))):
            return
        parts = []
        for net in nets:
            step = net.rows_per_batch
            for start in range(0, len(net.held_out), step):
                rows = table.X[net.held_out[start : start + step]]
                parts.append(net.predictive(read(rows, net.net, net.latent)))
        place = table.place[table.place >= 0]
        self.out_of_fold_ = self._in_units(Predictive.stack(parts)).rows(np.argsort(order)[place])

    def _in_units(self, predictive: Predictive) -> Predictive:
        """Predictive in the units of the target."""
        raise NotImplementedError

    def _predictives(self, X: Any) -> Iterator[Predictive]:
        """Predictive values of consecutive batches of rows, in the units of the target."""
        nets = self._nets()  # once, for an update may exchange them
        for batch in self._batches(X):
            parts = [net.predictive(batch) for net in nets]
            yield parts[0] if len(parts) == 1 else Predictive.mix(parts)

    def _maps(self, X: Any) -> Tensor:
        """Latents (K, N, C) of each net at its MAP: one forward pass of each."""
        batches = self._batches(X, FORWARD_ROWS)
        parts = [torch.stack([net.map(batch) for net in self._nets()]) for batch in batches]
        return torch.cat(parts, dim=1)

    def predictive(self, X: Any) -> Any:
        """Predictive distribution of rows, with its parts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        Predictive
            Value with ``probabilities``, ``entropy`` and ``mutual_information`` (classifiers), or
            ``std``, ``interval`` and ``quantiles`` (regressors), in the units of the target.
        """
        return Predictive.stack(list(self._predictives(X)))

    def _means(self, X: Any) -> Tensor:
        """Predictive mean (N, C)."""
        nets, parts = self._nets(), []
        for batch in self._batches(X, FORWARD_ROWS):
            means = [net.means(batch) for net in nets]
            parts.append(means[0] if len(means) == 1 else torch.stack(means).mean(dim=0))
        return torch.cat(parts)

    def _joint_moments(self, X: Any) -> tuple[Tensor, Tensor]:
        """Mean (N, C) and covariance between the rows (C, N, N)."""
        batches = self._joint_batches(X)
        return mixed_moments(net.joint_moments(batches) for net in self._nets())

    def _joint_batches(self, X: Any) -> list[Inputs]:
        """Batches of rows, unless the covariance between all of them would not fit."""
        batches = list(self._batches(X))
        check_joint_covariance_fits(sum(map(count_rows, batches)), self._nets()[0].n_outputs)
        return batches

    def _draw_functions(self, X: Any, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draws (N, C, n_samples) of functions over all rows, each with the noise of its net.

        Without the noise they are those of ``functions``; see the regressors.
        """
        batches, nets = list(self._batches(X)), self._nets()
        if len(nets) == 1:
            return self._drawn(nets[0], batches, n_samples, generator)
        picked = pick_components(len(nets), n_samples, generator)
        draws = {
            index: self._drawn(nets[index], batches, int((picked == index).sum()), generator)
            for index in picked.unique().tolist()
        }
        first = next(iter(draws.values()))
        result = first.new_empty(*first.shape[:2], n_samples)
        for index, part in draws.items():
            result[:, :, picked == index] = part
        return result

    def _drawn(
        self, net: FittedNet, batches: list[Inputs], n_samples: int, generator: torch.Generator
    ) -> Tensor:
        """Draws (N, C, n_samples) of one net."""
        return net.functions(batches, n_samples, generator)


def _parts(X: Any, step: int) -> Iterator[Any]:
    """Cut a large array, which may be a file, into parts of whole batches."""
    if not isinstance(X, np.ndarray) or X.ndim < 2 or X.size <= LARGE_TABLE:
        yield X
        return
    n_rows = step * max(1, PART_NUMBERS // (step * max(1, X[:1].size)))
    for start in range(0, len(X), n_rows):
        yield X[start : start + n_rows]


def tensor_of(array: np.ndarray, latent: Latent) -> Tensor:
    """Give inputs as a tensor of the net's dtype on its device."""
    inputs = torch.as_tensor(shareable(array), dtype=latent.dtype, device=latent.device)
    check_range(inputs, array)
    return inputs


def shareable(array: np.ndarray) -> np.ndarray:
    """Give an array that torch can use as it is: a copy of read-only and of reversed ones."""
    reversed_axes = any(stride < 0 for stride in array.strides)
    return array.copy() if reversed_axes or not array.flags.writeable else array


def read(array: np.ndarray, net: Any, latent: Latent) -> Inputs:
    """Give rows as the net reads them."""
    return inputs_of(net, tensor_of(array, latent))


def as_read(rows: Rows, net: Any) -> Rows:
    """Rows of a table as the net reads them."""
    return replace(rows, X=inputs_of(net, rows.X))


def rows_of(latent: Latent, table: Table) -> Rows:
    """Rows as tensors on the net's device; floating point targets in its dtype."""
    inputs = tensor_of(table.X, latent)
    targets = torch.as_tensor(shareable(table.y), device=inputs.device)
    if targets.is_floating_point():
        targets = targets.to(inputs.dtype)
    weights = shareable(table.weights)
    row_weights = torch.as_tensor(weights, device=inputs.device, dtype=inputs.dtype)
    return Rows(inputs, targets, row_weights)


def train_all(
    starts: Sequence[InitialFold],
    table: Table,
    memory: TrainingMemory | None,
    n_jobs: int | None,
) -> None:
    """Train the nets of all folds, or recall the trainings from the memory."""
    calls = [(start, table) for start in starts]
    n_epochs = starts[0].initial.net.max_epochs
    jobs = functools.partial(in_jobs, calls=calls, n_jobs=n_jobs, name="net", n_subtasks=n_epochs)
    if memory is None:
        for start, parts in zip(starts, jobs(trained_parts), strict=True):
            for name, part in parts.items():
                setattr(start.initial.net, name, part)
        return
    rows = [torch.as_tensor(shareable(part)) for part in (table.X, table.y, table.weights)]
    nets = [
        (sorted(start.initial.net.get_params().items()), tuple(start.fold), start.seed)
        for start in starts
    ]
    trainings = memory.recall_or(
        lambda: jobs(training_of),
        rows,
        starts[0].initial.latent.dtype,
        nets,
    )
    for start, training in zip(starts, trainings, strict=True):
        load(start.initial.net, training)


def training_of(start: InitialFold, table: Table) -> Training:
    """Train the net of a fold."""
    return fit_net(start.initial.net, *start.rows_of(table), start.initial.stream)


def trained_parts(start: InitialFold, table: Table) -> dict[str, Any]:
    """Train the net of a fold; return what of it that has changed, by name."""
    net = start.initial.net
    # What follows must not depend on where it was trained, so it draws anew.
    load(net, training_of(start, table))
    return {name: getattr(net, name) for name in ("history", *(f"{m}_" for m in net._modules))}


def criterion_weighted(rows: Rows, criterion: torch.nn.Module) -> Rows:
    """Rows whose weights include the class weights of the criterion."""
    class_weights = criterion_row_weights(criterion, rows.y)
    if class_weights is None:
        return rows
    return replace(rows, weights=rows.weights * class_weights.to(rows.weights.dtype))


def fold_seeds(seed: int, n_folds: int) -> list[int]:
    """One seed for each fold; that of the fit where there is one."""
    if n_folds == 1:
        return [seed]
    return [int(s) for s in np.random.default_rng(seed).integers(2**31 - 1, size=n_folds)]


def draw_seed(random_state: Any) -> int:
    """One integer seed for everything random in a fit."""
    return int(check_random_state(random_state).randint(2**31 - 1))
