"""Dropout draws against analytic moments of linear nets and torch's own dropout."""

import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sksubnet.nets.trained import Latent
from sksubnet.sampling.dropout import check_dropout, dropout_latents

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(5, 6, generator=GENERATOR, dtype=torch.float64)
KINDS = {
    nn.Dropout: (4, 6),
    nn.Dropout1d: (4, 6, 3),
    nn.Dropout2d: (4, 6, 3, 2),
    nn.Dropout3d: (4, 6, 3, 2, 2),
    nn.AlphaDropout: (4, 6),
    nn.FeatureAlphaDropout: (4, 6, 3),
}


class Flat(nn.Module):
    """A layer whose output is one row of latents."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, X):
        return self.layer(X).flatten(1)


def draws(module, X, n_draws=6, seed=0):
    return dropout_latents(Latent(module, False), X, n_draws=n_draws, seed=seed)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_moments_of_a_linear_net_are_the_analytic_ones(p):
    module = nn.Sequential(nn.Dropout(p), nn.Linear(6, 2)).double()
    f = draws(module, X, n_draws=40_000)
    weight, bias = module[1].weight.detach(), module[1].bias.detach()
    # E[mask / (1 - p)] = 1 and Var[mask / (1 - p)] = p / (1 - p), independent over the inputs.
    variance = p / (1 - p) * X**2 @ weight.T**2
    mean = X @ weight.T + bias
    assert ((f.mean(dim=0) - mean).abs() < 5 * (variance / 40_000).sqrt()).all()
    assert_allclose(f.var(dim=0), variance, rtol=0.04)


def test_rows_share_the_units_that_are_dropped():
    f = draws(Flat(nn.Dropout(0.5)), X, n_draws=200)
    ratio = f / X
    assert torch.equal(ratio.round(), ratio.round()[:, :1].expand_as(ratio))
    assert set(ratio.round().unique().tolist()) == {0.0, 2.0}
    assert (ratio[0] != ratio[1]).any()


def test_draws_do_not_depend_on_the_other_rows_or_the_call():
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Tanh(), nn.Dropout(0.2)).double()
    f = draws(module, X)
    assert torch.equal(draws(module, X), f)
    assert_allclose(draws(module, X[[3, 1]]), f[:, [3, 1]], rtol=1e-12)
    assert (draws(module, X, seed=1) != f).any()
    state = torch.get_rng_state()
    draws(module, X)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("p", [0.4, 1.0])
def test_every_kind_does_what_it_does_in_training(kind, p):
    inputs = torch.ones(KINDS[kind], dtype=torch.float64)
    layer = kind(p)
    torch.manual_seed(0)
    trained = torch.stack([layer(inputs).flatten(1) for _ in range(400)])
    found = draws(Flat(layer), inputs, n_draws=400)
    values = trained.unique()
    # The same values and as often, and whole channels together or not.
    assert len(found.unique()) == len(values)
    assert_allclose(found.unique(), values, atol=1e-12)
    share = (found == found.max()).double().mean()
    assert share == pytest.approx(float((trained == trained.max()).double().mean()), abs=0.06)
    by_channel = found.reshape(400, 4, 6, -1)
    expected = trained.reshape(400, 4, 6, -1)
    assert bool((by_channel == by_channel[..., :1]).all()) == bool(
        (expected == expected[..., :1]).all()
    )


def test_the_module_stays_as_it_was_for_other_threads():
    module = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.3), nn.Linear(64, 2)).double().eval()
    expected, found = draws(module, X, n_draws=50), []
    threads = [
        threading.Thread(target=lambda: found.append(draws(module, X, n_draws=50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(f, expected) for f in found)
    assert not module.training
    assert not any(layer._forward_hooks for layer in module)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(6, 2)], r"0 of its 1 layers \(Linear\) are dropout"),
        ([nn.Linear(6, 2), nn.Dropout(0.0)], r"1 of its 2 layers \(Dropout, Linear\) are dropout"),
    ],
)
def test_a_net_without_dropout_is_refused(layers, message):
    with pytest.raises(ValueError, match=message + r".*Put nn.Dropout\(0.1\)"):
        check_dropout(nn.Sequential(*layers))
    check_dropout(nn.Sequential(*layers, nn.Dropout2d(0.2)))


def test_batch_normalisation_stays_as_trained():
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    f = draws(module, X, n_draws=300)
    np.testing.assert_array_equal(f[f != 0].unique(), (2 * module.eval()(X)).detach().unique())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
