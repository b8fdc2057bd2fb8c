"""Nets with BCEWithLogitsLoss for several labels, against logistic regression and single nets."""

import numpy as np
import pytest
import torch
from scipy import sparse, special
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_score
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn
from user_nets import MLP, OPTIONS, assert_refused, binary_net

from sksubnet import (
    DeepEnsembleClassifier,
    MAPClassifier,
    SubnetLaplaceClassifier,
    SWAGClassifier,
    VOGNClassifier,
    compare,
    cross_val_predictive,
)

ALL = {"subnetwork_size": "all", "candidates": "all", "cv": None, "random_state": 0}
QUICK = {"subnetwork_size": 12, "prior_precision": 1.0, "cv": None, "random_state": 0}


def table(n_rows=90):
    """Rows (n, 4) and three labels of each."""
    rng = np.random.default_rng(0)
    X = np.c_[np.ones(n_rows), rng.normal(size=(n_rows, 3))]
    logits = X @ np.array([[0.3, -1.0, 0.0], [1.0, 0.5, -0.8], [0.0, 1.0, 0.4], [-0.7, 0.1, 0.2]])
    return X, (special.expit(logits) > rng.uniform(size=logits.shape)).astype(int)


def linear_net(n_labels: int, **options) -> NeuralNetClassifier:
    defaults = {"module": nn.Linear, "module__bias": False, "module__in_features": 4}
    defaults |= {"module__out_features": n_labels, "criterion": nn.BCEWithLogitsLoss}
    defaults |= {"train_split": None, "verbose": 0, "max_epochs": 40, "batch_size": -1, "lr": 1.0}
    defaults |= {"optimizer": torch.optim.LBFGS, "optimizer__tolerance_grad": 1e-10}
    defaults |= {"optimizer__tolerance_change": 1e-14}
    return NeuralNetClassifier(**{**defaults, **options})


def label_net(kind=NeuralNetClassifier, **options):
    return kind(**{"module": MLP, "criterion": nn.BCEWithLogitsLoss, **OPTIONS, **options})


def test_the_posterior_of_a_linear_net_is_that_of_logistic_regressions():
    X, Y = table()
    model = SubnetLaplaceClassifier(linear_net(3), prior_precision=0.7, **ALL).fit(X, Y)
    W = model.net_.module_.weight.detach().numpy()
    p = special.expit(X @ W.T)
    np.testing.assert_allclose(X.T @ (Y - p), 0, atol=1e-5)  # the maximum
    new = np.c_[np.ones(20), np.random.default_rng(1).normal(size=(20, 3))]
    mean, variance = model.latent_mean_and_variance(new)
    np.testing.assert_allclose(mean, new @ W.T, rtol=1e-9)
    for label in range(3):
        curvature = p[:, label] * (1 - p[:, label])
        precision = X.T @ (curvature[:, None] * X) + 0.7 * np.eye(4)
        expected = np.einsum("np,pq,nq->n", new, np.linalg.inv(precision), new)
        np.testing.assert_allclose(variance[:, label], expected, rtol=1e-6)
    probit = special.expit(mean / np.sqrt(1 + np.pi / 8 * variance))
    np.testing.assert_allclose(model.predict_proba(new), probit, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(new), (probit > 0.5).astype(int))
    np.testing.assert_allclose(model.predict_proba_map(new), special.expit(mean), rtol=1e-9)
    covariance = model.predictive(new).covariance.numpy()
    off_diagonal = covariance[:, ~np.eye(3, dtype=bool)]
    np.testing.assert_allclose(off_diagonal, 0, atol=1e-12)


def test_it_is_a_net_for_each_label():
    X, Y = table()
    weight = np.random.default_rng(2).uniform(0.2, 2, size=len(X))
    together = SubnetLaplaceClassifier(linear_net(3), prior_precision=0.7, **ALL)
    together.fit(X, Y, sample_weight=weight)
    for label in range(3):
        alone = SubnetLaplaceClassifier(linear_net(1), prior_precision=0.7, **ALL)
        alone.fit(X, Y[:, label], sample_weight=weight)
        found = together.predict_proba(X)[:, label]
        np.testing.assert_allclose(found, alone.predict_proba(X)[:, 1], atol=1e-6)


def test_labels_as_scikit_learn_gives_and_wants_them():
    X, Y = table()
    Y[:, 2] = 0  # a label that no row has
    model = SubnetLaplaceClassifier(label_net(), **QUICK)
    expected = clone(model).fit(X, Y).predict_proba(X)
    assert expected.shape == (90, 3) and (expected[:, 2] < 0.5).all()
    for given in (Y.tolist(), Y.astype(float), Y.astype(bool), sparse.csr_array(Y)):
        fitted = clone(model).fit(X, given)
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)
        assert fitted.predict(X).dtype == np.int64
    np.testing.assert_array_equal(fitted.classes_, [0, 1, 2])
    accuracy = (fitted.predict(X) == Y).all(axis=1).mean()  # of whole rows, as scikit-learn's
    assert fitted.score(X, Y) == pytest.approx(accuracy)
    np.testing.assert_allclose(fitted.predict_log_proba(X), np.log(expected))


def test_folds_tuning_and_scorers():
    X, Y = table()
    model = SubnetLaplaceClassifier(label_net(), subnetwork_size=20, cv=3, random_state=0)
    model.fit(X, Y)
    assert len(model.folds_) == 3 and model.tuning_.losses is not None
    each = [net.predictive(torch.as_tensor(X)).probabilities() for net in model.folds_]
    np.testing.assert_allclose(model.predict_proba(X), np.mean(each, axis=0), rtol=1e-9)
    constant = np.log(np.where(Y == 1, Y.mean(0), 1 - Y.mean(0))).sum(1).mean()
    assert model.out_of_fold_.log_prob(Y).mean() > constant
    quick = SubnetLaplaceClassifier(label_net(), **QUICK)
    scores = cross_val_score(quick, X, Y, scoring="roc_auc", cv=3)
    assert scores.mean() > 0.55
    assert cross_val_score(quick, X, Y, scoring="f1_macro", cv=3).shape == (3,)


