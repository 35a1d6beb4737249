"""How often handled requests are audited: a fixed rate or one that follows the traffic, within a daily budget.

A rate may depend on the time, the traffic and the monitor's evidence, never on a request: each row keeps the rate that
was in force, and the draw that compares with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tracer_serve.storage.traces import Tally, TraceStore

LEAST_AUDITS = 10.0
"""Audits a day that `auto` aims at in any case, within `MOST_SHARE`."""
MOST_SHARE = 0.2
"""Largest share of the handled requests, and so of the saving, that `auto` spends on audits."""
UNKNOWN = 0.1
"""The rate of `auto` before there is any traffic to go by."""
_BOOST, _BOOSTED = 10.0, 0.5

Hours = Sequence[tuple[datetime, Tally]]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the last day was like.

    Parameters
    ----------
    handled_per_day : expected of the version that serves; None before there is traffic
    audits_today : audits with an answer since midnight, UTC
    """

    handled_per_day: float | None = None
    audits_today: int = 0

    @classmethod
    def of(cls, hours: Hours, coverage: float, now: datetime) -> "Traffic":
        """Estimate from the counts of the last hours.

        Parameters
        ----------
        hours : counts per hour, from up to a day ago on, oldest first
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

    With a audits a day a drop is found after about n / a days, so what audits cost and what late alarms cost add up to
    a + c * handled / a, which is least where a grows with the root of the traffic.

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
    budget : most audits a day; spread over what is left of the day, so that no time of day goes without;
        by the expected traffic: that it holds is the part of `AuditBudget`

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
"""The value in the store: a day (UTC), and how many of its audits processes have taken."""


def until_midnight(now: datetime) -> timedelta:
    """Return what is left of a day."""
    return datetime(now.year, now.month, now.day, tzinfo=now.tzinfo) + timedelta(days=1) - now


@dataclass(slots=True)
class AuditBudget:
    """The audits that one process may still ask for.

    At each look it is filled up to an hour's share of what is left of the day's budget, so that a burst of traffic
    leaves something for later. What a process that is killed had taken is lost, an hour's share at most.

    Parameters
    ----------
    budget : most audits a day; None: as many as there are
    """

    budget: int | None
    _day: str = ""
    _taken: int = 0
    _asked: int = 0  # counted by the event loop alone, as the rest is by the thread that looks

    @property
    def empty(self) -> bool:
        """Whether no further audit may be asked for until the next look."""
        return self.budget is not None and self._asked >= self._taken

    def pay(self) -> None:
        """Count an audit that is asked for."""
        self._asked += 1

    def fill(self, store: TraceStore, answered: int, now: datetime) -> None:
        """Take from the store what is missing.

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
