"""Import the trace files that a task's YAML lists. Imports few modules, so that serving starts fast."""

from tracer_serve.components.factory import make_redactors, teacher_fingerprint
from tracer_serve.config.load import Task
from tracer_serve.infra.redaction import redaction
from tracer_serve.lifecycle.gate_state.closing import closing_of
from tracer_serve.storage.traces import TraceStore


def import_traces(task: Task, store: TraceStore) -> int:
    """Import new rows of the files under `traces.import`; return how many rows were imported."""
    spec, redact = task.spec, redaction(make_redactors(task))
    if not spec.traces.import_:
        return 0
    from tracer_serve.storage.importers import import_file  # noqa: PLC0415

    fingerprint, closing = teacher_fingerprint(task), closing_of(store)
    return sum(
        import_file(
            store,
            task.resolve(path),
            labels=spec.readable_labels,
            fields=spec.answer_fields,
            pair=spec.input == "pair",
            fingerprint=fingerprint,
            fair=spec.traces.import_fair,
            since=closing.moment if closing else None,
            redact=redact,
        ).imported
        for path in spec.traces.import_
    )
