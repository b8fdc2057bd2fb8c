"""
Under shift: patients heavier than any that was seen
====================================================

On rows like those of the training a plain net is hard to beat. The difference shows where a model
is used on others. Here the nets learn from the lighter two thirds of 442 patients with diabetes,
and predict how the disease of the heaviest third goes on.
"""

# %%
# A quarter of the lighter patients is left out, to have both kinds of unseen rows.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

from sksubnet import MAPRegressor, SubnetLaplaceRegressor
from sksubnet.displays import QuantileCalibrationDisplay, UncertaintyShiftDisplay
from sksubnet.metrics import gaussian_nll

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
heavy = X["bmi"] > X["bmi"].quantile(2 / 3)
held_out = ~heavy & (np.random.default_rng(0).random(len(X)) < 0.25)
train = ~heavy & ~held_out
sets = {"lighter patients": held_out, "heavier patients": heavy}
print({name: int(rows.sum()) for name, rows in {"training": train, **sets}.items()})

# %%
# The same nets twice: five, one for each fold of the training rows, without a posterior and with
# one on a subnetwork of each.
models = {
    "plain nets": MAPRegressor(random_state=0),
    "subnetwork": SubnetLaplaceRegressor(random_state=0),
}
for model in models.values():
    model.fit(X[train], y[train])

# %%
# The loss is the negative log density of what happened, in nats: lower is better.
for name, rows in sets.items():
    scores = [gaussian_nll(y[rows], *m.predict(X[rows], return_std=True)) for m in models.values()]
    print(name, dict(zip(models, np.round(scores, 3).tolist(), strict=True)))

# %%
# Is a tenth of the targets below the .1 quantile, half below the median, and so on? A curve above
# the diagonal says that the quantiles are too high, one below it that they are too low. The band is
# what so few rows can tell, by bootstrap.
figure, axes = plt.subplots(1, 2, figsize=(8, 5.4), layout="constrained")
for ax, (name, rows) in zip(axes, sets.items(), strict=True):
    QuantileCalibrationDisplay.from_estimator(models, X[rows], y[rows], random_state=0).plot(ax=ax)
    ax.set_title(name)

# %%
# Does the model notice? Its epistemic standard deviation, in the units of the target, grows with
# the body mass index. The area under the curve (AUROC) is the probability that a heavier patient
# has a larger one than a lighter patient.
display = UncertaintyShiftDisplay.from_estimator(
    models["subnetwork"], X[held_out], X[heavy], name="subnetwork"
)
display.plot()
plt.show()
