"""What a user reads when net, memory or training do not fit, and the warnings that teach."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from torch import nn
from torch.utils.data import default_collate
from user_nets import (
    MLP,
    OPTIONS,
    CountedMLP,
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

from sksubnet.posterior.memory import curvature_bytes, largest_that_fits


@pytest.mark.parametrize(
    ("net", "width", "needed"),
    [
        (classifier_net(module__n_outputs=2), "2 outputs", "needs 3 outputs"),
        (classifier_net(module__n_outputs=5), "5 outputs", "needs 3 outputs"),
        (binary_net(module__n_outputs=1), "1 output", "2 classes"),
    ],
)
def test_output_width_does_not_match_the_classes(net, width, needed):
    assert_refused(lambda: quick_classifier(net).fit(*iris()), width, "3 classes", needed)


def test_binary_loss_with_two_outputs():
    net = binary_net(module__n_outputs=2, module__n_features=5)
    assert_refused(
        lambda: quick_classifier(net).fit(*cancer()), "one output", "2", "CrossEntropyLoss"
    )


def test_output_width_does_not_match_the_targets():
    X, y = diabetes()
    net = regressor_net(module__n_outputs=3)
    assert_refused(lambda: quick_regressor(net).fit(X, np.c_[y, y]), "3 outputs", "2 targets")


def test_input_width_does_not_match_the_table():
    X, y = iris()
    net = classifier_net(module__n_features=7)
    assert_refused(lambda: quick_classifier(net).fit(X, y), "(4,)", "mat1 and mat2", "input width")


class TupleMLP(MLP):
    def forward(self, X):
        return super().forward(X), X


class SequenceMLP(MLP):
    def forward(self, X):
        return super().forward(X)[:, None, :]


class PooledMLP(MLP):
    def forward(self, X):
        return super().forward(X).mean(dim=0, keepdim=True)


def test_what_the_module_returns():
    X, y = iris()
    assert_refused(
        lambda: quick_classifier(classifier_net(TupleMLP)).fit(X, y),
        "returned a tuple",
        "one tensor",
        "forward",
        error=TypeError,
    )
    for module, shape in [(SequenceMLP, "(2, 1, 3)"), (PooledMLP, "(1, 3)")]:
        assert_refused(
            lambda m=module: quick_classifier(classifier_net(m)).fit(X, y),
            shape,
            "(n_rows, n_outputs)",
        )


def test_something_else_than_a_skorch_net():
    X, y = iris()
    for net, name in [
        (LogisticRegression(), "LogisticRegression"),
        (FrozenEstimator(LogisticRegression().fit(X, y)), "LogisticRegression"),
    ]:
        assert_refused(
            lambda n=net: quick_classifier(n).fit(X, y),
            name,
            "skorch net",
            "FrozenEstimator(fitted_net)",
            "None",
            error=TypeError,
        )
    for net in (MLP(), MLP, "net"):
        assert_refused(
            lambda n=net: quick_classifier(n).fit(X, y),
            "net=",
            "skorch net",
            "NeuralNetClassifier(Module)",
            error=TypeError,
        )


def test_unfitted_net_in_a_frozen_estimator():
    frozen = FrozenEstimator(classifier_net())
    assert_refused(lambda: quick_classifier(frozen).fit(*iris()), "FrozenEstimator", "fit it first")


def test_criterion_without_a_likelihood():
    known = ["CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss", "MSELoss"]
    net = classifier_net(criterion=nn.MultiMarginLoss)
    assert_refused(lambda: quick_classifier(net).fit(*iris()), "MultiMarginLoss", *known)
    net = regressor_net(criterion=nn.L1Loss)
    assert_refused(lambda: quick_regressor(net).fit(*diabetes()), "L1Loss", *known)


def test_criterion_of_the_other_task():
    X, y = iris()
    net = NeuralNetClassifier(MLP, criterion=nn.MSELoss, train_split=None, verbose=0)
    assert_refused(
        lambda: quick_classifier(net).fit(X, y), "MSELoss", "regression", "CrossEntropyLoss"
    )
    X, y = diabetes()
    for criterion in (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss):
        net = regressor_net(criterion=criterion)
        assert_refused(
            lambda n=net: quick_regressor(n).fit(X, y),
            criterion.__name__,
            "classification",
            "MSELoss",
        )


class CannotPredict(NeuralNetClassifier):
    def predict_proba(self, X):
        raise RuntimeError("no such table")


class HalfOfTheRows(Dataset):
    def __len__(self):
        return super().__len__() // 2


class SeveralTargets(Dataset):
    def transform(self, X, y):
        X, y = super().transform(X, y)
        return X, (y, y)


class OneOrTwoSteps(Dataset):
    """Rows of different lengths, which the collate function pads for each batch."""

    def transform(self, X, y):
        X, y = super().transform(X, y)
        return np.tile(X, (1 + (X[0] > 0), 1)), y


def padded_in_a_batch(items):
    longest = max(len(steps) for steps, _ in items)
    rows = [(np.pad(steps, ((0, longest - len(steps)), (0, 0))), y) for steps, y in items]
    return default_collate(rows)


class Summed(MLP):
    def forward(self, X):
        return super().forward(X.sum(dim=1))


PADDED = dict.fromkeys(
    ["iterator_train__collate_fn", "iterator_valid__collate_fn"], padded_in_a_batch
)
NETS = {
    "predictions fail": (
        CannotPredict(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS),
        ["The net itself cannot predict (no such table)", "look at predict_proba"],
    ),
    "fewer rows": (
        classifier_net(dataset=HalfOfTheRows),
        ["gave [1] rows for 2", "one for each, in their order", "look at dataset"],
    ),
    "several targets": (
        classifier_net(dataset=SeveralTargets),
        ["data set changes y", "look at dataset"],
    ),
    "rows of different lengths": (
        classifier_net(Summed, dataset=OneOrTwoSteps, **PADDED | {"batch_size": 2}),
        ["cannot be joined", "padded to one length"],
    ),
    "weight of positions": (
        binary_net(module__n_outputs=1, criterion__weight=torch.ones(1)),
        ["BCEWithLogitsLoss has `weight` set", "use `pos_weight`, class_weight or sample_weight"],
    ),
    "learning rate": (classifier_net(lr=-1.0), ["Invalid learning rate: -1.0"]),
}


@pytest.mark.parametrize(("net", "parts"), NETS.values(), ids=NETS)
def test_what_a_net_cannot_be_given(net, parts):
    X, y = iris()
    if net.criterion is nn.BCEWithLogitsLoss:
        X, y = cancer()
    assert_refused(lambda: quick_classifier(net).fit(X, y), *parts)


@pytest.mark.parametrize("available", [10**4, 10**6, 10**8])
@pytest.mark.parametrize("n_factors", [7, 100, 5000])
def test_largest_that_fits(available, n_factors):
    fitting = [s for s in range(1, 10**4) if curvature_bytes(s, n_factors, s) <= available]
    largest = largest_that_fits(available, n_factors)
    assert curvature_bytes(largest, n_factors, largest) <= available
    assert curvature_bytes(largest + 1, n_factors, largest + 1) > available
    assert largest >= max(fitting)


class UntrainedMLP(MLP):
    """Must not be trained."""

    def forward(self, X):
        assert not self.training
        return super().forward(X)


@pytest.mark.parametrize("model", [quick_classifier, quick_regressor])
def test_too_large_for_the_memory_before_training(model):
    rng = np.random.default_rng(0)
    # So many rows that the dual form does not help either.
    X, y = rng.normal(size=(200_000, 2)), rng.integers(0, 3, 200_000)
    n_outputs = 3 if model is quick_classifier else 1
    net = (classifier_net if model is quick_classifier else regressor_net)(UntrainedMLP)
    net.set_params(module__hidden=1_000_000)
    # A softmax over C classes gives C - 1 rows of curvature.
    n_factors = len(X) * max(1, n_outputs - 1)
    # Of each layer its inputs and the gradients of its outputs are kept.
    n_kept = (2 + 10**6) + (10**6 + n_outputs)
    needed = 8 * (2 * n_factors * n_kept + 3 * n_factors**2)
    assert_refused(
        lambda: model(net, subnetwork_size="all").fit(X, y),
        f"{2 + n_outputs}000000 weights",
        f"{needed / 2**30:.1f} GiB",
        "subnetwork_size <= ",
        "covariance='diag'",
    )


def test_memory_message_has_sizes_that_hold(monkeypatch):
    X, y = iris()
    n_candidates = 8 * 4 + 8 * 3
    # Room for three matrices of 40 by 40 numbers.
    monkeypatch.setattr("sksubnet.posterior.memory.available_memory", lambda: 3 * 8 * 40**2)
    CountedMLP.training_passes.clear()
    net = classifier_net(CountedMLP)
    assert_refused(
        lambda: quick_classifier(net, subnetwork_size="all").fit(X, y),
        f"{n_candidates} weights",
        "subnetwork_size <= 40,",
    )
    assert CountedMLP.training_passes == []
    assert_refused(
        lambda: quick_classifier(net, subnetwork_size=41).fit(X, y), "41 weights", "<= 40,"
    )
    assert len(quick_classifier(net, subnetwork_size=40).fit(X, y).subnetwork_) == 40
    diagonal = quick_classifier(net, subnetwork_size="all", covariance="diag").fit(X, y)
    assert len(diagonal.subnetwork_) == n_candidates


class DivergingMLP(MLP):
    def __init__(self, n_features=2, n_outputs=1):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_outputs))


def test_divergence_names_the_learning_rate():
    net = regressor_net(DivergingMLP, lr=1e6, optimizer=torch.optim.SGD, max_epochs=20)
    assert_refused(
        lambda: quick_regressor(net).fit(*diabetes()), "diverged", "lr=1000000", "net__lr"
    )


def test_selected_weights_without_effect_warn():
    X, y = iris()
    # Weights behind a column that is always 0 have the largest variance there is.
    X = np.c_[X, np.zeros((len(X), 3))]
    with pytest.warns(UserWarning, match="almost no effect") as caught:
        model = quick_classifier(selection="variance", subnetwork_size=24).fit(X, y)
    message = str(caught[0].message)
    for part in ("24 selected weights", "24 have none", "the trained net", "'greedy'"):
        assert part in message
    np.testing.assert_allclose(model.predict_proba(X), model.predict_proba_map(X), atol=1e-3)
    assert set(model.subnetwork_.indices % 7) == {4, 5, 6}
    assert caught[0].filename == __file__


def test_prior_precision_on_the_edge_is_told_by_the_summary():
    X, y = iris()
    # An underfitted net is not sure enough as it is: variance can only hurt.
    net = classifier_net(max_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quick_classifier(net, prior_precision="validation").fit(X, y)
    assert model.tuning_.at_edge == "upper"
    assert model.prior_precision_ == pytest.approx(float(model.tuning_.grid[-1]))
    for part in ("upper limit", "least variance", "prior_precision takes a number"):
        assert part in model.tuning_.summary()


def test_module_instance_warns():
    with pytest.warns(UserWarning, match="module instance") as caught:
        quick_classifier(classifier_net(MLP())).fit(*iris())
    assert "Pass the module's class" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("selection", ["swag", "magnitude", "random", "last_layer", "variance"])
def test_plain_fit_is_silent(selection, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick_classifier(selection=selection).fit(*iris()).predict_proba(iris()[0])
        quick_regressor(selection=selection).fit(*diabetes()).predict(
            diabetes()[0], return_std=True
        )
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == ""
