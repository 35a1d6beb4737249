"""Live watch over protected labels: an e-process per label on the requests of which the teacher's label is known.

A handled request shows its label where it is audited, a deferred one always. A deferred request counts only where it
would have been audited too, by the same draw, so that both kinds are an equal share of the traffic. One of a protected
label is kept where it was deferred or got that label, and each promise is watched like agreement (`gate.monitor`).
"""

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.monitor import MonitorState
from tracer_serve.lifecycle.certificates import CertifiedVersion
from tracer_serve.lifecycle.gate_state.monitor_record import add_audits_by_name, monitor_state
from tracer_serve.serving.pending_audits import PendingAudits
from tracer_serve.storage.traces import TraceStore

LABEL_MONITORS = "monitor.labels"
"""Key in the store: the record of each protected label, as that of the monitor."""


class LabelWatch:
    """Count the sampled requests of each protected label, and exchange the counts with the store.

    Parameters
    ----------
    gate : the promise, of which `protect` is watched
    """

    def __init__(self, gate: GateSpec) -> None:
        self.states: dict[str, MonitorState] = {}
        self._gates = {
            label: gate.model_copy(update={"alpha": recall, "guarantee": "probability"})
            for label, recall in gate.protect.items()
        }
        self._pending = PendingAudits[tuple[int, str]]()

    def note(self, version: int, label: str, kept: bool) -> None:
        """Record a sampled request of a version that the teacher labels so; labels without a promise are ignored."""
        if label in self._gates:
            self._pending.note((version, label), kept)

    def exchange(self, store: TraceStore, version: CertifiedVersion) -> None:
        """Add what this process noted to the shared records, and read them."""
        if not self._gates:
            return
        with self._pending.taken() as pending:
            mine = {label: kept for (number, label), kept in pending.items() if number == version.number}
            add = add_audits_by_name(version, self._gates, mine)
            known = store.values.update(LABEL_MONITORS, add) if mine else None
        known = known or store.values.get(LABEL_MONITORS) or {}
        self.states = {label: monitor_state(known.get(label), version, gate) for label, gate in self._gates.items()}

    @property
    def alarm(self) -> tuple[str, MonitorState] | None:
        """The first label whose recall has fallen under its promise, None while all keep it."""
        return next(((label, state) for label, state in self.states.items() if state.alarm), None)
