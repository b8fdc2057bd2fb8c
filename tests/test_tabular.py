"""The default net's scaling and clipping against repetition and the formula."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sksubnet.tabular import CLIP, TabularMLP, robust_scale

RNG = np.random.default_rng(0)
X = RNG.normal(size=(41, 3)) * [1, 100, 1e-3] + [0, 5, -1]


def test_scale_is_the_median_and_the_interquartile_range():
    center, scale = robust_scale(X, np.ones(41))
    # With 41 rows the quartiles are the 11th, 21st and 31st value.
    ordered = np.sort(X, axis=0)
    assert_allclose(center, ordered[20])
    assert_allclose(1 / scale, ordered[30] - ordered[10])


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


def test_rare_categories_are_scaled_by_half_their_range():
    rare = np.zeros((41, 2))
    rare[:3, 0] = 1
    rare[:3, 1] = -6
    center, scale = robust_scale(rare, np.ones(41))
    assert_allclose(center, 0)
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
