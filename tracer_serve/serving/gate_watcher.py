"""Whether the gate is open, how often to audit, and the monitor: the same in all processes, and in memory.

A thread exchanges it with the trace store every second: it folds the audits that were answered here into the state of
the version that serves, and reads what the others found. While the store cannot be reached the last known stays, and
what this process finds out closes the gate for itself.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tracer_serve.config.task import Spec
from tracer_serve.errors import StoreError
from tracer_serve.gate.monitor import MonitorState, update
from tracer_serve.infra.periodic import PeriodicTask
from tracer_serve.lifecycle.gate_state import Closing, close_gate, closing_at, closing_of
from tracer_serve.lifecycle.validity import Invalidity, Requirements
from tracer_serve.serving.active_version import ActiveVersion, VersionLoader
from tracer_serve.serving.audit_rate import AuditBudget, Traffic, rate_in_force
from tracer_serve.serving.monitor_state import MONITOR, folding, state_of
from tracer_serve.storage.traces import TraceStore, new_id

_log = logging.getLogger(__name__)

_TRAFFIC_S = 10.0


class GateWatcher:
    """Follows gate and monitor.

    Parameters
    ----------
    teacher : fingerprint of the teacher that the spec names
    spec : what is promised; the audit rate and its budget
    live : says which version serves
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
        self.purse = AuditBudget(spec.traces.audit_budget)
        self._rate = 0.0
        self.closing: Closing | None = None
        self._monitor: tuple[int, MonitorState] | None = None
        self.problem: str | None = None
        self._store, self._live, self._teacher, self._spec = store, live, teacher, spec
        self._on_new_label = on_new_label
        self._judged: tuple[ActiveVersion, Closing | None, Invalidity | None] | None = None
        self._pending: defaultdict[int, list[bool]] = defaultdict(list)
        self._guard = threading.Lock()
        self._traffic, self._looked = Traffic(), -_TRAFFIC_S
        self._follower = PeriodicTask("tracer-watch", self.refresh, poll_s)

    def start(self) -> None:
        """Read once, then follow in a thread of its own."""
        self._follower.start()

    def stop(self) -> None:
        """Stop following, with the last audits folded in."""
        if self._follower.stop():
            self.refresh()

    def void(self, loaded: ActiveVersion) -> Invalidity | None:
        """Return why a version may not answer though it has a certificate, None where it may."""
        closing, judged = self.closing, self._judged
        if judged is not None and judged[0] is loaded and judged[1] is closing:
            return judged[2]  # asked for every request
        demands = Requirements(self._teacher, self._spec.gate, closing)
        found = demands.void(loaded.policy.certificate, loaded.teacher, loaded.after)
        self._judged = loaded, closing, found
        return found

    def closed(self, loaded: ActiveVersion) -> str | None:
        """Return the word for what `void` returns."""
        found = self.void(loaded)
        return None if found is None else found.reason

    def monitor(self, loaded: ActiveVersion) -> MonitorState:
        """Return the monitor's state for the version that serves, as of the last exchange."""
        if self._monitor is not None and self._monitor[0] == loaded.number:
            return self._monitor[1]
        return state_of(None, loaded, self._spec.gate)

    @property
    def rate(self) -> float:
        """The probability with which the next handled text is audited."""
        return 0.0 if self.purse.empty else self._rate

    def note_label(self, label: str) -> None:
        """Take note of a label that the teacher gave."""
        loaded = self._live.loaded
        if loaded is not None and label not in loaded.labels:
            self._on_new_label()

    def note_audit(self, version: int | None, agree: bool) -> None:
        """Take an audit's outcome; those of versions that do not serve, and of a closed gate, are ignored."""
        loaded = self._live.loaded
        if loaded is not None and version == loaded.number and self.closed(loaded) is None:
            with self._guard:
                self._pending[loaded.number].append(agree)

    def refresh(self) -> None:
        """Exchange everything with the store."""
        try:
            self._fold()
            self._read()
            self.problem = None
        except Exception as error:  # noqa: BLE001  a thread that ended here would close no gate, and nobody would hear
            if str(error) != self.problem:
                why = None if isinstance(error, StoreError) else error
                _log.warning("the monitor cannot read the trace store, what was known stays: %s", error, exc_info=why)
            self.problem = str(error)
            self._close_alone()

    def _close_alone(self) -> None:
        """Close the gate in this process where audits that the store has not heard of raise the alarm.

        Drift does not wait for a store that is away. Once it is back its state counts, these audits in it.
        """
        loaded = self._live.loaded
        if loaded is None or self.closed(loaded) is not None:
            return
        with self._guard:
            outcomes = [*self._pending.get(loaded.number, ())]
        state = self.monitor(loaded)
        for agree in outcomes:
            state = update(state, agree)
        if state.alarm:
            self.closing = closing_at(new_id(), loaded.number, state.seen, state.agreements, state.evidence)
            _log.error("the gate is closed here, the store is away: %s", self.closing.message)

    def _fold(self) -> None:
        """Bring the audits that were answered here into the state that all processes share."""
        with self._guard:
            pending, self._pending = self._pending, defaultdict(list)
        loaded = self._live.loaded
        for version, outcomes in pending.items():
            if loaded is None or version != loaded.number:
                continue
            try:
                self._store.values.update(MONITOR, folding(loaded, self._spec.gate, outcomes))
            except Exception:
                with self._guard:  # in front of what came meanwhile
                    self._pending[version][:0] = outcomes
                raise

    def _read(self) -> None:
        loaded = self._live.loaded
        self.closing = closing_of(self._store)
        if loaded is None:
            return
        monitor = state_of(self._store.values.get(MONITOR), loaded, self._spec.gate)
        self._monitor = loaded.number, monitor
        if monitor.alarm and self.closed(loaded) is None:
            # from the state, not from the audit that raised it: whoever sees an alarm closes, also after a crash
            self.closing = close_gate(self._store, loaded.number, monitor.seen, monitor.agreements, monitor.evidence)
            _log.error("the gate is closed, everything goes to the teacher: %s", self.closing.message)
        self._rate = self._wanted(loaded, boosted=monitor.boosted)

    def _wanted(self, loaded: ActiveVersion, *, boosted: bool) -> float:
        spec, now = self._spec.traces, datetime.now(UTC)
        counted = spec.audit_rate == "auto" or spec.audit_budget is not None
        if counted and time.monotonic() > self._looked + _TRAFFIC_S:
            hours = self._store.tallies.activity(now - timedelta(hours=24))
            self._traffic = Traffic.of(hours, loaded.policy.certificate.coverage, now)
            self.purse.fill(self._store, self._traffic.audits_today, now)
            self._looked = time.monotonic()
        return rate_in_force(spec.audit_rate, self._traffic, now, boosted=boosted, budget=spec.audit_budget)
