"""Training by skorch's own extension points: row weights, callbacks, pickles, threads, Ctrl-C."""

import contextlib
import copy
import pickle
import signal
import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EpochScoring, Freezer, InputShapeSetter
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import DataLoader, Subset, default_collate
from user_nets import (
    MLP,
    Counts,
    FlatMLP,
    assert_refused,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
    regressor_net,
)

from sksubnet import MAPClassifier, MAPRegressor
from sksubnet.nets import RandomStream
from sksubnet.nets.criteria import BatchWeights, with_row_weights
from sksubnet.nets.loading import RowLoader, WeightedLoader, with_weights
from sksubnet.nets.training import held_out_share

CRITERIA = {
    "cross entropy": nn.CrossEntropyLoss(),
    "cross entropy of classes": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0, 0.5]).double()),
    "log probabilities": nn.NLLLoss(weight=torch.tensor([1.0, 3.0, 0.5]).double()),
    "one logit": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0).double()),
    "squares": nn.MSELoss(),
}


def batch(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets of six rows, floating targets with one axis less."""
    generator = torch.Generator().manual_seed(0)
    one = name in ("one logit", "squares")
    outputs = torch.randn(6, 1 if one else 3, generator=generator, dtype=torch.float64)
    if name == "log probabilities":
        outputs = outputs.log_softmax(1)
    classes = torch.tensor([0, 1, 2, 1, 0, 1])
    return outputs, (classes > 0).float() if one else classes


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", CRITERIA)
def test_a_weight_of_two_is_two_rows(name, reduction):
    criterion = pickle.loads(pickle.dumps(CRITERIA[name]))
    criterion.reduction = reduction
    outputs, targets = batch(name)
    counts = torch.tensor([1, 2, 1, 3, 1, 0])
    weights = BatchWeights()
    weighted = with_row_weights(criterion, weights)
    assert isinstance(weighted, type(criterion))
    weights.leave(counts.double())
    ours, theirs = (outputs.clone().requires_grad_() for _ in range(2))
    found = weighted(ours, targets)
    repeated = targets.repeat_interleave(counts).double().reshape(-1, 1)
    if not targets.is_floating_point():
        repeated = targets.repeat_interleave(counts)
    expected = criterion(theirs.repeat_interleave(counts, dim=0), repeated)
    assert_allclose(found.item(), expected.item(), rtol=1e-14)
    found.backward()
    expected.backward()
    assert_allclose(ours.grad, theirs.grad, atol=1e-15)


class OwnLoss(NeuralNetClassifier):
    """Adds nothing to the net's own loss, but goes through the criterion."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        assert isinstance(self.criterion_, nn.CrossEntropyLoss)
        return super().get_loss(y_pred, y_true, X=X, training=training) + 0.0


class Bypassing(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return nn.functional.cross_entropy(y_pred, y_true)


class OwnIterator(NeuralNetClassifier):
    """Makes its own loader, whatever the net is told."""

    def get_iterator(self, dataset, training=False):
        return DataLoader(dataset, batch_size=64)


def test_own_get_loss_with_weights():
    X, y = iris()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y))
    own = quick_classifier(OwnLoss(MLP, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0))
    plain = quick_classifier(
        NeuralNetClassifier(MLP, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0)
    )
    found, expected = (m.fit(X, y, sample_weight=weights).predict_proba(X) for m in (own, plain))
    assert_allclose(found, expected, atol=1e-12)


