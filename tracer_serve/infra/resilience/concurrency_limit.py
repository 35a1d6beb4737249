"""Concurrency limit with a bounded queue and fair shares per caller; beyond it a typed error at once."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tracer_serve.errors import TeacherError
from tracer_serve.infra.caller import CALLER, within_share

_QUEUE_WEIGHT = 4  # one caller gets four fifths of the queue at most


class Limit:
    """Most calls in flight, and most that may wait for a place.

    Places go to the waiting callers in turn, each caller's calls in their order. From nine places and from five queued
    calls on, one caller alone cannot take all: a call of another caller finds a place, or waits for one call at most.

    Parameters
    ----------
    concurrency : calls in flight
    queue : calls that may wait
    weight : share of one caller among the calls in flight, as in `within_share`
    """

    def __init__(self, concurrency: int, queue: int, *, weight: int = 8) -> None:
        self.concurrency, self.queue, self._weight = concurrency, queue, weight
        self.in_flight = self.waiting = 0
        self._held: Counter[str] = Counter()
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it; the caller sets its own deadline.

        Raises
        ------
        TeacherError
            ``overloaded``, at once, where the queue, or the caller's share of it, is full.
        """
        caller = CALLER.get()
        if caller in self._queues or not self._fits(caller):
            await self._wait(caller)
        else:
            self._take(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    def _fits(self, caller: str) -> bool:
        return within_share(self._held[caller], self.in_flight, self.concurrency, self._weight)

    def _take(self, caller: str) -> None:
        self._held[caller] += 1
        self.in_flight += 1

    def _give_back(self, caller: str) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self.in_flight -= 1
        self._wake()

    async def _wait(self, caller: str) -> None:
        queued = len(self._queues.get(caller, ()))
        if not within_share(queued, self.waiting, self.queue, _QUEUE_WEIGHT):
            raise TeacherError(
                f"{self.in_flight} calls are in flight and {self.waiting} wait, {queued} of them this caller's: the"
                " teacher is slower than the traffic; raise max_concurrency or queue if its rate limit allows",
                reason="overloaded",
                retry_after_s=1.0,
            )
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given a place in the same turn of the event loop
                self._give_back(caller)
            raise
        finally:
            self.waiting -= 1
            queue = self._queues.get(caller)
            if queue is not None and turn in queue:
                queue.remove(turn)
                self._forget(caller)

    def _wake(self) -> None:
        """Give free places to waiting callers, in turn."""
        for caller in [*self._queues]:
            queue = self._queues[caller]
            while queue and queue[0].done():  # cancelled
                queue.popleft()
            if queue and self._fits(caller):
                self._take(caller)
                queue.popleft().set_result(None)
                self._queues[caller] = self._queues.pop(caller)  # behind the others
            self._forget(caller)

    def _forget(self, caller: str) -> None:
        if not self._queues.get(caller):
            self._queues.pop(caller, None)
