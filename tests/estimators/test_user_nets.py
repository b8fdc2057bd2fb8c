"""A user's skorch net: its loss, data set, callbacks and split count as they are, unharmed."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn
from user_nets import (
    MLP,
    QUICK,
    FlatMLP,
    SoftmaxMLP,
    binary_net,
    cancer,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
    regressor_net,
)

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor


def trained_by_skorch(net, X, y, **widths):
    """The same net, trained by skorch alone in float64 from the library's seed."""
    net = copy.deepcopy(net).set_params(**widths)
    seed = int(np.random.RandomState(QUICK["random_state"]).randint(2**31 - 1))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net.initialize()
        net.module_.double()
        net.criterion_.double()
        net.partial_fit(X, y)
    net.module_.eval()
    return net


def raw_outputs(net, X) -> np.ndarray:
    with torch.no_grad():
        return net.module_(torch.as_tensor(X, dtype=torch.float64)).numpy()


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_softmax_losses(criterion):
    X, y = iris()
    module = SoftmaxMLP if criterion is nn.NLLLoss else MLP
    net = NeuralNetClassifier(module, criterion=criterion, max_epochs=5, verbose=0)
    net.set_params(train_split=None, lr=0.1, batch_size=len(X))
    model = quick_classifier(net).fit(X, y)
    skorch = trained_by_skorch(net, X, y)
    outputs = torch.as_tensor(raw_outputs(skorch, X))
    expected = outputs if criterion is nn.NLLLoss else outputs.softmax(dim=1)
    np.testing.assert_allclose(model.predict_proba_map(X), expected, atol=1e-9)
    assert np.abs(model.predict_proba(X) - model.predict_proba_map(X)).max() > 1e-3


@pytest.mark.parametrize("module", [MLP, FlatMLP])
def test_one_logit(module):
    X, y = cancer()
    net = binary_net(module, module__n_features=5, batch_size=len(X), max_epochs=5)
    model = quick_classifier(net).fit(X, y)
    skorch = trained_by_skorch(net, X, y.astype(float), module__n_outputs=1)
    positive = 1 / (1 + np.exp(-raw_outputs(skorch, X).ravel()))
    np.testing.assert_allclose(model.predict_proba_map(X), np.c_[1 - positive, positive], atol=1e-9)
    mean, variance = model.latent_mean_and_variance(X)
    assert mean.shape == variance.shape == (len(X), 1)
    probit = 1 / (1 + np.exp(-mean / np.sqrt(1 + np.pi / 8 * variance)))
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], probit[:, 0], atol=1e-12)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_squared_error(n_targets):
    X, y = diabetes()
    y = (y - y.mean()) / y.std()
    if n_targets == 2:
        y = np.c_[y, -2 * y + X[:, 0]]
    net = regressor_net(batch_size=len(X), max_epochs=5)
    model = quick_regressor(net, normalize_y=False, noise=0.5).fit(X, y)
    skorch = trained_by_skorch(
        net,
        X,
        y.reshape(len(y), -1),
        module__n_features=X.shape[1],
        module__n_outputs=n_targets,
    )
    expected = raw_outputs(skorch, X).reshape(y.shape)
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-9)
    mean, std = model.predict(X, return_std=True)
    assert mean.shape == std.shape == y.shape
    epistemic = model.predictive(X).std("epistemic").reshape(y.shape)
    np.testing.assert_allclose(std, np.sqrt(epistemic**2 + 0.25), rtol=1e-12)


def test_normalised_targets_change_units_only():
    X, y = diabetes()
    net = regressor_net(batch_size=len(X))
    mean, scale = y.mean(), y.std()
    inside = quick_regressor(net, noise=0.5 * scale).fit(X, y)
    outside = quick_regressor(net, noise=0.5, normalize_y=False).fit(X, (y - mean) / scale)
    for found, expected, shift in zip(
        inside.predict(X, return_std=True),
        outside.predict(X, return_std=True),
        (mean, 0),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected * scale + shift, rtol=1e-9)


class FloatRows(Dataset):
    """A user's data set: rows on demand, in float32."""

    def __init__(self, X, y=None, length=None):
        super().__init__(X, y)

    def __getitem__(self, index):
        return torch.as_tensor(self.X[index], dtype=torch.float32), self.y[index]


