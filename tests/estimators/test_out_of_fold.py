"""What each net says of its own fold, and one net for all rows."""

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ShuffleSplit,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from user_nets import classifier_net, regressor_net

from sksubnet import (
    MAPClassifier,
    MAPRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    cross_val_predictive,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] * X[:, 1] + 0.3 * RNG.normal(size=60)
LABELS = np.digitize(X[:, 0] + 0.5 * RNG.normal(size=60), [-0.5, 0.5])

# The distinct rows in another order, some of them again, and some without a weight.
ROWS = np.concatenate([RNG.permutation(60), [3, 3, 17, 41], [5, 8]])
WEIGHTS = np.concatenate([np.ones(60), [1, 2, 1, 1], [0, 0]])
WEIGHTS[7] = 0
KEPT = ROWS[WEIGHTS > 0]

SMALL = {"selection": "magnitude", "subnetwork_size": 10, "random_state": 0}


def owners(fitted, X, kept):
    """Number of the net that has not seen each of some rows: in the order of the distinct ones."""
    distinct = np.unique(kept)
    order = distinct[np.lexsort([*X[distinct].T[::-1]])]
    owner = np.full(len(X), -1)
    for k, net in enumerate(fitted.folds_):
        owner[order[net.held_out]] = k
    return owner[kept]


@pytest.fixture(scope="module")
def regression():
    net = regressor_net(max_epochs=30)
    return SubnetLaplaceRegressor(net, cv=4, noise="input", **SMALL).fit(X[ROWS], Y[ROWS], WEIGHTS)


def test_a_regressors_rows_have_the_prediction_of_the_net_that_has_not_seen_them(regression):
    found = regression.out_of_fold_
    assert len(found) == len(KEPT)
    scale, offset = regression._units
    each = [
        net.predictive(torch.as_tensor(X[KEPT], dtype=torch.float64)).scaled(scale, offset)
        for net in regression.folds_
    ]
    for n, owner in enumerate(owners(regression, X, KEPT)):
        assert_allclose(found.mean[n], each[owner].mean[n], rtol=1e-10)
        assert_allclose(found.interval()[n], each[owner].interval()[n], rtol=1e-10)
        others = [each[k].mean[n] for k in range(4) if k != owner]
        assert all(abs(found.mean[n] - other) > 1e-9 for other in others)


def test_a_classifiers_rows_have_the_prediction_of_the_net_that_has_not_seen_them():
    fitted = SubnetLaplaceClassifier(classifier_net(), cv=4, prior_precision=1.0, **SMALL)
    fitted.fit(X[ROWS], LABELS[ROWS], WEIGHTS)
    found = fitted.out_of_fold_.probabilities()
    each = [net.predictive(torch.as_tensor(X[KEPT])).probabilities() for net in fitted.folds_]
    expected = [each[owner][n] for n, owner in enumerate(owners(fitted, X, KEPT))]
    assert_allclose(found, expected, rtol=1e-9)


def test_means_are_those_of_the_modules(regression):
    scale, offset = regression._y_scale[0], regression._y_mean[0]
    outputs = [dense.evaluate(net.net.module_, X[KEPT])[:, 0] for net in regression.folds_]
    owner = owners(regression, X, KEPT)
    expected = offset + scale * np.array(outputs)[owner, np.arange(len(KEPT))]
    assert_allclose(regression.out_of_fold_.mean[:, 0], expected, rtol=1e-9)


def test_scores_are_as_honest_as_a_cross_validation():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(120, 3))
    y = X[:, 0] + rng.normal(size=120)
    # So many steps that the net learns the noise by heart.
    net = regressor_net(max_epochs=150, lr=0.05, module__hidden=20)
    net.set_params(module__n_features=3, module__n_outputs=1)
    fitted = SubnetLaplaceRegressor(net, cv=5, prior_precision=1.0, noise=1.0, **SMALL).fit(X, y)
    honest = root_mean_squared_error(y, fitted.out_of_fold_.mean[:, 0])
    rows = X.astype("float32"), y[:, None].astype("float32")
    torch.manual_seed(0)
    splitter = KFold(5, shuffle=True, random_state=0)
    expected = root_mean_squared_error(y, cross_val_predict(clone(net), *rows, cv=splitter))
    assert honest == pytest.approx(expected, rel=0.15)
    assert root_mean_squared_error(y, fitted.predict(X)) < 0.85 * honest


def test_without_folds_that_hold_every_row_out_once_there_is_none():
    one = SubnetLaplaceRegressor(regressor_net(), cv=4, **SMALL).fit(X, Y)
    assert hasattr(one, "out_of_fold_")
    one.set_params(cv=None).fit(X, Y)
    assert not hasattr(one, "out_of_fold_")
    twice = [*KFold(2).split(X), *KFold(3).split(X)]
    assert not hasattr(one.set_params(cv=twice).fit(X, Y), "out_of_fold_")
    assert not hasattr(one.set_params(cv=twice[:1]).fit(X, Y), "out_of_fold_")


@pytest.mark.parametrize("name", ["net", "subnetwork", "posterior"])
def test_several_nets_have_no_single_one(regression, name):
    assert not hasattr(regression, f"{name}_")
    with pytest.raises(AttributeError, match=rf"4 nets.*folds_\[0\]\.{name}.*refit=True"):
        getattr(regression, f"{name}_")
    with pytest.raises(AttributeError, match="before fit"):
        getattr(SubnetLaplaceRegressor(), f"{name}_")


REFIT = {"cv": 3, "noise": "input", **SMALL}


