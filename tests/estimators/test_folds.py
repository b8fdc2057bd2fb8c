"""Folds that do not depend on how rows are written down, and what their nets say together."""

import warnings
from contextlib import nullcontext
from unittest import mock

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, stats
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_validate
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from skorch.utils import noop
from user_nets import MLP, classifier_net, regressor_net

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.estimators.folds import FOLDS, MOST_FOLDED_ROWS, Table, folds_of, merges_rows
from sksubnet.posterior import tuning
from sksubnet.posterior.tuning import LEAST_MIXTURE_SCALE, SHRUNK_ROWS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).round(2)
X = X[np.lexsort([*X.T[::-1]])]  # the order that distinct rows are kept in
Y = X[:, 0] * X[:, 1] + 0.3 * RNG.normal(size=60)
LABELS = np.digitize(X[:, 0] + 0.5 * RNG.normal(size=60), [-0.5, 0.5])
COUNTS = RNG.integers(1, 4, size=60).astype(float)

SMALL = {"selection": "magnitude", "subnetwork_size": 10, "random_state": 0}


def table(y, X=X, weights=None, groups=None):
    return Table.of(X, y, np.ones(len(X)) if weights is None else weights, groups)


def folds(rows, cv=5, seed=0):
    return folds_of(rows, cv, default_net=True, classify=rows.y.ndim == 1, seed=seed)


def fold_of(rows, cv=5):
    """Number of the fold that holds each row out (N,)."""
    number = np.full(len(rows), -1)
    for k, fold in enumerate(folds(rows, cv)):
        number[fold.held_out] = k
    return number


@pytest.mark.parametrize("cv", [2, 5, 7])
@pytest.mark.parametrize("y", [LABELS, Y[:, None]])
def test_folds_are_a_partition_of_equal_parts(cv, y):
    found = folds(table(y), cv)
    assert len(found) == cv
    assert_array_equal(np.sort(np.concatenate([fold.held_out for fold in found])), np.arange(60))
    for fold in found:
        assert_array_equal(np.sort(np.concatenate(fold)), np.arange(60))
        assert 60 // cv <= len(fold.held_out) <= -(-60 // cv)


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("seed", range(20))
def test_classes_are_spread_over_the_folds_within_one_row(seed):
    rng = np.random.default_rng(seed)
    n_folds = int(rng.integers(2, 8))
    labels = np.repeat(np.arange(5), rng.integers(2, 14, size=5))
    labels = rng.permutation(labels)
    rows = table(labels, rng.normal(size=(len(labels), 2)))
    for label in range(5):
        counts = [(labels[fold.held_out] == label).sum() for fold in folds(rows, n_folds, seed)]
        assert max(counts) - min(counts) <= 1


def test_folds_of_classes_do_not_follow_columns_that_take_turns():
    X = np.array([[block, level] for block in range(40) for level in range(5)], dtype=float)
    rows = table(np.repeat([0, 1], 100), X).merged()
    for fold in folds(rows):
        assert set(rows.X[fold.held_out, 1]) == set(range(5))


def test_a_numerical_target_is_spread_over_the_folds():
    y = np.random.default_rng(1).normal(size=500)
    found = folds(table(y[:, None], np.arange(500.0)[:, None]))
    ranks = stats.rankdata(y)
    for fold in found:
        # Of each five neighbours in the order of the target, every fold has one.
        assert_array_equal(np.sort((ranks[fold.held_out] - 1) // 5), np.arange(100))


def test_equal_rows_become_one_of_their_weight():
    X = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, -0.0], [0.0, 2.0], [5.0, 5.0], [1.0, 0.0]])
    y = np.array([1, 0, 1, 1, 1, 1])
    found = table(y, X, np.array([1.0, 2, 3, 4, 0, 5])).merged()
    assert_array_equal(found.X, [[0, 2], [0, 2], [1, 0]])
    assert_array_equal(found.y, [0, 1, 1])
    assert_array_equal(found.weights, [2, 4, 9])
    assert_array_equal(found.place, [2, 0, 2, 1, -1, 2])


def test_equal_rows_of_two_groups_stay_apart():
    found = table(np.zeros(4), np.zeros((4, 1)), groups=["b", "a", "b", "a"]).merged()
    assert_array_equal(found.weights, [2, 2])
    assert_array_equal(found.place, [1, 0, 1, 0])


