"""When to refit: cron, interval, enough new traces, or a person's request; each refit in a process of its own.

Every worker of every replica runs one of these, and no leader has to be found: a refit starts only under a lease in
the trace store, and whoever holds it looks again whether the refit is still due. So it starts once, however many ask.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from tracer_serve.errors import StoreError
from tracer_serve.load import Task
from tracer_serve.refit_process import Finding, RefitProcess
from tracer_serve.traces import TraceStore, new_id
from tracer_serve.versions import Versions

_log = logging.getLogger(__name__)

ATTEMPT, REQUEST, LAST = "schedule.attempt", "schedule.request", "schedule.last"
"""Values in the store: the last start, a person's request that waits, and how the last refit ended."""

_LEASE, _LEASE_S = "schedule", 60.0
_REFIT_LEASE = "refit"  # held by the refit itself, a person's from the command line too
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
        self._process = process or RefitProcess(task.file)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{new_id()}"
        self._busy = threading.Lock()
        self._problem: str | None = None
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": _GRACE_S}
        # it would warn at every look that the one before is still busy, refitting
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)
        if self._spec.cron is not None:
            self._cron = CronTrigger.from_crontab(self._spec.cron, timezone=self._spec.timezone)
            self._scheduler.add_job(self.fire, self._cron, ("cron",))
        if self._spec.interval_s is not None:
            self._scheduler.add_job(self.fire, IntervalTrigger(seconds=self._spec.interval_s), ("interval",))
        self._scheduler.add_job(self.poll, IntervalTrigger(seconds=poll_s))

    def start(self) -> None:
        """Start looking, in threads of its own."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop looking; end a refit that runs here, which leaves no half version."""
        self._process.stop()
        self._scheduler.shutdown(wait=True)

    def poll(self) -> None:
        """Start a refit if somebody asked for one or enough new traces came in."""
        try:
            if self._store.get_value(REQUEST) is not None:
                self.fire("hand")
            elif self._enough_new():
                self.fire("new_traces")
            self._problem = None
        except StoreError as error:
            if str(error) != self._problem:
                _log.warning("the schedule cannot read the trace store: %s", error)
            self._problem = str(error)

    def fire(self, trigger: str) -> None:
        """Run a refit to its end, unless one runs somewhere or it is no longer due."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            if self._store.lease_holder(_REFIT_LEASE) is not None:
                return
            if not self._store.acquire_lease(_LEASE, self._holder, _LEASE_S):
                return
            try:
                if self._claim(trigger):
                    self._run(trigger)
            finally:
                self._store.release_lease(_LEASE, self._holder)
        except StoreError as error:
            _log.warning("no refit (%s): %s", trigger, error)
        finally:
            self._busy.release()

    def _run(self, trigger: str) -> None:
        _log.info("refit (%s) starts", trigger)
        found = self._process.run(trigger, lambda: self._store.renew_lease(_LEASE, self._holder, _LEASE_S))
        log = _log.info if found.outcome in ("certified", "abstained", "stopped") else _log.error
        log("refit (%s) ended: %s, %s", trigger, found.outcome, found.message)
        self._on_outcome(found.outcome)
        self._store.put_value(LAST, _as_json(found, trigger))

    def _claim(self, trigger: str) -> bool:
        """Say whether a refit is still due, and if so note the attempt; runs under the lease."""
        now = datetime.now(UTC)
        last: dict[str, Any] = self._store.get_value(ATTEMPT) or {}
        since = datetime.fromisoformat(last["started"]) if last else None
        if trigger == "cron" and since is not None:
            due = self._cron.get_next_fire_time(None, since)
            if due is None or due > now:
                return False
        if trigger == "interval" and since is not None:
            # nine tenths: the clocks of two workers tick a little apart
            enough = timedelta(seconds=0.9 * (self._spec.interval_s or 0.0))
            if now - since < enough:
                return False
        if trigger == "new_traces" and not self._enough_new():
            return False
        if trigger == "hand" and self._store.get_value(REQUEST) is None:
            return False
        self._store.put_value(REQUEST, None)  # whatever started it, a refit answers every request made before it
        self._store.put_value(ATTEMPT, {"started": now.isoformat(), "latest": self._store.latest_id() or ""})
        return True

    def _enough_new(self) -> bool:
        """Count since the last version and the last attempt: one that failed is not repeated without new traces."""
        enough = self._spec.min_new_traces
        if enough is None:
            return False
        last: dict[str, Any] = self._store.get_value(ATTEMPT) or {}
        fitted = self._versions.numbers()[-1:]
        seen = [self._versions.manifest(number).last_trace for number in fitted]
        return self._store.labelled_since(max(last.get("latest", ""), *seen, "")) >= enough


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
