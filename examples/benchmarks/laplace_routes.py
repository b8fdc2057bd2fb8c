"""The routes to a subnetwork's curvature and prediction that laplace_speed.py compares."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.utils.data import DataLoader, TensorDataset

from sksubnet import SubnetLaplaceClassifier
from sksubnet.jacobian.rows import plan_jacobian
from sksubnet.nets.trained import Latent, Rows, TrainedNet
from sksubnet.posterior.curvature import ggn
from sksubnet.predictive.likelihood import Categorical

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from laplace import Laplace
except ImportError:
    Laplace = None

PRIOR_PRECISION = 1.0
STEPS = ("curvature", "prediction")


@dataclass(frozen=True)
class Case:
    """A net of widths (a ConvNet where there are none), N rows and S weights; built on demand."""

    widths: tuple[int, ...]
    n_rows: int
    n_weights: int
    n_outputs: int = 10

    @property
    def title(self) -> str:
        net = "-".join(map(str, (*self.widths, self.n_outputs))) if self.widths else "conv net"
        n_all = sum(p.numel() for p in self.net().parameters())
        return f"{net}, N={self.n_rows}, C={self.n_outputs}, P={n_all}, S={self.n_weights}"

    def net(self) -> nn.Module:
        torch.manual_seed(0)
        if not self.widths:
            return conv_net(self.n_outputs).eval()
        layers: list[nn.Module] = []
        for i, o in zip(self.widths, (*self.widths[1:], self.n_outputs), strict=True):
            layers += [nn.Linear(i, o), nn.ReLU()]
        return nn.Sequential(*layers[:-1]).eval()

    def data(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        shape = (self.widths[0],) if self.widths else (1, 28, 28)
        X = torch.randn(self.n_rows, *shape, generator=generator)
        return X, torch.arange(self.n_rows) % self.n_outputs

    def indices(self, net: nn.Module) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        n_all = sum(p.numel() for p in net.parameters())
        return torch.randperm(n_all, generator=generator)[: self.n_weights].sort().values


def conv_net(n_outputs: int) -> nn.Module:
    """For images of 28 by 28 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, n_outputs)),
    )


class Steps(NamedTuple):
    """What is timed: the GGN (S, S) of all rows, and the latent covariance (N, C, C) of all."""

    curvature: Callable[[], Tensor]
    prediction: Callable[[], Any]


def our_steps(case: Case, batch: int | None) -> Steps:
    """Steps of this library; it chooses its batches itself."""
    net, indices, (X, y) = (module := case.net()), case.indices(module), case.data()
    rows = Rows(X, y, torch.ones(len(X)))
    trained = TrainedNet(net, Latent(net, False), Categorical(), case.n_outputs, rows, None, seed=0)

    def curvature() -> Tensor:
        plan = plan_jacobian(trained.latent, indices, X)
        matrix = ggn(trained, plan, rows).matrix
        assert matrix is not None
        return matrix

    fitted: list[SubnetLaplaceClassifier] = []

    def prediction() -> Any:
        if not fitted:
            fitted.append(fit_ours(case, net, indices, X, y))
        return fitted[0].predictive(inputs)

    inputs = X.numpy()
    return Steps(curvature, prediction)


def fit_ours(
    case: Case, net: nn.Module, indices: Tensor, X: Tensor, y: Tensor
) -> SubnetLaplaceClassifier:
    """Fit around the net as it is."""
    labels = list(range(case.n_outputs))
    frozen = NeuralNetClassifier(net, criterion=nn.CrossEntropyLoss, classes=labels).initialize()
    model = SubnetLaplaceClassifier(
        FrozenEstimator(frozen),
        selection=indices.numpy(),
        prior_precision=PRIOR_PRECISION,
        dtype="float32",
        random_state=0,
    )
    return model.fit(X.numpy(), y.numpy())


def func_steps(case: Case, batch: int) -> Steps:
    """Every row's Jacobian of all weights by torch.func, of which the S columns are then taken."""
    net, indices, (X, _) = (module := case.net()), case.indices(module), case.data()
    weights = {name: p.detach() for name, p in net.named_parameters()}
    root = torch.linalg.qr(torch.randn(case.n_weights, case.n_weights)).Q

    def one_row(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, weights, (x[None],)).squeeze(0)

    def jacobians() -> Iterable[tuple[Tensor, Tensor]]:
        for x in X.split(batch):
            full = vmap(jacrev(one_row), (None, 0))(weights, x)
            columns = torch.cat([j.flatten(2) for j in full.values()], dim=2)
            yield x, columns[..., indices]

    def curvature() -> Tensor:
        total = torch.zeros(case.n_weights, case.n_weights)
        for x, phi in jacobians():
            with torch.no_grad():
                p = net(x).softmax(1)
            hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
            total += torch.einsum("bcs,bct->st", phi, hessian @ phi)
        return total

    def prediction() -> Tensor:
        scaled = [phi @ root for _, phi in jacobians()]
        return torch.cat([a @ a.mT for a in scaled])

    return Steps(curvature, prediction)


def laplace_torch_steps(case: Case, batch: int) -> Steps:
    """Steps of the published implementation, which predicts a batch at a time too."""
    net, indices, (X, y) = (module := case.net()), case.indices(module), case.data()

    def fit(n_rows: int) -> Any:
        options = {"subset_of_weights": "subnetwork", "hessian_structure": "full"}
        la = Laplace(
            net,
            "classification",
            subnetwork_indices=indices,
            prior_precision=PRIOR_PRECISION,
            **options,
        )
        la.fit(DataLoader(TensorDataset(X[:n_rows], y[:n_rows]), batch_size=batch))
        return la

    few = fit(2 * batch)

    def prediction() -> Tensor:
        parts = [few(x, pred_type="glm", link_approx="probit") for x in X.split(batch)]
        return torch.cat(parts)

    return Steps(lambda: fit(len(X)).H, prediction)


def product_steps(case: Case, batch: int | None) -> Steps:
    """Only the products that the sizes imply."""
    A = torch.randn(case.n_rows * case.n_outputs, case.n_weights)
    V = torch.randn(case.n_weights, case.n_weights)
    return Steps(lambda: A.T @ A, lambda: A @ V)


ROUTES: dict[str, Callable[[Case, Any], Steps]] = {
    "sksubnet": our_steps,
    "product": product_steps,
    "torch.func": func_steps,
}
if Laplace is not None:
    ROUTES["laplace-torch"] = laplace_torch_steps
BATCHES = {"torch.func": (8, 32, 128), "laplace-torch": (4, 8, 16, 32)}