def rewritten(y):
    """The same weighted rows in other words: X, y and weights, and which of ``X`` each is."""
    order = np.random.default_rng(5).permutation(60)
    repeated = np.repeat(order, COUNTS[order].astype(int))
    yield X[order], y[order], COUNTS[order], order
    yield X[repeated], y[repeated], None, repeated
    signed = np.where(X == 0, -0.0, X)
    zero = np.concatenate([order[:7], order])
    weights = np.concatenate([np.zeros(7), COUNTS[order]])
    yield signed[zero], y[zero], weights, zero


@pytest.mark.parametrize("y", [LABELS, Y])
def test_order_repetition_and_signs_of_zeros_leave_the_folds(y):
    assert (X == 0).any()
    shaped = y if y is LABELS else y[:, None]
    expected = fold_of(table(shaped, weights=COUNTS).merged())
    plain = table(shaped, weights=COUNTS).merged()
    for X_new, y_new, weights, which in rewritten(shaped):
        rows = table(y_new, X_new, weights).merged()
        assert_array_equal(rows.X, plain.X)
        assert_array_equal(rows.weights, plain.weights)
        assert_array_equal(fold_of(rows), expected)
        kept = rows.place >= 0
        assert_array_equal(fold_of(rows)[rows.place[kept]], expected[plain.place[which[kept]]])


@pytest.mark.parametrize("kind", [SubnetLaplaceClassifier, SubnetLaplaceRegressor])
def test_order_and_repetition_leave_predictions_bit_for_bit(kind):
    y, options = (LABELS, {}) if kind is SubnetLaplaceClassifier else (Y, {"noise": "input"})
    method = "predict_proba" if kind is SubnetLaplaceClassifier else "predict_interval"
    options |= {"cv": 2, "validation_fraction": 0.3}
    expected = getattr(kind(**SMALL, **options).fit(X, y, COUNTS), method)(X)
    for X_new, y_new, weights, _ in rewritten(y):
        fitted = kind(**SMALL, **options).fit(X_new, y_new, weights)
        assert_array_equal(getattr(fitted, method)(X), expected)


@pytest.mark.parametrize("cv", [3, "auto"])
@pytest.mark.parametrize("y", [LABELS, Y[:, None]])
def test_groups_are_never_split(y, cv):
    groups = np.random.default_rng(2).integers(11, size=60).astype(str)
    found = folds(table(y, groups=groups), cv)
    assert len(found) == (FOLDS if cv == "auto" else 3)
    assert_array_equal(np.sort(np.concatenate([fold.held_out for fold in found])), np.arange(60))
    for fold in found:
        assert not set(groups[fold.train]) & set(groups[fold.held_out])


def test_groups_of_classes_are_stratified():
    # Groups of one class each: folds of whole groups can have the same shares of the classes.
    groups = np.repeat(np.arange(20), 3)
    labels = (groups % 4 == 0).astype(int)
    for fold in folds(table(labels, groups=groups)):
        assert labels[fold.held_out].sum() == 3


def test_auto_takes_as_many_folds_as_there_are_groups():
    found = folds(table(LABELS, groups=np.arange(60) % 3), "auto")
    assert len(found) == 3
    assert folds(table(LABELS, groups=np.zeros(60)), "auto") is None


@pytest.mark.parametrize("y", [LABELS, Y[:, None]])
def test_more_folds_than_rows_or_groups_are_refused_as_in_scikit_learn(y):
    repeated = np.repeat(np.arange(60), 2)
    rows = table(y[repeated], X[repeated], np.r_[np.ones(119), 0]).merged()
    assert len(rows) == 60
    with pytest.raises(ValueError, match=r"cv=61 is more folds .* distinct rows .*, 60; .*cv=None"):
        folds(rows, 61)
    with pytest.raises(ValueError, match="Cannot have number of splits n_splits=61 greater"):
        next(KFold(61).split(rows.X))
    with pytest.warns(UserWarning, match="least populated") if y is LABELS else nullcontext():
        found = folds(rows, 60)
    assert_array_equal(np.sort([fold.held_out for fold in found], axis=0), np.arange(60)[:, None])
    groups = np.arange(60) % 3
    with pytest.raises(ValueError, match=r"cv=5 is more folds .* groups of rows .*, 3"):
        folds(table(y, groups=groups))
    with pytest.raises(ValueError, match="Cannot have number of splits n_splits=5 greater"):
        next(GroupKFold(5).split(X, groups=groups))


