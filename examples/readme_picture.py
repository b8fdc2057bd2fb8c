"""The picture of the README: one net in a gap of its data, alone and with a posterior.

python examples/readme_picture.py --out examples/readme.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sksubnet import MAPRegressor, SubnetLaplaceRegressor
from sksubnet.displays import PredictiveBandDisplay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("readme.png"))
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-3, -1, 60), rng.uniform(1, 3, 60)])
    X, y = x[:, None], np.sin(2 * x) + 0.15 * rng.normal(size=len(x))
    alone = MAPRegressor(cv=None, random_state=0).fit(X, y)
    # Rows like those of the training say nothing of the gap; the evidence decides about the prior.
    posterior = SubnetLaplaceRegressor(
        cv=None, noise="constant", prior_precision="evidence", random_state=0
    ).fit(X, y)
    subnetwork = posterior.subnetwork_
    titles = {
        "a trained net": alone,
        f"and a posterior on {len(subnetwork)} of {subnetwork.n_weights} weights": posterior,
    }
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for ax, (title, model) in zip(axes, titles.items(), strict=True):
        PredictiveBandDisplay.from_estimator(model, X, y).plot(ax=ax, name=title)
        ax.get_legend().remove()
        ax.label_outer()
    axes[0].set_ylim(-3, 3)
    plt.rcParams["legend.fontsize"] = "small"
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(arguments.out, dpi=120)
    print(f"Picture: {arguments.out}")


if __name__ == "__main__":
    main()
