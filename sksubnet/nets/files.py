"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat

ANYBODY_WRITES = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise before work is done for a file that cannot be written where it is to be."""
    name = os.fspath(path)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name!r} is a folder; give the name of a file in it.")
    folder = os.path.dirname(os.path.realpath(name))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{name!r} cannot be written, for there is no folder {folder!r}.")
    _check_not_protected(path, _state(path))


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file: others see its old content or all of the new one, also after a power cut.

    A file that is there keeps its permissions and owner, and refuses where it is protected. What is
    no regular file, such as a device or a pipe, is written into.
    """
    before = _state(path)
    if before is not None and not stat.S_ISREG(before.st_mode):
        with open(path, "wb") as file:
            file.write(content)
        return
    _check_not_protected(path, before)
    target = os.fsdecode(os.path.realpath(path))
    draft = f"{target}.{secrets.token_hex(8)}"
    first_mode = 0o666 if before is None else 0o600  # until it has the one of the file
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, first_mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            _take_over(target, before, draft)
        os.replace(draft, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        if isinstance(error, OSError) and error.errno is not None:
            # The names in it are of the draft, and say nothing to anybody.
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


def _state(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what the system says of the file, or of the one a link leads to; none is ``None``."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _check_not_protected(path: str | os.PathLike[str], before: os.stat_result | None) -> None:
    """Raise for a file that is read-only, which its folder alone would let us replace.

    Where nobody may write it, that holds for the superuser, too, who meant something by it.
    """
    if before is None or not stat.S_ISREG(before.st_mode):
        return
    effective = os.access in os.supports_effective_ids
    if not before.st_mode & ANYBODY_WRITES or not os.access(path, os.W_OK, effective_ids=effective):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def _take_over(target: str, before: os.stat_result, draft: str) -> None:
    """Give the draft the owner, the permissions and the access list of what it replaces."""
    group_kept = True
    if hasattr(os, "chown"):
        group_kept = _owned(draft, before.st_uid, before.st_gid) or _owned(draft, -1, before.st_gid)
    shutil.copystat(target, draft)
    os.utime(draft)
    if not group_kept:  # what its group might do is not for another one
        os.chmod(draft, stat.S_IMODE(before.st_mode) & ~stat.S_IRWXG)


def _owned(draft: str, user: int, group: int) -> bool:
    """Whether the draft could be given to them."""
    try:
        os.chown(draft, user, group)
    except OSError:
        return False
    return True
