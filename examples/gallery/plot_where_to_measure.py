"""
Where to measure next
=====================

Each measurement costs. A model that says where it does not know says where the next one pays: where
its epistemic standard deviation is largest. ``update`` tells how much each of several measurements
would still add, before any of them is made.
"""

# %%
# Thirty measurements of a curve, all in its left half.
import matplotlib.pyplot as plt
import numpy as np

from sksubnet import SubnetLaplaceRegressor
from sksubnet.displays import PredictiveBandDisplay

places = np.linspace(-2, 2, 81)
NOISE = 0.05


def truth(x):
    return np.sin(3 * x) + 0.3 * x


def fitted(x, y):
    model = SubnetLaplaceRegressor(
        cv=None, subnetwork_size=0.5, noise=NOISE, prior_precision="evidence", random_state=0
    )
    return model.fit(x[:, None], y)


# %%
# Three new places at a time. The variance of a linearised net does not depend on what is
# measured, so that an update with the model's own prediction shows what a measurement will leave
# unknown. When the three have been made, the net is trained again on all rows.


def least_known(model, rng):
    chosen = []
    for _ in range(3):
        std = model.predictive(places[:, None]).std("epistemic")[:, 0]
        place = places[[np.argmax(std)]]
        model.update(place[:, None], model.predict(place[:, None]))
        chosen.append(place[0])
    return np.array(chosen)


def at_random(model, rng):
    return rng.uniform(-2, 2, 3)


rules = {"where least is known": least_known, "at random": at_random}
figure, axes = plt.subplots(2, 4, figsize=(9, 4.4), sharex=True, sharey=True, layout="constrained")
for row, (name, rule) in zip(axes, rules.items(), strict=True):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 0, 30)
    y = truth(x) + NOISE * rng.normal(size=len(x))
    for ax in row:
        model = fitted(x, y)
        error = np.sqrt(np.mean((model.predict(places[:, None]) - truth(places)) ** 2))
        band = PredictiveBandDisplay.from_estimator(model, places[:, None], margin=0)
        band.plot(ax=ax, name=f"{len(x) - 30} more, error {error:.2f}")
        ax.plot(x[:30], y[:30], "k.", markersize=3, label="first 30 rows")
        ax.plot(x[30:], y[30:], "o", color="#D55E00", markersize=4, label="rows asked for")
        ax.plot(places, truth(places), "--", color="0.3", linewidth=1, label="truth")
        ax.get_legend().remove()
        ax.label_outer()
        asked = rule(model, rng)
        x = np.append(x, asked)
        y = np.append(y, truth(asked) + NOISE * rng.normal(size=3))
    row[0].set_ylabel(name)
axes[0, 0].set_ylim(-4, 4)
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

# %%
# The error is the root of the mean square over all places. One run shows how it works and not how
# much is gained; where the net has learned nothing like the new data it may be sure and wrong, as
# in all of these pictures with few rows.
print(f"{len(x)} rows measured by the last rule, the last at {np.round(asked, 2)}")
plt.show()
