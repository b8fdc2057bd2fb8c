"""What a pickle of an estimator holds, and what it predicts when it is loaded."""

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
import sklearn
import skorch
import torch
from kept_models import (
    LABELS,
    MODELS,
    SMALL,
    Tanh,
    X,
    Y,
    answers,
    assert_same,
    few_epochs,
    frozen,
    user_regressor,
)
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from skorch.exceptions import DeviceWarning
from user_nets import MLP, binary_net, classifier_net, regressor_net

import sksubnet
from sksubnet import (
    DeepEnsembleRegressor,
    MAPClassifier,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
)
from sksubnet.estimators.packing import for_pickles, of_pickles


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS[request.param]()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.uint8])
def test_tensors_of_any_type_come_back(dtype: torch.dtype) -> None:
    bits = torch.arange(1, 7, dtype=torch.int16 if dtype.itemsize == 2 else torch.uint8)
    given = bits.bool() if dtype == torch.bool else bits.view(dtype)
    found = of_pickles(pickle.loads(pickle.dumps(for_pickles({"given": given.reshape(2, 3)}))))
    assert found["given"].dtype == dtype and torch.equal(found["given"], given.reshape(2, 3))


def by_joblib(model: Any, folder: Any) -> Any:
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib", mmap_mode="r")


__all__ = ["few_epochs"]

WAYS = {
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "joblib_mapped": by_joblib,
    "copied_twice": lambda model, _: copy.deepcopy(copy.deepcopy(model)),
    "cloudpickle": lambda model, _: pickle.loads(cloudpickle.dumps(model)),
}


