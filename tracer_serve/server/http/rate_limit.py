"""Rate limits per caller: token buckets, up to a bounded number of callers."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Left:
    """State of a bucket after a request.

    Parameters
    ----------
    allowed : whether the request may be served
    remaining : requests that may follow at once
    reset_s : seconds until the bucket is full
    retry_s : seconds until the next request is allowed; 0 if it is allowed now
    """

    allowed: bool
    remaining: int
    reset_s: float
    retry_s: float


class Buckets:
    """One bucket per caller: it starts full, a request takes a token, and tokens are added evenly.

    Parameters
    ----------
    per_minute : tokens that are added per minute, and the size of a bucket
    clock : seconds, monotonic

    Examples
    --------
    >>> Buckets(60).take("a").remaining
    59
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._size, self._rate, self._clock = max(1.0, per_minute), per_minute / 60.0, clock
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> Left:
        """Take a token if there is one."""
        now = self._clock()
        tokens, at = self._held.pop(caller, (self._size, now))
        tokens = min(self._size, tokens + (now - at) * self._rate)
        allowed = tokens >= 1.0
        tokens -= allowed
        self._held[caller] = tokens, now
        if len(self._held) > _MOST:  # drop the least recent caller, whose bucket is nearly full
            self._held.popitem(last=False)
        missing = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate
        return Left(allowed, int(tokens), (self._size - tokens) / self._rate, missing)
