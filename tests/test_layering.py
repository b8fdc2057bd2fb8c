"""The package's layout: who may import whom, who may know which library, how long a file may be."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sksubnet"

LEVEL = {
    "caching": 0,
    "comparison_table": 0,
    "convergence": 0,
    "likelihood": 0,
    "loading": 0,
    "memory": 0,
    "metrics": 0,
    "net": 0,
    "progress": 0,
    "table_errors": 0,
    "tabular": 0,
    "trained": 0,
    "widths": 0,
    "cholesky": 1,
    "diagonal": 1,
    "dropout": 1,
    "factored_rows": 1,
    "greedy": 1,
    "jacobian": 1,
    "jacobian_plan": 1,
    "kernel": 1,
    "layer_calls": 1,
    "layer_rules": 1,
    "mixture": 1,
    "posterior": 1,
    "predictive": 1,
    "swag": 1,
    "sweep": 1,
    "weight_draws": 1,
    "curvature": 2,
    "vogn": 2,
    "reference": 3,
    "scores": 3,
    "selection": 3,
    "tuning": 3,
    "comparison": 4,
    "default_scores": 4,
    "_base": 4,
    "_classifier": 4,
    "_regressor": 4,
    "_draws": 5,
    "_deep_ensemble": 5,
    "_ensemble": 5,
    "_map": 5,
    "_mc_dropout": 5,
    "_swag": 5,
    "_variational": 5,
    "_vogn": 5,
    "baselines": 5,
    "_linearised": 5,
    "_options": 4,
    "_subnet": 5,
    "laplace": 5,
}


def below(level: int) -> set[str]:
    return {name for name, other in LEVEL.items() if other < level}


VALUES = {"likelihood", "progress", "trained"}
INFERENCE = {"posterior", "cholesky", "diagonal", "curvature", "swag", "predictive"}
INFERENCE |= {"jacobian", *VALUES}
SHARED = {"predictive", *below(1)}

# A module that is not listed here imports nothing from inside the package.
ALLOWED = {
    "net": {"tabular", "loading", "trained", "widths"},
    "jacobian": {"factored_rows", "jacobian_plan", "layer_calls", *VALUES},
    "jacobian_plan": {"layer_calls", "layer_rules", *VALUES},
    "layer_rules": {"layer_calls", *VALUES},
    "kernel": {"factored_rows", "posterior", *VALUES},
    "diagonal": {"factored_rows", "posterior", *VALUES},
    "posterior": VALUES,
    "mixture": VALUES,
    "predictive": {"mixture", *VALUES},
    "swag": VALUES,
    "weight_draws": VALUES,
    "curvature": {"jacobian", "factored_rows", "cholesky", *VALUES},
    "greedy": {"sweep", "progress"},
    "vogn": {"curvature", "jacobian", "layer_calls", "posterior", "weight_draws", *VALUES},
    "reference": {"sweep", *INFERENCE},
    "scores": {"reference", *INFERENCE},
    "selection": {"greedy", "reference", "scores", *INFERENCE},
    "tuning": INFERENCE,
    "_base": SHARED,
    "_classifier": {"_base", *SHARED},
    "_regressor": {"_base", *SHARED},
    "_draws": below(5),
    "_map": {"_draws", *below(5)},
    "_mc_dropout": {"_draws", *below(5)},
    "_swag": {"_draws", *below(5)},
    "_variational": {"_draws", *below(5)},
    "_vogn": {"_variational", *below(5)},
    "_ensemble": below(5),
    "_deep_ensemble": {"_ensemble", "_map", *below(5)},
    "baselines": {"_deep_ensemble", "_map", "_mc_dropout", "_swag", "_vogn"},
    "default_scores": {"metrics"},
    "comparison": {"comparison_table", "default_scores", "progress"},
    "_linearised": below(5),
    "_options": {"selection"},
    "_subnet": {"_linearised", *below(5)},
    "laplace": {"_subnet", *below(5)},
}

# Tensors only: arrays, labels and estimators stop at level 4.
ARRAY_LIBRARIES = {"numpy", "sklearn", "scipy", "pandas"}
TENSOR_MODULES = {n for n, level in LEVEL.items() if 1 <= level <= 3} | {"likelihood"}
EXCEPTIONS = {
    "predictive": {"numpy"},  # hands out numpy arrays
    "selection": {"numpy"},  # takes the user's index array or mask
}

FILES = sorted(PACKAGE.glob("*.py"))
MODULES = [path.stem for path in FILES if path.stem != "__init__"]


def statements_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the tree, function bodies included, without the bodies of ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.orelse:
                yield statement
                yield from statements_at_run_time(statement)
            continue
        yield child
        yield from statements_at_run_time(child)


def imports(source: str) -> tuple[set[str], set[str]]:
    """Modules of the package that the source imports, and the other top-level packages."""
    inside, outside = set(), set()
    for node in statements_at_run_time(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = "sksubnet" if node.level else ""
            base = ".".join(part for part in (package, node.module) if part)
            # `from sksubnet import net` names modules, `from sksubnet.net import train` objects
            names = (
                [f"{base}.{alias.name}" for alias in node.names] if base == "sksubnet" else [base]
            )
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "sksubnet":
                inside.add(rest.split(".")[0])
            else:
                outside.add(top)
    return inside, outside


def test_the_reader_of_imports_sees_every_form():
    source = """
from typing import TYPE_CHECKING
import numpy.linalg as la
from sksubnet import net
from . import swag
from .jacobian import jacobian
import sksubnet.tuning
if TYPE_CHECKING:
    from skorch import NeuralNet
    from sksubnet.laplace import SubnetLaplaceClassifier
else:
    import scipy
def late():
    from sksubnet.curvature import ggn
"""
    inside, outside = imports(source)
    assert inside == {"net", "swag", "jacobian", "tuning", "curvature"}
    assert outside == {"typing", "numpy", "scipy"}


def test_every_module_has_a_level():
    unknown = set(MODULES) - LEVEL.keys()
    assert not unknown, f"{sorted(unknown)}: give them a level and what they may import, above"


def test_the_table_itself_points_down():
    list(graphlib.TopologicalSorter(ALLOWED).static_order())  # raises where there is a cycle
    assert all(LEVEL[low] <= LEVEL[high] for high, lows in ALLOWED.items() for low in lows)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    inside, _ = imports((PACKAGE / f"{module}.py").read_text())
    upward = inside - ALLOWED.get(module, set())
    assert not upward, f"{module} may not import {sorted(upward)}"


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_where_they_belong(module):
    _, outside = imports((PACKAGE / f"{module}.py").read_text())
    if module != "net":
        assert "skorch" not in outside, "only net.py knows skorch"
    if module in TENSOR_MODULES:
        arrays = (outside & ARRAY_LIBRARIES) - EXCEPTIONS.get(module, set())
        assert not arrays, f"{module} sees tensors only, but imports {sorted(arrays)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_stay_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 320, f"{path.name} has {lines} lines: is it still about one concept?"
