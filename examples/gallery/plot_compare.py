"""
Comparing models: same folds, proper scores, paired errors
==========================================================

Is a posterior worth it on my table? ``compare`` fits any estimators on the same folds, scores every
fit on the test rows of its fold and on shifted rows, and gives differences with their errors, which
can be much smaller than the errors of the scores themselves.
"""

# %%
# Digits, odd or even. The shifted rows are the same images moved by one of their eight pixels.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sksubnet import MAPClassifier, SubnetLaplaceClassifier, compare

X, y = load_digits(return_X_y=True)
X, y = X[:450], y[:450] % 2
moved = np.roll(X.reshape(-1, 8, 8), 1, axis=2).reshape(len(X), -1)

one_net = {"cv": None, "random_state": 0}
models = {
    "MAP": MAPClassifier(**one_net),
    "last layer": SubnetLaplaceClassifier(selection="last_layer", **one_net),
    "subnetwork": SubnetLaplaceClassifier(**one_net),
    "three folds": SubnetLaplaceClassifier(cv=3, random_state=0),
    "logistic regression": LogisticRegression(C=0.01, max_iter=500),
}
comparison = compare(models, X, y, cv=3, shifted={"moved by a pixel": (moved, y)})
print(comparison)

# %%
# A summary: the difference of the log loss to MAP, fold by fold. Left of the line is better.
difference, error = comparison.difference()
score = list(comparison.better).index("log loss")
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.6), sharey=True, layout="constrained")
spread = ["standard error over 3 folds", "standard deviation over 3 fits"]
for ax, name, mean, bar, what in zip(axes, comparison.sets, difference, error, spread, strict=True):
    ax.errorbar(mean[:, score], comparison.names, xerr=bar[:, score], fmt="o", color="#0072B2")
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.locator_params(axis="x", nbins=4)
    ax.set(title=name, xlabel=f"log loss minus that of MAP (nats)\n± {what}")
axes[0].invert_yaxis()
plt.show()
