"""The audits of the version that serves, over time: agreement so far, and a bound that holds at every moment."""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from tracer_serve.gate.monitor import anytime_lower_bound
from tracer_serve.storage.traces import TraceStore

_HOURLY = timedelta(days=3)
_DAYS = 90


def agreement_over_time(
    store: TraceStore, version: int, created: datetime, now: datetime, *, delta: float, proved_at: int | None
) -> dict[str, Any]:
    """Return the audits of a version, summed up hour by hour, of an older version day by day.

    Parameters
    ----------
    created : when the version was written; at most 90 days are read
    delta : probability that the bound is ever above the true agreement
    proved_at : audits after which the version was proved live

    Returns
    -------
    ``by`` hour or day; ``points`` with ``at``, ``audits`` and ``agreements`` since the version began, ``agreement``
    and ``lower_bound``; ``proved_since``: the first of them with enough audits for the proof, None before it.
    """
    by: Literal["hour", "day"] = "hour" if now - created <= _HOURLY else "day"
    since = max(created, now - timedelta(days=_DAYS))
    points: list[dict[str, Any]] = []
    audits = agreed = 0
    for start, tally in store.tallies.activity(since, by=by, version=version):
        if not tally.audits:
            continue
        audits, agreed = audits + tally.audits, agreed + tally.agreed
        facts = {"at": start.isoformat(timespec="minutes"), "audits": audits, "agreements": agreed}
        points.append(facts | {"agreement": agreed / audits, "lower_bound": anytime_bound(agreed, audits, delta)})
    proved = None if proved_at is None else next((p["at"] for p in points if p["audits"] >= proved_at), None)
    return {"by": by, "points": points, "proved_since": proved}


@lru_cache(maxsize=4096)
def anytime_bound(agreements: int, audits: int, delta: float) -> float:
    """Return `anytime_lower_bound`, computed once for each count: past hours do not change."""
    return anytime_lower_bound(agreements, audits, delta)
