"""Models and rows that the displays are tried on."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class KnownRegressor(RegressorMixin, BaseEstimator):
    """Mean and standard deviation are columns of X."""

    def fit(self, X, y):
        self.fitted_ = True
        return self

    def predict(self, X, return_std=False):
        X = np.asarray(X)
        return (X[:, 0], X[:, 1]) if return_std else X[:, 0]


class KnownClassifier(ClassifierMixin, BaseEstimator):
    """Class probabilities are the columns of X."""

    def __init__(self, classes=(0, 1)):
        self.classes = classes

    def fit(self, X, y):
        self.classes_ = np.array(self.classes)
        return self

    def predict_proba(self, X):
        return np.asarray(X)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.fixture
def gaussian_rows():
    """Inputs with mean and standard deviation, and targets that are a little too far away."""
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=400), rng.uniform(0.5, 2, size=400)
    return np.column_stack([mean, std]), mean + 1.3 * std * rng.normal(size=400)


@pytest.fixture
def three_classes():
    """Probabilities of three classes, and labels drawn with sharper ones."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet([0.6, 0.6, 0.6], size=500)
    sharper = p**1.5 / (p**1.5).sum(axis=1, keepdims=True)
    return p, np.array([rng.choice(3, p=row) for row in sharper])


@pytest.fixture
def known_regressor(gaussian_rows):
    return KnownRegressor().fit(*gaussian_rows)


@pytest.fixture
def known_classifier(three_classes):
    return KnownClassifier((0, 1, 2)).fit(*three_classes)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.close("all")
