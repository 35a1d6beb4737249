"""Which task a log line is about, where one process serves several."""

import functools
import logging
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TASK: ContextVar[str] = ContextVar("task", default="")
"""Name of the task that this context works for, empty where nobody said."""

_OURS = "tracer_serve"


def within(work: Callable[P, R]) -> Callable[P, R]:
    """Return a function that works for the task of this moment, whichever thread calls it.

    A thread begins with an empty context; a copy per call, since two threads may not be in one context.

    Examples
    --------
    >>> _ = TASK.set("banking")
    >>> told = within(TASK.get)
    >>> _ = TASK.set("")
    >>> told()
    'banking'
    """
    context = copy_context()

    @functools.wraps(work)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(work, *args, **kwargs)

    return called


def name_lines() -> None:
    """Let each line of ours begin with its task's name; done once per process.

    A record is named as it is made: filters of a logger do not see what its children say, and the handlers are
    BentoML's.
    """
    made = logging.getLogRecordFactory()
    if getattr(made, "func", None) is not _named:
        logging.setLogRecordFactory(functools.partial(_named, made))


def _named(made: Callable[..., logging.LogRecord], *args: Any, **kwargs: Any) -> logging.LogRecord:
    record = made(*args, **kwargs)
    if (task := TASK.get()) and record.name.startswith(_OURS):
        record.msg = f"{task}: {record.msg}"
    return record
