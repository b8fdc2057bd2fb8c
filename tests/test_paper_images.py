"""What the paper's experiments on images do to images, against simple oracles."""

import colorsys
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn

PAPER = Path(__file__).parent.parent / "examples" / "paper"
KINDS = ("gaussian noise", "shot noise", "impulse noise", "gaussian blur", "defocus blur")
KINDS += ("motion blur", "zoom blur", "fog", "brightness", "contrast", "elastic", "pixelate")
KINDS += ("jpeg",)
LEAVE_ONE_COLOUR = ("gaussian blur", "defocus blur", "motion blur", "zoom blur", "contrast")
LEAVE_ONE_COLOUR += ("elastic", "pixelate")


@pytest.fixture
def paper(paper_scripts):
    return importlib.import_module


@pytest.fixture(scope="module")
def pictures():
    """Parts of a photograph, of 32 by 32 pixels."""
    photograph = load_sample_image("china.jpg")[:384, :640] / 255
    small = photograph.reshape(96, 4, 160, 4, 3).mean(axis=(1, 3))
    return small.reshape(3, 32, 5, 32, 3).swapaxes(1, 2).reshape(15, 32, 32, 3)


def test_there_are_these_kinds(paper):
    assert tuple(paper("corruptions").CORRUPTIONS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_severity_takes_pictures_away_from_the_clean_ones(paper, pictures, kind):
    corrupted = paper("corruptions").corrupted
    spoilt = [corrupted(pictures, kind, severity, seed=0) for severity in range(6)]
    np.testing.assert_array_equal(spoilt[0], pictures)
    distances = [np.abs(each - pictures).mean() for each in spoilt]
    assert (np.diff(distances) > 0).all()
    assert all(each.min() >= 0 and each.max() <= 1 for each in spoilt)
    np.testing.assert_array_equal(corrupted(pictures, kind, 5, seed=0), spoilt[5])


@pytest.mark.parametrize("kind", LEAVE_ONE_COLOUR)
def test_no_blur_changes_a_picture_of_one_colour(paper, kind):
    plain = np.broadcast_to([0.2, 0.5, 0.9], (2, 32, 32, 3))
    for severity in range(1, 6):
        found = paper("corruptions").corrupted(plain, kind, severity, seed=0)
        np.testing.assert_allclose(found, plain, atol=1e-12)


def test_noise_has_the_moments_of_its_kind(paper):
    grey = np.full((40, 32, 32, 3), 0.5)
    corrupted = paper("corruptions").corrupted
    assert corrupted(grey, "gaussian noise", 5, seed=0).std() == pytest.approx(0.10, rel=0.01)
    shot = corrupted(grey, "shot noise", 3, seed=0)
    assert shot.mean() == pytest.approx(0.5, abs=0.001)
    assert shot.var() == pytest.approx(0.5 / 100, rel=0.02)
    impulse = corrupted(grey, "impulse noise", 5, seed=0)
    assert np.unique(impulse).tolist() == [0, 0.5, 1]
    assert np.mean(impulse != 0.5) == pytest.approx(0.07, rel=0.05)


def test_brightness_is_the_value_of_hsv(paper):
    colour = (0.3, 0.6, 0.45)
    picture = np.broadcast_to(colour, (1, 2, 2, 3))
    found = paper("corruptions").corrupted(picture, "brightness", 3, seed=0)[0, 0, 0]
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    assert colorsys.rgb_to_hsv(*found) == pytest.approx((hue, saturation, value + 0.15))
    assert paper("corruptions").corrupted(0 * picture, "brightness", 3, seed=0) == pytest.approx(
        0.15
    )


def test_pixels_are_means_over_blocks(paper, pictures):
    halved = paper("corruptions")._pixels(32, 16)
    found = np.einsum("ih,jw,nhwc->nijc", halved, halved, pictures)
    blocks = pictures.reshape(15, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(found, blocks.repeat(2, axis=1).repeat(2, axis=2))


def test_enlarging_twice_shows_the_middle_of_a_slope(paper):
    slope = np.broadcast_to(np.linspace(0, 1, 33)[:, None, None], (1, 33, 33, 3))
    found = paper("corruptions")._enlarged(slope, 2)
    np.testing.assert_allclose(found[0, :, 0, 0], np.linspace(0.25, 0.75, 33))


def test_quarter_turns_are_those_of_numpy(paper):
    rotated = paper("rotated_mnist").rotated
    images = np.random.default_rng(0).random((3, 28, 28))
    for k in range(5):
        turned = np.rot90(images, k, axes=(1, 2))
        np.testing.assert_allclose(rotated(images, 90 * k), turned, atol=1e-12)
    np.testing.assert_array_equal(rotated(images, 0), images)


def test_half_a_quarter_keeps_a_disc_and_turns_a_line(paper):
    rotated = paper("rotated_mnist").rotated
    place = np.arange(29) - 14
    disc = np.exp(-(place[:, None] ** 2 + place**2) / 18)
    np.testing.assert_allclose(rotated(disc, 45), disc, atol=0.03)
    line = np.zeros((29, 29))
    line[14] = 1
    assert np.trace(np.fliplr(rotated(line, 45))) > 18 > 2 > np.trace(rotated(line, 45))


def test_resnet18_has_its_layers_and_weights(paper):
    nets = paper("image_nets")
    module = nets.ResidualNet(channels=3, dropout=0.0, **nets.NETS["resnet18"])
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    shortcuts = [layer for layer in layers if getattr(layer, "kernel_size", None) == (1, 1)]
    assert len(layers) - len(shortcuts) == 18
    # as for CIFAR-10 with a first layer of 3 by 3
    assert sum(parameter.numel() for parameter in module.parameters()) == 11_173_962
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