def test_several_estimators_and_rows_out_of_folds():
    X, Y = table(60)
    models = {"Laplace": SubnetLaplaceClassifier(label_net(), **QUICK)}
    splitter = KFold(3, shuffle=True, random_state=0)
    frame = compare(models, X, Y, cv=splitter, scoring="roc_auc").to_frame()
    expected = cross_val_score(models["Laplace"], X, Y, cv=splitter, scoring="roc_auc")
    assert frame["roc_auc"]["mean"].iloc[0] == pytest.approx(expected.mean())
    assert_refused(lambda: compare(models, X, Y), "several labels", "scoring")
    out = cross_val_predictive(models["Laplace"], X, Y, cv=splitter)
    for train, test in splitter.split(X):
        fitted = clone(models["Laplace"]).fit(X[train], Y[train])
        np.testing.assert_allclose(out.probabilities()[test], fitted.predict_proba(X[test]))


def test_the_default_net_takes_labels():
    X, Y = make_multilabel_classification(120, 6, n_classes=4, random_state=0)
    model = SubnetLaplaceClassifier(subnetwork_size=60, random_state=0).fit(X[:80], Y[:80])
    assert len(model.folds_) == 5
    assert roc_auc_score(Y[80:], model.predict_proba(X[80:])) > 0.65


@pytest.mark.parametrize("method", [MAPClassifier, SWAGClassifier, VOGNClassifier])
def test_baselines_average_the_labels(method):
    X, Y = table(60)
    model = method(label_net(), random_state=0)
    small = {"n_draws": 6, "n_epochs": 20, "n_snapshots": 5, "rank": 3}
    model.set_params(**{k: v for k, v in small.items() if k in model.get_params()}).fit(X, Y)
    draws = special.expit(model.predictive(X).mixture.means.numpy())
    np.testing.assert_allclose(model.predict_proba(X), draws.mean(axis=0))


def test_ensembles_average_their_members():
    X, Y = table(60)
    for net in (label_net(), SubnetLaplaceClassifier(label_net(), **QUICK)):
        model = DeepEnsembleClassifier(net, n_members=2, random_state=0).fit(X, Y)
        each = [member.predict_proba(X) for member in model.estimators_]
        np.testing.assert_allclose(model.predict_proba(X), np.mean(each, axis=0), rtol=1e-9)
        assert set(np.unique(model.predict(X))) <= {0, 1}


@pytest.mark.parametrize("nonlinearity", ["auto", torch.sigmoid])
@pytest.mark.parametrize("kind", [NeuralNet, NeuralNetClassifier])
def test_frozen_nets(kind, nonlinearity):
    X, Y = table(60)
    net = label_net(kind, module__n_outputs=3, predict_nonlinearity=nonlinearity)
    net.fit(X.astype(np.float32), Y.astype(np.float32))
    model = SubnetLaplaceClassifier(FrozenEstimator(net), **QUICK).fit(X, Y)
    logits = net.forward(torch.as_tensor(X, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(model.predict_proba_map(X), special.expit(logits), rtol=1e-5)


def test_refused_by_name():
    X, Y = table(40)
    softmax = label_net(criterion=nn.CrossEntropyLoss)
    narrow = label_net(module__n_outputs=2)
    for net, parts in (
        (softmax, ("3 labels", "CrossEntropyLoss", "BCEWithLogitsLoss and 3 outputs")),
        (narrow, ("3 labels", "2 outputs", "BCEWithLogitsLoss and 3 outputs")),
        (binary_net(), ("several labels", "NeuralNetBinaryClassifier", "NeuralNetClassifier(")),
        (label_net(criterion__pos_weight=torch.ones(3)), ("pos_weight", "sample_weight")),
    ):
        model = SubnetLaplaceClassifier(net, **QUICK)
        assert_refused(lambda model=model: model.fit(X, Y), *parts)
    weighted = SubnetLaplaceClassifier(label_net(), class_weight="balanced", **QUICK)
    assert_refused(lambda: weighted.fit(X, Y), "class_weight='balanced'", "sample_weight")
    model = SubnetLaplaceClassifier(label_net(), **QUICK)
    classes = np.arange(40) % 3
    wide = SubnetLaplaceClassifier(label_net(module__n_outputs=3), **QUICK)
    assert_refused(
        lambda: wide.fit(X, classes), "one output for classes", "has 3", "CrossEntropyLoss"
    )
    assert_refused(lambda: model.fit(X, Y + np.arange(3)), "y")


@pytest.mark.parametrize("codes", [(-1, 1), (1, 2), (0, 2)], ids=str)
def test_labels_of_other_codes_are_refused(codes):
    X, Y = table(40)
    given = np.where(Y == 1, codes[1], codes[0])
    for model in (SubnetLaplaceClassifier(**QUICK), MAPClassifier(label_net(), random_state=0)):
        found = ", ".join(map(str, codes))
        assert_refused(
            lambda model=model: model.fit(X, given), f"3 columns of {found}", "columns of 0 and 1"
        )


def test_classes_after_labels():
    X, Y = table(40)
    model = SubnetLaplaceClassifier(subnetwork_size=12, prior_precision=1.0, cv=None).fit(X, Y)
    model.fit(X, np.array(["no", "yes"])[Y[:, 0]])
    assert model.predict_proba(X).shape == (40, 2)
    assert set(model.predict(X)) <= {"no", "yes"}
