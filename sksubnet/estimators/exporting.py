"""A fitted estimator as an ONNX graph: what of a prediction is a closed form of raw rows."""

from __future__ import annotations

import copy
import json
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sksubnet.estimators.fitted import FittedNet
from sksubnet.estimators.linearised import LinearisedNet
from sksubnet.nets import LOG_VARIANCE_LIMIT, Encoding, NoiseNet, check_writable, write_whole
from sksubnet.posterior import noise_of
from sksubnet.predictive import SIGN_LINKS, Gaussian, Likelihood

if TYPE_CHECKING:
    from sksubnet.estimators.base import BayesianNet

PROBE_ROWS = 16
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""How far the graph may be from predictions, as a share of the largest, by the net's dtype."""


class Encoded(nn.Module):
    """An ``Encoding`` of columns of numbers: (N, F) -> (N, n_inputs)."""

    fill: Tensor
    holes: Tensor
    others: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.counts_novel = encoding.counts_novel
        others = np.setdiff1d(np.arange(len(encoding.fill)), encoding.holes)
        parts = {"fill": encoding.fill, "holes": encoding.holes, "others": others}
        for name, value in {**parts, "center": encoding.center, "scale": encoding.scale}.items():
            self.register_buffer(name, torch.as_tensor(value))

    def forward(self, X: Tensor) -> Tensor:
        """Standardise; a missing number is told by inputs of its own."""
        if self.counts_novel:
            missing = torch.isnan(X)
            found = missing.to(X.dtype)
            novel = found[:, self.others].sum(dim=1, keepdim=True)
            X = torch.cat([torch.where(missing, self.fill, X), found[:, self.holes], novel], dim=1)
        return ((X - self.center) * self.scale).clamp(-1e9, 1e9)


class NoiseByRow(nn.Module):
    """A ``NoiseNet``: inputs (N, ...) of the net to noise variances (N, C)."""

    def __init__(self, noise: NoiseNet) -> None:
        super().__init__()
        self.encodings = nn.ModuleList(Encoded(encoding) for encoding in noise.encodings)
        self.nets = nn.ModuleList(copy.deepcopy(one.module).eval() for one in noise.latents)
        self.dtypes = [latent.dtype for latent in noise.latents]
        self.levels = noise.levels

    def forward(self, X: Tensor) -> Tensor:
        """Average the variances of the nets."""
        rows, parts = X.flatten(1).double(), []
        for k, level in enumerate(self.levels):
            change = self.nets[k](self.encodings[k](rows).to(self.dtypes[k])).double()
            parts.append(level * change.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT).exp())
        return torch.stack(parts).mean(dim=0)


class Seen(nn.Module):
    """A layer that hands out what went into it."""

    def __init__(self, layer: nn.Module, inputs: list[Tensor]) -> None:
        super().__init__()
        self.layer, self.inputs = layer, inputs

    def forward(self, X: Tensor) -> Tensor:
        """Run the layer."""
        self.inputs.append(X)
        output: Tensor = self.layer(X)
        return output


@dataclass(frozen=True, eq=False)
class LayerPosterior:
    """Posterior over weights of one linear layer: which input (S,), to which output (C, S)."""

    place: Tensor
    of_output: Tensor
    covariance: Tensor
    shift: Tensor | None

    def jacobian(self, inputs: Tensor) -> Tensor:
        """Jacobian (N, C, S) of the layer at its inputs (N, H)."""
        inputs = inputs.double()
        with_bias = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
        return with_bias[:, self.place][:, None, :] * self.of_output


