"""What the studies on real data score, and how they print it."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import erf, logsumexp

from sksubnet.metrics import expected_calibration_error, gaussian_nll, interval_coverage
from sksubnet.predictive import Predictive

NORMAL_90 = 1.6449
N_DECILES = 10


class Components(NamedTuple):
    """A regression: M equally likely Gaussians (M, N), and their 90 % interval (N, 2)."""

    means: np.ndarray
    stds: np.ndarray
    interval: np.ndarray

    def mean(self) -> np.ndarray:
        return self.means.mean(axis=0)

    def std(self) -> np.ndarray:
        return np.sqrt(np.mean(self.stds**2, axis=0) + np.var(self.means, axis=0))

    def losses(self, y: np.ndarray) -> np.ndarray:
        """Negative log density of each row."""
        each = -(((y - self.means) / self.stds) ** 2 + np.log(2 * np.pi * self.stds**2)) / 2
        return np.log(len(each)) - logsumexp(each, axis=0)

    def crps(self, y: np.ndarray) -> float:
        """Mean of E|Y - y| - E|Y - Y'| / 2 for two draws Y and Y'."""
        distance = expected_absolute(y - self.means, self.stds).mean(axis=0)
        spread = np.zeros_like(distance)
        for mean, std in zip(self.means, self.stds, strict=True):
            spread += expected_absolute(self.means - mean, np.hypot(self.stds, std)).mean(axis=0)
        return float(np.mean(distance - spread / len(self.means) / 2))


def expected_absolute(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """E|Z| of a Gaussian Z."""
    ratio = mean / std
    density = np.exp(-(ratio**2) / 2) * np.sqrt(2 / np.pi)
    return std * density + mean * erf(ratio / np.sqrt(2))


def components(model: Any, X: np.ndarray) -> Components:
    """What a regressor predicts: its mixture if it is one, else a Gaussian."""
    if not hasattr(model, "predictive"):
        mean, std = model.predict(X, return_std=True)
        reach = NORMAL_90 * std
        return Components(mean[None], std[None], np.stack([mean - reach, mean + reach], axis=1))
    predictive = model.predictive(X)
    interval = predictive.interval(0.9)[:, 0]
    if predictive.mixture is None:
        return Components(predictive.mean.numpy().T, predictive.std().T, interval)
    return Components(*mixture_of(predictive), interval)


def mixture_of(predictive: Predictive) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations (M, N), noise included."""
    mixture = predictive.mixture
    means = mixture.means[..., 0].double().numpy()
    if mixture.noise is None:
        # (C,), or (N, C) where it depends on the row
        noise = predictive.likelihood.noise_variance[..., 0].double().numpy()
    else:
        # (M, C), or (M, N, C)
        noise = mixture.noise[..., 0].double().numpy().reshape(len(means), -1)
    within = 0.0 if mixture.covariances is None else mixture.covariances[..., 0, 0].double().numpy()
    return means, np.sqrt(np.broadcast_to(noise + within, means.shape))


def by_decile(values: np.ndarray, std: np.ndarray) -> list[float]:
    """Means of the values over tenths of the rows, in order of the predicted deviation."""
    # equal deviations come in a random order, not in that of the rows
    order = np.lexsort([np.random.default_rng(0).random(len(std)), std])
    return [float(part.mean()) for part in np.array_split(values[order], N_DECILES)]


def losses_and_scores(
    model: Any, classify: bool, X: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Negative log likelihood of each row; error and ECE, or RMSE, CRPS and what 90 % cover.

    The likelihood of a regression's mixture is that of the mixture; `loss_of_moments` is that of
    the Gaussian with its mean and variance.
    """
    if classify:
        p, classes = model.predict_proba(X), model.classes_
        correct = p[np.arange(len(y)), np.searchsorted(classes, y)]
        losses = -np.log(correct.clip(np.finfo(float).eps))
        error = float(np.mean(classes[p.argmax(axis=1)] != y))
        ece = expected_calibration_error(y, p, labels=classes)
        return losses, {"loss": float(losses.mean()), "error": error, "ece": ece}
    found = components(model, X)
    losses, mean, std = found.losses(y), found.mean(), found.std()
    low, high = found.interval.T
    return losses, {
        "loss": float(losses.mean()),
        "loss_of_moments": gaussian_nll(y, mean, std),
        "error": float(np.sqrt(np.mean((y - mean) ** 2))),
        "crps": found.crps(y),
        "coverage": interval_coverage(y, low, high),
        "width": float(np.mean(high - low)),
        "coverages": by_decile((low <= y) & (y <= high), std),
        "widths": by_decile(high - low, std),
    }


def markdown(table: pd.DataFrame, corner: str, digits: int) -> str:
    lines = [[corner, *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    for name, row in table.iterrows():
        cells = [f"{v:.{digits}g}" if isinstance(v, float) else str(v) for v in row]
        lines.append([str(name), *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
