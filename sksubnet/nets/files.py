"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets


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
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
