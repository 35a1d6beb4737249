"""Audits by form: forms that share a certificate (``same_as``) are watched each by a monitor of its own.

An alarm suspends the calls of that form alone: it does not ask the same question after all. The monitor over all forms
(`gate_watcher`) closes the gate as before. A suspension ends with the promise that it belongs to, or when the YAML no
longer says ``same_as``.
"""

import threading
from collections import defaultdict

from tracer_serve.config.gate import GateSpec
from tracer_serve.gate.monitor import MonitorState
from tracer_serve.lifecycle.certificates import CertifiedVersion
from tracer_serve.lifecycle.gate_state.monitor_record import add_audits_by_name, monitor_state
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
        self._guard = threading.Lock()
        self._pending: defaultdict[str, list[bool]] = defaultdict(list)

    def note(self, form: str, agree: bool) -> None:
        """Record an audit of the version that serves."""
        with self._guard:
            self._pending[form].append(agree)

    def exchange(self, store: TraceStore, version: CertifiedVersion) -> None:
        """Add the audits of this process to the shared record, and read what others found.

        Raises
        ------
        StoreError
            Where the store cannot be reached; the audits are kept.
        """
        with self._guard:
            pending, self._pending = self._pending, defaultdict(list)
        try:
            add = add_audits_by_name(version, dict.fromkeys(pending, self._gate), pending)
            stored = store.values.update(FORM_AUDITS, add) if pending else store.values.get(FORM_AUDITS)
        except Exception:
            with self._guard:
                for form, outcomes in pending.items():
                    self._pending[form][:0] = outcomes
            raise
        self.states = {form: monitor_state(record, version, self._gate) for form, record in (stored or {}).items()}
        self.suspended = frozenset(form for form, state in self.states.items() if state.alarm)