class NeedsItsCallback(NeuralNetClassifier):
    """Its loss looks at what a callback leaves for the batch, and fails without."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return self.factor * super().get_loss(y_pred, y_true, X=X, training=training)


class LeavesAFactor(Callback):
    def on_batch_begin(self, net, **_):
        net.factor = 1.0


def test_a_loss_that_runs_in_training_only():
    X, y = iris()
    net = NeedsItsCallback(MLP, criterion=nn.CrossEntropyLoss, callbacks=[LeavesAFactor()])
    net.set_params(train_split=None, verbose=0, max_epochs=3)
    plain = classifier_net(optimizer=torch.optim.SGD, lr=0.01, batch_size=128, max_epochs=3)
    found, expected = (quick_classifier(n).fit(X, y).predict_proba(X) for n in (net, plain))
    assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("net_class", [Bypassing, OwnIterator])
def test_weights_that_would_have_no_effect_are_refused(net_class):
    X, y = iris()
    net = net_class(MLP, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=2)
    quick_classifier(net).fit(X, y)
    weights = np.linspace(1, 2, len(y))
    assert_refused(
        lambda: quick_classifier(net).fit(X, y, sample_weight=weights),
        "sample_weight",
        "no effect",
        "Fit without",
    )


class OwnDataset(Dataset):
    """Reads rows as skorch's does, but is the user's, and so is read by torch's loader."""


class Asks(Callback):
    """Predicts rows at some event, as a score without the predictions of the epoch does."""

    def __init__(self, event, rows):
        self.event, self.rows = event, rows

    def notice(self, event, net):
        if event == self.event:
            net.history.record("n_predicted", len(net.predict(self.rows(self.dataset_))))

    def on_epoch_begin(self, net, dataset_train=None, **_):
        self.dataset_ = dataset_train

    def on_batch_begin(self, net, **_):
        self.notice("batch begin", net)

    def on_batch_end(self, net, **_):
        self.notice("batch end", net)

    def on_epoch_end(self, net, **_):
        self.notice("epoch end", net)


ROWS_OF = {
    "all": (lambda dataset: dataset, 120),
    "some": (lambda dataset: Subset(dataset, [2, 9]), 2),
    "others": (lambda dataset: iris()[0][:7], 7),
}


@pytest.mark.parametrize("dataset", [Dataset, OwnDataset])
@pytest.mark.parametrize("rows", ROWS_OF)
@pytest.mark.parametrize("event", ["batch begin", "batch end", "epoch end"])
def test_a_callback_may_predict_rows_in_a_weighted_training(event, rows, dataset):
    X, y = iris()
    options = {"dataset": dataset, "train_split": ValidSplit(5), "max_epochs": 2}
    take, n_rows = ROWS_OF[rows]
    plain, asked = (
        quick_classifier(classifier_net(callbacks=callbacks, **options))
        .fit(X, y, sample_weight=np.geomspace(0.1, 5, len(y)))
        .net_.history
        for callbacks in (None, [Asks(event, take)])
    )
    losses = ("train_loss", "valid_loss")
    assert_array_equal(asked[:, losses], plain[:, losses])
    assert asked[:, "n_predicted"] == [n_rows, n_rows]


@pytest.mark.parametrize(("batch_size", "drop_last", "n_batches"), [
    (64, False, 3), (64, True, 2), (50, False, 3), (50, True, 3), (-1, False, 1)
])  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
def test_loaders_know_their_batches(weighted, batch_size, drop_last, n_batches):
    X, y = iris()
    options = {"batch_size": batch_size, "iterator_train__drop_last": drop_last, "max_epochs": 2}
    weights = np.linspace(1, 2, len(y)) if weighted else None
    histories = [
        quick_classifier(classifier_net(dataset=dataset, callbacks=[Counts()], **options))
        .fit(X, y, weights)
        .net_.history
        for dataset in (Dataset, OwnDataset)
    ]
    for history in histories:
        size = 150 if batch_size == -1 else batch_size
        assert history[:, "expected"] == [(n_batches, size)] * 2
        assert history[:, "train_batch_count"] == [n_batches] * 2
    assert_array_equal(*(history[:, "train_loss"] for history in histories))


def test_scores_of_the_training_rows_with_weights():
    """Predicted anew, as skorch takes the targets from a data set of its own kind only."""
    X, y = iris()
    options = {"use_caching": False, "on_train": True, "name": "score"}
    histories = [
        quick_classifier(
            classifier_net(
                dataset=dataset,
                callbacks=[EpochScoring("accuracy", **options)],
                train_split=ValidSplit(5),
            )
        )
        .fit(X, y, sample_weight=np.geomspace(0.1, 5, len(y)))
        .net_.history
        for dataset in (Dataset, OwnDataset)
    ]
    scores = histories[0][:, "score"]
    assert len(set(scores)) > 2
    assert histories[1][:, "score"] == scores


