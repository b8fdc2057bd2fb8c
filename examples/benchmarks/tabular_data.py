"""Tables for `tabular_study.py`: rows to develop on, and a vault that only the comparison opens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder

MOST_DEVELOPMENT = 40_000
MOST_VAULT = 5000


class Table(NamedTuple):
    """File of a table, what is no feature of it, and which of its numbers are categories."""

    file: str
    classify: bool
    dropped: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


class Split(NamedTuple):
    """Rows to train on and to score; encoded, and targets standardised, by the training rows."""

    classify: bool
    X: np.ndarray
    y: np.ndarray
    test_X: np.ndarray
    test_y: np.ndarray


TABLES = {
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
SMALL: dict[str, tuple[bool, Callable[..., Any]]] = {
    "cancer": (True, load_breast_cancer),
    "diabetes": (False, load_diabetes),
}


def table_names(folder: Path | None) -> tuple[str, ...]:
    """Tables of a folder; without one, those that scikit-learn ships."""
    return tuple(SMALL if folder is None else TABLES)


class Rows:
    """A table whose vault (30 % of the rows, at most 5000) is set apart once and for all."""

    def __init__(self, name: str, folder: Path | None) -> None:
        if folder is None:
            self.classify, load = SMALL[name]
            X, y = load(return_X_y=True, as_frame=True)
        else:
            file, self.classify, dropped, codes = TABLES[name]
            frame = pd.read_csv(folder / f"{file}.csv.gz")
            X, y = frame.iloc[:, :-1].drop(columns=list(dropped)), frame.iloc[:, -1]
            X = X.astype({code: "Int64" for code in codes}).astype({code: str for code in codes})
        self._X, self._y = X, y.to_numpy()
        development, self._vault = train_test_split(
            np.arange(len(y)),
            test_size=min(MOST_VAULT, int(0.3 * len(y))),
            random_state=0,
            stratify=y if self.classify else None,
        )
        self._development = development[:MOST_DEVELOPMENT]

    def inner_split(self, seed: int, n_rows: int) -> Split:
        """Random training and test rows, both from the development rows."""
        test_size = min(MOST_VAULT, int(0.3 * len(self._development)))
        test, train = np.split(self._shuffled(seed), [test_size])
        return self._encoded(train[:n_rows], test)

    def vault_split(self, seed: int) -> Split:
        """A random 90 % of the development rows to train on, the vault to score."""
        return self._encoded(self._shuffled(seed)[len(self._development) // 10 :], self._vault)

    def n_development(self) -> int:
        return len(self._development)

    def _shuffled(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).permutation(self._development)

    def _encoded(self, train: np.ndarray, test: np.ndarray) -> Split:
        encoder = make_column_transformer(
            (
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist", min_frequency=20, drop="if_binary"
                ),
                make_column_selector(dtype_exclude="number"),
            ),
            (SimpleImputer(strategy="median"), make_column_selector(dtype_include="number")),
            sparse_threshold=0,
        )
        X = encoder.fit_transform(self._X.iloc[train])
        X, test_X = (part.astype(float) for part in (X, encoder.transform(self._X.iloc[test])))
        y, test_y = self._y[train], self._y[test]
        if not self.classify:
            center, scale = y.mean(), y.std()
            y, test_y = ((part - center) / scale for part in (y, test_y))
        return Split(self.classify, X, y, test_X, test_y)