class FloatBatches(FloatRows):
    """One that fetches the rows of a batch at once."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


LOSSES = {
    "mean": {},
    "sum": {"criterion__reduction": "sum", "lr": 0.01},
    "class weights": {"criterion__weight": torch.tensor([1.0, 3.0, 0.5])},
    "own data set": {"dataset": FloatRows},
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_integer_weights_equal_repetition(loss):
    X, y = iris()
    # Rounded to float32, so that a data set of float32 rows holds the same numbers.
    X = X.astype(np.float32).astype(float)
    weights = np.random.default_rng(1).integers(0, 4, len(y))
    net = classifier_net(batch_size=600, optimizer=torch.optim.SGD, **loss)
    weighted = quick_classifier(net).fit(X, y, sample_weight=weights)
    repeated = quick_classifier(net).fit(X.repeat(weights, axis=0), y.repeat(weights))
    plain = quick_classifier(net).fit(X, y)
    # Selection by magnitude could flip between equal weights only.
    np.testing.assert_array_equal(weighted.subnetwork_.indices, repeated.subnetwork_.indices)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(
        weighted.log_marginal_likelihood(), repeated.log_marginal_likelihood(), rtol=1e-9
    )
    assert np.abs(weighted.predict_proba(X) - plain.predict_proba(X)).max() > 1e-3


def test_integer_weights_equal_repetition_for_the_regressor():
    X, y = diabetes()
    weights = np.random.default_rng(1).integers(0, 4, len(y))
    net = regressor_net(batch_size=600, optimizer=torch.optim.SGD)
    weighted = quick_regressor(net, prior_precision="evidence", noise=40.0)
    weighted.fit(X[:90], y[:90], sample_weight=weights[:90])
    repeated = quick_regressor(net, prior_precision="evidence", noise=40.0)
    repeated.fit(X[:90].repeat(weights[:90], axis=0), y[:90].repeat(weights[:90]))
    for found, expected in zip(
        weighted.predict(X, return_std=True), repeated.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-8)
    np.testing.assert_allclose(weighted.prior_precision_, repeated.prior_precision_, rtol=1e-6)


@pytest.mark.parametrize("dataset", [FloatRows, FloatBatches])
def test_own_data_set_trains_as_the_plain_one(dataset):
    X, y = iris()
    X = X.astype(np.float32).astype(float)
    weights = np.random.default_rng(1).integers(1, 4, len(y)).astype(float)
    plain = quick_classifier(classifier_net(batch_size=32)).fit(X, y, sample_weight=weights)
    own = quick_classifier(classifier_net(batch_size=32, dataset=dataset))
    own.fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(own.predict_proba(X), plain.predict_proba(X), atol=1e-10)


def test_class_weight_multiplies_sample_weight():
    X, y = iris()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y))
    by_class = {0: 1.0, 1: 4.0, 2: 0.5}
    model = quick_classifier(classifier_net(), class_weight=by_class).fit(
        X, y, sample_weight=weights
    )
    both = weights * np.array([by_class[label] for label in y])
    other = quick_classifier(classifier_net()).fit(X, y, sample_weight=both)
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))


class Watcher(Callback):
    """Checks the input's width as skorch's InputShapeSetter does, and counts epochs."""

    widths: list[int] = []  # noqa: RUF012

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.widths.append(X.shape[1])


def test_callback_that_reads_the_input_shape():
    X, y = iris()
    Watcher.widths.clear()
    net = classifier_net(callbacks=[("watch", Watcher())])
    plain = quick_classifier(classifier_net()).fit(X, y)
    watched = quick_classifier(net).fit(X, y)
    assert Watcher.widths == [4]
    np.testing.assert_array_equal(watched.predict_proba(X), plain.predict_proba(X))


class Disturbing(Callback):
    """Leaves the module in evaluation mode after every epoch."""

    def on_epoch_end(self, net, **kwargs):
        net.module_.eval()


class ModeWatchingMLP(MLP):
    """Notes in which mode it is called."""

    modes: list[bool] = []  # noqa: RUF012

    def forward(self, X):
        self.modes.append(self.training)
        return super().forward(X)


def test_every_batch_is_trained_in_training_mode():
    X, y = iris()
    net = classifier_net(ModeWatchingMLP)
    net.set_params(callbacks=[("disturbing", Disturbing())], batch_size=50, max_epochs=3)
    ModeWatchingMLP.modes.clear()
    quick_classifier(net).fit(X, y)
    training = [i for i, mode in enumerate(ModeWatchingMLP.modes) if mode]
    # Three epochs of three batches, one after the other, and no pass in the other mode between.
    assert np.diff(training).tolist() == [1] * 8


def test_early_stopping_keeps_the_best_weights():
    X, y = iris()
    stop = EarlyStopping(patience=2, load_best=True, sink=lambda *_: None)
    net = classifier_net(lr=0.5, max_epochs=80, train_split=ValidSplit(5), callbacks=[("s", stop)])
    model = quick_classifier(net).fit(X, y)
    history = model.net_.history
    assert len(history) < 80
    best = min(row["valid_loss"] for row in history)
    assert history[-3]["valid_loss"] == best
    shorter = quick_classifier(net.set_params(callbacks__s=None, max_epochs=len(history) - 2))
    np.testing.assert_allclose(
        model.predict_proba_map(X), shorter.fit(X, y).predict_proba_map(X), atol=1e-12
    )


def test_learning_rate_schedule():
    X, y = iris()
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.0)
    net = classifier_net(max_epochs=6, callbacks=[("schedule", schedule)])
    # With a rate of zero from the second epoch on, six epochs are one.
    model = quick_classifier(net).fit(X, y)
    one = quick_classifier(classifier_net(max_epochs=1)).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), one.predict_proba(X))


def rows_seen(history, kind: str) -> int:
    """Rows of the first epoch's training or validation batches."""
    return sum(batch.get(f"{kind}_batch_size", 0) for batch in history[0]["batches"])


