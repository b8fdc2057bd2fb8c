"""A fit that is stopped anywhere leaves the estimator whole: as it was, or unfitted."""

import functools
import pickle
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet
from user_nets import MLP, binary_net, regressor_net

import sksubnet.baselines.deep_ensemble
import sksubnet.baselines.draws
import sksubnet.baselines.swag
import sksubnet.estimators.base
import sksubnet.estimators.curved
import sksubnet.estimators.noise
import sksubnet.estimators.regressor
import sksubnet.estimators.subnet
import sksubnet.nets.noise
import sksubnet.nets.training
import sksubnet.posterior.kinds
import sksubnet.posterior.tuning
import sksubnet.sampling.swag
import sksubnet.selection.subnetwork
from sksubnet import (
    DeepEnsembleClassifier,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGRegressor,
)
from sksubnet.nets import Schedule

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3))
TARGETS = np.column_stack([np.sin(X[:, 0]), X[:, 1]])
LABELS = np.where(X[:, 0] > 0, "yes", "no")

SHORT = {"max_epochs": 2, "batch_size": 30}
LAPLACE = {"subnetwork_size": 8, "random_state": 0}


def classifier() -> Any:
    return SubnetLaplaceClassifier(binary_net(**SHORT), cv=2, **LAPLACE)


def regressor() -> Any:
    return SubnetLaplaceRegressor(
        regressor_net(**SHORT), cv=2, refit=True, noise="input", **LAPLACE
    )


def swag() -> Any:
    return SWAGRegressor(regressor_net(**SHORT), n_draws=3, n_snapshots=3, random_state=0)


def ensemble() -> Any:
    member = SubnetLaplaceClassifier(binary_net(**SHORT), cv=None, **LAPLACE)
    return DeepEnsembleClassifier(member, n_members=2, random_state=0)


COMMON = [
    (sksubnet.estimators.base, "validate_data"),
    (sksubnet.estimators.base, "prepare"),
    (sksubnet.estimators.base, "check_reading"),
    (sksubnet.estimators.base, "fit_net"),
    (sksubnet.estimators.base, "load"),
    (sksubnet.estimators.base, "check_convergence"),
    (sksubnet.nets.training, "settle"),
    (sksubnet.nets.training, "outcome"),
    (NeuralNet, "train_step"),
    (NeuralNet, "run_single_epoch"),
    (MLP, "forward"),
    (torch.optim.Adam, "step"),
]
OF_LAPLACE = [
    (sksubnet.selection.subnetwork.Selector, "pick"),
    (sksubnet.estimators.curved, "effects"),
    (sksubnet.estimators.curved, "subnetwork_curvature"),
    (sksubnet.estimators.curved, "factorised"),
    (sksubnet.estimators.subnet, "tune_on_held_out"),
    (sksubnet.estimators.subnet, "make_keepable"),
    (sksubnet.posterior.kinds, "ggn"),
    (sksubnet.selection.subnetwork, "selection_problem"),
    (sksubnet.selection.subnetwork.Pool, "choose"),
    (sksubnet.posterior.tuning.Tuned, "of_net"),
    (sksubnet.estimators.base.BayesianNet, "_keep_out_of_fold"),
]
KINDS: dict[str, tuple[Callable[[], Any], np.ndarray, list[tuple[Any, str]]]] = {
    "classifier": (classifier, LABELS, [*COMMON, *OF_LAPLACE]),
    "regressor": (
        regressor,
        TARGETS,
        [
            *COMMON,
            *OF_LAPLACE,
            (sksubnet.estimators.regressor, "with_constant_noise"),
            (sksubnet.estimators.noise, "fit_noise"),
            (sksubnet.nets.noise, "fit_net"),
            (sksubnet.estimators.subnet, "mixture_scale"),
            (sksubnet.estimators.subnet, "mean_likelihood"),
        ],
    ),
    "swag": (
        swag,
        TARGETS[:, 0],
        [
            *COMMON[:3],
            (sksubnet.baselines.swag, "swag_moments"),
            (sksubnet.sampling.swag.SWAGMoments, "draws"),
            (sksubnet.baselines.swag, "with_batch_statistics"),
            (sksubnet.baselines.draws, "tuned_noise"),
        ],
    ),
    "ensemble": (
        ensemble,
        LABELS,
        [
            *COMMON[:3],
            *OF_LAPLACE[2:4],
            (sksubnet.baselines.deep_ensemble, "_fitted"),
        ],
    ),
}


@pytest.fixture(autouse=True)
def few_epochs_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Schedule, "until_stopped", lambda n_rows: Schedule(n_rows, True, 3))


class Stopped(Exception):
    """What no code of the package expects."""


