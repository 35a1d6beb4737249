"""Outcomes of refits: what each refit recorded, and what the schedule recorded of those it started."""

from datetime import UTC, datetime
from typing import Any

from tracer_serve.storage.traces import Refit, TraceStore

LAST = "schedule.last"
"""Key in the store: how the last refit ended that failed or that a schedule started."""

_MESSAGES = {
    "certified": "version {} was certified",
    "abstained": "version {} was not certified",
    "stopped": "it was stopped by a signal",
    "killed": "its process died without an error message",
    "failed": "run it by hand to see why: tracer-serve refit TASK.yaml",
}


def refits_as_json(store: TraceStore, n: int, *, under_way: bool) -> list[dict[str, Any]]:
    """Return the last n refits, newest first, as JSON.

    Parameters
    ----------
    under_way : whether a refit is running; every other refit without an end was ``killed``
    """
    newest = store.refits.recent(n)
    return [_as_json(entry, under_way=under_way and entry is newest[0]) for entry in newest]


def last_refit(store: TraceStore, *, under_way: bool) -> dict[str, Any] | None:
    """Return how the last refit ended; None if none has ended."""
    seen: dict[str, Any] | None = store.values.get(LAST)
    ended = (entry for entry in refits_as_json(store, 2, under_way=under_way) if entry["outcome"] is not None)
    entry = next(ended, None)
    if entry is None or (seen is not None and _moment(seen["ended"]) >= _moment(entry["ended"] or entry["started"])):
        return seen
    message = _MESSAGES[entry["outcome"]].format(entry["version"])
    facts = {key: entry[key] for key in ("outcome", "version", "ended")}
    return {"trigger": entry["reason"]} | facts | {"message": message}


def ended_refit(trigger: str, outcome: str, version: int | None, message: str) -> dict[str, Any]:
    """Return the record of a refit that ended now, for the key `LAST`."""
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    return {"trigger": trigger, "outcome": outcome, "version": version, "message": message, "ended": ended}


def _as_json(entry: Refit, *, under_way: bool) -> dict[str, Any]:
    return {
        "reason": entry.reason,
        "started": entry.started.isoformat(timespec="seconds"),
        "ended": None if entry.ended is None else entry.ended.isoformat(timespec="seconds"),
        "outcome": entry.outcome or (None if under_way else "killed"),
        "version": entry.version,
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