@pytest.fixture(scope="module")
def folded():
    return SubnetLaplaceRegressor(**REFIT).fit(X, Y)


@pytest.fixture(scope="module")
def refitted():
    return SubnetLaplaceRegressor(**REFIT, refit=True).fit(X, Y)


def test_the_net_of_all_rows_takes_the_median_of_the_best_epochs(folded, refitted):
    best = [1 + int(np.argmin(net.net.history[:, "valid_loss"])) for net in folded.folds_]
    assert len(set(best)) == 3
    assert len(refitted.net_.history) == int(np.median(best))
    assert len(refitted.folds_) == 1 and len(refitted.folds_[0].held_out) == 0


def test_the_prior_is_that_of_the_folds(folded, refitted):
    assert refitted.prior_precision_ == folded.prior_precision_
    assert refitted.posterior_.prior_precision == pytest.approx(folded.prior_precision_)
    assert_array_equal(refitted.tuning_.losses, folded.tuning_.losses)
    assert refitted.subnetwork_ is refitted.folds_[0].subnetwork
    assert len(refitted.subnetwork_) == 10


def test_what_the_folds_say_of_their_rows_stays(folded, refitted):
    assert_array_equal(refitted.out_of_fold_.mean, folded.out_of_fold_.mean)
    assert_array_equal(refitted.out_of_fold_.std(), folded.out_of_fold_.std())


def test_the_noise_is_the_mean_of_the_folds_before_they_were_mixed(folded, refitted):
    inputs = torch.as_tensor(folded._encoding(X))
    noise = [net.noise(inputs).numpy() for net in folded.folds_]
    expected = np.sqrt(np.mean(noise, axis=0) / folded.tuning_.mixture_scale) * folded._y_scale
    assert_allclose(refitted.predictive(X).std("aleatoric"), expected, rtol=1e-6)


def test_the_posterior_of_all_rows_is_that_of_dense_matrices(refitted):
    net = refitted.folds_[0]
    module, chosen = refitted.net_.module_, refitted.subnetwork_.indices
    inputs = refitted._encoding(X)
    J = dense.jacobian(module, inputs)[:, 0, chosen]
    noise = net.noise(torch.as_tensor(inputs)).numpy()[:, 0]
    G = (J.T / noise) @ J
    precision = G + refitted.posterior_.prior_precision * np.eye(len(G))
    variance = np.einsum("ns,st,nt->n", J, np.linalg.inv(precision), J)
    epistemic = refitted.predictive(X).std("epistemic")[:, 0]
    assert_allclose(epistemic, refitted._y_scale[0] * np.sqrt(variance), rtol=1e-6)


def test_a_users_net_is_trained_as_it_is_set():
    net = regressor_net(max_epochs=7)
    fitted = SubnetLaplaceRegressor(net, cv=3, refit=True, **SMALL).fit(X, Y)
    assert len(fitted.net_.history) == 7
    assert len(fitted.folds_[0].held_out) == 0
    y = (Y - Y.mean()) / Y.std()
    loss = ((dense.evaluate(fitted.net_.module_, X)[:, 0] - y) ** 2).mean()
    # The last batches of an epoch saw nearly these weights.
    assert loss == pytest.approx(fitted.net_.history[-1, "train_loss"], rel=0.1)


def test_metadata_routing_hands_groups_to_the_splitter_and_weights_to_fit():
    groups, weights = np.arange(60) % 8, RNG.integers(1, 4, size=60).astype(float)
    model = MAPRegressor(regressor_net(), random_state=0)
    plain = {"params": {"sample_weight": weights}, "cv": GroupKFold(4)}
    expected = cross_val_predictive(model, X, Y, groups=groups, **plain)
    with config_context(enable_metadata_routing=True):
        asking = clone(model).set_fit_request(sample_weight=True, groups=False)
        asking.set_score_request(sample_weight=False)
        params = {"groups": groups, "sample_weight": weights}
        found = cross_val_predictive(asking, X, Y, params=params, cv=GroupKFold(4))
        both = {"params": params, "cv": GroupKFold(4), "return_estimator": True}
        fits = cross_validate(asking, X, Y, **both, return_indices=True)
        with pytest.raises(ValueError, match=r"params=\{'groups': groups\}"):
            cross_val_predictive(asking, X, Y, groups=groups, cv=GroupKFold(4))
    assert_array_equal(found.mean, expected.mean)
    for fit, rows in zip(fits["estimator"], fits["indices"]["test"], strict=True):
        assert_allclose(found.mean[rows, 0], fit.predict(X[rows]), rtol=1e-12)


def test_a_pipeline_is_predicted_by_its_last_step():
    model = MAPRegressor(regressor_net(), random_state=0)
    found = cross_val_predictive(make_pipeline(StandardScaler(), model), X, Y, cv=3)
    for train, test in KFold(3).split(X):
        scaler = StandardScaler().fit(X[train])
        fit = clone(model).fit(scaler.transform(X[train]), Y[train])
        assert_allclose(found.mean[test, 0], fit.predict(scaler.transform(X[test])), rtol=1e-12)


@pytest.mark.parametrize(
    ("labels", "cv", "message"),
    [
        (LABELS, ShuffleSplit(2, test_size=0.5, random_state=0), "leave rows out or have them twi"),
        (np.r_[np.arange(58) % 2, 2, 2], KFold(2), "folds do not all have the same classes"),
    ],
)
def test_folds_that_do_not_fit_together_are_refused(labels, cv, message):
    model = MAPClassifier(classifier_net(max_epochs=1), random_state=0)
    with pytest.raises(ValueError, match=message):
        cross_val_predictive(model, X, labels, cv=cv)