@pytest.mark.parametrize("counts", [(30, 1), (30, 3), (30, 5), (10, 5, 4)])
@pytest.mark.parametrize("cv", [2, 4, 5])
def test_a_number_of_folds_warns_of_the_same_rare_classes_as_scikit_learn(counts, cv):
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = table(labels, np.arange(float(len(labels)))[:, None])
    with warnings.catch_warnings(record=True) as theirs:
        warnings.simplefilter("always")
        next(StratifiedKFold(cv).split(rows.X, labels))
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        folds(rows, cv)
    assert len(ours) == len(theirs) == (min(counts) < cv)
    for one, other in zip(ours, theirs, strict=True):
        assert str(one.message)[:41] == str(other.message)[:41]


@pytest.mark.parametrize("n_rare", [1, 2])
def test_auto_warns_of_a_class_that_a_net_does_not_know(n_rare):
    labels = np.repeat([0, 1], [30, n_rare])
    X = np.arange(float(len(labels)))[:, None]
    with pytest.warns(UserWarning) if n_rare == 1 else nullcontext() as caught:
        found = folds(table(labels, X), "auto")
    unknown = [fold for fold in found if 1 not in labels[fold.train]]
    assert len(unknown) == (n_rare == 1)
    if n_rare == 1:
        assert "trains without that class" in str(caught[0].message)


def test_groups_that_one_net_cannot_keep_together_are_told():
    groups = np.arange(60) % 3
    with pytest.warns(UserWarning, match="groups are ignored where one net is trained"):
        assert folds(table(LABELS, groups=groups), None) is None


def test_as_many_folds_as_rows_are_fitted():
    fitted = SubnetLaplaceRegressor(regressor_net(), cv=4, **SMALL).fit(X[:4], Y[:4])
    assert [len(net.held_out) for net in fitted.folds_] == [1, 1, 1, 1]
    assert np.isfinite(fitted.predict(X, return_std=True)).all()


def test_groups_come_through_metadata_routing():
    # The first column numbers the rows, so the distinct ones keep that order.
    numbered = np.column_stack([np.arange(60) / 60, X])
    groups = np.random.default_rng(3).permutation(np.arange(60) % 6)
    with config_context(enable_metadata_routing=True):
        estimator = SubnetLaplaceRegressor(regressor_net(), cv=3, **SMALL)
        found = cross_validate(
            estimator.set_fit_request(groups=True),
            numbered,
            Y,
            cv=KFold(2),
            params={"groups": groups},
            return_estimator=True,
            return_indices=True,
        )
    for fitted, rows in zip(found["estimator"], found["indices"]["train"], strict=True):
        assert len(fitted.folds_) == 3
        for net in fitted.folds_:
            held_out = set(groups[rows][net.held_out])
            assert not held_out & set(np.delete(groups[rows], net.held_out))


def test_a_splitter_of_the_users_gets_the_groups():
    groups = np.random.default_rng(2).integers(11, size=60)
    fitted = SubnetLaplaceRegressor(regressor_net(), cv=GroupKFold(3), **SMALL)
    for net in fitted.fit(X, Y, groups=groups).folds_:
        assert not set(groups[net.held_out]) & set(np.delete(groups, net.held_out))


@pytest.mark.parametrize("as_list", [False, True])
def test_the_users_splits_are_used_as_they_are(as_list):
    splitter = KFold(3, shuffle=True, random_state=7)
    splits = list(splitter.split(X))
    cv = splits if as_list else splitter
    fitted = SubnetLaplaceRegressor(regressor_net(), cv=cv, **SMALL).fit(X, Y)
    for net, (_, test) in zip(fitted.folds_, splits, strict=True):
        assert_array_equal(net.held_out, test)


def test_a_fold_without_rows_is_refused():
    with pytest.raises(ValueError, match="cv gives a fold without rows"):
        cv = [(np.arange(60), np.arange(0))]
        SubnetLaplaceClassifier(classifier_net(), cv=cv, **SMALL).fit(X, LABELS)


