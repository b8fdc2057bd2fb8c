"""The default net's scaling and clipping against repetition and the formula."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sksubnet.nets.tabular import CLIP, TabularMLP, robust_scale

RNG = np.random.default_rng(0)
X = RNG.normal(size=(41, 3)) * [1, 100, 1e-3] + [0, 5, -1]


def test_scale_is_the_mean_and_the_standard_deviation():
    center, scale = robust_scale(X, np.ones(41))
    assert_allclose(center, X.mean(axis=0))
    assert_allclose(1 / scale, X.std(axis=0))


def test_outliers_count_as_values_ten_interquartile_ranges_from_the_median():
    # With 41 rows the quartiles are the 11th, 21st and 31st value.
    low, median, high = np.sort(X, axis=0)[[10, 20, 30]]
    wild, moved = X.copy(), X.copy()
    most, least = X.argmax(axis=0), X.argmin(axis=0)
    columns = range(3)
    wild[most, columns], wild[least, columns] = [1e4, 1e12, 1e200], [-1e9, -1e4, -1e300]
    moved[most, columns] = (median + 10 * (high - low))[columns]
    moved[least, columns] = (median - 10 * (high - low))[columns]
    center, scale = robust_scale(wild, np.ones(41))
    assert_allclose(center, moved.mean(axis=0))
    assert_allclose(1 / scale, moved.std(axis=0))


def test_mostly_zero_columns_are_scaled_by_what_is_not_zero():
    counts = np.zeros((41, 1))
    counts[:4, 0] = [1, 5, 7, 700]
    center, scale = robust_scale(counts, np.ones(41))
    assert_allclose([center[0], 1 / scale[0]], [713 / 41, counts.std()])


def test_scale_of_huge_and_tiny_columns_neither_overflows_nor_vanishes():
    center, scale = robust_scale(X * [1e200, 1e-200, 1], np.ones(41))
    expected = robust_scale(X, np.ones(41))
    assert_allclose(center / [1e200, 1e-200, 1], expected[0])
    assert_allclose(scale * [1e200, 1e-200, 1], expected[1])


def test_integer_weights_equal_repetition():
    counts = np.resize([1, 4, 2, 3], 41)
    weighted = robust_scale(X, counts.astype(float))
    repeated = robust_scale(X.repeat(counts, axis=0), np.ones(counts.sum()))
    assert_allclose(weighted, repeated, rtol=1e-12)
    assert (weighted[0] != robust_scale(X, np.ones(41))[0]).any()
    assert_allclose(robust_scale(X, 0.5 * counts), weighted)


@pytest.mark.parametrize("value", [0.0, 7.3, -1e9])
def test_constant_columns_never_act(value):
    constant = np.full((41, 1), value)
    center, scale = robust_scale(constant, np.ones(41))
    assert (center[0], scale[0]) == (value, 0.0)
    net = TabularMLP(1, 2, center=center, scale=scale).double()
    far = net(torch.tensor([[value], [value + 1e6]], dtype=torch.float64))
    assert torch.equal(far[0], far[1])


@pytest.mark.parametrize("n_rare", [1, 3, 20])
def test_two_values_are_scaled_by_half_their_distance_however_rare_one_is(n_rare):
    two = np.zeros((41, 2))
    two[:n_rare, 0] = 1
    two[:n_rare, 1] = -6
    center, scale = robust_scale(two, np.ones(41))
    assert_allclose(center, 0)
    assert_allclose(scale, [2, 1 / 3])
    center, scale = robust_scale(1 - two, np.ones(41))
    assert_allclose(center, 1)
    assert_allclose(scale, [2, 1 / 3])


def test_net_scales_clips_smoothly_and_then_is_a_plain_mlp():
    center, scale = robust_scale(X, np.ones(41))
    net = TabularMLP(3, 2, hidden=(5, 4), center=center, scale=scale).double()
    hidden = (X - center) * scale
    hidden = hidden / np.sqrt(1 + (hidden / CLIP) ** 2)
    for number in (0, 2, 4):
        layer = net.layers[number]
        hidden = hidden @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if number < 4:
            hidden = hidden / (1 + np.exp(-hidden))
    assert_allclose(net(torch.as_tensor(X)).detach(), hidden, rtol=1e-10)
    assert [name for name, _ in net.named_buffers()] == ["center", "scale"]


def test_clipping_is_smooth_bounded_and_the_identity_near_the_median():
    net = TabularMLP(1, 1, hidden=()).double()
    net.layers[0].weight.data.fill_(1)
    net.layers[0].bias.data.fill_(0)
    z = torch.tensor([0.0, 1e-4, 1.0, 3.0, 50.0, 1e12], dtype=torch.float64, requires_grad=True)
    outputs = net(z[:, None])[:, 0]
    (slope,) = torch.autograd.grad(outputs.sum(), z)
    clipped = outputs.detach()
    assert_allclose(clipped[:2], [0, 1e-4], rtol=1e-8)
    assert float(clipped[3]) == pytest.approx(3 / np.sqrt(2))
    assert (clipped.diff() > 0).all()
    assert clipped.max() <= CLIP
    assert float(slope[0]) == 1
    assert (slope[:5] > 0).all()
    assert (slope[:5].diff() < 0).all()
