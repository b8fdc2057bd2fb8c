"""What holds of every predictive distribution and every estimator, on examples that are searched.

200 examples, the same ones each time; with ``SKSUBNET_PROPERTIES=nightly`` ten times as many, new
ones each time. Examples that fail are shrunk to small ones, and printed.
"""

import copy
import os
from collections.abc import Callable
from typing import Any

import dense
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from user_nets import MLP, OPTIONS

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.predictive import Bernoulli, Categorical, Gaussian, Mixture, Predictive
from sksubnet.predictive.likelihood import LINKS

# What the nets are like is drawn, not trained.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PROFILES = {"ci": 1, "nightly": 10}
"""How many times the examples of a short run."""

PROFILE = os.environ.get("SKSUBNET_PROPERTIES", "ci")


def examples(n: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=n * PROFILES[PROFILE],
        derandomize=PROFILE == "ci",
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


# Predictive distributions

LOGITS = st.one_of(
    st.floats(-5, 5),
    st.floats(-1e8, 1e8),
    st.sampled_from([0.0, -0.0, 1e300, -1e300, 88.8, -745.2]),
)
SIZES = st.integers(-12, 12).map(lambda power: 10.0**power)


def symmetric(rng: np.random.Generator, shape: tuple[int, ...], rank: int) -> torch.Tensor:
    """Covariances (..., C, C), singular ones where the rank is below C."""
    factors = torch.as_tensor(rng.normal(size=(*shape, rank)))
    return factors @ factors.mT


@st.composite
def mixtures(draw: Any, values: Any) -> Mixture:
    """One or more points or Gaussians, of one to three rows and one to four outputs."""
    shape = tuple(draw(st.integers(1, n)) for n in (4, 3, 4))
    means = torch.as_tensor(draw(hnp.arrays(np.float64, shape, elements=values)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    if shape[0] > 1 and draw(st.booleans()):
        return Mixture(means)
    return Mixture(means, draw(SIZES) * symmetric(rng, shape, draw(st.integers(0, shape[-1]))))


def of(mixture: Mixture, likelihood: Any, link: str = "extended_probit") -> Predictive:
    """A mixture of one Gaussian is that Gaussian."""
    if len(mixture) == 1:
        return Predictive(mixture.means[0], mixture.covariances[0], likelihood, link)
    return Predictive.of_mixture(mixture, likelihood, link)


@examples(40)
@given(mixtures(LOGITS), st.sampled_from(sorted(LINKS)))
def test_probabilities_are_probabilities(mixture: Mixture, link: str) -> None:
    likelihood = Bernoulli() if mixture.means.shape[-1] == 1 else Categorical()
    predictive = of(mixture, likelihood, link)
    found = predictive.probabilities()
    assert found.shape == (len(predictive), max(2, mixture.means.shape[-1]))
    assert (found >= 0).all() and (found <= 1).all()
    assert_allclose(found.sum(axis=1), 1, rtol=1e-9)
    total, aleatoric, epistemic = map(predictive.entropy, ("total", "aleatoric", "epistemic"))
    assert (aleatoric >= 0).all() and (epistemic >= 0).all()
    assert (total <= np.log(found.shape[1]) * (1 + 1e-9)).all()
    assert_allclose(aleatoric + epistemic, total, atol=1e-12)
    for i in range(len(predictive)):  # whatever other rows there are
        assert_allclose(predictive.rows([i]).probabilities()[0], found[i], rtol=1e-9, atol=1e-300)


@examples(40)
@given(
    mixtures(st.floats(-1e6, 1e6)),
    st.floats(-40, 12),
    st.lists(st.floats(1e-6, 1 - 1e-6), min_size=2, max_size=6, unique=True),
)
def test_quantiles_are_monotone_and_intervals_nested(
    mixture: Mixture, log_noise: float, levels: list[float]
) -> None:
    noise = torch.full(mixture.means.shape[-1:], np.exp(log_noise), dtype=torch.float64)
    predictive = of(mixture, Gaussian(noise))
    mean, std = predictive.mean.numpy(), predictive.std()
    levels = sorted(levels)
    quantiles = predictive.quantiles(levels)
    assert np.isfinite(quantiles).all() and np.isfinite(std).all() and (std >= 0).all()
    rounding = 1e-12 * (np.abs(mixture.means.numpy()).max() + std.max())
    assert (np.diff(quantiles, axis=-1) >= -rounding).all()
    parts = [predictive.std(part) for part in ("aleatoric", "epistemic")]
    assert_allclose(np.hypot(*parts), std, rtol=1e-9)
    lower, upper = np.moveaxis(np.stack([predictive.interval(c) for c in (0.3, 0.8, 0.99)]), -1, 0)
    assert (np.diff(lower, axis=0) <= rounding).all() and (
        np.diff(upper, axis=0) >= -rounding
    ).all()
    # No quantile is further away than the components allow (Cantelli's inequality).
    for level, quantile in zip(levels, np.moveaxis(quantiles, -1, 0), strict=True):
        below, above = np.sqrt((1 - level) / level), np.sqrt(level / (1 - level))
        assert (quantile >= mean - below * std - rounding).all()
        assert (quantile <= mean + above * std + rounding).all()
    assume(np.log10(std.min() / (np.abs(mixture.means.numpy()).max() + 1e-300)) > -4)
    if len(mixture) == 1:
        assert_allclose(predictive.cdf(quantiles[..., 0]), levels[0], rtol=1e-5)


# Estimators around nets that are trained already: what fit computes from a net and rows is a
# function of them.


def relu(n_inputs: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_inputs, 5), nn.ReLU(), nn.Linear(5, n_outputs))


def normalised(n_inputs: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(n_inputs, 4), nn.LayerNorm(4), nn.SiLU(), nn.Linear(4, n_outputs, bias=False)
    )


def gated(n_inputs: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_inputs, 8), nn.GLU(), nn.Linear(4, n_outputs))


def convolved(n_inputs: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, n_inputs)),
        nn.Conv1d(1, 3, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3 * (n_inputs - 1), n_outputs),
    )


