"""Trainings kept in a folder, behind a checksum, so that the same ones are done once."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from joblib import Memory

from sksubnet.nets.dependencies import fingerprint
from sksubnet.nets.files import write_whole

T = TypeVar("T")

CHECKSUM = hashlib.sha256
CHECKSUM_BYTES = CHECKSUM().digest_size


@dataclass(frozen=True, eq=False)
class TrainingMemory:
    """Keeps the trainings of a net in a ``joblib.Memory``, or in what else has a ``cache``.

    The nets of all folds are one entry. In a folder joblib itself would keep pickles, which run
    when they are read, before anything could be compared. So these entries are our own files, in
    its layout: ``clear`` and ``reduce_size`` find them.
    """

    memory: Any
    net: str

    def recall_or(self, train: Callable[[], list[T]], *content: Any) -> list[T]:
        """Return trainings, or what depends on them, of this content from the memory or anew."""
        found = fingerprint(self.net, *content)
        if found.unreadable:
            return train()
        if isinstance(self.memory, Memory) and self.memory.backend == "local":
            return self._from_folder(train, found.digest)
        return self._from_cache(train, found.digest)

    def _from_folder(self, train: Callable[[], list[T]], key: str) -> list[T]:
        store = self.memory.store_backend
        # joblib counts folders of such names, by the last use of a file of this name.
        path = Path(store.location) / "sksubnet" / "training" / key / "output.pkl"
        trainings: list[T] | None = unsealed(key, read(path))
        if store.verbose > 0:
            print(f"[Memory] {'Training' if trainings is None else 'Recalling'} the nets {key}")
        if trainings is not None:
            return trainings
        trainings = train()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, seal(key, trainings))
        except Exception as error:  # of the disk, or of what callbacks left in the history
            self._warn_of(error)
        return trainings

    def _from_cache(self, train: Callable[[], list[T]], key: str) -> list[T]:
        trained: list[T] = []

        def sealed_trainings(key: str) -> bytes:
            trained.extend(train())
            return seal(key, trained)

        try:
            entry = self.memory.cache(sealed_trainings)(key)
        except Exception as error:
            if not trained:
                raise
            self._warn_of(error)
        return trained or unsealed(key, entry) or train()

    def _warn_of(self, error: Exception) -> None:
        # Not the message, which may hold what the user does not want to read in a log.
        reason = getattr(error, "strerror", None) or type(error).__name__
        warnings.warn(
            f"The trained nets could not be kept in memory={self.memory!r} ({reason}).",
            UserWarning,
            stacklevel=9,
        )


def seal(key: str, trainings: list[T]) -> bytes:
    """Pickle trainings, behind a checksum of that and the key."""
    content = pickle.dumps(trainings)
    return CHECKSUM(key.encode() + content).digest() + content


def unsealed(key: str, entry: Any) -> list[T] | None:
    """Return the trainings of an entry; ``None``, with nothing of it run, where it is damaged."""
    if not isinstance(entry, bytes) or len(entry) < CHECKSUM_BYTES:
        return None
    checksum, content = entry[:CHECKSUM_BYTES], entry[CHECKSUM_BYTES:]
    if CHECKSUM(key.encode() + content).digest() != checksum:
        return None
    try:
        trainings: list[T] = pickle.loads(content)
    except Exception:  # of classes that are no longer where they were
        return None
    return trainings


def read(path: Path) -> bytes | None:
    """Return what a file holds, ``None`` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
