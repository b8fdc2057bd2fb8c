"""How far single weights are from the best directions: subnetworks against subspaces.

    python examples/paper/subspace.py --data DIR    # six data sets, three seeds: half an hour
    python examples/paper/subspace.py               # only the toy and the digits
    python examples/paper/subspace.py --quick       # only to see it run

A subnetwork varies S of the weights; a subspace varies S directions in the space of all. The best
such subspace for predictions at some reference inputs is known (Faller & Martin, "Optimal subspace
inference for the Laplace approximation", arXiv 2502.02345): with the full posterior's precision
H = L Lᵀ and the Jacobian A of the reference inputs, it is spanned by L⁻ᵀ times the leading right
singular vectors of A L⁻ᵀ. No other S directions keep more of the variance there, so that it is the
ceiling of what a selection of weights can reach. It costs the full posterior, though, and has to
keep S numbers for each weight of the net.

Compared are the share of the full posterior's standard deviation that is kept at test rows, the
log likelihood of these, and the seconds from the trained net to the posterior. `subspace` has
random mixtures of training rows for reference, like "greedy"; `subspace of test` the test rows.
Prior precision and noise are the likeliest for held-out rows, for each method anew; the share is
that under those of the full posterior, and under the prior of its evidence, in which "greedy"
searches. The toy is that of `regression_1d.py`, with its own prior
and noise, scored in the gap. Log likelihoods are in nats, of standardised targets.

DIR (or the environment variable SKSUBNET_DATA) is the folder of the data.
"""

import argparse
import copy
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from common import carried_out, one_thread, options, parsed, publish
from regression_1d import process, toy_of
from selection_toy import train
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from study_data import silent
from torch import Tensor, nn
from uci import Shape, net_of, rows_of

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor
from sksubnet.predictive import Categorical, Gaussian, Likelihood
from sksubnet.selection.reference import evidence_precision

TABLES = ("concrete", "wine", "kin8nm")
KINDS = ("standard", "gap")
PARTS = {0.01: "1 %", 0.03: "3 %", 0.1: "10 %"}
RULES = ("greedy", "gradient", "swag", "random")
N_REFERENCES = 256
PRECISIONS = torch.logspace(-3, 4, 36, dtype=torch.float64)
NOISES = torch.logspace(-1, 0.5, 16, dtype=torch.float64)


class Job(NamedTuple):
    """A data set, the seed of its net, and what the posterior is over: a share of the weights."""

    data: str
    seed: int
    method: str
    part: float


class Rows(NamedTuple):
    """Inputs (N, ...), and targets (N,), with a variance of their own where these are means."""

    X: Tensor
    y: Tensor
    variance: Tensor | float = 0.0


class Linearised(NamedTuple):
    """Outputs (N, C) of a net and their Jacobian (N, C, P) in the weights without biases."""

    outputs: Tensor
    jacobian: Tensor

    def factors(self, likelihood: Likelihood) -> Tensor:
        """Rows Φ (n, P) with the Gauss-Newton matrix ΦᵀΦ."""
        root = likelihood.hessian_root(self.outputs)
        return torch.einsum("bck,bcp->bkp", root, self.jacobian).flatten(0, 1)

    def references(self) -> Tensor:
        """Jacobian rows (N·C, P), less what all classes share, which changes no probability."""
        rows = self.jacobian
        if rows.shape[1] > 1:
            rows = rows - rows.mean(1, keepdim=True)
        return rows.flatten(0, 1)


class Problem(NamedTuple):
    """A trained net, linearised at all of its rows; `fixed` has neither prior nor noise to tune.

    `seconds` are those of the Jacobian at the training rows.
    """

    net: Any
    likelihood: Likelihood
    fixed: bool
    train: Rows
    held_out: Rows
    test: Rows
    factors: Tensor
    at_held_out: Linearised
    at_test: Linearised
    seconds: float


class Chosen(NamedTuple):
    """The posterior in a basis: its spectrum there, and rows (N, C, R) in its eigenvectors."""

    values: Tensor
    held_out: Tensor
    test: Tensor


