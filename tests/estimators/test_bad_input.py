"""One table of what people get wrong, with what each of them is told."""

import datetime
import functools

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from user_nets import MLP

from sksubnet import (
    DeepEnsembleClassifier,
    MAPClassifier,
    MAPRegressor,
    MCDropoutRegressor,
    SubnetLaplaceClassifier,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    compare,
    cross_val_predictive,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4))
Y = np.arange(24) % 3
T = X[:, 0] + 0.1 * RNG.normal(size=24)
NLL = nn.NLLLoss
OPTIONS = {"train_split": None, "verbose": 0, "max_epochs": 1}
QUICK = {"subnetwork_size": 4, "selection": "magnitude", "prior_precision": 1.0, "random_state": 0}


def module(forward, **parts):
    """A net whose forward is a function of itself and the rows."""

    class Module(MLP):
        def __init__(self, n_features=4, n_outputs=3):
            super().__init__(n_features, n_outputs)
            for name, part in parts.items():
                setattr(self, name, part)

    Module.forward = forward
    return Module


def class_net(kind=MLP, **options):
    return NeuralNetClassifier(kind, **{"criterion": nn.CrossEntropyLoss, **OPTIONS, **options})


def value_net(kind=MLP, **options):
    return NeuralNetRegressor(kind, **{**OPTIONS, **options})


def classify(net=None, X=X, y=Y, weights=None, **options):
    net = class_net() if net is None else net
    return SubnetLaplaceClassifier(net, **{**QUICK, **options}).fit(X, y, weights)


def regress(net=None, X=X, y=T, weights=None, **options):
    net = value_net() if net is None else net
    return SubnetLaplaceRegressor(net, **{**QUICK, "noise": 1.0, **options}).fit(X, y, weights)


def by_default(X=X, y=T, **options):
    return MAPRegressor(**{"noise": 1.0, "random_state": 0, **options}).fit(X, y)


def frozen():
    return FrozenEstimator(class_net().fit(X.astype(np.float32), Y))


@functools.cache
def fitted(kind):
    return {"classifier": classify, "regressor": regress}[kind]()


def with_cell(cell):
    cells = X.astype(object)
    cells[3, 1] = cell
    return cells


def with_target(cell):
    cells = T.astype(object)
    cells[3] = cell
    return cells


class NeedsMore(MLP):
    def __init__(self, depth, n_features=4, n_outputs=3):
        super().__init__(n_features, n_outputs)


class TwoInputs(MLP):
    def forward(self, rows, mask):
        return super().forward(rows * mask)


class NoWeights(nn.Module):
    def forward(self, rows):
        return rows[:, :3]


class Forgets(MLP):
    """Returns nothing."""

    def forward(self, rows):
        super().forward(rows)


class Broken(MLP):
    def forward(self, rows):
        return self.no_such_layer(rows)


class Diverging(MLP):
    def forward(self, rows):
        return 1e3 * super().forward(rows) ** 3


WIDE = np.c_[X, X]
NAN, INF = X.copy(), X.copy()
NAN[3, 1], INF[3, 1] = np.nan, np.inf
FRAME = pytest.importorskip("pandas").DataFrame(X, columns=list("abcd"))

