"""Counts: likelihoods for hourly bike rentals, or for synthetic counts.

    python examples/benchmarks/counts_study.py --data DIR     # bike rentals, some minutes
    python examples/benchmarks/counts_study.py --quick        # synthetic counts

Nets of two hidden layers of 64 with four criteria, in each five folds' subnetworks: squared errors
(`Gaussian`), squared errors of log(1 + count) (`log`), Poisson's likelihood (`Poisson`), and a mean
and a variance of the count (`mean and variance`); beside them scikit-learn's linear
Poisson regression and boosting with Poisson's deviance, whose predictions are taken for the rates
of Poisson distributions. `log score` is the mean of minus the log probability of the count, a
density being integrated over the count's unit interval; `CRPS` is in rentals; `coverage` and
`width` are of the central 90 % interval.
DIR (or the environment variable SKSUBNET_DATA) is the folder of the data, see `tabular_data.py`.
"""

import argparse
import datetime
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from tabular_data import FILES, encoder, frame_of
from torch import nn
from versions import versions

from sksubnet import SubnetLaplaceRegressor
from sksubnet.predictive import CompoundPredictive, Mixture, Poisson, Predictive

RESULTS = Path(__file__).with_name("counts_study_results.md")
MOST_SCORED = 2000
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Net(nn.Module):
    def __init__(self, n_features: int = 1, n_outputs: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(n_features, 64), nn.SiLU()),
            *(nn.Linear(64, 64), nn.SiLU()),
            nn.Linear(64, n_outputs),
        )

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layers(X)


class PairsNet(Net):
    """A mean and a variance."""

    def forward(self, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.layers(X).chunk(2, dim=-1)
        return mean, log_variance.exp()


def log_of_one_more() -> FunctionTransformer:
    return FunctionTransformer(np.log1p, np.expm1)


def subnets(criterion: type[nn.Module], seed: int, **options: Any) -> SubnetLaplaceRegressor:
    """Five folds of a net of the criterion."""
    pairs = criterion is nn.GaussianNLLLoss
    net = NeuralNetRegressor(
        PairsNet if pairs else Net,
        criterion=criterion,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        batch_size=128,
        max_epochs=200,
        callbacks=[EarlyStopping(patience=20, load_best=True)],
        verbose=0,
        **({"module__n_outputs": 2} if pairs else {}),
    )
    return SubnetLaplaceRegressor(net, cv=5, random_state=seed, **options)


MODELS = {
    "Gaussian": lambda seed: subnets(nn.MSELoss, seed),
    "log": lambda seed: subnets(nn.MSELoss, seed, target_transform=log_of_one_more()),
    "Poisson": lambda seed: subnets(nn.PoissonNLLLoss, seed),
    "mean and variance": lambda seed: subnets(nn.GaussianNLLLoss, seed),
    "linear Poisson": lambda seed: PoissonRegressor(max_iter=1000),
    "boosting, Poisson": lambda seed: HistGradientBoostingRegressor(
        loss="poisson", early_stopping=True, random_state=seed
    ),
}


def rentals(folder: Path, seed: int, n_rows: int) -> Split:
    """Hourly rentals, categories one-hot."""
    X, y = frame_of(FILES["bike"], folder)
    train, test = train_test_split(np.arange(len(y)), train_size=n_rows, random_state=seed)
    encode = encoder(X, n_rows, all_levels=False).fit(X.iloc[train])
    test = test[:MOST_SCORED]
    return encode.transform(X.iloc[train]), y[train], encode.transform(X.iloc[test]), y[test]


def synthetic(seed: int, n_rows: int = 600) -> Split:
    """Counts whose log rates curve."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(2 * n_rows, 3))
    y = generator.poisson(np.exp(2 + np.sin(2 * X[:, 0]) + 0.3 * X[:, 1])).astype(float)
    return X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:]


def predictive_of_rate(rate: np.ndarray) -> Predictive:
    """Poisson distributions of these rates."""
    return CompoundPredictive.of_mixture(
        Mixture(torch.as_tensor(np.log(rate))[None, :, None]), Poisson()
    )


def scores(predictive: Any, y: np.ndarray) -> dict[str, float]:
    lower, upper = np.moveaxis(predictive.interval(0.9)[:, 0], -1, 0)
    below = predictive.cdf(y - 0.5), predictive.cdf(y + 0.5)
    return {
        "log score": float(-np.log((below[1] - below[0]).clip(1e-300)).mean()),
        "CRPS": float(predictive.crps(y).mean()),
        "RMSE": float(np.sqrt(np.mean((predictive.mean.numpy()[:, 0] - y) ** 2))),
        "coverage": float(np.mean((lower <= y) & (y <= upper))),
        "width": float(np.mean(upper - lower)),
    }


def measured(model: Any, split: Split) -> dict[str, float]:
    X, y, test_X, test_y = split
    start = time.process_time()
    scaler = StandardScaler().fit(X)
    X, test_X = scaler.transform(X), scaler.transform(test_X)
    if isinstance(model, SubnetLaplaceRegressor):
        X, test_X = X.astype(np.float32), test_X.astype(np.float32)
    model.fit(X, y)
    seconds = time.process_time() - start
    if isinstance(model, SubnetLaplaceRegressor):
        predictive = model.predictive(test_X)
    else:
        predictive = predictive_of_rate(model.predict(test_X))
    return {**scores(predictive, test_y), "seconds": seconds}


def table_of(found: dict[str, list[dict[str, float]]]) -> str:
    """Means and standard errors over the draws."""
    columns = list(next(iter(found.values()))[0])
    lines = ["| model | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name, each in found.items():
        cells = []
        for column in columns:
            values = np.array([one[column] for one in each])
            cells.append(f"{values.mean():.3f} ± {stats.sem(values) if len(each) > 1 else 0:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKSUBNET_DATA"), help="folder of data")
    parser.add_argument("--rows", type=int, default=3000, help="training rows")
    parser.add_argument("--repeats", type=int, default=3, help="random draws of the rows")
    parser.add_argument("--quick", action="store_true", help="synthetic counts, one draw")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("the data are missing: give --data DIR or set SKSUBNET_DATA")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MODELS}
    for seed in range(1 if arguments.quick else arguments.repeats):
        if arguments.quick:
            split = synthetic(seed)
        else:
            split = rentals(Path(arguments.data), seed, arguments.rows)
        for name, build in MODELS.items():
            found[name].append(measured(build(seed), split))
            print(seed, name, {k: round(v, 3) for k, v in found[name][-1].items()}, flush=True)
    text = table_of(found)
    print(text)
    if not arguments.quick:
        command = f"counts_study.py --rows {arguments.rows} --repeats {arguments.repeats}"
        head = f"`{command}`,\n{datetime.date.today()}; {versions()}; one thread."
        RESULTS.write_text(f"# Likelihoods for counts\n\n{head}\n\n{text}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main()
