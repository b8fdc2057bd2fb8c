"""What the studies on real data score, and how they print it."""

from typing import Any

import numpy as np
import pandas as pd

from sksubnet.metrics import expected_calibration_error, interval_coverage

NORMAL_90 = 1.6449


def losses_and_scores(
    model: Any, classify: bool, X: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Negative log likelihood of each row; error and ECE, or RMSE, coverage and width of 90 %."""
    if classify:
        p, classes = model.predict_proba(X), model.classes_
        correct = p[np.arange(len(y)), np.searchsorted(classes, y)]
        losses = -np.log(correct.clip(np.finfo(float).eps))
        error = float(np.mean(classes[p.argmax(axis=1)] != y))
        ece = expected_calibration_error(y, p, labels=classes)
        return losses, {"loss": float(losses.mean()), "error": error, "ece": ece}
    mean, std = model.predict(X, return_std=True)
    losses = (np.log(2 * np.pi * std**2) + ((y - mean) / std) ** 2) / 2
    return losses, {
        "loss": float(losses.mean()),
        "error": float(np.sqrt(np.mean((y - mean) ** 2))),
        "coverage": interval_coverage(y, mean - NORMAL_90 * std, mean + NORMAL_90 * std),
        "width": float(np.mean(2 * NORMAL_90 * std)),
    }


def markdown(table: pd.DataFrame, corner: str, digits: int) -> str:
    lines = [[corner, *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    for name, row in table.iterrows():
        cells = [f"{v:.{digits}g}" if isinstance(v, float) else str(v) for v in row]
        lines.append([str(name), *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