def count(patch: pytest.MonkeyPatch, owner: Any, name: str, stop: int = -1) -> list[str]:
    """Collect the calls of a function, and press Ctrl-C in one of them, or fail."""
    original, calls = getattr(owner, name), list[str]()

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == stop:
            raise (KeyboardInterrupt if stop % 2 else Stopped)
        return original(*args, **kwargs)

    patch.setattr(owner, name, counted)
    return calls


@functools.cache
def fitted(kind: str) -> tuple[Any, list[int]]:
    """A fitted model, and how often each of its stages was called."""
    make, y, stages = KINDS[kind]
    with pytest.MonkeyPatch.context() as patch:
        calls = [count(patch, owner, name) for owner, name in stages]
        model = make().fit(X, y)
    return model, [len(found) for found in calls]


def answers(model: Any) -> list[np.ndarray]:
    predictive = model.predictive(X)
    return [model.predict(X), predictive.mean.numpy(), predictive.covariance.numpy()]


def settings() -> list[Any]:
    """What belongs to the process."""
    return [
        torch.get_rng_state().tolist(),
        pickle.dumps(np.random.get_state()),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        list(warnings.filters),
        signal.getsignal(signal.SIGINT),
    ]


def content(net: Any) -> dict[str, str]:
    return {name: repr(value) for name, value in vars(net).items()}


def assert_nothing_happened(model: Any, rows: np.ndarray, y: np.ndarray) -> None:
    """Fit and be stopped."""
    attributes, net, before = dict(vars(model)), content(model.net), settings()
    with pytest.raises((KeyboardInterrupt, Stopped, ValueError)) as caught:
        model.fit(rows, y)
    # What fails inside the module may be told as a fault of the net.
    assert not isinstance(caught.value, ValueError) or isinstance(caught.value.__cause__, Stopped)
    assert settings() == before
    assert vars(model).keys() == attributes.keys()
    assert all(vars(model)[name] is value for name, value in attributes.items())
    assert content(model.net) == net


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        pytest.param(kind, stage, id=f"{kind}-{owner.__name__.rpartition('.')[2]}.{name}")
        for kind, (_, _, stages) in KINDS.items()
        for stage, (owner, name) in enumerate(stages)
    ],
)
def test_stopped_at_every_stage(kind: str, stage: int) -> None:
    make, y, stages = KINDS[kind]
    model, calls = fitted(kind)
    assert calls[stage], "this stage is not one of the fit"
    fresh, expected = make(), answers(model)
    for known, stop in ((True, calls[stage]), (False, 1 + calls[stage] // 2)):
        with pytest.MonkeyPatch.context() as patch:
            count(patch, *stages[stage], stop=stop)
            if known:  # rows of another width, so that mixed attributes could not predict
                assert_nothing_happened(model, X[:, :2], y)
            else:
                assert_nothing_happened(fresh, X, y)
    for one, other in zip(answers(model), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert not [name for name in vars(fresh) if name.endswith("_")]
    pickle.loads(pickle.dumps(fresh))


@pytest.mark.parametrize("kind", ["classifier", "swag"])
def test_ctrl_c_between_two_steps_of_the_training(kind: str) -> None:
    """The signal itself, while a callback of skorch runs and while the module does."""
    make, y, _ = KINDS[kind]
    model = make()

    class Pressed(MLP):
        n_passes = 0

        def forward(self, X: torch.Tensor) -> torch.Tensor:
            Pressed.n_passes += 1
            if Pressed.n_passes == 7:
                signal.raise_signal(signal.SIGINT)
            return super().forward(X)

    model.net.set_params(module=Pressed)
    assert_nothing_happened(model, X, y)
    pickle.dumps(model.set_params(net=None))


def test_what_a_refit_no_longer_has_is_gone() -> None:
    pandas = pytest.importorskip("pandas")
    model = regressor().fit(pandas.DataFrame(X, columns=["a", "b", "c"]), TARGETS)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.fit(X[:, :2], TARGETS[:, 0]) is model
    assert not hasattr(model, "feature_names_in_")
    assert model.predict(X[:, :2]).shape == (len(X),)


def test_others_predict_with_the_former_fit_until_the_new_one_is_there() -> None:
    model = classifier().fit(X, LABELS)
    expected, seen = model.predict_proba(X), []

    def meanwhile(trained: Any) -> torch.Tensor:
        seen.append(model.predict_proba(X))
        return trained.weight_vector().abs()

    model.set_params(selection=meanwhile, prior_precision=100.0).fit(X, LABELS)
    assert len(seen) == 2 and all(np.array_equal(one, expected) for one in seen)
    assert not np.array_equal(model.predict_proba(X), expected)
