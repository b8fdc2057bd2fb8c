"""How fitted nets and estimators show themselves."""

import pytest
import sklearn.base
from sklearn.datasets import load_diabetes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sksubnet
from sksubnet import SubnetLaplaceRegressor, SWAGRegressor, TabularNet

ESTIMATORS = [
    name
    for name in sksubnet.__all__
    if isinstance(getattr(sksubnet, name), type)
    and issubclass(getattr(sksubnet, name), sklearn.base.BaseEstimator)
]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_diagram_links_to_the_page_of_the_reference(name):
    html = getattr(sksubnet, name)()._repr_html_()
    assert f'/api/sksubnet.{name}.html"' in html


def test_diagram_of_a_pipeline_links_to_both_references():
    html = make_pipeline(StandardScaler(), SubnetLaplaceRegressor())._repr_html_()
    for page in ("StandardScaler", "sksubnet.SubnetLaplaceRegressor"):
        assert f'{page}.html"' in html


def test_nets_of_folds_say_what_they_are():
    X, y = load_diabetes(return_X_y=True)
    net = TabularNet(hidden=(8,), bins=0, max_epochs=5)
    model = SubnetLaplaceRegressor(net, subnetwork_size=20, cv=3, noise="input", random_state=0)
    model.fit(X[:90], y[:90])
    # 10 x 8 and 8 weights, and their biases
    assert repr(model.folds_) == str(
        [
            "LinearisedNet: TabularMLP of 97 weights, 30 training rows unseen, noise by row, "
            "a posterior on 20 of them"
        ]
        * 3
    ).replace("'", "")
    assert "effective parameters" in repr(model.folds_[0].posterior)


def test_net_of_draws_says_what_it_is():
    X, y = load_diabetes(return_X_y=True)
    net = TabularNet(hidden=(8,), bins=0, max_epochs=5)
    model = SWAGRegressor(net, cv=None, random_state=0).fit(X[:90], y[:90])
    assert repr(model.folds_) == "[DrawnNet: TabularMLP of 97 weights]"
