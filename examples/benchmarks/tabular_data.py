"""Tables for the studies: rows to develop on, and a vault that only a comparison opens."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder

MOST_DEVELOPMENT = 40_000
MOST_VAULT = 5000
MOST_SCORED = 2000
RARE = 20


class Table(NamedTuple):
    """File of a table, what is no feature of it, and which of its numbers are categories.

    `source` is the name of a file, or the loader of a table that scikit-learn ships.
    """

    source: str | Callable[..., Any]
    classify: bool
    dropped: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


class Split(NamedTuple):
    """Rows to train on and to score; encoded, and targets standardised, by the training rows.

    `groups` are the columns of the categories with several of them, `numbers` those of the numbers.
    """

    classify: bool
    X: np.ndarray
    y: np.ndarray
    test_X: np.ndarray
    test_y: np.ndarray
    groups: tuple[slice, ...] = ()
    numbers: slice = slice(0)


FILES = {
    "pima": Table("tab_pima_diabetes", True),
    "vehicle": Table("tab_vehicle", True),
    "heart": Table("tab_heart_disease_4sites", True, ("site",), ("cp", "restecg", "slope", "thal")),
    "german": Table("tab_german_credit", True),
    "segment": Table("tab_segment", True),
    "dna": Table("tab_dna_splice", True),
    "spambase": Table("tab_spambase", True),
    "churn": Table("tab_churn_mlc", True),
    "phoneme": Table("tab_phoneme", True),
    "satellite": Table("tab_satellite", True),
    "telco": Table("tab_telco_churn", True),
    "letter": Table("tab_letter", True),
    "default": Table("tab_credit_default", True, (), ("sex", "marriage", "education")),
    # how long a call took is known only after it
    "bank": Table("tab_bank_marketing", True, ("duration",)),
    "adult": Table("tab_adult", True, ("official_split",)),
    "energy": Table("uci_energy", False),
    "concrete": Table("uci_concrete", False),
    "ames": Table("tab_ames_housing", False),
    "abalone": Table("tab_abalone", False),
    "wine": Table("tab_wine_red_white", False, ("colour",)),
    "kin8nm": Table("uci_kin8nm", False),
    "power": Table("uci_power", False),
    "bike": Table(
        "tab_bike_sharing_hourly", False, ("dteday",), ("season", "mnth", "weekday", "weathersit")
    ),
    "california": Table("tab_california_housing", False),
    "diamonds": Table("tab_diamonds", False),
}
"""The tables on which the default net was settled."""
MORE_FILES = {
    "elec2": Table("tab_electricity_elec2", True),
    "weather": Table("tab_noaa_weather", True),
    "higgs": Table("tab_higgs_small", True, ("official_split",)),
    "yacht": Table("uci_yacht", False),
    "naval": Table("uci_naval", False),
    "protein": Table("uci_protein", False),
    "pm25": Table("tab_beijing_pm25", False),
}
SHIPPED = {
    "iris": Table(load_iris, True),
    "cultivars": Table(load_wine, True),
    "cancer": Table(load_breast_cancer, True),
    "digits": Table(load_digits, True),
    "diabetes": Table(load_diabetes, False, (), ("sex",)),
}
TABLES = {**FILES, **MORE_FILES, **SHIPPED}


def frame_of(table: Table, folder: Path | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Features, categories as text, and the target: a number, or the number of a class."""
    if callable(table.source):
        raw = {"scaled": False} if table.source is load_diabetes else {}
        X, y = table.source(return_X_y=True, as_frame=True, **raw)
    elif folder is None:
        raise ValueError(f"{table.source} is a file: give --data DIR or set SKSUBNET_DATA.")
    else:
        frame = pd.read_csv(folder / f"{table.source}.csv.gz")
        X, y = frame.iloc[:, :-1], frame.iloc[:, -1]
    X = X.drop(columns=list(table.dropped))
    codes = {code: "Int64" for code in table.codes}
    X = X.astype(codes).astype({code: str for code in table.codes})
    return X, np.unique(y, return_inverse=True)[1] if table.classify else y.to_numpy(float)


def encoder(X: pd.DataFrame, n_rows: int, all_levels: bool) -> ColumnTransformer:
    """One-hot categories, rare ones together; numbers with the median where one is missing.

    A category of two levels is one column, unless all levels are wanted.
    """
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=min(RARE, max(2, n_rows // RARE)),
        drop=None if all_levels else "if_binary",
        sparse_output=False,
    )
    texts = X.select_dtypes(exclude="number").columns
    numbers = [column for column in X.columns if column not in texts]
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    return ColumnTransformer(
        [(column, one_hot, [column]) for column in texts] + [("", imputer, numbers)],
        sparse_threshold=0,
    )


class Rows:
    """A table whose vault (30 % of the rows, at most 5000) is set apart once and for all."""

    def __init__(self, name: str, folder: Path | None) -> None:
        table = TABLES[name]
        self.classify = table.classify
        self._X, self._y = frame_of(table, folder)
        development, self._vault = train_test_split(
            np.arange(len(self._y)),
            test_size=min(MOST_VAULT, int(0.3 * len(self._y))),
            random_state=0,
            stratify=self._y if self.classify else None,
        )
        self._development = development[:MOST_DEVELOPMENT]

    def inner_split(self, seed: int, n_rows: int) -> Split:
        """Random training and test rows, both from the development rows."""
        test_size = min(MOST_VAULT, int(0.3 * len(self._development)))
        shuffled = np.random.default_rng(seed).permutation(self._development)
        test, train = np.split(shuffled, [test_size])
        return self._encoded(train[:n_rows], test)

    def vault_split(self, seed: int, n_rows: int, all_levels: bool = False) -> Split:
        """So many random development rows to train on, stratified; the vault to score.

        At most 90 % of the development rows, so that every draw has other ones, and at most 2000
        rows of the vault, always the same.
        """
        train, _ = train_test_split(
            self._development,
            train_size=min(n_rows, int(0.9 * len(self._development))),
            random_state=seed,
            stratify=self._y[self._development] if self.classify else None,
        )
        return self._encoded(train, self._vault[:MOST_SCORED], all_levels)

    def n_development(self) -> int:
        return len(self._development)

    def _encoded(self, train: np.ndarray, test: np.ndarray, all_levels: bool = False) -> Split:
        encode = encoder(self._X, len(train), all_levels)
        X = encode.fit_transform(self._X.iloc[train])
        X, test_X = (part.astype(float) for part in (X, encode.transform(self._X.iloc[test])))
        y, test_y = self._y[train], self._y[test]
        if not self.classify:
            y, test_y = standardised(y, test_y)
        columns = dict(encode.output_indices_)
        numbers = columns.pop("")
        groups = [where for where in columns.values() if where.stop - where.start > 1]
        return Split(self.classify, X, y, test_X, test_y, tuple(groups), numbers)


def standardised(y: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """All targets, in deviations from the mean of the first."""
    center, scale = y.mean(), y.std()
    return tuple((part - center) / scale for part in (y, *others))


@lru_cache(maxsize=3)
def rows_of(name: str, folder: Path | None) -> Rows:
    """The same, read once for several models."""
    return Rows(name, folder)