class Fitted:
    """What a frozen estimator is made of; ``fit`` makes it, with some of this replaced."""

    def __init__(self, module: nn.Module, task: str, X: np.ndarray, y: np.ndarray) -> None:
        self.module, self.task, self.X, self.y = module, task, X, y
        self.weights = np.ones(len(X))
        self.options: dict[str, Any] = {}

    def fit(self, **changed: Any) -> Any:
        own = {"module": self.module, "X": self.X, "y": self.y, "weights": self.weights}
        own |= {key: changed.pop(key) for key in list(changed) if key in own}
        options = {"prior_precision": 1.0, "random_state": 0, "dtype": "float64", **self.options}
        options |= changed
        kind, net_kind, criterion = KINDS[self.task]
        if self.task == "regression":
            options.setdefault("noise", 0.7)
        net = dense.frozen(net_kind, own["module"], criterion)
        return kind(net, **options).fit(own["X"], own["y"], own["weights"])


KINDS = {
    "regression": (SubnetLaplaceRegressor, NeuralNetRegressor, nn.MSELoss),
    "classes": (SubnetLaplaceClassifier, NeuralNetClassifier, nn.CrossEntropyLoss),
    "two classes": (SubnetLaplaceClassifier, NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss),
}


@st.composite
def fits(draw: Any, tasks: tuple[str, ...] = tuple(KINDS)) -> Fitted:
    """A net of some kind, its task, rows and the subnetwork."""
    task, make = draw(st.sampled_from(tasks)), draw(st.sampled_from(NETS))
    n_inputs, n_rows = draw(st.integers(2, 4)), draw(st.integers(4, 30))
    n_outputs = 1 if task == "two classes" else draw(st.integers(2, 4))
    seed = draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make(n_inputs, n_outputs).double()
        for parameter in module.parameters():
            parameter.data.normal_(std=draw(st.sampled_from([0.3, 1.0, 3.0])))
    X = rng.normal(size=(n_rows, n_inputs))
    if task == "regression":
        y = rng.normal(size=(n_rows, n_outputs))
    else:
        y = np.resize(np.arange(max(2, n_outputs)), n_rows)
    assume(n_rows >= 2 * max(2, n_outputs))
    fit = Fitted(module, task, X, y)
    n_weights = sum(p.numel() for p in module.parameters())
    chosen = rng.permutation(n_weights)[: draw(st.integers(1, n_weights))]
    covariance = draw(st.sampled_from(["full", "full", "diag"]))
    fit.options = {"selection": np.sort(chosen), "candidates": "all", "covariance": covariance}
    return fit


