"""What our estimators are compared with: other libraries at their defaults, within reason.

Regressors that tell no deviation get a constant one from rows that they have not seen. What takes
long on thousands of rows is tuned on some of them or stops early.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TUNED_ROWS, TUNED_CLASSIFIER_ROWS = 500, 300
ARD_FEATURES = 12
KERNEL_STEPS = 40


class WithNoise(RegressorMixin, BaseEstimator):
    """A regressor with Gaussian noise, whose deviation rows tell that it has not seen.

    These are all rows by so many folds, after which it is trained on all; or, without folds, a
    tenth of the rows that it is never trained on.
    """

    def __init__(self, regressor: Any, folds: int | None = None) -> None:
        self.regressor = regressor
        self.folds = folds

    def fit(self, X: np.ndarray, y: np.ndarray) -> "WithNoise":
        if self.folds is None:
            X, held_X, y, held_y = train_test_split(X, y, test_size=0.1, random_state=0)
            predicted = self.regressor.fit(X, y).predict(held_X)
        else:
            predicted, held_y = cross_val_predict(self.regressor, X, y, cv=self.folds), y
            self.regressor.fit(X, y)
        self.std_ = np.sqrt(np.mean((held_y - predicted) ** 2))
        return self

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        mean = self.regressor.predict(X)
        return (mean, np.full(len(mean), self.std_)) if return_std else mean


class ConstantClassifier(ClassifierMixin, BaseEstimator):
    """The share of each class in the training rows."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "ConstantClassifier":
        self.classes_, counts = np.unique(y, return_counts=True)
        self.shares_ = counts / len(y)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.tile(self.shares_, (len(X), 1))


class ConstantRegressor(RegressorMixin, BaseEstimator):
    """Mean and standard deviation of the training targets."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "ConstantRegressor":
        self.mean_, self.std_ = y.mean(), y.std(ddof=1)
        return self

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        mean = np.full(len(X), self.mean_)
        return (mean, np.full(len(X), self.std_)) if return_std else mean


class TunedOnSome(BaseEstimator):
    """A Gaussian process whose kernel some of the rows tune, and that then sees all of them."""

    def __init__(self, process: Any, n_rows: int) -> None:
        self.process = process
        self.n_rows = n_rows

    def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
        order = np.random.default_rng(0).permutation(len(X))
        some = self._representative(order, y)[: self.n_rows]
        tuned = clone(self.process).fit(X[some], y[some])
        fixed = {"kernel": tuned.kernel_, "optimizer": None}
        self.process_ = clone(self.process).set_params(**fixed).fit(X, y)
        return self

    def _representative(self, order: np.ndarray, y: np.ndarray) -> np.ndarray:
        return order


class ProcessClassifier(ClassifierMixin, TunedOnSome):
    """One of two classes."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
        self.classes_ = np.unique(y)
        return super().fit(X, y)

    def _representative(self, order: np.ndarray, y: np.ndarray) -> np.ndarray:
        """A row of each class first, however rare one is."""
        first = np.unique(y[order], return_index=True)[1]
        return np.concatenate([order[first], np.delete(order, first)])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self.process_.predict_proba(X)


