"""Retries over one or several endpoints: full jitter, Retry-After honoured, never past the deadline."""

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tracer_serve.errors import TeacherError

T = TypeVar("T")
TRANSIENT = frozenset({"timeout", "rate_limited", "unavailable"})
"""Reasons after which the same endpoint may answer the same request a moment later."""

_EARLY_S = 0.001  # a sleeper may wake this much before its time


class Retry:
    """Asks endpoints in order of preference, in rounds, with a pause between rounds.

    A round asks each endpoint once, without a pause in between: a fallback is not kept waiting for the first choice's
    retries. The pause is drawn from U(0, min(cap, base * 2**round)), "full jitter" as in M. Brooker, "Exponential
    Backoff And Jitter" (AWS Architecture Blog, 2015), so that callers who failed together do not come back together.

    Parameters
    ----------
    retries : rounds after the first
    base_s, cap_s : seconds; bounds of the pause
    clock, sleep, rng : the monotonic clock, the sleeper and the source of jitter
    """

    def __init__(
        self,
        retries: int,
        *,
        base_s: float = 0.25,
        cap_s: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.retries, self.base_s, self.cap_s = retries, base_s, cap_s
        self.clock, self.sleep, self.rng = clock, sleep, rng or random.Random()

    async def run(self, tries: Sequence[Callable[[], Awaitable[T]]], until: float) -> T:
        """Return the first answer.

        Parameters
        ----------
        tries : one call per endpoint, the preferred one first
        until : the deadline, a time of the clock; a pause that would pass it is not begun

        Raises
        ------
        TeacherError
            The last endpoint's, when retrying cannot help, when the rounds are used up, or when the pause that is due
            would pass the deadline. An endpoint whose error is not transient is not asked again.
        """
        left = dict(enumerate(tries))
        ready = dict.fromkeys(left, -math.inf)
        for turn in itertools.count():
            for endpoint in [e for e in left if ready[e] <= self.clock() + _EARLY_S]:
                try:
                    return await left[endpoint]()
                except TeacherError as error:
                    last = error
                    ready[endpoint] = self.clock() + (error.retry_after_s or 0.0)
                    if error.reason not in TRANSIENT:
                        del left[endpoint]
            if turn >= self.retries or not left:
                raise last
            jitter = self.rng.uniform(0.0, min(self.cap_s, self.base_s * 2.0**turn))
            pause = max(jitter, min(ready[e] for e in left) - self.clock())
            if self.clock() + pause >= until:
                raise last
            await self.sleep(pause)
        raise AssertionError("unreachable")


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that a response asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date.

    Parameters
    ----------
    headers : of the response, with lower-case or case-insensitive names
    now : the present, UTC, for the date form

    Examples
    --------
    >>> retry_after({"retry-after": "2"})
    2.0
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError, KeyError):
            seconds = float(headers[name]) * unit
            return max(0.0, seconds) if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError, KeyError):
        date = parsedate_to_datetime(headers["retry-after"])
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
    return None
