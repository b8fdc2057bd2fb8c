"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise before work is done for a file that cannot be written where it is to be."""
    name = os.fspath(path)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name!r} is a folder; give the name of a file in it.")
    folder = os.path.dirname(os.path.realpath(name))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{name!r} cannot be written, for there is no folder {folder!r}.")


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file: others see its old content or all of the new one, also after a power cut."""
    target = os.path.realpath(path)
    draft = f"{target}.{secrets.token_hex(8)}"
    try:
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        if isinstance(error, OSError):  # of the draft, a name that says nothing to anybody
            error.filename, error.filename2 = os.fspath(path), None
        raise
