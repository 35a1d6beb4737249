"""uvicorn's HTTP protocol with an end to patience: silent connections, endless heads, and too many of either.

uvicorn counts the seconds between two requests only. A connection that never says anything, or says its request a byte
at a time, it keeps for ever, and of a head it reads whatever comes.
"""

import asyncio
import re
import resource
from itertools import takewhile
from typing import Any, cast
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tracer_serve.server.http.request_body import WHOLE

MOST = 10_000
"""Connections of a worker; where more come, the one that has been silent longest gives way."""

HEAD_BYTES = 64_000
"""Of a request line and its headers, or of what follows a body; what is larger is nobody's in good faith."""

HEAD_S = 30.0
"""Seconds from a connection's beginning, or from the last answer on it, until the next request's head is there."""

_FILES, _SPARE_FILES = 16_384, 256  # the store, versions and connections to the teacher need some as well
_LOOK_S = 1.0
_H2C = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r|$)", re.IGNORECASE)
"""An offer of HTTP/2, as Java's clients make it with every request: the parser would take it, and drop the body."""


def allow_connections() -> int:
    """Let this process open as many files as it needs; return how many connections it may then hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        soft = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(MOST, soft - _SPARE_FILES))


class _Lobby:
    """The connections of one server that no request is under way on, the one that came first in front."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.most = allow_connections()
        self._loop, self._since = loop, dict[BoundedProtocol, float]()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, connection: "BoundedProtocol") -> None:
        self._since[connection] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def leave(self, connection: "BoundedProtocol") -> None:
        self._since.pop(connection, None)

    def make_room(self, open_: int) -> None:
        if open_ > self.most:
            self._dismiss(next(iter(self._since)))

    def _look(self) -> None:
        latest = self._loop.time() - HEAD_S
        for connection, _ in list(takewhile(lambda entry: entry[1] < latest, self._since.items())):
            self._dismiss(connection)
        self._timer = self._loop.call_later(_LOOK_S, self._look) if self._since else None

    def _dismiss(self, connection: "BoundedProtocol") -> None:
        self.leave(connection)
        connection.transport.close()


_LOBBIES: WeakKeyDictionary[Any, _Lobby] = WeakKeyDictionary()


class BoundedProtocol(HttpToolsProtocol):
    """One connection: how long it may be silent, and how much it may say before it asks."""

    def connection_made(self, transport: Any) -> None:
        """Give it a place; where there is none left, the place of another that says nothing."""
        super().connection_made(transport)
        self._lobby = _LOBBIES.get(self.server_state) or _LOBBIES.setdefault(self.server_state, _Lobby(self.loop))
        self._said, self._in_body = 0, False
        self._lobby.enter(self)
        self._lobby.make_room(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._lobby.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless this head has no end, or this body's trailers, which uvicorn keeps with the headers."""
        self._said += len(data)
        if not self._in_body and b"h2c" in data:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _H2C.sub(b"", head) + end + rest
        super().data_received(data)
        if self._said > HEAD_BYTES:
            self._lobby.leave(self)
            self.send_400_response(f"The head of a request may have {HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._lobby.leave(self)
        self._said, self._in_body = 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take what the request's own limit counts."""
        self._said = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Know that what follows is another head, and tell who reads this body that all of it is here."""
        self._in_body = False
        cast("dict[str, Any]", self.scope)[WHOLE] = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; a body that was refused and still comes is waited for no longer than that."""
        if not self.pipeline:
            self._lobby.enter(self)
        super().on_response_complete()
