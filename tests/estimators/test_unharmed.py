"""What fit leaves alone: the given net, frozen weights, random states."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from user_nets import (
    MLP,
    classifier_net,
    diabetes,
    iris,
    quick_classifier,
    quick_regressor,
    regressor_net,
)


def state_of(net) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.module_.state_dict().items()}


def assert_same_state(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


def test_frozen_net_is_used_as_it_is():
    X, y = iris()
    net = classifier_net().fit(X.astype(np.float32), y.astype(np.int64))
    before, n_epochs = state_of(net), len(net.history)
    model = quick_classifier(FrozenEstimator(net), dtype="float32", prior_precision="validation")
    model.fit(X, y)
    with torch.no_grad():
        logits = net.module_(torch.as_tensor(X, dtype=torch.float32))
    expected = logits.double().softmax(dim=1)
    np.testing.assert_allclose(model.predict_proba_map(X), expected, atol=1e-7)
    assert_same_state(state_of(net), before)
    assert_same_state(state_of(model.net_), before)
    assert len(net.history) == len(model.net_.history) == n_epochs
    # The widened computation is that of the same weights.
    wide = quick_classifier(FrozenEstimator(net)).fit(X, y)
    np.testing.assert_allclose(wide.predict_proba_map(X), expected, atol=1e-5)
    assert_same_state(state_of(net), before)


def test_frozen_regressor_keeps_its_units():
    X, y = diabetes()
    net = regressor_net(module__n_features=X.shape[1], module__n_outputs=1, max_epochs=30)
    net.fit(X.astype(np.float32), y.astype(np.float32)[:, None] / 100)
    model = quick_regressor(FrozenEstimator(net)).fit(X, y / 100)
    expected = net.predict(X.astype(np.float32))[:, 0]
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4)


@pytest.mark.parametrize("fitted_before", [False, True])
def test_given_net_is_unchanged(fitted_before):
    X, y = iris()
    net = classifier_net()
    if fitted_before:
        net.fit(X.astype(np.float32), y.astype(np.int64))
    before = copy.deepcopy(net)
    model = quick_classifier(net).fit(X, y)
    assert net.__dict__.keys() == before.__dict__.keys()
    for name, value in before.get_params(deep=False).items():
        assert repr(getattr(net, name)) == repr(value)
    assert model.net is net and model.net_ is not net
    assert type(model.net_) is type(net)
    if fitted_before:
        assert_same_state(state_of(net), state_of(before))
        assert len(net.history) == len(before.history)


def test_module_instance_is_unchanged():
    X, y = iris()
    module = MLP()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    net = classifier_net(module)
    with pytest.warns(UserWarning, match="module instance"):
        quick_classifier(net).fit(X, y)
    for name, value in module.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])


def test_global_random_states_stay():
    X, y = iris()
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), pickle.dumps(np.random.get_state())
    model = quick_classifier(
        selection="swag", link="mc", prior_precision="validation", net=None
    ).fit(X, y)
    model.predict_proba(X)
    model.predictive(X).entropy()
    regressor = quick_regressor(random_state=None).fit(*diabetes())
    after_none = pickle.dumps(np.random.get_state())
    regressor.predict(diabetes()[0], return_std=True)
    regressor.sample_y(diabetes()[0], 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    # random_state=None takes its seed from NumPy, as everywhere in scikit-learn; nothing else does.
    assert pickle.dumps(np.random.get_state()) == after_none
    np.random.seed(5)
    np.random.randint(2**31 - 1)
    assert pickle.dumps(np.random.get_state()) == after_none
