"""Generate identifiers that sort by time: UUIDv7 (RFC 9562, section 5.7), in the standard library from Python 3.14."""

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime

_COUNTER_BITS = 74
_RANDOM_BITS = 62
_DRAWN = 4096  # random bytes drawn at once: one system call per id would dominate its cost


class IdGenerator:
    """Generates identifiers in increasing order. Thread-safe.

    Parameters
    ----------
    clock : nanoseconds since 1970
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._last_ms = self._counter = self._used = 0
        self._random = b""

    def new(self) -> str:
        """Return the next identifier, as `new_id` does."""
        with self._lock:
            now = self._clock() // 1_000_000
            if now > self._last_ms:
                self._last_ms, self._counter = now, self._draw(9)
            else:
                self._counter += 1 + self._draw(4)
                if self._counter >> _COUNTER_BITS:
                    self._last_ms, self._counter = self._last_ms + 1, self._draw(9)
            high, low = self._counter >> _RANDOM_BITS, self._counter & (1 << _RANDOM_BITS) - 1
            return _id(self._last_ms, high, low)

    def reseed(self) -> None:
        """Discard the random bytes that a forked process shares with its parent."""
        self._random, self._used = b"", 0

    def _draw(self, count: int) -> int:
        """Return a random number of `count` bytes; the caller holds the lock."""
        if self._used + count > len(self._random):
            self._random, self._used = os.urandom(_DRAWN), 0
        self._used += count
        return int.from_bytes(self._random[self._used - count : self._used])


generator = IdGenerator()
"""The generator of this process, used by `new_id`."""


def new_id() -> str:
    """Return a new identifier, greater than every one made before in this process.

    The first 48 bits are the milliseconds since 1970. The 74 bits after them (RFC 9562 method 2) are drawn at random
    once per millisecond and incremented by a random step within it. A clock that is set back does not break the order:
    the largest millisecond seen is kept until the clock has caught up.

    Examples
    --------
    >>> first, second = new_id(), new_id()
    >>> first < second, len(first)
    (True, 36)
    """
    return generator.new()


def first_id(when: datetime) -> str:
    """Return the smallest identifier of a point in time; every earlier identifier is smaller.

    Examples
    --------
    >>> from datetime import UTC, timedelta
    >>> first_id(datetime.now(UTC) - timedelta(seconds=1)) < new_id() < first_id(datetime.now(UTC) + timedelta(days=1))
    True
    """
    return _id(int(when.timestamp() * 1_000), 0, 0)


def _id(milliseconds: int, high: int, low: int) -> str:
    digits = f"{milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=generator.reseed)
