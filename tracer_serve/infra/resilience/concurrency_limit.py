"""Concurrency limit with a bounded queue: beyond it, a typed error at once instead of an ever longer wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tracer_serve.errors import TeacherError


class Limit:
    """Most calls in flight, and most that may wait for a place; first come, first served.

    Parameters
    ----------
    concurrency : calls in flight
    queue : calls that may wait
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency, self.queue = concurrency, queue
        self.in_flight = self.waiting = 0
        self._places = asyncio.Semaphore(concurrency)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it; how long to wait is the caller's deadline.

        Raises
        ------
        TeacherError
            ``overloaded``, at once, where the queue is full.
        """
        if self._places.locked() and self.waiting >= self.queue:
            raise TeacherError(
                f"{self.in_flight} calls are in flight and {self.waiting} wait: the teacher is slower than the traffic;"
                " raise max_concurrency or queue if its rate limit allows",
                reason="overloaded",
                retry_after_s=1.0,
            )
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._places.release()