class Graph(nn.Module):
    """Raw rows (N, ...) to what an estimator says of them."""

    def __init__(self, net: FittedNet, encoding: Encoding | None, units: Any) -> None:
        super().__init__()
        self.encode = nn.Identity() if encoding is None else Encoded(encoding)
        self.module = copy.deepcopy(net.latent.module).eval()
        self.of_probabilities, self.dtype = net.latent.of_probabilities, net.latent.dtype
        self.likelihood: Likelihood = net.likelihood
        self.link = getattr(net, "link", "")
        self.units: tuple[Tensor, Tensor] | None = units
        likelihood = net.likelihood
        self.noise = None if net.noise is None else NoiseByRow(net.noise)
        self.constant_noise: Tensor | None = None
        if isinstance(likelihood, Gaussian):
            self.constant_noise = likelihood.noise_variance.double()
        self.seen: list[Tensor] = []
        self.posterior: LayerPosterior | None = None

    def watch(self, name: str, posterior: LayerPosterior) -> None:
        """Take the posterior over a layer's weights into the graph."""
        parent, _, last = name.rpartition(".")
        home = self.module.get_submodule(parent)
        if name:
            setattr(home, last, Seen(getattr(home, last), self.seen))
        else:
            self.module = Seen(self.module, self.seen)
        self.posterior = posterior

    def inputs(self, X: Tensor) -> Tensor:
        """Give inputs (N, ...) of the net."""
        inputs: Tensor = self.encode(X).to(self.dtype)
        return inputs

    def noise_variance(self, inputs: Tensor) -> Tensor | None:
        """Noise variance of rows of inputs, (N, C) or (C,), where the likelihood has one."""
        if self.noise is None:
            return self.constant_noise
        variance: Tensor = self.noise(inputs)
        return variance

    def latents(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents (N, C), and their covariance (N, C, C) where it is in closed form."""
        self.seen.clear()
        outputs: Tensor = self.module(inputs)
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if self.of_probabilities:
            outputs = torch.log(outputs + torch.finfo(outputs.dtype).eps)
        latents = outputs.double()
        if self.posterior is None:
            return latents, None
        rows = self.posterior.jacobian(self.seen.pop())
        if self.posterior.shift is not None:
            latents = latents + rows @ self.posterior.shift
        return latents, rows @ self.posterior.covariance @ rows.mT

    def named(self, X: Tensor) -> dict[str, Tensor]:
        """All outputs of the graph by their names."""
        inputs = self.inputs(X)
        latents, covariance = self.latents(inputs)
        variance = None
        if covariance is not None:
            variance = covariance.diagonal(dim1=1, dim2=2).clamp_min(0)
        if self.likelihood.task in ("classification", "multilabel"):
            if covariance is None or variance is None:
                return {"logits": latents, "probabilities": self.likelihood.probabilities(latents)}
            found = {"logits": latents, "variance": variance}
            if self.link in SIGN_LINKS:
                likelihood, link = self.likelihood, self.link
                mixed = likelihood.predictive_probabilities(latents, covariance, link)
                found["probabilities"] = mixed
            return found
        if self.units is None:
            return {"outputs": latents}
        mean, scale = self.units
        found = {"mean": latents * scale + mean}
        noise = self.noise_variance(inputs)
        assert noise is not None
        if variance is not None:
            found["epistemic_std"] = variance.sqrt() * scale
            found["std"] = (variance + noise).sqrt() * scale
        found["aleatoric_std"] = noise.expand_as(latents).sqrt() * scale
        return found

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        """All outputs, in the order of ``named``."""
        return tuple(self.named(X).values())


MEANINGS = {
    "mean": "mean of each target",
    "std": "standard deviation of each target, that of the noise included",
    "epistemic_std": "standard deviation of the mean under the posterior",
    "aleatoric_std": "standard deviation of the noise of each target",
    "logits": "outputs of the trained net",
    "variance": "variance of the logits under the posterior",
    "probabilities": "probabilities of the classes, or of each label",
    "outputs": "outputs of the trained net, as its criterion means them",
}
WITH_POSTERIOR = "The posterior is in the graph, in closed form."
WITHOUT_POSTERIOR = (
    "The posterior is not in the graph: these are answers of the trained net alone, without its "
    "uncertainty."
)


def export_onnx(estimator: BayesianNet, path: str | os.PathLike[str]) -> None:
    """Write the graph of an estimator, after it has been compared with its predictions."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export_onnx needs onnx and onnxscript; the extra is sksubnet[onnx]."
        ) from error
    check_is_fitted(estimator)
    check_writable(path)
    net, encoding = exported_net(estimator), None
    if estimator._tabular is not None:
        encoding = estimator._encoding
        if encoding.levels:
            columns = [repr(estimator._columns.names[j]) for j in encoding.levels]
            raise ValueError(
                f"Columns {', '.join(columns[:5])} are categories, and a graph takes numbers only. "
                "Encode them before the estimator, for example with OneHotEncoder, and export the "
                "last step."
            )
    rows = probe(estimator, encoding)
    graph = Graph(net, encoding, units_of(estimator, net)).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about itself
        placed = place_posterior(graph, net, rows, estimator)
        names = list(graph.named(rows))
        dimensions = {"X": {0: torch.export.Dim("n_rows")}}
        exported = torch.onnx.export(
            graph,
            (rows,),
            input_names=["X"],
            output_names=names,
            dynamic_shapes=dimensions,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    outputs = exported.model.graph.outputs
    for node in exported.model.graph:
        for value in node.outputs:
            # torch names values by what makes them, such as a mean, without a look at our names
            if value.name in names and not any(value is output for output in outputs):
                value.name = f"{value.name}_within"
    model = exported.model_proto
    facts = {"posterior": WITH_POSTERIOR if placed else WITHOUT_POSTERIOR}
    facts["outputs"] = json.dumps({name: MEANINGS[name] for name in names})
    if hasattr(estimator, "classes_"):
        facts["classes"] = json.dumps([str(label) for label in np.ravel(estimator.classes_)])
    onnx.helper.set_model_props(model, {f"sksubnet.{k}": v for k, v in facts.items()})
    write_whole(path, model.SerializeToString())


def exported_net(estimator: BayesianNet) -> FittedNet:
    """Return the only net of an estimator whose predictions one net gives."""
    nets = estimator._fitted_nets()
    if "folds_" not in vars(estimator):
        raise ValueError("A graph holds one net: export each of estimators_ by itself.")
    if len(nets) > 1:
        raise ValueError(
            f"This fit has {len(nets)} nets, and a graph holds one. Fit with refit=True, which "
            "ends in one net of all rows, or with cv=None."
        )
    if getattr(estimator, "target_transform_", None) is not None:
        raise ValueError(
            "The mean of a target with a target_transform is no closed form of the net's outputs. "
            "Fit on transformed targets, without target_transform, and transform what the graph "
            "says."
        )
    return nets[0]


def units_of(estimator: BayesianNet, net: FittedNet) -> tuple[Tensor, Tensor] | None:
    """Mean and scale (C,) of the targets, where the latents are means of them."""
    if not isinstance(net.likelihood, Gaussian):
        return None
    mean, scale = (getattr(estimator, name) for name in ("_y_mean", "_y_scale"))
    return torch.as_tensor(mean).double(), torch.as_tensor(scale).double()


def probe(estimator: BayesianNet, encoding: Encoding | None) -> Tensor:
    """Random rows (n, ...), for the default net in the range of its columns."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(PROBE_ROWS, *estimator._row_shape, generator=generator, dtype=torch.float64)
    if encoding is None:
        return rows
    n_numbers = len(encoding.fill)
    spread = np.divide(
        1.0, encoding.scale, out=np.ones_like(encoding.scale), where=encoding.scale > 0
    )
    return rows * torch.as_tensor(spread[:n_numbers]) + torch.as_tensor(encoding.fill)


def place_posterior(graph: Graph, net: FittedNet, rows: Tensor, estimator: BayesianNet) -> bool:
    """Take the posterior into the graph where it is in closed form there; return whether it is.

    Raise where the graph is not the net: one that reads its rows by code of its own.
    """
    (batch,) = estimator._batches(rows.numpy(), PROBE_ROWS)
    inputs = graph.inputs(rows)
    same = is_close(graph.latents(inputs)[0], net.map(batch), graph.dtype)
    noise = graph.noise_variance(inputs)
    if noise is not None:
        same = same and is_close(noise, noise_of(net.likelihood_at(batch)), graph.dtype)
    if not same:
        raise ValueError(
            "The net's module on rows as they are does not give what the net does, which has code "
            "of its own for its rows or outputs; export that with torch.onnx.export yourself."
        )
    if not isinstance(net, LinearisedNet):
        return False
    moved = net.shift is not None
    for name, found in layer_posteriors(net):
        watched = Graph(net, None, graph.units)
        watched.watch(name, found)
        latents, covariance = watched.latents(inputs)
        _, jacobian = net.posterior.jacobian(net.latent, net.plan, batch)
        true = net.posterior.covariance(jacobian)
        close = covariance is not None and is_close(covariance, true, graph.dtype)
        if close and is_close(latents, net.means(batch), graph.dtype):
            graph.watch(name, found)
            return True
    if moved:
        raise ValueError(
            "update has moved weights whose effect on the outputs is no closed form of a layer, so "
            "the graph would not predict as the estimator does. Fit again with all rows instead."
        )
    return False


def layer_posteriors(net: LinearisedNet) -> list[tuple[str, LayerPosterior]]:
    """Linear layers, by name, that hold all selected weights, with the posterior over these."""
    module = net.latent.module
    begins, start = dict[Tensor, int](), 0
    for parameter in module.parameters():
        begins[parameter] = start
        start += parameter.numel()
    chosen = torch.as_tensor(net.subnetwork.indices)
    try:
        covariance = net.posterior.covariance(torch.eye(len(chosen), dtype=torch.float64))
    except (AttributeError, TypeError):  # of one by rows, which are no part of a graph
        return []
    found = []
    for name, layer in module.named_modules():
        if type(layer) is not nn.Linear:
            continue
        place = torch.full_like(chosen, -1)
        of_output = torch.zeros(layer.out_features, len(chosen), dtype=torch.float64)
        first = begins[layer.weight]
        inside = (chosen >= first) & (chosen < first + layer.weight.numel())
        place[inside] = (chosen[inside] - first) % layer.in_features
        output = torch.div(chosen - first, layer.in_features, rounding_mode="floor")
        if layer.bias is not None:
            first = begins[layer.bias]
            biases = (chosen >= first) & (chosen < first + layer.bias.numel())
            place[biases] = layer.in_features
            output = torch.where(biases, chosen - first, output)
        if bool((place >= 0).all()):
            of_output[output, torch.arange(len(chosen))] = 1.0
            found.append((name, LayerPosterior(place, of_output, covariance, net.shift)))
    return found


def is_close(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether two tensors of one shape agree up to rounding in this type."""
    if one.shape != other.shape:
        return False
    largest = other.abs().max().clamp_min(1e-300)
    return bool(((one - other).abs() <= TOLERANCE[dtype] * largest).all())