NETS = [relu, normalised, gated, convolved]


def variances(model: Any, X: np.ndarray) -> np.ndarray:
    """Epistemic variances (N, C)."""
    return model.predictive(X).covariance.diagonal(dim1=1, dim2=2).numpy()


def new_rows(fit: Fitted, n: int = 6, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(5).normal(size=(n, fit.X.shape[1]))


def assert_same(found: Any, expected: Any, X: np.ndarray, rtol: float = 1e-7) -> None:
    """Compare two estimators' predictive distributions."""
    for name in ("mean", "covariance"):
        one, other = (getattr(model.predictive(X), name).numpy() for model in (found, expected))
        assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())


@examples(15)
@given(fits(), SIZES, SIZES)
def test_variances_fall_with_the_prior_precision(fit: Fitted, one: float, other: float) -> None:
    low, high = sorted((one, other))
    X = new_rows(fit)
    wide, narrow = (variances(fit.fit(prior_precision=d), X) for d in (low, high))
    assert np.isfinite(wide).all() and (narrow >= 0).all()
    assert (narrow <= wide * (1 + 1e-6) + 1e-9 * wide.max()).all()


@examples(15)
@given(fits(), st.integers(1, 20))
def test_variances_fall_with_more_rows(fit: Fitted, n_more: int) -> None:
    X, more = new_rows(fit), np.random.default_rng(6).normal(size=(n_more, fit.X.shape[1]))
    y = fit.y[np.arange(n_more) % len(fit.y)]
    before = variances(fit.fit(), X)
    after = variances(
        fit.fit(
            X=np.vstack([fit.X, more]),
            y=np.concatenate([fit.y, y]),
            weights=np.ones(len(y) + len(fit.y)),
        ),
        X,
    )
    assert (after <= before * (1 + 1e-6) + 1e-12).all()


@examples(15)
@given(fits(), st.integers(0, 99))
def test_variances_grow_with_nested_subnetworks(fit: Fitted, seed: int) -> None:
    X, chosen = new_rows(fit), fit.options["selection"]
    rng = np.random.default_rng(seed)
    inner = np.sort(rng.permutation(chosen)[: rng.integers(1, len(chosen) + 1)])
    small, large = (variances(fit.fit(selection=s), X) for s in (inner, chosen))
    assert (small >= 0).all() and np.isfinite(large).all()
    assert (small <= large * (1 + 1e-6) + 1e-9 * large.max()).all()


@examples(10)
@given(fits(), st.integers(0, 99), st.integers(1, 7))
def test_order_and_batches_of_rows_do_not_matter(fit: Fitted, seed: int, batch: int) -> None:
    order = np.random.default_rng(seed).permutation(len(fit.X))
    X, expected = new_rows(fit), fit.fit()
    assert_same(fit.fit(X=fit.X[order], y=fit.y[order], batch_size=batch), expected, X)
    whole = expected.predictive(X)
    for start in range(0, len(X), batch):
        part = expected.predictive(X[start : start + batch])
        assert_allclose(part.mean, whole.mean[start : start + batch], rtol=1e-9, atol=1e-12)
        assert_allclose(
            part.covariance, whole.covariance[start : start + batch], rtol=1e-9, atol=1e-12
        )


@examples(10)
@given(fits(), st.data())
def test_weights_equal_repetition(fit: Fitted, data: Any) -> None:
    counts = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=len(fit.X), max_size=len(fit.X)))
    )
    kept = np.unique(fit.y[counts > 0]) if fit.task != "regression" else fit.y[counts > 0]
    assume(len(kept) >= (2 if fit.task != "regression" else 1) and counts.sum() >= 2)
    if fit.task != "regression":
        assume(len(kept) == len(np.unique(fit.y)))
    repeated = fit.fit(X=fit.X.repeat(counts, 0), y=fit.y.repeat(counts, 0), weights=None)
    assert_same(fit.fit(weights=counts.astype(float)), repeated, new_rows(fit))


