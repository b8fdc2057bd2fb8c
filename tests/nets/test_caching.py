"""Trainings in a folder: whatever happens to the files, what is recalled is what was kept."""

import builtins
import contextlib
import io
import multiprocessing
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from joblib import Memory
from numpy.testing import assert_array_equal

from sksubnet.nets import Training, TrainingMemory
from sksubnet.nets.caching import seal, unsealed

WEIGHTS = np.random.default_rng(0).normal(size=(20, 20))


def trainings(scale=1.0) -> list[Training]:
    """Those of two folds."""
    return [
        Training({"weight": sign * scale * WEIGHTS}, ("weight",), [{"epoch": 1, "train_loss": 0.5}])
        for sign in (1, -1)
    ]


class Counted:
    """Trains, and counts how often."""

    def __init__(self, scale=1.0):
        self.calls, self.scale = 0, scale

    def __call__(self):
        self.calls += 1
        return trainings(self.scale)


def memory_in(folder, **options) -> TrainingMemory:
    return TrainingMemory(Memory(str(folder), **{"verbose": 0, **options}), "net")


def entries(folder) -> list[Path]:
    return sorted(path for path in Path(folder).rglob("*") if path.name == "output.pkl")


def recalled(memory, *content, scale=1.0):
    """Weights, and whether they were trained."""
    train = Counted(scale)
    first, second = memory.recall_or(train, *content)
    assert_array_equal(second.state["weight"], -first.state["weight"])
    return first.state["weight"], train.calls


class Marker:
    """Code that a pickle runs when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_kept_by_content(tmp_path):
    memory = memory_in(tmp_path)
    first = memory.recall_or(Counted(), "rows", 1)
    again = memory_in(tmp_path).recall_or(Counted(), "rows", 1)
    assert_array_equal([one.state["weight"] for one in again], [WEIGHTS, -WEIGHTS])
    for one, other in zip(first, again, strict=True):
        assert (one.trainable, one.history) == (other.trainable, other.history)
    assert recalled(memory, "rows", 1)[1] == 0
    for content in [("rows", 2), ("other rows", 1), ("rows",)]:
        assert recalled(memory, *content)[1] == 1
    assert recalled(TrainingMemory(memory.memory, "other net"), "rows", 1)[1] == 1
    assert len(entries(tmp_path)) == 5


def damages(content: bytes, other: bytes, marker: Path):
    """Some 400 contents that are not the entry."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        yield bytes(damaged)
    for _ in range(60):
        start = int(rng.integers(max(1, len(content) - 512)))
        yield content[:start] + bytes(512) + content[start + 512 :]
    for _ in range(60):
        yield content[: rng.integers(len(content))]
    for _ in range(20):
        yield rng.bytes(len(content))
        start = int(rng.integers(len(content)))
        yield content[start:] + content[:start]
    yield from (b"", content + b"\0", content[:-1], other, pickle.dumps(trainings(2.0)))
    yield pickle.dumps(Marker(marker))
    yield content[:32] + pickle.dumps(Marker(marker))
    yield bytes(len(content))


def test_damaged_entries_are_trained_anew(tmp_path):
    memory, marker, good = memory_in(tmp_path), tmp_path / "ran", 0
    recalled(memory, "other", scale=2.0)
    (other,) = (path.read_bytes() for path in entries(tmp_path))
    recalled(memory, "rows")
    (path,) = (path for path in entries(tmp_path) if path.read_bytes() != other)
    content = path.read_bytes()
    for damaged in damages(content, other, marker):
        if damaged == content:
            continue
        path.write_bytes(damaged)
        weights, calls = recalled(memory, "rows")
        assert calls == 1
        assert_array_equal(weights, WEIGHTS)
        assert path.read_bytes() == content
        good += 1
    assert good > 350
    assert not marker.exists()


def test_what_is_not_a_file(tmp_path):
    memory = memory_in(tmp_path)
    recalled(memory, "rows")
    (path,) = entries(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="could not be kept"):
        weights, calls = recalled(memory, "rows")
    assert calls == 1
    assert_array_equal(weights, WEIGHTS)


def test_entries_of_classes_that_are_gone(monkeypatch):
    class Gone:
        pass

    monkeypatch.setattr(sys.modules[__name__], "Gone", Gone, raising=False)
    Gone.__qualname__ = "Gone"
    entry = seal("key", [Training({"extra": Gone()}, (), [])])
    assert len(unsealed("key", entry)) == 1
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    assert unsealed("key", entry) is None


def fill(folder, barrier, results):
    barrier.wait(60)
    memory = memory_in(folder)
    for number in range(5):
        weights, _ = recalled(memory, number, scale=number)
        results.put(np.array_equal(weights, number * WEIGHTS))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts many processes")
def test_twenty_processes_fill_it_at_once(tmp_path):
    processes = multiprocessing.get_context("fork")
    barrier, results = processes.Barrier(20), processes.Queue()
    workers = [processes.Process(target=fill, args=(tmp_path, barrier, results)) for _ in range(20)]
    for worker in workers:
        worker.start()
    right = [results.get(timeout=60) for _ in range(100)]
    for worker in workers:
        worker.join()
    assert all(right)
    assert len(entries(tmp_path)) == 5
    assert len([path for path in tmp_path.rglob("*") if path.name.startswith("output.pkl.")]) == 0
    assert all(recalled(memory_in(tmp_path), number)[1] == 0 for number in range(5))


