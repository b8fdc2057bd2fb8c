"""
How many weights are enough?
============================

More weights say more of what the whole net does not know, and cost more. A search over the size has
the answer for a table: the smallest size whose score is within a standard error of the best.
"""

# %%
# Diabetes. Every fold leaves out the patients of one fifth of the body mass index, so that models
# are asked about patients unlike those they know. One net is trained for each fold of the search,
# and every size is a posterior of it.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score

from sksubnet import MAPRegressor, SubnetLaplaceRegressor, SubnetLaplaceRegressorCV
from sksubnet.displays import SizePathDisplay
from sksubnet.metrics import neg_gaussian_nll_scorer

X, y = load_diabetes(return_X_y=True, as_frame=True)
fifths = (X["bmi"].rank(pct=True) * 4.999).astype(int)
folds = list(LeaveOneGroupOut().split(X, groups=fifths))
options = {"cv": None, "noise": "constant", "random_state": 0}
search = SubnetLaplaceRegressorCV(
    SubnetLaplaceRegressor(**options),
    subnetwork_sizes=[3, 10, 30, 100, 300],
    scoring=neg_gaussian_nll_scorer,
    cv=folds,
    refit=False,
).fit(X, y)

# %%
# The dashed line is the net without a posterior. Bars are standard errors over the five folds; what
# is marked goes by the differences fold by fold, whose errors are smaller.
plain = MAPRegressor(cv=None, random_state=0)
alone = cross_val_score(plain, X, y, scoring=neg_gaussian_nll_scorer, cv=folds)
results = search.cv_results_
display = SizePathDisplay.from_scores(
    search.subnetwork_sizes,
    np.transpose([results[f"split{k}_test_score"] for k in range(len(folds))]),
    reference={"no posterior": alone},
    score_name="log density (nats)",
)
display.plot()
print(f"best {display.best_size_:g}, within an error of it {display.smallest_size_:g}")

# %%
# Without a search: as few as keep 90 % of what all weights would say at inputs between the training
# rows.
model = SubnetLaplaceRegressor(subnetwork_size="90% variance", **options).fit(X, y)
print(model.subnetwork_)
plt.show()
