"""What a fit and its cache survive: Ctrl-C, killed workers and writers, full disks.

Faults come at random moments. After each one the estimator has to be as it was, the global random
states those of the user, the cache one that gives the right net, and a following fit that of a run
without any fault. Prints how many of each were survived; ends with an error if one was not.
``--quick`` takes a few of each.
"""

import argparse
import builtins
import contextlib
import copy
import errno
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import Tensor, nn

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
LABELS = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(int)


class Fused(nn.Module):
    """Kills its process where there is a file of this name, unless the file names the process."""

    def __init__(self, fuse: str, n_features: int = 3, n_outputs: int = 2) -> None:
        super().__init__()
        self.fuse = fuse
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs))

    def forward(self, rows: Tensor) -> Tensor:
        with contextlib.suppress(FileNotFoundError):
            if Path(self.fuse).read_text() != str(os.getpid()):
                os.unlink(self.fuse)
                os.kill(os.getpid(), signal.SIGKILL)
        return self.layers(rows)


def classifier(folder: Path, memory: Path | None = None, **options: object) -> object:
    """A net of a user's, that a fuse in the folder kills."""
    net = NeuralNetClassifier(
        Fused,
        module__fuse=str(folder / "fuse"),
        criterion=nn.CrossEntropyLoss,
        max_epochs=15,
        lr=0.1,
        train_split=None,
        verbose=0,
    )
    settings = {"selection": "magnitude", "subnetwork_size": 12, "prior_precision": 1.0}
    return SubnetLaplaceClassifier(
        net, memory=None if memory is None else str(memory), random_state=0, **settings, **options
    )


def drafts(folder: Path) -> list[Path]:
    """Files of the cache that are not entries."""
    return [path for path in folder.rglob("output.pkl.*") if path.is_file()]


@contextlib.contextmanager
def after(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Do something beside a block, so many seconds after it began."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def settings_of_the_process() -> list[object]:
    """What a fit changes for a while, and has to put back."""
    return [
        pickle.dumps(np.random.get_state()),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        list(warnings.filters),
        signal.getsignal(signal.SIGINT),
    ]


def interrupts(n: int) -> list[bool]:
    """Press Ctrl-C at random moments of a refit, whose net draws from the global random states."""
    net = NeuralNetRegressor(
        nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 1)),
        max_epochs=20,
        lr=0.05,
        verbose=0,
    )
    model = SubnetLaplaceRegressor(net, cv=2, subnetwork_size=20, noise="constant", random_state=0)
    model.fit(X, X[:, 0])
    expected = model.predict(X, return_std=True)
    start = time.perf_counter()
    of_the_new = clone(model).fit(X, X[:, 1]).predict(X, return_std=True)
    duration = time.perf_counter() - start
    main_thread, survived = threading.get_ident(), []

    def press() -> None:
        signal.pthread_kill(main_thread, signal.SIGINT)

    while len(survived) < n:
        np.random.seed(len(survived))
        torch.manual_seed(len(survived))
        before, refit = settings_of_the_process(), copy.copy(model)
        try:
            with after(RNG.uniform(0, duration), press):
                refit.fit(X, X[:, 1])
            continue  # it was faster
        except KeyboardInterrupt:
            pass
        # Where the signal comes between the last line of fit and the timer's end, the fit is new.
        left, found = settings_of_the_process(), refit.predict(X, return_std=True)
        whole = any(all(map(np.array_equal, found, one)) for one in (expected, of_the_new))
        pickle.loads(pickle.dumps(refit))
        survived.append(whole and left == before)
    return survived


def killed_workers(n: int) -> list[bool]:
    """Kill a worker of a search at a random moment; then search again."""
    survived = []
    for _ in range(n):
        with tempfile.TemporaryDirectory() as name:
            folder, memory = Path(name), Path(name) / "memory"
            grid = {"net__lr": [0.05, 0.1, 0.2]}
            search = GridSearchCV(classifier(folder, memory), grid, cv=2, n_jobs=2)
            undisturbed = GridSearchCV(classifier(folder), grid, cv=2).fit(X, LABELS)
            failed = False
            (folder / "match").write_text(str(os.getpid()))
            light = partial(os.replace, folder / "match", folder / "fuse")
            with after(RNG.uniform(0, 1.0), light):
                try:
                    search.fit(X, LABELS)
                except TerminatedWorkerError:
                    failed = True
            (folder / "fuse").unlink(missing_ok=True)
            if failed:
                assert not hasattr(search, "best_estimator_")
            search.fit(X, LABELS)
            survived.append(
                np.array_equal(search.predict_proba(X), undisturbed.predict_proba(X))
                and search.best_params_ == undisturbed.best_params_
            )
    return survived


