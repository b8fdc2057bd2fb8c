"""
Explaining the uncertainty: which columns make it unsure?
=========================================================

What explains a prediction explains its uncertainty, too: both are functions of the row. Here the
columns of a table of houses are asked twice: what are they worth to the predictions, and which of
them make single rows uncertain?
"""

# %%
# A table of houses, made here. Large houses are rare in training, and garages do not matter.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import shap
from sklearn.inspection import permutation_importance

from sksubnet import SubnetLaplaceRegressor
from sksubnet.metrics import neg_gaussian_nll_scorer

rng = np.random.default_rng(0)
n = 300
X = pd.DataFrame(
    {
        "area (m²)": 40 + 40 * rng.gamma(2, size=n),
        "age (years)": rng.uniform(0, 100, n),
        "distance (km)": rng.uniform(0, 30, n),
        "garages": rng.integers(0, 3, n),
    }
)
area, age, distance = X["area (m²)"], X["age (years)"], X["distance (km)"]
y = 3 * area - 0.8 * age + 100 * np.exp(-distance / 5) + 25 * rng.normal(size=n)
train, test = np.split(np.arange(n), [200])
model = SubnetLaplaceRegressor(cv=None, noise="constant", random_state=0)
model.fit(X.iloc[train], y.iloc[train])

# %%
# Importance: by how many nats the log density of the targets falls if a column is shuffled.
worth = permutation_importance(
    model, X.iloc[test], y.iloc[test], scoring=neg_gaussian_nll_scorer, n_repeats=10, random_state=0
)

# %%
# Shapley: how much each column adds to the epistemic deviation of a row, compared with usual rows.


def epistemic(rows):
    return model.predictive(pd.DataFrame(rows, columns=X.columns)).std("epistemic")[:, 0]


large = X.iloc[test].sort_values("area (m²)").iloc[-5:]
usual = shap.maskers.Independent(X.iloc[train].sample(10, random_state=0).to_numpy())
explainer = shap.explainers.Exact(epistemic, usual)
shares = explainer(large.to_numpy(), silent=True)

# %%
# Left: the price follows area, distance and age. Right: in the five largest houses it is the area
# that makes the model unsure, because few like them were seen.
figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), sharey=True, layout="constrained")
axes[0].barh(
    X.columns, worth.importances_mean, xerr=worth.importances_std, color="#0072B2", height=0.6
)
axes[0].set(xlabel="worth to the predictions (nats)\n± sd of 10 shuffles", title="Predictions")
for values in shares.values:
    axes[1].plot(values, X.columns, "o", color="#D55E00", markersize=4, alpha=0.7)
axes[1].axvline(0, color="0.5", linewidth=0.8)
axes[1].set(
    xlabel="added to the epistemic sd (thousands)\na point for each of 5 houses",
    title="Uncertainty of large houses",
)
axes[0].invert_yaxis()

# %%
# The shares of a row add up to its deviation.
total = shares.base_values + shares.values.sum(axis=1)
print("usual epistemic sd ", np.round(shares.base_values[0], 1))
print("of the large houses", np.round(epistemic(large.to_numpy()), 1))
print("added up           ", np.round(total, 1))
plt.show()
