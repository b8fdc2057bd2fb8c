"""What training says when it went wrong, was interrupted, or takes long."""

import re
import signal
import warnings

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from user_nets import (
    MLP,
    assert_refused,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
    regressor_net,
)

from sksubnet import (
    DeepEnsembleClassifier,
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    MCDropoutClassifier,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGClassifier,
    VOGNClassifier,
)

SGD = {"optimizer": torch.optim.SGD}


@pytest.fixture(autouse=True)
def ctrl_c_raises():
    """Python's own handler, also where the process that runs the tests ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def three_threads():
    """A number of threads that no fit here takes, so that one that is not put back shows."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class ReLUMLP(MLP):
    """Unbounded, so that SGD with too large a rate explodes."""

    def __init__(self, n_features=4, n_outputs=1):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_outputs))


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"optimizer__lr": 1e6}, "lr=1000000.0."),
        ({"lr": 1e6, "callbacks": [LRScheduler("ExponentialLR", gamma=0.5)]}, "lr=1000000.0."),
        (
            {"optimizer__param_groups": [("layers.0.*", {"lr": 1e7})], "lr": 1e6},
            "lr=1000000.0, 10000000.0.",
        ),
    ],
)
def test_the_rate_that_diverged_is_named(options, rates):
    net = regressor_net(ReLUMLP, max_epochs=20, **SGD, **options)
    for model in (quick_regressor(net), MAPRegressor(net), DeepEnsembleRegressor(net, n_members=2)):
        assert_refused(lambda m=model: m.fit(*diabetes()), "diverged", rates, "net__lr", "scale")


def test_a_recalled_training_that_diverged_still_raises(tmp_path):
    net = regressor_net(ReLUMLP, lr=1e6, max_epochs=20, **SGD)
    model = MAPRegressor(net, memory=str(tmp_path), random_state=0)
    for _ in range(2):
        assert_refused(lambda: model.fit(*diabetes()), "diverged", "lr=1000000.0")
        with pytest.raises(NotFittedError):
            model.predict(diabetes()[0])


def mean_loss(model, X, y) -> float:
    """Mean negative log likelihood of the training targets in units of their sd, noise of 1."""
    residuals = (y - model.predict(X)) / y.std()
    return (np.log(2 * np.pi) + np.mean(residuals**2)) / 2


@pytest.mark.parametrize("stops_early", [False, True])
def test_finite_but_far_off_warns_with_the_losses(stops_early):
    X, y = diabetes()
    options = {"lr": 1e3, "max_epochs": 1}
    if stops_early:
        # The first epoch, the least bad one, is restored.
        stop = EarlyStopping(patience=2, load_best=True, sink=lambda *_: None)
        options = {"lr": 1e3, "max_epochs": 4, "callbacks": [stop]}
    net = regressor_net(ReLUMLP, **SGD, **options)
    net.set_params(train_split=ValidSplit(5) if stops_early else None)
    with pytest.warns(ConvergenceWarning) as caught:
        model = MAPRegressor(net, noise=1.0, random_state=0).fit(X, y)
    message = str(caught[0].message)
    numbers = [float(number) for number in re.findall(r"is ([\d.e+-]+\d)", message)]
    if not stops_early:
        zero = (np.log(2 * np.pi) + 1) / 2
        assert_allclose(numbers, [mean_loss(model, X, y), zero], rtol=0.01)
    assert numbers[0] > 1e3
    for part in ("did not converge", "lr=1000.0", "net__lr", "scale the inputs and targets"):
        assert part in message
    assert caught[0].filename == __file__


def test_far_off_classifier_warns():
    X, y = iris()
    # Adam takes steps of its rate, so that the weights stay finite.
    net = classifier_net(lr=1e6, max_epochs=2)
    with pytest.warns(ConvergenceWarning, match=r"lr=1000000.0.*outputs 0 is 1\.1\."):
        MAPClassifier(net, random_state=0).fit(X, y)


class NaNInTraining(ReLUMLP):
    """Its ninth training pass, in the fifth epoch, and all after that give NaN."""

    n_passes = 0

    def forward(self, X):
        if self.training and torch.is_grad_enabled():
            type(self).n_passes += 1
        broken = self.training and type(self).n_passes > 8
        return super().forward(X) * (float("nan") if broken else 1.0)


def test_nan_after_the_best_epoch_warns_and_keeps_that_epoch():
    X, y = diabetes()

    def fit(module, max_epochs):
        stop = EarlyStopping(patience=10, load_best=True, sink=lambda *_: None)
        net = regressor_net(module, callbacks=[stop], max_epochs=max_epochs)
        net.set_params(train_split=ValidSplit(5))
        return MAPRegressor(net, random_state=0).fit(X, y)

    NaNInTraining.n_passes = 0
    with pytest.warns(ConvergenceWarning, match=r"from epoch 5 on.*before that.*net__lr"):
        model = fit(NaNInTraining, 8)
    assert_allclose(model.predict(X), fit(ReLUMLP, 4).predict(X))


class NaNInEvaluation(ReLUMLP):
    def forward(self, X):
        return super().forward(X) * (1.0 if self.training else float("nan"))


@pytest.mark.parametrize("model", [MAPRegressor, SubnetLaplaceRegressor])
def test_nan_in_evaluation_raises(model):
    net = regressor_net(NaNInEvaluation)
    assert_refused(lambda: model(net).fit(*diabetes()), "loss of the training rows is nan", "lr=")


class Masked(ReLUMLP):
    """With infinite numbers that it means, as in the mask of an attention layer."""

    def __init__(self, n_features=4, n_outputs=1):
        super().__init__(n_features, n_outputs)
        self.register_buffer("mask", torch.full((2,), -torch.inf))

    def forward(self, X):
        return super().forward(X) + self.mask.exp().sum()


