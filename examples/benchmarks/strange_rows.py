"""Rows that are not like those that a model was trained on."""

import numpy as np
from tabular_data import Split

TIMES = (10, 100)


def unseen_category(split: Split) -> np.ndarray:
    """Test rows, each with one of its categories at no level at all."""
    X = split.test_X.copy()
    for i in range(len(X)):
        X[i, split.groups[i % len(split.groups)]] = 0.0
    return X


def out_of_range(split: Split, times: float) -> np.ndarray:
    """Test rows, each with one of its numbers so many ranges above the training rows."""
    X = split.test_X.copy()
    columns = np.arange(split.X.shape[1])[split.numbers]
    low, high = split.X.min(axis=0), split.X.max(axis=0)
    columns = columns[high[columns] > low[columns]]
    which = columns[np.arange(len(X)) % len(columns)]
    X[np.arange(len(X)), which] = high[which] + times * (high - low)[which]
    return X


def strange_rows(split: Split, seed: int) -> dict[str, np.ndarray]:
    """Kinds of rows by name; a table without categories has none that is unseen."""
    rng = np.random.default_rng(seed)
    center, spread = split.X.mean(axis=0), split.X.std(axis=0)
    rows = {"test rows": split.test_X}
    if split.groups:
        rows["unseen category"] = unseen_category(split)
    for times in TIMES:
        rows[f"{times} ranges away"] = out_of_range(split, times)
    rows["white noise"] = center + spread * rng.standard_normal(split.test_X.shape)
    rows["column means"] = center[None]
    return rows
