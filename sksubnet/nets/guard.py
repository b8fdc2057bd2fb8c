"""Whether all that a net has of its own between rows and predictions goes our way."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from sksubnet.jacobian import evaluate
from sksubnet.nets.criteria import BatchWeights, with_row_weights
from sksubnet.nets.first_pass import Returned
from sksubnet.nets.inputs import (
    gives_probabilities,
    hooks,
    inputs_of,
    latent_of,
    overridden,
    readable,
    reads_plainly,
    targets_of,
)
from sksubnet.nets.loading import inputs_cast
from sksubnet.nets.randomness import RandomStream
from sksubnet.predictive import Likelihood, criterion_row_weights

ROUNDING = 1e-3
"""How far probabilities of any dtype may be from 1 in sum."""

LAST_STEPS = {nn.CrossEntropyLoss: "Softmax", nn.BCEWithLogitsLoss: "Sigmoid"}
"""What a criterion does to outputs itself."""

VIEWS = ("View", "Squeeze", "Unsqueeze", "Reshape", "UnsafeView", "Alias", "Clone", "ToCopy")
"""What torch calls the steps that change nothing but the shape."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def check_reading(
    net: NeuralNet, rows: Tensor, y: np.ndarray | None, likelihood: Likelihood
) -> None:
    """Raise unless the net's own predictions of some rows are those of its latents.

    Both at its present weights, and twice. ``y`` are the targets to train with, ``None`` where the
    net is trained already. The random states of the fit and of the process stay.
    """
    X = rows.cpu().numpy()
    latent = latent_of(net)
    latent.module.eval()
    with RandomStream(0).everywhere(), inputs_cast(net, rows.dtype):
        inputs = inputs_of(net, rows.clone())
        outputs = evaluate(Returned(latent), inputs)
    check_outputs(net, outputs)
    if y is not None and "get_loss" in overridden(net):
        check_loss(net, inputs, outputs, torch.as_tensor(y.copy(), device=rows.device))
    with RandomStream(0).everywhere(), torch.no_grad(), inputs_cast(net, rows.dtype):
        theirs = [_own_predictions(net, X, likelihood) for _ in range(2)]
        latents = [latent(inputs_of(net, rows.clone())) for _ in range(2)]
        given = None if y is None or reads_plainly(net) else targets_of(net, X, y)
    tolerance = TOLERANCE[rows.dtype]
    where = ", ".join(hooks(net))
    if not (_equal(theirs[0], theirs[1], tolerance) and _equal(latents[0], latents[1], tolerance)):
        raise ValueError(
            "The net gives other predictions of the same rows when it is asked again, so something "
            f"in it draws at random outside of training: look at {where}. Let it draw only while "
            "the module is in training mode, for example in a layer of the module."
        )
    ours = _ours(latents[0], likelihood)
    if not any(_equal(theirs[0], expected, tolerance) for expected in ours):
        raise ValueError(
            f"The net's own predictions are not the {_kind(likelihood)} that its criterion stands "
            f"for (first row: {_first(theirs[0])} and {_first(ours[0])}), so uncertainty would be "
            f"that of another function. Look at {where}: what they do to rows belongs into dataset "
            "or infer, what they do to outputs into the module, and probabilities have to be those "
            "of the criterion."
        )
    if given is not None and not _equal(given, torch.as_tensor(y), 1e-5):
        raise ValueError(
            f"The net's data set changes y (first target: {_first(given)} instead of "
            f"{_first(torch.as_tensor(y))}); look at {where}. Transform y before fit, for example "
            "with TransformedTargetRegressor."
        )


def check_outputs(net: NeuralNet, outputs: Any) -> None:
    """Raise if the outputs (B, K) of some rows are no probabilities where these are needed.

    Warn where the criterion expects raw outputs and the module gives probabilities.
    """
    criterion = net.criterion_
    if not isinstance(outputs, Tensor) or not outputs.isfinite().all():
        return  # which others tell of
    if isinstance(criterion, nn.NLLLoss) and outputs.ndim == 2:
        _check_probabilities(net, outputs.detach().double())
    step = LAST_STEPS.get(type(criterion))
    if step is not None and _last_step(outputs) == step:
        warnings.warn(
            f"The net's module ends in a {step.lower()}, and its criterion, "
            f"{type(criterion).__name__}, applies another one, so that probabilities come near "
            "neither 0 nor 1. Let the module return what it has before that.",
            UserWarning,
            stacklevel=8,
        )


