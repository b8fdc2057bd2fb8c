"""
Noise that differs from row to row
==================================

One number for the noise makes intervals too wide where the data are quiet and too narrow where they
are not. With ``noise="auto"``, the default, a second net learns the noise of each row from the
residuals of rows that the first has not seen, and is used where that predicts unseen rows better.
"""

# %%
# The noise is small on the left and large on the right.
import matplotlib.pyplot as plt
import numpy as np

from sksubnet import SubnetLaplaceRegressor
from sksubnet.displays import IntervalCoverageDisplay, PredictiveBandDisplay
from sksubnet.metrics import gaussian_nll

rng = np.random.default_rng(0)
x = rng.uniform(0, 4, 1000)
y = np.sin(2 * x) + 0.05 * np.exp(0.8 * x) * rng.normal(size=len(x))
X = x[:, None]
train, test = np.split(np.arange(len(x)), [400])

models = {
    "one noise": SubnetLaplaceRegressor(noise="constant", cv=3, random_state=0),
    "noise by row": SubnetLaplaceRegressor(noise="input", cv=3, random_state=0),
}
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.6), sharey=True, layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    model.fit(X[train], y[train])
    loss = gaussian_nll(y[test], *model.predict(X[test], return_std=True))
    PredictiveBandDisplay.from_estimator(model, X[train], y[train], margin=0.1).plot(
        ax=ax, name=f"{name}: loss {loss:.2f} nats"
    )
    ax.get_legend().remove()
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

# %%
# Over all rows both cover about 90 %. Not so by tenth of the rows, in the order of the predicted
# deviation: with one noise the deviation hardly tells the rows apart, and its intervals are too
# wide for most of them. Below, how wide they are.
figure, axes = plt.subplots(1, 2, figsize=(7.5, 5.6), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    IntervalCoverageDisplay.from_estimator(model, X[test], y[test], name=name).plot(ax=ax, by="std")

# %%
# What the model says the noise is, and what it was made with.
places = np.array([0.5, 1.5, 2.5, 3.5])
said = models["noise by row"].predictive(places[:, None]).std("aleatoric")[:, 0]
print("said ", said.round(2))
print("truth", (0.05 * np.exp(0.8 * places)).round(2))
plt.show()
