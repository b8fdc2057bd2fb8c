"""Maps of subnetworks, paths over their size, and our own estimators in every display."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksubnet import SubnetLaplaceClassifier, TabularNet, subnetwork_path
from sksubnet.displays import (
    DecisionUncertaintyDisplay,
    RejectionDisplay,
    ReliabilityDisplay,
    SizePathDisplay,
    SubnetworkDisplay,
    UncertaintyShiftDisplay,
)

pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def moons():
    X, y = make_moons(150, noise=0.2, random_state=0)
    model = SubnetLaplaceClassifier(
        subnetwork_size=80, selection="gradient", prior_precision=1.0, cv=None, random_state=0
    )
    return make_pipeline(StandardScaler(), model).fit(X, y), X, y


def test_map_marks_the_selected_weights():
    display = SubnetworkDisplay.from_indices(
        [0, 5, 6, 9], {"a.weight": (2, 3), "a.bias": (2,), "b.weight": (1, 2)}
    )
    weight, bias, last = display.layers
    np.testing.assert_array_equal(weight.mask, [[True, False, False], [False, False, True]])
    np.testing.assert_array_equal(bias.mask, [True, False])
    np.testing.assert_array_equal(last.mask, [[False, True]])
    assert list(display.frame()["selected"]) == [2, 1, 1]
    with pytest.raises(ValueError, match="10 weights"):
        SubnetworkDisplay.from_indices([10], {"a": (2, 5)})


def test_map_agrees_with_the_net(moons):
    model, _, _ = moons
    display = SubnetworkDisplay.from_estimator(model)
    final = model[-1]
    frame = display.frame()
    for layer, row in zip(final.subnetwork_.layers, frame.itertuples(), strict=True):
        assert (row.parameter, row.of, row.selected) == layer
    # the map is in the order of the vector of all weights
    vector = torch.zeros(final.subnetwork_.n_weights)
    vector[final.subnetwork_.indices] = 1
    module = final.net_.module_
    parameters = [
        torch.zeros_like(parameter, dtype=vector.dtype) for parameter in module.parameters()
    ]
    torch.nn.utils.vector_to_parameters(vector, parameters)
    for layer, parameter in zip(display.layers, parameters, strict=True):
        np.testing.assert_array_equal(layer.mask, parameter.numpy() > 0)
    display.plot()
    titles = [ax.get_title() for ax in display.axes_]
    shown = frame[frame["selected"] > 0]
    assert titles == [f"{r.parameter}\n{r.selected} of {r.of}" for r in shown.itertuples()]
    assert "80 of" in display.ax_.get_title()
    image = display.axes_[0].images[0].get_array()
    assert image.sum() == shown["selected"].iloc[0]
    bars = display.plot(kind="share").ax_.containers[0]
    np.testing.assert_allclose([bar.get_width() for bar in bars], frame["share"])


def test_large_layers_are_drawn_in_blocks():
    size = (100, 200)
    chosen = np.random.default_rng(0).choice(20_000, 700, replace=False)
    (layer,) = SubnetworkDisplay.from_indices(chosen, {"w": size}).layers
    cells = layer.cells()
    assert cells.shape == (64, 64)
    edges = [np.linspace(0, n, 65).astype(int) for n in size]
    expected = layer.mask[edges[0][3] : edges[0][4], edges[1][60] : edges[1][61]].mean()
    assert cells[3, 60] == pytest.approx(expected)


def test_of_many_tensors_those_with_most_are_drawn():
    shapes = {f"layer {k}": (2, 6) for k in range(12)}
    # a weight more of each tensor
    indices = [12 * k + j for k in range(12) for j in range(k + 1)]
    display = SubnetworkDisplay.from_indices(indices, shapes).plot()
    titles = [ax.get_title() for ax in display.axes_]
    assert titles == [f"layer {k}\n{k + 1} of 12" for k in range(6, 12)]
    assert "6 of the 12 tensors that have some" in display.ax_.get_title()


def test_estimator_without_subnetwork():
    with pytest.raises(TypeError, match="BayesianRidge has no subnetwork; give a fitted"):
        SubnetworkDisplay.from_estimator(BayesianRidge().fit(np.eye(3), [1.0, 2.0, 4.0]))


def test_path_finds_the_smallest_size_that_is_as_good():
    scores = np.array([[0.5, 0.6, 0.4], [0.20, 0.31, 0.10], [0.20, 0.30, 0.10]])
    display = SizePathDisplay.from_scores(
        [100, 1000, 10], scores[[1, 2, 0]], higher_is_better=False, reference={"MAP": 0.7}
    )
    np.testing.assert_array_equal(display.sizes, [10, 100, 1000])
    np.testing.assert_allclose(display.mean_, scores.mean(axis=1))
    np.testing.assert_allclose(display.standard_error_, scores.std(axis=1, ddof=1) / np.sqrt(3))
    assert display.best_size_ == 1000
    # .0033 worse with a standard error of .0033 of the difference fold by fold
    assert display.smallest_size_ == 100
    ax = display.plot().ax_
    assert ax.get_legend().get_title().get_text() == "mean ± 1 s.e. over 3 folds"
    texts = {text.get_text() for text in ax.get_legend().get_texts()}
    assert texts == {"subnetwork", "best: 1000", "smallest within 1 s.e.: 100", "MAP"}
    assert ax.get_xlabel() == "number of weights with a posterior"
    assert "lower is better" in ax.get_ylabel()


def test_path_of_a_search(moons):
    _, X, y = moons
    grid = {"alpha_init": [0.1, 1.0]}
    search = GridSearchCV(BayesianRidge(), grid, cv=3).fit(X, y)
    display = SizePathDisplay.from_search(search, param="alpha_init")
    for alpha, scores in zip([0.1, 1.0], display.scores, strict=True):
        expected = cross_val_score(BayesianRidge(alpha_init=alpha), X, y, cv=3)
        np.testing.assert_allclose(scores, expected)
    with pytest.raises(ValueError, match=r"choose one of \['alpha_init'\]"):
        SizePathDisplay.from_search(search)


def test_path_of_all_sizes_from_one_training(moons):
    _, X, y = moons
    net = TabularNet(hidden=(8,), max_epochs=3)
    model = SubnetLaplaceClassifier(net, selection="gradient", cv=2, random_state=0)
    path = subnetwork_path(model, X[:60], y[:60], sizes=[20, 5, 0.5])
    display = SizePathDisplay.from_path(path)
    order = np.argsort(path.n_weights)
    np.testing.assert_array_equal(display.sizes, path.n_weights[order])
    scores = path.log_scores[order]
    np.testing.assert_allclose(display.mean_, scores.mean(axis=1))
    np.testing.assert_allclose(display.standard_error_, stats.sem(scores, axis=1))
    assert list(display.frame()["n_rows"]) == [60, 60, 60]
    legend = display.plot().ax_.get_legend()
    assert legend.get_title().get_text() == "mean ± 1 s.e. over 60 rows"
    with pytest.raises(TypeError, match=r"SubnetworkPath has no cv_results_; .* from_path takes"):
        SizePathDisplay.from_search(path)
    with pytest.raises(TypeError, match=r"SubnetLaplaceClassifier is no path; .* from_search"):
        SizePathDisplay.from_path(model)
    with pytest.raises(ValueError, match="fold=9 is not there; the fit has 2 nets"):
        SubnetworkDisplay.from_estimator(path.estimators[0], fold=9)
    several = subnetwork_path(model, X[:60], y[:60], sizes=[5, 20], prior_precisions=[0.1, 10.0])
    with pytest.raises(
        ValueError, match=r"leaves 4 fits; .*{'prior_precision': \['0.1', '10.0'\]}"
    ):
        SizePathDisplay.from_path(several)
    with pytest.raises(ValueError, match=r"only={'prior_precision': 2.0} .* leaves 0 fits"):
        SizePathDisplay.from_path(several, only={"prior_precision": 2.0})
    wide = [k for k, point in enumerate(several.params) if point["prior_precision"] == 0.1]
    display = SizePathDisplay.from_path(several, only={"prior_precision": 0.1})
    np.testing.assert_allclose(display.mean_, several.log_scores[wide].mean(axis=1))
    alone = subnetwork_path(model.set_params(cv=None), X[:60], y[:60], sizes=[5])
    with pytest.raises(ValueError, match="has no log scores, because its estimator has no folds"):
        SizePathDisplay.from_path(alone)


def test_our_estimators_tell_causes_apart_inside_a_pipeline(moons):
    model, X, y = moons
    predictive = model[-1].predictive(model[:-1].transform(X))
    shift = UncertaintyShiftDisplay.from_estimator(model, X, 4 * X)
    np.testing.assert_allclose(shift.inside, predictive.mutual_information())
    assert shift.quantity == "mutual information (nats)"
    assert shift.name == "SubnetLaplaceClassifier"
    plane = DecisionUncertaintyDisplay.from_estimator(model, X, y, n_points=5)
    assert plane.uncertainty_name == "mutual information (nats)"
    reliability = ReliabilityDisplay.from_estimator(model, X, y, n_bins=3)
    np.testing.assert_allclose(reliability.probabilities[0], predictive.probabilities()[:, 1])
    rejection = RejectionDisplay.from_estimator(model, X, y, component="epistemic")
    order = np.argsort(predictive.mutual_information())
    wrong = model.predict(X) != y
    assert rejection.error[0, 99] == pytest.approx(wrong[order[:100]].mean())


def test_our_estimators_tell_causes_apart_inside_a_search(moons):
    model, X, y = moons
    X, y = X[:60], y[:60]
    short = clone(model).set_params(
        subnetlaplaceclassifier__net=TabularNet(hidden=(8,), max_epochs=3),
        subnetlaplaceclassifier__subnetwork_size=20,
    )
    grid = {"subnetlaplaceclassifier__prior_precision": [1.0]}
    search = GridSearchCV(short, grid, cv=2).fit(X, y)
    best = search.best_estimator_
    expected = best[-1].predictive(best[:-1].transform(X)).mutual_information()
    shift = UncertaintyShiftDisplay.from_estimator(search, X, 4 * X)
    assert shift.quantity == "mutual information (nats)"
    np.testing.assert_allclose(shift.inside, expected)
