"""Copies of modules: the same values, and no trace of a call on the original."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import reference
import torch
from cases import CASES, Around, Case
from torch import Tensor, nn

from sksubnet.jacobian import jacobian, plan_jacobian, private_copy, trained_indices
from sksubnet.jacobian.copies import deep_copy, own_rows
from sksubnet.jacobian.layer_calls import evaluate, run_forward

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def snapshot(module: nn.Module) -> list[dict[str, Any]]:
    """All attributes of all modules, with the contents of their containers."""
    kinds = (dict, OrderedDict, list, set)
    return [
        {name: kind(v) if (kind := type(v)) in kinds else v for name, v in vars(layer).items()}
        for layer in module.modules()
    ]


def unchanged(before: list[dict[str, Any]], module: nn.Module) -> bool:
    """Whether every attribute is the object that it was, and every container has the same ones."""
    after = snapshot(module)
    return len(before) == len(after) and all(
        old.keys() == new.keys()
        and all(
            old[name] is new[name]
            or (type(old[name]) in (dict, OrderedDict, list, set) and _same(old[name], new[name]))
            for name in old
        )
        for old, new in zip(before, after, strict=True)
    )


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict):
        return list(old) == list(new) and all(old[key] is new[key] for key in old)
    return len(old) == len(new) and all(a is b for a, b in zip(old, new, strict=True))


@every_case
def test_gives_the_same_values(case: Case) -> None:
    module, X = case.build()
    before = snapshot(module)
    assert torch.equal(private_copy(module)(X), module(X))
    assert torch.equal(evaluate(Around(module), X), module(X))
    assert unchanged(before, module)


@every_case
def test_shares_the_weights_and_nothing_that_a_call_may_write(case: Case) -> None:
    module, _ = case.build()
    copied = private_copy(module)
    pairs = list(zip(module.named_modules(), copied.named_modules(), strict=True))
    for (name, layer), (copied_name, copied_layer) in pairs:
        assert name == copied_name
        assert type(copied_layer) is type(layer)
        assert copied_layer is not layer
        assert vars(copied_layer).keys() == vars(layer).keys()
        for key in ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks"):
            assert vars(copied_layer)[key] is not vars(layer)[key]
    tensors = [*module.parameters(), *module.buffers()]
    copies = [*copied.parameters(), *copied.buffers()]
    assert len(tensors) == len(copies)
    assert all(a is b for a, b in zip(tensors, copies, strict=True))


@every_case
def test_a_jacobian_leaves_no_trace(case: Case) -> None:
    module, X = case.build()
    before, rows = snapshot(module), X.clone()
    plan = plan_jacobian(Around(module), trained_indices(module), X[:3])
    jacobian(Around(module), plan, X)
    assert unchanged(before, module)
    assert torch.equal(X, rows)


def test_tells_where_something_changed() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    before = snapshot(module)
    handle = module[0].register_forward_hook(lambda *_: None)
    assert not unchanged(before, module)
    handle.remove()
    assert unchanged(before, module)
    module.last = 1
    assert not unchanged(before, module)


class Keeps(nn.Module):
    """Keeps activations on itself, in a list, in a slot, and by a hook that is its method."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.kept: list[Tensor] = []
        self.alias = self.kept
        self.slot = None
        self.nested = {"layers": [self.second]}
        self.first.register_forward_hook(self.keep)

    def keep(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        self.hidden = output

    def forward(self, X: Tensor) -> Tensor:
        self.first(X)
        self.kept.clear()
        self.kept.append(self.hidden.tanh())
        self.slot = self.alias[0]
        return self.nested["layers"][0](self.slot)


def test_what_forward_keeps_stays_on_the_copy() -> None:
    module, X = Keeps().double(), torch.randn(5, 3, dtype=torch.float64)
    before = snapshot(module)
    expected = module.second(module.first(X).tanh())
    del module.hidden
    copied = private_copy(module)
    assert torch.equal(copied(X), expected)
    assert unchanged(before, module)
    assert module.slot is None
    assert copied.kept is copied.alias
    assert copied.nested["layers"][0] is copied.second
    assert torch.equal(copied.slot, copied.kept[0])


def test_layers_in_containers_and_methods_are_found_by_the_rules() -> None:
    module, X = Keeps().double(), torch.randn(5, 3, dtype=torch.float64)
    plan = plan_jacobian(Around(module), trained_indices(module), X)
    assert all(site.has_rule for p in plan.parameters for site in p.sites)
    assert not plan.row_by_row
    found = jacobian(Around(module), plan, X)[1]
    torch.testing.assert_close(found, reference.jacobian(module, X))


class Closure(nn.Module):
    """Calls its layers through functions that refer to this very object."""

    def __init__(self, bind: Callable[["Closure"], Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.hidden_layer = bind(self)

    def method(self, X: Tensor) -> Tensor:
        return self.first(X).tanh()

    def forward(self, X: Tensor) -> Tensor:
        return self.second(self.hidden_layer(X))


@pytest.mark.parametrize("kind", ["method", "closure"])
def test_functions_that_refer_to_the_original(kind: str) -> None:
    torch.manual_seed(0)
    binds = {"method": lambda net: net.method, "closure": lambda net: lambda X: net.method(X)}
    module, X = Closure(binds[kind]).double(), torch.randn(5, 3, dtype=torch.float64)
    plan = plan_jacobian(Around(module), trained_indices(module), X)
    # What a closure calls is out of sight, so that its weights go row by row.
    assert plan.row_by_row == (("first.weight", "first.bias") if kind == "closure" else ())
    found = jacobian(Around(module), plan, X)[1]
    torch.testing.assert_close(found, reference.jacobian(module, X))


def test_hooks_of_the_user_run() -> None:
    torch.manual_seed(0)
    module, X = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(),
        torch.randn(5, 3),
    )
    X, seen = X.double(), []
    module[0].register_forward_pre_hook(lambda layer, args: (2 * args[0],))
    module[2].register_forward_hook(lambda layer, args, output: output + 1)
    module[1].register_forward_hook(
        lambda layer, args, kwargs, output: seen.append(layer), with_kwargs=True
    )
    expected = module[2].weight @ (module[0].weight @ (2 * X.T) + module[0].bias[:, None]).tanh()
    expected = (expected + module[2].bias[:, None]).T + 1
    seen.clear()
    torch.testing.assert_close(evaluate(Around(module), X), expected)
    assert len(seen) == 1
    assert seen[0] is not module[1]
    plan = plan_jacobian(Around(module), trained_indices(module), X)
    found = jacobian(Around(module), plan, X)[1]
    torch.testing.assert_close(found, reference.jacobian(module, X))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_of_old_sets_the_weight_of_the_copy() -> None:
    module = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.Tanh()).double()
    X = torch.randn(5, 3, dtype=torch.float64)
    expected = module(X)
    before = module[0].weight
    with torch.no_grad():
        module[0].weight_g.mul_(2)
    doubled = 2 * (X @ before.T) + module[0].bias
    torch.testing.assert_close(evaluate(Around(module), X), doubled.tanh())
    assert module[0].weight is before
    assert not torch.equal(doubled.tanh(), expected)
    plan = plan_jacobian(Around(module), trained_indices(module), X)
    found = jacobian(Around(module), plan, X)[1]
    torch.testing.assert_close(found, reference.jacobian(module, X))


def test_shared_layers_stay_shared() -> None:
    layer = nn.Linear(3, 3)
    copied = private_copy(nn.Sequential(layer, nn.Tanh(), layer))
    assert copied[0] is copied[2]
    assert copied[0] is not layer


def test_odd_modules_are_copied() -> None:
    class Uncopyable(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no")

    X = torch.randn(4, 3)
    scripted = torch.jit.script(nn.Linear(3, 3))
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    blocks = nn.ModuleDict({"a": nn.ModuleList([Uncopyable(3, 3)])})
    listed = nn.ParameterList([nn.Parameter(torch.randn(3))])
    for module, call in [
        (blocks, lambda m: m["a"][0](X)),
        (nn.Sequential(scripted, nn.Tanh()), lambda m: m(X)),
        (traced, lambda m: m(X)),
        (listed, lambda m: m[0] * X),
    ]:
        before = snapshot(module)
        assert torch.equal(call(private_copy(module)), call(module))
        assert unchanged(before, module)


def test_rows_are_copied_whatever_holds_them() -> None:
    with torch.inference_mode():
        X = {"x": torch.ones(3, 2), "more": [torch.zeros(3)], "flag": True}
    copied = own_rows(X)
    assert copied["flag"] is True
    assert torch.equal(copied["x"], X["x"])
    assert copied["x"].data_ptr() != X["x"].data_ptr()
    assert copied["more"][0].data_ptr() != X["more"][0].data_ptr()
    assert not copied["x"].is_inference()


def test_in_place_layers_leave_the_rows() -> None:
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)).double()
    X = torch.randn(5, 3, dtype=torch.float64)
    before = X.clone()
    plan = plan_jacobian(Around(module), trained_indices(module), X)
    jacobian(Around(module), plan, X)
    evaluate(Around(module), X)
    assert torch.equal(X, before)


