"""Record which teacher labels belong to, and since when."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from tracer_serve.components.teachers._labels import may_be_offered
from tracer_serve.config.load import Task
from tracer_serve.lifecycle.gate_state.closing import moment_after
from tracer_serve.storage.traces import TraceStore

TEACHER = "teacher"
"""Key in the store: the teacher that the spec names."""


@dataclass(frozen=True, slots=True)
class TeacherSince:
    """The teacher that the spec names, and since when.

    Parameters
    ----------
    since : rows up to this id without a fingerprint have another teacher's label; empty: the teacher never changed
    before : fingerprint of the teacher before it, empty for the first
    """

    fingerprint: str
    since: str = ""
    before: str = ""


def known_labels(task: Task, store: TraceStore, at_least: int = 3) -> tuple[str, ...]:
    """Return the labels that an open task's teacher is offered in its prompt, most frequent first.

    A label in the prompt reaches every caller. So it must come from the teacher or an import at least `at_least` times,
    be short and plain, and come from more than one user. People's corrections do not count.
    """
    if task.spec.labels or task.spec.fields:
        return ()  # a closed set is offered as it is
    return tuple(label for label in store.traces.labels_in_use(at_least, callers=2) if may_be_offered(label))


def note_teacher(store: TraceStore, fingerprint: str) -> TeacherSince:
    """Record which teacher the spec names; a change is dated now."""
    now = moment_after(store)

    def change(present: dict[str, Any] | None) -> dict[str, Any]:
        if present is None:
            return asdict(TeacherSince(fingerprint))
        if present["fingerprint"] == fingerprint:
            return present
        before = TeacherSince(**present)
        return asdict(replace(before, fingerprint=fingerprint, since=now, before=before.fingerprint))

    return TeacherSince(**store.values.update(TEACHER, change))
