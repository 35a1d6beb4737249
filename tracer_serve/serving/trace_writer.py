"""Traces to the store in groups, from a thread of its own: a request never waits for another one's fsync."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from tracer_serve.errors import StoreError
from tracer_serve.infra.log_context import within
from tracer_serve.serving.write_batch import Label, PendingWrite, write
from tracer_serve.storage.traces import TraceStore
from tracer_serve.types import Answer, LabelSource, Trace

_log = logging.getLogger(__name__)

_LINGER_S = 0.1
_RETRY_S = 1.0
_PATIENCE_S = 10.0  # a store that hangs instead of failing would hold the answer for ever
_LOG_EVERY_S = 10.0
_GROUP = 1_000  # of one transaction: after an outage many are waiting


class TraceWriter:
    """Writes traces in batches.

    Rows that nobody waits for are gathered for `_LINGER_S` seconds; a row that somebody waits for goes at once, with
    whatever is queued. A store that takes no rows costs no answer: they are kept in memory and tried again each second.
    Lost, counted and told, is what finds no room there, what the store refuses while it takes other rows, and what
    still waits when the process ends.

    Parameters
    ----------
    store : where the rows go
    on_loss, on_delay : called with the number of rows lost, and of rows that have to wait for the store
    capacity : most rows queued, a long text counting as one more for each thousand characters
    """

    def __init__(
        self,
        store: TraceStore,
        on_loss: Callable[[int], None] = lambda _: None,
        on_delay: Callable[[int], None] = lambda _: None,
        capacity: int = 50_000,
    ) -> None:
        self.problem: str | None = None
        self.lost = self.delayed = 0
        self._store, self._on_loss, self._on_delay, self._capacity = store, on_loss, on_delay, capacity
        self._items, self._in_flight = deque[PendingWrite](), list[PendingWrite]()
        self._load = 0  # the size of both
        self._wake = threading.Condition()
        self._urgent = self._stuck = self._closed = self._ended = False
        self._logged = -_LOG_EVERY_S
        self._thread = threading.Thread(target=within(self._run), name="tracer-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many rows and labels are not written yet."""
        return len(self._items) + len(self._in_flight)

    def put(self, trace: Trace) -> None:
        """Queue a row that nobody waits for."""
        self._queue(PendingWrite(trace))

    def label(self, trace_id: str, source: LabelSource, answer: Answer, fingerprint: str) -> None:
        """Queue a teacher's label for a row that was queued before."""
        self._queue(PendingWrite(Label(trace_id, source, answer, fingerprint)))

    async def commit(self, trace: Trace) -> bool:
        """Write a row; once this returns True it survives a crash.

        It returns False where the store does not take it, after ten seconds at most: the answer goes out, and the row
        is written as soon as the store takes rows again.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def resolve(written: bool) -> None:
            if not future.done():
                future.set_result(written)

        def done(written: bool) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(resolve, written)

        self._queue(PendingWrite(trace, done))
        try:
            return await asyncio.wait_for(future, _PATIENCE_S)
        except TimeoutError:
            self._hold(f"the trace store has not answered for {_PATIENCE_S:g} s")
            return False

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued and end the thread, within `timeout_s` seconds."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout_s)
        with self._wake:
            self._ended = True
            left, self._items = self._items, deque()
            self._wake.notify()
        if left:
            self._lose(left, self.problem or "the store did not take the last rows in time")

    def _queue(self, item: PendingWrite) -> None:
        with self._wake:
            fits = self._load + item.size <= self._capacity and not self._closed
            if fits:
                self._items.append(item)
                self._load += item.size
                self._urgent |= item.done is not None
                if item.done is not None or len(self._items) == 1:
                    self._wake.notify()
            stuck = self._stuck
        if not fits:
            self._lose([item], self.problem or "the queue of rows to be written is full")
        elif stuck:
            self._delay([item])

    def _run(self) -> None:
        while items := self._take():
            outcome = write(self._store, items)
            for item, error in outcome.refused:
                self._lose([item], str(error) if isinstance(error, StoreError) else repr(error))
            with self._wake:
                self._load -= sum(item.size for item in items) - sum(item.size for item in outcome.left)
                self._in_flight = []
                ended = self._ended
                if not ended:
                    self._items.extendleft(reversed(outcome.left))
            if ended and outcome.left:
                self._lose(outcome.left, str(outcome.problem))
            elif outcome.problem is not None:
                self._hold(outcome.problem)
            else:
                self._go_on(clean=not outcome.refused)

    def _take(self) -> list[PendingWrite]:
        """Wait for rows and take a group of them; nothing once closed and empty."""
        with self._wake:
            if self._stuck:
                self._wake.wait_for(lambda: self._ended, _RETRY_S)
            while not self._items and not self._closed:
                self._wake.wait()
            if not self._urgent and not self._closed:
                self._wake.wait(_LINGER_S)
            self._in_flight = [self._items.popleft() for _ in range(min(len(self._items), _GROUP))]
            self._urgent = bool(self._items)
            return self._in_flight

    def _hold(self, problem: str) -> None:
        """Keep what is queued until the store takes rows again; who waits for a row is told that it is not safe yet."""
        with self._wake:
            late = [] if self._stuck else [*self._in_flight, *self._items]
            self.problem, self._stuck = problem, True
        if late:
            self._delay(late)

    def _go_on(self, *, clean: bool) -> None:
        with self._wake:
            again, self._stuck = self._stuck, False
            if clean:
                self.problem = None
        if again:
            self._logged = -_LOG_EVERY_S
            _log.warning("the trace store takes rows again; %d were late so far", self.delayed)

    def _delay(self, items: Sequence[PendingWrite]) -> None:
        self.delayed += len(items)
        self._on_delay(len(items))
        self._tell(items, "the trace store takes no rows: %d wait in memory, answers go on: %s", self.waiting)

    def _lose(self, items: Sequence[PendingWrite], problem: str) -> None:
        self.lost += len(items)
        self.problem = problem
        self._on_loss(len(items))
        self._tell(items, "traces are being lost (%d so far), answers go on: %s", self.lost)

    def _tell(self, items: Sequence[PendingWrite], said: str, rows: int) -> None:
        if time.monotonic() > self._logged + _LOG_EVERY_S:
            self._logged = time.monotonic()
            _log.error(said, rows, self.problem)
        for item in items:
            item.tell(written=False)
