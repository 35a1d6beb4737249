"""When to refit: cron, interval, enough new traces, or a person's request; each refit in a process of its own.

Every worker of every replica runs one of these, and no leader has to be found: a refit starts only under a lease in
the trace store, and whoever holds it looks again whether the refit is still due. So it starts once, however many ask.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from tracer_serve.errors import ArtifactError, BusyError, StoreError
from tracer_serve.holder import live_holder, new_holder, take_lease
from tracer_serve.load import Task
from tracer_serve.log_task import within
from tracer_serve.manifest import Manifest
from tracer_serve.refit_process import Finding, RefitProcess
from tracer_serve.repair import Repair, repair_of
from tracer_serve.retention import prune
from tracer_serve.standing import LEASE
from tracer_serve.traces import TraceStore
from tracer_serve.versions import Versions

_log = logging.getLogger(__name__)

ATTEMPT, REQUEST, LAST = "schedule.attempt", "schedule.request", "schedule.last"
"""Values in the store: the last start, a person's request that waits, and how the last refit ended."""

_LEASE, _LEASE_S = "schedule", 60.0
_PRUNE_MINUTE = 17
_LABELS_S = 30.0
_GRACE_S = 3_600  # a cron time that passed while the machine slept is made up for within this


class Schedule:
    """Starts refits.

    Parameters
    ----------
    store : where the traces are counted, and where the processes agree on who refits
    versions : what the newest was fitted on
    on_outcome : called with ``certified``, ``abstained``, ``busy``, ``failed``, ``timeout`` or ``stopped``
    process : runs one refit
    poll_s : seconds between looks for new traces and requests
    """

    def __init__(
        self,
        task: Task,
        store: TraceStore,
        versions: Versions,
        on_outcome: Callable[[str], None] = lambda _: None,
        *,
        process: RefitProcess | None = None,
        poll_s: float = 2.0,
    ) -> None:
        self._spec, self._store, self._versions, self._on_outcome = task.spec.schedule, store, versions, on_outcome
        self._task, self._looked = task.spec, -_LABELS_S
        bounds = self._spec.limit_s, self._spec.memory_mb
        self._process = process or RefitProcess(task.file, *bounds)
        self._holder = new_holder()
        self._busy, self._stopping = threading.Lock(), threading.Event()
        self._problem: str | None = None
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": _GRACE_S}
        # it would warn at every look that the one before is still busy, refitting
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)
        if self._spec.cron is not None:
            self._cron = CronTrigger.from_crontab(self._spec.cron, timezone=self._spec.timezone)
            self._scheduler.add_job(within(self.fire), self._cron, ("cron",))
        if self._spec.interval_s is not None:
            self._scheduler.add_job(within(self.fire), IntervalTrigger(seconds=self._spec.interval_s), ("interval",))
        self._scheduler.add_job(within(self.poll), IntervalTrigger(seconds=poll_s))
        if task.spec.traces.keep_unlabelled_days is not None:
            self._scheduler.add_job(within(self.prune), CronTrigger(minute=_PRUNE_MINUTE))

    def start(self) -> None:
        """Start looking, in threads of its own."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop looking; end a refit that runs here, which leaves no half version."""
        self._stopping.set()
        self._process.stop()
        self._scheduler.shutdown(wait=True)

    def poll(self) -> None:
        """Start a refit if somebody asked for one, the gate has to be opened again, or enough that is new came in."""
        try:
            if self._store.get_value(REQUEST) is not None:
                self.fire("hand")
            elif (repair := self._repair()) is not None and repair.due:
                self.fire(repair.trigger)
            elif self._enough_new():
                self.fire("new_traces")
            elif time.monotonic() > self._looked + _LABELS_S:
                self._looked = time.monotonic()
                if self._new_label():
                    self.fire("new_label")
            self._problem = None
        except (StoreError, ArtifactError) as error:
            if str(error) != self._problem:
                _log.warning("the schedule cannot read what it needs: %s", error)
            self._problem = str(error)

    def fire(self, trigger: str) -> None:
        """Run a refit to its end, unless one runs somewhere or it is no longer due."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            if live_holder(self._store, LEASE) is not None:
                return
            if not take_lease(self._store, _LEASE, self._holder, _LEASE_S):
                return
            try:
                if self._claim(trigger):
                    self._run(trigger)
            finally:
                self._store.release_lease(_LEASE, self._holder)
        except (StoreError, ArtifactError) as error:
            _log.warning("no refit (%s): %s", trigger, error)
        finally:
            self._busy.release()

    def prune(self) -> None:
        """Let rows go that are old and that nobody labelled, unless another process does."""
        days = self._task.traces.keep_unlabelled_days
        assert days is not None
        try:
            removed = prune(self._store, timedelta(days=days), pause=self._stopping.wait)
        except BusyError:
            return
        except StoreError as error:
            _log.warning("old rows stay for another hour: %s", error)
            return
        if removed:
            _log.info("%d rows without a label were older than %g days and went; their counts stay", removed, days)

    def _run(self, trigger: str) -> None:
        _log.info("refit (%s) starts", trigger)
        found = self._process.run(trigger, lambda: self._store.renew_lease(_LEASE, self._holder, _LEASE_S))
        log = _log.info if found.outcome in ("certified", "abstained", "stopped") else _log.error
        log("refit (%s) ended: %s, %s", trigger, found.outcome, found.message)
        self._on_outcome(found.outcome)
        self._store.put_value(LAST, _as_json(found, trigger))

    def _claim(self, trigger: str) -> bool:
        """Say whether a refit is still due, and if so note the attempt; runs under the lease."""
        now, repair = datetime.now(UTC), self._repair()
        started = self._attempt().get("started")
        since = None if started is None else datetime.fromisoformat(started)
        if since is not None and since > now:
            since = None  # the clock was set back; waiting for it to catch up could take years
        still: dict[str, Callable[[], bool]] = {
            "cron": lambda: since is None or self._cron_due(since, now),
            # nine tenths: the clocks of two workers tick a little apart
            "interval": lambda: since is None or (now - since).total_seconds() >= 0.9 * (self._spec.interval_s or 0.0),
            "new_traces": self._enough_new,
            "new_label": self._new_label,
            "hand": lambda: self._store.get_value(REQUEST) is not None,
        }
        if not still.get(trigger, lambda: repair is not None and repair.due)():
            return False
        self._store.put_value(REQUEST, None)  # whatever started it, a refit answers every request made before it
        attempt = {"started": now.isoformat(), "latest": self._store.latest_id() or ""}
        self._store.put_value(ATTEMPT, attempt | {"repair": repair.tried() if repair else None})
        return True

    def _cron_due(self, since: datetime, now: datetime) -> bool:
        due = self._cron.get_next_fire_time(None, since)
        return due is not None and due <= now

    def _enough_new(self) -> bool:
        """Count since the last version and the last attempt: one that failed is not repeated without new traces."""
        enough = self._spec.min_new_traces
        if enough is None:
            return False
        newest = self._newest()
        seen = newest.last_trace if newest else ""
        return self._store.labelled_since(max(self._attempt().get("latest", ""), seen)) >= enough

    def _new_label(self) -> bool:
        """Say whether the teacher has given a label often enough that the newest version does not know."""
        enough, newest = self._spec.new_label, self._newest()
        if enough is None or newest is None or not newest.labels:
            return False
        known = set(newest.labels)
        recurs = any(n >= enough for label, n in self._store.counts().by_label.items() if label not in known)
        return recurs and self._store.labelled_since(self._attempt().get("latest", "")) >= enough

    def _repair(self) -> Repair | None:
        return repair_of(self._task, self._store, self._versions, self._attempt().get("repair"))

    def _attempt(self) -> dict[str, Any]:
        found: dict[str, Any] = self._store.get_value(ATTEMPT) or {}
        return found

    def _newest(self) -> Manifest | None:
        numbers = self._versions.numbers()
        return self._versions.manifest(numbers[-1]) if numbers else None


def request_refit(store: TraceStore) -> None:
    """Ask whichever process comes first to refit; it starts within seconds."""
    store.put_value(REQUEST, {"asked": datetime.now(UTC).isoformat()})


def _as_json(found: Finding, trigger: str) -> dict[str, Any]:
    return {
        "trigger": trigger,
        "outcome": found.outcome,
        "version": found.version,
        "message": found.message,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }
