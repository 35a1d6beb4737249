"""Start refits automatically, by the clock or when one is due, each in a process of its own.

Every worker of every replica runs a scheduler. No leader is elected: a refit starts only under a lease in the trace
store, and the holder of the lease checks again that the refit is still due. So a refit starts once.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from tracer_serve.config.load import Task
from tracer_serve.errors import ArtifactError, BusyError, StoreError
from tracer_serve.infra.log_context import within
from tracer_serve.lifecycle.refit_history import LAST, ended_refit
from tracer_serve.lifecycle.refit_process import RefitProcess
from tracer_serve.lifecycle.retention import prune
from tracer_serve.lifecycle.triggers import Due, cron_of, request_refit
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.lease_owner import LEASE, live_holder, new_holder, take_lease
from tracer_serve.storage.versions.store import VersionStore

_log = logging.getLogger(__name__)

_LEASE, _LEASE_S = "schedule", 60.0
_PRUNE_MINUTE = 17
_FAREWELL_S = 20.0  # a stopping supervisor's signal reaches the refit up to this long before `stop` is called
_GRACE_S = 3_600  # a cron time that was missed while the machine slept is caught up within this


class RefitScheduler:
    """Start refits on schedule, or when one is due.

    Parameters
    ----------
    store : the traces, and the lease that lets one process refit
    versions : the task's versions
    on_outcome : called with ``certified``, ``abstained``, ``busy``, ``failed``, ``timeout`` or ``stopped``
    process : runs one refit
    poll_s : seconds between checks for new traces and requests
    """

    def __init__(
        self,
        task: Task,
        store: TraceStore,
        versions: VersionStore,
        on_outcome: Callable[[str], None] = lambda _: None,
        *,
        process: RefitProcess | None = None,
        poll_s: float = 2.0,
    ) -> None:
        spec = task.spec.schedule
        self._store, self._on_outcome, self._keep_days = store, on_outcome, task.spec.traces.keep_unlabelled_days
        self._due = Due(task.spec, store, versions)
        self._process = process or RefitProcess(task.file, spec.limit_s, spec.memory_mb)
        self._holder = new_holder()
        self._busy, self._stopping = threading.Lock(), threading.Event()
        self._problem: str | None = None
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": _GRACE_S}
        # without this it logs a warning at each poll while a refit is running
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)
        if spec.cron is not None:
            self._scheduler.add_job(within(self.fire), cron_of(spec), ("cron",))
        if spec.interval_s is not None:
            self._scheduler.add_job(within(self.fire), IntervalTrigger(seconds=spec.interval_s), ("interval",))
        self._scheduler.add_job(within(self.poll), IntervalTrigger(seconds=poll_s))
        if self._keep_days is not None:
            self._scheduler.add_job(within(self.prune), CronTrigger(minute=_PRUNE_MINUTE))

    def start(self) -> None:
        """Start polling in background threads."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop polling and end a refit that runs in this process; a version is written completely or not at all."""
        self._stopping.set()
        self._process.stop()
        self._scheduler.shutdown(wait=True)

    def poll(self) -> None:
        """Start a refit if one is due for a reason other than the clock."""
        try:
            if (trigger := self._due.trigger()) is not None:
                self.fire(trigger)
            self._problem = None
        except (StoreError, ArtifactError) as error:
            if str(error) != self._problem:
                _log.warning("the schedule cannot read the trace store or the versions: %s", error)
            self._problem = str(error)

    def fire(self, trigger: str) -> None:
        """Run a refit to its end, unless another one is running or it is no longer due."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            if live_holder(self._store, LEASE) is not None:
                return
            if not take_lease(self._store, _LEASE, self._holder, _LEASE_S):
                return
            try:
                if self._due.claim(trigger):
                    self._run(trigger)
            finally:
                self._store.leases.release(_LEASE, self._holder)
        except (StoreError, ArtifactError) as error:
            _log.warning("no refit (%s): %s", trigger, error)
        finally:
            self._busy.release()

    def prune(self) -> None:
        """Remove old rows without a label, unless another process is doing so."""
        days = self._keep_days
        assert days is not None
        try:
            removed = prune(self._store, timedelta(days=days), pause=self._stopping.wait)
        except BusyError:
            return
        except StoreError as error:
            _log.warning("old rows could not be removed, the next attempt is in an hour: %s", error)
            return
        if removed:
            _log.info("removed %d rows without a label that were older than %g days; their counts stay", removed, days)

    def _run(self, trigger: str) -> None:
        _log.info("refit (%s) starts", trigger)
        found = self._process.run(trigger, lambda: self._store.leases.renew(_LEASE, self._holder, _LEASE_S))
        log = _log.info if found.outcome in ("certified", "abstained", "stopped") else _log.error
        log("refit (%s) ended: %s, %s", trigger, found.outcome, found.message)
        self._on_outcome(found.outcome)
        self._store.values.put(LAST, ended_refit(trigger, found.outcome, found.version, found.message))
        if found.outcome == "stopped" and self._stopping.wait(_FAREWELL_S):
            request_refit(self._store, trigger)  # still due: for another replica, or the next start