def test_train_split_decides_what_is_held_out():
    X, y = iris()
    for split, n_train, n_valid in [(None, 150, 0), (ValidSplit(5), 120, 30)]:
        net = classifier_net(train_split=split, max_epochs=2)
        history = quick_classifier(net, prior_precision=1.0).fit(X, y).net_.history
        assert rows_seen(history, "train") == n_train
        assert rows_seen(history, "valid") == n_valid


@pytest.mark.parametrize("prior_precision", [1.0, "validation"])
def test_train_split_by_a_cross_validator_holds_out_its_first_fold(prior_precision):
    X, y = iris()
    net = classifier_net(train_split=ValidSplit(KFold(3)), max_epochs=2)
    model = quick_classifier(net, prior_precision=prior_precision).fit(X, y)
    assert rows_seen(model.net_.history, "train") == 100
    log_p = np.log(model.predict_proba_map(X[:50])[np.arange(50), y[:50]])
    assert model.net_.history[-1]["valid_loss"] == pytest.approx(-log_p.mean(), rel=1e-6)


def with_mirrored_rows(dataset, y):
    """Train on all rows and their mirror images, and validate on the first ten."""
    X = np.asarray(dataset.X, dtype=np.float32)
    mirrored = Dataset(np.concatenate([X, -X]), np.concatenate([y, y]))
    return mirrored, Dataset(X[:10], y[:10])


def test_train_split_that_gives_other_rows_is_the_nets_own():
    X, y = iris()
    model = quick_classifier(classifier_net(train_split=with_mirrored_rows, max_epochs=2)).fit(X, y)
    assert rows_seen(model.net_.history, "train") == 300
    log_p = np.log(model.predict_proba_map(X[:10].astype(np.float32))[np.arange(10), y[:10]])
    assert model.net_.history[-1]["valid_loss"] == pytest.approx(-log_p.mean(), rel=1e-6)


@pytest.mark.parametrize("prior_precision", [1.0, "validation"])
def test_predefined_split_validates_on_its_own_rows(prior_precision):
    X, y = iris()
    X_valid, y_valid = X[:30].astype(np.float32), y[:30]
    split = predefined_split(Dataset(X_valid, y_valid))
    net = classifier_net(train_split=split, max_epochs=3)
    model = quick_classifier(net, prior_precision=prior_precision).fit(X[30:], y[30:])
    log_p = np.log(model.predict_proba_map(X_valid)[np.arange(30), y_valid])
    assert model.net_.history[-1]["valid_loss"] == pytest.approx(-log_p.mean(), rel=1e-6)
    n_train = rows_seen(model.net_.history, "train")
    assert n_train == (120 if prior_precision == 1.0 else 96)


def test_float32_is_close_to_float64():
    X, y = iris()
    single = quick_classifier(classifier_net(), dtype="float32").fit(X, y)
    double = quick_classifier(classifier_net()).fit(X, y)
    assert {p.dtype for p in single.net_.module_.parameters()} == {torch.float32}
    assert single.predict_proba(X).dtype == np.float64
    np.testing.assert_allclose(single.predict_proba(X), double.predict_proba(X), atol=1e-4)


def test_string_labels():
    X, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"])
    for labels in (names, names.astype(object)):
        model = quick_classifier(classifier_net()).fit(X, labels[y])
        number = quick_classifier(classifier_net()).fit(X, y)
        assert model.classes_.tolist() == names.tolist()
        np.testing.assert_array_equal(model.predict_proba(X), number.predict_proba(X))
        np.testing.assert_array_equal(model.predict(X), names[number.predict(X)])


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_batch_size_does_not_matter(covariance):
    X, y = iris()
    options = {"covariance": covariance, "prior_precision": "evidence"}
    whole = quick_classifier(batch_size=None, **options).fit(X, y)
    assert whole.latent_mean_and_variance(X)[1].min() > 1e-4
    for batch_size in (1, 7, 1000):
        model = quick_classifier(batch_size=batch_size, **options).fit(X, y)
        for found, expected in zip(
            model.latent_mean_and_variance(X), whole.latent_mean_and_variance(X), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_no_warning_in_a_plain_fit():
    X, y = iris()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick_classifier(classifier_net(), selection="swag").fit(X, y).predict_proba(X)
        model = SubnetLaplaceRegressor(prior_precision="evidence", random_state=0)
        model.fit(*diabetes()).predict(diabetes()[0], return_std=True)
        SubnetLaplaceClassifier(random_state=0).fit(*load_digits(return_X_y=True))
