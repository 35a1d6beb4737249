"""Generate identifiers that sort by time: UUIDv7 (RFC 9562, section 5.7), in the standard library from Python 3.14."""

import os
import threading
import time
from datetime import datetime

_COUNTER_BITS = 74
_RANDOM_BITS = 62
_DRAWN = 4096  # random bytes drawn at once: one system call per id would dominate its cost

_lock = threading.Lock()
_last_ms = 0
_counter = 0
_random, _used = b"", 0


def new_id() -> str:
    """Return a new identifier, greater than every one made before in this process.

    The first 48 bits are the milliseconds since 1970. The 74 bits after them (RFC 9562 method 2) are drawn at random
    once per millisecond and counted up by a random step within it. A clock that is set back does not break the order:
    the largest millisecond seen is kept until the clock has caught up.

    Examples
    --------
    >>> first, second = new_id(), new_id()
    >>> first < second, len(first)
    (True, 36)
    """
    global _last_ms, _counter  # noqa: PLW0603  the order is a property of the process
    with _lock:
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            _last_ms, _counter = now, _draw(9)
        else:
            _counter += 1 + _draw(4)
            if _counter >> _COUNTER_BITS:
                _last_ms, _counter = _last_ms + 1, _draw(9)
        high, low = _counter >> _RANDOM_BITS, _counter & (1 << _RANDOM_BITS) - 1
        return _id(_last_ms, high, low)


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


def _draw(count: int) -> int:
    """Return a random number of `size` bytes; the caller holds the lock."""
    global _random, _used  # noqa: PLW0603
    if _used + count > len(_random):
        _random, _used = os.urandom(_DRAWN), 0
    _used += count
    return int.from_bytes(_random[_used - count : _used])


def _forget() -> None:
    """Discard the random bytes that a forked process shares with its parent."""
    global _random  # noqa: PLW0603
    _random = b""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
