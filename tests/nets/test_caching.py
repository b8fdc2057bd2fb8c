"""The content hash: equal for equal content, here and in another process."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetRegressor
from torch import nn

from sksubnet.nets.caching import content_hash

DATA = np.random.default_rng(0).normal(size=(6, 3))


class Scaled(nn.Module):
    """A module with a plain attribute that its ``repr`` does not show."""

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(3, 1)

    def forward(self, X):
        return self.factor * self.linear(X)


def tensor():
    return torch.as_tensor(DATA)


def module():
    torch.manual_seed(0)
    return Scaled()


def net(**options):
    return NeuralNetRegressor(Scaled, **{"module__factor": 3.0, "lr": 0.1, **options})


def mixed():
    return {"rows": (tensor(), DATA, "text", 3, None), "net": net().get_params(), "class": Scaled}


MAKERS = {f.__name__: f for f in (tensor, module, net, mixed)}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_copies_have_the_same_hash(make):
    value = make()
    expected = content_hash(value)
    assert content_hash(value) == expected
    assert content_hash(make()) == expected
    assert content_hash(copy.deepcopy(value)) == expected
    assert content_hash(pickle.loads(pickle.dumps(value))) == expected


def test_clones_have_the_same_hash():
    assert content_hash(clone(net())) == content_hash(net())


def test_other_processes_have_the_same_hash():
    names = list(MAKERS)
    code = f"import test_caching as t\nfor name in {names}: print(t.content_hash(t.MAKERS[name]()))"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [content_hash(MAKERS[name]()) for name in names]


def test_tensors_with_other_content_differ():
    base = tensor()
    changed = base.clone()
    changed[5, 2] += 1e-12
    others = [changed, base.float(), base[:5], base.reshape(3, 6), base.tolist(), base.numpy()]
    hashes = {content_hash(value) for value in (base, *others)}
    assert len(hashes) == 7
    assert content_hash(base.clone().requires_grad_()) == content_hash(base)
    assert content_hash(base, changed) != content_hash(changed, base)


def test_modules_with_other_content_differ():
    others = [module() for _ in range(4)]
    others[0].linear.weight.data[0, 0] += 1e-6
    others[1].factor = 2.5
    others[2].linear.bias.requires_grad_(False)
    others[3].double()
    hashes = {content_hash(value) for value in (module(), *others)}
    assert len(hashes) == 5
    assert content_hash(module()) != content_hash(module().linear)


def test_nets_with_other_content_differ():
    others = [net(lr=0.2), net(max_epochs=3), net(optimizer=torch.optim.Adam)]
    others.append(net(criterion=nn.L1Loss))
    others.append(NeuralNetRegressor(nn.Linear, module__factor=3.0, lr=0.1))
    hashes = {content_hash(value) for value in (net(), *others)}
    assert len(hashes) == 6


def test_an_edited_class_of_the_same_name_differs(tmp_path, monkeypatch):
    hashes = set()
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, expression in enumerate(["X", "X + 1"]):
        source = (
            "from torch import nn\n\nclass Edited(nn.Module):\n"
            f"    def forward(self, X):\n        return {expression}\n"
        )
        name = f"edited_{number}"
        (tmp_path / f"{name}.py").write_text(source)
        edited = __import__(name).Edited
        hashes.add(content_hash(edited))
        hashes.add(content_hash(edited()))
    assert len(hashes) == 4
