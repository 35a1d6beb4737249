"""The trace store of a task: ``open_store`` and ``new_id``."""

from tracer_serve.infra.uuid7 import first_id, new_id
from tracer_serve.storage.traces.audit_log import AuditEntry, AuditLog
from tracer_serve.storage.traces.columnar import Coded, Columns
from tracer_serve.storage.traces.error_advice import refuses_values
from tracer_serve.storage.traces.refit_log import Refit
from tracer_serve.storage.traces.store import TraceStore, open_store
from tracer_serve.storage.traces.tallies import StoreCounts, Tally

__all__ = [
    "AuditEntry",
    "AuditLog",
    "Coded",
    "Columns",
    "Refit",
    "StoreCounts",
    "Tally",
    "TraceStore",
    "first_id",
    "new_id",
    "open_store",
    "refuses_values",
]
