"""
Which weights? The toy of the paper
===================================

Of 2600 weights 78, three in a hundred, get a posterior. How much of the uncertainty of all of them
do they keep where there are no data? It depends on which they are. The whole experiment, with five
nets and eight selections, is ``examples/benchmarks/selection_toy.py``.
"""

# %%
# Two clusters of points with a gap between them, and one net with two hidden layers of 50 units,
# trained to its mode under a unit prior, as the theory assumes.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetRegressor

from sksubnet import SubnetLaplaceRegressor
from sksubnet.displays import PredictiveBandDisplay, SubnetworkDisplay

NOISE, PRIOR_PRECISION = 0.1, 1.0
rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-1, -0.7, 50), rng.uniform(0.5, 1, 50)])
X, y = x[:, None], np.cos(4 * x + 0.8) + NOISE * rng.normal(size=100)

with torch.random.fork_rng():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        *(torch.nn.Linear(1, 50), torch.nn.ReLU(), torch.nn.Linear(50, 50), torch.nn.ReLU()),
        torch.nn.Linear(50, 1),
    ).double()
optimizer = torch.optim.LBFGS(
    module.parameters(), max_iter=500, history_size=20, line_search_fn="strong_wolfe"
)


def loss():
    optimizer.zero_grad()
    squares = sum(weights.square().sum() for weights in module.parameters())
    misfit = (module(torch.tensor(X))[:, 0] - torch.tensor(y)).square().sum() / NOISE**2
    total = (misfit + PRIOR_PRECISION * squares) / 2
    total.backward()
    return total


optimizer.step(loss)
net = FrozenEstimator(NeuralNetRegressor(module, train_split=None).initialize())

# %%
# The posterior of all weights, then of 78 chosen in three ways. ``"greedy"`` searches for those
# that together keep the most; ``"swag"`` is the code of the paper's authors.
settings = {"prior_precision": PRIOR_PRECISION, "noise": NOISE, "random_state": 0}
models = {
    "all": SubnetLaplaceRegressor(net, subnetwork_size="all", **settings),
    "greedy": SubnetLaplaceRegressor(net, subnetwork_size=0.03, **settings),
    "swag": SubnetLaplaceRegressor(net, subnetwork_size=0.03, selection="swag", **settings),
    "random": SubnetLaplaceRegressor(net, subnetwork_size=0.03, selection="random", **settings),
}
gap = np.linspace(-0.7, 0.5, 52)[1:-1, None]
full = models["all"].fit(X, y).predictive(gap).std("epistemic")
figure, axes = plt.subplots(
    2, 2, figsize=(7.5, 5.6), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, model) in zip(axes.flat, models.items(), strict=True):
    shares = model.fit(X, y).predictive(gap).std("epistemic") / full
    title = f"{name}: {len(model.subnetwork_)} weights, {shares.mean():.0%} of the sd"
    PredictiveBandDisplay.from_estimator(model, X, y, margin=0.15).plot(ax=ax, name=title)
    ax.label_outer()
    ax.get_legend().remove()
axes[0, 0].set_ylim(-3, 3)
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

# %%
# Where the 78 weights of the search sit: rows of a map are the units of a layer.
SubnetworkDisplay.from_estimator(models["greedy"], name="greedy").plot()
print(models["greedy"].subnetwork_)
plt.show()
