"""
A likelihood of your own: outliers
==================================

Squared errors let single outliers pull the curve to them. A distribution with longer tails does
not. A likelihood is a class with a few methods; the posterior, predictions, intervals and scores
follow.
"""

# %%
# A smooth curve. One measurement in ten has failed.
import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetRegressor

from sksubnet import Likelihood, LikelihoodLoss, SubnetLaplaceRegressor

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, 120)
y = np.sin(2 * x) + 0.15 * rng.normal(size=len(x))
failed = rng.random(len(x)) < 0.1
y[failed] += rng.uniform(2, 5, failed.sum())
X, y = x[:, None].astype(np.float32), y.astype(np.float32)


# %%
# Likelihood: Student's t with three degrees of freedom and a scale.
class StudentT(Likelihood):
    def __init__(self, scale, df=3.0):
        self.scale, self.df = scale, df

    def of(self, f):
        return torch.distributions.StudentT(self.df, f, self.scale)

    def log_prob(self, f, y):
        return self.of(f).log_prob(y).sum(-1)

    def hessian_root(self, f):
        # the Fisher information of the location is (df + 1) / (df + 3) / scale²
        information = (self.df + 1) / (self.df + 3) / self.scale**2
        return information**0.5 * torch.diag_embed(torch.ones_like(f))

    def mean(self, f):
        return f

    def variance(self, f):
        return self.of(f).variance.expand_as(f)

    def cdf(self, f, y):
        # closed form for three degrees of freedom
        t = (y - f) / self.scale / 3**0.5
        return 0.5 + (t / (1 + t**2) + torch.atan(t)) / torch.pi

    def sample(self, f, generator):
        normal, *chi = torch.randn((4, *f.shape), generator=generator, dtype=f.dtype)
        chi2 = sum(part**2 for part in chi)
        return f + self.scale * normal / (chi2 / self.df).sqrt()


# %%
# The same net under both.


def net(criterion):
    return NeuralNetRegressor(
        lambda: torch.nn.Sequential(
            torch.nn.Linear(1, 50), torch.nn.Tanh(), torch.nn.Linear(50, 1)
        ),
        criterion=criterion,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=400,
        batch_size=-1,
        train_split=None,
        verbose=0,
    )


models = {
    "Gaussian": SubnetLaplaceRegressor(
        net(torch.nn.MSELoss), prior_precision=1.0, subnetwork_size="all", random_state=0
    ),
    "Student's t": SubnetLaplaceRegressor(
        net(LikelihoodLoss(StudentT(scale=0.15))),
        prior_precision=1.0,
        subnetwork_size="all",
        random_state=0,
    ),
}
grid = np.linspace(-2.5, 2.5, 150, dtype=np.float32)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    model.fit(X, y)
    low, high = model.predict_interval(grid, coverage=0.9).T
    ax.fill_between(grid[:, 0], low, high, color="#0072B2", alpha=0.25, linewidth=0)
    ax.plot(grid[:, 0], model.predict(grid), color="#0072B2")
    ax.plot(grid[:, 0], np.sin(2 * grid[:, 0]), "--", color="#D55E00", linewidth=1)
    ax.plot(x, y, "k.", markersize=3)
    width = (high - low).mean()
    ax.set(title=f"{name}: 90 % interval {width:.1f} wide", xlabel="x")
axes[0].set_ylabel(f"y: mean, 90 % interval, truth (dashed)\nand {len(x)} data")

# %%
# How far the mean is from the curve that made the data.
inside = np.abs(grid[:, 0]) < 2
for name, model in models.items():
    error = model.predict(grid[inside]) - np.sin(2 * grid[inside, 0])
    print(f"{name}: root mean squared error {np.sqrt(np.mean(error**2)):.2f}")
plt.show()
