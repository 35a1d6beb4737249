"""Coalesce identical calls that are in flight at the same time (single flight)."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Flight(Generic[T]):
    """A call in progress and its number of waiters."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task, self.waiters, self.collected = task, 0, False


class Coalesce(Generic[K, T]):
    """Run one call per key at a time; concurrent callers share its outcome.

    Cancelling one waiter does not affect the others. When the last waiter is cancelled, the call is cancelled too.
    """

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: K, start: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Return the outcome, and whether this waiter is the first to get it and accounts for its cost.

        Parameters
        ----------
        key : calls with equal keys are identical
        start : starts the call; used only if none is in flight
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(start()))
            flight.task.add_done_callback(lambda task: self._land(key, task))
        flight.waiters += 1
        try:
            value = await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                self._leave(key, flight.task)
                flight.task.cancel()
        first, flight.collected = not flight.collected, True
        return value, first

    def _land(self, key: K, task: asyncio.Task[T]) -> None:
        self._leave(key, task)
        if not task.cancelled():
            task.exception()  # mark the exception as retrieved, even if every waiter has left

    def _leave(self, key: K, task: asyncio.Task[T]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
