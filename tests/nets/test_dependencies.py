"""What a training depends on: equal hashes for equal content, others for any edit of the code."""

import copy
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetRegressor
from torch import nn

from sksubnet.nets import Schedule, TabularNet, fingerprint

DATA = np.random.default_rng(0).normal(size=(6, 3))


class Scaled(nn.Module):
    """A module with a plain attribute that its ``repr`` does not show."""

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(3, 1)

    def forward(self, X):
        return self.factor * self.linear(X)


class Child(nn.Module):
    """A module that knows its parent, who also has one weight twice."""

    def __init__(self, tied):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.load_state_dict(self.first.state_dict())
        if tied:
            self.second.weight = self.first.weight
        self.parents = [self]


def tensor():
    return torch.as_tensor(DATA)


def module():
    torch.manual_seed(0)
    return Scaled()


def circle(tied=True):
    torch.manual_seed(0)
    return Child(tied)


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.LSTM(2, 3), nn.BatchNorm1d(3), nn.Softmax(dim=1))


def net(**options):
    return NeuralNetRegressor(Scaled, **{"module__factor": 3.0, "lr": 0.1, **options})


def mixed():
    sets = {"b", "a", 2.5}, frozenset({"y", "x"})
    tensors = torch.ones(2, dtype=torch.bfloat16), torch.tensor([1 + 2j]).conj(), torch.ones(())
    rows = (tensor(), DATA, "text", 3, None)
    return {"rows": rows, "net": net().get_params(), "class": Scaled, nn.Linear: sets, 1: tensors}


MAKERS = {f.__name__: f for f in (tensor, module, circle, layers, net, mixed)}


def digest(*objects):
    """Hash of what can be read."""
    found = fingerprint(*objects)
    assert found.unreadable == ()
    return found.digest


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_copies_have_the_same_hash(make):
    value = make()
    expected = digest(value)
    assert digest(value) == expected
    assert digest(make()) == expected
    assert digest(copy.deepcopy(value)) == expected
    assert digest(pickle.loads(pickle.dumps(value))) == expected


def test_clones_have_the_same_hash():
    assert digest(clone(net())) == digest(net())


def test_other_processes_have_the_same_hash():
    code = "import test_dependencies as t\nfor make in t.MAKERS.values(): print(t.digest(make()))"
    code += "\nprint(t.digest(t.imported(t.USER)))"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [digest(make()) for make in MAKERS.values()] + [digest(imported(USER))]
    assert result.stdout.split() == expected


def test_tensors_with_other_content_differ():
    base = tensor()
    changed = base.clone()
    changed[5, 2] += 1e-12
    others = [changed, base.float(), base[:5], base.reshape(3, 6), base.tolist(), base.numpy()]
    hashes = {digest(value) for value in (base, *others)}
    assert len(hashes) == 7
    assert digest(base.clone().requires_grad_()) == digest(base)
    assert digest(base, changed) != digest(changed, base)


def test_modules_with_other_content_differ():
    others = [module() for _ in range(5)]
    others[0].linear.weight.data[0, 0] += 1e-6
    others[1].factor = 2.5
    others[2].linear.bias.requires_grad_(False)
    others[3].double()
    others[4].linear.register_forward_hook(lambda layer, inputs, output: 2 * output)
    hashes = {digest(value) for value in (module(), *others)}
    assert len(hashes) == 6
    assert digest(module()) != digest(module().linear)
    assert digest(circle(tied=True)) != digest(circle(tied=False))


def test_nets_with_other_content_differ():
    others = [net(lr=0.2), net(max_epochs=3), net(optimizer=torch.optim.Adam)]
    others.append(net(criterion=nn.L1Loss))
    others.append(NeuralNetRegressor(nn.Linear, module__factor=3.0, lr=0.1))
    hashes = {digest(value) for value in (net(), *others)}
    assert len(hashes) == 6


