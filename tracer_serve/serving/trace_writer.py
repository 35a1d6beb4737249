"""Write traces to the store in groups from one thread, so that requests share an fsync."""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from tracer_serve.errors import StoreError
from tracer_serve.infra.caller import CALLER, within_share
from tracer_serve.infra.log_context import within
from tracer_serve.serving.write_batch import Label, PendingWrite, write
from tracer_serve.storage.traces import TraceStore
from tracer_serve.types import Answer, LabelSource, Trace

_log = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0
_GROUP = 1_000  # most items of one transaction
_WITH_URGENT = 200  # most other items of a transaction that a request waits for
_RESERVE = 0.1  # share of the capacity that is reserved for rows that are acknowledged to a client
_BACKLOG = 0.2  # share of the capacity beyond which requests wait for the store
_WEIGHT = 2  # one caller's rows are two thirds of the backlog at most


class TraceWriter:
    """Write traces in batches.

    Rows that no request waits for (`put`) are gathered for `linger_s` seconds; a row that a request waits for
    (`commit`) is written at once, before them. While the store accepts no rows, requests are answered, and rows are
    kept in memory and retried. A row is lost, counted and logged, if the queue is full, if the store rejects it while
    it accepts others, or if it is not written when the process ends.

    Parameters
    ----------
    store : where the rows go
    on_loss, on_delay : called with the number of rows that are lost, or delayed because the store accepts none
    capacity : maximum number of rows queued; a long text counts as one more for each thousand characters
    linger_s : seconds for which rows are gathered
    retry_s : seconds between attempts while the store accepts no rows
    patience_s : seconds after which a request no longer waits for the store

    Attributes
    ----------
    problem : why rows cannot be written now; None if they can
    lost, last_loss : number of lost rows, and why the last one was lost
    """

    def __init__(
        self,
        store: TraceStore,
        on_loss: Callable[[int], None] = lambda _: None,
        on_delay: Callable[[int], None] = lambda _: None,
        *,
        capacity: int = 50_000,
        linger_s: float = 0.1,
        retry_s: float = 1.0,
        patience_s: float = 10.0,
    ) -> None:
        self.problem: str | None = None
        self.last_loss: str | None = None
        self.lost = self.delayed = 0
        self._store, self._on_loss, self._on_delay, self._capacity = store, on_loss, on_delay, capacity
        self._linger_s, self._retry_s, self._patience_s = linger_s, retry_s, patience_s
        self._urgent, self._items, self._in_flight = deque[PendingWrite](), deque[PendingWrite](), list[PendingWrite]()
        self._load = Counter[str]()  # the size of all three, by caller
        self._total = 0
        self._waiters: list[Callable[[bool], None]] = []
        self._wake = threading.Condition()
        self._stuck = self._closed = self._ended = False
        self._logged = -_LOG_EVERY_S
        self._thread = threading.Thread(target=within(self._run), name="tracer-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many rows and labels are not written yet."""
        return len(self._urgent) + len(self._items) + len(self._in_flight)

    async def room(self) -> None:
        """Wait while the caller's rows fill its share of the backlog: back-pressure for lists.

        It does not wait while the store accepts no rows, and for `patience_s` at most.
        """
        if self._has_room():
            return
        until = time.monotonic() + self._patience_s
        while not self._has_room() and time.monotonic() < until:
            future, done = _future()
            with self._wake:
                self._waiters.append(done)
            try:
                await asyncio.wait_for(future, max(0.0, until - time.monotonic()))
            except TimeoutError:
                return

    def put(self, trace: Trace) -> None:
        """Queue a row that no request waits for."""
        self._queue(PendingWrite(trace, caller=CALLER.get()))

    def label(self, trace_id: str, source: LabelSource, answer: Answer, fingerprint: str) -> None:
        """Queue a teacher's label for a row that was queued before."""
        self._queue(PendingWrite(Label(trace_id, source, answer, fingerprint), caller=CALLER.get()))

    async def commit(self, trace: Trace) -> bool:
        """Write a row; once this returns True the row survives a crash.

        It returns False if the store does not accept the row within `patience_s`. The row is then written as soon as
        the store accepts rows again.
        """
        future, done = _future()
        self._queue(PendingWrite(trace, done, CALLER.get()))
        try:
            return await asyncio.wait_for(future, self._patience_s)
        except TimeoutError:
            self._hold(f"the trace store has not answered for {self._patience_s:g} s")
            return False

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued and end the thread, within `timeout_s` seconds."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout_s)
        with self._wake:
            self._ended = True
            left = [*self._urgent, *self._items]
            self._urgent.clear()
            self._items.clear()
            self._wake.notify()
        self._release()
        if left:
            self._lose(left, self.problem or "the store did not take the last rows in time")

    def _has_room(self) -> bool:
        if self._stuck or self._closed:
            return True
        return within_share(self._load[CALLER.get()], self._total, int(self._capacity * _BACKLOG), _WEIGHT)

    def _queue(self, item: PendingWrite) -> None:
        acknowledged = item.done is not None or isinstance(item.what, Label)
        capacity = self._capacity - (0 if acknowledged else int(self._capacity * _RESERVE))
        with self._wake:
            fits = self._total + item.size <= capacity and not self._closed
            if fits:
                (self._items if item.done is None else self._urgent).append(item)
                self._count(item, 1)
                if item.done is not None or len(self._items) == 1:
                    self._wake.notify()
            stuck = self._stuck
        if not fits:
            self._lose([item], self.problem or "the queue of rows to be written is full")
        elif stuck:
            self._delay([item])

    def _count(self, item: PendingWrite, sign: int) -> None:
        self._total += sign * item.size
        self._load[item.caller] += sign * item.size
        if not self._load[item.caller]:
            del self._load[item.caller]

    def _run(self) -> None:
        while items := self._take():
            outcome = write(self._store, items)
            for item, error in outcome.refused:
                self._lose([item], str(error) if isinstance(error, StoreError) else repr(error))
            left = {id(item) for item in outcome.left}
            with self._wake:
                for item in items:
                    if id(item) not in left:
                        self._count(item, -1)
                self._in_flight = []
                ended = self._ended
                if not ended:  # rows before the labels that belong to them
                    self._items.extendleft(reversed(outcome.left))
            if ended and outcome.left:
                self._lose(outcome.left, str(outcome.problem))
            elif outcome.problem is not None:
                self._hold(outcome.problem)
            else:
                self._resume(clean=not outcome.refused)
            self._release()

    def _take(self) -> list[PendingWrite]:
        """Wait for rows and return a group of them, first those that requests wait for; none once closed and empty."""
        with self._wake:
            if self._stuck:
                self._wake.wait_for(lambda: self._ended, self._retry_s)
            while not self._urgent and not self._items and not self._closed:
                self._wake.wait()
            if not self._urgent and not self._closed:
                self._wake.wait(self._linger_s)
            group = [self._urgent.popleft() for _ in range(min(len(self._urgent), _GROUP))]
            others = _WITH_URGENT if group else _GROUP
            group += [self._items.popleft() for _ in range(min(len(self._items), others))]
            self._in_flight = group
            return group

    def _hold(self, problem: str) -> None:
        """Keep the queue until the store accepts rows again, and let no request wait for it."""
        with self._wake:
            late = [] if self._stuck else [*self._in_flight, *self._urgent, *self._items]
            self.problem, self._stuck = problem, True
        if late:
            self._delay(late)

    def _resume(self, *, clean: bool) -> None:
        with self._wake:
            again, self._stuck = self._stuck, False
            if clean:
                self.problem = None
        if again:
            self._logged = -_LOG_EVERY_S
            _log.warning("the trace store accepts rows again; %d were delayed so far", self.delayed)

    def _release(self) -> None:
        """Wake the requests that wait for room."""
        with self._wake:
            waiters, self._waiters = self._waiters, []
        for done in waiters:
            done(True)

    def _delay(self, items: Sequence[PendingWrite]) -> None:
        self.delayed += len(items)
        self._on_delay(len(items))
        self._report(
            items, "the trace store accepts no rows, %d wait in memory; requests are still answered: %s", self.waiting
        )

    def _lose(self, items: Sequence[PendingWrite], problem: str) -> None:
        self.lost += len(items)
        self.problem = self.last_loss = problem
        self._on_loss(len(items))
        self._report(items, "traces are being lost (%d so far); requests are still answered: %s", self.lost)

    def _report(self, items: Sequence[PendingWrite], message: str, rows: int) -> None:
        if time.monotonic() > self._logged + _LOG_EVERY_S:
            self._logged = time.monotonic()
            _log.error(message, rows, self.problem)
        for item in items:
            item.notify(written=False)


def _future() -> tuple[asyncio.Future[bool], Callable[[bool], None]]:
    """Return a future of this event loop, and a function that resolves it from any thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def resolve(value: bool) -> None:
        if not future.done():
            future.set_result(value)

    def done(value: bool) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(resolve, value)

    return future, done
