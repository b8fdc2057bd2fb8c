"""VOGN against exact posteriors and the minimum of the bound, and its two estimators."""

import numpy as np
import pytest
import torch
from dense import frozen, ggn, jacobian, mlp, softmax_hessian, trained_net
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

import sksubnet.sampling.variational as module_under_test
from sksubnet import MAPClassifier, MAPRegressor, VOGNClassifier, VOGNRegressor
from sksubnet.jacobian.rows import plan_jacobian, trained_indices
from sksubnet.nets.trained import Latent, Rows
from sksubnet.predictive.likelihood import Bernoulli, Categorical, Gaussian
from sksubnet.sampling.variational import vogn

OPTIONS = {
    "prior_precision": 2.0,
    "temperature": 1.0,
    "n_epochs": 600,
    "batch_size": 1000,
    "lr": 0.3,
    "momentum": 0.9,
    "damping": 0.03,
    "learn_noise": False,
}


def linear(n_inputs, n_outputs=1):
    """A linear net without bias, at zero."""
    net = nn.Linear(n_inputs, n_outputs, bias=False).double()
    nn.init.zeros_(net.weight)
    return net


def regression(correlated, n_outputs=1, n=60):
    """Inputs (n, 3) with columns of different length, targets, row weights."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    weights = rng.choice([0.5, 1.0, 2.0, 3.0], size=n)
    if correlated:
        X[:, 1] += 0.7 * X[:, 0]
    else:
        # orthogonal under the weights
        X = np.linalg.qr(X * weights[:, None] ** 0.5)[0] / weights[:, None] ** 0.5 * [3, 8, 15]
    y = X @ rng.normal(size=(3, n_outputs)) + 0.3 * rng.normal(size=(n, n_outputs))
    return X, y, weights


def exact_posterior(X, y, weights, noise, prior_precision, temperature=1.0):
    """Mean (P,) and precision (P, P) of Bayesian linear regression, one output."""
    data = weights / noise / temperature
    precision = (X.T * data) @ X + prior_precision * np.eye(X.shape[1])
    return np.linalg.solve(precision, X.T @ (data * y)), precision


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("correlated", [False, True])
def test_the_exact_posterior_of_a_linear_gaussian_model(correlated, temperature):
    X, y, weights = regression(correlated)
    start = trained_net(linear(3), Gaussian(torch.tensor([0.2])), X, y, weights)
    posterior, likelihood = vogn(start, **OPTIONS | {"temperature": temperature})

    mean, precision = exact_posterior(X, y[:, 0], weights, 0.2, 2.0, temperature)
    std = np.diag(precision) ** -0.5
    # Mean field: the variance is that of a weight given the others, all of it where orthogonal.
    found = (posterior.eigenvalues + posterior.prior_precision).numpy()
    np.testing.assert_allclose(found, np.diag(precision), rtol=1e-6)
    assert np.abs((posterior.mean.numpy() - mean) / std).max() < 2e-3
    assert float(likelihood.noise_variance) == pytest.approx(0.2)
    if not correlated:
        np.testing.assert_allclose(1 / found, np.diag(np.linalg.inv(precision)), rtol=1e-6)


def test_outputs_with_noise_of_their_own():
    X, y, weights = regression(True, n_outputs=2)
    noise = torch.tensor([0.05, 0.8], dtype=torch.float64)
    start = trained_net(linear(3, 2), Gaussian(noise), X, y, weights)
    posterior, _ = vogn(start, **OPTIONS)
    for c, (mean, eigenvalues) in enumerate(
        zip(posterior.mean.view(2, 3), posterior.eigenvalues.view(2, 3), strict=True)
    ):
        expected, precision = exact_posterior(X, y[:, c], weights, float(noise[c]), 2.0)
        np.testing.assert_allclose(eigenvalues.numpy() + 2.0, np.diag(precision), rtol=1e-6)
        np.testing.assert_allclose(mean, expected, atol=5e-3 * np.diag(precision).min() ** -0.5)


def test_the_first_step_by_hand():
    X, y, weights = regression(True)
    X[:, 2] *= 30
    start = trained_net(linear(3), Gaussian(torch.tensor([0.2])), X, y, weights)
    posterior, _ = vogn(start, **OPTIONS | {"n_epochs": 1})

    total, (normals,) = (
        weights.sum(),
        torch.randn(1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy(),
    )
    decay = 2.0 * 0.2 / total
    w = normals / np.sqrt(total / 0.2 * (1 + decay))
    gradient = X.T @ (weights * (X @ w - y[:, 0])) / total
    curvature = X.T**2 @ weights / total * (1 - np.exp(-20)) + np.exp(-20)
    newton = gradient / (curvature + decay + 0.03)
    assert (np.abs(newton) > 0.3).any() and (np.abs(newton) < 0.3).any()
    np.testing.assert_allclose(posterior.mean, -0.3 * np.clip(newton, -0.3, 0.3), rtol=1e-6)


def test_several_batches_give_about_the_same():
    X, y, weights = regression(True)
    start = trained_net(linear(3), Gaussian(torch.tensor([0.2])), X, y, weights)
    posterior, _ = vogn(start, **OPTIONS | {"batch_size": 25})
    mean, precision = exact_posterior(X, y[:, 0], weights, 0.2, 2.0)
    std = np.diag(precision) ** -0.5
    assert np.abs((posterior.mean.numpy() - mean) / std).max() < 0.2
    np.testing.assert_allclose(posterior.eigenvalues + 2.0, np.diag(precision), rtol=0.05)


def test_learned_noise_is_the_fixed_point_of_variational_em():
    X, y, weights = regression(False, n=9)
    start = trained_net(linear(3), Gaussian(torch.ones(1)), X, y, weights)
    # A short prior, so that the noise, the mean and the variance depend on each other.
    options = OPTIONS | {"learn_noise": True, "prior_precision": 30.0, "n_epochs": 1500}
    posterior, likelihood = vogn(start, **options)

    noise = 1.0
    for _ in range(200):
        mean, precision = exact_posterior(X, y[:, 0], weights, noise, 30.0)
        expected = (y[:, 0] - X @ mean) ** 2 + X**2 @ (1 / np.diag(precision))
        noise = weights @ expected / weights.sum()
    residual = weights @ (y[:, 0] - X @ mean) ** 2 / weights.sum()
    assert noise > 1.1 * residual
    assert float(likelihood.noise_variance) == pytest.approx(noise, rel=0.03)
    np.testing.assert_allclose(posterior.eigenvalues + 30.0, np.diag(precision), rtol=0.03)


def test_the_minimum_of_the_bound_of_a_logistic_regression():
    # The GGN of a model that is linear in its weights is the Hessian, so that the fixed point of
    # VOGN is the minimum of the bound (Opper and Archambeau 2009), here found by quadrature.
    rng = np.random.default_rng(1)
    x, nodes = rng.normal(size=15), np.polynomial.hermite_e.hermegauss(60)
    y = (rng.random(15) < 1 / (1 + np.exp(-2 * x))).astype(float)

    def bound(parameters, temperature):
        mean, std = parameters[0], np.exp(parameters[1])
        logits = x * (mean + std * nodes[0])[:, None]
        loss = np.logaddexp(0, logits) - y * logits
        divergence = (2.0 * (mean**2 + std**2) - 1 - np.log(2.0 * std**2)) / 2
        return nodes[1] / nodes[1].sum() @ loss.sum(axis=1) + temperature * divergence

    for temperature in (1.0, 0.3):
        best = minimize(bound, [0.0, 0.0], args=(temperature,)).x
        start = trained_net(linear(1), Bernoulli(), x[:, None], y)
        options = OPTIONS | {"temperature": temperature, "n_epochs": 1200}
        posterior, _ = vogn(start, **options)
        std = float(posterior.eigenvalues + 2.0) ** -0.5
        assert float(posterior.mean) == pytest.approx(best[0], abs=0.02 * std)
        assert std == pytest.approx(np.exp(best[1]), rel=0.02)


def test_curvature_of_one_direction_is_unbiased():
    net, X = (
        mlp(n_outputs=3),
        torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double(),
    )
    weights = torch.tensor([0.0, 1, 2, 1, 3, 1], dtype=torch.float64)
    latent, indices = Latent(net, False), trained_indices(net)
    plan = plan_jacobian(latent, indices, X)
    batch, generator = Rows(X, torch.zeros(6), weights), torch.Generator().manual_seed(0)
    arguments = (latent, Categorical(), batch, plan, generator)
    draws = torch.stack([module_under_test._curvature(*arguments) for _ in range(200)])
    outputs = net(X).detach().numpy()
    expected = np.diag(ggn(jacobian(net, X), softmax_hessian(outputs), weights.numpy()))
    # The two signs agree or differ, with the same probability: two values for each weight.
    low, high = draws.amin(dim=0).numpy(), draws.amax(dim=0).numpy()
    np.testing.assert_allclose((low + high) / 2, expected, rtol=1e-10, atol=1e-12)
    assert 60 < int((draws[:, 0] == draws[0, 0]).sum()) < 140


def test_batches_cover_the_rows_and_estimate_their_mean():
    rows = Rows(torch.arange(7.0), torch.arange(7.0), torch.tensor([1.0, 2, 3, 1, 1, 4, 1]))
    for n_batches in (1, 3):
        batches = list(module_under_test._batches(rows, 2, n_batches, torch.Generator()))
        for epoch in (batches[:n_batches], batches[n_batches:]):
            seen = torch.cat([batch.X for batch in epoch])
            # Each batch stands for all rows; so weighted by their share, they give the mean.
            weights = torch.cat([batch.weights * len(batch) / 7 for batch in epoch])
            torch.testing.assert_close(seen.sort().values, rows.X)
            torch.testing.assert_close(weights, rows.weights[seen.long()] / 13)
    orders = {tuple(torch.cat([b.X for b in batches[i : i + 3]]).tolist()) for i in (0, 3)}
    assert len(orders) == 2


def test_frozen_weights_stay():
    net = mlp()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    X = torch.randn(10, 3, dtype=torch.float64)
    start = trained_net(net, Categorical(), X, torch.arange(10) % 2)
    posterior, _ = vogn(start, **OPTIONS | {"n_epochs": 5})
    assert torch.equal(net[0].weight, before)
    trained = torch.cat([p.flatten() for p in net.parameters() if p.requires_grad])
    torch.testing.assert_close(trained.detach(), posterior.mean)


def test_divergence_names_the_learning_rate():
    X, y, weights = regression(True)
    start = trained_net(linear(3), Gaussian(torch.tensor([0.2])), X, y, weights)
    with pytest.raises(ValueError, match=r"diverged with lr=10000.0.*Lower lr"):
        vogn(start, **OPTIONS | {"lr": 1e4, "n_epochs": 50})


class Linear(nn.Module):
    def __init__(self, n_features=1, n_outputs=1):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.layer(X)


class Noisy(nn.Module):
    """Dropout and batch normalisation."""

    def __init__(self, n_features=1, n_outputs=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 8),
            nn.BatchNorm1d(8),
            nn.Tanh(),
            nn.Dropout(0.2),
            nn.Linear(8, n_outputs),
        )

    def forward(self, X):
        return self.layers(X)


def test_predictions_are_those_of_the_exact_posterior():
    X, y, weights = regression(False)
    X, y = X - np.average(X, axis=0, weights=weights), y[:, 0]
    net = NeuralNetRegressor(Linear, batch_size=-1, train_split=None)
    reg = VOGNRegressor(
        net,
        prior_precision=2.0,
        temperature=1.0,
        n_epochs=600,
        n_draws=4000,
        noise=0.4,
        normalize_y=False,
        random_state=0,
    ).fit(X, y, sample_weight=weights)
    design = np.column_stack([X, np.ones(len(X))])
    mean, precision = exact_posterior(design, y, weights, 0.16, 2.0)
    variance = design**2 @ (1 / np.diag(precision))
    found, std = reg.predict(X, return_std=True)
    assert reg.noise_std_ == pytest.approx(0.4)
    assert np.abs((found - design @ mean) / np.sqrt(variance)).max() < 0.08
    np.testing.assert_allclose(std**2 - 0.16, variance, rtol=0.1)
    weights = torch.cat([p.flatten() for p in reg.net_.module_.parameters()]).detach()
    torch.testing.assert_close(weights, reg.posterior_.mean)


def test_units_of_the_target_do_not_matter():
    X, y, _ = regression(True)
    one = VOGNRegressor(n_epochs=20, n_draws=5, random_state=0)
    mean, std = one.fit(X, y[:, 0]).predict(X, return_std=True)
    scaled_mean, scaled_std = one.fit(X, 1000 * y[:, 0] - 7).predict(X, return_std=True)
    np.testing.assert_allclose(scaled_mean, 1000 * mean - 7, rtol=1e-6)
    np.testing.assert_allclose(scaled_std, 1000 * std, rtol=1e-6)


def test_noise_of_the_regressor_is_the_expected_squared_residual():
    X, y, _ = regression(True)
    net = NeuralNetRegressor(Linear, batch_size=-1, train_split=None)
    reg = VOGNRegressor(net, n_epochs=400, random_state=0).fit(X, y[:, 0])
    spread = reg.predictive(X).std("epistemic")[:, 0]
    expected = np.mean((y[:, 0] - reg.predict(X)) ** 2 + spread**2)
    assert reg.noise_std_**2 == pytest.approx(expected, rel=0.1)  # by 100 draws


def test_batch_size_is_that_of_the_net():
    X, y, _ = regression(True)

    def mean(batch_size):
        net = NeuralNetRegressor(Linear, batch_size=batch_size, train_split=None)
        return VOGNRegressor(net, n_epochs=5, random_state=0).fit(X, y[:, 0]).posterior_.mean

    assert torch.equal(mean(-1), mean(60))
    assert not torch.equal(mean(60), mean(59))


def test_an_early_epoch_has_the_curvature_of_the_rows_and_nothing_of_the_start():
    # The curvature of a linear Gaussian model is the same at all weights, so an average of any
    # number of its values is exact.
    X, y, weights = regression(True)
    far = Rows(*(torch.as_tensor(part) for part in (X[:5], 0 * y[:5], weights[:5])))
    noise = Gaussian(torch.tensor([0.2]))
    start = trained_net(linear(3), noise, X, 100 * y, weights, held_out=far)
    posterior, _ = vogn(start, **OPTIONS | {"n_epochs": 100})
    _, precision = exact_posterior(X, y[:, 0], weights, 0.2, 2.0)
    assert posterior.mean.abs().max() < 1  # of the first epochs, for the last are 100 times y's
    np.testing.assert_allclose(posterior.eigenvalues + 2.0, np.diag(precision), rtol=1e-6)


@pytest.mark.parametrize("learn_noise", [False, True])
def test_the_epoch_kept_is_the_best_for_held_out_rows(learn_noise):
    X, y, weights = regression(True, n=24)
    valid_X, valid_y, valid_weights = X[12:], y[12:], weights[12:]
    held_out = Rows(*(torch.as_tensor(part) for part in (valid_X, valid_y, valid_weights)))
    noise = Gaussian(torch.ones(1, dtype=torch.float64))

    def start():
        module = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 1)).double()
        for p in module.parameters():
            nn.init.normal_(p, 0, 0.5, generator=torch.Generator().manual_seed(0))
        return trained_net(module, noise, X[:12], y[:12], weights[:12], held_out=held_out)

    options = OPTIONS | {"temperature": 0.1, "n_epochs": 40, "learn_noise": learn_noise}
    net = start()
    epochs = list(module_under_test._epochs(start(), torch.Generator(), **options))
    found, likelihood = vogn(net, **options)

    losses = []
    for posterior, at in epochs:
        draws = posterior.sample(16, torch.Generator().manual_seed(0))
        outputs = []
        for w in draws.numpy():
            hidden = np.tanh(valid_X @ w[:60].reshape(20, 3).T + w[60:80])
            outputs.append(hidden @ w[80:100] + w[100])
        residuals = valid_y[:, 0] - np.array(outputs)

        def loss(noise):
            log = np.log(np.exp(-0.5 * residuals**2 / noise).mean(axis=0) / np.sqrt(noise))  # noqa: B023
            return -valid_weights @ log

        moments = np.mean(residuals, axis=0) ** 2, np.var(outputs, axis=0)

        def by_moments(noise):
            total = noise + moments[1]  # noqa: B023
            return valid_weights @ (np.log(total) + moments[0] / total)  # noqa: B023

        grid = np.geomspace(1e-4, 10, 4000)
        best = grid[np.argmin([by_moments(noise) for noise in grid])]
        losses.append((loss(best if learn_noise else float(at.noise_variance)), best))
    best = min(range(40), key=lambda epoch: losses[epoch][0])
    assert best < 39
    torch.testing.assert_close(found.mean, epochs[best][0].mean)
    assert torch.equal(net.weight_vector(), found.mean)
    expected = losses[best][1] if learn_noise else 1.0
    assert float(likelihood.noise_variance) == pytest.approx(expected, rel=0.01)


def test_held_out_rows_end_the_overfitting():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 8))
    y = (X[:, 0] + 1.5 * rng.normal(size=600) > 0).astype(int)

    def loss(**options):
        clf = VOGNClassifier(**options, random_state=0).fit(X[:150], y[:150])
        return -np.log(clf.predict_proba(X[150:])[np.arange(450), y[150:]]).mean()

    assert loss() < loss(validation_fraction=0.01) - 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_predictions_for_nets_with_noise_of_their_own(dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 2))
    y = (X[:, 0] > X[:, 1]).astype(int)
    criterion = nn.CrossEntropyLoss
    net = NeuralNetClassifier(Noisy, criterion=criterion, batch_size=44, train_split=None)
    clf = VOGNClassifier(net, n_epochs=60, n_draws=10, dtype=dtype, random_state=0).fit(X, y)
    again = VOGNClassifier(net, n_epochs=60, n_draws=10, dtype=dtype, random_state=0).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), again.predict_proba(X))
    other = VOGNClassifier(net, n_epochs=60, n_draws=10, dtype=dtype, random_state=1).fit(X, y)
    assert np.abs(clf.predict_proba(X) - other.predict_proba(X)).max() > 1e-3
    assert clf.score(X, y) > 0.8
    drawn = clf.folds_[0].draws
    weights, buffers = drawn.weights[3].double(), drawn.buffers[3]
    inner = X @ weights[:16].view(8, 2).numpy().T + weights[16:24].numpy()
    np.testing.assert_allclose(buffers["layers.1.running_mean"], inner.mean(axis=0), atol=1e-5)


def test_a_frozen_net_is_refused():
    X, y, _ = regression(True)
    net = frozen(NeuralNetRegressor, linear(3), nn.MSELoss)
    with pytest.raises(ValueError, match=r"VOGN trains all weights.*FrozenEstimator"):
        VOGNRegressor(net).fit(X, y[:, 0])


def test_defaults_train_as_well_as_the_map():
    X, y = load_breast_cancer(return_X_y=True)
    better = []
    for seed in range(2):
        A, B, a, b = train_test_split(X, y, stratify=y, random_state=seed)
        models = [kind(random_state=0).fit(A, a) for kind in (VOGNClassifier, MAPClassifier)]
        losses = [log_loss(b, model.predict_proba(B)) for model in models]
        better.append((models[0].score(B, b) - models[1].score(B, b), losses[1] - losses[0]))
    assert np.mean(better, axis=0)[0] > -0.02
    # Over eight splits the difference is -.01 +- .02; a split differs by .06 either way.
    assert np.mean(better, axis=0)[1] > -0.05

    X, y = load_diabetes(return_X_y=True)
    A, B, a, b = train_test_split(X, y, random_state=0)
    point = np.sqrt(np.mean((MAPRegressor(random_state=0).fit(A, a).predict(B) - b) ** 2))
    reg = VOGNRegressor(random_state=0).fit(A, a)
    assert np.sqrt(np.mean((reg.predict(B) - b) ** 2)) < 1.1 * point
