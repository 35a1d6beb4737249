"""Connection limits: idle time, size of heads, pipelined requests, unread answers; ignores upgrades.

uvicorn has no settings for these, so this subclasses its protocol. The callbacks it overrides are not a public
interface: `pyproject.toml` bounds uvicorn from above, and ``tests/server/test_connection_limits.py`` fails if a version
does not call them.
"""

import asyncio
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

import httptools
import uvicorn
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tracer_serve.server.http.idle_connections import IdleConnections, Limits
from tracer_serve.server.http.request_body import WHOLE

_SLICE = 1_024
"""Bytes parsed at a time: at most 57 requests, the shortest being 18 bytes, are queued before reading pauses."""

_IDLE: WeakKeyDictionary[Any, IdleConnections] = WeakKeyDictionary()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits.

    Requests that a client sends before it has its answer are queued, a slice at a time; the next slice is parsed when
    the queue is empty, and reading is paused until then. ``Upgrade`` headers are ignored, as RFC 9110 (7.8) allows.
    """

    limits: ClassVar = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._unparsed, self._refusal = b"", ""
        self._since_body = 0
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register an idle connection, and abort the longest idle one if there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self._idle = _IDLE.get(self.server_state) or _IDLE.setdefault(
            self.server_state, IdleConnections(self.loop, self.limits)
        )
        self._idle.add(transport)
        self._idle.make_room(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._idle.discard(self.transport)
        self.resume_writing()
        self._unparsed = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data while no request is queued."""
        if len(data) <= _SLICE and not self.is_behind:
            self._feed(data)
        else:
            self._unparsed += data
            self._parse()

    def _parse(self) -> None:
        data, start = self._unparsed, 0
        while start < len(data) and not (self.pipeline or self._refusal or self.transport.is_closing()):
            self._feed(data[start : start + _SLICE])
            start += _SLICE
        self._unparsed = data[start:]
        if self.is_behind:
            self.flow.pause_reading()

    def _feed(self, piece: bytes) -> None:
        self._since_body += len(piece)
        super().data_received(piece)
        if self._since_body > self.limits.head_bytes:
            self.send_400_response(f"The head of a request may have {self.limits.head_bytes} bytes.")

    @property
    def is_behind(self) -> bool:
        """Whether answers to earlier requests are due before the last received one."""
        return bool(self.pipeline or self._unparsed or self._refusal)

    def send_400_response(self, msg: str) -> None:
        """Refuse the last request and close, after the answers that are due before it."""
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self._refusal = msg
        else:
            super().send_400_response(msg)
            self._idle.add(self.transport)  # until the client has read it

    def on_headers_complete(self) -> None:
        """Begin a request, unless its head will be parsed again without its ``Upgrade``."""
        if self.parser.should_upgrade():
            return
        self._idle.discard(self.transport)
        self._since_body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of a body; the route limits its size."""
        self._since_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Signal the end of this body to its reader."""
        if self.parser.should_upgrade():
            return
        cast("dict[str, Any]", self.scope)[WHOLE] = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with queued requests, then with unparsed data, then read."""
        if not self.pipeline:
            self._idle.add(self.transport)
        super().on_response_complete()
        if self.pipeline or self.transport.is_closing():
            return
        if self._refusal:
            self.send_400_response(self._refusal)
        elif self._unparsed or self.flow.read_paused:
            self._parse()
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        """Set a deadline for a client that does not read its answer."""
        super().pause_writing()
        self._set_write_timer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Cancel the deadline."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _set_write_timer(self, unread: int) -> None:
        self._write_timer = self.loop.call_later(self.limits.write_s, self._require_progress, unread)

    def _require_progress(self, unread: int) -> None:
        left = self.transport.get_write_buffer_size()
        if unread - left < self.limits.write_bytes:
            self.transport.abort()
        else:
            self._set_write_timer(left)


class _Flow(FlowControl):
    """Flow control that does not resume reading while requests are queued; uvicorn's does, after each answer."""

    def __init__(self, transport: asyncio.Transport, connection: BoundedProtocol) -> None:
        super().__init__(transport)
        self._connection = connection

    def resume_reading(self) -> None:
        """Resume, unless requests are queued."""
        if not self._connection.is_behind:
            super().resume_reading()


class _Parser(httptools.HttpRequestParser):
    """Parser that ignores ``Upgrade``; otherwise the body after such a head would be read as another request."""

    def __init__(self, connection: BoundedProtocol) -> None:
        super().__init__(connection)
        self._connection = connection

    def feed_data(self, data: Any) -> None:
        """Parse data; a head with an ``Upgrade`` is parsed again without it."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.get_method() == b"CONNECT":  # an upgrade without the header
                raise httptools.HttpParserInvalidMethodError("CONNECT is not supported") from None
            (end,) = upgrade.args
            self.feed_data(self._head() + data[end:])

    def _head(self) -> bytes:
        start = b"%b %b HTTP/%b\r\n" % (self.get_method(), self._connection.url, self.get_http_version().encode())
        kept = (b"%b: %b\r\n" % header for header in self._connection.headers if header[0] != b"upgrade")
        return start + b"".join(kept) + b"\r\n"


def bound_uvicorn() -> None:
    """Set this protocol as the default of all uvicorn servers in this process, such as BentoML's.

    Raises
    ------
    RuntimeError
        If this version of uvicorn does not use it; nothing is served without limits.
    """
    auto.AutoHTTPProtocol = BoundedProtocol
    config = uvicorn.Config(_never_called, log_config=None)
    config.load()
    if config.http_protocol_class is not BoundedProtocol:
        raise RuntimeError(f"uvicorn {uvicorn.__version__} does not apply connection limits; install uvicorn<0.55")


async def _never_called(scope: Any, receive: Any, send: Any) -> None:
    """Stand in for an application while a configuration is read."""