@examples(10)
@given(fits(("classes", "two classes")), st.permutations(range(4)), st.sampled_from("abc"))
def test_labels_are_names(fit: Fitted, order: list[int], letter: str) -> None:
    """In the same order nothing changes; in another one, what the net says of them goes along."""
    X, expected = new_rows(fit), fit.fit()
    names = np.array([f"{letter}{code}" for code in range(5)])
    named = fit.fit(y=names[fit.y])
    assert_array_equal(named.predict_proba(X), expected.predict_proba(X))
    assert_array_equal(named.predict(X), names[expected.predict(X)])
    if fit.task == "classes":
        n = fit.module[-1].out_features
        place = np.array([code for code in order if code < n])  # column k was column place[k]
        module = copy.deepcopy(fit.module)
        layer = module[-1]
        for parameter in layer.parameters():
            parameter.data = parameter.data[place]
        options = {"selection": all_weights(module), "covariance": "full"}
        moved = fit.fit(module=module, y=np.argsort(place)[fit.y], **options)
        unmoved = fit.fit(**options)
        assert_allclose(
            moved.predict_proba(X), unmoved.predict_proba(X)[:, place], rtol=1e-7, atol=1e-12
        )


def all_weights(module: nn.Module) -> np.ndarray:
    return np.arange(sum(p.numel() for p in module.parameters()))


@examples(10)
@given(fits(), st.permutations(range(4)))
def test_columns_have_no_order(fit: Fitted, order: list[int]) -> None:
    first = next(layer for layer in fit.module if isinstance(layer, nn.Linear))
    assume(fit.module[0] is first)
    columns = np.array([j for j in order if j < fit.X.shape[1]])
    module = copy.deepcopy(fit.module)
    module[0].weight.data = module[0].weight.data[:, columns]
    X, options = new_rows(fit), {"selection": all_weights(module), "covariance": "full"}
    moved = fit.fit(module=module, X=fit.X[:, columns], **options).predictive(X[:, columns])
    expected = fit.fit(**options).predictive(X)
    assert_allclose(moved.mean, expected.mean, rtol=1e-9, atol=1e-12)
    assert_allclose(moved.covariance, expected.covariance, rtol=1e-7, atol=1e-10)


@examples(15)
@given(
    fits(("regression",)),
    SIZES,
    SIZES,
    st.sampled_from([1.0, 1e3, 1e6]),
    st.sampled_from(["float32", "float64"]),
)
def test_extreme_noise_priors_and_rows_stay_finite(
    fit: Fitted, noise: float, prior: float, scale: float, dtype: str
) -> None:
    model = fit.fit(noise=noise, prior_precision=prior, dtype=dtype)
    X = new_rows(fit, scale=scale)
    mean, std = model.predict(X, return_std=True)
    covariance = model.predict(X, return_cov=True)[1]
    assert np.isfinite(mean).all() and np.isfinite(covariance).all()
    assert (std >= noise * (1 - 1e-6)).all() and np.isfinite(std).all()
    joint = np.einsum("nnc->nc", covariance)
    assert_allclose(np.sqrt(joint), std, rtol=1e-6 if dtype == "float64" else 1e-2)
    assert np.isfinite(model.sample_y(X, 2)).all()
    assert np.isfinite(model.log_marginal_likelihood())
    lower, upper = np.moveaxis(model.predict_interval(X), -1, 0)
    assert (lower <= mean).all() and (mean <= upper).all()


@examples(10)
@given(fits(("classes", "two classes")), st.sampled_from([1e2, 1e4, 1e6]), SIZES)
def test_extreme_logits_stay_finite(fit: Fitted, scale: float, prior: float) -> None:
    module = copy.deepcopy(fit.module)
    module[-1].weight.data *= scale
    model = fit.fit(module=module, prior_precision=prior)
    X = new_rows(fit, scale=100.0)
    probabilities = model.predict_proba(X)
    assert (probabilities >= 0).all() and (probabilities <= 1).all()
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-9)
    assert np.isfinite(model.predictive(X).entropy()).all()
    assert np.isfinite(model.log_marginal_likelihood())


