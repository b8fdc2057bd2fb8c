"""
Leave the doubtful cases to a human
===================================

Uncertainty pays where someone can act on it: a model answers what it is sure of and hands on the
rest. How much better do the answers get, and how many are left?
"""

# %%
# Is a handwritten digit odd? Some of the images that the models are asked about are noisy.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from sksubnet import DeepEnsembleClassifier, MAPClassifier, SubnetLaplaceClassifier
from sksubnet.displays import RejectionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y % 2, test_size=0.5, random_state=0)
rng = np.random.default_rng(0)
noisy = rng.random(len(X_test)) < 0.5
X_test = X_test + noisy[:, None] * 4 * rng.normal(size=X_test.shape)

# %%
# The displays take any classifier, so scikit-learn's own can stand next to the nets.
models = {
    "random forest": RandomForestClassifier(random_state=0),
    "MAP": MAPClassifier(random_state=0),
    "subnetwork": SubnetLaplaceClassifier(random_state=0),
    "ensemble of five": DeepEnsembleClassifier(random_state=0),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# From right to left more and more of the rows are refused, those with the largest entropy first.
# The area under a curve is the mean error over all shares kept: it is low if the model is good and
# if it knows where it is not.
display = RejectionDisplay.from_estimator(models, X_test, y_test)
display.plot()

# %%
# The numbers of the picture at some shares.
table = display.frame()
some = table[table["n"].isin([200, 400, 600, 800, len(X_test)])]
print("error rate by number of rows kept")
print(some.pivot_table("error", "model", "n", sort=False).round(3).to_string())

# %%
# One model with its limits: no ordering of the rows does better than "best", and one that knows
# nothing gives the flat line.
RejectionDisplay.from_estimator(models["ensemble of five"], X_test, y_test).plot()
plt.show()
