"""Decide whether a refit is due, and why: checked every few seconds, and again under the lease before it starts."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.cron import CronTrigger

from tracer_serve.config.schedule import ScheduleSpec
from tracer_serve.config.task import Spec
from tracer_serve.lifecycle.approval import waiting_version
from tracer_serve.lifecycle.gate_state.reopening import ATTEMPT, Reopening, attempt_of, reopening_of
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions.manifest import Manifest
from tracer_serve.storage.versions.store import VersionStore

REQUEST = "schedule.request"
"""Key in the store: a pending request for a refit."""

_UNREADABLE = "schedule.unreadable"  # key in the store: the version for whose sake a refit was requested last
_STARTING = timedelta(minutes=1)
_LABELS_S = 30.0  # counting all labels takes longer than the other checks


class Due:
    """Decide for which reason a refit is due.

    Parameters
    ----------
    store : the traces, and the requests and attempts so far
    versions : the task's versions
    """

    def __init__(self, spec: Spec, store: TraceStore, versions: VersionStore) -> None:
        self._spec, self._schedule, self._store, self._versions = spec, spec.schedule, store, versions
        self._looked = -_LABELS_S

    def trigger(self) -> str | None:
        """Return why a refit is due, apart from the clock; None if none is.

        Reasons are a request, a closed gate that a refit may open, and enough new traces or labels.
        """
        if (requested := self._requested()) is not None:
            return requested
        if (reopening := self._reopening()) is not None and reopening.due:
            return reopening.trigger
        if self._enough_new():
            return "new_traces"
        if time.monotonic() > self._looked + _LABELS_S:
            self._looked = time.monotonic()
            return "new_label" if self._new_label() else None
        return None

    def claim(self, trigger: str) -> bool:
        """Return whether a refit is still due, and if so record the attempt; called under the lease."""
        now, reopening = datetime.now(UTC), self._reopening()
        started = attempt_of(self._store).get("started")
        since = None if started is None else datetime.fromisoformat(started)
        if since is not None and since > now:
            since = None  # the clock was set back
        still: dict[str, Callable[[], bool]] = {
            "cron": lambda: since is None or self._cron_due(since, now),
            # nine tenths, since the clocks of two workers differ a little
            "interval": lambda: (
                since is None or (now - since).total_seconds() >= 0.9 * (self._schedule.interval_s or 0.0)
            ),
            "new_traces": self._enough_new,
            "new_label": self._new_label,
        }
        if self._requested() != trigger and not still.get(trigger, lambda: reopening is not None and reopening.due)():
            return False
        self._store.values.put(REQUEST, None)  # a refit fulfils every earlier request, whatever started it
        attempt = {"started": now.isoformat(), "latest": self._store.traces.latest_id() or ""}
        self._store.values.put(ATTEMPT, attempt | {"repair": reopening.tried() if reopening else None})
        return True

    def _requested(self) -> str | None:
        """Return the trigger of the pending request; one for a first version is dropped once there is a version."""
        request = self._store.values.get(REQUEST)
        trigger: str | None = None if request is None else request.get("trigger", "hand")
        if trigger == "start" and self._versions.numbers():
            self._store.values.put(REQUEST, None)
            return None
        return trigger

    def _cron_due(self, since: datetime, now: datetime) -> bool:
        due = cron_of(self._schedule).get_next_fire_time(None, since)
        return due is not None and due <= now

    def _enough_new(self) -> bool:
        """Count since the last version and the last attempt: one that failed is not repeated without new traces."""
        enough = self._schedule.min_new_traces
        if enough is None:
            return False
        newest = self._newest()
        seen = newest.last_trace if newest else ""
        return self._store.traces.labelled_since(max(attempt_of(self._store).get("latest", ""), seen)) >= enough

    def _new_label(self) -> bool:
        """Return whether the teacher has given a label often enough that the newest version does not know."""
        enough, newest = self._schedule.new_label, self._newest()
        if enough is None or newest is None or not newest.labels:
            return False
        known = {*newest.labels, *self._spec.label_changes.former}
        recurs = any(n >= enough for label, n in self._store.tallies.counts().by_label.items() if label not in known)
        return recurs and self._store.traces.labelled_since(attempt_of(self._store).get("latest", "")) >= enough

    def _reopening(self) -> Reopening | None:
        if waiting_version(self._store, self._versions) is not None:
            return None  # a further attempt would spend delta, and wait as well
        return reopening_of(self._spec, self._store, self._versions)

    def _newest(self) -> Manifest | None:
        numbers = self._versions.numbers()
        return self._versions.manifest(numbers[-1]) if numbers else None


def replace_unreadable(store: TraceStore, version: int) -> None:
    """Request a refit since the current version cannot be read, once for each version.

    It was written by a release with another layout, the YAML names another embedder now, or a file is damaged. The
    traces are all that a new version needs.
    """
    known, this = store.values.get(_UNREADABLE), {"version": version}
    if known != this and store.values.compare_and_set(_UNREADABLE, known, this):
        request_refit(store, "unreadable")


def just_begun(store: TraceStore, ended: str | None) -> bool:
    """Return whether a refit was started so recently that its process may not run yet.

    Parameters
    ----------
    ended : when the last refit ended
    """
    began = attempt_of(store).get("started")
    if began is None or (ended is not None and datetime.fromisoformat(ended) >= datetime.fromisoformat(began)):
        return False
    return datetime.now(UTC) - datetime.fromisoformat(began) < _STARTING


def cron_of(spec: ScheduleSpec) -> CronTrigger:
    """Return the trigger of the crontab line, in its time zone."""
    return CronTrigger.from_crontab(spec.cron, timezone=spec.timezone)


def request_refit(store: TraceStore, trigger: str = "hand") -> None:
    """Request a refit; a process of the task starts it within seconds, or after the running one."""
    store.values.put(REQUEST, {"asked": datetime.now(UTC).isoformat(), "trigger": trigger})
