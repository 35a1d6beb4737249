"""Keep gate, monitor and audit rate in memory; a thread exchanges them with the trace store every second.

It adds the audits of this process to the monitor's shared record, and reads the gate. While the store cannot be
reached, the last known state stays, and an alarm in this process closes the gate in this process.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tracer_serve.config.task import Spec
from tracer_serve.errors import StoreError
from tracer_serve.gate.monitor import MonitorState, update
from tracer_serve.infra.periodic import PeriodicTask
from tracer_serve.lifecycle.gate_state.closing import Closing, close_gate, closing_at, closing_of
from tracer_serve.lifecycle.gate_state.monitor_record import MONITOR, PROVED, add_audits, monitor_state
from tracer_serve.lifecycle.gate_state.requirements import Requirements
from tracer_serve.lifecycle.gate_state.state import GateState, Reason
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.audit_rate import AuditBudget, Traffic, rate_in_force
from tracer_serve.serving.burst_breaker import BurstBreaker
from tracer_serve.serving.form_audits import FormAudits
from tracer_serve.serving.held_back import HeldBack
from tracer_serve.serving.label_watch import LabelWatch
from tracer_serve.serving.pending_audits import PendingAudits
from tracer_serve.storage.traces import TraceStore, new_id

_log = logging.getLogger(__name__)

_TRAFFIC_S = 10.0


class GateWatcher:
    """Follow the gate and the monitor.

    Parameters
    ----------
    teacher : fingerprint of the teacher that the spec names
    spec : the promise, the audit rate and its budget
    live : holds the version that serves
    on_new_label : called for each answer of the teacher with a label that this version does not know
    poll_s : seconds between exchanges with the store
    """

    def __init__(
        self,
        store: TraceStore,
        live: VersionLoader,
        teacher: str,
        spec: Spec,
        on_new_label: Callable[[], None] = lambda: None,
        *,
        poll_s: float = 1.0,
    ) -> None:
        self.budget = AuditBudget(spec.traces.audit_budget)
        self.bursts = BurstBreaker(templates=spec.embedder.type != "precomputed")
        self.labels = LabelWatch(spec.gate)
        self.forms = FormAudits(spec.gate)
        self.held_back = HeldBack()
        self._proved = set[int]()
        self._rate = 0.0
        self.closing: Closing | None = None
        self._monitor: tuple[int, MonitorState] | None = None
        self.problem: str | None = None
        self._store, self._live, self._teacher, self._spec = store, live, teacher, spec
        self._on_new_label = on_new_label
        self._cached: tuple[ActiveVersion | None, Closing | None, GateState] | None = None
        self._pending = PendingAudits[int]()
        self._traffic, self._traffic_read = Traffic(), -_TRAFFIC_S
        self._follower = PeriodicTask("tracer-watch", self.refresh, poll_s)

    def start(self) -> None:
        """Read the store once, then keep reading it in a thread."""
        self._follower.start()

    def stop(self) -> None:
        """Stop the thread and store the last audits."""
        if self._follower.stop():
            self.refresh()

    def state(self, loaded: ActiveVersion | None) -> GateState:
        """Return the state of the gate for a version; None means that there is none."""
        closing, cached = self.closing, self._cached
        if cached is not None and cached[0] is loaded and cached[1] is closing:
            return cached[2]  # called for every request
        requirements = Requirements(self._teacher, self._spec.gate, closing)
        found = requirements.state(None if loaded is None else loaded.certified)
        self._cached = loaded, closing, found
        return found

    def closed(self, loaded: ActiveVersion) -> Reason | None:
        """Return why the gate is closed for a version, None while it is open."""
        return self.state(loaded).reason

    def monitor(self, loaded: ActiveVersion) -> MonitorState:
        """Return the monitor's state for the version that serves, as of the last exchange."""
        if self._monitor is not None and self._monitor[0] == loaded.number:
            return self._monitor[1]
        return monitor_state(None, loaded.certified, self._spec.gate)

    @property
    def rate(self) -> float:
        """The probability with which the next handled text is audited."""
        return 0.0 if self.budget.empty else self._rate

    def note_label(self, label: str) -> None:
        """Count an answer of the teacher whose label the version does not know."""
        loaded = self._live.loaded
        if loaded is not None and label not in loaded.labels:
            self._on_new_label()

    def note_audit(self, version: int | None, agree: bool, label: str = "", form: str | None = None) -> None:
        """Record an audit with the teacher's label, and the form of its call.

        Audits of other versions, and audits while the gate is closed, are ignored.
        """
        loaded = self._live.loaded
        if loaded is not None and version == loaded.number and self.closed(loaded) is None:
            self._pending.note(loaded.number, agree)
            self.labels.note(loaded.number, label, agree)
            if form is not None:
                self.forms.note(form, agree)

    def note_deferred(self, version: int | None, label: str) -> None:
        """Record the teacher's label of a deferred request that would have been audited, had it been handled."""
        loaded = self._live.loaded
        if loaded is not None and version == loaded.number and self.closed(loaded) is None:
            self.labels.note(loaded.number, label, kept=True)

    def refresh(self) -> None:
        """Exchange gate, monitor and audit rate with the store."""
        try:
            self._store_audits()
            self._read()
            self.problem = None
        except Exception as error:  # noqa: BLE001  if the thread ended, no alarm would close the gate
            if str(error) != self.problem:
                why = None if isinstance(error, StoreError) else error
                _log.warning(
                    "the monitor cannot read the trace store; the last known state stays: %s", error, exc_info=why
                )
            self.problem = str(error)
            self._close_locally()

    def _close_locally(self) -> None:
        """Close the gate in this process if audits that are not in the store yet raise the alarm.

        This detects drift while the store is unavailable. Once it is available again, its record decides.
        """
        loaded = self._live.loaded
        if loaded is None or self.closed(loaded) is not None:
            return
        state = self.monitor(loaded)
        for agree in self._pending.of(loaded.number):
            state = update(state, agree)
        if state.alarm:
            self.closing = closing_at(new_id(), loaded.number, state.seen, state.agreements, state.evidence)
            _log.error("the gate is closed in this process, the trace store is unavailable: %s", self.closing.message)

    def _store_audits(self) -> None:
        """Add the audits of this process to the shared record."""
        loaded = self._live.loaded
        with self._pending.taken() as pending:
            if loaded is not None and loaded.number in pending:
                add = add_audits(loaded.certified, self._spec.gate, pending[loaded.number])
                self._store.values.update(MONITOR, add)

    def _read(self) -> None:
        loaded = self._live.loaded
        self.closing = closing_of(self._store)
        if loaded is None:
            return
        monitor = monitor_state(self._store.values.get(MONITOR), loaded.certified, self._spec.gate)
        self._monitor = loaded.number, monitor
        if monitor.alarm and self.closed(loaded) is None:
            # decided from the shared state, so that any process closes the gate, also after a crash of another one
            self.closing = close_gate(self._store, loaded.number, monitor.seen, monitor.agreements, monitor.evidence)
            _log.error("the gate is closed, everything goes to the teacher: %s", self.closing.message)
        self.labels.exchange(self._store, loaded.certified)
        if self.labels.alarm is not None and self.closed(loaded) is None:
            label, lost = self.labels.alarm
            self.closing = close_gate(self._store, loaded.number, lost.seen, lost.agreements, lost.evidence, label)
            _log.error("the gate is closed, everything goes to the teacher: %s", self.closing.message)
        if monitor.proved_at is not None and loaded.number not in self._proved:
            self._store.values.update(PROVED, lambda known: {**(known or {}), str(loaded.number): monitor.proved_at})
            self._proved.add(loaded.number)
            _log.info("version %d is proved live after %d audits", loaded.number, monitor.proved_at)
        self.bursts.exchange(self._store, loaded.number)
        self.forms.exchange(self._store, loaded.certified)
        self.held_back.exchange(self._store)
        self._rate = self._next_rate(loaded, boosted=monitor.boosted)

    def _next_rate(self, loaded: ActiveVersion, *, boosted: bool) -> float:
        spec, now = self._spec.traces, datetime.now(UTC)
        counted = spec.audit_rate == "auto" or spec.audit_budget is not None
        if counted and time.monotonic() > self._traffic_read + _TRAFFIC_S:
            hours = self._store.tallies.activity(now - timedelta(hours=24))
            self._traffic = Traffic.of(hours, loaded.policy.certificate.coverage, now)
            self.budget.fill(self._store, self._traffic.audits_today, now)
            self._traffic_read = time.monotonic()
        return rate_in_force(spec.audit_rate, self._traffic, now, boosted=boosted, budget=spec.audit_budget)
