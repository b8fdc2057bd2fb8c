"""What a fit is doing, as a tree of tasks: for scikit-learn's callbacks and for one bar.

``fitting`` opens the task of a whole ``fit``, ``task`` a part of the one that is being worked on,
and ``steps`` counts a loop in it. What works on a task need not know who looks on. Nobody does
outside of ``fit``, and in jobs: these may be in other processes, so that a task of a job begins and
ends where the jobs are handed out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

# The one of notebooks warns without ipywidgets.
tqdm: Any = import_module("tqdm.auto" if find_spec("ipywidgets") else "tqdm").tqdm

if find_spec("sklearn.callback"):
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
else:  # before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """No callbacks."""


T = TypeVar("T")

OF_CALLBACKS = (
    "_skl_callbacks",
    "_skl_callbacks_to_teardown",
    "_callback_fit_ctx",
    "_parent_callback_ctx",
)
"""Attributes of an estimator that are scikit-learn's, for callbacks, and no part of the fit."""

CURRENT: ContextVar[Task | None] = ContextVar("CURRENT", default=None)

LEFT_TO_LATER_LOOPS = 0.5
"""Share of a task that is left after a loop, for nobody knows whether it was the last."""


@dataclass(eq=False, kw_only=True)
class Task:
    """A part of a fit.

    Attributes
    ----------
    name : str
        What it does.
    n_subtasks : int or None
        Most parts that it may have, ``None`` where that is not known.
    estimator : estimator
        The one that is fitted.
    context : sklearn.callback.CallbackContext or None
        What callbacks are told of it, ``None`` in versions that know none.
    bar : tqdm
        The bar of the fit.
    share : float
        Which share of the bar it is, and ``left`` what of that is not shown yet.
    parent : Task or None
        What it is a part of.
    """

    name: str
    n_subtasks: int | None
    estimator: Any
    context: Any
    bar: Any
    share: float = 1.0
    parent: Task | None = None
    n_begun: int = field(default=0, init=False)
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.share

    def begin(self, name: str, n_subtasks: int | None = 0, fits: Any = None) -> Task | None:
        """Begin a part; ``None`` for one more than there may be.

        With an estimator that it ``fits``, :meth:`handed_to` that one begins it.
        """
        if self.n_subtasks is not None and self.n_begun >= self.n_subtasks:
            return None
        self.n_begun += 1
        context = self.context
        if context is not None:
            context = context.subcontext(task_name=name, max_subtasks=n_subtasks)
        part = Task(
            name=name,
            n_subtasks=n_subtasks,
            estimator=self.estimator,
            context=context,
            bar=self.bar,
            share=self.share / self.n_subtasks if self.n_subtasks else 0.0,
            parent=self,
        )
        if fits is None:
            part.tell_of_begin()
        return part

    def tell_of_begin(self) -> None:
        """Tell callbacks and the bar that work begins."""
        if not self.bar.disable:
            self.bar.set_description_str(str(self), refresh=False)
        if self.context is not None:
            self.context.call_on_fit_task_begin(estimator=self.estimator)

    def end(self) -> bool:
        """Tell that it is done; return whether a callback asks to stop the tasks of its kind."""
        self.show(self.left)
        if self.parent is not None:
            self.parent.left -= self.share
        if self.context is None:
            return False
        return bool(self.context.call_on_fit_task_end(estimator=self.estimator))

    def show(self, share: float) -> None:
        """Let the bar grow."""
        self.left -= share
        # Shares add up to the whole only up to rounding, and more than all of it makes tqdm warn.
        self.bar.update(min(share, self.bar.total - self.bar.n))

    def __str__(self) -> str:
        if self.parent is None:
            return type(self.estimator).__name__
        n = self.parent.n_subtasks
        place = f" {self.parent.n_begun}/{n}" if n and n > 1 else ""
        return f"{self.parent}{', ' if self.parent.parent else ': '}{self.name}{place}"

    @contextlib.contextmanager
    def handed_to(self, estimator: Any) -> Iterator[None]:
        """Have another estimator's fit be this task, and hand callbacks on to it."""
        if self.context is None or not isinstance(estimator, CallbackSupportMixin):
            self.tell_of_begin()
            yield
            return
        with self.context.propagate_callback_context(estimator):
            self.tell_of_begin()
            yield


@contextlib.contextmanager
def fitting(
    estimator: Any, X: Any, y: Any, sample_weight: Any, n_subtasks: int, *, shown: bool
) -> Iterator[None]:
    """Work on a ``fit``, with one bar where it is to be shown."""
    facts: dict[str, Any] = {"X": X, "y": y}
    if sample_weight is not None:
        facts["metadata"] = {"sample_weight": sample_weight}
    context = None
    if hasattr(estimator, "_init_callback_context"):
        context = estimator._init_callback_context(max_subtasks=n_subtasks)
        context.call_on_fit_task_begin(estimator=estimator, **facts)
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=1.0, bar_format=form, leave=False, disable=not shown) as bar:
        root = Task(
            name="fit", n_subtasks=n_subtasks, estimator=estimator, context=context, bar=bar
        )
        with _current(root):
            yield
        root.show(root.left)
        bar.refresh()
    if context is not None:
        context.call_on_fit_task_end(estimator=estimator, reconstruction_attributes={}, **facts)


@contextlib.contextmanager
def task(name: str, n_subtasks: int | None = 0, fits: Any = None) -> Iterator[None]:
    """Work on a part of the current task, which may have so many parts; or ``fits`` an estimator.

    What raises is not told to have ended.
    """
    whole = CURRENT.get()
    part = None if whole is None else whole.begin(name, n_subtasks, fits)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_current(part))
        if part is not None and fits is not None:
            stack.enter_context(part.handed_to(fits))
        yield
    if part is not None:
        part.end()


@contextlib.contextmanager
def tasks(name: str, n_tasks: int) -> Iterator[None]:
    """Work on parts of the current task that are done somewhere else, where nobody looks on."""
    whole = CURRENT.get()
    parts = [] if whole is None else [whole.begin(name) for _ in range(n_tasks)]
    with unwatched():
        yield
    for part in parts:
        if part is not None:
            part.end()


def unwatched() -> contextlib.AbstractContextManager[None]:
    """Work where nobody looks on."""
    return _current(None)


def steps(loop: Sequence[T]) -> Iterator[T]:
    """Iterate, and show that as a share of the current task."""
    whole = CURRENT.get()
    if whole is None:
        yield from loop
        return
    share = LEFT_TO_LATER_LOOPS * whole.left / max(1, len(loop))
    for step in loop:
        yield step
        whole.show(share)


def bar_over(loop: Iterable[T], description: str, *, shown: bool) -> Iterator[T]:
    """Iterate with a bar of its own, on standard error."""
    return iter(tqdm(loop, desc=description, leave=False, disable=not shown))


@contextlib.contextmanager
def _current(part: Task | None) -> Iterator[None]:
    token = CURRENT.set(part)
    try:
        yield
    finally:
        CURRENT.reset(token)
