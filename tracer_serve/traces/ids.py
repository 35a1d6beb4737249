"""Identifiers that sort by time: UUIDv7 (RFC 9562, section 5.7), which Python's standard library has from 3.14 on."""

import os
import threading
import time
from uuid import UUID

_COUNTER_BITS = 74
_RANDOM_BITS = 62

_lock = threading.Lock()
_last_ms = 0
_counter = 0


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
            _last_ms, _counter = now, int.from_bytes(os.urandom(9))
        else:
            _counter += 1 + int.from_bytes(os.urandom(4))
            if _counter >> _COUNTER_BITS:
                _last_ms, _counter = _last_ms + 1, int.from_bytes(os.urandom(9))
        high, low = _counter >> _RANDOM_BITS, _counter & (1 << _RANDOM_BITS) - 1
        value = _last_ms << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    return str(UUID(int=value))