# Estimators that train


@examples(5)
@given(st.integers(0, 99), st.integers(2, 4), st.integers(2, 4), st.booleans())
def test_folds_are_an_equal_mixture(seed: int, n_folds: int, n_out: int, classify: bool) -> None:
    rng = np.random.default_rng(seed)
    X, new = rng.normal(size=(24, 3)), rng.normal(size=(5, 3))
    options = {"cv": n_folds, "prior_precision": 1.0, "selection": "magnitude"}
    options |= {"subnetwork_size": 9, "random_state": seed}
    quick = {**OPTIONS, "max_epochs": 2}
    if classify:
        y = np.resize(np.arange(n_out), 24)
        net = NeuralNetClassifier(MLP, criterion=nn.CrossEntropyLoss, **quick)
        model: Any = SubnetLaplaceClassifier(net, **options).fit(X, y)
    else:
        net = NeuralNetRegressor(MLP, **quick)
        y = rng.normal(size=(24, n_out))
        model = SubnetLaplaceRegressor(net, noise=0.5, **options).fit(X, y)
    mixed = model.predictive(new)
    each = []
    for fold in model.folds_:
        model.folds_, kept = [fold], model.folds_
        each.append(model.predictive(new))
        model.folds_ = kept
    assert len(each) == n_folds == len(mixed.mixture)
    means = np.stack([part.mean for part in each])
    assert_allclose(mixed.mean, means.mean(axis=0), rtol=1e-9, atol=1e-12)
    within = np.stack([part.covariance for part in each]).mean(axis=0)
    deviations = means - means.mean(axis=0)
    between = np.einsum("mni,mnj->nij", deviations, deviations) / n_folds
    assert_allclose(mixed.covariance, within + between, rtol=1e-9, atol=1e-12)
    if classify:
        mean_of_each = np.mean([part.probabilities() for part in each], axis=0)
        assert_allclose(mixed.probabilities(), mean_of_each, rtol=1e-9)
    else:
        levels = (0.01, 0.3, 0.5, 0.9)
        quantiles = mixed.quantiles(levels)
        assert (np.diff(quantiles, axis=-1) > 0).all()
        for k, level in enumerate(levels):
            below = np.mean([part.cdf(quantiles[..., k]) for part in each], axis=0)
            assert_allclose(below, level, atol=1e-9)


def default_net(kind: Any, X: np.ndarray, y: np.ndarray, cv: Any) -> Any:
    options = {"prior_precision": 1.0, "subnetwork_size": 15, "selection": "magnitude"}
    return kind(cv=cv, random_state=0, **options).fit(X, y)


@examples(3)
@given(st.integers(0, 99), st.integers(-30, 30), st.integers(-30, 30), st.sampled_from([None, 2]))
def test_the_default_net_knows_no_units(seed: int, of_x: int, of_y: int, cv: Any) -> None:
    """Units that are a power of two change no bit; a constant column's value changes nothing."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(30, 2)), np.full(30, 3.5)])
    y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=30)
    mean, std = default_net(SubnetLaplaceRegressor, X, y, cv).predict(X, return_std=True)
    units, constant = 2.0**of_x, rng.normal()
    scaled = np.column_stack([X[:, :2] * units, np.full(30, constant)])
    found = default_net(SubnetLaplaceRegressor, scaled, y * 2.0**of_y, cv)
    found_mean, found_std = found.predict(scaled, return_std=True)
    assert_array_equal(found_mean, mean * 2.0**of_y)
    assert_array_equal(found_std, std * 2.0**of_y)


@examples(2)
@given(st.integers(0, 99), st.sampled_from([None, 2]), st.integers(2, 4))
def test_the_default_net_sees_labels_as_codes(seed: int, cv: Any, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(40, 3)), np.resize(np.arange(n_classes), 40)
    expected = default_net(SubnetLaplaceClassifier, X, y, cv)
    names = np.array(["ant", "bee", "cat", "dog"])
    found = default_net(SubnetLaplaceClassifier, X, names[y], cv)
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    assert_array_equal(found.predict(X), names[expected.predict(X)])


def test_the_profile_is_known() -> None:
    assert PROFILE in PROFILES
