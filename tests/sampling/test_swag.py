"""SWAG's moments and draws against the snapshots themselves."""

import copy

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sksubnet.predictive.likelihood import Categorical
from sksubnet.sampling import swag
from sksubnet.sampling.swag import SWAGMoments, swag_moments

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
Y = RNG.integers(0, 2, 30)


def net():
    return dense.trained_net(dense.mlp(), Categorical(), X, Y)


def snapshots(monkeypatch, **settings):
    """The path that the moments are made from, and the moments."""
    seen = []

    def recorded(*arguments, path=swag._sgd_path):
        for weights in path(*arguments):
            seen.append(weights.clone())
            yield weights

    monkeypatch.setattr(swag, "_sgd_path", recorded)
    torch.manual_seed(1)
    moments = swag_moments(net(), batch_size=8, **settings)
    return torch.stack(seen).numpy(), moments


@pytest.mark.parametrize("rank", [0, 3, 20])
def test_moments_are_those_of_the_snapshots(monkeypatch, rank):
    path, moments = snapshots(monkeypatch, n_snapshots=7, rank=rank)
    assert len(path) == 7
    assert_allclose(moments.mean, path.mean(axis=0))
    assert_allclose(moments.variance, path.var(axis=0, ddof=1), rtol=1e-9)
    deviations = [path[i] - path[: i + 1].mean(axis=0) for i in range(7)]
    kept = deviations[7 - min(rank, 7) :]
    assert moments.deviations.shape == (min(rank, 7), path.shape[1])
    assert_allclose(moments.deviations, np.reshape(kept, (-1, path.shape[1])), atol=1e-14)


def test_the_selection_follows_the_same_path():
    torch.manual_seed(1)
    diagonal = swag_moments(net(), n_snapshots=5)
    torch.manual_seed(1)
    moments = swag_moments(net(), n_snapshots=5, rank=4)
    assert torch.equal(moments.mean, diagonal.mean)
    assert torch.equal(moments.variance, diagonal.variance)


def test_a_last_batch_of_a_single_row_is_left_out():
    """Of which batch normalisation has no variance; by plain SGD over the other rows."""
    torch.manual_seed(3)
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    ).double()
    trained = dense.trained_net(module.eval(), Categorical(), X, Y)
    with trained.row_order() as generator:
        order = torch.randperm(30, generator=generator)
    found = swag_moments(trained, n_snapshots=1, batch_size=29, lr=0.1, weight_decay=0)
    by_hand = copy.deepcopy(module).train()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    outputs = by_hand(torch.as_tensor(X)[order[:29]])
    torch.nn.functional.cross_entropy(outputs, torch.as_tensor(Y)[order[:29]]).backward()
    optimizer.step()
    assert_allclose(found.mean, dense.weight_vector(by_hand), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_draws_have_the_covariance_of_the_paper(scale):
    deviations = torch.as_tensor(RNG.normal(size=(3, 5)))
    variance = torch.as_tensor(RNG.uniform(0, 2, size=5))
    variance[2] = 0
    mean = torch.as_tensor(RNG.normal(size=5))
    generator = torch.Generator().manual_seed(0)
    draws = SWAGMoments(mean, variance, deviations).draws(200_000, scale, generator).numpy()
    D = deviations.numpy()
    expected = scale * (np.diag(variance) + D.T @ D / (len(D) - 1))
    assert_allclose(draws.mean(axis=0), mean, atol=0.02)
    assert_allclose(np.cov(draws.T), expected, atol=0.02 * expected.max())


def test_draws_without_a_low_rank_part_or_scale():
    moments = SWAGMoments(
        torch.zeros(4).double(), torch.ones(4).double(), torch.empty(0, 4).double()
    )
    draws = moments.draws(50_000, 0.5, torch.Generator().manual_seed(0))
    assert_allclose(np.cov(draws.T), np.eye(4) / 2, atol=0.02)
    assert torch.equal(
        moments.draws(2, 0.0, torch.Generator()), torch.zeros(2, 4, dtype=torch.float64)
    )
