"""
Positive and skewed: a log target, with intervals in its own units
==================================================================

Prices, incomes and durations are positive, with a long tail. A model of their logarithm fits them,
but what is wanted are prices. ``target_transform="log"`` trains on the logarithm and answers in the
units of the target.
"""

# %%
# Prices whose spread grows with their mean.
import matplotlib.pyplot as plt
import numpy as np

from sksubnet import SubnetLaplaceRegressor
from sksubnet.metrics import interval_coverage, neg_predictive_nll_scorer

rng = np.random.default_rng(0)
size = rng.uniform(20, 200, 500)
price = 40 * size**0.7 * np.exp(0.35 * rng.normal(size=len(size)))
X = size[:, None]
X_train, X_test, y_train, y_test = X[:250], X[250:], price[:250], price[250:]

# %%
# The same nets, on the price as it is and on its logarithm. The noise is one number in both, to
# show what the scale does alone.
options = {"cv": 3, "noise": "constant", "random_state": 0}
models = {
    "price as it is": SubnetLaplaceRegressor(**options),
    "log of the price": SubnetLaplaceRegressor(target_transform="log", **options),
}
for name, model in models.items():
    model.fit(X_train, y_train)
    inside = interval_coverage(y_test, *model.predict_interval(X_test, coverage=0.9).T)
    loss = -neg_predictive_nll_scorer(model, X_test, y_test)
    print(f"{name}: {inside:.0%} of test rows in the 90 % interval, loss {loss:.3f} nats")

# %%
# The line is the median, the band holds 90 % of prices. On the logarithm it is never below zero,
# and it is as wide as the prices scatter.
grid = np.linspace(20, 200, 200)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    low, median, high = model.predict_quantiles(grid, [0.05, 0.5, 0.95]).T
    ax.fill_between(grid[:, 0], low, high, color="#0072B2", alpha=0.25, linewidth=0)
    ax.plot(grid[:, 0], median, color="#0072B2")
    ax.plot(X_test[:, 0], y_test, "k.", markersize=2, alpha=0.5)
    ax.set(title=name, xlabel="size (m²)")
axes[0].set_ylabel(f"price (thousands): median, 90 % band\nand {len(y_test)} test rows")

# %%
# The mean of a skewed distribution lies above its median: it is not the exponential of the mean of
# the logarithm.
model = models["log of the price"]
some = np.array([[50.0], [150.0]])
print(
    "median",
    model.predict_quantiles(some, [0.5])[:, 0].round(),
    "mean",
    model.predict(some).round(),
)
plt.show()
