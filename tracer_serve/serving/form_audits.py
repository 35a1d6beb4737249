"""Audits by form: forms that share a certificate (``same_as``) are watched each by a monitor of its own.

An alarm suspends the calls of that form alone: it does not ask the same question after all. The monitor over all forms
(`gate_watcher`) closes the gate as before. A suspension ends with the promise that it belongs to, or when the YAML no
longer says ``same_as``.
"""

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.monitor import MonitorState
from tracer_serve.lifecycle.certificates import CertifiedVersion
from tracer_serve.lifecycle.gate_state.monitor_record import add_audits_by_name, monitor_state
from tracer_serve.serving.pending_audits import PendingAudits
from tracer_serve.storage.traces import TraceStore

FORM_AUDITS = "monitor.forms"
"""Key in the store: by fingerprint of a form, a record as `gate_state.monitor_record` keeps it."""


class FormAudits:
    """How audits came out, by form; exchanged with the other processes through the store. Thread-safe.

    Parameters
    ----------
    gate : what is promised
    """

    def __init__(self, gate: GateSpec) -> None:
        self.states: dict[str, MonitorState] = {}
        self.suspended: frozenset[str] = frozenset()
        self._gate = gate
        self._pending = PendingAudits[str]()

    def note(self, form: str, agree: bool) -> None:
        """Record an audit of the version that serves."""
        self._pending.note(form, agree)

    def exchange(self, store: TraceStore, version: CertifiedVersion) -> None:
        """Add the audits of this process to the shared record, and read what others found.

        Raises
        ------
        StoreError
            If the store cannot be reached; the audits are kept.
        """
        with self._pending.taken() as pending:
            add = add_audits_by_name(version, dict.fromkeys(pending, self._gate), pending)
            stored = store.values.update(FORM_AUDITS, add) if pending else store.values.get(FORM_AUDITS)
        self.states = {form: monitor_state(record, version, self._gate) for form, record in (stored or {}).items()}
        self.suspended = frozenset(form for form, state in self.states.items() if state.alarm)
