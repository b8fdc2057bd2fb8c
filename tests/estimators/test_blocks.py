"""Large arrays, which may be files, are read in blocks: with the numbers of a fit in one piece."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold
from sklearn.preprocessing import PowerTransformer
from skorch.dataset import Dataset, ValidSplit
from user_nets import Counts, assert_refused, classifier_net, regressor_net

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor, TabularNet
from sksubnet.estimators import base, blocks
from sksubnet.estimators.blocks import ArrayBlocks, Facts, Moments, Split

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 3))
Y = np.sin(2 * X[:, 0]) + X[:, 1] + 0.2 * RNG.normal(size=500)
LABELS = np.digitize(Y, [-0.7, 0.7])
WEIGHTS = RNG.integers(0, 3, size=500).astype(float)
LAPLACE = {"subnetwork_size": 20, "selection": "magnitude", "random_state": 0}


class OwnDataset(Dataset):
    """Of the user's, who may do anything to rows."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array is large: blocks of 100 rows in pieces of 10, and parts of one batch."""
    for where in (base, blocks):
        monkeypatch.setattr(where, "LARGE_TABLE", 0)
    monkeypatch.setattr(blocks, "BLOCK_NUMBERS", 300)
    monkeypatch.setattr(blocks, "MOST_OF_PIECE", 10)
    monkeypatch.setattr(blocks, "SAMPLE_ROWS", 200)
    monkeypatch.setattr(base, "PART_NUMBERS", 1)


def as_file(values: np.ndarray, path: Path) -> np.memmap:
    written = np.memmap(path, dtype=values.dtype, mode="w+", shape=values.shape)
    written[:] = values
    written.flush()
    return np.memmap(path, dtype=values.dtype, mode="r", shape=values.shape)


@pytest.mark.parametrize("n_rows", [1, 9, 10, 11, 100, 101, 499])
def test_blocks_are_all_rows_once_and_from_everywhere(small_blocks, n_rows):
    rows = np.arange(n_rows * 3.0).reshape(n_rows, 3)
    cut = ArrayBlocks.of(rows, np.arange(n_rows), None)
    read = [cut.read(k) for k in range(len(cut))]
    found = np.concatenate([block.y for block in read])
    assert_array_equal(np.sort(found), np.arange(n_rows))
    for block in read:
        assert_array_equal(block.X[:, 0], block.y * 3)
        assert block.weights is None and len(block) <= 110
    if n_rows > 100:  # sorted rows come mixed
        assert all(np.ptp(block.y) > n_rows / 2 for block in read)


def test_a_split_is_a_partition_with_the_asked_shares():
    split = Split(0, 0.2, 0.3)
    counts = np.zeros(3)
    for index in range(300):
        train, held_out, sample = split.of(index, 7)
        assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(7))
        assert np.isin(sample, train).all()
        counts += len(train), len(held_out), len(sample)
    assert_allclose(counts / 2100, [0.8, 0.2, 0.3], atol=0.02)


def test_moments_of_parts_are_those_of_all():
    weights = np.abs(WEIGHTS - 0.5)
    parts = []
    for rows in np.array_split(np.arange(500), 7):
        w, y = weights[rows], Y[rows, None] + 1e6
        mean = w @ y / w.sum()
        parts.append(Moments(w.sum(), mean, w @ (y - mean) ** 2))
    total = parts[0]
    for part in parts[1:]:
        total = total.joined(part)
    expected = np.average(Y + 1e6, weights=weights)
    assert_allclose(total.mean, expected, rtol=1e-14)
    variance = np.average((Y + 1e6 - expected) ** 2, weights=weights)
    assert_allclose(total.squared / total.weight, variance, rtol=1e-8)