class Doubled(Dataset):
    def transform(self, X, y):
        return 2 * X, y


def test_weighted_rows_are_transformed_by_the_users_dataset():
    X, y = iris()
    dataset = with_weights(Doubled(X, y), torch.ones(len(y)), BatchWeights())
    for row, _ in (dataset[3], dataset.transform(X[3], y[3])):
        assert_array_equal(row, 2 * X[3])


class ManyAtOnce(OwnDataset):
    def __getitems__(self, indices):
        return [self[index] for index in reversed(indices)]


def test_a_data_set_that_reads_many_rows_at_once_does_so_with_weights():
    X, y = iris()
    dataset = with_weights(ManyAtOnce(X, y), torch.arange(1.0, 151), BatchWeights())
    ((rows, _),) = DataLoader(dataset, batch_size=150)
    assert_array_equal(rows, X[::-1])
    assert dataset.fetched == list(range(150))


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_loader_of_a_part_of_the_rows_knows_its_batches(drop_last):
    X, y = iris()
    loader = RowLoader(Subset(Dataset(X, y), range(15)), batch_size=4, drop_last=drop_last)
    sizes = [len(rows) for rows, _ in loader]
    assert sizes == [4, 4, 4] + [3] * (not drop_last) and len(loader) == len(sizes)


def test_weighted_rows_and_their_loaders_are_copied():
    """By callbacks, and for processes; an attribute is not there yet while a copy is made."""
    X, y = iris()
    dataset = with_weights(OwnDataset(X, y), torch.ones(len(y)), BatchWeights())
    loader = WeightedLoader(DataLoader, dataset, evaluates=True, batch_size=7)
    for again in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert again.batch_size == 7 and len(again) == 22
        assert_array_equal(torch.cat([rows for rows, _ in again]), X)


class RowByRow:
    """A loader of the user's, which asks for one row at a time."""

    def __init__(self, dataset, batch_size):
        self.dataset, self.batch_size = dataset, batch_size

    def __iter__(self):
        for rows in torch.arange(len(self.dataset)).split(self.batch_size):
            yield default_collate([self.dataset[int(i)] for i in rows])


def test_weights_of_rows_that_are_read_one_by_one():
    X, y = iris()
    weights = np.geomspace(0.1, 5, len(y))
    own = {"iterator_train": RowByRow, "iterator_valid": RowByRow}
    found, expected = (
        quick_classifier(classifier_net(**options)).fit(X, y, weights).predict_proba(X)
        for options in (own, {})
    )
    assert_allclose(found, expected, atol=1e-12)


def test_weights_of_rows_that_other_processes_read():
    X, y = iris()
    net = classifier_net(dataset=OwnDataset, iterator_train__num_workers=1)
    assert_refused(
        lambda: quick_classifier(net).fit(X, y, sample_weight=np.linspace(1, 2, len(y))),
        "sample_weight needs batches that are read in this process",
        "iterator_train__num_workers=0",
    )


def assert_net_is_the_users(net, of_class) -> None:
    """Nothing of the training is left on the net."""
    assert type(net) is of_class
    assert net.iterator_train is DataLoader and net.iterator_valid is DataLoader
    assert type(net.criterion_) in (nn.CrossEntropyLoss, nn.MSELoss)
    assert not any(layer._forward_pre_hooks for layer in net.module_.modules())


def test_the_net_is_given_back_as_it_was():
    X, y = iris()
    model = quick_classifier().fit(X, y, sample_weight=np.linspace(1, 2, len(y)))
    assert_net_is_the_users(model.net_, NeuralNetClassifier)
    model.set_params(net=classifier_net(callbacks=[CtrlC()]))
    with ctrl_c_raises(), pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert_net_is_the_users(model.net_, NeuralNetClassifier)
    pickle.dumps(model)