FAILING = {
    "no folder": (Path, "mkdir"),
    "no file": (builtins, "open"),
    "no disk under it": (os, "fsync"),
    "no move": (os, "replace"),
}


@pytest.mark.parametrize(("owner", "name"), FAILING.values(), ids=FAILING)
def test_disk_that_fails(owner, name, tmp_path, monkeypatch):
    memory = memory_in(tmp_path)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(owner, name, fail)
        with pytest.warns(UserWarning, match=r"could not be kept in .*No space left"):
            weights, calls = recalled(memory, "rows")
        assert calls == 1
        assert_array_equal(weights, WEIGHTS)
    assert [path for path in tmp_path.rglob("output.pkl*")] == []
    assert recalled(memory, "rows")[1] == 1
    assert recalled(memory, "rows")[1] == 0


def test_disk_that_is_full_in_the_middle_of_a_file(tmp_path):
    resource = pytest.importorskip("resource")
    memory = memory_in(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="could not be kept"):
            weights, _ = recalled(memory, "rows")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_array_equal(weights, WEIGHTS)
    assert [path for path in tmp_path.rglob("output.pkl*")] == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_read_only(tmp_path):
    memory = memory_in(tmp_path)
    (tmp_path / "joblib").chmod(0o500)
    with pytest.warns(UserWarning, match="could not be kept"):
        assert recalled(memory, "rows")[1] == 1


def test_killed_while_it_writes(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    memory = memory_in(tmp_path)
    with monkeypatch.context() as patches, pytest.raises(Killed):
        patches.setattr(os, "replace", kill)
        patches.setattr(os, "unlink", lambda path: None)  # nor did it clean up
        recalled(memory, "rows")
    assert entries(tmp_path) == []
    assert recalled(memory, "rows")[1] == 1
    assert recalled(memory, "rows")[1] == 0


def test_histories_that_cannot_be_pickled_are_not_kept(tmp_path):
    memory = memory_in(tmp_path)
    odd = [*trainings(), Training({"weight": WEIGHTS}, (), [{"loss": lambda: 0}])]
    with pytest.warns(UserWarning, match="could not be kept"):
        assert memory.recall_or(lambda: odd, "rows") is odd
    assert entries(tmp_path) == []


def test_content_that_cannot_be_read_is_not_kept(tmp_path):
    memory = memory_in(tmp_path)
    for _ in range(2):
        assert recalled(memory, (i for i in [1]))[1] == 1
    assert entries(tmp_path) == []


def test_errors_in_training_go_on(tmp_path):
    def fail():
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        memory_in(tmp_path).recall_or(fail, "rows")
    assert entries(tmp_path) == []


def test_clearing_and_shrinking(tmp_path):
    memory = memory_in(tmp_path)
    for number in range(4):
        recalled(memory, number)
    memory.memory.reduce_size(items_limit=3)
    assert len(entries(tmp_path)) == 3
    memory.memory.clear(warn=False)
    assert entries(tmp_path) == []
    assert recalled(memory, 0)[1] == 1
    assert recalled(memory, 0)[1] == 0


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 2), (50, 2)])
def test_verbose_says_what_happens_without_content(verbose, lines, tmp_path):
    memory = memory_in(tmp_path, verbose=verbose)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        recalled(memory, WEIGHTS)
        recalled(memory, WEIGHTS)
    printed = out.getvalue().splitlines()
    assert len(printed) == lines
    assert [line.split()[1] for line in printed] == ["Training", "Recalling"][:lines]
    assert str(WEIGHTS[0, 0])[:6] not in out.getvalue()


class Shelf:
    """Another kind of memory."""

    def __init__(self, damage=lambda entry: entry):
        self.kept, self.damage = {}, damage

    def cache(self, function):
        def cached(key):
            if key not in self.kept:
                self.kept[key] = function(key)
                return self.kept[key]
            return self.damage(self.kept[key])

        return cached


def test_other_kinds_of_memory():
    memory = TrainingMemory(Shelf(), "net")
    assert [recalled(memory, "rows")[1] for _ in range(2)] == [1, 0]
    memory = TrainingMemory(Shelf(lambda entry: entry[:-1]), "net")
    for _ in range(2):
        weights, calls = recalled(memory, "rows")
        assert calls == 1
        assert_array_equal(weights, WEIGHTS)


class Full(Shelf):
    """A memory that can keep nothing."""

    def cache(self, function):
        def cached(key):
            function(key)
            raise OSError(28, "No space left on device")

        return cached


def test_other_kinds_of_memory_that_are_full():
    with pytest.warns(UserWarning, match="could not be kept in .*No space left"):
        weights, calls = recalled(TrainingMemory(Full(), "net"), "rows")
    assert calls == 1
    assert_array_equal(weights, WEIGHTS)


def test_errors_in_training_go_on_through_other_kinds_of_memory():
    def fail():
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        TrainingMemory(Shelf(), "net").recall_or(fail, "rows")
