"""
Counts: a Poisson likelihood
============================

How many bikes will be hired in an hour? Counts are whole numbers, never negative, and scatter more
where there are more of them. A net that returns the logarithm of the rate, trained by
``PoissonNLLLoss``, gets a predictive distribution of counts.
"""

# %%
# Calls per hour over a day, made here, with a gap in the record.
import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetRegressor

from sksubnet import SubnetLaplaceRegressor

rng = np.random.default_rng(0)
hour = np.concatenate([rng.uniform(0, 13, 130), rng.uniform(18, 24, 70)])


def rate(hour):
    return np.exp(1.5 + np.sin((hour - 8) / 24 * 2 * np.pi) + 0.8 * np.cos(hour / 24 * 4 * np.pi))


calls = rng.poisson(rate(hour)).astype(np.float32)
X = hour[:, None].astype(np.float32)


# %%
# Net: any skorch regressor; its criterion says what the targets are.
class Rate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            *(torch.nn.Linear(1, 50), torch.nn.Tanh()),
            *(torch.nn.Linear(50, 50), torch.nn.Tanh(), torch.nn.Linear(50, 1)),
        )

    def forward(self, hour):
        return self.layers(hour / 6 - 2)  # the log of the rate


net = NeuralNetRegressor(
    Rate,
    criterion=torch.nn.PoissonNLLLoss(log_input=True),
    optimizer=torch.optim.Adam,
    lr=5e-3,
    max_epochs=300,
    batch_size=-1,
    train_split=None,
    verbose=0,
)
model = SubnetLaplaceRegressor(net, prior_precision=1.0, subnetwork_size=0.2, random_state=0)
model.fit(X, calls)

# %%
# Intervals have whole numbers for ends. In the gap the rate is known less well, and the interval is
# wider than that of a Poisson with the predicted mean.
grid = np.linspace(0, 24, 241, dtype=np.float32)[:, None]
low, median, high = model.predict_quantiles(grid, [0.05, 0.5, 0.95]).T
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.fill_between(
    grid[:, 0],
    low,
    high,
    step="mid",
    color="#0072B2",
    alpha=0.25,
    linewidth=0,
    label="90 % of counts",
)
ax.plot(grid[:, 0], model.predict(grid), color="#0072B2", label="mean")
ax.plot(
    grid[:, 0], rate(grid[:, 0]), color="#D55E00", linestyle="--", label="rate that made the data"
)
ax.plot(hour, calls, "k.", markersize=3, label=f"data (n = {len(calls)})")
ax.set(xlabel="hour of the day", ylabel="calls in an hour", ylim=(-0.5, 40))
ax.legend(ncols=2)

# %%
# The parts of the standard deviation: of the counts, and of their rate.
table = model.predictive(np.array([[6.0], [15.5], [21.0]], dtype=np.float32)).to_frame(
    index=["6:00", "15:30, in the gap", "21:00"]
)
print(table.round(1).to_string())
plt.show()
