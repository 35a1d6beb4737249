"""Traces to the store in groups, from a thread of its own: a request never waits for another one's fsync."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tracer_serve.errors import StoreError
from tracer_serve.log_task import within
from tracer_serve.records import Answer, LabelSource, Trace
from tracer_serve.traces import TraceStore

_log = logging.getLogger(__name__)

_LINGER_S = 0.1
_PATIENCE_S = 10.0  # a store that hangs instead of failing would hold the answer for ever
_LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class _Item:
    """A row to add, or (`trace` None) a label to put on one."""

    trace: Trace | None = None
    label: "_Label | None" = None
    done: Callable[[bool], None] | None = None


@dataclass(frozen=True, slots=True)
class _Label:
    trace_id: str
    source: LabelSource
    answer: Answer
    fingerprint: str


class TraceWriter:
    """Writes traces in batches.

    Rows that nobody waits for are gathered for `_LINGER_S` seconds; a row that somebody waits for goes at once, with
    whatever is queued. A store that cannot be written costs traces, counted and told, never an answer.

    Parameters
    ----------
    store : where the rows go
    on_loss : called with the number of rows lost
    capacity : most rows queued; further ones are lost
    """

    def __init__(
        self, store: TraceStore, on_loss: Callable[[int], None] = lambda _: None, capacity: int = 50_000
    ) -> None:
        self.problem: str | None = None
        self.lost = 0
        self._store, self._on_loss, self._capacity = store, on_loss, capacity
        self._items: list[_Item] = []
        self._wake = threading.Condition()
        self._urgent = self._closed = False
        self._logged = -_LOG_EVERY_S
        self._thread = threading.Thread(target=within(self._run), name="tracer-writer", daemon=True)
        self._thread.start()

    def put(self, trace: Trace) -> None:
        """Queue a row that nobody waits for."""
        self._queue(_Item(trace), urgent=False)

    def label(self, trace_id: str, source: LabelSource, answer: Answer, fingerprint: str) -> None:
        """Queue a teacher's label for a row that was queued before."""
        self._queue(_Item(label=_Label(trace_id, source, answer, fingerprint)), urgent=False)

    async def commit(self, trace: Trace) -> bool:
        """Write a row; once this returns True it survives a crash.

        After ten seconds without a word from the store it returns False: the answer goes out, and the row is written if
        the store ever takes it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def resolve(written: bool) -> None:
            if not future.done():
                future.set_result(written)

        def done(written: bool) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(resolve, written)

        self._queue(_Item(trace, done=done), urgent=True)
        try:
            return await asyncio.wait_for(future, _PATIENCE_S)
        except TimeoutError:
            self.problem = f"the trace store has not answered for {_PATIENCE_S:g} s"
            return False

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued and end the thread, within `timeout_s` seconds."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._lose(self._items, "the store did not take the last rows in time")

    def _queue(self, item: _Item, *, urgent: bool) -> None:
        with self._wake:
            fits = len(self._items) < self._capacity and not self._closed
            if fits:
                self._items.append(item)
                self._urgent |= urgent
                if urgent or len(self._items) == 1:
                    self._wake.notify()
        if not fits:
            self._lose([item], "the queue of rows to be written is full")

    def _run(self) -> None:
        while items := self._take():
            self._write(items)

    def _take(self) -> list[_Item]:
        """Wait for rows and take them all; nothing once closed and empty."""
        with self._wake:
            while not self._items and not self._closed:
                self._wake.wait()
            if not self._urgent and not self._closed:
                self._wake.wait(_LINGER_S)
            items, self._items, self._urgent = self._items, [], False
            return items

    def _write(self, items: list[_Item]) -> None:
        rows = [item.trace for item in items if item.trace is not None]
        left = deque(items)
        try:
            if rows:
                self._store.add(rows)
            for item in items:
                if item.done is not None:
                    item.done(True)
            left = deque(item for item in items if item.label is not None)
            while left:
                if (given := left[0].label) is not None:
                    self._store.set_label(
                        given.trace_id, given.answer.label, given.source, given.answer, fingerprint=given.fingerprint
                    )
                left.popleft()
        except StoreError as error:
            self._lose([*left], str(error))
        except Exception as error:  # noqa: BLE001  this thread must outlive what a driver raises, or later rows are lost
            _log.exception("the trace store failed unexpectedly")
            self._lose([*left], repr(error))
        else:
            self.problem = None

    def _lose(self, items: list[_Item], problem: str) -> None:
        self.lost += len(items)
        self.problem = problem
        self._on_loss(len(items))
        if time.monotonic() > self._logged + _LOG_EVERY_S:
            self._logged = time.monotonic()
            _log.error("traces are being lost (%d so far), answers go on: %s", self.lost, problem)
        for item in items:
            if item.done is not None:
                item.done(False)
