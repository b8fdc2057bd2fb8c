"""Dense Laplace from explicit Jacobians, and small nets to compare with it."""

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from sksubnet.nets.trained import Latent, Rows, TrainedNet


def mlp(n_inputs=3, hidden=6, n_outputs=2, seed=0):
    """Two float64 layers with weights large enough to be far from linear."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(
        nn.Linear(n_inputs, hidden), nn.Tanh(), nn.Linear(hidden, n_outputs)
    ).double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def frozen(net_class, module, criterion, **options):
    """A skorch net around a module as it is."""
    options = {"train_split": None, **options}
    return FrozenEstimator(net_class(module, criterion=criterion, **options).initialize())


def trained_net(module, likelihood, X, y, weights=None, held_out=None, seed=0):
    """The value that the steps after training work on."""
    X = torch.as_tensor(X)
    weights = torch.ones(len(X), dtype=X.dtype) if weights is None else torch.as_tensor(weights)
    n_outputs = module(X[:1]).shape[1]
    rows = Rows(X, torch.as_tensor(y), weights)
    return TrainedNet(module, Latent(module, False), likelihood, n_outputs, rows, held_out, seed)


def jacobian(module, X):
    """Jacobian (N, C, P) by automatic differentiation of one row after the other."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def outputs(values, x):
        return torch.func.functional_call(module, values, (x[None],))[0]

    rows = []
    for x in torch.as_tensor(X):
        by_name = torch.func.jacrev(outputs)(parameters, x)
        rows.append(torch.cat([by_name[name].flatten(1) for name in parameters], dim=1))
    return torch.stack(rows).numpy()


def softmax(f):
    e = np.exp(f - f.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(f):
    return 1 / (1 + np.exp(-f))


def softmax_hessian(f):
    """diag(p) - p pᵀ for every row of logits (N, C): (N, C, C)."""
    p = softmax(f)
    return np.eye(p.shape[1]) * p[:, None, :] - p[:, :, None] * p[:, None, :]


def ggn(J, hessian, weights=None):
    """Σ_n w_n J_nᵀ Λ_n J_n from (N, C, S), (N, C, C), (N,): (S, S)."""
    total = np.zeros((J.shape[2], J.shape[2]))
    for n in range(len(J)):
        total += (1 if weights is None else weights[n]) * J[n].T @ hessian[n] @ J[n]
    return total


def outputs_covariance(J, precision):
    """J_n H⁻¹ J_nᵀ of every row (N, C, S): (N, C, C)."""
    inverse = np.linalg.inv(precision)
    return np.stack([j @ inverse @ j.T for j in J])


def log_evidence(log_likelihood, G, mean, prior_precision):
    """Laplace evidence with a prior N(0, I / prior_precision) on the weights (S,)."""
    precision = G + prior_precision * np.eye(len(G))
    log_prior = len(mean) / 2 * np.log(prior_precision / (2 * np.pi))
    log_prior -= prior_precision / 2 * mean @ mean
    log_det = np.linalg.slogdet(precision / (2 * np.pi))[1]
    return log_likelihood + log_prior - log_det / 2


def weight_vector(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach().numpy()


def evaluate(module, X):
    with torch.no_grad():
        return module(torch.as_tensor(X)).numpy()
