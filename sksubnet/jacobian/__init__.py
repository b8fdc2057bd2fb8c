"""Rows of the Jacobian of a net's outputs in a few of its weights, layer by layer.

A plan says for each selected parameter which rule or fallback differentiates it, checked against
plain autograd on a few rows; `jacobian` and `factored_jacobian` carry it out for a batch. The value
handed on is a `JacobianPlan`. All passes of a net that is only evaluated run on a private copy of
its modules, so that threads may share it. Knows torch only.

Read first: `jacobian` in `rows.py`.
"""

from sksubnet.jacobian.copies import deep_copy, own_rows, private_copy
from sksubnet.jacobian.factored_rows import FactoredRows, LayerRows, dense_part
from sksubnet.jacobian.layer_calls import Model, differentiable, evaluate
from sksubnet.jacobian.plan import (
    PROBE_ROWS,
    JacobianPlan,
    PlannedParameter,
    Site,
    plan_jacobian,
    trained_indices,
)
from sksubnet.jacobian.process_settings import SharedSetting, Turn
from sksubnet.jacobian.rows import factored_jacobian, jacobian, squared_jacobian_sum
from sksubnet.jacobian.threads import products, threads_for, torch_threads

__all__ = [
    "PROBE_ROWS",
    "FactoredRows",
    "JacobianPlan",
    "LayerRows",
    "Model",
    "PlannedParameter",
    "SharedSetting",
    "Site",
    "Turn",
    "deep_copy",
    "dense_part",
    "differentiable",
    "evaluate",
    "factored_jacobian",
    "jacobian",
    "own_rows",
    "plan_jacobian",
    "private_copy",
    "products",
    "squared_jacobian_sum",
    "threads_for",
    "torch_threads",
    "trained_indices",
]
