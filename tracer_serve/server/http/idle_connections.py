"""Close connections that have been idle too long, or the longest idle one if there are too many."""

import asyncio
import resource
from dataclasses import dataclass
from itertools import takewhile

_FILES = 16_384
_OTHER_FILES = 256  # of the trace store, the version and connections to the teacher


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server's connections.

    Parameters
    ----------
    connections : maximum number of connections of a worker; beyond it the longest idle one is closed
    idle_s : maximum time in seconds from a connection's start, or its last answer, to the end of the next request's
    head
    head_bytes : maximum size of a request line with headers, or of trailers
    write_s, write_bytes : a client must read at least `write_bytes` of its answer in `write_s` seconds
    look_s : seconds between two checks for idle connections
    """

    connections: int = 10_000
    idle_s: float = 30.0
    head_bytes: int = 64_000
    write_s: float = 30.0
    write_bytes: int = 480_000
    look_s: float = 1.0


def most_connections(wanted: int) -> int:
    """Raise the soft limit of open files as far as the hard limit allows; return how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        soft = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - min(_OTHER_FILES, soft // 2))


class IdleConnections:
    """Transports of one server without a request in flight, longest idle first.

    They are aborted, because `close` would wait until the client has read all that was sent.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self._most = most_connections(limits.connections)
        self._loop, self._limits = loop, limits
        self._since: dict[asyncio.Transport, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, transport: asyncio.Transport) -> None:
        """Register a connection as idle."""
        self._since[transport] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._limits.look_s, self._look)

    def discard(self, transport: asyncio.Transport) -> None:
        """Remove a connection that has a request, or is lost."""
        self._since.pop(transport, None)

    def make_room(self, connections: int) -> None:
        """Abort the longest idle connection if there are more than the limit."""
        if connections > self._most:
            self._abort(next(iter(self._since)))

    def _look(self) -> None:
        latest = self._loop.time() - self._limits.idle_s
        for transport, _ in list(takewhile(lambda entry: entry[1] < latest, self._since.items())):
            self._abort(transport)
        self._timer = self._loop.call_later(self._limits.look_s, self._look) if self._since else None

    def _abort(self, transport: asyncio.Transport) -> None:
        self.discard(transport)
        transport.abort()
