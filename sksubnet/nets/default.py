"""The default net for tables: what may be changed about it, and its skorch net."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from skorch.utils import noop
from torch import nn

from sksubnet.documentation import Documented
from sksubnet.nets.averaging import AveragedWeights
from sksubnet.nets.bins import Bins, Tails
from sksubnet.nets.criteria import LogVarianceLoss
from sksubnet.nets.encoding import Encoding
from sksubnet.nets.tabular import TabularMLP, fit_tails

MIN_ROWS_TO_HOLD_OUT = 100


@dataclass(frozen=True)
class Schedule:
    """How the default net trains: until unseen rows stop it, or for so many epochs.

    ``least_batch`` rows are the fewest of a batch; ``n_epochs`` of ``None`` are as many as the net
    may take.
    """

    n_rows: int
    stops_early: bool
    n_epochs: int | None = None
    least_batch: int = 32

    @classmethod
    def until_stopped(cls, n_rows: int) -> Schedule:
        """Train on so many rows until those held out are no longer predicted better."""
        return cls(n_rows, stops_early=True)

    @classmethod
    def of_epochs(cls, n_rows: int, n_epochs: int) -> Schedule:
        """Train on so many rows, for so many epochs."""
        return cls(n_rows, stops_early=False, n_epochs=n_epochs)

    @classmethod
    def alone(cls, n_rows: int) -> Schedule:
        """Train a net that holds rows out by itself; too few of them are one batch."""
        if n_rows < MIN_ROWS_TO_HOLD_OUT:
            return cls(n_rows, stops_early=False, least_batch=MIN_ROWS_TO_HOLD_OUT)
        return cls.until_stopped(n_rows)

    @property
    def batch_size(self) -> int:
        """An eighth of the rows."""
        return min(max(self.n_rows // 8, self.least_batch), 512)


class Tabular(NeuralNet):
    """Averages the weights over the steps, and validates, stops and keeps the averages.

    The mode of its parts is set only where it changes: in a small net, a walk through all layers
    before every batch takes as long as they do.

    Parameters
    ----------
    encoding : Encoding or None
        How numbers and codes, which its own ``predict`` takes, become inputs of the module.
    """

    def __init__(self, *args: Any, encoding: Encoding | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoding = encoding

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        """Return a data set of inputs, encoded where rows come as an array."""
        if self.encoding is not None and isinstance(X, np.ndarray):
            dtype = next(self.module_.parameters()).dtype
            X = torch.as_tensor(self.encoding(X), dtype=dtype)
        return super().get_dataset(X, y)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run the epoch of a training with the weights themselves, all else with the averages."""
        if not training:
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        if "averages_" not in vars(self):
            self.averages_ = AveragedWeights(list(self.module_.parameters()))
            if self.module_.has_tails:
                rows = iterator.dataset
                fit_tails(self.module_, rows.X, rows.y, rows.weights)
        self.averages_.hide()
        self.module_.dropped_share = self._dropped_share()
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        self.averages_.show()

    def _dropped_share(self) -> float:
        """Share of the bins to drop in this epoch."""
        share: float = self.module_.bin_dropout
        return share

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Take a step of the optimiser, and count the weights in the averages."""
        step = super().train_step(batch, **fit_params)
        self.averages_.update()
        return step

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Forget the averages, which the module now has."""
        super().on_train_end(net, **kwargs)
        self.__dict__.pop("averages_", None)

    def _set_training(self, training: bool = True) -> None:
        parts = (getattr(self, f"{name}_") for name in self._modules + self._criteria)
        if any(part.training != training for part in parts):
            super()._set_training(training)


class TabularBinaryClassifier(Tabular, NeuralNetBinaryClassifier):
    """The default net for two classes."""


class TabularClassifier(Tabular, NeuralNetClassifier):
    """The default net for more classes."""


class TabularRegressor(Tabular, NeuralNetRegressor):
    """The default net for standardised targets, which drops fewer bins the better it predicts.

    Where little of the target's variance is left, there is little to overfit, and the noise of the
    dropout would be most of the error: the odds of a bin to be dropped are in proportion to it.
    """

    def _dropped_share(self) -> float:
        share = super()._dropped_share()
        if len(self.history) < 2:
            return share
        before = self.history[-2]
        left = before.get("valid_loss", before["train_loss"])
        odds = share / (1 - share) * min(1.0, left)
        return odds / (1 + odds)


