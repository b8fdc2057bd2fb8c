"""Rows of the Jacobian of a net's outputs in a few of its weights, layer by layer.

A plan says for each selected parameter which rule or fallback differentiates it, checked against
plain autograd on a few rows; `jacobian` and `factored_jacobian` carry it out for a batch. The value
handed on is a `JacobianPlan`. Knows torch only.

Read first: `jacobian` in `rows.py`.
"""

from sksubnet.jacobian.factored_rows import FactoredRows
from sksubnet.jacobian.layer_calls import differentiable
from sksubnet.jacobian.plan import PROBE_ROWS, JacobianPlan, plan_jacobian, trained_indices
from sksubnet.jacobian.rows import factored_jacobian, jacobian, squared_jacobian_sum

__all__ = [
    "PROBE_ROWS",
    "FactoredRows",
    "JacobianPlan",
    "differentiable",
    "factored_jacobian",
    "jacobian",
    "plan_jacobian",
    "squared_jacobian_sum",
    "trained_indices",
]
