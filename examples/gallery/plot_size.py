"""
How many weights are enough?
============================

More weights say more of what the whole net does not know, and cost more. A search over the size has
the answer for a table: the smallest size whose score is within a standard error of the best.
"""

# %%
# Diabetes. Every fold leaves out the patients of one fifth of the body mass index, so that models
# are asked about patients unlike those they know. Nets are kept in a folder: each is trained once
# (one for each fold of the search, ``cv=None`` inside), and every size is a posterior of it.
import tempfile

import matplotlib.pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score

from sksubnet import MAPRegressor, SubnetLaplaceRegressor
from sksubnet.displays import SizePathDisplay
from sksubnet.metrics import neg_gaussian_nll_scorer

X, y = load_diabetes(return_X_y=True, as_frame=True)
fifths = (X["bmi"].rank(pct=True) * 4.999).astype(int)
sizes = [3, 10, 30, 100, 300]
options = {"cv": None, "noise": "constant", "random_state": 0}
scored = {"scoring": neg_gaussian_nll_scorer, "cv": LeaveOneGroupOut()}
with tempfile.TemporaryDirectory() as folder:
    search = GridSearchCV(
        SubnetLaplaceRegressor(memory=folder, **options),
        {"subnetwork_size": sizes},
        refit=False,
        **scored,
    ).fit(X, y, groups=fifths)

# %%
# The dashed line is the net without a posterior. Bars are standard errors over the five folds; what
# is marked goes by the differences fold by fold, whose errors are smaller.
alone = cross_val_score(MAPRegressor(cv=None, random_state=0), X, y, groups=fifths, **scored)
display = SizePathDisplay.from_scores(
    sizes,
    [[search.cv_results_[f"split{k}_test_score"][i] for k in range(5)] for i in range(len(sizes))],
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
