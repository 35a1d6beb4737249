"""Circuit breaker: an endpoint that is down gets no calls until a probe succeeds."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from tracer_serve.errors import TeacherError

_log = logging.getLogger(__name__)
_OUTAGE = frozenset({"timeout", "unavailable"})  # a 429 or a 400 comes from an endpoint that is up


class Breaker:
    """Closed, open after `failures` outages in a row, half open after `open_s`: one probe decides.

    Only outages count (timeouts, broken connections, 5xx); a cancelled call counts as neither. While open, a call
    is refused at once, which saves the caller's time and protects the endpoint (M. Nygard, "Release It!", 2007).

    Parameters
    ----------
    name : name of the endpoint, for errors and the log
    failures : consecutive outages that open the breaker
    open_s : seconds until a probe is allowed
    clock : monotonic clock
    """

    def __init__(
        self, name: str, *, failures: int = 8, open_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.failures, self.open_s, self.clock = name, failures, open_s, clock
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> Literal["closed", "open", "half_open"]:
        """Return the current state, for dashboards."""
        if self._opened_at is None:
            return "closed"
        return "open" if self.clock() < self._opened_at + self.open_s else "half_open"

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Context of one call; its outcome updates the breaker.

        Raises
        ------
        TeacherError
            ``circuit_open``, with the seconds until the next probe, when the call may not be made.
        """
        probe = self._admit()
        try:
            yield
        except TeacherError as error:
            self._learn(outage=error.reason in _OUTAGE, probe=probe)
            raise
        else:
            self._learn(outage=False, probe=probe)
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Return whether the call is the probe."""
        if self._opened_at is None:
            return False
        wait = self._opened_at + self.open_s - self.clock()
        if wait > 0 or self._probing:
            raise TeacherError(
                f"{self.name} failed {self.failures} times in a row and gets no calls until a probe succeeds",
                reason="circuit_open",
                retry_after_s=max(wait, 0.0) or 1.0,
            )
        self._probing = True
        return True

    def _learn(self, *, outage: bool, probe: bool) -> None:
        if self._opened_at is not None and not probe:
            return  # the call began before the breaker opened; only a probe shows the current state
        self._in_a_row = self._in_a_row + 1 if outage else 0
        if outage and (probe or self._in_a_row >= self.failures):
            self._opened_at = self.clock()
            _log.warning("%s: circuit open for %g s after %d failures in a row", self.name, self.open_s, self._in_a_row)
        elif probe:
            self._opened_at = None
            _log.warning("%s: circuit closed, a probe was answered", self.name)
