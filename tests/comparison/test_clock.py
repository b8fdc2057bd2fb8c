"""What the seconds of a comparison hold."""

import os
import subprocess
import sys

SCRIPT = """
import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sksubnet import MAPRegressor, compare

steps = []
make = torch.optim.Optimizer.__init__

class Watched(LinearRegression):
    def fit(self, X, y):
        steps.append("fit")
        return super().fit(X, y)

def making(*args, **kwargs):
    steps.append("optimiser")
    make(*args, **kwargs)

torch.optim.Optimizer.__init__ = making
X = np.random.default_rng(0).normal(size=(30, 2))
compare({"plain": Watched()}, X, X[:, 0], cv=2)
assert steps == ["fit", "fit"], steps
steps.clear()
compare({"plain": Watched(), "net": make_pipeline(MAPRegressor(noise=1.0))}, X, X[:, 0], cv=2)
assert steps[:3] == ["optimiser", "fit", "fit"], steps
"""


def test_torch_starts_before_the_clock_where_it_is_used() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, env=os.environ, timeout=300)