USER = """
import abc, enum, functools, types
from dataclasses import dataclass
import torch
import torch.nn.functional as F
from torch import nn
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from skorch.dataset import Dataset

SCALE = 2.0
WIDTHS = [4, 8]
LAYERS = {"first": nn.Tanh, "second": nn.ReLU}

class Kind(enum.Enum):
    PLAIN = 1

@dataclass(frozen=True)
class Settings:
    slope: float = 0.1

SETTINGS = Settings()
bound = types.MethodType(lambda self, x: x + 27, SETTINGS)

def inner(x):
    return x * 3  # a factor

def middle(x):
    return inner(x)

def twice(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 2 * function(*args)
    return wrapper

@twice
def decorated(x):
    return x - 4

@torch.no_grad()
def without_gradients(x):
    return x / 5

@functools.lru_cache
def kept(x):
    return x + 6

def power_of(exponent):
    def power(x):
        return x**exponent
    return power

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x + 7

class Meta(abc.ABCMeta):
    def __call__(cls, *args, **kwargs):
        return super().__call__(*args, **kwargs) or 8

class Base(nn.Module, metaclass=Meta):
    def shift(self, x):
        return x + 9

class Block(nn.Module):
    size = 10
    act = staticmethod(lambda x: F.leaky_relu(x, 0.11))
    clipped = functools.partialmethod(torch.clamp, max=12)

    @property
    def limit(self):
        return 13

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 8)
        self.layer.register_forward_hook(lambda layer, inputs, output: output * 14)

    def forward(self, x, offset=15, *, gain=16):
        return power(self.layer(x)) * SCALE + len(WIDTHS) + SETTINGS.slope + bound(1)

class Net(Base):
    def __init__(self, kind=Kind.PLAIN):
        super().__init__()
        self.block = Block()
        self.layers = nn.Sequential(*(layer() for layer in LAYERS.values()))

    def forward(self, x):
        import fractions
        values = [17 + i for i in range(3)]
        return self.layers(middle(decorated(without_gradients(kept(Square.apply(x))))))

class Halved(NeuralNetRegressor):
    def get_loss(self, *args, **kwargs):
        return super().get_loss(*args, **kwargs) / 18

class Watcher(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.lr *= 0.19

class Loss(nn.MSELoss):
    def forward(self, a, b):
        return super().forward(a, b) + 20

class Steps(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure) or 21

class Table(Dataset):
    def transform(self, X, y):
        return super().transform(X + 22, y)

power = power_of(23)

def weights(module, *, factor=24):
    return factor

def unrelated(x):
    return x + 99

user = Halved(
    Net, criterion=Loss, optimizer=Steps, dataset=Table, callbacks=[Watcher(), ("plain", Callback)],
    module__kind=functools.partial(weights, factor=26),
)
"""

EDITS = {
    "constant": ("SCALE = 2.0", "SCALE = 2.5"),
    "list": ("[4, 8]", "[4, 8, 8]"),
    "order of a dict": (
        '"first": nn.Tanh, "second": nn.ReLU',
        '"second": nn.ReLU, "first": nn.Tanh',
    ),
    "function in a dict": ('"second": nn.ReLU', '"second": nn.SiLU'),
    "member of an enum": ("PLAIN = 1", "PLAIN = 2"),
    "field of an instance": ("slope: float = 0.1", "slope: float = 0.2"),
    "helper of a helper": ("x * 3 ", "x * 4 "),
    "decorator": ("2 * function", "3 * function"),
    "decorated function": ("x - 4", "x - 5"),
    "decorated by torch": ("x / 5", "x / 6"),
    "cached function": ("x + 6", "x + 7"),
    "autograd function": ("x + 7", "x + 8"),
    "metaclass": ("or 8", "or 9"),
    "base class": ("x + 9\n", "x + 10\n"),
    "class attribute": ("size = 10", "size = 11"),
    "lambda in a class": ("0.11", "0.12"),
    "partial method": ("max=12", "max=13"),
    "property": ("return 13", "return 14"),
    "hook": ("output * 14", "output * 15"),
    "default": ("offset=15", "offset=16"),
    "keyword default": ("gain=16", "gain=17"),
    "comprehension": ("17 + i", "18 + i"),
    "get_loss": ("/ 18", "/ 19"),
    "callback": ("*= 0.19", "*= 0.2"),
    "criterion": ("+ 20", "+ 21"),
    "optimizer": ("or 21", "or 22"),
    "dataset": ("X + 22", "X + 23"),
    "closure": ("power_of(23)", "power_of(24)"),
    "function of a partial": ("return factor\n", "return -factor\n"),
    "argument of a partial": ("factor=26", "factor=27"),
    "inner block": ("Linear(4, 8)", "Linear(4, 9)"),
    "function of a package": ("F.leaky_relu", "F.elu"),
    "local import": ("import fractions", "import decimal"),
    "bound function": ("x + 27", "x + 28"),
    "operator": ("x**exponent", "x*exponent"),
    "base": ("class Net(Base)", "class Net(nn.Module, metaclass=Meta)"),
}


def imported(source, name="user_module"):
    """Run a module, as an import would; it has no file."""
    sys.modules[name] = module = importlib.util.module_from_spec(
        importlib.machinery.ModuleSpec(name, None)
    )
    exec(textwrap.dedent(source), vars(module))
    return module.user


@pytest.mark.parametrize(("old", "new"), EDITS.values(), ids=EDITS)
def test_edited_code_differs(old, new):
    assert USER.count(old) == 1
    hashes = [digest(imported(text)) for text in (USER, USER.replace(old, new), USER)]
    assert hashes[0] == hashes[2] != hashes[1]


