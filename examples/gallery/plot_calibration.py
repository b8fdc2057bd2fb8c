"""
Are the probabilities true? Handwritten digits under shift
==========================================================

A classifier is calibrated if it is right in 80 of 100 cases that it gives a probability of .8. Nets
are, roughly, on rows like those they were trained on. Here they are asked about noisy images, too.
"""

# %%
# Half of the digits train the nets, the other half test them: as they are, and with noise that no
# training image had.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sksubnet import DeepEnsembleClassifier, MAPClassifier, SubnetLaplaceClassifier
from sksubnet.displays import ReliabilityDisplay, UncertaintyShiftDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)
noise = np.random.default_rng(0).normal(size=X_test.shape)
sets = {"test images": X_test, "with noise of sd 4 (grey values 0 to 16)": X_test + 4 * noise}

# %%
# The same net alone, with a posterior on a subnetwork, and five times with other first weights.
models = {
    "MAP": MAPClassifier(random_state=0),
    "subnetwork": SubnetLaplaceClassifier(random_state=0),
    "ensemble of five": DeepEnsembleClassifier(random_state=0),
}
for model in models.values():
    model.fit(X_train, y_train)

# %%
# Each point is a tenth of the rows; the bars say how well so few rows can tell its height.
figure, axes = plt.subplots(1, 2, figsize=(9, 5.8), layout="constrained")
for ax, (title, rows) in zip(axes, sets.items(), strict=True):
    ReliabilityDisplay.from_estimator(models, rows, y_test).plot(ax=ax)
    ax.set_title(title)

# %%
# One picture does not rank models. A proper score does: here the log loss, in nats.
for title, rows in sets.items():
    losses = [log_loss(y_test, model.predict_proba(rows)) for model in models.values()]
    print(f"{title}: ", ", ".join(f"{n} {s:.3f}" for n, s in zip(models, losses, strict=True)))

# %%
# Does a model notice that the images are not those it knows? The mutual information of class and
# weights is what it does not know for want of data.
display = UncertaintyShiftDisplay.from_estimator(
    models["ensemble of five"], *sets.values(), name="ensemble of five"
)
display.plot(scale="log")
plt.show()
