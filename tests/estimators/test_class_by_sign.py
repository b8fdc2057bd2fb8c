"""Classes without a Jacobian, where a sign tells them, against the largest probability."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.special import expit
from sklearn.datasets import make_multilabel_classification
from torch import nn
from user_nets import binary_net, cancer, classifier_net, iris, quick_classifier

from sksubnet import DeepEnsembleClassifier, MAPClassifier
from sksubnet.jacobian import rows
from sksubnet.posterior import gaussian, kernel


@pytest.fixture
def jacobians(monkeypatch):
    """A list that grows by one with every Jacobian of a prediction."""
    calls = []
    for module, name in ((gaussian, "jacobian"), (kernel, "factored_jacobian")):

        def counted(*args, name=name):
            calls.append(1)
            return getattr(rows, name)(*args)

        monkeypatch.setattr(module, name, counted)
    return calls


def by_probability(clf, X):
    return clf.classes_[clf.predict_proba(X).argmax(axis=1)]


def far_rows(X):
    """Rows among and beyond those of training."""
    rng = np.random.default_rng(0)
    return np.concatenate([X, rng.normal(scale=8, size=(300, X.shape[1]))])


@pytest.mark.parametrize("link", ["probit", "extended_probit"])
@pytest.mark.parametrize("size", [12, "all"])
def test_one_logit_tells_the_class_by_its_sign(link, size, jacobians):
    X, y = cancer()
    labels = np.array(["b", "a"])[y]
    clf = quick_classifier(binary_net(), link=link, subnetwork_size=size, class_weight="balanced")
    X_new = far_rows(X)
    found = clf.fit(X, labels).predict(X_new)
    assert not jacobians
    assert_array_equal(found, by_probability(clf, X_new))
    assert jacobians and set(found) == {"a", "b"}


def test_the_sign_is_that_of_the_updated_mean():
    X, y = cancer()
    clf = quick_classifier(binary_net(), subnetwork_size="all", prior_precision=0.1)
    before = clf.fit(X[:60], y[:60]).predict(far_rows(X))
    after = clf.update(X[60:], 1 - y[60:]).predict(far_rows(X))
    assert_array_equal(after, by_probability(clf, far_rows(X)))
    assert (after != before).any()


def test_a_logit_of_zero_is_the_first_class():
    class Zero(nn.Linear):
        def __init__(self, n_features=2, n_outputs=1):
            super().__init__(n_features, n_outputs)
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    X, y = cancer()
    clf = quick_classifier(binary_net(Zero, lr=0.0), subnetwork_size=1).fit(X, y)
    assert (clf.predict_proba(X) == 0.5).all()
    assert_array_equal(clf.predict(X), by_probability(clf, X))


def test_several_labels():
    X, y = make_multilabel_classification(80, 4, n_classes=3, random_state=0)
    net = classifier_net(criterion=nn.BCEWithLogitsLoss)
    clf = quick_classifier(net).fit(X, y)
    assert_array_equal(clf.predict(far_rows(X)), clf.predict_proba(far_rows(X)) > 0.5)


@pytest.mark.parametrize(
    ("net", "data", "options"),
    [
        (binary_net(), cancer, {"link": "mc"}),
        (classifier_net(), cancer, {}),
        (classifier_net(), iris, {}),
        (binary_net(), cancer, {"cv": 3}),
    ],
    ids=["draws", "two logits", "three classes", "folds"],
)
def test_otherwise_probabilities_tell_it(net, data, options, jacobians):
    X, y = data()
    clf = quick_classifier(net, **options).fit(X, y)
    jacobians.clear()
    assert_array_equal(clf.predict(far_rows(X)), by_probability(clf, far_rows(X)))
    assert jacobians


def test_the_sign_of_the_mean_is_not_the_class_of_a_mixture():
    X, y = cancer()
    clf = quick_classifier(binary_net(), cv=3, prior_precision=0.1)
    clf.fit(X, y)
    X_new = far_rows(X)
    parts = [net.predictive(torch.as_tensor(X_new)) for net in clf.folds_]
    mean = np.stack([part.mean[:, 0].numpy() for part in parts])
    variance = np.stack([part.covariance[:, 0, 0].numpy() for part in parts])
    shares = expit(mean / np.sqrt(1 + np.pi / 8 * variance)).mean(axis=0)
    clear = np.abs(shares - 0.5) > 1e-9
    by_sign = mean.mean(axis=0) > 0
    assert (by_sign != (shares > 0.5))[clear].any()
    assert_array_equal(clf.predict(X_new)[clear], (shares > 0.5).astype(int)[clear])


def test_other_estimators_are_asked_for_probabilities():
    X, y = cancer()
    clf = MAPClassifier(binary_net(), random_state=0).fit(X, y)
    assert_array_equal(clf.predict(far_rows(X)), by_probability(clf, far_rows(X)))


@pytest.mark.parametrize("n_members", [1, 2])
def test_members_of_an_ensemble(n_members):
    X, y = cancer()
    member = quick_classifier(binary_net(), subnetwork_size=12)
    clf = DeepEnsembleClassifier(member, n_members=n_members, random_state=0).fit(X, y)
    assert_array_equal(clf.predict(far_rows(X)), by_probability(clf, far_rows(X)))
