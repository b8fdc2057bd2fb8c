"""Several estimators on the same folds, and the table of their scores.

`compare` fits them and hands on a `Comparison`: the scores fold by fold, printed as means with
standard errors. Any scikit-learn estimator will do, so nothing here knows a net.

Read first: `compare` in `same_folds.py`.
"""

from sksubnet.comparison.out_of_fold import cross_val_predictive
from sksubnet.comparison.same_folds import compare
from sksubnet.comparison.table import Comparison

__all__ = ["Comparison", "compare", "cross_val_predictive"]
