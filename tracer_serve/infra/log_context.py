"""Prefix log lines with the name of their task, for processes that serve several tasks."""

import functools
import logging
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TASK: ContextVar[str] = ContextVar("task", default="")
"""Name of the current context's task, empty if none is set."""

_OURS = "tracer_serve"


def within(work: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs in a copy of the current context, whichever thread calls it.

    New threads start with an empty context. Each call gets its own copy, because a context cannot be entered twice.

    Examples
    --------
    >>> _ = TASK.set("banking")
    >>> task_name = within(TASK.get)
    >>> _ = TASK.set("")
    >>> task_name()
    'banking'
    """
    context = copy_context()

    @functools.wraps(work)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(work, *args, **kwargs)

    return called


def name_lines() -> None:
    """Prefix this package's log records with their task's name; installed once per process.

    The record factory does it, because filters of a logger do not see its children's records and the handlers belong to
    BentoML.
    """
    made = logging.getLogRecordFactory()
    if getattr(made, "func", None) is not _named:
        logging.setLogRecordFactory(functools.partial(_named, made))


def _named(made: Callable[..., logging.LogRecord], *args: Any, **kwargs: Any) -> logging.LogRecord:
    record = made(*args, **kwargs)
    if (task := TASK.get()) and record.name.startswith(_OURS):
        record.msg = f"{task}: {record.msg}"
    return record
