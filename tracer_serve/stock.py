"""What a task has: store, versions, and the traces that its YAML imports. Light, so that serving starts fast."""

from tracer_serve.components import make_redactors, teacher_fingerprint
from tracer_serve.load import Task
from tracer_serve.redaction import redaction
from tracer_serve.shared import open_versions
from tracer_serve.standing import closing_of
from tracer_serve.traces import TraceStore, open_store
from tracer_serve.versions import Versions


def store_of(task: Task) -> TraceStore:
    """Open the task's trace store."""
    return open_store(task.database, task.spec.name)


def versions_of(task: Task) -> Versions:
    """Return the task's versions."""
    return open_versions(task)


def import_traces(task: Task, store: TraceStore) -> int:
    """Import what is not in the store yet of the files under `traces.import`; return how many rows came in."""
    spec, redact = task.spec, redaction(make_redactors(task))
    if not spec.traces.import_:
        return 0
    from tracer_serve.traces.importers import import_file  # noqa: PLC0415

    fingerprint, closing = teacher_fingerprint(task), closing_of(store)
    return sum(
        import_file(
            store,
            task.resolve(path),
            labels=spec.label_names,
            pair=spec.input == "pair",
            fingerprint=fingerprint,
            fair=spec.traces.import_fair,
            since=closing.moment if closing else None,
            redact=redact,
        ).imported
        for path in spec.traces.import_
    )
