"""The trace store and its importers: ``open_store``, ``new_id``, ``import_file``."""

from tracer_serve.traces.columns import Coded, Columns
from tracer_serve.traces.failures import refuses_values
from tracer_serve.traces.history import Refit
from tracer_serve.traces.ids import first_id, new_id
from tracer_serve.traces.store import TraceStore, open_store
from tracer_serve.traces.tally import Counts, Tally

__all__ = [
    "Coded",
    "Columns",
    "Counts",
    "Refit",
    "Tally",
    "TraceStore",
    "first_id",
    "new_id",
    "open_store",
    "refuses_values",
]
