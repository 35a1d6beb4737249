"""How refits ended: by what each wrote of itself, and by what the schedule saw of those that it started."""

from datetime import datetime
from typing import Any

from tracer_serve.storage.traces import Refit, TraceStore

LAST = "schedule.last"
"""The value in the store: how the last refit ended that a schedule started."""

_MESSAGES = {
    "certified": "version {} was certified",
    "abstained": "version {} was not certified",
    "stopped": "it was ended from outside",
    "killed": "its process is gone, and did not say why",
    "failed": "by hand it shows why: tracer-serve refit TASK.yaml",
}


def refits_told(store: TraceStore, n: int, *, under_way: bool) -> list[dict[str, Any]]:
    """Return the last n refits, newest first, as JSON.

    Parameters
    ----------
    under_way : whether a refit runs; else the newest, if it has no end, was ``killed``, as others without one were
    """
    newest = store.refits.recent(n)
    return [_told(entry, under_way=under_way and entry is newest[0]) for entry in newest]


def last_refit(store: TraceStore, *, under_way: bool) -> dict[str, Any] | None:
    """Return how the last refit ended; None where none has.

    A schedule has seen why a refit ended; one by hand stands in the history only.
    """
    seen: dict[str, Any] | None = store.values.get(LAST)
    ended = (entry for entry in refits_told(store, 2, under_way=under_way) if entry["outcome"] is not None)
    entry = next(ended, None)
    if entry is None or (seen is not None and _moment(seen["ended"]) >= _moment(entry["ended"] or entry["started"])):
        return seen
    message = _MESSAGES[entry["outcome"]].format(entry["version"])
    told = {key: entry[key] for key in ("outcome", "version", "ended")}
    return {"trigger": entry["reason"]} | told | {"message": message}


def _told(entry: Refit, *, under_way: bool) -> dict[str, Any]:
    return {
        "reason": entry.reason,
        "started": entry.started.isoformat(timespec="seconds"),
        "ended": None if entry.ended is None else entry.ended.isoformat(timespec="seconds"),
        "outcome": entry.outcome or (None if under_way else "killed"),
        "version": entry.version,
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
