"""
What a net does not know: one input with a gap
==============================================

A net that is trained by maximum a posteriori (MAP) has one answer everywhere. A posterior over a
few of its weights says where that answer rests on data and where it does not.
"""

# %%
# The data: a wave that was measured in two places, with a gap between them.
import matplotlib.pyplot as plt
import numpy as np

from sksubnet import MAPRegressor, SubnetLaplaceRegressor
from sksubnet.displays import PredictiveBandDisplay, SubnetworkDisplay

rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-3, -1, 60), rng.uniform(1, 3, 60)])
y = np.sin(2 * x) + 0.15 * rng.normal(size=len(x))
X = x[:, None]

# %%
# Three posteriors of the same net. MAP has none and knows the noise only. The subnetwork makes a
# twentieth of the weights random, the last model all of them. The prior precision is that of the
# highest evidence, because held-out rows lie where the data are and say nothing about the gap.
# A net for each fold would tell of the gap by what they differ in, so there is one.
one_net = {"cv": None, "noise": "constant", "prior_precision": "evidence", "random_state": 0}
models = {
    "MAP": MAPRegressor(random_state=0),
    "subnetwork": SubnetLaplaceRegressor(**one_net),
    "all weights": SubnetLaplaceRegressor(subnetwork_size="all", **one_net),
}
for model in models.values():
    model.fit(X, y)

# %%
# The outer band is where a new measurement may fall, the inner one where the function may be.
figure, axes = plt.subplots(3, 1, figsize=(5, 8), sharex=True, sharey=True, layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    PredictiveBandDisplay.from_estimator(model, X, y, name=name).plot(ax=ax)
    ax.get_legend().remove()
    ax.label_outer()
axes[0].set_ylim(-4, 4)
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)

# %%
# The same as numbers: a predictive distribution is a table, too. In the middle of the gap nearly
# all of the uncertainty is epistemic, so measurements there would remove it.
places = np.array([-2.0, 0.0, 2.0, 4.0])
table = models["subnetwork"].predictive(places[:, None]).to_frame(index=places)
print(table.round(2).to_string())

# %%
# And where does the posterior sit? Rows of a map are units of a layer.
print(models["subnetwork"].subnetwork_)
SubnetworkDisplay.from_estimator(models["subnetwork"]).plot()
plt.show()
