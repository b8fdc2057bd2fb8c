"""A progress bar for long loops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(steps: Iterable[T], description: str, verbose: int) -> Iterator[T]:
    """Iterate over ``steps``, showing a bar on standard error when ``verbose`` is positive."""
    return iter(tqdm(steps, desc=description, leave=False, disable=verbose <= 0))