CASES = {
    # what is in a table
    "NaN in X": (lambda: classify(X=NAN), ValueError, ["X contains NaN"]),
    "inf in X": (lambda: classify(X=INF), ValueError, ["X contains infinity"]),
    "NaN in y": (lambda: regress(y=NAN[:, 1]), ValueError, ["y contains NaN"]),
    "inf in y": (lambda: regress(y=INF[:, 1]), ValueError, ["y contains infinity"]),
    "None in y": (lambda: regress(y=with_target(None)), ValueError, ["y contains NaN", "None"]),
    "None as label": (
        lambda: classify(y=[*["a", "b"] * 11, "a", None]),
        ValueError,
        ["missing", "'unknown'"],
    ),
    "text in X": (
        lambda: classify(X=with_cell("red")),
        ValueError,
        ["text", "'red'", "OneHotEncoder"],
    ),
    "text in y": (lambda: regress(y=with_target("low")), ValueError, ["text", "'low'"]),
    "labels for a regressor": (
        lambda: regress(y=np.array(["a", "b", "c"])[Y]),
        ValueError,
        ["y has text", "'a'", "SubnetLaplaceClassifier"],
    ),
    "date in X": (
        lambda: classify(X=with_cell(datetime.date(2026, 1, 31))),
        TypeError,
        ["X has dates", "days since a date"],
    ),
    "dates as y": (
        lambda: regress(y=np.full(24, np.datetime64("2026-01-31"))),
        TypeError,
        ["y has dates", "numbers first"],
    ),
    "durations as y": (
        lambda: regress(y=np.full(24, np.timedelta64(3, "h"))),
        TypeError,
        ["y has durations", "days or hours"],
    ),
    "durations as labels": (
        lambda: classify(y=np.full(24, np.timedelta64(3, "h"))),
        TypeError,
        ["y has durations", "text"],
    ),
    "masked X": (
        lambda: classify(X=np.ma.masked_greater(X, 1)),
        ValueError,
        ["masked values", "SimpleImputer"],
    ),
    "complex X": (lambda: classify(X=X + 1j), ValueError, ["Complex data not supported"]),
    "complex y": (lambda: regress(y=T + 1j), ValueError, ["Complex data not supported"]),
    "sparse X": (
        lambda: classify(X=pytest.importorskip("scipy.sparse").csr_array(X)),
        TypeError,
        ["Sparse data", "toarray"],
    ),
    "sparse X by keys": (
        lambda: classify(X=pytest.importorskip("scipy.sparse").dok_matrix(X)),
        TypeError,
        ["Sparse data", "toarray"],
    ),
    "sparse tensor": (
        lambda: classify(X=torch.tensor(X).to_sparse()),
        TypeError,
        ["sparse tensor", "to_dense"],
    ),
    "dict as X": (
        lambda: classify(X={"a": X[:, 0], "b": X[:, 1]}),
        TypeError,
        ["X is a dict", "DataFrame"],
    ),
    "dict as y": (lambda: regress(y=dict(enumerate(T))), TypeError, ["y is a dict"]),
    "None as y": (lambda: classify(y=None), ValueError, ["requires y to be passed"]),
    "text as X": (lambda: classify(X="table.csv"), TypeError, ["'table.csv'", "read_csv"]),
    "lists in cells": (
        lambda: classify(X=FRAME.assign(e=[[1.0, 2.0]] * 24)),
        ValueError,
        ["lists or arrays", "one number for each cell"],
    ),
    "ragged rows": (
        lambda: classify(X=[[0.0] * (1 + i % 2) for i in range(24)]),
        ValueError,
        ["different lengths"],
    ),
    # shapes
    "one column as a row": (
        lambda: classify(X=X[:, 0]),
        ValueError,
        ["2D array", "reshape(-1, 1)"],
    ),
    "no rows": (lambda: classify(X=X[:0], y=Y[:0]), ValueError, ["0 sample(s)"]),
    "one row": (lambda: classify(X=X[:1], y=Y[:1]), ValueError, ["minimum of 2"]),
    "no columns": (lambda: classify(X=X[:, :0]), ValueError, ["0 feature(s)"]),
    "another length of y": (lambda: regress(y=T[:-1]), ValueError, ["inconsistent numbers"]),
    "three axes without a net": (
        lambda: by_default(X=X[:, :, None]),
        ValueError,
        ["dim 3", "pass a skorch net"],
    ),
    "y of two columns for classes": (
        lambda: classify(y=np.c_[Y, Y]),
        ValueError,
        ["y", "(24, 2)"],
    ),
    "y of three axes": (lambda: regress(y=np.zeros((24, 2, 2))), ValueError, ["dim 3"]),
    # labels
    "one class": (lambda: classify(y=np.zeros(24, int)), ValueError, ["1 class", "at least 2"]),
    "one class left by weights": (
        lambda: classify(weights=(Y == 1) * 1.0),
        ValueError,
        ["1 class", "positive weight"],
    ),
    "numbers as labels": (lambda: classify(y=T), ValueError, ["continuous", "classifier"]),
    "labels of two kinds": (
        lambda: classify(y=np.array([1, "a", 2.5] * 8, dtype=object)),
        (TypeError, ValueError),
        ["label"],
    ),
    # weights
    "negative weight": (
        lambda: classify(weights=np.r_[-1, np.ones(23)]),
        ValueError,
        ["Negative values", "sample_weight"],
    ),
    "weights all zero": (
        lambda: classify(weights=np.zeros(24)),
        ValueError,
        ["zero"],
    ),
    "too few weights": (lambda: classify(weights=np.ones(5)), ValueError, ["sample_weight.shape"]),
    "NaN as weight": (
        lambda: classify(weights=np.r_[np.nan, np.ones(23)]),
        ValueError,
        ["sample_weight contains NaN"],
    ),
    "text as weight": (
        lambda: classify(weights=["heavy"] * 24),
        ValueError,
        ["sample_weight has text", "'heavy'", "Turn it into"],
    ),
    "weights of two axes": (lambda: classify(weights=np.ones((24, 2))), ValueError, ["1D array"]),
    "negative class weight": (
        lambda: classify(class_weight={0: -1}),
        ValueError,
        ["class_weight", "-1", "at least 0"],
    ),
    "class weight of no class": (
        lambda: classify(class_weight={9: 1}),
        ValueError,
        ["class_weight"],
    ),
    "negative weight in the criterion": (
        lambda: classify(class_net(criterion__weight=torch.tensor([1.0, -1, 1]))),
        ValueError,
        ["CrossEntropyLoss", "weight=", "at least 0"],
    ),
    "too few weights in the criterion": (
        lambda: classify(class_net(criterion__weight=torch.ones(2))),
        ValueError,
        ["give 3 finite numbers"],
    ),
    # what is no net
    "a module": (lambda: classify(MLP()), TypeError, ["MLP", "NeuralNetClassifier(Module)"]),
    "a module's class": (lambda: classify(MLP), TypeError, ["skorch net"]),
    "a net's class": (lambda: classify(NeuralNetClassifier), TypeError, ["skorch net"]),
    "scikit-learn's net": (
        lambda: classify(MLPClassifier()),
        TypeError,
        ["MLPClassifier", "skorch net", "None for the default"],
    ),
    "scikit-learn's net for values": (
        lambda: regress(MLPRegressor()),
        TypeError,
        ["MLPRegressor", "skorch net"],
    ),
    "a linear model": (lambda: regress(LinearRegression()), TypeError, ["LinearRegression"]),
    "a name": (lambda: regress("mlp"), TypeError, ["'mlp'", "skorch net"]),
    "a frozen linear model": (
        lambda: classify(FrozenEstimator(LogisticRegression().fit(X, Y))),
        TypeError,
        ["LogisticRegression"],
    ),
    "a frozen net that is not fitted": (
        lambda: classify(FrozenEstimator(class_net())),
        ValueError,
        ["not fitted", "fit it first"],
    ),
    "folds of a frozen net": (
        lambda: classify(frozen(), cv=2),
        ValueError,
        ["cv=2", "FrozenEstimator", "cv=None"],
    ),
    # nets that do not fit
    "another width of the input": (
        lambda: classify(class_net(module__n_features=7)),
        ValueError,
        ["(4,)", "input width"],
    ),
    "another width of the output": (
        lambda: classify(class_net(module__n_outputs=5)),
        ValueError,
        ["5 outputs", "3 classes"],
    ),
    "another number of targets": (
        lambda: regress(value_net(module__n_outputs=3)),
        ValueError,
        ["3 outputs", "1 targets"],
    ),
    "an argument that the module needs": (
        lambda: classify(class_net(NeedsMore)),
        TypeError,
        ["'depth'", "module__name"],
    ),
    "an argument that the module has not": (
        lambda: classify(class_net(module__depth=3)),
        TypeError,
        ["depth", "module__"],
    ),
    "a second argument of forward": (
        lambda: classify(class_net(TwoInputs)),
        TypeError,
        ["'mask'", "one tensor", "dataset"],
    ),
    "no weights": (
        lambda: classify(class_net(NoWeights)),
        ValueError,
        ["no trainable weights", "NoWeights"],
    ),
    "nothing returned": (
        lambda: classify(class_net(Forgets)),
        TypeError,
        ["returned a NoneType", "forward"],
    ),
    "a tuple returned": (
        lambda: classify(class_net(module(lambda m, X: (m.layers(X), X)))),
        TypeError,
        ["returned a tuple", "one tensor"],
    ),
    "a mean over the rows": (
        lambda: classify(class_net(module(lambda m, X: m.layers(X).mean(0, keepdim=True)))),
        ValueError,
        ["(1, 3)", "(n_rows, n_outputs)"],
    ),
    "a fault in forward": (
        lambda: classify(class_net(Broken)),
        ValueError,
        ["no_such_layer", "forward"],
    ),
    "a constant of float32": (
        lambda: classify(class_net(module(lambda m, X: m.layers(X @ torch.eye(4))))),
        ValueError,
        ["dtype='float32'", "register_buffer"],
    ),
    "integers as input": (
        lambda: classify(class_net(module(lambda m, X: m.codes(X), codes=nn.Embedding(9, 3)))),
        ValueError,
        ["codes", "X.long()"],
    ),
    "noise in forward": (
        lambda: classify(class_net(module(lambda m, X: m.layers(X) + torch.randn(len(X), 3)))),
        ValueError,
        ["draws at random"],
    ),
    # criteria and outputs
    "logits under NLLLoss": (
        lambda: classify(class_net(criterion=NLL)),
        ValueError,
        ["NLLLoss", "not probabilities", "CrossEntropyLoss"],
    ),
    "sigmoids under NLLLoss": (
        lambda: classify(class_net(module(lambda m, X: m.layers(X).sigmoid()), criterion=NLL)),
        ValueError,
        ["NLLLoss", "add up to", "softmax"],
    ),
    "log probabilities under NLLLoss": (
        lambda: classify(class_net(module(lambda m, X: m.layers(X).log_softmax(1)), criterion=NLL)),
        ValueError,
        ["logarithms", "skorch takes the logarithm itself"],
    ),
    "a loss of regression": (
        lambda: classify(class_net(criterion=nn.MSELoss)),
        ValueError,
        ["MSELoss is a regression loss", "CrossEntropyLoss"],
    ),
    "a loss of classification": (
        lambda: regress(value_net(criterion=nn.CrossEntropyLoss)),
        ValueError,
        ["CrossEntropyLoss is a classification loss", "MSELoss"],
    ),
    "a loss without a likelihood": (
        lambda: regress(value_net(criterion=nn.L1Loss)),
        ValueError,
        ["L1Loss", "no known likelihood"],
    ),
    "probabilities under BCELoss": (
        lambda: classify(NeuralNetBinaryClassifier(MLP, criterion=nn.BCELoss, **OPTIONS), y=Y > 0),
        ValueError,
        ["BCELoss", "BCEWithLogitsLoss"],
    ),
    "label smoothing": (
        lambda: classify(class_net(criterion__label_smoothing=0.1)),
        ValueError,
        ["label_smoothing=0.1"],
    ),
    "a binary loss for three classes": (
        lambda: classify(NeuralNetBinaryClassifier(MLP, **OPTIONS)),
        ValueError,
        ["3 classes", "BCEWithLogitsLoss"],
    ),
    "a regressor's net for classes": (
        lambda: classify(value_net()),
        ValueError,
        ["MSELoss", "regression"],
    ),
    "a classifier's net for values": (
        lambda: regress(class_net()),
        ValueError,
        ["CrossEntropyLoss", "classification"],
    ),
    "a threshold": (
        lambda: classify(NeuralNetBinaryClassifier(MLP, threshold=0.3, **OPTIONS), y=Y > 0),
        ValueError,
        ["threshold=0.3", "FixedThresholdClassifier"],
    ),
    # training
    "a learning rate that is too large": (
        lambda: regress(value_net(Diverging, lr=1e9, max_epochs=5)),
        ValueError,
        ["diverged", "lr=", "net__lr"],
    ),
    "a learning rate that is no number": (
        lambda: regress(value_net(lr=float("nan"))),
        ValueError,
        ["lr"],
    ),
    "values that float32 has not": (
        lambda: regress(X=1e39 * X, dtype="float32"),
        ValueError,
        ["float32", "dtype='float64'"],
    ),
    # options
    "no threads": (lambda: regress(n_jobs=0), ValueError, ["n_jobs=0", "1 or more"]),
    "an unknown dtype": (lambda: regress(dtype="float16"), ValueError, ["dtype", "'float16'"]),
    "an unknown selection": (
        lambda: regress(selection="best"),
        ValueError,
        ["selection", "'best'"],
    ),
    "an empty subnetwork": (
        lambda: regress(subnetwork_size=0),
        ValueError,
        ["subnetwork_size", "0"],
    ),
    "more weights than there are": (
        lambda: regress(subnetwork_size=10_000),
        ValueError,
        ["10000", "candidate"],
    ),
    "a negative precision": (
        lambda: regress(prior_precision=-1.0),
        ValueError,
        ["prior_precision", "-1.0"],
    ),
    "a negative noise": (lambda: regress(noise=-1.0), ValueError, ["noise", "-1.0"]),
    "noise of several targets": (
        lambda: regress(noise=[1.0, 2.0]),
        ValueError,
        ["noise=[1.0, 2.0]", "each of the 1 targets"],
    ),
    "an unknown link": (lambda: classify(link="logit"), ValueError, ["link", "'logit'"]),
    "one fold": (lambda: regress(cv=1), ValueError, ["cv", "1"]),
    "an unknown parameter": (
        lambda: SubnetLaplaceRegressor().set_params(prior=1.0),
        ValueError,
        ["prior", "Valid parameters"],
    ),
    "a typo in the parameters of a module": (
        lambda: regress(value_net().set_params(module__hiden=3)),
        TypeError,
        ["hiden", "module__"],
    ),
    "dropout of a net without any": (
        lambda: MCDropoutRegressor(value_net(), noise=1.0).fit(X, T),
        ValueError,
        ["no dropout", "nn.Dropout"],
    ),
    "reference rows of another width": (
        lambda: regress(reference=WIDE),
        ValueError,
        ["reference", "8 features"],
    ),
    # predictions
    "not fitted": (
        lambda: SubnetLaplaceRegressor().predict(X),
        NotFittedError,
        ["not fitted yet"],
    ),
    "more columns than in fit": (
        lambda: fitted("classifier").predict(WIDE),
        ValueError,
        ["8 features", "4 features"],
    ),
    "NaN in prediction": (
        lambda: fitted("classifier").predict_proba(NAN),
        ValueError,
        ["X contains NaN"],
    ),
    "no rows to predict": (
        lambda: fitted("regressor").predict(X[:0]),
        ValueError,
        ["0 sample(s)"],
    ),
    "std and covariance": (
        lambda: fitted("regressor").predict(X, return_std=True, return_cov=True),
        ValueError,
        ["return_std", "return_cov"],
    ),
    "several coverages": (
        lambda: fitted("regressor").predict_interval(X, coverage=[0.5, 0.9]),
        TypeError,
        ["coverage=[0.5, 0.9]", "one number", "quantiles"],
    ),
    "an array of coverages": (
        lambda: fitted("regressor").predict_interval(X, coverage=np.array([0.5, 0.9])),
        TypeError,
        ["coverage=", "one number"],
    ),
    "coverage in percent": (
        lambda: fitted("regressor").predict_interval(X, coverage=90),
        ValueError,
        ["coverage=90", "such as 0.9"],
    ),
    "coverage as text": (
        lambda: fitted("regressor").predict_interval(X, coverage="90%"),
        TypeError,
        ["coverage='90%'", "one number"],
    ),
    "coverage None": (
        lambda: fitted("regressor").predict_interval(X, coverage=None),
        TypeError,
        ["coverage=None", "one number"],
    ),
    "quantiles in percent": (
        lambda: fitted("regressor").predict_quantiles(X, [5, 95]),
        ValueError,
        ["quantiles", "above 0 and below 1"],
    ),
    "one quantile as a number": (
        lambda: fitted("regressor").predict_quantiles(X, 0.5),
        ValueError,
        ["0.5", "sequence"],
    ),
    "std of a classifier": (
        lambda: fitted("classifier").predictive(X).std(),
        TypeError,
        ["std", "regression"],
    ),
    "probabilities of a regressor": (
        lambda: fitted("regressor").predictive(X).probabilities(),
        TypeError,
        ["probabilities", "classification"],
    ),
    "no draws": (
        lambda: fitted("regressor").sample_y(X, n_samples=0),
        ValueError,
        ["n_samples", "0"],
    ),
    # comparisons
    "a list of estimators": (
        lambda: compare([MAPRegressor()], X, T),
        TypeError,
        ["dict of names and estimators"],
    ),
    "classes of estimators": (
        lambda: compare({"MAP": MAPRegressor}, X, T),
        TypeError,
        ["MAPRegressor", "instance"],
    ),
    "both kinds of estimators": (
        lambda: compare({"a": MAPRegressor(), "b": MAPClassifier()}, X, T),
        ValueError,
        ["all be classifiers or all regressors"],
    ),
    "predictives of another library": (
        lambda: cross_val_predictive(LinearRegression(), X, T),
        TypeError,
        ["LinearRegression", "predictive"],
    ),
    "an ensemble of a frozen net": (
        lambda: DeepEnsembleClassifier(FrozenEstimator(class_net().fit(X.astype("f4"), Y))).fit(
            X, Y
        ),
        ValueError,
        ["frozen"],
    ),
    "draws of a module instance under SWAG": (
        lambda: SWAGRegressor("net").fit(X, T),
        TypeError,
        ["skorch net"],
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_bad_input(name):
    call, error, parts = CASES[name]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert not [part for part in parts if part not in message], message