TASKS: dict[str, tuple[type[Tabular], type[nn.Module]]] = {
    "binary": (TabularBinaryClassifier, nn.BCEWithLogitsLoss),
    "multiclass": (TabularClassifier, nn.CrossEntropyLoss),
    "multilabel": (TabularClassifier, nn.BCEWithLogitsLoss),
    "regression": (TabularRegressor, nn.MSELoss),
    "noise": (TabularRegressor, LogVarianceLoss),
}


class TabularNet(Documented, BaseEstimator):
    """The default net for tables, and what may be changed about it.

    A multilayer perceptron over standardised, smoothly clipped columns and quantile bins of them
    (piecewise linear encoding [1]_), trained by AdamW with averaged weights until unseen rows are
    no longer predicted better. Regression on a heavy-tailed column adds a fixed linear term of what
    the clip removes. ``net=None`` is this net as it is; pass one to an estimator to change it, and
    search over ``net__lr`` and the others. It reads tables as they come: missing values, and
    categories, text and booleans of a DataFrame.

    Parameters
    ----------
    hidden : int or sequence of int, default=(64, 64)
        Widths of the hidden layers; a number is one layer.
    bins : int, default=8
        Most bins of a column of numbers; fewer where there are more than 128 such columns. 0 is a
        net without bins. The weights of the bins are no candidates for the posterior unless
        ``candidates`` says so: a bin is constant beyond the data, so they say nothing there.
    bin_dropout : float in [0, 1), default=0.4
        Share of the bins that are dropped in training. In regression the odds are in proportion to
        the share of the target's variance that is not yet explained.
    dropout : float in [0, 1), default=0.0
        Share of the units of each hidden layer that are dropped in training.
    lr : float, default=5e-3
        Learning rate.
    weight_decay : float, default=1e-2
        Weight decay of AdamW.
    batch_size : int or None, default=None
        Rows of a batch; ``None`` is an eighth of the rows, between 32 and 512.
    max_epochs : int, default=300
        Most passes over the rows.
    patience : int, default=15
        Passes without a better score of the unseen rows after which training stops; the weights
        with the best score are kept.
    categorical_features : array-like of int, str or bool, default=None
        Columns of numbers that are codes of a category: their names, numbers, or a mask. Columns of
        the type category, and text, are categories anyway.
    device : {"auto", "cpu", "cuda", "mps"} or torch.device, default="cpu"
        Where it is trained and predicts. ``"auto"`` is a GPU of NVIDIA where there is one;
        ``"mps"`` has no ``dtype="float64"``.

    Notes
    -----
    Rows of your own for early stopping: ``cv=[(train, held_out)]`` with the numbers of the rows, or
    :class:`~sklearn.model_selection.PredefinedSplit`.

    A level of a category shares its input with other rare ones if it has fewer than 20 rows and
    less than a twentieth of them. A level that ``fit`` has not seen has an input of its own, about
    which only the prior speaks, so that its predictions are less certain than those of known
    levels. Texts with more than 500 levels are refused; encode them first, for example with skrub.

    References
    ----------
    .. [1] Gorishniy, Rubachev and Babenko, "On embeddings for numerical features in tabular deep
       learning", NeurIPS 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sksubnet import SubnetLaplaceClassifier, TabularNet
    >>> X, y = load_iris(return_X_y=True)
    >>> net = TabularNet(hidden=(16,), max_epochs=20)
    >>> clf = SubnetLaplaceClassifier(net, cv=None, random_state=0)
    >>> search = GridSearchCV(clf, {"net__lr": [1e-4, 1e-2]}, cv=3).fit(X, y)
    >>> search.best_params_
    {'net__lr': 0.01}
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden": ["array-like", Interval(Integral, 1, None, closed="left")],
        "bins": [Interval(Integral, 0, None, closed="left")],
        "bin_dropout": [Interval(Real, 0, 1, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "categorical_features": ["array-like", None],
        "device": [str, torch.device],
    }

    def __init__(
        self,
        *,
        hidden: Any = (64, 64),
        bins: int = 8,
        bin_dropout: float = 0.4,
        dropout: float = 0.0,
        lr: float = 5e-3,
        weight_decay: float = 1e-2,
        batch_size: int | None = None,
        max_epochs: int = 300,
        patience: int = 15,
        categorical_features: Any = None,
        device: Any = "cpu",
    ) -> None:
        self.hidden = hidden
        self.bins = bins
        self.bin_dropout = bin_dropout
        self.dropout = dropout
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.categorical_features = categorical_features
        self.device = device

    def build(
        self,
        Z: np.ndarray,
        weights: np.ndarray,
        *,
        task: str,
        schedule: Schedule,
        validation_fraction: float = 0.2,
        encoding: Encoding | None = None,
        verbose: int = 0,
    ) -> NeuralNet:
        """Return the skorch net for standardised rows (N, F), not yet trained.

        Where it stops early it keeps the best of the averaged weights. Settled by
        ``examples/benchmarks/settings_study.py``.
        """
        self._validate_params()
        _check_device(self.device)
        module = {
            "hidden": _widths(self.hidden),
            "dropout": self.dropout,
            "bins": Bins.of(Z, weights, self.bins) if self.bins else None,
            "bin_dropout": self.bin_dropout,
            "tails": Tails.of(Z, weights) if task == "regression" else None,
            "blank": encoding.blank if encoding is not None else (),
        }
        return tabular_net(self, task, schedule, module, encoding, validation_fraction, verbose)


def tabular_net(
    settings: TabularNet,
    task: str,
    schedule: Schedule,
    module: dict[str, Any],
    encoding: Encoding | None,
    validation_fraction: float,
    verbose: int,
) -> NeuralNet:
    """Return the skorch net around a ``TabularMLP`` with these parameters, not yet trained."""
    kind, criterion = TASKS[task]
    stop = EarlyStopping(patience=settings.patience, load_best=True, sink=noop)
    quiet = {"callbacks__print_log": None} if verbose <= 1 else {}
    no_scores = {} if issubclass(kind, NeuralNetRegressor) else {"callbacks__valid_acc": None}
    split = ValidSplit(validation_fraction, stratified=task in ("binary", "multiclass"))
    return kind(
        TabularMLP,
        **{f"module__{name}": value for name, value in module.items()},
        encoding=encoding,
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=settings.weight_decay,
        optimizer__fused=True,
        lr=settings.lr,
        batch_size=settings.batch_size or schedule.batch_size,
        iterator_train__shuffle=True,
        max_epochs=schedule.n_epochs or settings.max_epochs,
        train_split=split if schedule.stops_early else None,
        callbacks=[("early_stopping", stop)] if schedule.stops_early else None,
        device=_device(settings.device),
        verbose=verbose,
        **quiet | no_scores,
    )


def _widths(hidden: Any) -> tuple[int, ...]:
    """Widths of hidden layers."""
    if isinstance(hidden, Integral):
        return (int(hidden),)
    widths = tuple(hidden)
    if not all(isinstance(width, Integral) and int(width) >= 1 for width in widths):
        raise ValueError(
            f"hidden={hidden!r} of TabularNet must be whole numbers of at least 1, the units of "
            "each hidden layer, such as (64, 64), or one for a single layer."
        )
    return tuple(int(width) for width in widths)


def _check_device(device: Any) -> None:
    """Raise for a device that torch does not know, or that this machine has not."""
    if device == "auto":
        return
    advice = "use device='auto' for a GPU of NVIDIA where there is one, or 'cpu'."
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is none that torch knows; {advice}") from error
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind.type == "cuda" and (kind.index or 0) >= n_gpus:
        raise ValueError(f"device={device!r}, but torch finds {n_gpus} such here; {advice}")
    if kind.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device!r}, but torch finds none here; {advice}")


def _device(device: Any) -> Any:
    """Device that is meant by a name."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def draws_nothing(net: NeuralNet) -> bool:
    """Whether training draws nothing from the global random states, as the default net's."""
    return isinstance(net, Tabular) and not any(
        isinstance(layer, nn.Dropout) and layer.p > 0 for layer in net.module_.modules()
    )


def n_epochs_kept(net: NeuralNet) -> int:
    """Epochs after which the weights were what they are now: the best where these were kept."""
    stops = [callback for _, callback in net.callbacks_ if isinstance(callback, EarlyStopping)]
    if any(stop.load_best for stop in stops):
        best = [epoch["epoch"] for epoch in net.history if epoch.get("valid_loss_best")]
        return int(best[-1]) if best else len(net.history)
    return len(net.history)
