"""Ask a teacher about many texts: a bounded number of calls at a time, until it is down."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from tracer_serve.errors import BUDGET_REACHED, TeacherError
from tracer_serve.protocols import Teacher
from tracer_serve.types import Answer, Text

T = TypeVar("T")

DOWN = frozenset({"timeout", "rate_limited", "unavailable", "circuit_open", "overloaded", BUDGET_REACHED})
"""Reasons of a `TeacherError` that concern the teacher, not the text."""

_AT_ONCE = 16  # for a teacher that does not say how many calls it takes


def concurrency_of(params: Mapping[str, Any]) -> int:
    """Return how many calls a teacher takes at a time, by its parameters in the YAML.

    Examples
    --------
    >>> concurrency_of({"max_concurrency": 4}), concurrency_of({})
    (4, 16)
    """
    return int(params.get("max_concurrency", _AT_ONCE))


class BoundedCalls:
    """Calls of one list of texts: at most `at_once` under way, none after as many outages in a row.

    Parameters
    ----------
    at_once : maximum number of calls in flight, and the number of outages in a row after which the teacher counts as
        down

    Attributes
    ----------
    down : the last outage's error while the teacher counts as down; calls that wait get it at once
    """

    def __init__(self, at_once: int) -> None:
        self.down: TeacherError | None = None
        self._at_once, self._outages = at_once, 0
        self._places = asyncio.Semaphore(at_once)

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call when it is its turn.

        Raises
        ------
        TeacherError
            The call's own, or `down`.
        """
        async with self._places:
            if self.down is not None:
                raise self.down
            try:
                result = await call()
            except TeacherError as error:
                if error.reason in DOWN:
                    self._outages += 1
                    self.down = error if self._outages >= self._at_once else None
                raise
            self._outages, self.down = 0, None
            return result


async def ask_many(
    teacher: Teacher, texts: Sequence[Text], calls: BoundedCalls, done: Callable[[], None] = lambda: None
) -> list[Answer | TeacherError]:
    """Return the teacher's answers in the order of the texts; where it gave none, the error.

    Parameters
    ----------
    calls : bounds the calls; may be shared by several lists
    done : called after each text

    Examples
    --------
    >>> class Always:
    ...     async def label(self, text):
    ...         return Answer("greeting")
    >>> [answer.label for answer in asyncio.run(ask_many(Always(), ["hi", "hello"], BoundedCalls(2)))]
    ['greeting', 'greeting']
    """

    async def one(text: Text) -> Answer | TeacherError:
        try:
            return await calls.run(lambda: teacher.label(text))
        except TeacherError as error:
            return error
        finally:
            done()

    return await asyncio.gather(*map(one, texts))
