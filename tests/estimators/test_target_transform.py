"""Regressors that train on a function of the target, against the same ones on its values."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from skorch import NeuralNetRegressor
from torch import nn
from user_nets import MLP, OPTIONS

from sksubnet import (
    DeepEnsembleRegressor,
    MAPRegressor,
    MCDropoutRegressor,
    SubnetLaplaceRegressor,
    SWAGRegressor,
    VOGNRegressor,
    compare,
    cross_val_predictive,
)
from sksubnet.displays import (
    IntervalCoverageDisplay,
    PredictiveBandDisplay,
    QuantileCalibrationDisplay,
)
from sksubnet.estimators.target_transform import fit_target_transform
from sksubnet.metrics import neg_predictive_nll_scorer
from sksubnet.predictive import TransformedPredictive

NET = NeuralNetRegressor(MLP, **OPTIONS)
SMALL = {"net": NET, "subnetwork_size": 12, "selection": "magnitude", "random_state": 0}
LEVELS = [0.05, 0.3, 0.5, 0.95]


def rows(n=80, n_targets=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    z = X @ rng.normal(size=(3, n_targets)) / 2 + 0.3 * rng.normal(size=(n, n_targets))
    y = np.exp(z)
    return X, y[:, 0] if n_targets == 1 else y


X, Y = rows()
X_NEW = np.random.default_rng(1).normal(size=(15, 3))


def inverse_of(transformer):
    return lambda values: transformer.inverse_transform(values.reshape(-1, 1)).reshape(values.shape)


@pytest.mark.parametrize(
    "cv, noise, net", [(None, 0.4, NET), (None, "input", NET), (3, "auto", NET), (3, "auto", None)]
)
def test_log_equals_the_regressor_of_the_logarithms(cv, noise, net):
    options = {**SMALL, "cv": cv, "noise": noise, "net": net}
    logged = SubnetLaplaceRegressor(target_transform="log", **options).fit(X, Y)
    plain = SubnetLaplaceRegressor(**options).fit(X, np.log(Y))
    assert_allclose(
        logged.predict_quantiles(X_NEW, LEVELS), np.exp(plain.predict_quantiles(X_NEW, LEVELS))
    )
    assert_allclose(logged.predict_interval(X_NEW), np.exp(plain.predict_interval(X_NEW)))
    assert_allclose(
        logged.sample_y(X_NEW, 6, random_state=3), np.exp(plain.sample_y(X_NEW, 6, random_state=3))
    )
    y_new = np.linspace(0.2, 4, 15)
    before, after = plain.predictive(X_NEW), logged.predictive(X_NEW)
    assert_allclose(after.log_prob(y_new), before.log_prob(np.log(y_new)) - np.log(y_new))
    assert_allclose(after.cdf(y_new), before.cdf(np.log(y_new)))
    assert logged.noise_std_ == plain.noise_std_
    if cv is None:
        mean, std = logged.predict(X_NEW, return_std=True)
        scipys = stats.lognorm(s=before.std()[:, 0], scale=np.exp(before.mean[:, 0].numpy()))
        assert_allclose(mean, scipys.mean(), rtol=1e-10)
        assert_allclose(std, scipys.std(), rtol=1e-10)
        assert_allclose(logged.predict(X_NEW), mean, rtol=1e-12)
        trained = np.setdiff1d(np.arange(len(Y)), logged.folds_[0].held_out)
        change = logged.log_marginal_likelihood() - plain.log_marginal_likelihood()
        assert change == pytest.approx(-np.log(Y[trained]).sum(), rel=1e-9)
    else:
        assert isinstance(logged.out_of_fold_, TransformedPredictive)
        assert_allclose(
            logged.out_of_fold_.quantiles(LEVELS), np.exp(plain.out_of_fold_.quantiles(LEVELS))
        )


@pytest.mark.parametrize(
    "transformer",
    [
        PowerTransformer(),
        PowerTransformer("box-cox"),
        QuantileTransformer(n_quantiles=40, output_distribution="normal"),
        FunctionTransformer(np.log1p, np.expm1),
        FunctionTransformer(np.sqrt, np.square),
        make_pipeline(FunctionTransformer(np.log, np.exp), StandardScaler()),
    ],
    ids=lambda t: type(t).__name__,
)
def test_transformers_equal_the_regressor_of_their_values(transformer):
    fitted = clone(transformer).fit(Y[:, None])
    values = fitted.transform(Y[:, None])[:, 0]
    model = SubnetLaplaceRegressor(target_transform=transformer, cv=None, **SMALL).fit(X, Y)
    plain = SubnetLaplaceRegressor(cv=None, **SMALL).fit(X, values)
    inverse = inverse_of(fitted)
    # between the ends of what the transformer has seen, its own inverse is the one in use
    z = np.clip(plain.predict_quantiles(X_NEW, LEVELS), values.min(), values.max())
    found = np.clip(model.predict_quantiles(X_NEW, LEVELS), Y.min(), Y.max())
    assert_allclose(found, inverse(z), rtol=1e-6)
    draws = model.sample_y(X_NEW, 5, random_state=1)
    z = np.clip(plain.sample_y(X_NEW, 5, random_state=1), values.min(), values.max())
    assert_allclose(np.clip(draws, Y.min(), Y.max()), inverse(z), rtol=1e-6)
    many = model.predictive(X_NEW).sample(40_000, random_state=0)[:, 0]
    many = np.clip(many, *model.target_transform_.columns[0].bounds)
    mean, std = model.predict(X_NEW, return_std=True)
    assert_allclose(mean, many.mean(axis=1), rtol=0.02, atol=1e-3)
    assert_allclose(std, many.std(axis=1), rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("cv", [None, 3])
def test_identity_equals_none(n_targets, cv):
    y = rows(n_targets=n_targets)[1]
    options = {**SMALL, "cv": cv}
    plain = SubnetLaplaceRegressor(**options).fit(X, y)
    identity = FunctionTransformer()
    same = SubnetLaplaceRegressor(target_transform=identity, **options).fit(X, y)
    for read in (
        lambda m: m.predict(X_NEW),
        lambda m: m.predict(X_NEW, return_std=True)[1],
        lambda m: m.predict_quantiles(X_NEW),
        lambda m: m.predictive(X_NEW).std("epistemic"),
        lambda m: m.sample_y(X_NEW, 3),
        lambda m: m.noise_std_,
        lambda m: m.score(X, y),
    ):
        assert_allclose(read(same), read(plain), rtol=1e-10)
    logs = [model.predictive(X).log_prob(y) for model in (plain, same)]
    assert_allclose(*logs, rtol=1e-7)


def test_targets_are_transformed_one_by_one():
    y = rows(n_targets=2)[1] * [1.0, 1000.0]
    both = SubnetLaplaceRegressor(target_transform=PowerTransformer(), cv=None, **SMALL).fit(X, y)
    each = [PowerTransformer().fit(column[:, None]) for column in y.T]
    z = np.column_stack([t.transform(c[:, None]) for t, c in zip(each, y.T, strict=True)])
    plain = SubnetLaplaceRegressor(cv=None, **SMALL).fit(X, z)
    median = plain.predict_quantiles(X_NEW, [0.5])
    found = both.predict_quantiles(X_NEW, [0.5])
    for c, transformer in enumerate(each):
        assert_allclose(found[:, c], inverse_of(transformer)(median[:, c]), rtol=1e-8)


def test_return_cov_of_the_logarithm_equals_draws():
    for cv in (None, 3):
        model = SubnetLaplaceRegressor(target_transform="log", cv=cv, **SMALL).fit(X, Y)
        mean, covariance = model.predict(X_NEW, return_cov=True)
        assert_allclose(mean, model.predict(X_NEW), rtol=1e-9)
        std = model.predict(X_NEW, return_std=True)[1]
        assert_allclose(np.sqrt(np.diag(covariance)), std, rtol=1e-9)
        draws = model.sample_y(X_NEW, 60_000)
        scale = np.outer(std, std)
        assert_allclose(np.cov(draws) / scale, covariance / scale, atol=0.08)


@pytest.mark.parametrize(
    "model",
    [
        SubnetLaplaceRegressor(target_transform=PowerTransformer(), cv=None, **SMALL),
        MAPRegressor(NET, target_transform="log", random_state=0),
        DeepEnsembleRegressor(NET, target_transform="log", n_members=2, random_state=0),
    ],
    ids=lambda m: type(m).__name__,
)
def test_return_cov_without_closed_form_is_refused(model):
    with pytest.raises(ValueError, match=r"no closed form .*sample_y"):
        model.fit(X, Y).predict(X_NEW, return_cov=True)


@pytest.mark.parametrize(
    "model",
    [
        MAPRegressor(NET),
        MCDropoutRegressor(n_draws=5, validation_fraction=0.8),
        SWAGRegressor(NET, n_snapshots=3, n_draws=4),
        VOGNRegressor(NET, n_epochs=5, n_draws=4),
        DeepEnsembleRegressor(NET, n_members=2),
        DeepEnsembleRegressor(SubnetLaplaceRegressor(**SMALL), n_members=2),
    ],
    ids=lambda m: type(m).__name__,
)
def test_baselines(model):
    plain = clone(model).set_params(random_state=0).fit(X, np.log(Y))
    logged = clone(model).set_params(random_state=0, target_transform="log").fit(X, Y)
    assert_allclose(
        logged.predict_quantiles(X_NEW, LEVELS), np.exp(plain.predict_quantiles(X_NEW, LEVELS))
    )
    assert_allclose(logged.sample_y(X_NEW, 4), np.exp(plain.sample_y(X_NEW, 4)))
    assert logged.noise_std_ == pytest.approx(plain.noise_std_)
    draws = logged.predictive(X_NEW).sample(20_000, random_state=0)[:, 0]
    assert_allclose(logged.predict(X_NEW), draws.mean(axis=1), rtol=0.05)


def test_members_of_an_ensemble_have_no_transform_of_their_own():
    member = SubnetLaplaceRegressor(target_transform="log")
    with pytest.raises(ValueError, match="set target_transform of the ensemble"):
        DeepEnsembleRegressor(member).fit(X, Y)


def test_what_log_refuses():
    y = Y.copy()
    y[[3, 5]] = [0.0, -2.0]
    with pytest.raises(ValueError, match=r"2 of the 80.*lowest is -2.*np.log1p, np.expm1"):
        MAPRegressor(NET, target_transform="log").fit(X, y)


@pytest.mark.parametrize(
    "transformer, words",
    [
        (FunctionTransformer(np.negative, np.negative), "decreases between"),
        (FunctionTransformer(lambda y: 1 / y, lambda z: 1 / z), "decreases between"),
        (FunctionTransformer(lambda y: (y - 1) ** 2, np.sqrt), "both rises and falls"),
        (FunctionTransformer(np.sin, np.arcsin), "both rises and falls"),
        (FunctionTransformer(np.log1p), "does not undo"),
        (FunctionTransformer(lambda y: np.minimum(y, 1), lambda z: z), "does not undo"),
        (FunctionTransformer(lambda y: np.log(y - 1), lambda z: np.exp(z) + 1), "no finite value"),
        (FunctionTransformer(lambda y: np.hstack([y, y]), lambda z: z[:, :1]), "one number"),
    ],
)
def test_transformers_that_do_not_fit_are_refused(transformer, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=words):
            MAPRegressor(NET, target_transform=transformer).fit(X, Y * 2)


def test_values_beyond_the_range_of_a_transformer():
    """The square root takes no -1, and a box-cox with a negative power no large value."""
    y = 1 / (1 + Y)
    for transformer in (FunctionTransformer(np.sqrt, np.square), PowerTransformer("box-cox")):
        model = SubnetLaplaceRegressor(target_transform=transformer, cv=None, noise=20.0, **SMALL)
        predictive = model.fit(X, y).predictive(X_NEW)
        levels = np.linspace(0.001, 0.999, 60)
        quantiles = predictive.quantiles(levels)[:, 0]
        assert np.isfinite(quantiles).all() and (quantiles >= 0).all()
        assert (np.diff(quantiles, axis=1) >= 0).all()
        draws = predictive.sample(200, random_state=0)
        assert np.isfinite(draws).all() and np.isfinite(predictive.mean.numpy()).all()
        outside = np.full(15, -1.0)
        assert (predictive.cdf(outside) == 0).all()
        assert np.isneginf(predictive.log_prob(outside)).all()


def test_only_an_inverse_with_a_pole_bounds_the_mean():
    y, ends = Y[:, None], (2 * Y.min() - Y.max(), 2 * Y.max() - Y.min())
    for transformer, expected in (
        (FunctionTransformer(np.log1p, np.expm1), (-np.inf, np.inf)),
        (FunctionTransformer(np.log, np.exp), (-np.inf, np.inf)),
        (FunctionTransformer(np.cbrt, lambda z: z**3), (-np.inf, np.inf)),
        (QuantileTransformer(n_quantiles=80), (-np.inf, np.inf)),
        (StandardScaler(), (-np.inf, np.inf)),
        (FunctionTransformer(lambda y: -1 / y, lambda z: -1 / z), (-np.inf, ends[1])),
        (FunctionTransformer(lambda y: 1 - y**-0.1, lambda z: (1 - z) ** -10), (-np.inf, ends[1])),
        (FunctionTransformer(np.arctan, np.tan), ends),
    ):
        assert fit_target_transform(transformer, y).columns[0].bounds == expected, transformer


def test_a_quantile_transformer_ends_at_the_training_targets():
    transformer = QuantileTransformer(n_quantiles=80, output_distribution="normal")
    model = SubnetLaplaceRegressor(target_transform=transformer, cv=None, **SMALL).fit(X, Y)
    predictive = model.predictive(X_NEW)
    ends = predictive.quantiles([1e-12, 1 - 1e-12])[:, 0]
    assert (ends >= Y.min() * (1 - 1e-9)).all() and (ends <= Y.max() * (1 + 1e-9)).all()
    assert (predictive.cdf(np.full(15, 2 * Y.max())) == 1).all()
    assert np.isneginf(predictive.log_prob(np.full(15, 2 * Y.max()))).all()
    # its density is that of the quantiles between two knots
    y = np.full(15, np.median(Y))
    step = 1e-4
    slope = (predictive.cdf(y + step) - predictive.cdf(y - step)) / (2 * step)
    assert_allclose(np.exp(predictive.log_prob(y)), slope, rtol=1e-3)


@pytest.mark.parametrize("offset, scale", [(0.0, 1.0), (1e9, 1e5), (0.0, 1e-7), (1e4, 1e-2)])
def test_numerical_derivative(offset, scale):
    """Of a softplus, against its closed form, for targets of any place and scale."""
    y = offset + scale * np.log(Y)

    def g(y):
        return np.logaddexp(0, (y - offset) / scale)

    def inverse(z):
        return offset + scale * (z + np.log(-np.expm1(-z)))

    model = MAPRegressor(
        NET, target_transform=FunctionTransformer(g, inverse), random_state=0, noise=0.5
    ).fit(X, y)
    found = model.target_transform_.log_derivative(y[:, None])[:, 0]
    expected = -np.log1p(np.exp(-np.log(Y))) - np.log(scale)
    assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "transformer",
    [
        "log",
        PowerTransformer(),
        QuantileTransformer(n_quantiles=10, output_distribution="normal"),
        FunctionTransformer(np.log1p, np.expm1),
    ],
    ids=str,
)
@pytest.mark.parametrize("value", [1.0, 3e5])
def test_a_constant_target_is_predicted(transformer, value):
    y = np.full(80, value)
    model = SubnetLaplaceRegressor(target_transform=transformer, cv=None, **SMALL).fit(X, y)
    assert_allclose(model.predict(X_NEW), value, rtol=1e-6)
    assert_allclose(model.predict_quantiles(X_NEW, [0.1, 0.9]), value, rtol=1e-6)
    if not isinstance(transformer, QuantileTransformer):  # which has no slope anywhere
        assert np.isfinite(model.log_marginal_likelihood())


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_training_targets_of_a_quantile_transformer_have_a_density(scale):
    """Its ends too, near which it takes all targets as one, and where there is one side only."""
    y = scale * np.linspace(0, 1, 80)
    transformer = QuantileTransformer(n_quantiles=80)
    column = fit_target_transform(transformer, y[:, None]).columns[0]
    inner = y[1:-1] if scale > 1e-3 else y[8:-8]  # it cannot tell the others apart
    assert_allclose(column.log_derivative(inner), -np.log(scale), atol=1e-3)
    if scale > 1e-3:  # half of it at the ends, on whose other side there is nothing
        assert_allclose(column.log_derivative(y), -np.log(scale), atol=np.log(2) + 1e-3)
    assert np.isfinite(column.log_derivative(y)).all()


def test_a_transformer_that_is_flat_everywhere_has_no_density():
    flat = FunctionTransformer(lambda y: 0 * y, lambda z: 3 + 0 * z)
    column = fit_target_transform(flat, np.full((9, 1), 3.0)).columns[0]
    assert np.isneginf(column.log_derivative(np.array([3.0, 4.0]))).all()


def test_the_users_transformer_is_not_fitted_and_clones_search_and_route():
    transformer = PowerTransformer()
    model = SubnetLaplaceRegressor(target_transform=transformer, cv=None, **SMALL)
    copy = clone(model)
    assert copy.get_params()["target_transform__method"] == "yeo-johnson"
    assert copy.target_transform is not transformer
    model.set_params(target_transform__standardize=False).fit(X, Y)
    assert not hasattr(transformer, "lambdas_")
    choices = [None, "log", PowerTransformer()]
    search = GridSearchCV(
        SubnetLaplaceRegressor(cv=None, **SMALL), {"target_transform": choices}, cv=2
    ).fit(X, Y)
    assert len(search.cv_results_["mean_test_score"]) == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    piped = make_pipeline(StandardScaler(), SubnetLaplaceRegressor(target_transform="log", **SMALL))
    assert piped.fit(X, Y).predict(X).shape == Y.shape


def test_cross_val_predictive_keeps_each_folds_transformer():
    model = MAPRegressor(NET, target_transform=PowerTransformer(), random_state=0)
    predictive = cross_val_predictive(model, X, Y, cv=2)
    half = clone(model).fit(X[40:], Y[40:])
    assert_allclose(
        predictive.rows(np.arange(40)).quantiles(LEVELS)[:, 0],
        half.predict_quantiles(X[:40], LEVELS),
    )
    assert predictive.log_prob(Y).shape == (80,)


def test_displays_read_it():
    pytest.importorskip("matplotlib")
    model = SubnetLaplaceRegressor(target_transform="log", cv=None, **SMALL).fit(X, Y)
    predictive = model.predictive(X)
    coverage = IntervalCoverageDisplay.from_estimator(model, X, Y)
    assert_allclose(
        coverage.by_level[0].width[-1],
        np.diff(predictive.interval(0.99), axis=-1).mean(),
        rtol=1e-9,
    )
    IntervalCoverageDisplay.from_predictions(Y, predictive).plot()
    quantiles = QuantileCalibrationDisplay.from_predictions(Y, predictive)
    assert_allclose(np.sort(quantiles.pit[0]), np.sort(predictive.cdf(Y)))
    one = SubnetLaplaceRegressor(target_transform="log", cv=None, **SMALL).fit(X[:, :1], Y)
    bands = PredictiveBandDisplay.from_estimator(one, X[:, :1], Y).plot()
    assert (bands.frame()["mean"] > 0).all()


def test_compare_scores_the_density_of_the_target():
    models = {
        "log": MAPRegressor(NET, target_transform="log", random_state=0),
        "none": MAPRegressor(NET, random_state=0),
    }
    table = compare(models, X, Y, cv=2).to_frame()
    fits = [clone(models["log"]).fit(X[a], Y[a]) for a in (slice(40, 80), slice(40))]
    parts = [(fits[0].predictive(X[:40]), Y[:40]), (fits[1].predictive(X[40:]), Y[40:])]
    nll = np.mean([-p.log_prob(y).mean() for p, y in parts])
    assert table["NLL"]["mean"]["test folds", "log"] == pytest.approx(nll)
    crps = np.mean([p.crps(y).mean() for p, y in parts])
    assert table["CRPS"]["mean"]["test folds", "log"] == pytest.approx(crps)


def test_other_parameters_are_refused():
    for given in ("sqrt", [1.0], 3):
        with pytest.raises(ValueError, match="target_transform"):
            MAPRegressor(NET, target_transform=given).fit(X, Y)


def test_a_likelihood_of_its_own_is_refused():
    counts = NeuralNetRegressor(MLP, criterion=nn.PoissonNLLLoss, **OPTIONS)
    with pytest.raises(ValueError, match="net's likelihood is Poisson"):
        MAPRegressor(counts, target_transform="log").fit(X, np.floor(Y) + 1)


def test_a_search_can_choose_the_transform_by_the_density_of_the_target():
    y = np.exp(4 * np.log(Y))
    choices = {"target_transform": [None, "log"]}
    search = GridSearchCV(
        MAPRegressor(NET, random_state=0), choices, scoring=neg_predictive_nll_scorer, cv=2
    ).fit(X, y)
    assert search.best_params_ == {"target_transform": "log"}
    piped = make_pipeline(StandardScaler(), MAPRegressor(NET, target_transform="log")).fit(X, y)
    rows = StandardScaler().fit_transform(X)
    weights = np.arange(80.0)
    expected = np.average(piped[-1].predictive(rows).log_prob(y), weights=weights)
    assert neg_predictive_nll_scorer(piped, X, y, weights) == pytest.approx(expected)
    two = np.column_stack([y, Y])
    both = MAPRegressor(NET, target_transform="log", random_state=0).fit(X, two)
    expected = both.predictive(X).log_prob(two).mean() / 2
    assert neg_predictive_nll_scorer(both, X, two) == pytest.approx(expected)