class ProcessRegressor(RegressorMixin, TunedOnSome):
    """The noise is part of the kernel, and so of the deviation."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
        self.scaler_ = StandardScaler().fit(X)
        X = self.scaler_.transform(X)
        if X.shape[1] <= ARD_FEATURES:
            self.process = clone(self.process).set_params(kernel=noisy_kernel(X.shape[1]))
        return super().fit(X, y)

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        return self.process_.predict(self.scaler_.transform(X), return_std=return_std)


class Boosted(BaseEstimator):
    """A boosting library's estimator that stops early on a tenth of the rows.

    `start` trains on some rows and stops on others; it gives the estimator, and what tells mean and
    deviation.
    """

    def __init__(self, start: Callable[..., Any], classify: bool, seed: int) -> None:
        self.start = start
        self.classify = classify
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Boosted":
        stratify = y if self.classify and np.bincount(y).min() > 1 else None
        train_X, held_X, train_y, held_y = train_test_split(
            X, y, test_size=0.1, random_state=self.seed, stratify=stratify
        )
        self.model_, self.moments_ = self.start(
            train_X, train_y, held_X, held_y, self.classify, self.seed
        )
        self.classes_ = np.unique(y) if self.classify else None
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.model_.predict_proba(X))

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        mean, std = self.moments_(X)
        return (mean, std) if return_std else mean


def few_steps(objective: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """An optimiser of kernels that ends after some steps."""
    found = minimize(
        objective,
        start,
        method="L-BFGS-B",
        jac=True,
        bounds=bounds,
        options={"maxiter": KERNEL_STEPS},
    )
    return found.x, found.fun


def smooth_kernel(n_length_scales: int = 1, most: float = 1e4) -> Any:
    lengths = np.full(n_length_scales, 3.0) if n_length_scales > 1 else 3.0
    return ConstantKernel(1.0, (1e-3, most)) * RBF(lengths, (1e-2, 1e3))


def noisy_kernel(n_length_scales: int = 1) -> Any:
    return smooth_kernel(n_length_scales) + WhiteKernel(0.1, (1e-6, 10.0))


def gaussian_process(classify: bool, seed: int) -> Any:
    """A length scale for each of few columns, in regression; the same one for many."""
    options = {"optimizer": few_steps, "random_state": seed}
    if classify:
        # with a larger variance, Newton's steps to the mode of more rows go astray
        process = GaussianProcessClassifier(smooth_kernel(most=100.0), **options)
        one = ProcessClassifier(process, TUNED_CLASSIFIER_ROWS)
        return scaled(OneVsRestClassifier(one))
    return ProcessRegressor(GaussianProcessRegressor(noisy_kernel(), **options), TUNED_ROWS)


def start_ngboost(
    X: np.ndarray, y: np.ndarray, held_X: Any, held_y: Any, classify: bool, seed: int
) -> tuple[Any, Any]:
    """Up to 300 steps of .03."""
    from ngboost import NGBClassifier, NGBRegressor
    from ngboost.distns import k_categorical

    kind = partial(NGBClassifier, Dist=k_categorical(int(y.max()) + 1)) if classify else None
    model = (kind or NGBRegressor)(
        n_estimators=300, learning_rate=0.03, random_state=seed, verbose=False
    )
    model.fit(X, y, X_val=held_X, Y_val=held_y, early_stopping_rounds=20)

    def moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        normal = model.pred_dist(X).params
        return normal["loc"], normal["scale"]

    return model, moments


def start_catboost(
    X: np.ndarray, y: np.ndarray, held_X: Any, held_y: Any, classify: bool, seed: int
) -> tuple[Any, Any]:
    """Up to 1000 steps; its own step, or that of its regressors, .03, with an uncertainty."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    common = {"random_seed": seed, "thread_count": 1, "verbose": 0}
    common |= {"allow_writing_files": False, "early_stopping_rounds": 50}
    if classify:
        model = CatBoostClassifier(**common)
    else:
        model = CatBoostRegressor(loss_function="RMSEWithUncertainty", **common)
    model.fit(X, y, eval_set=(held_X, held_y))

    def moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, log_std = model.predict(X, prediction_type="RawFormulaVal").T
        return mean, np.exp(log_std)

    return model, moments


def scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


def perceptron(classify: bool, seed: int) -> Any:
    if classify:
        return scaled(MLPClassifier(random_state=seed, early_stopping=True))
    return WithNoise(scaled(MLPRegressor(random_state=seed, early_stopping=True)))


def linear(classify: bool, seed: int) -> Any:
    if classify:
        return scaled(LogisticRegression(max_iter=1000))
    return WithNoise(scaled(RidgeCV(np.logspace(-3, 3, 13))), folds=5)


def boosting(classify: bool, seed: int) -> Any:
    if classify:
        return HistGradientBoostingClassifier(random_state=seed)
    return WithNoise(HistGradientBoostingRegressor(random_state=seed))


def ngboost(classify: bool, seed: int) -> Any:
    return Boosted(start_ngboost, classify, seed)


def catboost(classify: bool, seed: int) -> Any:
    return Boosted(start_catboost, classify, seed)


def constant(classify: bool, seed: int) -> Any:
    return ConstantClassifier() if classify else ConstantRegressor()
