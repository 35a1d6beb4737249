"""How often handled requests are audited: a fixed rate, or one that aims at so many audits a day; within a budget.

A rate may depend on the time, the traffic and the monitor's evidence, never on a request: each row keeps the rate that
was in force, and the draw that compares with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tracer_serve.audit_budget import until_midnight
from tracer_serve.traces import Tally

AIM = 100.0
"""Audits a day that `auto` aims at: enough to find a drop to .80 within a day, and to calibrate in a few."""
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


def rate_in_force(
    wanted: float | str, traffic: Traffic, now: datetime, *, boosted: bool = False, budget: int | None = None
) -> float:
    """Return the probability with which a handled request is audited.

    Parameters
    ----------
    wanted : a rate, or ``auto``
    boosted : whether the monitor has evidence: ten times as many audits, up to every second request
    budget : most audits a day; spread over what is left of the day, so that no time of day goes without;
        by the expected traffic: that it holds is the part of `Purse`

    Examples
    --------
    >>> from datetime import UTC
    >>> noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    >>> busy = Traffic(handled_per_day=20_000.0, audits_today=40)
    >>> rate_in_force("auto", busy, noon), rate_in_force(0.03, busy, noon, boosted=True)
    (0.005, 0.3)
    >>> rate_in_force(0.03, busy, noon, budget=100), rate_in_force(0.03, busy, noon, budget=40)
    (0.006, 0.0)
    """
    expected = traffic.handled_per_day
    auto = UNKNOWN if expected is None else AIM / max(expected, AIM)
    rate = auto if isinstance(wanted, str) else wanted
    if boosted and rate:
        rate = max(rate, min(_BOOSTED, _BOOST * rate))
    if budget is None:
        return rate
    left = budget - traffic.audits_today
    if left <= 0:
        return 0.0
    still = (expected or 0.0) * (until_midnight(now) / timedelta(days=1))
    return min(rate, left / still) if still > left else rate