def test_facts_count_classes_and_keep_a_row_of_each():
    cut = [blocks.Block(X[i::3], LABELS[i::3], WEIGHTS[i::3]) for i in range(3)]
    first, *others = (Facts.of(k, block, classify=True) for k, block in enumerate(cut))
    for other in others:
        first = first.joined(other)
    assert first.n_rows == 500 and first.weight == WEIGHTS.sum()
    for label in range(3):
        weight, row = first.of_class[label]
        assert weight == WEIGHTS[label == LABELS].sum()
        assert_array_equal(row.y, [label])


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_file_is_fitted_and_predicted_as_an_array_bit_for_bit(
    small_blocks, tmp_path, task, dtype
):
    rows = X.astype(dtype)
    file = as_file(rows, tmp_path / "rows")
    found = []
    for table in (rows, file):
        if task == "regression":
            model = SubnetLaplaceRegressor(regressor_net(max_epochs=3), **LAPLACE)
            found.append(model.fit(table, Y, WEIGHTS).predict(table, return_std=True))
        else:
            model = SubnetLaplaceClassifier(TabularNet(max_epochs=3), **LAPLACE)
            found.append([model.fit(table, LABELS).predict_proba(table)])
    for one, other in zip(*found, strict=True):
        assert_array_equal(one, other)
    assert_array_equal(file, X.astype(dtype))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_small_file_is_fitted_as_an_array_bit_for_bit(tmp_path, task):
    file = as_file(X, tmp_path / "rows")
    found = []
    for table in (X, file):
        if task == "regression":
            model = SubnetLaplaceRegressor(TabularNet(max_epochs=3), cv=2, **LAPLACE)
            found.append(model.fit(table, Y).predict(table, return_std=True))
        else:
            model = SubnetLaplaceClassifier(classifier_net(max_epochs=3), **LAPLACE)
            found.append([model.fit(table, LABELS).predict_proba(table)])
    for one, other in zip(*found, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [30, -1])
def test_loaders_know_the_batches_of_all_blocks(small_blocks, batch_size, drop_last):
    weights = np.where(np.arange(500) % 50 < 10, 0.0, WEIGHTS)  # one block has no row that counts
    cut = ArrayBlocks.of(X, Y, weights)
    sizes = [int((cut.read(k).weights > 0).sum()) for k in range(len(cut))]
    assert len(sizes) == 5 and min(sizes) == 0 and min(n for n in sizes if n) > 30
    rounded = np.floor if drop_last else np.ceil
    expected = 4 if batch_size == -1 else rounded(np.divide(sizes, batch_size)).sum()
    size = sum(sizes) if batch_size == -1 else batch_size
    net = regressor_net(
        callbacks=[Counts()],
        batch_size=batch_size,
        max_epochs=2,
        iterator_train__drop_last=drop_last,
    )
    model = SubnetLaplaceRegressor(net, prior_precision="evidence", noise=1.0, **LAPLACE)
    history = model.fit(X, Y, weights).net_.history
    assert history[:, "expected"] == [(expected, size)] * 2
    assert history[:, "train_batch_count"] == [expected] * 2
    model.net.set_params(train_split=ValidSplit(5))  # rows that are held out are in no batch
    history = model.fit(X, Y, weights).net_.history
    assert [count for count, _ in history[:, "expected"]] == history[:, "train_batch_count"]


@pytest.mark.parametrize("options", [{}, {"covariance": "diag"}, {"noise": 0.3}])
def test_sums_over_blocks_are_those_of_all_rows(request, options):
    net = regressor_net(module__n_features=3, module__n_outputs=1)
    net.fit(X.astype("float32"), Y[:, None].astype("float32"))
    options = {"noise": "constant", "prior_precision": "evidence", **LAPLACE, **options}
    model = SubnetLaplaceRegressor(FrozenEstimator(net), **options)
    whole = model.fit(X, Y, WEIGHTS)
    expected = whole.predict(X, return_std=True)
    evidence, noise = whole.log_marginal_likelihood(), whole.noise_std_
    request.getfixturevalue("small_blocks")
    model.fit(X, Y, WEIGHTS)
    for one, other in zip(model.predict(X, return_std=True), expected, strict=True):
        assert_allclose(one, other, rtol=1e-8)
    assert_allclose(model.log_marginal_likelihood(), evidence, rtol=1e-8)
    assert_allclose(model.noise_std_, noise, rtol=1e-8)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predictive", "predict_proba_map"])
