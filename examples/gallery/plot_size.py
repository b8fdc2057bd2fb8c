"""
How many weights are enough?
============================

More weights say more of what the whole net does not know, and cost more.
``SubnetLaplaceClassifierCV`` trains once for each fold and scores every size. What it finds depends
on whether the prior may be tuned for each size.
"""

# %%
# Handwritten digits: which are odd? The models are asked about images that are moved by one of
# their eight pixels, which no net has seen.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, cross_val_score

from sksubnet import MAPClassifier, SubnetLaplaceClassifier, SubnetLaplaceClassifierCV
from sksubnet.displays import SizePathDisplay

X, y = load_digits(return_X_y=True)
X, y = X[:300], y[:300] % 2
moved = np.roll(X.reshape(-1, 8, 8), 1, axis=2).reshape(len(X), -1)
both, labels = np.concatenate([X, moved]), np.tile(y, 2)
folds = [(train, len(X) + test) for train, test in KFold(3).split(X)]
sizes = [3, 10, 30, 100, 300]


def path(model):
    """Log likelihood of the moved images, by size and fold."""
    search = SubnetLaplaceClassifierCV(
        model, subnetwork_sizes=sizes, scoring="neg_log_loss", cv=folds, refit=False
    ).fit(both, labels)
    return np.transpose([search.cv_results_[f"split{k}_test_score"] for k in range(len(folds))])


# %%
# Left, the default: each size has the prior precision that predicts held-out rows best. A few
# weights with a wide prior stand in for many, and what counts is to have a posterior at all (the
# dashed line has none). Right, all sizes have the same wide prior, and every weight more adds
# variance, until the nets are hardly surer than a coin, whose log likelihood is -.69: on images
# that they do not understand that is right.
options = {"cv": None, "random_state": 0}
alone = cross_val_score(MAPClassifier(**options), both, labels, scoring="neg_log_loss", cv=folds)
panels = {
    "prior tuned for each size": path(SubnetLaplaceClassifier(**options)),
    "prior precision 0.3": path(SubnetLaplaceClassifier(prior_precision=0.3, **options)),
}
figure, axes = plt.subplots(1, 2, figsize=(7.5, 4.4), sharey=True, layout="constrained")
for ax, (title, scores) in zip(axes, panels.items(), strict=True):
    display = SizePathDisplay.from_scores(
        sizes, scores, reference={"no posterior": alone}, score_name="log likelihood (nats)"
    ).plot(ax=ax)
    ax.set_title(title)
    print(f"{title}: best {display.best_size_:g}, within an error {display.smallest_size_:g}")

# %%
# Bars are standard errors over the three folds; what is marked goes by the differences fold by
# fold, whose errors are smaller. ``subnetwork_size="90% variance"`` needs no search: it takes as
# few weights as keep that share of what all would say.
plt.show()
