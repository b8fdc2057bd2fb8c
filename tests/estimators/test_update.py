"""New rows in a posterior, against closed forms, dense algebra and a general optimiser."""

import pickle
import threading
from dataclasses import replace
from itertools import count

import dense
import numpy as np
import pytest
import torch
from forks import in_a_fork, meanwhile, needs_fork
from frozen_models import NOISE, X_NEW, classifier, labelled_rows, regression_rows, regressor
from numpy.testing import assert_allclose
from scipy import stats
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import PowerTransformer
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from user_nets import MLP, OPTIONS

import sksubnet.estimators.subnet
import sksubnet.posterior.kinds
import sksubnet.posterior.updating
from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.nets.trained import Rows
from sksubnet.posterior.cholesky import CholeskyPosterior
from sksubnet.posterior.gaussian import GaussianPosterior
from sksubnet.posterior.kernel import KernelPosterior

DELTA, SIGMA = 0.7, 0.4
RNG = np.random.default_rng(0)
SMALL = {"subnetwork_size": 12, "selection": "magnitude", "random_state": 0}


@pytest.fixture(params=["eigenvectors", "cholesky", "recomputed"])
def route(request, monkeypatch):
    """The routes of the dense posterior: by eigenvectors, by Cholesky, with nothing in memory."""
    if request.param == "cholesky":
        for module in (sksubnet.posterior.kinds, sksubnet.posterior.updating):
            monkeypatch.setattr(module, "EIGEN_LIMIT", 3)
    if request.param == "recomputed":
        monkeypatch.setattr(sksubnet.posterior.updating, "MEMORY_BUDGET", 0)
    return request.param


def linear_regressor(X, y, **options):
    """A linear net at the ridge solution of the rows, with everything given."""
    module = nn.Linear(X.shape[1], 1, bias=False).double()
    precision = X.T @ X / SIGMA**2 + DELTA * np.eye(X.shape[1])
    module.weight.data = torch.as_tensor(np.linalg.solve(precision, X.T @ y / SIGMA**2)[None])
    net = dense.frozen(NeuralNetRegressor, module, nn.MSELoss)
    options = {"subnetwork_size": "all", "prior_precision": DELTA, "noise": SIGMA, **options}
    return SubnetLaplaceRegressor(net, **options).fit(X, y)


@pytest.mark.parametrize(
    "n_features, sizes, kinds",
    [
        (5, (20, 1, 15), (GaussianPosterior, GaussianPosterior)),
        (60, (10, 5, 12), (KernelPosterior, KernelPosterior)),
        (25, (10, 4, 30), (KernelPosterior, GaussianPosterior)),  # more rows than weights at last
    ],
)
def test_a_linear_net_equals_ridge_of_all_rows(n_features, sizes, kinds, route):
    X = RNG.normal(size=(sum(sizes), n_features))
    y = X @ RNG.normal(size=n_features) + SIGMA * RNG.normal(size=len(X))
    first, second = sizes[0], sizes[0] + sizes[1]
    reg = linear_regressor(X[:first], y[:first])
    for start, kind in zip((first, second), kinds, strict=True):
        kind = CholeskyPosterior if route == "cholesky" and n_features == 5 else kind
        stop = second if start == first else len(X)
        reg.update(X[start:stop], y[start:stop])
        if not (route == "cholesky" and n_features == 25):
            assert type(reg.posterior_) is kind
        precision = X[:stop].T @ X[:stop] / SIGMA**2 + DELTA * np.eye(n_features)
        coef = np.linalg.solve(precision, X[:stop].T @ y[:stop] / SIGMA**2)
        X_far = RNG.normal(size=(7, n_features)) * 3
        assert_allclose(reg.posterior_.mean, coef, rtol=1e-8, atol=1e-10)
        assert_allclose(reg.predict(X_far), X_far @ coef, rtol=1e-8)
        covariance = X_far @ np.linalg.inv(precision) @ X_far.T
        mean, found = reg.predict(X_far, return_cov=True)
        assert_allclose(mean, X_far @ coef, rtol=1e-8)
        assert_allclose(found, covariance + SIGMA**2 * np.eye(7), rtol=1e-7, atol=1e-8)
        std = reg.predict(X_far, return_std=True)[1]
        assert_allclose(std, np.sqrt(np.diag(covariance) + SIGMA**2), rtol=1e-8)
        marginal = stats.multivariate_normal(
            np.zeros(stop), SIGMA**2 * np.eye(stop) + X[:stop] @ X[:stop].T / DELTA
        )
        assert reg.log_marginal_likelihood() == pytest.approx(marginal.logpdf(y[:stop]), rel=1e-8)
        draws = reg.sample_y(X_far, 20_000)
        assert_allclose(draws.mean(axis=1), X_far @ coef, atol=6 * std.max() / 140)