def test_auto_is_for_the_default_net_and_few_rows():
    rows = table(np.zeros(MOST_FOLDED_ROWS + 1), np.arange(MOST_FOLDED_ROWS + 1.0)[:, None])
    assert folds(rows, "auto") is None
    assert folds(table(LABELS), None) is None
    assert len(folds(table(LABELS), "auto")) == FOLDS
    assert folds_of(table(LABELS), "auto", default_net=False, classify=True, seed=0) is None
    assert not merges_rows("auto", 60, False) and not merges_rows(None, 60, True)
    assert merges_rows(3, 60, False) and merges_rows("auto", 60, True)


def test_a_trained_net_takes_no_folds():
    net = regressor_net(module__n_features=3, module__n_outputs=1)
    net = FrozenEstimator(net.fit(X.astype("float32"), Y[:, None].astype("float32")))
    with pytest.raises(ValueError, match="cv=3 would train a net for each fold"):
        SubnetLaplaceRegressor(net, cv=3, **SMALL).fit(X, Y)
    assert len(SubnetLaplaceRegressor(net, **SMALL).fit(X, Y).folds_) == 1


@pytest.mark.parametrize("task", ["classifier", "regressor"])
def test_each_net_of_the_users_stops_on_its_fold(task):
    options = {"train_split": ValidSplit(5), "max_epochs": 15}
    options["callbacks"] = [("stop", EarlyStopping(patience=3, load_best=True, sink=noop))]
    if task == "classifier":
        net, y = classifier_net(**options), LABELS
        fitted = SubnetLaplaceClassifier(net, cv=4, **SMALL).fit(X, y)
    else:
        net, y = regressor_net(**options), Y - Y.mean()
        fitted = SubnetLaplaceRegressor(net, cv=4, normalize_y=False, **SMALL).fit(X, y)
    assert len(fitted.folds_) == 4
    order = np.lexsort([*X.T[::-1]])
    for part in fitted.folds_:
        rows = order[part.held_out]
        f = dense.evaluate(part.net.module_, X[rows])
        if task == "classifier":
            loss = -np.log(dense.softmax(f)[np.arange(len(rows)), y[rows]]).mean()
        else:
            loss = ((f[:, 0] - y[rows]) ** 2).mean()
        assert loss == pytest.approx(min(part.net.history[:, "valid_loss"]), rel=1e-6)


def test_a_net_does_not_see_the_rows_of_its_fold():
    splits = list(KFold(3).split(X))
    changed = Y.copy()
    changed[splits[1][1]] += 5
    options = {"cv": splits, "normalize_y": False, **SMALL}
    first, second = (
        SubnetLaplaceRegressor(regressor_net(), **options).fit(X, y) for y in (Y, changed)
    )
    same = [
        np.array_equal(*(dense.weight_vector(part.net.module_) for part in pair))
        for pair in zip(first.folds_, second.folds_, strict=True)
    ]
    assert same == [False, True, False]


