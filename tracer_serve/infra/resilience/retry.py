"""Retry calls to one or several endpoints: full jitter, Retry-After honoured, never past the deadline."""

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

from tracer_serve.errors import EndpointError

T = TypeVar("T")
TRANSIENT = frozenset({"timeout", "rate_limited", "unavailable"})
"""Reasons after which the same endpoint may answer the same request a moment later."""

LONGEST_WAIT_S = 86_400.0
"""A longer ``Retry-After`` counts as this: a server that asks for more is misconfigured."""

_EARLY_S = 0.001  # a sleeper may wake this much before its time


class Retry:
    """Call endpoints in order of preference, in rounds, with a pause between rounds.

    A round calls each endpoint once without a pause in between, so a fallback does not wait for the first choice's
    retries. The pause is drawn from U(0, min(cap, base * 2**round)), "full jitter" as in M. Brooker, "Exponential
    Backoff And Jitter" (AWS Architecture Blog, 2015), so that callers that failed together do not return together.

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
        EndpointError
            The last endpoint's, if retrying cannot help, no round is left, or the next pause would pass the deadline.
            An endpoint whose error is not transient is not called again.
        """
        left = dict(enumerate(tries))
        ready = dict.fromkeys(left, -math.inf)
        for turn in itertools.count():
            for endpoint in [e for e in left if ready[e] <= self.clock() + _EARLY_S]:
                try:
                    return await left[endpoint]()
                except EndpointError as error:
                    last = error
                    ready[endpoint] = self.clock() + (error.retry_after_s or 0.0)
                    if error.reason not in TRANSIENT:
                        del left[endpoint]
            await self.sleep(self._pause(turn, [ready[e] for e in left], last, until))
        raise AssertionError("unreachable")

    def run_blocking(self, call: Callable[[], T], until: float) -> T:
        """Return the first answer of one blocking call, by the rules of `run`; sleeps in this thread."""
        for turn in itertools.count():
            try:
                return call()
            except EndpointError as error:
                ready = [self.clock() + (error.retry_after_s or 0.0)] if error.reason in TRANSIENT else []
                time.sleep(self._pause(turn, ready, error, until))
        raise AssertionError("unreachable")

    def _pause(self, turn: int, ready: Sequence[float], last: EndpointError, until: float) -> float:
        """Return the seconds before the next round; raise `last` if there is none."""
        if turn >= self.retries or not ready:
            raise last
        jitter = self.rng.uniform(0.0, min(self.cap_s, self.base_s * 2.0**turn))
        pause = max(jitter, min(ready) - self.clock())
        if self.clock() + pause >= until:
            raise last
        return pause


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that a response asks to wait, at most a day.

    Reads ``retry-after-ms``, and ``Retry-After`` in seconds or as a date.

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
            return min(max(0.0, seconds), LONGEST_WAIT_S) if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError, KeyError):
        date = parsedate_to_datetime(headers["retry-after"])
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return min(max(0.0, (date - (now or datetime.now(UTC))).total_seconds()), LONGEST_WAIT_S)
    return None