def best_subspace(factors: Tensor, references: Tensor, precision: float, size: int) -> Tensor:
    """Directions (P, S) whose posterior keeps the most variance at reference rows (m, P).

    Under the Gauss-Newton matrix ΦᵀΦ of factors (n, P) and a prior precision; orthonormal.
    """
    hessian = factors.mT @ factors
    hessian.diagonal().add_(precision)
    root = torch.linalg.cholesky(hessian)
    white = torch.linalg.solve_triangular(root, references.mT, upper=False)
    leading = torch.linalg.svd(white, full_matrices=False).U[:, :size]
    return torch.linalg.qr(torch.linalg.solve_triangular(root.mT, leading, upper=True)).Q


def weights_of(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters() if not name.endswith("bias")]


def positions(module: nn.Module) -> np.ndarray:
    """Places (P,) of the weights without biases among all parameters."""
    wanted = [
        torch.full((parameter.numel(),), not name.endswith("bias"))
        for name, parameter in module.named_parameters()
    ]
    return torch.cat(wanted).nonzero().squeeze(1).numpy()


def linearised(module: nn.Module, X: Tensor) -> Linearised:
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    weights = {name: parameters[name] for name in weights_of(module)}

    def outputs(own: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(module, {**parameters, **own}, x[None])[0]

    jacobian = torch.func.vmap(torch.func.jacrev(outputs), (None, 0))
    parts = [jacobian(weights, rows) for rows in X.split(256)]
    rows = [torch.cat([part[name].flatten(2) for name in weights], dim=2) for part in parts]
    with torch.no_grad():
        return Linearised(module(X), torch.cat(rows))


def mixtures(X: Tensor, seed: int) -> Tensor:
    """Random mixtures of two rows each."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(X), (2, N_REFERENCES), generator=generator)
    share = torch.rand(N_REFERENCES, 1, generator=generator, dtype=X.dtype)
    return torch.lerp(X[first], X[second], share)


def digit_net(width: int) -> NeuralNetClassifier:
    module = nn.Sequential(
        *(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, 10),
    )
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        batch_size=64,
        iterator_train__shuffle=True,
        max_epochs=200,
        callbacks=[("stop", EarlyStopping(patience=20, load_best=True, sink=silent))],
        callbacks__valid_acc=None,
        callbacks__print_log=None,
        verbose=0,
    )


def trained(net: Any, fitting: Rows, held_out: Rows) -> Any:
    """Train a skorch net that stops by held-out rows."""
    numbers = torch.long if isinstance(net, NeuralNetClassifier) else torch.float32
    X, y, other_X, other_y = (
        t.to(kind)
        for rows in (fitting, held_out)
        for t, kind in ((rows.X, torch.float32), (rows.y, numbers))
    )
    if numbers != torch.long:
        y, other_y = y[:, None], other_y[:, None]
    net.set_params(train_split=predefined_split(Dataset(other_X.numpy(), other_y.numpy())))
    return net.fit(X.numpy(), y.numpy())


def split(X: np.ndarray, y: np.ndarray, share: float, seed: int, by: Any = None) -> list[Rows]:
    parts = train_test_split(X, y, test_size=share, random_state=seed, stratify=by)
    tensors = [torch.as_tensor(part) for part in parts]
    return [Rows(tensors[0].double(), tensors[2]), Rows(tensors[1].double(), tensors[3])]


def toy_problem(folder: Path | None, seed: int, hidden: int) -> tuple[Any, Likelihood, list[Rows]]:
    """The toy has no held-out rows; its test rows are the distribution of targets in the gap."""
    toy = toy_of(folder)
    X = toy.gap_inputs()
    truth = process(toy, X)
    known = Rows(torch.as_tensor(toy.X), torch.as_tensor(toy.y))
    test = Rows(*map(torch.as_tensor, (X, truth.mean, truth.variance)))
    noise = Gaussian(torch.tensor([toy.noise**2], dtype=torch.float64))
    return train(toy, nn.ReLU, seed, hidden), noise, [known, known, test]


def digits_problem(seed: int) -> tuple[Any, Likelihood, list[Rows]]:
    X, y = load_digits(return_X_y=True)
    rest, test = split(X / 16, y, 0.3, seed, y)
    fitting, held_out = split(rest.X.numpy(), rest.y.numpy(), 0.2, seed, rest.y.numpy())
    torch.manual_seed(seed)
    net = trained(digit_net(16), fitting, held_out)
    return net, Categorical(), [fitting, held_out, test]


def table_problem(data: str, folder: Path | None, seed: int) -> tuple[Any, Likelihood, list[Rows]]:
    """A UCI split; targets are standardised, and the noise is that of the held-out rows."""
    name, kind = data.split()
    rows = rows_of(name, kind, seed, folder)
    scale, centre = rows.y.std(), rows.y.mean()
    fitting, held_out = split(rows.X, (rows.y - centre) / scale, 0.2, seed)
    X, y = rows.tests[kind]
    test = Rows(torch.as_tensor(X).double(), torch.as_tensor((y - centre) / scale))
    torch.manual_seed(seed)
    net = trained(net_of(Shape(40, 2), rows.X.shape[1], "cpu"), fitting, held_out)
    residuals = net.predict(held_out.X.float().numpy())[:, 0] - held_out.y.numpy()
    noise = Gaussian(torch.tensor([np.mean(residuals**2)], dtype=torch.float64))
    return net, noise, [fitting, held_out, test]


@lru_cache(maxsize=1)
def problem_of(data: str, seed: int, folder: Path | None, hidden: int) -> Problem:
    """All that the methods of a net share."""
    if data == "toy":
        net, likelihood, rows = toy_problem(folder, seed, hidden)
    elif data == "digits":
        net, likelihood, rows = digits_problem(seed)
    else:
        net, likelihood, rows = table_problem(data, folder, seed)
    module = copy.deepcopy(net.module_).double()
    start = time.perf_counter()
    factors = linearised(module, rows[0].X).factors(likelihood)
    seconds = time.perf_counter() - start
    others = [linearised(module, part.X) for part in rows[1:]]
    return Problem(net, likelihood, data == "toy", *rows, factors, *others, seconds)


def positions_by(problem: Problem, seed: int, **chosen: Any) -> Tensor:
    """Places (S,) of the weights of a subnetwork among those without biases."""
    shared = {"prior_precision": 1.0, "random_state": seed, **chosen}
    net, X, y = FrozenEstimator(problem.net), problem.train.X.numpy(), problem.train.y.numpy()
    if isinstance(problem.likelihood, Categorical):
        model: Any = SubnetLaplaceClassifier(net, **shared)
    else:
        noise = float(problem.likelihood.noise_variance[0] ** 0.5)
        model = SubnetLaplaceRegressor(net, noise=noise, normalize_y=False, **shared)
    indices = model.fit(X, y).subnetwork_.indices
    return torch.as_tensor(np.searchsorted(positions(problem.net.module_), indices))


def in_basis(problem: Problem, basis: Tensor) -> Chosen:
    """The posterior in the span of orthonormal directions (P, S), or places (S,) of weights."""
    places = basis.ndim == 1
    factors, *rows = (
        part[..., basis] if places else part @ basis
        for part in (problem.factors, problem.at_held_out.jacobian, problem.at_test.jacobian)
    )
    values, vectors = torch.linalg.eigh(factors.mT @ factors)
    return Chosen(values.clamp(min=0), *(part @ vectors for part in rows))


def covariances(values: Tensor, rows: Tensor, precision: float, noise: float) -> Tensor:
    """Covariance (N, C, C) of the outputs, for a noise that many times as large."""
    spectrum = values / noise + precision
    if rows.shape[1] == 1:  # many products of single rows are slow
        return (rows.square() @ (1 / spectrum))[..., None]
    white = rows * spectrum.rsqrt()
    return white @ white.mT


def losses(
    problem: Problem, of: Linearised, rows: Rows, covariance: Tensor, noise: float
) -> Tensor:
    """Negative log likelihood of each row."""
    if isinstance(problem.likelihood, Categorical):
        p = problem.likelihood.predictive_probabilities(of.outputs, covariance)
        return -p[torch.arange(len(p)), rows.y.long()].clamp(min=1e-16).log()
    variance = covariance[:, 0, 0] + noise * problem.likelihood.noise_variance
    misfit = (of.outputs[:, 0] - rows.y) ** 2 + rows.variance
    return (torch.log(2 * torch.pi * variance) + misfit / variance) / 2


def tuned(problem: Problem, chosen: Chosen) -> tuple[float, float]:
    """Prior precision and factor of the noise that are the likeliest for the held-out rows."""
    if problem.fixed:
        return 1.0, 1.0
    noises = [1.0] if isinstance(problem.likelihood, Categorical) else NOISES.tolist()
    found = {}
    for precision in PRECISIONS.tolist():
        for noise in noises:
            covariance = covariances(chosen.values, chosen.held_out, precision, noise)
            loss = losses(problem, problem.at_held_out, problem.held_out, covariance, noise)
            found[precision, noise] = float(loss.mean())
    return min(found, key=found.__getitem__)


def deviations(of: Chosen, precision: float, noise: float) -> Tensor:
    """Standard deviations (N, C) of the outputs of test rows, less what all classes share."""
    rows = of.test
    if rows.shape[1] > 1:
        rows = rows - rows.mean(1, keepdim=True)
    return covariances(of.values, rows, precision, noise).diagonal(dim1=-2, dim2=-1).sqrt()


@lru_cache(maxsize=1)
def full_of(data: str, seed: int, folder: Path | None, hidden: int) -> Any:
    """The full posterior, its prior precision and noise, and the seconds of the estimator."""
    problem = problem_of(data, seed, folder, hidden)
    start = time.perf_counter()
    everything = positions_by(problem, seed, subnetwork_size="all")
    seconds = time.perf_counter() - start
    chosen = in_basis(problem, everything)
    return chosen, *tuned(problem, chosen), seconds


@lru_cache(maxsize=2)
def directions_of(
    data: str, seed: int, folder: Path | None, hidden: int, method: str
) -> tuple[Tensor, float]:
    """Directions (P, S) of the largest of the best subspaces, which the others begin; seconds."""
    problem, (_, precision, _, _) = (f(data, seed, folder, hidden) for f in (problem_of, full_of))
    start = time.perf_counter()
    if method == "subspace of test":
        references = problem.at_test.references()
    else:
        module = copy.deepcopy(problem.net.module_).double()
        references = linearised(module, mixtures(problem.train.X, seed)).references()
    size = round(max(PARTS) * problem.factors.shape[1])
    basis = best_subspace(problem.factors, references, precision, size)
    return basis, time.perf_counter() - start + problem.seconds


def chosen_by(job: Job, folder: Path | None, hidden: int) -> tuple[Chosen, float]:
    """The posterior of a method, and its seconds from the trained net."""
    data = job.data, job.seed, folder, hidden
    problem, (full, _, _, seconds) = problem_of(*data), full_of(*data)
    if job.method == "full":
        return full, seconds
    if job.method == "MAP":
        return Chosen(full.values[:0], full.held_out[..., :0], full.test[..., :0]), 0.0
    size = round(job.part * len(full.values))
    if job.method.startswith("subspace"):
        basis, seconds = directions_of(*data, job.method)
        start = time.perf_counter()
        chosen = in_basis(problem, basis[:, :size])
        return chosen, seconds + time.perf_counter() - start
    start = time.perf_counter()
    named = {"selection": job.method.replace(" ", "_")}
    sized = {"subnetwork_size": size} if job.method in RULES else {}
    places = positions_by(problem, job.seed, **named, **sized)
    seconds = time.perf_counter() - start  # the estimator has its Jacobian and posterior in it
    return in_basis(problem, places), seconds


def measure(job: Job, folder: Path | None, hidden: int) -> dict[str, float]:
    """Share of the full deviation at test rows, log likelihood, and seconds without training."""
    data = job.data, job.seed, folder, hidden
    problem, (full, precision, noise, _) = problem_of(*data), full_of(*data)
    chosen, seconds = chosen_by(job, folder, hidden)
    own = tuned(problem, chosen)
    covariance = covariances(chosen.values, chosen.test, *own)
    loss = losses(problem, problem.at_test, problem.test, covariance, own[1])
    module = problem.net.module_
    weights = torch.cat([module.get_parameter(name).flatten() for name in weights_of(module)])
    evidence = 1.0 if problem.fixed else evidence_precision(full.values, weights.detach())
    found = {"weights": len(chosen.values), "precision": precision, "evidence": evidence}
    for name, prior in {"share": (precision, noise), "share_of_evidence": (evidence, 1.0)}.items():
        found[name] = float((deviations(chosen, *prior) / deviations(full, *prior)).mean())
    return {**found, "log_likelihood": -float(loss.mean()), "seconds": seconds}


def jobs(data: list[str], seeds: int, parts: list[float]) -> list[Job]:
    """One net of every data set first."""
    methods = [("full", 1.0), ("MAP", 0.0), ("last layer", 0.0)]
    for part in parts:
        methods += [(name, part) for name in ("subspace of test", "subspace", *RULES)]
    return [
        Job(name, seed, *method) for seed in range(seeds) for name in data for method in methods
    ]


def table(frame: pd.DataFrame, value: str, digits: int) -> str:
    """Markdown of means ± standard errors over the nets: methods by data sets."""

    def cell(values: pd.Series) -> str:
        error = f" ± {values.sem():.{digits}f}" if len(values) > 1 else ""
        return f"{values.mean():.{digits}f}{error}"

    names = frame["method"] + frame["part"].map(lambda part: " " + PARTS.get(part, ""))
    cells = frame.groupby([names, "data"], sort=False)[value].apply(cell).unstack(sort=False)
    lines = [["", *cells.columns], ["---"] * (len(cells.columns) + 1)]
    lines += [[name.strip(), *row.fillna("")] for name, row in cells.iterrows()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(lines: list[dict[str, Any]]) -> str:
    frame = pd.DataFrame(lines)
    counts = frame.groupby("data", sort=False)["seed"].nunique()
    text = ["Nets: " + ", ".join(f"{name} {n}" for name, n in counts.items()) + "."]
    priors = frame.groupby("data", sort=False)[["precision", "evidence"]].mean().to_dict("index")
    text.append(
        "Prior precision of the full posterior, by held-out rows and by the evidence: "
        + ", ".join(
            f"{name} {p['precision']:.2g} and {p['evidence']:.2g}" for name, p in priors.items()
        )
        + "."
    )
    for value, digits, title in (
        ("share", 2, "Share of the full posterior's standard deviation that is kept at test rows"),
        ("share_of_evidence", 2, "The same share under the prior precision of the evidence"),
        ("log_likelihood", 3, "Log likelihood of a test row"),
        ("seconds", 2, "Seconds from the trained net to the posterior, without the tuning"),
    ):
        text += [f"## {title}", table(frame, value, digits)]
    return "\n\n".join(text)


def main() -> None:
    arguments: argparse.Namespace = parsed(options(__doc__, seeds=3), needs_data=False)
    data = ["toy", "digits"]
    if arguments.data is not None:
        data += [f"{name} {kind}" for name in TABLES for kind in KINDS]
    seeds, hidden, parts = arguments.seeds, 50, list(PARTS)
    if arguments.quick:
        data, seeds, hidden, parts = ["toy"], 1, 12, [0.1]
    measured = partial(measure, folder=arguments.data, hidden=hidden)
    lines = carried_out(jobs(data, seeds, parts), measured, arguments)
    publish(report(lines), "Subnetworks and the best subspaces", arguments)


if __name__ == "__main__":
    one_thread()
    main()