class Pooled:
    """Formulas of the cross-fit, by dense matrices: G_k, J_k, f_k of the nets of a fit."""

    def __init__(self, fitted, X, y, weights):
        order = np.lexsort([*X.T[::-1]])
        self.y_mean = np.average(y, weights=weights)
        self.y_scale = np.sqrt(np.average((y - self.y_mean) ** 2, weights=weights))
        self.X, y, self.weights = (
            X[order],
            ((y - self.y_mean) / self.y_scale)[order],
            weights[order],
        )
        self.nets, self.y = fitted.folds_, y
        self.rows = [net.held_out for net in self.nets]
        f, J = zip(*(self.outputs(net, self.X) for net in self.nets), strict=True)
        self.w = np.concatenate([self.weights[rows] for rows in self.rows])
        self.squared = [(y[rows] - f_k[rows]) ** 2 for f_k, rows in zip(f, self.rows, strict=True)]
        self.v0 = self.w @ np.concatenate(self.squared) / self.w.sum()
        self.J_held = [J_k[rows] for J_k, rows in zip(J, self.rows, strict=True)]
        self.G = []
        for J_k, rows in zip(J, self.rows, strict=True):
            seen = np.setdiff1d(np.arange(len(y)), rows)
            self.G.append((J_k[seen].T * self.weights[seen]) @ J_k[seen] / self.v0)

    @staticmethod
    def outputs(net, X):
        module, chosen = net.net.module_, net.subnetwork.indices
        return dense.evaluate(module, X)[:, 0], dense.jacobian(module, X)[:, 0, chosen]

    def variance(self, J, k, r):
        return np.einsum("ns,st,nt->n", J, np.linalg.inv(self.G[k] + r * np.eye(len(self.G[k]))), J)

    def spreads(self, r):
        return [self.variance(J, k, r) + self.v0 for k, J in enumerate(self.J_held)]

    def by_row(self, r):
        """Negative log likelihood (N,) of rows that each net has not seen, and the noise scale."""
        spread, squared = np.concatenate(self.spreads(r)), np.concatenate(self.squared)
        scale = self.w @ (squared / spread) / self.w.sum()
        return -stats.norm(0, np.sqrt(scale * spread)).logpdf(np.sqrt(squared)), scale

    def loss(self, r):
        return self.w @ self.by_row(r)[0] / self.w.sum()

    def scales(self, r):
        pooled = self.by_row(r)[1]
        found = []
        for squared, spread, rows in zip(self.squared, self.spreads(r), self.rows, strict=True):
            w = self.weights[rows]
            found.append((w @ (squared / spread) + SHRUNK_ROWS * pooled) / (w.sum() + SHRUNK_ROWS))
        return np.array(found)

    def mixture_scale(self, r):
        """What the nets differ by, as a share of their variance, is taken off."""
        f = np.array([self.outputs(net, self.X)[0] for net in self.nets])
        spreads = zip(self.scales(r), self.spreads(r), strict=True)
        within = np.concatenate([scale * spread for scale, spread in spreads])
        ambiguity = np.average(f.var(axis=0), weights=self.weights)
        return max(LEAST_MIXTURE_SCALE, 1 - ambiguity / np.average(within, weights=self.w))


def pooled_fit(rule):
    net = regressor_net(max_epochs=100, module__hidden=6)
    X = np.random.default_rng(0).normal(size=(60, 3)).round(2)
    y = X[:, 0] * X[:, 1] + 0.3 * np.random.default_rng(0).normal(size=60)
    options = {**SMALL, "subnetwork_size": 16}
    fitted = SubnetLaplaceRegressor(net, cv=3, prior_precision=rule, **options)
    fitted.fit(X, y, COUNTS)
    return fitted, Pooled(fitted, X, y, COUNTS)


@pytest.fixture(scope="module")
def lowest():
    return pooled_fit("validation")


@pytest.fixture(scope="module")
def half_se():
    # The rule has to find its way without the limits, which are near here.
    with mock.patch.object(tuning, "PRIOR_SD", (1e-3, 1e3)):
        return pooled_fit("validation_half_se")


def test_losses_of_all_nets_are_those_of_brute_force(lowest):
    fitted, brute = lowest
    found = fitted.tuning_
    expected = [brute.loss(r) for r in found.grid.numpy()]
    assert_allclose(found.losses.numpy(), expected, rtol=1e-9)


def test_the_lowest_pooled_loss_is_chosen(lowest):
    fitted, brute = lowest
    found = fitted.tuning_
    grid = found.grid.numpy()
    fine = np.geomspace(grid[0], grid[-1], 400)
    ratio = found.prior_precision * found.noise_scale
    losses = np.array([brute.loss(r) for r in fine])
    assert brute.loss(ratio) <= losses.min() + 1e-4 * np.ptp(losses)
    assert found.noise_scale == pytest.approx(brute.by_row(ratio)[1], rel=1e-9)


def test_the_smallest_within_half_a_standard_error_is_chosen(half_se):
    fitted, brute = half_se
    found = fitted.tuning_
    grid = found.grid.numpy()
    near = np.argmin([brute.loss(r) for r in grid])
    bounds = np.log(grid[[near - 1, near + 1]])
    lowest = optimize.minimize_scalar(
        lambda t: brute.loss(np.exp(t)), bounds=bounds, method="bounded"
    )
    best = min([*grid, np.exp(lowest.x)], key=brute.loss)

    def n_errors(r):
        excess = brute.by_row(r)[0] - brute.by_row(best)[0]
        mean = brute.w @ excess / brute.w.sum()
        return mean * brute.w.sum() / np.sqrt(brute.w @ (excess - mean) ** 2)

    below = grid[grid < best][::-1]
    errors = np.array([n_errors(r) for r in below])
    assert (np.abs(errors - 0.5) > 0.02).all()  # the best is not known to the last digit
    expected = below[np.argmax(errors > 0.5) - 1]
    ratio = found.prior_precision * found.noise_scale
    assert expected < best / 2 and not found.at_edge  # so that the rule has something to do
    assert ratio == pytest.approx(expected, rel=1e-9)


