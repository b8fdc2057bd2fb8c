"""
Intervals with a guarantee: conformal prediction on top
=======================================================

Intervals of a model are as right as the model is. Conformal prediction turns them into ones that
cover 90 % of new rows, if these come from where the others came from. It needs a standard deviation
for each row to know where they should be wide: that is what this package has.
"""

# %%
# The noise of these data grows with the input.
import matplotlib.pyplot as plt
import numpy as np
from crepes import ConformalRegressor
from mapie.conformity_scores import StdConformityScore
from mapie.regression import SplitConformalRegressor

from sksubnet import SubnetLaplaceRegressor

rng = np.random.default_rng(0)
x = rng.uniform(0, 4, 1400)
y = np.sin(2 * x) + (0.05 + 0.25 * x) * rng.normal(size=len(x))
X = x[:, None]
train, calibrate, test = np.split(np.arange(len(x)), [400, 700])

model = SubnetLaplaceRegressor(cv=3, random_state=0).fit(X[train], y[train])
intervals = {"of the model": model.predict_interval(X[test], coverage=0.9)}

# %%
# MAPIE: a score that divides each residual by the standard deviation of its row.
conformal = SplitConformalRegressor(
    model, confidence_level=0.9, conformity_score=StdConformityScore(), prefit=True
)
conformal.conformalize(X[calibrate], y[calibrate])
_, ends = conformal.predict_interval(X[test])
intervals["MAPIE, by deviation"] = ends[:, :, 0]

# %%
# crepes: residuals and deviations of the rows to calibrate on, then of those to predict.
mean, std = model.predict(X[calibrate], return_std=True)
crepes = ConformalRegressor().fit(y[calibrate] - mean, sigmas=std)
mean, std = model.predict(X[test], return_std=True)
intervals["crepes, by deviation"] = crepes.predict_int(mean, sigmas=std, confidence=0.9)

# %%
# The same guarantee without deviations: one width for all rows.
plain = SplitConformalRegressor(model, confidence_level=0.9, prefit=True)
plain.conformalize(X[calibrate], y[calibrate])
intervals["MAPIE, one width"] = plain.predict_interval(X[test])[1][:, :, 0]

# %%
# All cover 90 % of the 700 test rows, give or take the 1 % that so few rows can tell. Where the
# data are quiet and where they are noisy only those that know of the noise do.
quiet = x[test] < 1
print(f"{'covered':<22} all   x<1   x>1   mean width")
for name, (low, high) in ((name, ends.T) for name, ends in intervals.items()):
    inside = (low <= y[test]) & (y[test] <= high)
    shares = inside.mean(), inside[quiet].mean(), inside[~quiet].mean()
    print(
        f"{name:<22}", "  ".join(f"{share:.2f}" for share in shares), f"  {(high - low).mean():.2f}"
    )

# %%
figure, axes = plt.subplots(
    2, 2, figsize=(7.5, 5.5), sharex=True, sharey=True, layout="constrained"
)
order = np.argsort(x[test])
for ax, (name, ends) in zip(axes.flat, intervals.items(), strict=True):
    low, high = ends[order].T
    ax.fill_between(x[test][order], low, high, color="#0072B2", alpha=0.25, linewidth=0)
    ax.plot(x[test], y[test], "k.", markersize=1.5, alpha=0.5)
    inside = ((low <= y[test][order]) & (y[test][order] <= high)).mean()
    ax.set_title(f"{name}: {inside:.0%} of {len(test)} inside")
figure.supxlabel("x")
figure.supylabel("y, and intervals for 90 %")
plt.show()
