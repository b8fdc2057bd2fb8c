"""Widths by name: what has no default or does not fit is filled in, everything else stays."""

import functools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import MLP, OPTIONS, classifier_net, diabetes, iris, quick_classifier, regressor_net

from sksubnet import MAPRegressor, SubnetLaplaceRegressor


class Encoder(nn.Module):
    """A hidden layer whose width has the name of an output's."""

    def __init__(self, n_features=4, n_outputs=1, out_dim=32):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(n_features, out_dim), nn.Tanh())
        self.head = nn.Linear(out_dim, n_outputs)

    def forward(self, X):
        return self.head(self.encode(X))


class HiddenNamedInput(nn.Module):
    """A hidden layer whose width has the name of an input's, and nothing has a default but it."""

    def __init__(self, d_in, d_out, input_size=7):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d_in, input_size), nn.Linear(input_size, d_out))

    def forward(self, X):
        return self.layers(X)


class FirstColumns(nn.Module):
    """Looks at some of the columns."""

    def __init__(self, in_features=3, n_outputs=1):
        super().__init__()
        self.width, self.layer = in_features, nn.Linear(in_features, n_outputs)

    def forward(self, X):
        return self.layer(X[:, : self.width])


class Placeholders(nn.Module):
    """``None`` where a width is to be filled in."""

    def __init__(self, in_dim=None, out_dim=None, hidden=5):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_dim, hidden), nn.Linear(hidden, out_dim))

    def forward(self, X):
        return self.layers(X)


class Sequence(nn.Module):
    """An LSTM over rows of steps."""

    def __init__(self, input_size=1, hidden_size=5, n_outputs=1):
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, n_outputs)

    def forward(self, X):
        return self.head(self.lstm(X)[0][:, -1])


class NeedsWidth(Sequence):
    def __init__(self, input_size, n_outputs):
        super().__init__(input_size, n_outputs=n_outputs)


class Flattened(MLP):
    def forward(self, X):
        return super().forward(X.flatten(1))


class Pictures(nn.Module):
    """Convolutions, whose input width is the number of channels."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(n_inputs, 4, 3), nn.Linear(4, n_outputs)

    def forward(self, X):
        return self.head(self.convolution(X).mean(dim=(2, 3)))


def fitted_module(module, X, y, **options):
    """The module after a fit of one epoch."""
    net = NeuralNetRegressor(module, **{**OPTIONS, "max_epochs": 1, **options})
    return MAPRegressor(net, noise=1.0, random_state=0).fit(X, y).net_.module_


def table(n_features, n_targets=1):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, n_features))
    return X, X[:, 0] if n_targets == 1 else X[:, :n_targets]


@pytest.mark.parametrize(("n_features", "n_targets"), [(4, 1), (5, 1), (4, 2), (6, 3)])
def test_a_hidden_width_stays_whatever_its_name(n_features, n_targets):
    module = fitted_module(Encoder, *table(n_features, n_targets))
    assert (module.encode[0].in_features, module.encode[0].out_features) == (n_features, 32)
    assert module.head.out_features == n_targets
    module = fitted_module(HiddenNamedInput, *table(n_features, n_targets))
    assert [tuple(layer.weight.shape) for layer in module.layers] == [
        (7, n_features),
        (n_targets, 7),
    ]


@pytest.mark.parametrize("in_features", [2, 3])
def test_a_bound_width_stays(in_features):
    bound = functools.partial(FirstColumns, in_features=in_features)
    assert fitted_module(bound, *table(5)).width == in_features
    again = functools.partial(bound, n_outputs=1)
    assert fitted_module(again, *table(5)).width == in_features
    positional = functools.partial(FirstColumns, in_features)
    assert fitted_module(positional, *table(5)).width == in_features
    by_net = {"module__in_features": in_features}
    assert fitted_module(FirstColumns, *table(5), **by_net).width == in_features


def test_a_default_that_works_stays_and_one_that_does_not_is_replaced():
    assert fitted_module(FirstColumns, *table(5)).width == 3
    assert fitted_module(FirstColumns, *table(2)).width == 2
    assert fitted_module(FirstColumns, *table(5, 2)).layer.out_features == 2


def test_no_default_and_none_are_filled_in():
    module = fitted_module(Placeholders, *table(6, 2))
    assert [tuple(layer.weight.shape) for layer in module.layers] == [(5, 6), (2, 5)]


@pytest.mark.parametrize("module", [Sequence, NeedsWidth])
def test_rows_of_steps_have_the_width_of_a_step(module):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 6, 2))
    assert fitted_module(module, X, X[:, -1, 0]).lstm.input_size == 2
    one = X[:, :, :1]
    assert fitted_module(module, one, one[:, -1, 0]).lstm.input_size == 1


def test_rows_that_are_flattened_or_have_channels():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3, 2))
    assert fitted_module(Flattened, X, X[:, 0, 0]).layers[0].in_features == 6
    X = rng.normal(size=(30, 3, 5, 6))
    assert fitted_module(Pictures, X, X[:, 0, 0, 0]).convolution.in_channels == 3


def test_a_factory_is_filled_in_as_a_class_is():
    def factory(n_features, n_outputs, out_dim=9):
        return nn.Sequential(nn.Linear(n_features, out_dim), nn.Linear(out_dim, n_outputs))

    module = fitted_module(factory, *table(4, 2))
    assert [tuple(layer.weight.shape) for layer in module] == [(9, 4), (2, 9)]


def test_what_is_tried_changes_no_random_number():
    X, y = iris()
    tried = quick_classifier(classifier_net(MLP)).fit(X, y)
    given = {"module__n_features": 4, "module__n_outputs": 3}
    named = quick_classifier(classifier_net(MLP, **given)).fit(X, y)
    assert_allclose(tried.predict_proba(X), named.predict_proba(X), rtol=0)
    state = torch.get_rng_state()
    SubnetLaplaceRegressor(regressor_net(), prior_precision=1.0, random_state=0).fit(*diabetes())
    assert torch.equal(torch.get_rng_state(), state)


class OwnModule(NeuralNetRegressor):
    """Makes its module in a method of its own, which cannot do without the widths."""

    def initialize_module(self):
        super().initialize_module()
        self.module_.is_own = True
        return self


def test_widths_of_a_module_that_the_net_makes_itself():
    X, y = diabetes()
    net = OwnModule(HiddenNamedInput, **OPTIONS)
    module = MAPRegressor(net, random_state=0).fit(X, y).net_.module_
    assert module.is_own
    assert [tuple(layer.weight.shape) for layer in module.layers] == [(7, 10), (1, 7)]
