"""Read labelled traces from files and logs: ``import_file`` into a store, ``read_traces`` without one."""

from tracer_serve.storage.importers.importer import import_file, read_traces, survey_file
from tracer_serve.storage.importers.items import FORMATS, Format, ReadOptions, Refusal
from tracer_serve.storage.importers.summary import Contradiction, ImportSummary

__all__ = [
    "FORMATS", "Contradiction", "Format", "ImportSummary", "ReadOptions", "Refusal",
    "import_file", "read_traces", "survey_file",
]  # fmt: skip