def test_the_net_of_a_regression_moves_as_dense_algebra_says(route):
    module = dense.mlp()
    X, y = regression_rows(30)
    reg = regressor(module).fit(X[:10], y[:10]).update(X[10:], y[10:])
    J = dense.jacobian(module, X).reshape(60, -1)
    noise = np.tile(NOISE**-2.0, 30)
    precision = (J.T * noise) @ J + 0.7 * np.eye(J.shape[1])
    residual = (y - dense.evaluate(module, X)).ravel()
    shift = np.linalg.solve(precision, J[20:].T @ (noise * residual)[20:])
    J_new = dense.jacobian(module, X_NEW)
    expected = dense.evaluate(module, X_NEW) + J_new @ shift
    predictive = reg.predictive(X_NEW)
    assert_allclose(predictive.mean, expected, rtol=1e-7)
    assert_allclose(reg.predict(X_NEW), expected, rtol=1e-7)
    covariance = np.einsum("ncp,pq,ndq->ncd", J_new, np.linalg.inv(precision), J_new)
    assert_allclose(predictive.covariance, covariance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_classifier_moves_to_the_mode_of_the_linearised_model(n_outputs, route):
    """By a general optimiser of the same objective, and Laplace's approximation there."""
    module = dense.mlp(n_outputs=n_outputs, seed=1)
    X, y = labelled_rows(60)
    y = np.minimum(y, max(1, n_outputs - 1))
    weights = RNG.uniform(0.5, 2, size=60)
    net, criterion = NeuralNetClassifier, nn.CrossEntropyLoss
    if n_outputs == 1:
        net, criterion = NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss
    clf = SubnetLaplaceClassifier(
        dense.frozen(net, module, criterion),
        subnetwork_size="all",
        candidates="all",
        prior_precision=0.7,
    ).fit(X[:30], y[:30])
    start = clf.log_marginal_likelihood()
    clf.update(X[30:], y[30:], weights[30:])

    J, f = dense.jacobian(module, X), dense.evaluate(module, X)
    if n_outputs == 1:  # a logit is a softmax over it and 0
        J, f = np.concatenate([0 * J, J], axis=1), np.concatenate([0 * f, f], axis=1)

    def hessian(latents, rows, weight):
        lam = dense.softmax_hessian(latents) * weight[:, None, None]
        return np.einsum("ncp,ncd,ndq->pq", J[rows], lam, J[rows])

    old, new = slice(0, 30), slice(30, 60)
    H0 = hessian(f[old], old, np.ones(30)) + 0.7 * np.eye(J.shape[2])

    def objective(shift):
        latents = f[new] + J[new] @ shift
        p = dense.softmax(latents)
        nll = -weights[new] @ np.log(p[np.arange(30), y[new]])
        pulled = H0 @ shift
        slope = p - np.eye(p.shape[1])[y[new]]
        gradient = np.einsum("ncp,nc->p", J[new], slope * weights[new, None])
        return nll + shift @ pulled / 2, gradient + pulled

    found = minimize(objective, np.zeros(len(H0)), jac=True, tol=1e-13, method="BFGS")
    latents = f[new] + J[new] @ found.x
    H1 = H0 + hessian(latents, new, weights[new])
    J_new = dense.jacobian(module, X_NEW)
    predictive = clf.predictive(X_NEW)
    expected = dense.evaluate(module, X_NEW) + J_new @ found.x
    assert_allclose(predictive.mean, expected, rtol=1e-4, atol=1e-4)
    covariance = np.einsum("ncp,pq,ndq->ncd", J_new, np.linalg.inv(H1), J_new)
    assert_allclose(predictive.covariance, covariance, rtol=1e-3, atol=1e-4)
    rise = -found.fun - (np.linalg.slogdet(H1)[1] - np.linalg.slogdet(H0)[1]) / 2
    assert clf.log_marginal_likelihood() - start == pytest.approx(rise, rel=1e-6)


def contradicted():
    """A logit of 8 of which the data say little, and three rows that say the opposite."""
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data[:] = 8
    net = dense.frozen(NeuralNetBinaryClassifier, module, nn.BCEWithLogitsLoss)
    model = SubnetLaplaceClassifier(
        net, subnetwork_size="all", candidates="all", prior_precision=1e-3
    )
    return model.fit(np.array([[1.0], [-1.0]]), [1, 0]), (np.ones((3, 1)), np.zeros(3, int))


def test_steps_that_overshoot_are_halved():
    model, rows = contradicted()
    precision = 1e-3 + 2 * dense.sigmoid(8.0) * dense.sigmoid(-8.0)
    found = minimize(
        lambda shift: precision * shift[0] ** 2 / 2 + 3 * np.logaddexp(0, 8 + shift[0]),
        [-13.0],
        tol=1e-12,
    )
    assert float(model.update(*rows).folds_[0].shift) == pytest.approx(found.x[0], rel=1e-5)


def test_a_step_that_lowers_nothing_is_not_taken(monkeypatch):
    for name in ("MOST_STEPS", "MOST_HALVINGS"):
        monkeypatch.setattr(sksubnet.posterior.updating, name, 1)
    losses = map(float, count())
    monkeypatch.setattr(sksubnet.posterior.updating, "_loss", lambda *_: next(losses))
    model, rows = contradicted()
    net = model.update(*rows).folds_[0]
    assert float(net.shift) == 0 and float(net.posterior.mean) == 8


def regression_rows_of(n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, np.exp(X[:, 0] / 2 + 0.3 * rng.normal(size=n))


def class_rows_of(n, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    y = np.argmax(X[:, :n_classes] + rng.gumbel(size=(n, n_classes)), axis=1)
    return X, np.array(list("abc"))[y]


def count_rows_of(n):
    X, y = regression_rows_of(n)
    return X, np.floor(2 * y)


def label_rows_of(n):
    X, _ = regression_rows_of(n)
    return X, (X[:, :3] + np.random.default_rng(1).logistic(size=(n, 3)) > 0).astype(int)


class Pair(MLP):
    """Mean and variance as two tensors."""

    def __init__(self, n_features=4, n_outputs=1):
        super().__init__(n_features, 2 * n_outputs)

    def forward(self, X):
        mean, log_variance = super().forward(X).chunk(2, dim=1)
        return mean, log_variance.exp()


PAIR = NeuralNetRegressor(Pair, criterion=nn.GaussianNLLLoss, **OPTIONS)
REGRESSOR = NeuralNetRegressor(MLP, **OPTIONS)
COUNTS = NeuralNetRegressor(MLP, criterion=nn.PoissonNLLLoss, **OPTIONS)
CLASSIFIER = NeuralNetClassifier(MLP, criterion=nn.CrossEntropyLoss, **OPTIONS)
WIDE = {"subnetwork_size": "all", "candidates": "all"}  # more weights than rows
FITS = {
    "regression": (SubnetLaplaceRegressor(REGRESSOR, **SMALL), regression_rows_of(60)),
    "whole layers": (
        SubnetLaplaceRegressor(REGRESSOR, **{**SMALL, **WIDE}),
        regression_rows_of(40),
    ),
    "float32": (SubnetLaplaceRegressor(dtype="float32", cv=2, **SMALL), regression_rows_of(60)),
    "noise by row": (
        SubnetLaplaceRegressor(REGRESSOR, noise="input", cv=3, **SMALL),
        regression_rows_of(60),
    ),
    "log": (
        SubnetLaplaceRegressor(REGRESSOR, target_transform="log", **SMALL),
        regression_rows_of(60),
    ),
    "power": (
        SubnetLaplaceRegressor(REGRESSOR, target_transform=PowerTransformer(), **SMALL),
        regression_rows_of(60),
    ),
    "mean and variance": (SubnetLaplaceRegressor(PAIR, **SMALL), regression_rows_of(60)),
    "labels": (SubnetLaplaceClassifier(cv=2, **SMALL), label_rows_of(60)),
    "counts": (SubnetLaplaceRegressor(COUNTS, **SMALL), count_rows_of(60)),
    "two classes": (SubnetLaplaceClassifier(cv=2, **SMALL), class_rows_of(60, 2)),
    "three classes": (SubnetLaplaceClassifier(CLASSIFIER, **SMALL), class_rows_of(60, 3)),
    "balanced": (
        SubnetLaplaceClassifier(CLASSIFIER, class_weight="balanced", cv=2, **SMALL),
        class_rows_of(60, 3),
    ),
    "refit": (SubnetLaplaceClassifier(CLASSIFIER, cv=2, refit=True, **SMALL), class_rows_of(60, 3)),
    "classes, whole layers": (
        SubnetLaplaceClassifier(CLASSIFIER, **{**SMALL, **WIDE}),
        class_rows_of(40, 3),
    ),
}


@pytest.fixture(scope="module", params=FITS)
def fitted(request):
    """An estimator that is fitted to 25 rows, and all rows."""
    model, (X, y) = FITS[request.param]
    return clone(model).fit(X[:25], y[:25]), X, y


def answers(model, X):
    """Everything that a prediction reads of a posterior."""
    if hasattr(model, "classes_"):
        first = [model.predict_proba(X), *model.latent_mean_and_variance(X)]
    else:
        first = [model.predict(X), *model.predict(X, return_std=True), model.sample_y(X[:5], 3)]
    return [*first, np.array(model.log_marginal_likelihood())]


def test_sequential_equals_batch_in_any_order(fitted):
    model, X, y = fitted
    X_far = 2 * X[:20]
    before = answers(model, X_far)
    at_once = pickle.loads(pickle.dumps(model)).update(X[25:], y[25:])
    one_by_one = pickle.loads(pickle.dumps(model))
    for part in (slice(25, 26), slice(26, 33), slice(33, None)):
        one_by_one.update(X[part], y[part])
    order = 25 + RNG.permutation(len(X) - 25)
    shuffled = pickle.loads(pickle.dumps(model)).update(X[order], y[order])
    rtol = 1e-8 if model.folds_[0].latent.dtype == torch.float64 else 1e-5
    for batch, sequence, permuted in zip(
        *(answers(m, X_far) for m in (at_once, one_by_one, shuffled)), strict=True
    ):
        assert_allclose(sequence, batch, rtol=rtol, atol=rtol)
        assert_allclose(permuted, batch, rtol=rtol, atol=rtol)
    assert not np.allclose(before[0], answers(at_once, X_far)[0], rtol=1e-3)
    # a pickle has forgotten nothing, and the fitted one has not changed
    again = [pickle.loads(pickle.dumps(m)).update(X[:3], y[:3]) for m in (at_once, one_by_one)]
    for batch, sequence in zip(*(answers(m, X_far) for m in again), strict=True):
        assert_allclose(sequence, batch, rtol=rtol, atol=rtol)
    for old, new in zip(before, answers(model, X_far), strict=True):
        assert_allclose(new, old, rtol=0)


def test_integer_weights_repeat_rows_and_rows_of_weight_zero_are_none(fitted):
    model, X, y = fitted
    weights = np.arange(len(X) - 25) % 3
    repeated = np.repeat(np.arange(25, len(X)), weights)
    by_weight = pickle.loads(pickle.dumps(model)).update(X[25:], y[25:], weights)
    by_rows = pickle.loads(pickle.dumps(model)).update(X[repeated], y[repeated])
    for found, expected in zip(answers(by_weight, X), answers(by_rows, X), strict=True):
        assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_count_by_the_noise_that_the_net_gives_them():
    X, y = regression_rows_of(80)
    model = SubnetLaplaceRegressor(REGRESSOR, noise="input", cv=None, **SMALL).fit(X[:40], y[:40])
    (net,) = model.folds_
    rows = torch.as_tensor(X[40:], dtype=net.latent.dtype)
    noise = net.noise(rows)[:, 0].numpy()
    assert noise.std() > 0.05 * noise.mean()
    latents, J = (
        part[:, 0].double().numpy() for part in net.posterior.jacobian(net.latent, net.plan, rows)
    )
    values, basis = net.posterior.eigenvalues.numpy(), net.posterior.basis.numpy()
    precision = basis * values @ basis.T + net.posterior.prior_precision * np.eye(12)
    residual = (y[40:] - model._y_mean) / model._y_scale - latents
    precision = precision + (J.T / noise) @ J
    shift = np.linalg.solve(precision, J.T @ (residual / noise))
    assert_allclose(model.update(X[40:], y[40:]).folds_[0].shift, shift, rtol=1e-8)


def by_eigenvectors(net):
    """The same net with its Cholesky factors exchanged for eigenvectors."""
    posterior = net.posterior
    upper = posterior.factor.matrix.triu(1)
    ggn = upper + upper.mT + torch.diag(posterior.factor.diagonal)
    values, basis = torch.linalg.eigh(ggn / posterior.noise_scale)
    delta = posterior.prior_precision
    return replace(net, posterior=GaussianPosterior(posterior.mean, values, basis, delta))


def test_the_routes_agree_where_the_noise_was_tuned(monkeypatch):
    """The factors of Cholesky's are of the GGN before the tuning."""
    monkeypatch.setattr(sksubnet.posterior.kinds, "EIGEN_LIMIT", 3)
    X, y = regression_rows_of(60)
    model = SubnetLaplaceRegressor(REGRESSOR, cv=2, **SMALL).fit(X[:30], y[:30])
    assert all(abs(net.posterior.noise_scale - 1) > 0.01 for net in model.folds_)
    other = pickle.loads(pickle.dumps(model))
    other.folds_ = [by_eigenvectors(net) for net in other.folds_]
    found, expected = (
        [fitted.update(X[part], y[part]) for part in (slice(30, 40), slice(40, 60))][-1]
        for fitted in (model, other)
    )
    assert isinstance(model.folds_[0].posterior, CholeskyPosterior)
    for value, wanted in zip(answers(found, X)[:3], answers(expected, X)[:3], strict=True):
        assert_allclose(value, wanted, rtol=1e-8)
    evidences = [fitted.log_marginal_likelihood() for fitted in (model, other)]
    assert evidences[0] == pytest.approx(evidences[1], rel=1e-9)


def test_folds_each_take_in_all_rows():
    X, y = regression_rows_of(60)
    model = SubnetLaplaceRegressor(REGRESSOR, cv=3, **SMALL).fit(X[:40], y[:40])
    alone = []
    for net in model.folds_:
        single = pickle.loads(pickle.dumps(model))
        single.folds_ = [net]
        alone.append(single.update(X[40:], y[40:]).predictive(X))
    model.update(X[40:], y[40:])
    assert_allclose(model.predict(X), np.mean([p.mean.numpy()[:, 0] for p in alone], axis=0))
    for net, other in zip(model.folds_, alone, strict=True):
        variance = net.predictive(torch.as_tensor(X, dtype=net.latent.dtype)).covariance
        scaled = variance[:, 0, 0].numpy() * model._y_scale**2
        assert_allclose(scaled, other.covariance[:, 0, 0], rtol=1e-5)


def test_balanced_classes_weigh_as_in_fit():
    X, y = class_rows_of(80, 3)
    options = {**SMALL, "prior_precision": 1.0}
    balanced = SubnetLaplaceClassifier(CLASSIFIER, class_weight="balanced", **options)
    balanced.fit(X[:40], y[:40])
    counts = {label: int((y[:40] == label).sum()) for label in "abc"}
    weights = np.array([40 / 3 / counts[label] for label in y])
    plain = SubnetLaplaceClassifier(CLASSIFIER, **options).fit(X[:40], y[:40], weights[:40])
    found = balanced.update(X[40:], y[40:]).predict_proba(X)
    expected = plain.update(X[40:], y[40:], weights[40:]).predict_proba(X)
    assert_allclose(found, expected, rtol=1e-4)


def test_what_fit_has_found_stays():
    X, y = class_rows_of(60, 3)
    model = SubnetLaplaceClassifier(CLASSIFIER, cv=2, **SMALL).fit(X[:40], y[:40])
    kept = {name: getattr(model, name) for name in ("tuning_", "prior_precision_", "out_of_fold_")}
    weights = [net.latent.module.state_dict() for net in model.folds_]
    weights = [{name: value.clone() for name, value in state.items()} for state in weights]
    at_map, begun = model.predict_proba_map(X), model.predictive(X).probabilities()
    old = model.folds_
    X_given, y_given = X[40:].copy(), y[40:].copy()
    assert model.update(X_given, y_given) is model
    assert (X_given == X[40:]).all() and (y_given == y[40:]).all()
    assert all(getattr(model, name) is value for name, value in kept.items())
    for net, state in zip(model.folds_, weights, strict=True):
        for name, value in net.latent.module.state_dict().items():
            assert torch.equal(value, state[name])
    assert_allclose(model.predict_proba_map(X), at_map, rtol=0)
    assert not np.allclose(model.predict_proba(X), begun, rtol=1e-3)
    model.folds_ = old
    assert_allclose(model.predict_proba(X), begun, rtol=0)
    again = model.update(X[40:], y[40:]).fit(X[:40], y[:40])
    assert_allclose(again.predict_proba(X), begun, rtol=0)


def test_threads_lose_no_update_and_no_prediction_mixes_nets():
    X, y = regression_rows_of(80)
    model = SubnetLaplaceRegressor(REGRESSOR, cv=2, **SMALL).fit(X[:30], y[:30])
    expected = pickle.loads(pickle.dumps(model)).update(X[30:], y[30:]).predict(X)
    errors = []

    def work(start):
        try:
            model.predict(X, return_std=True)
            model.update(X[start : start + 10], y[start : start + 10])
            model.predict_interval(X)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(30, 80, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert_allclose(model.predict(X), expected, rtol=1e-5)


@needs_fork
def test_a_process_forked_during_an_update_updates_too(monkeypatch):
    X, y = regression_rows_of(60)
    model, other = (
        SubnetLaplaceRegressor(REGRESSOR, cv=None, **SMALL).fit(X[:30], y[:30]) for _ in range(2)
    )
    expected = pickle.loads(pickle.dumps(model)).update(X[30:], y[30:]).predict(X)
    original = sksubnet.estimators.subnet.updated_net

    def update_slowly(pause):
        def slow(*args):
            pause()
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(sksubnet.estimators.subnet, "updated_net", slow)
            other.update(X[30:], y[30:])

    def update():
        monkeypatch.setattr(sksubnet.estimators.subnet, "updated_net", original)
        assert_allclose(model.update(X[30:], y[30:]).predict(X), expected, rtol=0)

    with meanwhile(update_slowly):
        in_a_fork(update)


def test_rows_far_from_what_the_net_says_do_not_overshoot():
    """A Newton step from where a sigmoid is flat would."""
    X, y = class_rows_of(80, 2)
    clf = SubnetLaplaceClassifier(cv=None, **SMALL).fit(X[:30], y[:30])
    wrong = np.where(y[30:] == "a", "b", "a")
    signs = np.where(wrong == "b", 1, -1)

    def loss():
        return np.logaddexp(0, -signs * clf.latent_mean_and_variance(X[30:])[0][:, 0]).sum()

    before = loss()
    clf.update(X[30:], wrong)
    assert loss() < before


def test_stacked_rows_of_several_inputs():
    parts = [
        Rows({"a": torch.full((n, 2), n), "b": [torch.zeros(n)]}, torch.zeros(n, 1), torch.ones(n))
        for n in (2, 3)
    ]
    rows = Rows.stack(parts)
    assert rows.X["a"][:, 0].tolist() == [2, 2, 3, 3, 3] and len(rows.X["b"][0]) == 5
    assert len(rows) == 5 and rows.noise is None


@pytest.mark.parametrize(
    "model, change, words",
    [
        (
            "three classes",
            lambda X, y: (X, np.where(y == "a", "d", y)),
            r"'d'; .*fit again",
        ),
        ("three classes", lambda X, y: (X, np.arange(len(y))), r"did not see, 0, 1, 10"),
        ("three classes", lambda X, y: (X[:, :3], y), "3 features"),
        ("labels", lambda X, y: (X, y[:, :2]), "matrix of 0 and 1 with the 3 labels"),
        ("labels", lambda X, y: (X, y + 1), "matrix of 0 and 1 with the 3 labels"),
        ("regression", lambda X, y: (X[:, :3], y), "3 features"),
        ("regression", lambda X, y: (X, np.column_stack([y, y])), "y has 2 targets.*had 1"),
        ("regression", lambda X, y: (X * np.nan, y), "NaN"),
        ("regression", lambda X, y: (X, y[:-1]), "inconsistent numbers"),
        ("log", lambda X, y: (X, y - 10), "no value for 60 of the 60"),
        ("counts", lambda X, y: (X, y - 10), "whole|negative|counts"),
    ],
)
def test_rows_that_do_not_fit_are_refused(model, change, words):
    estimator, (X, y) = FITS[model]
    fitted = clone(estimator).fit(X, y)
    nets = fitted.folds_
    with pytest.raises(ValueError, match=words):
        fitted.update(*change(X, y))
    assert fitted.folds_ is nets


def test_what_cannot_be_updated_is_refused():
    X, y = regression_rows(20)
    with pytest.raises(ValueError, match=r"covariance='diag' keeps none; fit with"):
        regressor(covariance="diag").fit(X, y).update(X, y)
    with pytest.raises(NotFittedError):
        regressor().update(X, y)
    with pytest.raises(ValueError, match="at least one non-zero"):
        regressor().fit(X, y).update(X, y, np.zeros(20))
    assert not hasattr(classifier(), "partial_fit")
