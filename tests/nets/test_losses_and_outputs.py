"""Outputs, losses and class weights that are no likelihood's: refused by name, or told of."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from user_nets import (
    MLP,
    OPTIONS,
    FlatMLP,
    assert_refused,
    binary_net,
    cancer,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
    regressor_net,
)

from sksubnet import DeepEnsembleClassifier, MAPClassifier, MAPRegressor

X, Y = iris()


def ending_in(step):
    """A module whose last step is a function."""

    class Ending(MLP):
        def forward(self, rows):
            return step(super().forward(rows))

    return Ending


def log_softmax(outputs):
    return outputs.log_softmax(dim=-1)


def softmax(outputs):
    return outputs.softmax(dim=-1)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (torch.sigmoid, "add up to"),
        (torch.relu, "add up to"),
        (lambda z: z, "between 0 and 1"),
        (lambda z: z.softmax(dim=0), "add up to"),
        (log_softmax, "logarithms of probabilities"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_outputs_that_are_no_probabilities(step, said, frozen):
    net = classifier_net(ending_in(step), criterion=nn.NLLLoss, max_epochs=1)
    if frozen:
        net = FrozenEstimator(net.initialize())
    parts = ["NLLLoss", said, "CrossEntropyLoss", "softmax"]
    assert_refused(lambda: quick_classifier(net).fit(X, Y), *parts)


def test_logits_where_log_probabilities_are_needed():
    def fit(step):
        options = {**OPTIONS, "max_epochs": 1, "predict_nonlinearity": torch.exp}
        net = NeuralNet(ending_in(step), nn.NLLLoss, **options)
        return quick_classifier(net).fit(X, Y)

    assert np.isfinite(fit(log_softmax).predict_proba(X)).all()
    for step in (softmax, lambda z: z):
        assert_refused(lambda s=step: fit(s), "NLLLoss", "logarithms of prob", "log_softmax")


@pytest.mark.parametrize("module", [MLP, FlatMLP])
def test_an_activation_that_the_criterion_has_too(module):
    class Ending(module):
        def forward(self, rows):
            return torch.sigmoid(super().forward(rows))

    binary = quick_classifier(binary_net(Ending, module__n_features=5, module__n_outputs=1))
    soft = quick_classifier(classifier_net(ending_in(softmax)))
    for model, table, name in [(binary, cancer(), "sigmoid"), (soft, (X, Y), "softmax")]:
        with pytest.warns(UserWarning, match=f"ends in a {name}.*applies another") as caught:
            model.fit(*table)
        assert caught[0].filename == __file__


def test_no_word_about_log_softmax_before_cross_entropy():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick_classifier(classifier_net(ending_in(log_softmax))).fit(X, Y)


def with_loss(loss, base=NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return loss(self, y_pred, y_true, X)

    return type("OwnLoss", (base,), {"get_loss": get_loss})


def criterion_loss(net, z, y, X):
    return NeuralNetClassifier.get_loss(net, z, y, X=X)


def focal(net, z, y, X):
    chosen = z.log_softmax(dim=1).gather(1, y[:, None])
    return -((1 - chosen.exp()).square() * chosen).mean()


OTHER_LOSSES = {
    "focal": focal,
    "smoothed": lambda net, z, y, X: F.cross_entropy(z, y, label_smoothing=0.2),
    "squared": lambda net, z, y, X: F.mse_loss(z, F.one_hot(y, 3).to(z)),
    "of classes": lambda net, z, y, X: F.cross_entropy(z, y, torch.tensor([1.0, 5, 1]).to(z)),
    "by rows": lambda net, z, y, X: (X[:, 0] * F.cross_entropy(z, y, reduction="none")).mean(),
    "entropy": lambda net, z, y, X: criterion_loss(net, z, y, X) - z.softmax(1).square().mean(),
    "nothing": lambda net, z, y, X: net.module_.layers[0].weight.square().sum(),
}
SAME_LOSSES = {
    "scaled": lambda net, z, y, X: 3 * criterion_loss(net, z, y, X),
    "penalty": lambda net, z, y, X: (
        criterion_loss(net, z, y, X) + net.module_.layers[0].weight.square().sum()
    ),
    "by hand": lambda net, z, y, X: -z.log_softmax(dim=1).gather(1, y[:, None]).mean(),
}


@pytest.mark.parametrize("loss", OTHER_LOSSES.values(), ids=OTHER_LOSSES.keys())
def test_another_loss_than_the_criterion(loss):
    net = with_loss(loss)(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS)
    parts = ["get_loss", "CrossEntropyLoss", "another loss", "class_weight"]
    assert_refused(lambda: quick_classifier(net).fit(X, Y), *parts)


@pytest.mark.parametrize("loss", SAME_LOSSES.values(), ids=SAME_LOSSES.keys())
def test_the_loss_of_the_criterion_by_other_words(loss):
    net = with_loss(loss)(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS)
    assert np.isfinite(quick_classifier(net).fit(X, Y).predict_proba(X)).all()


def test_another_loss_of_a_regressor():
    rows, y = diabetes()
    absolute = with_loss(lambda net, z, y, X: F.l1_loss(z, y.reshape(z.shape)), NeuralNetRegressor)
    net = absolute(MLP, **OPTIONS)
    assert_refused(lambda: quick_regressor(net).fit(rows, y), "get_loss", "MSELoss")
    squared = with_loss(lambda net, z, y, X: F.mse_loss(z, y.reshape(z.shape)), NeuralNetRegressor)
    quick_regressor(squared(MLP, **OPTIONS)).fit(rows, y)


class Cast(MLP):
    def forward(self, rows):
        return super().forward(rows.float())


class Constant(MLP):
    def __init__(self, n_features=4, n_outputs=3):
        super().__init__(n_features, n_outputs)
        self.rotation = torch.eye(n_features)

    def forward(self, rows):
        return super().forward(rows @ self.rotation)


class InitialState(nn.Module):
    def __init__(self, n_outputs=3):
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 5, batch_first=True), nn.Linear(5, n_outputs)

    def forward(self, rows):
        start = torch.zeros(1, len(rows), 5)
        return self.head(self.lstm(rows[:, :, None], (start, start))[0][:, -1])


class Doubled(MLP):
    def forward(self, rows):
        return super().forward(rows.double())


@pytest.mark.parametrize(
    ("module", "works"),
    [(Cast, "float32"), (Constant, "float32"), (InitialState, "float32"), (Doubled, "float64")],
)
def test_a_module_that_runs_in_one_type(module, works):
    other = {"float32": "float64", "float64": "float32"}[works]
    model = quick_classifier(classifier_net(module, max_epochs=1), dtype=other)
    assert_refused(
        lambda: model.fit(X, Y), f"dtype='{works}'", f"not in {other}", "register_buffer"
    )
    model.set_params(dtype=works).fit(X, Y)


class Squeezed(MLP):
    def forward(self, rows):
        return super().forward(rows).squeeze()


@pytest.mark.parametrize("batch_size", [64, 40])
def test_squeezed_outputs_are_those_of_the_plain_net(batch_size):
    # the last batch of 121 rows in batches of 40 is one row
    rows, y = diabetes()
    rows, y = np.r_[rows, rows[:1]], np.r_[y, y[:1]]
    options = {"batch_size": batch_size, "max_epochs": 2}
    plain = quick_regressor(regressor_net(MLP, **options)).fit(rows, y)
    squeezed = quick_regressor(regressor_net(Squeezed, **options)).fit(rows, y)
    for found, expected in zip(
        squeezed.predict(rows, return_std=True), plain.predict(rows, return_std=True), strict=True
    ):
        assert_allclose(found, expected, rtol=1e-9)
    assert_allclose(squeezed.predict(rows[:1]), plain.predict(rows[:1]), rtol=1e-9)


def test_squeezed_logits_of_several_classes():
    options = {"batch_size": 149, "max_epochs": 2}
    plain = quick_classifier(classifier_net(MLP, **options)).fit(X, Y)
    squeezed = quick_classifier(classifier_net(Squeezed, **options)).fit(X, Y)
    assert_allclose(squeezed.predict_proba(X), plain.predict_proba(X), rtol=1e-9)


def trained(labels, module=MLP, **options):
    net = classifier_net(module, **{"max_epochs": 40, "lr": 0.05, **options})
    return FrozenEstimator(net.fit(X.astype(np.float32), labels))


def test_a_frozen_net_with_other_classes():
    # in sorted order: high, low, middle
    for labels in ((Y + 1) % 3, np.array(["low", "middle", "high"])[Y]):
        for model in (quick_classifier(trained(Y)), MAPClassifier(trained(Y))):
            with pytest.warns(UserWarning, match="than a constant.*in another order") as caught:
                model.fit(X, labels)
            assert caught[0].filename == __file__


def test_a_frozen_net_in_other_units():
    rows, y = diabetes()
    net = regressor_net(max_epochs=60, module__n_features=rows.shape[1], module__n_outputs=1)
    scaled = (y - y.mean()) / y.std()
    net.fit(rows.astype(np.float32), scaled[:, None].astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MAPRegressor(FrozenEstimator(net)).fit(rows, scaled)
        quick_classifier(trained(Y)).fit(X, Y)
    with pytest.warns(UserWarning, match="times that of the mean of y.*scaled targets"):
        MAPRegressor(FrozenEstimator(net)).fit(rows, 1000 + y)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "a", None])
@pytest.mark.parametrize("net", [None, classifier_net(max_epochs=1)], ids=["default", "user's"])
def test_class_weights_that_are_none(value, net):
    model = quick_classifier(net, class_weight={0: value}, cv=None)
    assert_refused(lambda: model.fit(X, Y), "class_weight", repr(value), "class 0", "at least 0")


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([1.0, -1.0, 1.0], "-1.0"),
        ([1.0, np.nan, 1.0], "nan"),
        ([1.0, 1.0], "give 3 finite numbers"),
        ([1.0, 0.0, 0.0], "fewer than 2 classes"),
    ],
)
def test_weights_of_the_criterion_that_are_none(weight, said):
    net = classifier_net(criterion__weight=torch.tensor(weight))
    assert_refused(lambda: quick_classifier(net).fit(X, Y), "CrossEntropyLoss", "weight=", said)


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_positive_weights_that_are_none(value):
    rows, y = cancer()
    net = binary_net(module__n_features=5, criterion__pos_weight=torch.tensor(value))
    assert_refused(lambda: quick_classifier(net).fit(rows, y), "pos_weight", str(value))


WEIGHTLESS = {
    "sample_weight": ({}, {}, np.where(Y == 1, 0.0, 1.0)),
    "class_weight": ({"class_weight": {0: 1, 1: 0, 2: 1}}, {}, None),
    "criterion": ({}, {"criterion__weight": torch.tensor([1.0, 0.0, 1.0])}, None),
}


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_a_class_that_weighs_nothing_keeps_its_column(name):
    options, of_net, weights = WEIGHTLESS[name]
    net = classifier_net(max_epochs=60, batch_size=5, **of_net)
    model = quick_classifier(net, **options).fit(X, Y, weights)
    assert model.classes_.tolist() == [0, 1, 2]
    probabilities = model.predict_proba_map(X)
    assert probabilities.shape == (len(X), 3)
    assert probabilities[Y != 1, 1].mean() < 0.02
    assert (model.predict(X)[Y != 1] == Y[Y != 1]).mean() > 0.95


def test_ways_to_take_the_weight_of_a_class_are_the_same():
    found = []
    for options, _, weights in list(WEIGHTLESS.values())[:2]:
        net = classifier_net(max_epochs=3)
        found.append(quick_classifier(net, **options).fit(X, Y, weights).predict_proba(X))
    assert_allclose(found[0], found[1], rtol=1e-12)


def test_an_ensemble_keeps_the_column_too():
    weights = np.where(Y == 1, 0.0, 1.0)
    model = DeepEnsembleClassifier(classifier_net(max_epochs=2), n_members=2, random_state=0)
    assert model.fit(X, Y, weights).predict_proba(X).shape == (len(X), 3)
    member = model.estimators_[0]
    alone = MAPClassifier(classifier_net(max_epochs=2), random_state=member.random_state)
    expected = alone.fit(X, Y, weights).predict_proba(X)
    assert_allclose(member.predict_proba(X), expected, rtol=1e-12)


def test_balanced_weights_count_sample_weights():
    weights = np.random.default_rng(0).integers(0, 4, len(Y)).astype(float)
    model = quick_classifier(classifier_net(batch_size=600), class_weight="balanced")
    totals = np.bincount(Y, weights)
    by_hand = weights * (totals.sum() / (3 * totals))[Y]
    plain = quick_classifier(classifier_net(batch_size=600)).fit(X, Y, by_hand)
    assert_allclose(model.fit(X, Y, weights).predict_proba(X), plain.predict_proba(X), rtol=1e-9)