def _check_probabilities(net: NeuralNet, outputs: Tensor) -> None:
    """Raise if outputs (B, K) under NLLLoss are not what the net takes them for."""
    sums, exponentials = outputs.sum(dim=1), outputs.exp().sum(dim=1)
    first = _first(outputs)
    are_logs = bool((exponentials - 1).abs().max() < ROUNDING)
    if not gives_probabilities(net):
        if are_logs:
            return
        given = "are not the logarithms of probabilities"
    elif are_logs:
        given = "are logarithms of probabilities, and skorch takes the logarithm itself"
    elif bool((outputs < 0).any() or (outputs > 1 + ROUNDING).any()):
        given = "are not probabilities, which lie between 0 and 1"
    elif bool((sums - 1).abs().max() > ROUNDING):
        given = f"are not probabilities of classes, for they add up to {float(sums[0]):.2f}"
    else:
        return
    last = "softmax" if gives_probabilities(net) else "log_softmax"
    raise ValueError(
        f"The net's criterion is NLLLoss, but the outputs of its module {given} (first row: "
        f"{first}). Set criterion=nn.CrossEntropyLoss and let the module return raw outputs, or "
        f"end it in a {last} over the classes."
    )


def _last_step(outputs: Tensor) -> str:
    """Name of the function that made the outputs, such as ``Softmax``; empty if it is not known."""
    node = outputs.grad_fn
    while node is not None and node.name().startswith(VIEWS):
        node = node.next_functions[0][0]
    return "" if node is None else node.name().partition("Backward")[0]


def check_loss(net: NeuralNet, inputs: Any, outputs: Any, y: Tensor) -> None:
    """Raise if the net's own ``get_loss`` is not the criterion's, up to a factor or a penalty.

    Both have the same gradient in the outputs then, but for its length.
    """
    gradients: list[Tensor] = []
    owners = [cls for cls in type(net).__mro__ if "get_loss" in vars(cls)]
    skorchs: Any = next(cls for cls in owners if cls.__module__.startswith("skorch."))
    criterion_ = with_row_weights(net.criterion_, BatchWeights())
    twin = object.__new__(type(net))
    vars(twin).update(vars(net), criterion_=criterion_)
    with RandomStream(0).everywhere():
        for loss_of in (type(net), skorchs):
            # Of several tensors where the module returns so many, such as a mean and a variance.
            own = tree_map_only(Tensor, lambda out: out.detach().clone().requires_grad_(), outputs)
            leaves = tree_leaves(own)
            try:
                loss = loss_of.get_loss(twin, own, y, X=inputs, training=True)
                found = torch.autograd.grad(
                    loss.sum(), leaves, allow_unused=True, materialize_grads=True
                )
            except Exception:  # of a user's code, which training will meet as well
                return
            gradient = torch.cat([part.flatten() for part in found])
            gradients.append(gradient / gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny))
    if float((gradients[0] - gradients[1]).norm()) > 1e-3:
        raise ValueError(
            f"The net's get_loss is not the loss of its criterion, {type(net.criterion_).__name__}"
            ": it moves the outputs elsewhere, so the posterior would be that of another loss. "
            "Set class_weight or sample_weight, or make the loss the criterion and declare what it "
            "stands for, see sksubnet.LikelihoodLoss. Factors, and penalties that do not depend on "
            "the outputs, may stay in get_loss."
        )


def check_classes(net: NeuralNet, labels: np.ndarray) -> None:
    """Raise if the net names its classes in another order than the sorted labels (K,)."""
    classes = getattr(net, "classes", None)
    if classes is None:
        return
    named = list(classes)
    if named not in (labels.tolist(), list(range(len(labels)))):
        raise ValueError(
            f"The net has classes={named}, but its outputs are taken for the sorted labels "
            f"{labels.tolist()}. Leave classes out, or give them in that order; a fitted net has "
            "to be fitted anew with y encoded in that order."
        )