def test_training_that_went_well_says_nothing():
    X, y = diabetes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked = quick_regressor(regressor_net(Masked)).fit(X, y)
        # Without an offset of its own yet, and with one that is far from 0.
        quick_regressor(normalize_y=False).fit(X, 1e3 + y)
    plain = quick_regressor(regressor_net(ReLUMLP)).fit(X, y)
    assert_allclose(masked.predict(X), plain.predict(X))


class Stop(Callback):
    """Ends the training after its second epoch, as skorch's callbacks do."""

    def on_epoch_end(self, net, **_):
        if len(net.history) == 2:
            raise KeyboardInterrupt


class CtrlC(Callback):
    """Is at work in the second epoch when the user presses Ctrl-C."""

    def on_epoch_end(self, net, **_):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)


def assert_interrupted(model, X, y, expected=None):
    """The fit raises, the process is as before, and so are the predictions if there were any."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    if expected is None:
        with pytest.raises(NotFittedError):
            model.predict(X)
    else:
        np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.get_num_threads() == before[2]


def test_ctrl_c_in_a_callback_is_no_early_stopping():
    X, y = iris()
    stopped = quick_classifier(classifier_net(callbacks=[Stop()])).fit(X, y)
    assert len(stopped.net_.history) == 2
    expected = quick_classifier(classifier_net(max_epochs=2)).fit(X, y)
    assert_allclose(stopped.predict_proba(X), expected.predict_proba(X))
    assert_interrupted(quick_classifier(classifier_net(callbacks=[CtrlC()])), X, y)


class Interrupted(MLP):
    """Meets Ctrl-C in the given training pass; counts in the class, which no copy takes along."""

    passes_left = 0

    def __init__(self, n_features=4, n_outputs=3):
        super().__init__()
        layers = nn.Linear(n_features, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, n_outputs)
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        if self.training and torch.is_grad_enabled():
            type(self).passes_left -= 1
            if type(self).passes_left == 0:
                raise KeyboardInterrupt
        return super().forward(X)


N_PASSES = 8 * 3
"""Of the net's own training: epochs times batches."""


@pytest.mark.parametrize(
    ("model", "at"),
    [
        (MCDropoutClassifier(n_draws=3), N_PASSES - 1),
        (SWAGClassifier(n_draws=3, n_snapshots=5), N_PASSES - 1),
        (SWAGClassifier(n_draws=3, n_snapshots=5, n_jobs=2), N_PASSES + 2),
        (VOGNClassifier(n_draws=3, n_epochs=3), 5),
        (DeepEnsembleClassifier(n_members=3), N_PASSES + 2),
        (
            SubnetLaplaceClassifier(
                selection="swag", subnetwork_size=5, prior_precision=1.0, n_jobs=2
            ),
            N_PASSES + 2,
        ),
    ],
    ids=["dropout", "swag net", "swag path", "vogn", "second member", "swag selection"],
)
def test_interrupted_refit_keeps_the_former_fit(model, at):
    X, y = iris()
    n_threads = torch.get_num_threads()
    Interrupted.passes_left = 0
    model.set_params(net=classifier_net(Interrupted), random_state=0).fit(X, y)
    expected = model.predict_proba(X)
    Interrupted.passes_left = at
    assert_interrupted(model, X, y, expected)
    assert Interrupted.passes_left == 0
    assert model.fit(X, y).score(X, y) > 0.5
    assert torch.get_num_threads() == n_threads


def test_interrupted_member_of_a_parallel_ensemble():
    X, y = iris()
    model = DeepEnsembleClassifier(
        classifier_net(Interrupted), n_members=2, n_jobs=2, random_state=0
    )
    Interrupted.passes_left = N_PASSES + 2
    with joblib.parallel_backend("threading"):
        assert_interrupted(model, X, y)


@pytest.mark.parametrize(
    "step", ["curved.effects", "curved.subnetwork_curvature", "subnet.tune_on_held_out"]
)
def test_interrupted_laplace_step(step, monkeypatch):
    X, y = iris()
    model = quick_classifier(prior_precision="validation").fit(X, y)
    expected = model.predict_proba(X)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"sksubnet.estimators.{step}", interrupted)
        assert_interrupted(model, X, y, expected)
    assert not any(layer._forward_hooks for layer in model.net_.module_.modules())
    assert_allclose(model.fit(X, y).predict_proba(X), expected)


QUIET_OR_NOT = {
    "laplace": SubnetLaplaceClassifier(),
    "greedy": SubnetLaplaceClassifier(selection="greedy", subnetwork_size=20),
    "swag": SWAGClassifier(n_snapshots=5),
    "vogn": VOGNClassifier(n_epochs=5),
    "dropout": MCDropoutClassifier(),
    "ensemble": DeepEnsembleClassifier(n_members=2),
}


@pytest.mark.parametrize("name", QUIET_OR_NOT)
def test_progress_is_shown_on_demand_only(name, capfd):
    model = QUIET_OR_NOT[name]
    X, y = iris()
    silent = model.set_params(random_state=0, verbose=0).fit(X, y).predict_proba(X)
    assert capfd.readouterr() == ("", "")
    shown = model.set_params(verbose=1).fit(X, y).predict_proba(X)
    out, err = capfd.readouterr()
    assert out == "" and type(model).__name__ in err
    assert_allclose(silent, shown)


def test_a_nets_own_verbosity_stays(capfd):
    X, y = iris()
    quick_classifier(classifier_net(verbose=1), verbose=0).fit(X, y)
    out, err = capfd.readouterr()
    assert "train_loss" in out and err == ""
    quick_classifier(classifier_net(verbose=0), verbose=1).fit(X, y)
    out, err = capfd.readouterr()
    assert out == "" and "SubnetLaplaceClassifier" in err
