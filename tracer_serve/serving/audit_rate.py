"""The audit rate of handled requests: fixed, or derived from the traffic, within a daily budget.

A rate may depend on the time, the traffic and the monitor's evidence, never on a request. Each row stores the rate in
force and its random draw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tracer_serve.storage.traces import Tally, TraceStore

LEAST_AUDITS = 10.0
"""Least number of audits per day that `auto` aims at, within `MOST_SHARE`."""
MOST_SHARE = 0.2
"""Largest share of the handled requests, and so of the saving, that `auto` spends on audits."""
UNKNOWN = 0.1
"""The rate of `auto` before there is any traffic."""
_BOOST, _BOOSTED = 10.0, 0.5

Hours = Sequence[tuple[datetime, Tally]]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Traffic of the last day.

    Parameters
    ----------
    handled_per_day : expected for the version that serves; None before there is traffic
    audits_today : audits with an answer since midnight, UTC
    """

    handled_per_day: float | None = None
    audits_today: int = 0

    @classmethod
    def of(cls, hours: Hours, coverage: float, now: datetime) -> "Traffic":
        """Estimate the traffic from the counts of the last hours.

        Parameters
        ----------
        hours : counts per hour of at least the last day, oldest first
        coverage : certified share of the requests that is handled
        now : UTC
        """
        recent = [(start, tally) for start, tally in hours if tally.requests and start > now - timedelta(hours=24)]
        today = sum(tally.audits for start, tally in hours if start.date() == now.date())
        if not recent:
            return cls(None, today)
        seen_h = max((now - recent[0][0]) / timedelta(hours=1), 1.0)
        return cls(sum(tally.requests for _, tally in recent) * coverage * 24.0 / seen_h, today)


def auto_rate(handled_per_day: float | None) -> float:
    """Return the rate of `auto`: sqrt(handled per day) audits a day, at least 10, at most a fifth of the handled.

    With a audits per day, a drop in agreement is detected after about n / a days. The cost of audits and of late alarms
    is then a + c * handled / a, which is least where a is proportional to the square root of the traffic.

    Examples
    --------
    >>> [round(auto_rate(n) * n) for n in (20, 200, 10_000, 10_000_000)]
    [4, 14, 100, 3162]
    """
    if handled_per_day is None:
        return UNKNOWN
    handled = max(handled_per_day, 1.0)
    return min(MOST_SHARE, max(LEAST_AUDITS, math.sqrt(handled)) / handled)


def rate_in_force(
    wanted: float | str, traffic: Traffic, now: datetime, *, boosted: bool = False, budget: int | None = None
) -> float:
    """Return the probability with which a handled request is audited.

    Parameters
    ----------
    wanted : a rate, or ``auto``
    boosted : whether the monitor has evidence: ten times as many audits, up to every second request
    budget : most audits per day, spread over the rest of the day by the expected traffic; `AuditBudget` enforces it

    Examples
    --------
    >>> from datetime import UTC
    >>> noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    >>> busy = Traffic(handled_per_day=20_000.0, audits_today=40)
    >>> rate_in_force("auto", busy, noon), rate_in_force(0.03, busy, noon, boosted=True)
    (0.007071067811865475, 0.3)
    >>> rate_in_force(0.03, busy, noon, budget=100), rate_in_force(0.03, busy, noon, budget=40)
    (0.006, 0.0)
    """
    expected = traffic.handled_per_day
    rate = auto_rate(expected) if isinstance(wanted, str) else wanted
    if boosted and rate:
        rate = max(rate, min(_BOOSTED, _BOOST * rate))
    if budget is None:
        return rate
    left = budget - traffic.audits_today
    if left <= 0:
        return 0.0
    still = (expected or 0.0) * (until_midnight(now) / timedelta(days=1))
    return min(rate, left / still) if still > left else rate


BUDGET = "audit_budget"
"""Key in the store: a day (UTC), and how many of its audits processes have reserved."""


def until_midnight(now: datetime) -> timedelta:
    """Return the rest of a day."""
    return datetime(now.year, now.month, now.day, tzinfo=now.tzinfo) + timedelta(days=1) - now


@dataclass(slots=True)
class AuditBudget:
    """The audits that one process may still make.

    `fill` reserves up to an hour's share of the rest of the day's budget, so that a burst of traffic does not use it
    up. A killed process loses its reservation, an hour's share at most.

    Parameters
    ----------
    budget : most audits per day; None: unlimited
    """

    budget: int | None
    _day: str = ""
    _taken: int = 0
    _asked: int = 0  # changed by the event loop only, the other fields by the thread that calls `fill`

    @property
    def empty(self) -> bool:
        """Whether no further audit is allowed until the next `fill`."""
        return self.budget is not None and self._asked >= self._taken

    def pay(self) -> None:
        """Count an audit."""
        self._asked += 1

    def fill(self, store: TraceStore, answered: int, now: datetime) -> None:
        """Reserve further audits in the store.

        Parameters
        ----------
        answered : the day's audits with an answer, of all processes
        now : UTC
        """
        if self.budget is None:
            return
        budget, day = self.budget, now.date().isoformat()
        if day != self._day:
            self._day, self._taken = day, self._asked
        held, took = max(self._taken - self._asked, 0), 0
        hours = max(until_midnight(now) / timedelta(hours=1), 1.0)

        def take(stored: dict[str, Any] | None) -> dict[str, Any] | None:
            nonlocal took
            used = stored["taken"] if stored is not None and stored["day"] == day else 0
            left = max(budget - max(used, answered), 0)
            took = min(left, max(math.ceil((left + held) / hours) - held, 0))
            return {"day": day, "taken": max(used, answered) + took} if took else stored

        store.values.update(BUDGET, take)
        self._taken += took
