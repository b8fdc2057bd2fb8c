"""
Two classes, two inputs: sure near the data, unsure away from it
================================================================

A net draws a line between two classes and is sure of itself on both sides of it, however far away.
With a posterior, the region of doubt round that line opens
with the distance from the data.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from sksubnet import MAPClassifier, SubnetLaplaceClassifier
from sksubnet.displays import DecisionUncertaintyDisplay

X, y = make_moons(150, noise=0.15, random_state=0)
options = {"cv": None, "random_state": 0}
models = {
    "MAP": MAPClassifier(**options),
    "subnetwork": SubnetLaplaceClassifier(**options),
}

# %%
# Colours are the probability of the second moon, the dashed line is where it is one half. The same
# net stands in both pictures.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    model.fit(X, y)
    display = DecisionUncertaintyDisplay.from_estimator(model, X, y, margin=1, name=name)
    display.plot(kind="prediction", ax=ax)

# %%
# What it does not know, as the mutual information of class and weights: nothing where all plausible
# nets agree, most beyond the ends of the line between the classes.
display.plot(kind="uncertainty")

# %%
# Confidence, the probability of the predicted class, on circles round the data.
angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
for distance in (2, 8):
    points = distance * np.column_stack([np.cos(angles), np.sin(angles)])
    sure = {name: model.predict_proba(points).max(axis=1).mean() for name, model in models.items()}
    print(
        f"mean confidence at distance {distance}:", {k: round(float(v), 2) for k, v in sure.items()}
    )
plt.show()
