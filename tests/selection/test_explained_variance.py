"""Reference inputs and explained variance, as the estimators offer them."""

from dataclasses import replace

import dense
import numpy as np
import pytest
import torch
from frozen_models import regression_rows, regressor
from user_nets import CountedMLP, classifier_net, iris, quick_classifier

from sksubnet.predictive.likelihood import Gaussian
from sksubnet.selection.subnetwork import Selector

X, Y = regression_rows(40, n_targets=1)
AWAY = X[:12] + 3.0


def module():
    return dense.mlp(n_outputs=1, seed=3)


def fitted(**options):
    return regressor(module(), noise=0.5, prior_precision=1.0, **options).fit(X, Y)


def direct(reference):
    """The same net and rows as the steps after training see them."""
    noise = Gaussian(torch.full((1,), 0.25, dtype=torch.float64))
    net = dense.trained_net(module(), noise, X, Y, seed=fitted()._seed)
    return replace(net, reference=reference)


@pytest.mark.parametrize("selection", ["greedy", "gradient"])
def test_reference_inputs_reach_the_selection(selection):
    candidates = torch.ones(len(dense.weight_vector(module())), dtype=torch.bool)
    chosen = {}
    for name, reference in {"away": AWAY, "train": "train", "mixtures": "mixtures"}.items():
        reg = fitted(selection=selection, subnetwork_size=6, candidates="all", reference=reference)
        given = reference if isinstance(reference, str) else torch.as_tensor(reference)
        expected = Selector(direct(given), selection, candidates).pick(6)
        np.testing.assert_array_equal(reg.subnetwork_.indices, expected.indices)
        chosen[name] = tuple(reg.subnetwork_.indices)
    assert len(set(chosen.values())) > 1


def dense_share(reg, X_reference):
    """Mean share of the predictive variance of all weights that the selected keep, inverted."""
    J, A = dense.jacobian(module(), X), dense.jacobian(module(), X_reference)
    weights = dense.weight_vector(module())
    G = np.einsum("ncp,ncq->pq", J, J) / 0.25
    eigenvalues = np.linalg.eigvalsh(G).clip(min=0)
    grid = eigenvalues.max() * np.logspace(-8, 2, 201)
    losses = grid * (weights @ weights) + np.log1p(eigenvalues / grid[:, None]).sum(axis=1)
    H = G + grid[losses.argmin()] * np.eye(len(weights))
    some = reg.subnetwork_.indices
    kept = dense.outputs_covariance(A[:, :, some], H[np.ix_(some, some)])
    full = dense.outputs_covariance(A, H)
    return np.einsum("ncc->nc", kept) / np.einsum("ncc->nc", full)


@pytest.mark.parametrize("selection", ["greedy", "random", "variance"])
def test_explained_variance_is_the_share_of_the_dense_posteriors(selection):
    reg = fitted(selection=selection, subnetwork_size=6, candidates="all", reference=AWAY)
    found = reg.explained_variance(X)
    assert found == pytest.approx(dense_share(reg, AWAY).mean(), rel=1e-6)
    if selection == "greedy":
        # The search leaves directions to the prior that the data hardly touch.
        assert found == pytest.approx(reg.subnetwork_.explained_variance, rel=1e-2)


def test_all_candidates_keep_all_and_weights_count_as_rows():
    everything = fitted(subnetwork_size="all", candidates="all", reference=AWAY)
    assert everything.explained_variance(X) == pytest.approx(1, abs=1e-9)
    some = fitted(selection="random", subnetwork_size=5, candidates="all", reference=AWAY)
    weights = np.arange(len(X)) % 3
    expected = some.explained_variance(np.repeat(X, weights, axis=0))
    assert some.explained_variance(X, sample_weight=weights) == pytest.approx(expected, rel=1e-9)


def test_a_size_by_variance_is_the_smallest_that_keeps_it():
    options = {"selection": "greedy", "candidates": "all", "reference": AWAY}
    reg = fitted(subnetwork_size="80% variance", **options)
    assert reg.subnetwork_.explained_variance >= 0.8
    smaller = fitted(subnetwork_size=len(reg.subnetwork_) - 1, **options)
    assert smaller.subnetwork_.explained_curve[-1] < 0.8


@pytest.mark.parametrize("size", ["most", "0.9", "-5% variance", "90 %", "variance", ""])
def test_unknown_sizes(size):
    with pytest.raises(ValueError, match=r"or a str: 'auto', 'all', or .* '90% variance'"):
        fitted(selection="greedy", subnetwork_size=size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": np.zeros((3, 2))}, r"reference must hold rows like those of X: X has 2 fea"),
        ({"reference": np.full((3, 4), np.nan)}, r"reference must hold .* contains NaN"),
        ({"subnetwork_size": "90% variance"}, r"needs selection='greedy'.*selection='magnitude'"),
        ({"subnetwork_size": "lots"}, r"subnetwork_size.*'90% variance'\. Got 'lots'"),
    ],
)
def test_wrong_options_are_refused_before_the_training(options, message):
    rows, labels = iris()
    CountedMLP.training_passes.clear()
    model = quick_classifier(classifier_net(CountedMLP), **options)
    with pytest.raises(ValueError, match=message):
        model.fit(rows, labels)
    assert CountedMLP.training_passes == []
