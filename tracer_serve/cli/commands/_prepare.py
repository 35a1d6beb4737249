"""Checks of a task before it is served."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tracer_serve.cli.commands._certificate_rows import finding
from tracer_serve.cli.commands.check import check
from tracer_serve.components.factory import teacher_fingerprint
from tracer_serve.config.load import Task
from tracer_serve.errors import ArtifactError
from tracer_serve.lifecycle.certificates import certified_version
from tracer_serve.lifecycle.gate_state.closing import closing_of
from tracer_serve.lifecycle.gate_state.requirements import Requirements
from tracer_serve.lifecycle.imports import import_traces
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions.opening import open_versions, store_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """Result of the checks, serialisable as JSON.

    Parameters
    ----------
    unfitted : whether there are traces but no version
    facts : rows about the version for the terminal; empty if there is no version
    example : an input to try
    """

    unfitted: bool
    facts: list[tuple[str, str]]
    example: Any


def prepare(task: Task) -> Prepared:
    """Check a task, import its new traces, and verify the version that will serve.

    Raises
    ------
    TracerServeError
        If a component, a trace file or the store is invalid.
    """
    check(task)
    versions = open_versions(task)
    with closing(store_of(task)) as store:
        import_traces(task, store)
        any_traces, closed = store.traces.latest_id() is not None, closing_of(store)
        tried = example(task, store)
    try:
        current = versions.current()
        if current is None:
            return Prepared(any_traces, [], tried)
        versions.verify(current)
        version = certified_version(versions, current)
    except ArtifactError as error:  # the teacher can still answer, and the server starts a refit
        rows = [("task", task.spec.name), ("version", f"NONE SERVES, everything goes to the teacher: {error}")]
        return Prepared(unfitted=False, facts=rows, example=tried)
    rows = [("task", task.spec.name), ("version", str(current)), *finding(task, current, version.certificate)]
    gate = Requirements(teacher_fingerprint(task), task.spec.gate, closed).state(version)
    if gate.void:
        rows.append(("gate", f"CLOSED, everything goes to the teacher: {gate.message}"))
    return Prepared(unfitted=False, facts=rows, example=tried)


def example(task: Task, store: TraceStore) -> object:
    """Return an input to try: a recent one of the store, else a greeting."""
    found = next(iter(store.traces.labelled()), None)
    if found is not None:
        return list(found.input) if isinstance(found.input, tuple) else found.input
    return ["first text", "second text"] if task.spec.input == "pair" else "hello"