def test_deep_copy_has_its_own_weights_and_takes_what_forward_left() -> None:
    module, X = Keeps().double(), torch.randn(5, 3, dtype=torch.float64)
    expected = module(X)  # leaves tensors with a graph behind
    copied = deep_copy(module)
    assert torch.equal(copied(X), expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(module(X), expected)


class Slotted(nn.Linear):
    __slots__ = ("kept", "unset")


def test_slots_are_copied_where_they_are_set() -> None:
    module = Slotted(2, 2)
    module.kept = [module]
    copied = private_copy(module)
    assert copied.kept == [copied] and module.kept == [module]
    assert not hasattr(copied, "unset")


class Beside:
    """Slots that are no attributes of a module: one with a private name, one of weak references."""

    __slots__ = ("__kept", "__weakref__")

    def keep(self, value: Any) -> None:
        self.__kept = value

    def read(self) -> Any:
        return self.__kept


class SlottedBeside(nn.Linear, Beside):
    __slots__ = "text"


def test_slots_of_a_class_beside_the_module_are_copied() -> None:
    module = SlottedBeside(2, 2)
    module.text = "some"
    module.keep([module])
    copied = private_copy(module)
    assert copied.text == "some"
    assert copied.read() == [copied] and module.read() == [module]


@pytest.mark.parametrize("name", ["residual_inplace", "tied", "encoder", "attention", "lstm"])
def test_threads_get_what_one_gets(name: str) -> None:
    module, X = next(case for case in CASES if case.name == name).build()
    model = Around(module)
    plan = plan_jacobian(model, trained_indices(module), X)
    parts = [X[: 2 + i] for i in range(len(X) - 1)]
    expected = [jacobian(model, plan, part) for part in parts]
    failures: list[Any] = []

    def work(start: int) -> None:
        for i in range(start, start + 10):
            part = i % len(parts)
            try:
                outputs, rows = jacobian(model, plan, parts[part])
                # Which kernel attention uses is a setting of the process, so up to rounding.
                torch.testing.assert_close(outputs, expected[part][0], rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(rows, expected[part][1], rtol=1e-12, atol=1e-12)
            except Exception as error:
                failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures


def test_recorded_calls_are_those_of_the_copy() -> None:
    module, X = CASES[0].build()
    copied = private_copy(module)
    _, calls = run_forward(Around(copied), X, ["0", "2"])
    assert [len(record) for record in calls.values()] == [1, 1]
    assert all(not layer._forward_hooks for layer in [*module.modules(), *copied.modules()])
