"""Nets at drawn weights, and batch normalisation refreshed, against modules changed by hand."""

import copy

import dense
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sksubnet.nets.trained import Latent, flat_weights
from sksubnet.sampling import weight_draws
from sksubnet.sampling.weight_draws import WeightDraws, set_weights, with_batch_statistics

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(10, 3, generator=GENERATOR, dtype=torch.float64)


def normalised():
    return nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)
    ).double()


def some_weights(module, n_draws=3):
    n_weights = len(flat_weights(module))
    return torch.randn(n_draws, n_weights, generator=GENERATOR, dtype=torch.float64)


def test_latents_are_those_of_the_module_with_other_weights():
    module = dense.mlp()
    weights = some_weights(module)
    before = flat_weights(module).clone()
    found = WeightDraws(weights).latents(Latent(module, False), X)
    assert torch.equal(flat_weights(module), before)
    for f, draw in zip(found, weights, strict=True):
        nn.utils.vector_to_parameters(draw, module.parameters())
        assert_allclose(f, dense.evaluate(module, X))


def test_weights_go_back_where_they_came_from_whatever_the_memory_format():
    module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 1)).to(
        memory_format=torch.channels_last
    )
    weights = torch.arange(float(len(flat_weights(module))))
    set_weights(module, weights)
    assert torch.equal(flat_weights(module), weights)


def test_batch_statistics_are_those_of_training_mode_with_dropout_off():
    module = normalised().eval()
    before = copy.deepcopy(module.state_dict())
    weights = some_weights(module)
    draws = with_batch_statistics(Latent(module, False), weights, X)
    found = draws.latents(Latent(module, False), X)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    for f, draw in zip(found, weights, strict=True):
        nn.utils.vector_to_parameters(draw, module.parameters())
        linear, _, norm, _, last = module
        with torch.no_grad():
            z = linear(X)
            # Running statistics hold the unbiased variance.
            z = (z - z.mean(dim=0)) / (z.var(dim=0) + norm.eps).sqrt() * norm.weight + norm.bias
            assert_allclose(f, last(torch.tanh(z)), rtol=1e-9)


def test_batch_statistics_are_averaged_over_batches(monkeypatch):
    monkeypatch.setattr(weight_draws, "REFRESH_ROWS", 4)
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    (buffers,) = with_batch_statistics(Latent(module, False), some_weights(module, 1), X).buffers
    parts = [X[0::3], X[1::3], X[2::3]]
    assert_allclose(buffers["0.running_mean"], torch.stack([p.mean(0) for p in parts]).mean(0))
    assert_allclose(buffers["0.running_var"], torch.stack([p.var(0) for p in parts]).mean(0))


@pytest.mark.parametrize("kind", [nn.LayerNorm, lambda n: nn.BatchNorm1d(n, affine=True)])
def test_only_running_statistics_are_kept(kind):
    module = nn.Sequential(nn.Linear(3, 4), kind(4)).double()
    draws = with_batch_statistics(Latent(module, False), some_weights(module), X)
    names = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert [set(buffers) for buffers in draws.buffers] == (
        [] if kind is nn.LayerNorm else [names] * 3
    )