@pytest.mark.parametrize("weighted", [False, True])
def test_checkpoint_of_the_whole_net(tmp_path, weighted):
    X, y = iris()
    path = tmp_path / "net.pkl"
    checkpoint = Checkpoint(f_pickle=str(path), monitor=None, f_params=None, f_history=None)
    checkpoint.f_optimizer = checkpoint.f_criterion = None
    net = classifier_net(callbacks=[checkpoint])
    weights = np.linspace(1, 2, len(y)) if weighted else None
    model = quick_classifier(net).fit(X, y, sample_weight=weights)
    kept = pickle.loads(path.read_bytes())
    assert_allclose(kept.predict_proba(X), model.predict_proba_map(X), atol=1e-12)


@pytest.mark.parametrize("memory", [False, True])
def test_layers_that_a_callback_freezes_are_no_candidates(tmp_path, memory):
    X, y = iris()
    net = classifier_net(callbacks=[Freezer("layers.0.*")])
    options = {"subnetwork_size": "all", "memory": str(tmp_path) if memory else None}
    for _ in range(2):
        model = quick_classifier(net, **options).fit(X, y)
        assert model.subnetwork_.indices.min() == 8 * 4 + 8
        assert len(model.subnetwork_) == 8 * 3


def test_compiled_net_is_the_plain_one():
    X, y = iris()
    compiled = classifier_net(compile=True, compile__backend="eager")
    model = quick_classifier(compiled).fit(X, y)
    expected = quick_classifier(classifier_net()).fit(X, y).predict_proba(X)
    assert_allclose(model.predict_proba(X), expected, atol=1e-12)
    assert type(model.net_.module_) is MLP
    pickle.dumps(model)


class Versioned(MLP):
    """Keeps something that is no tensor."""

    version = 1

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        self.version = state["version"]


class WeightNorm(MLP):
    def __init__(self, n_features=4, n_outputs=3):
        super().__init__(n_features, n_outputs)
        nn.utils.weight_norm(self.layers[0])


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("module", [Versioned, WeightNorm])
def test_modules_with_more_than_parameters(module, tmp_path):
    X, y = iris()
    model = quick_classifier(classifier_net(module), memory=str(tmp_path)).fit(X, y)
    copied = pickle.loads(pickle.dumps(model))
    assert_array_equal(copied.predict_proba(X), model.predict_proba(X))
    assert copied.net_.module_.__dict__.get("version", 2) == 2
    assert_array_equal(model.fit(X, y).predict_proba(X), copied.predict_proba(X))


def test_optimiser_that_begins_with_a_state():
    X, y = iris()
    net = classifier_net(optimizer=torch.optim.Adagrad, max_epochs=3, batch_size=len(y))
    model = quick_classifier(net).fit(X, y)
    module, rows = MLP(), torch.as_tensor(X)
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
        module = MLP().double()
    optimizer = torch.optim.Adagrad(module.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(rows), torch.as_tensor(y)).backward()
        optimizer.step()
    expected = module(rows).softmax(1).detach()
    assert_allclose(model.predict_proba_map(X), expected, atol=1e-12)


class AnyWidth(MLP):
    """Its width has a name that is not filled in by fit."""

    def __init__(self, columns=4, n_outputs=3):
        super().__init__(columns, n_outputs)


def test_module_that_a_callback_makes_anew():
    X, y = iris()
    setter = InputShapeSetter(param_name="columns")
    net = classifier_net(AnyWidth, callbacks=[setter])
    model = quick_classifier(net).fit(X, y)
    assert {p.dtype for p in model.net_.module_.parameters()} == {torch.float64}
    assert model.score(X, y) > 0.5


class ctrl_c_raises:
    """Python's own handler, also where the process that runs the tests ignores the signal."""

    def __enter__(self):
        self.before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self.before)


class CtrlC(Callback):
    def on_epoch_end(self, net, **_):
        signal.raise_signal(signal.SIGINT)


class Swallowing(Callback):
    """Meets Ctrl-C, goes on, and later stops the training as skorch's callbacks do."""

    def on_epoch_end(self, net, **_):
        if len(net.history) == 2:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        if len(net.history) == 4:
            raise KeyboardInterrupt


