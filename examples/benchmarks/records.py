"""Results of a study: one line of a file each, so that what is there is not run again."""

import datetime
import json
import sys
import warnings
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from versions import versions

import sksubnet

FOLDERS = ("--data", "--cache", "--results", "--output")


def one_thread() -> None:
    """Settings of every process."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    warnings.simplefilter("ignore")  # that a fit has not converged is part of a default


def read(file: Path) -> list[dict[str, Any]]:
    """Lines of a file; half a line, of a process that was killed, is removed."""
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def add(file: Path, line: dict[str, Any]) -> None:
    """Write a line, with the state of the package that made it."""
    with file.open("a") as handle:
        handle.write(json.dumps({**line, "code": code()}) + "\n")


@cache
def code() -> str:
    """Short hash of the package's source: which state of it wrote a line."""
    folder = Path(sksubnet.__file__).parent
    texts = (path.read_bytes() for path in sorted(folder.rglob("*.py")))
    return sha256(b"".join(texts)).hexdigest()[:8]


def command() -> str:
    """The command line without the folders of a machine."""
    words, hidden = [], False
    for word in sys.argv[1:]:
        words += [] if hidden or word in FOLDERS else [word]
        hidden = word in FOLDERS
    quoted = (f"'{word}'" if set(word) & set(" {") else word for word in words)
    return " ".join([Path(sys.argv[0]).name, *quoted])


def origin() -> str:
    """What made a table of results: command, date and versions."""
    return f"`{command()}`,\n{datetime.date.today()}; {versions()}; one thread."
