"""Thirteen ways to spoil colour images, each at five severities.

The kinds and, unless said otherwise beside them, the parameters are those that D. Hendrycks and
T. Dietterich (*Benchmarking neural network robustness to common corruptions and perturbations*,
ICLR 2019) chose for images of 32 by 32 pixels. The recipes are written anew, so that single images
differ from theirs, and so do scores.

Images are arrays (N, H, W, 3) between 0 and 1. A recipe takes them, the severity from 0 to 4, and a
random generator.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

SEVERITIES = range(1, 6)


def gaussian_noise(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Of a standard deviation."""
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[k] * rng.standard_normal(x.shape)


def shot_noise(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts, with so many photons where a channel is 1."""
    photons = (500, 250, 100, 75, 50)[k]
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """A share of the values becomes 0 or 1."""
    hit = rng.random(x.shape) < (0.01, 0.02, 0.03, 0.05, 0.07)[k]
    return np.where(hit, rng.integers(2, size=x.shape), x)


def gaussian_blur(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Of a standard deviation in pixels."""
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[k]
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0))


def defocus_blur(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """A disc of a radius in pixels, its edge softened by a Gaussian."""
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[k]
    place = np.arange(-4, 5)
    disc = (np.hypot(place[:, None], place) <= radius).astype(float)
    kernel = ndimage.gaussian_filter(disc, softness)
    return ndimage.convolve(x, kernel[None, :, :, None] / kernel.sum())


def motion_blur(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Along a line at up to 45 degrees: Gaussian weights up to a distance, both in pixels."""
    reach, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[k]
    along = np.arange(-reach, reach + 1)
    weights = np.exp(-((along / sigma) ** 2) / 2)
    moved = np.empty_like(x)
    for i, angle in enumerate(np.radians(rng.uniform(-45, 45, len(x)))):
        steps = zip(along * np.sin(angle), along * np.cos(angle), weights, strict=True)
        parts = [
            w * ndimage.shift(x[i], (dy, dx, 0), order=1, mode="mirror") for dy, dx, w in steps
        ]
        moved[i] = np.sum(parts, axis=0) / weights.sum()
    return moved


def zoom_blur(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the image and of enlargements in steps of a hundredth."""
    largest = (0.05, 0.10, 0.15, 0.20, 0.25)[k]
    factors = 1 + np.arange(0, largest + 0.005, 0.01)
    return np.mean([_enlarged(x, factor) for factor in factors], axis=0)


def _enlarged(x: np.ndarray, factor: float) -> np.ndarray:
    """Images around their centres, at the same size."""
    scale = np.array([1, 1 / factor, 1 / factor, 1])
    centre = (np.array(x.shape) - 1) / 2
    return ndimage.affine_transform(x, scale, centre * (1 - scale), order=1, mode="nearest")


def fog(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """A cloud of a strength; each octave is weaker than the coarser one by a factor."""
    strength, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[k]
    n, height, width, _ = x.shape
    cloud, size, weight = np.zeros((n, height, width)), 2, 1.0
    while size <= max(height, width):
        coarse = rng.random((n, size, size))
        zoom = (1, height / size, width / size)
        cloud += weight * ndimage.zoom(coarse, zoom, order=1, grid_mode=True, mode="nearest")
        size, weight = 2 * size, weight / decay
    cloud -= cloud.min(axis=(1, 2), keepdims=True)
    cloud /= cloud.max(axis=(1, 2), keepdims=True)
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + strength * cloud[..., None]) * brightest / (brightest + strength)


def brightness(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Add to the value of HSV, and leave hue and saturation."""
    value = x.max(axis=-1, keepdims=True)
    colour = np.divide(x, value, out=np.ones_like(x), where=value > 0)
    return colour * (value + (0.05, 0.10, 0.15, 0.20, 0.30)[k]).clip(max=1)


def contrast(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """A share of the distance from the mean of each channel is left."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return mean + (0.75, 0.5, 0.4, 0.3, 0.15)[k] * (x - mean)


def elastic(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth field of displacements, of a standard deviation in 32nds of the height (ours)."""
    n, height, width, _ = x.shape
    field = ndimage.gaussian_filter(rng.standard_normal((2, n, height, width)), (0, 0, 3, 3))
    field *= (0.4, 0.7, 1.0, 1.3, 1.7)[k] * height / 32 / field.std()
    grid = np.indices((height, width))[:, None] + field
    moved = np.empty_like(x)
    for i in range(n):
        for c in range(3):
            moved[i, :, :, c] = ndimage.map_coordinates(
                x[i, :, :, c], grid[:, i], order=1, mode="mirror"
            )
    return moved


def pixelate(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Average over fewer, larger pixels: a share of the height and of the width."""
    share = (0.95, 0.90, 0.85, 0.75, 0.65)[k]
    rows, columns = (_pixels(size, int(share * size)) for size in x.shape[1:3])
    return np.einsum("ih,jw,nhwc->nijc", rows, columns, x, optimize=True)


def _pixels(size: int, fewer: int) -> np.ndarray:
    """Matrix (size, size): each pixel becomes the mean over the larger one that it lies in."""
    edges = np.arange(fewer + 1) * size / fewer
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)
    overlap = (np.minimum(high, pixel + 1) - np.maximum(low, pixel)).clip(min=0)
    inside = ((pixel + 0.5) * fewer / size).astype(int)
    return (overlap / (high - low))[inside]


def jpeg(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Compression of a quality."""
    found = np.empty_like(x)
    for i, image in enumerate(np.rint(x * 255).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=(80, 65, 58, 50, 40)[k])
        found[i] = np.asarray(Image.open(file), dtype=float) / 255
    return found


Recipe = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

CORRUPTIONS: dict[str, Recipe] = {
    recipe.__name__.replace("_", " "): recipe
    for recipe in (
        *(gaussian_noise, shot_noise, impulse_noise),
        *(gaussian_blur, defocus_blur, motion_blur, zoom_blur),
        *(fog, brightness, contrast, elastic, pixelate, jpeg),
    )
}


def corrupted(x: np.ndarray, kind: str, severity: int, seed: int) -> np.ndarray:
    """Images (N, H, W, 3) in [0, 1] at a severity from 0, which leaves them, to 5.

    The noise of a seed is the same at every severity, only stronger.
    """
    if severity == 0:
        return x
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(kind)])
    return CORRUPTIONS[kind](x.astype(float), severity - 1, rng).clip(0, 1)
