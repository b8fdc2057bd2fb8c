"""
Partial dependence with a band
==============================

How does the prediction change with one column, all others being as they are? scikit-learn's partial
dependence draws the mean. With a posterior the curve has a band: how well is it known?
"""

# %%
# Diabetes: how the disease goes on in a year, from ten measurements.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

from sksubnet import SubnetLaplaceRegressor

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
model = SubnetLaplaceRegressor(cv=None, noise="constant", random_state=0).fit(X, y)

# %%
# The curve at a value is a mean over rows, so its variance is the mean of their covariances, which
# ``predict(return_cov=True)`` has; the noise is taken off its diagonal.


def dependence(column, values, rows):
    """Mean over the rows at each value of the column, and its epistemic standard deviation."""
    curve = []
    for value in values:
        mean, covariance = model.predict(rows.assign(**{column: value}), return_cov=True)
        noise = model.noise_std_**2
        curve.append((mean.mean(), np.sqrt(covariance.mean() - noise / len(rows))))
    return np.transpose(curve)


# %%
# The marks at the bottom are the rows. Where there are none the band widens.
rows = X.sample(60, random_state=0)
columns = {"bmi": "body mass index (kg/m²)", "s5": "s5 (log of triglycerides)"}
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for ax, (column, label) in zip(axes, columns.items(), strict=True):
    low, high = X[column].min(), X[column].max()
    reach = 0.4 * (high - low)
    values = np.linspace(low - reach, high + reach, 25)
    mean, std = dependence(column, values, rows)
    ax.fill_between(values, mean - 2 * std, mean + 2 * std, color="#0072B2", alpha=0.3, linewidth=0)
    ax.plot(values, mean, color="#0072B2")
    ax.plot(X[column], np.full(len(X), 0.02), "k|", transform=ax.get_xaxis_transform(), alpha=0.3)
    ax.set_xlabel(label)
    print(f"{label}: ± {2 * std[0]:.0f} at the low end, ± {2 * std[12]:.0f} in the middle")
axes[0].set_ylabel(f"progression, mean of {len(rows)} rows\n± 2 epistemic sd")
plt.show()