def check_class_weights(net: NeuralNet, n_classes: int) -> None:
    """Raise if the criterion has weights of classes that are none."""
    criterion = net.criterion_
    if isinstance(criterion, nn.BCEWithLogitsLoss) and criterion.weight is not None:
        criterion_row_weights(criterion, torch.zeros(1))  # which refuses it
    for name, length in (("weight", n_classes), ("pos_weight", 1)):
        weight = getattr(criterion, name, None)
        if weight is None:
            continue
        values = torch.as_tensor(weight).double().reshape(-1).tolist()
        if len(values) != length or not all(0 <= value < float("inf") for value in values):
            raise ValueError(
                f"The criterion {type(criterion).__name__} has {name}={values}, the weights of "
                f"classes; give {length} finite numbers of at least 0, or set class_weight of the "
                "estimator."
            )
        if sum(value > 0 for value in values) < min(2, length):
            raise ValueError(
                f"The criterion {type(criterion).__name__} has {name}={values}, which leaves fewer "
                "than 2 classes with a positive weight."
            )


def check_labels(net: NeuralNet) -> None:
    """Raise if a net for two classes is to predict several labels."""
    if isinstance(net, NeuralNetBinaryClassifier):
        raise ValueError(
            "y has several labels for each row, but a NeuralNetBinaryClassifier has one output; "
            "take NeuralNetClassifier(module, criterion=BCEWithLogitsLoss) with an output for each "
            "label."
        )


def check_threshold(net: NeuralNet) -> None:
    """Raise if a binary net decides at another probability than one half."""
    if isinstance(net, NeuralNetBinaryClassifier) and net.threshold != 0.5:
        raise ValueError(
            f"The net has threshold={net.threshold}, which predictions of this estimator would not "
            "use. Leave it at 0.5, and put sklearn.model_selection.FixedThresholdClassifier("
            f"estimator, threshold={net.threshold}) around this estimator."
        )


def _own_predictions(net: NeuralNet, X: np.ndarray, likelihood: Likelihood) -> Tensor:
    """Return what the net itself predicts, (N, K) probabilities or (N, C) means."""
    predict = net.predict if likelihood.task == "regression" else net.predict_proba
    try:
        found = predict(X.copy())
    except Exception as error:  # of a user's code, which may fail in any way
        if reads_plainly(net):
            raise ValueError(
                f"The net itself cannot predict ({error}); look at {', '.join(hooks(net))}."
            ) from error
        # Its data set may insist on targets.
        found = predict(readable(net, X.copy()))
    return torch.as_tensor(np.asarray(found)).reshape(len(found), -1)


def _ours(latents: Tensor, likelihood: Likelihood) -> list[Tensor]:
    """Return what a net may predict at its latents: these or the means, or probabilities."""
    if likelihood.task != "regression":
        found = likelihood.probabilities(latents)
        # Of several labels, skorch's own classifier gives both probabilities.
        both = [torch.cat([1 - found, found], dim=1)] if likelihood.task == "multilabel" else []
        return [found, *both]
    return [latents, likelihood.mean(latents)]


def _equal(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether two (N, ...) agree up to a share of the size of the rows."""
    if not isinstance(found, Tensor) or found.numel() != expected.numel():
        return False
    expected = expected.double().cpu()
    found = found.double().cpu().reshape(expected.shape)
    # What is not finite is for check_convergence to tell of, with the learning rate.
    size = 1 + float(expected[expected.isfinite()].abs().sum() / max(1, len(expected)))
    return torch.allclose(found, expected, rtol=0, atol=tolerance * size, equal_nan=True)


def _kind(likelihood: Likelihood) -> str:
    return "means" if likelihood.task == "regression" else "probabilities"


def _first(values: Any) -> Any:
    if not isinstance(values, Tensor):
        return values
    return [round(value, 4) for value in values[:1].double().flatten().tolist()[:3]]