@pytest.mark.parametrize("way", WAYS)
def test_predicts_the_same_to_the_last_bit(model: Any, way: str, tmp_path: Any) -> None:
    seeds = torch.get_rng_state(), np.random.get_state()[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a pickle of this very version has nothing to warn of
        again = WAYS[way](model, tmp_path)
    assert torch.equal(torch.get_rng_state(), seeds[0])
    assert (np.random.get_state()[1] == seeds[1]).all()
    assert vars(again).keys() == vars(model).keys()
    assert clone(again).get_params().keys() == clone(model).get_params().keys()
    assert_same(again, model)


def test_the_training_goes_not_along() -> None:
    net = regressor_net(
        Tanh,
        train_split=ValidSplit(3),
        callbacks=[EarlyStopping(load_best=False)],
        optimizer=torch.optim.Adam,
    )
    model = user_regressor().set_params(net=net).fit(X, Y)
    unfitted = len(pickle.dumps(clone(model)))
    kept = len(pickle.dumps(model))
    assert kept - unfitted < 40_000
    again = pickle.loads(pickle.dumps(model))
    assert again.net_.module_ is again.folds_[0].latent.module
    assert not again.net_.optimizer_.state and model.net_.optimizer_.state
    assert "batches" in model.net_.history[0] and "batches" not in again.net_.history[0]
    assert again.net_.history[:, "train_loss"] == model.net_.history[:, "train_loss"]
    # the net goes on training
    again.net_.partial_fit(X, Y[:, None])
    assert len(again.net_.history) == 2 * len(model.net_.history)


def test_a_net_of_another_device_comes_to_this_one() -> None:
    model = user_regressor().fit(X, Y)
    expected = answers(model)
    model.net_.device = "cuda:7"  # what a fit there leaves in it
    content = pickle.dumps(model)
    if torch.cuda.device_count() < 8:
        with pytest.warns(DeviceWarning, match="CUDA"):
            again = pickle.loads(content)
        assert again.net_.device == torch.device("cpu")
        for one, other in zip(answers(again), expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["default", "user"])
def test_size_beside_the_weights(kind: str) -> None:
    wide = MLP if kind == "user" else None
    net = wide and regressor_net(wide, module__hidden=3000, max_epochs=1)
    model = sksubnet.MAPRegressor(net, random_state=0).fit(X, Y)
    weights = sum(p.numel() * p.element_size() for p in model.net_.module_.parameters())
    assert len(pickle.dumps(model)) < 1.15 * weights + 40_000


def rows_in(content: bytes) -> int:
    """Count the rows of X whose numbers are in there."""
    return sum(row.tobytes() in content for row in X)


def test_what_is_held_of_training_rows_is_said() -> None:
    kernel = SubnetLaplaceRegressor(
        regressor_net(module__hidden=20),
        subnetwork_size="all",
        candidates="all",
        random_state=0,
    ).fit(X, Y)
    n_rows = len(kernel.posterior_.training_rows.layers[0].left)
    assert rows_in(pickle.dumps(kernel)) == n_rows == len(X)  # their layer reads rows as they are
    assert f"{n_rows} training rows" in kernel.held_training_data_
    for model in (
        user_regressor().fit(X, Y),
        clone(kernel).set_params(covariance="diag").fit(X, Y),
        clone(kernel).set_params(subnetwork_size=20).fit(X, Y),
    ):
        assert model.held_training_data_ == "sums over the training rows only"
        assert rows_in(pickle.dumps(model)) == 0
    classes = SubnetLaplaceClassifier(classifier_net(), subnetwork_size=20, random_state=0)
    classes.fit(X, Y > 0)
    for start, end in ((0, 7), (7, 12)):  # they add up
        classes.update(X[start:end], Y[start:end] > 0)
        assert classes.held_training_data_ == f"the {end} rows of updates (added of each net)"
    folds = SubnetLaplaceRegressor(cv=2, subnetwork_size=10, random_state=0).fit(X, Y)
    assert folds.held_training_data_ == "the predictions of the training rows (out_of_fold_)"
    members = DeepEnsembleRegressor(clone(kernel), n_members=2, random_state=0).fit(X, Y)
    assert f"{n_rows} training rows" in members.held_training_data_


@pytest.mark.parametrize("make", [SubnetLaplaceRegressor, frozen, user_regressor, MAPClassifier])
def test_an_unfitted_estimator_stays_one(make: Any) -> None:
    again = pickle.loads(pickle.dumps(make()))
    with pytest.raises(NotFittedError):
        again.predict(X)
    assert vars(again).keys() == set(again.get_params(deep=False))


class Sub(SubnetLaplaceRegressor):
    """A user's class, with attributes that this package has never heard of."""

    def fit(self, X: Any, y: Any) -> "Sub":
        super().fit(X, y)
        self.notes_ = {
            "when": "yesterday",
            "dates": np.array(["2020"], "M8[Y]"),
        }
        self.whole_ = complex(1, 2)
        return self


def test_attributes_of_a_subclass_go_along() -> None:
    model = Sub(subnetwork_size=5, **SMALL).fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    assert again.notes_ == model.notes_ and again.whole_ == model.whole_
    assert_same(again, model)


VERSIONS = {
    "sksubnet": (sksubnet, "__version__"),
    "torch": (torch, "__version__"),
    "skorch": (skorch, "__version__"),
    "scikit-learn": (sklearn, "__version__"),
}


@pytest.mark.parametrize("library", VERSIONS)
def test_other_versions_are_announced(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps(user_regressor())
    real = str(getattr(*VERSIONS[library])).partition("+")[0]
    monkeypatch.setattr(*VERSIONS[library], "99.1")
    with pytest.warns(InconsistentVersionWarning) as caught:
        pickle.loads(content)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert f"from version {library} {real} when using version {library} 99.1" in str(
        caught[0].message
    )


def test_a_build_is_no_other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps(user_regressor())
    monkeypatch.setattr(torch, "__version__", torch.__version__.partition("+")[0] + "+cu130")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(content)


def test_a_pickle_without_versions_is_announced() -> None:
    model = user_regressor()
    state = {name: value for name, value in model.__getstate__().items() if name[0] != "_"}
    again = SubnetLaplaceRegressor()
    with pytest.warns(InconsistentVersionWarning, match="older"):
        again.__setstate__(state)
    assert again.subnetwork_size == 9


SCRIPT = """
import sys, cloudpickle, numpy as np, torch
from skorch import NeuralNetRegressor
from sksubnet import SubnetLaplaceRegressor

class Own(torch.nn.Linear):
    def forward(self, X):
        return super().forward(torch.tanh(X))

X = np.random.default_rng(0).normal(size=(40, 3))
net = NeuralNetRegressor(Own, max_epochs=2, verbose=0)
model = SubnetLaplaceRegressor(net, subnetwork_size=3, random_state=0).fit(X, X[:, 0])
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump((model, X, model.predict(X, return_std=True)[1]), file)
"""


def test_cloudpickle_takes_classes_of_main_along(tmp_path: Any) -> None:
    path = tmp_path / "model.pkl"
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT, path], check=True)
    model, rows, std = pickle.loads(path.read_bytes())
    np.testing.assert_array_equal(model.predict(rows, return_std=True)[1], std)


def test_skops_asks_for_trust_in_the_estimator_alone(model: Any) -> None:
    skops = pytest.importorskip("skops.io")
    if isinstance(model.net, NeuralNet | FrozenEstimator):
        pytest.skip("a user's net is an object of the user's classes")
    content = skops.dumps(model)
    unknown = skops.get_untrusted_types(data=content)
    assert all(name.rpartition(".")[2] in sksubnet.__all__ for name in unknown)
    assert_same(skops.loads(content, trusted=unknown), model)


@pytest.mark.parametrize("kind", ["binary", "default"])
def test_threads_pickle_one_estimator(kind: str) -> None:
    net = binary_net(module__n_features=3) if kind == "binary" else None
    labels = LABELS == "low"
    model = SubnetLaplaceClassifier(net, subnetwork_size=9, **SMALL).fit(X, labels)
    expected = model.predict_proba(X)
    found = joblib.Parallel(4, backend="threading")(
        joblib.delayed(lambda: pickle.loads(pickle.dumps(model)).predict_proba(X))()
        for _ in range(8)
    )
    assert all(np.array_equal(one, expected) for one in found)