def write_until_killed(memory: Path, folder: Path, ready: Path) -> None:
    """Fit one model after the other, so that files are written most of the time."""
    ready.touch()
    for seed in range(1000):
        classifier(folder, memory).set_params(random_state=seed % 5, net__max_epochs=1).fit(
            X, LABELS
        )


def kills_while_writing(n: int) -> list[bool]:
    """Kill a process that fills the cache; then use what it has left."""
    survived = []
    plain = [
        classifier(Path("/nowhere")).set_params(random_state=seed, net__max_epochs=1)
        for seed in range(5)
    ]
    for _ in range(n):
        with tempfile.TemporaryDirectory() as name:
            folder, memory = Path(name), Path(name) / "memory"
            child = os.fork()
            if child == 0:
                try:
                    with slow_disk():
                        write_until_killed(memory, folder, folder / "ready")
                finally:
                    os._exit(1)
            while not (folder / "ready").exists():
                time.sleep(0.001)
            time.sleep(RNG.uniform(0.02, 0.4))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            same = [
                np.array_equal(
                    classifier(folder, memory)
                    .set_params(random_state=seed, net__max_epochs=1)
                    .fit(X, LABELS)
                    .predict_proba(X),
                    model.fit(X, LABELS).predict_proba(X),
                )
                for seed, model in enumerate(plain)
            ]
            survived.append(all(same))
    return survived


@contextlib.contextmanager
def slow_disk() -> Iterator[None]:
    """Take some time for each step of writing, so that a kill is likely to come between two."""
    original = os.fsync, os.replace

    def slowly(act: Callable[..., None]) -> Callable[..., None]:
        def step(*arguments: object) -> None:
            time.sleep(0.01)
            act(*arguments)
            time.sleep(0.01)

        return step

    with mock.patch("os.fsync", slowly(original[0])), mock.patch("os.replace", slowly(original[1])):
        yield


def full_disks(n: int) -> list[bool]:
    """Let the disk be full at a moment of writing an entry, or after some of its bytes."""
    import resource

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_file(path: object, mode: str = "r", *rest: object, **options: object) -> object:
        return full() if "x" in mode else open(path, mode, *rest, **options)

    moments: list[Callable[[], contextlib.AbstractContextManager[object]]] = [
        lambda: mock.patch("pathlib.Path.mkdir", full),
        lambda: mock.patch.object(builtins, "open", full_file),
        lambda: mock.patch("os.fsync", full),
        lambda: mock.patch("os.replace", full),
    ]

    @contextlib.contextmanager
    def limited(n_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    for n_bytes in (0, 1, 31, 32, 100, 1000):
        moments.append(lambda n_bytes=n_bytes: limited(n_bytes))
    survived = []
    with tempfile.TemporaryDirectory() as name:
        expected = classifier(Path(name)).fit(X, LABELS).predict_proba(X)
    for moment in moments[: n if n < len(moments) else None]:
        with tempfile.TemporaryDirectory() as name:
            folder, memory = Path(name), Path(name) / "memory"
            model = classifier(folder, memory)
            joblib.Memory(str(memory), verbose=0)
            with warnings.catch_warnings(record=True) as caught, moment():
                warnings.simplefilter("always")
                model.fit(X, LABELS)
            told = any("memory" in str(warning.message) for warning in caught)
            alive = np.array_equal(model.predict_proba(X), expected)
            clean = not drafts(memory)
            again = model.fit(X, LABELS).predict_proba(X)
            survived.append(told and alive and clean and np.array_equal(again, expected))
    return survived


FAULTS = {
    "Ctrl-C at random moments of a refit": (interrupts, 60, 4),
    "workers of a search killed": (killed_workers, 20, 1),
    "processes killed that fill the cache": (kills_while_writing, 20, 2),
    "moments at which the disk is full": (full_disks, 10, 10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few faults of each kind")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # In the background of a shell Ctrl-C is ignored, and so by the processes that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lost = 0
    for name, (fault, n, n_quick) in FAULTS.items():
        survived = fault(n_quick if quick else n)
        lost += len(survived) - sum(survived)
        print(f"{name:40s} {sum(survived)} of {len(survived)} survived", flush=True)
    if lost:
        sys.exit(f"{lost} faults left something behind")


if __name__ == "__main__":
    main()