KINDS = {
    "cached property": "import functools\nclass user:\n    @functools.cached_property\n"
    "    def f(self):\n        return {}",
    "mapping": "import types\nM = types.MappingProxyType(dict(a={}))\ndef user(x):\n    return M",
    "slot": "class S:\n    __slots__ = 'a'\ns = S()\ns.a = {}\ndef user(x):\n    return s",
    "method of a C type": "f = [str.upper, str.lower][{}]\ndef user(x):\n    return f(x)",
    "type by its name": "import typing\nT = [typing.Union, typing.Optional][{}]\n"
    "def user(x):\n    return T",
    "cell that is filled later": "def outer():\n    def user(x):\n        return y\n    if {}:\n"
    "        y = 1\n    return user\nuser = outer()",
    "import that fails": "def user(x):\n    import nowhere_{0}\n    return nowhere_{0}.f(x)",
}


@pytest.mark.parametrize("source", KINDS.values(), ids=KINDS)
def test_all_kinds_of_objects_are_read(source):
    hashes = [digest(imported(source.format(number))) for number in (0, 1, 0)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_what_training_cannot_reach_does_not_count():
    expected = digest(imported(USER))
    for old, new in [("  # a factor", ""), ("x + 99", "x + 100"), ("\n\n", "\n\n# more\n\n")]:
        assert digest(imported(USER.replace(old, new))) == expected


def test_state_is_read_as_it_is_now():
    user = imported(USER)
    module = sys.modules["user_module"]
    hashes = [digest(user)]
    for change in (
        lambda: module.WIDTHS.append(3),
        lambda: setattr(module, "SCALE", 3.0),
        lambda: setattr(module.Block, "size", 1),
        lambda: setattr(module.Net, "forward", lambda self, x: x),
        lambda: setattr(module.weights, "note", 1),
    ):
        change()
        hashes.append(digest(user))
    assert len(set(hashes)) == len(hashes)


WAYS = {
    "import module": "import shared as s\ndef user(x):\n    return s.f(x)",
    "import name": "from shared import f\ndef user(x):\n    return f(x)",
    "import in function": "def user(x):\n    import shared\n    return shared.f(x)",
    "name in function": "def user(x):\n    from shared import f\n    return f(x)",
    "by getattr": "import shared\ndef user(x, name='f'):\n    return getattr(shared, name)(x)",
    "package": "import package\ndef user(x):\n    return package.inside.f(x)",
    "relative": "from package import relative\ndef user(x):\n    return relative.g(x)",
    "relative in function": "from package import later\ndef user(x):\n    return later.g(x)",
    "by a module's getattr": "from package import lazy\ndef user(x):\n    return lazy.f(x)",
    "as default": "import shared\ndef user(x, module=shared):\n    return module.f(x)",
    "in a class": "import shared\nclass user:\n    def run(self, x):\n        return shared.f(x)",
    "in a lambda": "import shared\nuser = lambda x: (lambda y: shared.f(y))(x)",
}


PACKAGE = {
    "__init__.py": "from . import inside",
    "inside.py": "from shared import f",
    "relative.py": "from .inside import f\n\ndef g(x):\n    return f(x)",
    "later.py": "def g(x):\n    from .inside import f\n    return f(x)",
    "lazy.py": "def __getattr__(name):\n    import shared\n    return getattr(shared, name)",
}


@pytest.mark.parametrize("source", WAYS.values(), ids=WAYS)
def test_other_modules_of_the_users_are_followed(source, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "package").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "package" / name).write_text(text)
    hashes = []
    for number in (1, 2, 1):
        (tmp_path / "shared.py").write_text(f"def f(x):\n    return x + {number}\n")
        importlib.invalidate_caches()
        hashes.append(digest(imported(source)))
        for name in [m for m in sys.modules if m.partition(".")[0] in ("shared", "package")]:
            del sys.modules[name]
    assert hashes[0] == hashes[2] != hashes[1]


def test_modules_that_import_each_other_are_read(monkeypatch):
    source = "import circle_a\ndef user(x):\n    return circle_a.circle_b.circle_a.f(x)"
    hashes = []
    for number in (1, 2, 1):
        modules = {name: type(sys)(name) for name in ("circle_a", "circle_b")}
        for module in modules.values():
            vars(module).update(modules)
        exec(f"def f(x):\n    return x + {number}", vars(modules["circle_a"]))
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        hashes.append(digest(imported(source)))
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize("is_versioned", [False, True])
def test_installed_code_counts_by_its_version_if_it_has_one(is_versioned, tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    hashes = []
    for version, number in [(1, 1), (1, 2), (2, 2)]:
        (folder / "installed_here.py").write_text(f"def f(x):\n    return x + {number}\n")
        if is_versioned:
            shutil.rmtree(folder / f"installed_here-{version - 1}.dist-info", ignore_errors=True)
            about = folder / f"installed_here-{version}.dist-info"
            about.mkdir(exist_ok=True)
            (about / "METADATA").write_text(f"Name: installed_here\nVersion: {version}\n")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "installed_here", raising=False)
        user = imported("import installed_here\ndef user(x):\n    return installed_here.f(x)")
        hashes.append(digest(user))
    assert (hashes[0] == hashes[1]) is is_versioned
    assert (hashes[1] == hashes[2]) is not is_versioned


