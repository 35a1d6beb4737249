"""What was asked, answered and paid: by hour, by version, today."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tracer_serve.serving.held_back import HeldBackCounts, held_back_on
from tracer_serve.storage.traces import Tally, TraceStore

_PRICED_ON = timedelta(days=7)

Hours = Sequence[tuple[datetime, Tally]]


def traffic_of(store: TraceStore, price: Any, now: datetime) -> dict[str, Any]:
    """Return the last day by hour, and today (UTC) with what it cost and saved.

    Parameters
    ----------
    price : the teacher's in the spec, for its currency
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    hours = store.tallies.activity(min(midnight, now - timedelta(hours=23)))
    week = _total([tally for _, tally in store.tallies.activity(now - _PRICED_ON, by="day")])
    today = _total([tally for start, tally in hours if start >= midnight])
    return {
        "hours": _every_hour(hours, now),
        "today": counts(today),
        "money": _money(today, week, price),
        "held_back": _held_back(held_back_on(store, now), today, price),
    }


def counts(tally: Tally) -> dict[str, Any]:
    """Return a tally as JSON, shares and all."""
    return {
        "requests": tally.requests,
        "handled": tally.handled,
        "deferred": tally.deferred,
        "degraded": tally.degraded,
        "audits": tally.audits,
        "agreed": tally.agreed,
        "coverage": tally.coverage,
        "agreement": tally.agreement,
        "teacher_calls_saved": tally.handled - tally.audits,
    }


def _every_hour(hours: Hours, now: datetime) -> list[dict[str, Any]]:
    """Return the last 24 hours, the silent ones too."""
    known = dict(hours)
    this = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    starts = [this - timedelta(hours=back) for back in range(23, -1, -1)]
    found = [(start, known.get(start, Tally())) for start in starts]
    return [
        {
            "at": start.isoformat(timespec="minutes"),
            "handled": t.handled,
            "deferred": t.deferred,
            "degraded": t.degraded,
        }
        for start, t in found
    ]


def _held_back(held: HeldBackCounts, today: Tally, price: Any) -> dict[str, Any]:
    """Return what would have been handled today if the mode had let it, and what the teacher was paid for it."""
    return {
        "texts": held.texts,
        "agreed": held.agreed,
        "share": held.texts / max(today.requests, held.texts) if held.texts else None,
        "cost": held.cost or None,
        "currency": _currency(price),
    }


def _money(today: Tally, week: Tally, price: Any) -> dict[str, Any] | None:
    """Return what was saved today, net of audits: each handled text at what a question cost this week on average."""
    paid, asked = week.cost + week.audit_cost, week.deferred + week.audits
    if not paid or not asked:
        return None
    per_call = paid / asked
    return {
        "currency": _currency(price),
        "per_call": per_call,
        "spent": today.cost,
        "audits": today.audit_cost,
        "saved": today.handled * per_call - today.audit_cost,
    }


def _currency(price: Any) -> str:
    return str(price.get("currency", "USD")) if isinstance(price, Mapping) else "USD"


def _total(tallies: Sequence[Tally]) -> Tally:
    fields = Tally.__dataclass_fields__
    return Tally(**{name: sum(getattr(tally, name) for tally in tallies) for name in fields})
