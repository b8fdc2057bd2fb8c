"""Real data for `selection_study.py`: training rows, and test rows with and without a shift."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import rotate
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

PARTS = ("tables", "gap", "standard", "mnist")
TEST_ROWS = 1000
ANGLES = range(0, 181, 30)
UCI = ("boston", "concrete", "energy", "wine", "yacht", "kin8nm", "naval")


class Case(NamedTuple):
    """Which rows: a data set of a part, one of its splits, and the seed of everything random."""

    part: str
    data: str
    split: str
    seed: int


class Rows(NamedTuple):
    """Training rows and named test sets; `net` is a skorch net, or None for the default one."""

    classify: bool
    X: np.ndarray
    y: np.ndarray
    tests: dict[str, tuple[np.ndarray, np.ndarray]]
    net: Any = None


class Table(NamedTuple):
    """File of a table, which of its rows are shifted, and what is no feature or no number."""

    file: str
    classify: bool
    is_shifted: Callable[[pd.DataFrame], Any]
    dropped: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


def late(share: float) -> Callable[[pd.DataFrame], np.ndarray]:
    """The last rows of a table in order of time."""
    return lambda table: np.arange(len(table)) >= (1 - share) * len(table)


TABLES = {
    # how long a call took is known only after it
    "bank": Table("bank_marketing", True, late(0.4), ("duration",)),
    "elec2": Table("electricity_elec2", True, late(0.5)),
    "heart": Table(
        "heart_disease_4sites",
        True,
        lambda table: table["site"].isin(["switzerland", "va"]),
        ("site",),
        ("cp", "restecg", "slope", "thal"),
    ),
    "weather": Table("noaa_weather", True, late(0.5)),
    "california": Table("california_housing", False, lambda table: table["longitude"] > -119),
    "bike": Table(
        "bike_sharing_hourly",
        False,
        lambda table: table["dteday"] >= "2012",
        ("dteday", "yr"),
        ("season", "mnth", "weekday", "weathersit"),
    ),
    "ames": Table("ames_housing", False, lambda table: table["Year_Sold"] >= 2009),
    "wine": Table(
        "wine_red_white", False, lambda table: table["colour"] == "red", dropped=("colour",)
    ),
    "pm25": Table("beijing_pm25", False, lambda table: table["year"] >= 2013),
}


def cases(part: str, folder: Path, n_splits: int) -> Iterator[Case]:
    """At most so many splits or seeds of every data set of a part, split by split."""
    for i in range(n_splits):
        if part == "tables":
            yield from (Case(part, name, "random", i) for name in TABLES)
        elif part == "mnist":
            yield from (Case(part, name, "random", i) for name in MNIST_NETS)
        else:
            for name in UCI:
                n_known = len(np.load(folder / f"uci_{name}_splits.npz")[f"{part}_test"])
                yield from (Case(part, name, str(i), 0) for _ in range(i < n_known))


def is_classification(case: Case) -> bool:
    return case.part == "mnist" or (case.part == "tables" and TABLES[case.data].classify)


def load(case: Case, folder: Path, n_rows: int) -> Rows:
    """Read the rows of a case, at most `n_rows` of them for training."""
    kinds = {"tables": load_table, "mnist": load_mnist, "gap": load_uci, "standard": load_uci}
    return kinds[case.part](case, folder, n_rows)


def load_table(case: Case, folder: Path, n_rows: int) -> Rows:
    """Random training and test rows of one distribution, and test rows of the shifted one."""
    spec = TABLES[case.data]
    return split_table(pd.read_csv(folder / f"tab_{spec.file}.csv.gz"), spec, case.seed, n_rows)


def split_table(table: pd.DataFrame, spec: Table, seed: int, n_rows: int) -> Rows:
    """The same of a table at hand, whose last column is the target."""
    rng = np.random.default_rng(seed)
    is_shifted = np.asarray(spec.is_shifted(table))
    known, shifted = (rng.permutation(np.flatnonzero(kind)) for kind in (~is_shifted, is_shifted))
    test, train = np.split(known, [min(TEST_ROWS, int(0.3 * len(known)))])
    X, y = table.drop(columns=[*spec.dropped, table.columns[-1]]), table.iloc[:, -1].to_numpy()
    X[list(spec.codes)] = X[list(spec.codes)].map(lambda code: f"{code:g}", na_action="ignore")
    encoder = make_column_transformer(
        (
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20),
            make_column_selector(dtype_exclude="number"),
        ),
        (SimpleImputer(strategy="median"), make_column_selector(dtype_include="number")),
        sparse_threshold=0,
    )
    train_X = encoder.fit_transform(X.iloc[train[:n_rows]])
    tests = {
        name: (encoder.transform(X.iloc[rows]), y[rows])
        for name, rows in {"in distribution": test, "shifted": shifted[:TEST_ROWS]}.items()
    }
    return Rows(spec.classify, train_X, y[train[:n_rows]], tests)


def load_uci(case: Case, folder: Path, n_rows: int) -> Rows:
    """A gap split (Foong et al. 2019) or one of the usual random 90/10 splits."""
    table = pd.read_csv(folder / f"uci_{case.data}.csv.gz").to_numpy(dtype=float)
    X, y = table[:, :-1], table[:, -1]
    masks = np.load(folder / f"uci_{case.data}_splits.npz")[f"{case.part}_test"]
    is_test = masks[int(case.split)]
    rng = np.random.default_rng(case.seed)
    train, test = (rng.permutation(np.flatnonzero(kind)) for kind in (~is_test, is_test))
    train, test = train[:n_rows], test[:TEST_ROWS]
    return Rows(False, X[train], y[train], {case.part: (X[test], y[test])})


class Perceptron(nn.Sequential):
    """784-128-128-10."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
        )


def digit_net(max_epochs: int, callbacks: list[Any] | None) -> NeuralNetClassifier:
    return NeuralNetClassifier(
        Perceptron,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__weight_decay=1e-4,
        lr=1e-3,
        batch_size=128,
        iterator_train__shuffle=True,
        max_epochs=max_epochs,
        train_split=ValidSplit(5, stratified=True),
        callbacks=callbacks,
        callbacks__valid_acc=None,
        callbacks__print_log=None,
        verbose=0,
    )


def silent(message: str) -> None:
    """Drop what early stopping prints; with a name, so that the net can be pickled."""


MNIST_NETS: dict[str, Callable[[], NeuralNetClassifier]] = {
    "stopped early": lambda: digit_net(
        100, [("stop", EarlyStopping(patience=10, load_best=True, sink=silent))]
    ),
    "100 epochs": lambda: digit_net(100, None),
}


def load_mnist(case: Case, folder: Path, n_rows: int) -> Rows:
    """Upright digits to train on, others at several angles to test on."""
    file, rng = np.load(folder / "img_mnist.npz"), np.random.default_rng(case.seed)
    train = rng.permutation(len(file["X_train"]))[:n_rows]
    test = rng.permutation(len(file["X_test"]))[:TEST_ROWS]
    images, labels = file["X_test"][test] / 255.0, file["y_test"][test].astype(int)
    tests = {
        f"{angle}°": (
            rotate(images, angle, axes=(1, 2), reshape=False, order=1).reshape(len(test), -1),
            labels,
        )
        for angle in ANGLES
    }
    X, y = file["X_train"][train].reshape(n_rows, -1) / 255.0, file["y_train"][train].astype(int)
    return Rows(True, X, y, tests, MNIST_NETS[case.data]())