def test_what_runs_counts_and_not_the_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "edited_later.py"
    path.write_text("def user(x):\n    return x + 1\n")
    user = importlib.import_module("edited_later").user
    before = digest(user)
    path.write_text("def user(x):\n    return x + 2\n")
    assert digest(user) == before


UNREADABLE = {
    "eval": "def user(x):\n    return eval('x + 1')",
    "exec": "def user(x):\n    exec('x + 1')",
    "globals": "def user(x):\n    return globals()['f'](x)",
    "__import__": "def user(x):\n    return __import__('shared').f(x)",
    "import_module": "import importlib\ndef user(x):\n    return importlib.import_module('a').f(x)",
    "sys.modules": "import sys\ndef user(x):\n    return sys.modules['shared'].f(x)",
    "torch.ops": "import torch\ndef user(x):\n    return torch.ops.mine.f(x)",
    "lock": "import threading\nLOCK = threading.Lock()\ndef user(x):\n    return LOCK",
    "ufunc": "import numpy as np\nf = np.frompyfunc(abs, 1, 1)\ndef user(x):\n    return f(x)",
    "generator": "numbers = (i for i in [1, 2])\ndef user(x):\n    return next(numbers)",
    "file": "handle = open(__import__('os').devnull)\ndef user(x):\n    return handle.read()",
    "Hidden": "class Hidden(type):\n    __dict__ = property(lambda cls: 1 / 0)\n"
    "class user(metaclass=Hidden):\n    a = 1",
    "ScriptFunction": "import torch\nf = torch.jit.trace(torch.sin, torch.ones(1))\nuser = f",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named(name):
    found = fingerprint(imported(UNREADABLE[name])).unreadable
    assert len(found) >= 1
    assert name in found[0].replace("TextIOWrapper", "file")


def test_compiled_code_is_named(monkeypatch):
    spec = importlib.util.find_spec("torch._C")
    module = type(sys)("compiled_by_me")
    module.__spec__ = importlib.machinery.ModuleSpec("compiled_by_me", spec.loader)
    module.f = torch._C._jit_set_profiling_mode
    monkeypatch.setitem(sys.modules, "compiled_by_me", module)
    user = imported("import compiled_by_me\ndef user(x):\n    return compiled_by_me.f(x)")
    assert "compiled code" in fingerprint(user).unreadable[0]
    module.Layer = type("Layer", (), {"__module__": "compiled_by_me"})
    user = imported("from compiled_by_me import Layer\ndef user(x):\n    return Layer(x)")
    assert fingerprint(user).unreadable == ("compiled code in compiled_by_me.Layer",)


def test_members_of_the_same_names_are_read():
    digest(
        imported("import torch, sys\ndef user(net):\n    return net.eval(), net.ops(torch, sys)")
    )


@pytest.mark.parametrize("package", ["sksubnet", "torch", "skorch", "numpy", "sklearn"])
def test_versions_count(package, monkeypatch):
    before = digest(1)
    monkeypatch.setattr(sys.modules[package], "__version__", "0.0.1")
    assert digest(1) != before


def test_the_default_dtype_counts():
    before = digest(1)
    torch.set_default_dtype(torch.float64)
    try:
        assert digest(1) != before
    finally:
        torch.set_default_dtype(torch.float32)


def test_versions_of_other_packages_count_where_they_are_reached(monkeypatch):
    import pandas

    user = imported("import pandas\ndef user(x):\n    return pandas.DataFrame(x)")
    before, other = digest(user), digest(1)
    monkeypatch.setattr(pandas, "__version__", "0.0.1")
    assert digest(user) != before
    assert digest(1) == other


def test_long_chains_are_no_deeper():
    names = range(300)
    lines = [f"def f{i}(x):\n    return f{i + 1}(x)" for i in names]
    source = "\n".join([*lines, "def f300(x):\n    return x + 1", "user = f0"])
    assert digest(imported(source)) != digest(imported(source.replace("x + 1", "x + 2")))


def test_the_default_net_takes_milliseconds():
    X = np.random.default_rng(0).normal(size=(500, 10))
    schedule = Schedule.until_stopped(500)
    net = TabularNet().build(X, np.ones(500), task="regression", schedule=schedule)
    times = []
    for _ in range(5):
        start = time.process_time()
        digest(sorted(net.get_params().items()))
        times.append(time.process_time() - start)
    assert min(times) < 0.02