def test_each_net_has_its_own_noise_scale(half_se):
    fitted, brute = half_se
    found = fitted.tuning_
    ratio = found.prior_precision * found.noise_scale
    expected = brute.scales(ratio)
    assert len(set(expected)) == 3
    assert_allclose(found.noise_scales, expected, rtol=1e-8)
    assert found.mixture_scale == pytest.approx(brute.mixture_scale(ratio), rel=1e-8)
    assert found.mixture_scale < 1
    expected *= found.mixture_scale
    for k, net in enumerate(fitted.folds_):
        assert_allclose(np.prod(found.of_net(k)), ratio)
        assert_allclose(net.likelihood.noise_variance, [expected[k] * brute.v0], rtol=1e-8)
    noise = brute.v0 * expected.mean()
    assert fitted.noise_std_ == pytest.approx(brute.y_scale * np.sqrt(noise), rel=1e-8)


def test_predictions_are_those_of_the_mixture(half_se):
    fitted, brute = half_se
    ratio = fitted.tuning_.prior_precision * fitted.tuning_.noise_scale
    X_new = np.random.default_rng(9).normal(size=(5, 3))
    means, stds = [], []
    scales = brute.scales(ratio) * brute.mixture_scale(ratio)
    for k, (net, scale) in enumerate(zip(brute.nets, scales, strict=True)):
        f, J = brute.outputs(net, X_new)
        means.append(brute.y_mean + brute.y_scale * f)
        stds.append(brute.y_scale * np.sqrt(scale * (brute.variance(J, k, ratio) + brute.v0)))
    parts, y_new = stats.norm(np.array(means), np.array(stds)), np.linspace(-2, 2, 5)

    predictive = fitted.predictive(X_new)
    assert_allclose(predictive.log_prob(y_new), np.log(parts.pdf(y_new).mean(axis=0)), rtol=1e-7)
    assert_allclose(predictive.cdf(y_new), parts.cdf(y_new).mean(axis=0), rtol=1e-7)
    mean, std = fitted.predict(X_new, return_std=True)
    assert_allclose(mean, np.mean(means, axis=0), rtol=1e-9)
    second = np.mean(np.square(stds) + np.square(means), axis=0)
    assert_allclose(std, np.sqrt(second - mean**2), rtol=1e-7)
    for n, ends in enumerate(fitted.predict_interval(X_new, 0.8)):
        for end, level in zip(ends, (0.1, 0.9), strict=True):
            one = stats.norm(parts.mean()[:, n], parts.std()[:, n])
            root = optimize.brentq(
                lambda t, one=one, level=level: one.cdf(t).mean() - level, -50, 50, xtol=1e-12
            )
            assert end == pytest.approx(root, rel=1e-7)


def test_class_probabilities_are_the_mean_over_the_nets():
    fitted = SubnetLaplaceClassifier(
        classifier_net(MLP), cv=3, link="probit", prior_precision=2.0, **SMALL
    ).fit(X, LABELS)
    X_new = torch.as_tensor(X[:6])
    order = np.lexsort([*X.T[::-1]])
    expected = []
    for net in fitted.folds_:
        chosen, module = net.subnetwork.indices, net.net.module_
        seen = np.delete(X[order], net.held_out, axis=0)
        hessian = dense.softmax_hessian(dense.evaluate(module, seen))
        G = dense.ggn(dense.jacobian(module, seen)[:, :, chosen], hessian)
        J = dense.jacobian(module, X_new)[:, :, chosen]
        V = dense.outputs_covariance(J, G + 2 * np.eye(len(G))).diagonal(axis1=1, axis2=2)
        expected.append(dense.softmax(dense.evaluate(module, X_new) / np.sqrt(1 + np.pi / 8 * V)))
    assert_allclose(fitted.predict_proba(X[:6]), np.mean(expected, axis=0), rtol=1e-6)
