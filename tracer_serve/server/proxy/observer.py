"""Observe forwarded calls in a background thread: parse them, group them by prompt, and save what may be kept."""

import json
import logging
import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from tracer_serve.errors import StoreError
from tracer_serve.forms.grouping import CallGroups
from tracer_serve.infra.redaction import WITHHELD, Redact
from tracer_serve.server.proxy.answers import Answered, decoded, read_stream
from tracer_serve.server.proxy.relay import Exchange
from tracer_serve.storage.importers.calls import observed
from tracer_serve.storage.importers.extract import mapping
from tracer_serve.storage.importers.parse import tokens_of
from tracer_serve.storage.observed import ObservedCalls

PATHS = frozenset({"chat/completions", "responses"})
"""Paths of calls that may be classifications."""

_WAITING = 2000  # exchanges that may wait; further ones are counted as missed
_WAITING_BYTES = 64_000_000
_SAVE_S = 5.0
_OK = 200
_log = logging.getLogger(__name__)


class Observer:
    """Background thread that observes exchanges; `observe` never blocks.

    Parameters
    ----------
    store : database of what may be kept
    days : how long it is kept
    redact : applied to every text before it is kept
    """

    def __init__(
        self, store: ObservedCalls, days: float, redact: Redact | None = None, *, save_s: float = _SAVE_S
    ) -> None:
        self._store, self._days, self._save_s = store, days, save_s
        self._redact = redact
        self._queue: queue.Queue[Exchange | None] = queue.Queue(_WAITING)
        self._bytes, self._counting = 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self.groups = CallGroups(self._kept)
        self.lock = threading.Lock()
        """Lock to hold while reading or changing `groups`."""
        self.missed = 0

    def start(self) -> None:
        """Load the stored calls, and start.

        Raises
        ------
        StoreError
            If they cannot be read.
        """
        if self._store.file.exists():
            self._store.load_into(self.groups)
        self._thread.start()

    def stop(self) -> None:
        """Observe the waiting exchanges, save, and stop."""
        self._queue.put(None)
        self._thread.join()

    def observe(self, exchange: Exchange) -> None:
        """Queue an exchange; if too many or too large ones wait, count it as missed."""
        if exchange.path not in PATHS or exchange.status != _OK:
            return
        if not self._count(exchange, 1):
            self.missed += 1
            return
        try:
            self._queue.put_nowait(exchange)
        except queue.Full:
            self._count(exchange, -1)
            self.missed += 1

    def _run(self) -> None:
        due, changed = time.monotonic() + self._save_s, False
        while True:
            try:
                exchange = self._queue.get(timeout=max(0.01, due - time.monotonic()))
            except queue.Empty:
                exchange = None
                ended = False
            else:
                ended = exchange is None
                if exchange is not None:
                    self._add(exchange)
                    self._count(exchange, -1)
                    changed = True
            if ended or time.monotonic() >= due:
                if changed:
                    self._save()
                due, changed = time.monotonic() + self._save_s, False
            if ended:
                return

    def _count(self, exchange: Exchange, sign: int) -> bool:
        """Count the bytes of a waiting exchange, unless there are too many."""
        size = sign * (len(exchange.request) + len(exchange.answer))
        with self._counting:
            if sign > 0 and self._bytes + size > _WAITING_BYTES:
                return False
            self._bytes += size
        return True

    def _add(self, exchange: Exchange) -> None:
        try:
            body = json.loads(exchange.request)
            answered = _answer_of(exchange)
            seen = observed(body, answered.content, exchange.at, answered.usage)
        except Exception:  # noqa: BLE001  anything may be in it, and the thread has to live; its bytes were forwarded
            return
        with self.lock:
            self.groups.add(seen)

    def _save(self) -> None:
        try:
            with self.lock:
                self._store.save(self.groups, self._days)
        except StoreError as error:
            _log.error("observed calls were not saved: %s", error)

    def _kept(self, text: str) -> str | None:
        if self._redact is None:
            return text
        redacted = self._redact(text)
        return None if redacted is WITHHELD or not isinstance(redacted, str) else redacted


def _answer_of(exchange: Exchange) -> Answered:
    """Return the content and the tokens of an answer, in any encoding, JSON or a stream.

    Raises
    ------
    ValueError
        If it is neither.
    """
    body = decoded(exchange.answer, exchange.headers.get("content-encoding", ""))
    if exchange.headers.get("content-type", "").startswith("text/event-stream"):
        return read_stream(body)
    if not body:  # too long to be observed
        return Answered(None, {})
    answer: Mapping[str, Any] = mapping(json.loads(body))
    return Answered(answer, tokens_of(mapping(answer.get("usage"))))
