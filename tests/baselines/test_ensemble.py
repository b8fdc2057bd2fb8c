"""Deep ensembles against their members."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from test_draws import classifier_of, regressor_of
from user_nets import MLP, QUICK, cancer, diabetes, iris

from sksubnet import (
    DeepEnsembleClassifier,
    DeepEnsembleRegressor,
    MAPClassifier,
    MAPRegressor,
    MCDropoutRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
)

CLASSIFIERS = {
    "nets": classifier_of(MLP),
    "laplace": SubnetLaplaceClassifier(classifier_of(MLP), **QUICK),
}
REGRESSORS = {
    "nets": regressor_of(MLP),
    "laplace": SubnetLaplaceRegressor(regressor_of(MLP), noise="constant", **QUICK),
    "dropout": MCDropoutRegressor(n_draws=5),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_probabilities_average_those_of_the_members(name):
    X, y = iris()
    clf = DeepEnsembleClassifier(CLASSIFIERS[name], n_members=3, random_state=0).fit(X, y)
    p = np.stack([member.predict_proba(X) for member in clf.estimators_])
    assert_allclose(clf.predict_proba(X), p.mean(axis=0))
    assert_allclose(
        clf.predict_proba_map(X), np.mean([m.predict_proba_map(X) for m in clf.estimators_], axis=0)
    )
    assert (p.std(axis=0).max(axis=1) > 1e-3).all()
    if name == "nets":
        between = stats.entropy(p.mean(axis=0), axis=1) - stats.entropy(p, axis=2).mean(axis=0)
        assert_allclose(clf.predictive(X).mutual_information(), between, atol=1e-12)
    else:
        within = np.mean([m.predictive(X).entropy("aleatoric") for m in clf.estimators_], axis=0)
        assert_allclose(clf.predictive(X).entropy("aleatoric"), within, atol=2e-3)


@pytest.mark.parametrize("name", REGRESSORS)
def test_moments_follow_the_law_of_total_variance(name):
    X, y = diabetes()
    reg = DeepEnsembleRegressor(REGRESSORS[name], n_members=3, random_state=0).fit(X, y)
    means, stds = np.swapaxes([m.predict(X, return_std=True) for m in reg.estimators_], 0, 1)
    mean, std = reg.predict(X, return_std=True)
    assert_allclose(mean, means.mean(axis=0))
    assert_allclose(reg.predict(X), mean)
    assert_allclose(std**2, (stds**2).mean(axis=0) + means.var(axis=0))
    noise = np.sqrt(np.mean([m.noise_std_**2 for m in reg.estimators_]))
    assert reg.noise_std_ == pytest.approx(noise)
    assert_allclose(reg.predictive(X).std("aleatoric"), noise)
    covariances = np.mean([m.predict(X[:9], return_cov=True)[1] for m in reg.estimators_], axis=0)
    expected = covariances + np.cov(means[:, :9].T, bias=True)
    assert_allclose(reg.predict(X[:9], return_cov=True)[1], expected)
    if name == "nets":
        low, high = reg.predict_interval(X[:9], 0.8).T
        for limit, level in ((low, 0.1), (high, 0.9)):
            assert_allclose(stats.norm.cdf(limit, means[:, :9], stds[:, :9]).mean(axis=0), level)


@pytest.mark.parametrize("name", ["nets", "laplace"])
def test_sampled_targets_have_the_moments_of_the_mixture(name):
    X, y = diabetes()
    reg = DeepEnsembleRegressor(REGRESSORS[name], n_members=3, random_state=0).fit(X, y)
    draws = reg.sample_y(X[:4], 60_000)
    mean, covariance = reg.predict(X[:4], return_cov=True)
    assert_allclose(draws.mean(axis=1), mean, atol=4 * np.sqrt(covariance.max() / 60_000))
    assert_allclose(np.cov(draws), covariance, atol=0.03 * covariance.max())


def test_two_targets():
    X, y = diabetes()
    Y = np.stack([y, -3 * y], axis=1)
    reg = DeepEnsembleRegressor(regressor_of(MLP), n_members=2, random_state=0).fit(X, Y)
    means, stds = np.swapaxes([m.predict(X, return_std=True) for m in reg.estimators_], 0, 1)
    assert_allclose(
        reg.predict(X, return_std=True)[1] ** 2, (stds**2).mean(axis=0) + means.var(axis=0)
    )
    assert reg.predict(X[:5], return_cov=True)[1].shape == (5, 5, 2)
    assert reg.sample_y(X[:5], 3).shape == (5, 2, 3)
    assert reg.noise_std_.shape == (2,)


def test_members_are_estimators_with_other_seeds_on_all_rows():
    X, y = iris()
    labels = np.array(["a", "b", "c"])[y]
    weights = np.random.default_rng(0).integers(0, 3, len(y))
    clf = DeepEnsembleClassifier(
        classifier_of(MLP), n_members=2, class_weight="balanced", random_state=0
    ).fit(X, labels, weights)
    for member in clf.estimators_:
        alone = MAPClassifier(
            classifier_of(MLP), class_weight="balanced", random_state=member.random_state
        ).fit(X, labels, weights)
        assert_allclose(alone.predict_proba(X), member.predict_proba(X))
        assert member.classes_.tolist() == ["a", "b", "c"]
    assert len({member.random_state for member in clf.estimators_}) == 2


def test_settings_reach_the_members():
    X, y = diabetes()
    reg = DeepEnsembleRegressor(
        n_members=1, noise=30.0, normalize_y=False, dtype="float32", random_state=0
    ).fit(X, y)
    (member,) = reg.estimators_
    assert isinstance(member, MAPRegressor)
    assert (member.noise_std_, reg.noise_std_) == (30.0, 30.0)
    assert (member._y_mean, member._y_scale) == (0, 1)
    assert member.net_.module_.dense.weight.dtype == torch.float32


def test_processes_give_the_same_members():
    X, y = iris()
    clf = DeepEnsembleClassifier(CLASSIFIERS["laplace"], n_members=2, random_state=0)
    expected = clone(clf).fit(X, y).predict_proba(X)
    assert_allclose(clf.set_params(n_jobs=2).fit(X, y).predict_proba(X), expected, rtol=1e-9)


def test_global_random_states_stay_as_they_are():
    X, y = cancer()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    DeepEnsembleClassifier(classifier_of(MLP), n_members=2, random_state=0).fit(X, y)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_nets_with_weights_are_refused():
    X, y = iris()
    frozen = FrozenEstimator(classifier_of(MLP).initialize())
    for net in (frozen, SubnetLaplaceClassifier(frozen)):
        with pytest.raises(ValueError, match="frozen, so that all 5 members would start from the"):
            DeepEnsembleClassifier(net).fit(X, y)
    with pytest.raises(ValueError, match="module instance, so that all 3 members"):
        DeepEnsembleClassifier(classifier_of(MLP()), n_members=3).fit(X, y)


def test_settings_equal_to_the_defaults_are_no_settings():
    X, y = diabetes()
    member = MAPRegressor(regressor_of(MLP))
    given = {"noise": "".join(["au", "to"]), "validation_fraction": float("0.2")}
    reg = DeepEnsembleRegressor(member, n_members=1, **given, random_state=0).fit(X, y)
    assert len(reg.estimators_) == 1


def test_settings_of_the_member_are_refused_here():
    X, y = diabetes()
    message = r"noise, dtype of the ensemble would not be used.*SubnetLaplaceRegressor.*net__noise"
    with pytest.raises(ValueError, match=message):
        DeepEnsembleRegressor(REGRESSORS["laplace"], noise=1.0, dtype="float32").fit(X, y)


def test_a_member_of_the_other_kind_is_refused():
    X, y = iris()
    message = "SubnetLaplaceRegressor cannot be a member of DeepEnsembleClassifier"
    with pytest.raises(TypeError, match=message):
        DeepEnsembleClassifier(SubnetLaplaceRegressor()).fit(X, y)
