"""The default net against its formula, its tails against ridge regression."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import Ridge
from torch import nn

from sksubnet import MAPRegressor, MCDropoutRegressor, SubnetLaplaceRegressor, TabularNet
from sksubnet.nets import kept
from sksubnet.nets.bins import Bins, Tails
from sksubnet.nets.tabular import CLIP, TabularMLP, clipped, fit_tails, masks_drawn_from
from sksubnet.selection import candidate_mask

RNG = np.random.default_rng(0)
HEAVY = RNG.normal(size=80) * np.where(np.arange(80) % 6 == 0, 40, 1)
Z = np.column_stack([RNG.normal(size=80), HEAVY, RNG.integers(0, 2, 80)])
ONES = np.ones(80)
BINS, TAILS = Bins.of(Z, ONES, 4), Tails.of(Z, ONES)


def net(**options):
    torch.manual_seed(0)
    options = {"hidden": (5, 4), "bins": BINS, "tails": TAILS} | options
    module = TabularMLP(3, 2, **options).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def array(parameter):
    return parameter.detach().numpy()


def squashed(z):
    return z / np.sqrt(1 + (z / CLIP) ** 2)


def test_net_is_its_formula():
    module = net().eval()
    assert list(TAILS.column) == [1]
    module.tail_weight.copy_(torch.tensor([[0.3], [-0.2]], dtype=torch.float64))
    shares = [
        np.interp(Z[:, j], [low, low + width], [0, 1]) - mean
        for j, low, width, mean in zip(*vars(BINS).values(), strict=True)
    ]
    units = squashed(Z) @ array(module.dense.weight).T + array(module.dense.bias)
    units += np.stack(shares, axis=1) @ array(module.binned.weight).T
    for layer in (module.rest[1], module.rest[3]):
        units = units / (1 + np.exp(-units)) @ array(layer.weight).T + array(layer.bias)
    t = Z[:, 1].clip(TAILS.low, TAILS.high)
    expected = units + (t - squashed(t))[:, None] * [0.3, -0.2]
    assert_allclose(array(module(torch.as_tensor(Z))), expected, rtol=1e-10)


def test_bins_begin_without_effect_and_so_do_inputs_that_are_blank():
    torch.manual_seed(0)
    with_bins = TabularMLP(3, 2, bins=BINS, blank=(1,)).double()
    assert (with_bins.binned.weight == 0).all()
    assert (with_bins.dense.weight[:, 1] == 0).all()
    assert (with_bins.dense.weight[:, [0, 2]] != 0).all()


def test_clipping_is_smooth_bounded_and_the_identity_near_the_median():
    z = torch.tensor([0.0, 1e-4, 1.0, 3.0, 50.0, 1e9], dtype=torch.float64, requires_grad=True)
    values = clipped(z)
    (slope,) = torch.autograd.grad(values.sum(), z)
    values = values.detach()
    assert_allclose(values[:2], [0, 1e-4], rtol=1e-8)
    assert float(values[3]) == pytest.approx(3 / np.sqrt(2))
    assert (values.diff() > 0).all()
    assert values.max() <= CLIP
    assert float(slope[0]) == 1
    assert (slope[:5] > 0).all()
    assert (slope[:5].diff() < 0).all()


def test_bins_are_dropped_in_training_alone_and_keep_their_mean():
    module, X = net(bin_dropout=0.4), torch.as_tensor(Z)
    bins = module._bins(X)
    with masks_drawn_from(module, torch.Generator().manual_seed(0)):
        module.eval()
        assert torch.equal(module._dropped(bins), bins)
        module.train()
        draws = torch.stack([module._dropped(bins) for _ in range(4000)])
    assert torch.equal(module._dropped(bins), bins)  # without a source of masks
    nonzero = bins.abs() > 0.05
    share = (draws == 0).double().mean(dim=0)[nonzero]
    assert_allclose(share, 0.4, atol=0.05)
    assert_allclose(draws.mean(dim=0), bins, atol=0.06)


def test_the_same_fit_draws_the_same_masks_and_leaves_the_global_state():
    X, y = RNG.normal(size=(60, 3)), RNG.normal(size=60)
    before = torch.get_rng_state()
    first, second = (
        MAPRegressor(TabularNet(max_epochs=3), random_state=0).fit(X, y) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert_allclose(first.predict(X), second.predict(X), rtol=0)
    without = MAPRegressor(TabularNet(max_epochs=3, bin_dropout=0), random_state=0).fit(X, y)
    assert not np.allclose(without.predict(X), first.predict(X), rtol=1e-4)


def test_tails_are_those_of_ridge_regression():
    module, weights = net(), RNG.uniform(0.5, 2, 80)
    targets = RNG.normal(size=(80, 2)) + Z[:, 1:2]
    fit_tails(module, *(torch.as_tensor(v) for v in (Z, targets, weights)))
    t = Z[:, 1:2].clip(TAILS.low, TAILS.high)
    columns = np.hstack([t - squashed(t), squashed(Z)])
    ridge = Ridge(alpha=10).fit(columns, targets, sample_weight=weights)
    assert_allclose(module.tail_weight, ridge.coef_[:, :1], rtol=1e-8)


def test_tails_are_told_by_the_rows_that_train_and_training_leaves_them():
    X, y = Z.copy(), Z[:, 1] + 0.1 * RNG.normal(size=80)
    train, held_out = np.arange(70), np.arange(70, 80)
    reg = SubnetLaplaceRegressor(
        TabularNet(max_epochs=3), cv=[(train, held_out)], noise="constant", random_state=0
    ).fit(X, y)
    module = reg.net_.module_
    inputs = reg._encoding(X)
    scaled = (y - y.mean()) / y.std()
    expected = TabularMLP(3, 1, tails=Tails.of(inputs, ONES)).double()
    rows = (inputs[train], scaled[train, None], ONES[train])
    fit_tails(expected, *(torch.as_tensor(v) for v in rows))
    assert_allclose(module.tail_weight, expected.tail_weight, rtol=1e-8)


def test_bins_are_no_candidates_unless_asked_for():
    module = net()
    names = [name for name, p in module.named_parameters() for _ in range(p.numel())]
    chosen = {
        name for name, kept in zip(names, candidate_mask(module, "weights"), strict=True) if kept
    }
    assert chosen == {"dense.weight", "rest.1.weight", "rest.3.weight"}
    assert candidate_mask(module, "all").all()
    named = candidate_mask(module, ["binned"])
    assert {name for name, kept in zip(names, named, strict=True) if kept} == {"binned.weight"}


def test_dropout_of_bins_stays_off_in_draws_of_mc_dropout():
    X, y = RNG.normal(size=(60, 3)), RNG.normal(size=60)
    reg = MCDropoutRegressor(TabularNet(max_epochs=2, dropout=0.3), n_draws=3, random_state=0)
    module = reg.fit(X, y).net_.module_
    assert sum(isinstance(layer, nn.Dropout) for layer in module.modules()) == 2
    assert module.masks is None
    inputs = torch.as_tensor(reg._encoding(X))
    (net_,) = reg.folds_
    draws = net_.draws.latents(net_.latent, inputs)
    binned = module.binned.weight.detach().clone()
    module.dropped_share = 0.0
    assert torch.equal(net_.draws.latents(net_.latent, inputs), draws)
    module.binned.weight.data.zero_()
    assert not torch.allclose(net_.draws.latents(net_.latent, inputs), draws) or not binned.any()


def test_parameters_reach_the_net():
    options = dict(hidden=(7,), bins=3, dropout=0.2, lr=0.01, weight_decay=0.5)
    options |= dict(batch_size=20, max_epochs=4, patience=2, bin_dropout=0.1)
    X, y = RNG.normal(size=(60, 2)), RNG.normal(size=60)
    fitted = MAPRegressor(TabularNet(**options), random_state=0).fit(X, y).net_
    assert [tuple(p.shape) for p in fitted.module_.parameters()] == [
        (7, 2),
        (7,),
        (7, 6),
        (1, 7),
        (1,),
    ]
    assert (fitted.module_.rest[1].p, fitted.module_.bin_dropout) == (0.2, 0.1)
    assert (fitted.lr, fitted.batch_size, fitted.max_epochs) == (0.01, 20, 4)
    assert fitted.optimizer_.param_groups[0]["weight_decay"] == 0.5
    assert len(fitted.history) == 4


def test_parameters_of_the_default_net_can_be_set_and_cloned():
    reg = SubnetLaplaceRegressor().set_params(net__lr=0.1, net__hidden=(3,))
    assert (reg.net.lr, reg.net.hidden) == (0.1, (3,))
    assert clone(reg).get_params()["net__lr"] == 0.1
    with pytest.raises(ValueError, match=r"'module'.*TabularNet.*Valid parameters.*hidden"):
        SubnetLaplaceRegressor().set_params(net__module__hidden=(3,))
    with pytest.raises(ValueError, match="patience"):
        MAPRegressor(TabularNet(patience=0)).fit(Z[:, :2], Z[:, 0])


def test_the_default_net_is_a_tabular_net_as_it_is():
    X, y = RNG.normal(size=(40, 2)), RNG.normal(size=40)
    one = SubnetLaplaceRegressor(prior_precision=1.0, cv=None, random_state=0).fit(X, y)
    other = clone(one).set_params(net=TabularNet()).fit(X, y)
    assert_allclose(one.predict(X, return_std=True), other.predict(X, return_std=True), rtol=0)


def test_a_fitted_net_can_be_pickled():
    X, y = RNG.normal(size=(40, 2)), RNG.normal(size=40)
    reg = MAPRegressor(TabularNet(max_epochs=2), random_state=0).fit(X, y)
    assert_allclose(pickle.loads(pickle.dumps(reg)).predict(X), reg.predict(X), rtol=0)


def test_regression_drops_the_fewer_bins_the_better_it_predicts(monkeypatch):
    """The odds of a bin to be dropped are in proportion to the unexplained variance."""
    shares = []
    plain = TabularMLP._dropped

    def watched(module, bins):
        if module.training and module.masks is not None:
            shares.append(module.dropped_share)
        return plain(module, bins)

    monkeypatch.setattr(TabularMLP, "_dropped", watched)
    X = RNG.normal(size=(100, 2))
    net = TabularNet(max_epochs=30, batch_size=200, lr=0.02)
    fitted = MAPRegressor(net, random_state=0).fit(X, X[:, 0]).net_
    left = np.array(fitted.history[:, "valid_loss"])
    odds = 0.4 / 0.6 * np.minimum(1, left[: len(shares) - 1])
    assert shares[0] == 0.4
    assert_allclose(shares[1:], odds / (1 + odds))
    assert shares[-1] < 0.2


@pytest.mark.parametrize("hidden", [8, (8,), [8], np.array([8]), np.int64(8)])
def test_a_number_is_one_hidden_layer(hidden):
    one = MAPRegressor(TabularNet(hidden=hidden, max_epochs=2), random_state=0).fit(Z, Z[:, 0])
    expected = MAPRegressor(TabularNet(hidden=(8,), max_epochs=2), random_state=0)
    assert_allclose(one.predict(Z), expected.fit(Z, Z[:, 0]).predict(Z), rtol=0)


@pytest.mark.parametrize("hidden", [(-1,), (64.0,), (64, 0), ("64",)])
def test_widths_that_are_none_are_told(hidden):
    message = rf"hidden=.*{hidden[-1]}.* of TabularNet must be whole numbers .* \(64, 64\)"
    with pytest.raises(ValueError, match=message):
        MAPRegressor(TabularNet(hidden=hidden)).fit(Z, Z[:, 0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_without_a_gpu_nets_are_on_the_cpu():
    model = MAPRegressor(TabularNet(device="auto", max_epochs=1), random_state=0).fit(Z, Z[:, 0])
    assert model.net_.device == "cpu"
    kept_on_a_gpu = kept(model.net_)
    kept_on_a_gpu.settings.set_params(device="cuda:1")
    restored = kept_on_a_gpu.restored()
    assert restored.device == "cpu"
    np.testing.assert_array_equal(restored.predict(Z), model.net_.predict(Z))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:-2", "mps:7"])
def test_devices_that_are_not_there_are_told(device):
    with pytest.raises(ValueError, match=f"device='{device}'.*use device='auto'"):
        MAPRegressor(TabularNet(device=device)).fit(Z, Z[:, 0])
