"""Averages of the weights against a loop over what the training went through."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

from sksubnet.nets.averaging import DECAY, AveragedWeights
from sksubnet.nets.default import Schedule, TabularNet, TabularRegressor, n_epochs_kept
from sksubnet.nets.randomness import RandomStream
from sksubnet.nets.trained import Rows
from sksubnet.nets.training import fit_net, prepare

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 2))
Y = X[:, :1] * X[:, 1:] + 0.5 * RNG.normal(size=(90, 1))


NET = TabularNet(bins=0)


class Watch(Callback):
    """Keeps the weights at the start and after every step, and the valid loss of the averages."""

    def on_train_begin(self, net, **kwargs):
        self.weights = [flat(net.module_)]

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.weights.append(flat(net.module_))


def flat(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach().numpy().copy()


def averages(weights):
    """Plain loop: averages after each step of the weights, the first of them the initial ones."""
    mean, found = weights[0], []
    for step, present in enumerate(weights[1:], start=1):
        decay = min(0.98, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * present
        found.append(mean)
    return np.array(found)


def rows(part):
    return Rows(
        torch.as_tensor(X[part]), torch.as_tensor(Y[part]), torch.ones(len(X[part])).double()
    )


def trained(schedule):
    """Train on the first 60 rows; the others stop it where the schedule says so."""
    net = NET.build(X[:60], np.ones(60), task="regression", schedule=schedule)
    watch = Watch()
    callbacks = [*(net.callbacks or []), ("watch", watch)]
    net.set_params(callbacks=callbacks)
    stream = RandomStream(0)
    with stream.everywhere():
        net = prepare(net, X[:2], n_outputs=1, dtype=torch.float64)
    held_out = rows(slice(60, None)) if schedule.stops_early else None
    fit_net(net, rows(slice(60)), held_out, stream)
    return net, dict(net.callbacks_)["watch"].weights


@pytest.fixture(scope="module")
def stopped():
    return trained(Schedule.until_stopped(60))


def test_averages_of_a_parameter_are_those_of_a_loop():
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    kept = AveragedWeights([parameter])
    weights = [np.zeros(3)]
    for step in range(700):
        weights.append(RNG.normal(size=3) + step)
        parameter.data = torch.as_tensor(weights[-1])
        kept.update()
    assert_allclose(kept.averages[0], averages(weights)[-1], rtol=1e-12)
    assert DECAY == 0.98
    # Constant steps of 1: the average is behind by decay / (1 - decay) of them.
    assert 699 - kept.averages[0].mean() == pytest.approx(0.98 / 0.02, abs=1)


def test_the_first_steps_forget_the_initial_weights():
    parameter = nn.Parameter(torch.full((1,), 100.0))
    kept = AveragedWeights([parameter])
    parameter.data.zero_()
    shares = []
    for _ in range(30):
        kept.update()
        shares.append(float(kept.averages[0]) / 100)
    decays = [(1 + n) / (10 + n) for n in range(1, 31)]
    assert_allclose(shares, np.cumprod(decays), rtol=1e-5)
    assert shares[-1] < 1e-6 < 0.98**30


def test_averages_take_the_place_of_the_weights_and_leave_it():
    parameter = nn.Parameter(torch.ones(2))
    kept = AveragedWeights([parameter])
    parameter.data = torch.tensor([3.0, 5.0])
    kept.update()
    expected = kept.averages[0].clone()
    kept.hide()
    assert parameter.tolist() == [3, 5]
    kept.show()
    assert parameter.tolist() == expected.tolist() != [3, 5]
    kept.hide()
    kept.hide()
    assert parameter.tolist() == [3, 5]


def test_a_net_of_so_many_epochs_has_the_averages():
    net, weights = trained(Schedule.of_epochs(60, 5))
    assert len(weights) == 1 + 5 * 2  # two batches of 32 and 28
    assert_allclose(flat(net.module_), averages(weights)[-1], rtol=1e-9, atol=1e-12)
    assert not np.allclose(flat(net.module_), weights[-1], rtol=1e-3)


def test_training_goes_on_from_the_weights_and_not_from_the_averages(monkeypatch):
    expected = trained(Schedule.of_epochs(60, 4))[1]
    for name in ("show", "hide"):
        monkeypatch.setattr(AveragedWeights, name, lambda self: None)
    net, found = trained(Schedule.of_epochs(60, 4))
    assert_array_equal(found, expected)
    assert_array_equal(flat(net.module_), found[-1])


def losses_of(net, weights):
    module, found = copy.deepcopy(net.module_), []
    for vector in weights:
        nn.utils.vector_to_parameters(torch.as_tensor(vector), module.parameters())
        with torch.no_grad():
            f = module(torch.as_tensor(X[60:])).numpy()
        found.append(((f - Y[60:]) ** 2).mean())
    return np.array(found)


def test_the_averages_are_validated_and_the_best_of_them_kept(stopped):
    net, weights = stopped
    by_epoch = averages(weights)[1::2]
    losses = losses_of(net, by_epoch)
    assert_allclose(net.history[:, "valid_loss"], losses, rtol=1e-6)
    assert not np.allclose(losses, losses_of(net, weights[2::2]), rtol=1e-3)
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 15  # the patience
    assert n_epochs_kept(net) == best + 1
    assert_allclose(flat(net.module_), by_epoch[best], rtol=1e-9, atol=1e-12)


def test_nothing_of_the_averages_stays_in_the_net(stopped):
    net, _ = trained(Schedule.of_epochs(60, 3))
    plain = NET.build(X[:60], np.ones(60), task="regression", schedule=Schedule.of_epochs(60, 3))
    assert isinstance(plain, TabularRegressor)
    options = {**plain.get_params(deep=False), "callbacks": [("watch", Watch())]}
    with RandomStream(0).everywhere():
        plain = NeuralNetRegressor(**options)
        plain = prepare(plain, X[:2], n_outputs=1, dtype=torch.float64)
    fit_net(plain, rows(slice(60)), None, RandomStream(0))
    for one in (net, plain):
        dict(one.callbacks_)["watch"].weights = None
    assert "averages_" not in vars(net) and "averages_" not in vars(stopped[0])
    assert len(pickle.dumps(net)) == pytest.approx(len(pickle.dumps(plain)), rel=0.05)