class Translating(Callback):
    """Meets Ctrl-C and raises it again."""

    def on_epoch_end(self, net, **_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("on epoch end") from None


@pytest.mark.parametrize("callback", [CtrlC, Translating])
def test_ctrl_c_ends_the_fit(callback):
    with ctrl_c_raises():
        with pytest.raises(KeyboardInterrupt):
            quick_classifier(classifier_net(callbacks=[callback()])).fit(*iris())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_callback_may_stop_after_all():
    with ctrl_c_raises():
        model = quick_classifier(classifier_net(callbacks=[Swallowing()])).fit(*iris())
    assert len(model.net_.history) == 4


def test_handler_that_does_not_raise_keeps_its_say():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    try:
        net = classifier_net(callbacks=[CtrlC()], max_epochs=3)
        model = quick_classifier(net).fit(*iris())
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [1, 1, 1] and len(model.net_.history) == 3


class InstallsAHandler(Callback):
    def on_epoch_end(self, net, **_):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_handler_that_a_callback_installs_stays():
    with ctrl_c_raises():
        quick_classifier(classifier_net(callbacks=[InstallsAHandler()], max_epochs=1)).fit(*iris())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def in_threads(work, n_threads: int) -> None:
    errors = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_fits_in_threads_are_those_of_one_thread():
    X, y = diabetes()
    models = [
        MAPRegressor(),
        quick_regressor(net=None, selection="swag"),
        quick_regressor(regressor_net(iterator_train__shuffle=True)),
    ]
    expected = [m.set_params(random_state=0).fit(X, y).predict(X) for m in models]
    before = torch.get_rng_state()
    found = {}

    def work(number):
        model = pickle.loads(pickle.dumps(models[number % 3]))
        found[number] = model.fit(X, y).predict(X)

    in_threads(work, 6)
    for number, values in found.items():
        assert_array_equal(values, expected[number % 3])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_net_trains_beside_code_that_draws(monkeypatch):
    """While a thread has the global random states, another one trains."""
    X, y = iris()
    inside, done = threading.Event(), threading.Event()

    from sksubnet.nets import training

    plain = training.fit_until_stopped

    def waits_for_the_other(*args):
        inside.set()
        assert done.wait(20)
        plain(*args)

    monkeypatch.setattr(training, "fit_until_stopped", waits_for_the_other)

    def work(number):
        if number == 0:
            MAPClassifier(random_state=0).fit(X, y)
        else:
            assert inside.wait(20)
            with RandomStream(0).everywhere():
                done.set()

    in_threads(work, 2)


def test_one_stream_for_our_code_and_that_of_others():
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(3), np.random.rand(), torch.randperm(5), torch.rand(2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    stream = RandomStream(7)
    with stream.everywhere():
        first, number = torch.rand(3), np.random.rand()
    with stream.around(known=True) as generator:
        order = torch.randperm(5, generator=generator)
    with stream.around(known=False) as generator:
        assert generator is torch.default_generator
        second = torch.rand(2)
    for found, wanted in zip((first, number, order, second), expected, strict=True):
        assert_array_equal(found, wanted)
    assert torch.equal(torch.get_rng_state(), before)


def test_flat_outputs_and_column_targets():
    X, y = diabetes()
    weights = np.linspace(0.5, 2, len(y))
    flat, column = (
        quick_regressor(NeuralNetRegressor(m, module__n_outputs=1, train_split=None, verbose=0))
        .fit(X, y, sample_weight=weights)
        .predict(X)
        for m in (FlatMLP, MLP)
    )
    assert_allclose(flat, column, rtol=1e-12)


@pytest.mark.parametrize(
    ("split", "share"), [(ValidSplit(5), 0.2), (ValidSplit(0.3), 0.3), (None, None)]
)
def test_share_that_is_held_out_of_blocks(split, share):
    assert held_out_share(NeuralNetRegressor(nn.Linear, train_split=split)) == share


def test_a_split_that_needs_all_rows_is_refused_for_blocks():
    net = NeuralNetRegressor(nn.Linear, train_split=ValidSplit([(np.arange(5), np.arange(5, 9))]))
    assert_refused(lambda: held_out_share(net), "train_split", "ValidSplit(0.2)")