def test_predictions_in_parts_are_those_of_all_rows(method, monkeypatch):
    model = SubnetLaplaceClassifier(TabularNet(max_epochs=3), **LAPLACE).fit(X, LABELS)
    values = np.tile(X, (20, 1))  # two batches of a plain pass
    before = getattr(model, method)(values)
    monkeypatch.setattr(base, "LARGE_TABLE", 0)
    monkeypatch.setattr(base, "PART_NUMBERS", 1)
    after = getattr(model, method)(values)
    if method == "predictive":
        before, after = before.probabilities(), after.probabilities()
    assert_array_equal(before, after)


def test_by_row_noise_and_sorted_rows(small_blocks):
    order = np.argsort(Y)
    spread = np.where(X[:, 2] > 0, 1.0, 0.05)
    y = X[:, 1] + spread * RNG.normal(size=500)
    model = SubnetLaplaceRegressor(TabularNet(max_epochs=40), noise="input", **LAPLACE)
    noise = model.fit(X[order], y[order]).predictive(X).std("aleatoric")[:, 0]
    assert noise[X[:, 2] > 0.3].mean() > 3 * noise[X[:, 2] < -0.3].mean()
    assert model.score(X, y) > 0.2


def test_what_a_fit_in_one_piece_refuses_is_refused(small_blocks):
    model = SubnetLaplaceRegressor(regressor_net(), **LAPLACE)
    bad = X.copy()
    bad[333, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.fit(bad, Y)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        model.fit(X, Y[:-1])
    with pytest.raises(ValueError, match="Negative"):
        model.fit(X, Y, -WEIGHTS)
    with pytest.raises(ValueError, match="zero for every row"):
        model.fit(X, Y, 0 * WEIGHTS)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, np.where(np.arange(500) == 77, np.nan, Y))


@pytest.mark.filterwarnings("ignore:groups are ignored")
@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"cv": 2}, {}),
        ({"cv": KFold(3)}, {}),
        ({"memory": "folder"}, {}),
        ({"target_transform": PowerTransformer()}, {}),
        ({"net": regressor_net(max_epochs=2, dataset=OwnDataset)}, {}),
        ({}, {"groups": np.arange(500) % 5}),
    ],
    ids=["folds", "splitter", "memory", "transformer", "data set", "groups"],
)
def test_what_blocks_cannot_do_is_fitted_in_one_piece(request, tmp_path, options, rows):
    if "memory" in options:
        options = {"memory": str(tmp_path)}
    options = {"net": regressor_net(max_epochs=2), **LAPLACE, **options}
    model = SubnetLaplaceRegressor(**options)
    expected = model.fit(X, Y, **rows).predict(X, return_std=True)
    request.getfixturevalue("small_blocks")
    for one, other in zip(
        model.fit(X, Y, **rows).predict(X, return_std=True), expected, strict=True
    ):
        assert_array_equal(one, other)


def test_a_data_set_of_the_net_s_own_is_refused_for_rows_that_are_in_no_one_place():
    model = SubnetLaplaceRegressor(regressor_net(dataset=OwnDataset), **LAPLACE)
    assert_refused(
        lambda: blocks.fit_in_blocks(model, ArrayBlocks.of(X, Y, None), 100),
        "Rows in blocks are for nets that read rows as skorch does",
        "dataset",
        "FrozenEstimator(net)",
    )


def test_parameters_come_back_as_they_were(small_blocks):
    net = classifier_net(max_epochs=2)
    model = SubnetLaplaceClassifier(net, class_weight="balanced", **LAPLACE)
    params = model.get_params(deep=False)
    before = torch.get_num_threads()
    model.fit(X, LABELS)
    assert model.get_params(deep=False) == params and torch.get_num_threads() == before
