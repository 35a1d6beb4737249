"""Record which teacher labels belong to, and since when."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from tracer_serve.lifecycle.gate_state.closing import moment_after
from tracer_serve.storage.traces import TraceStore

TEACHER = "teacher"
"""Key in the store: the teacher that the spec names."""


@dataclass(frozen=True, slots=True)
class TeacherSince:
    """The teacher that the spec names, and since when.

    Parameters
    ----------
    since : rows up to this id that do not say whose label they have are another teacher's; empty: no change so far
    before : fingerprint of the teacher before it, empty for the first
    """

    fingerprint: str
    since: str = ""
    before: str = ""


def known_labels(store: TraceStore, at_least: int = 3) -> tuple[str, ...]:
    """Return the labels that the traces have at least so often, most frequent first, for an open task's teacher."""
    return tuple(label for label, rows in store.tallies.counts().by_label.items() if rows >= at_least)


def note_teacher(store: TraceStore, fingerprint: str) -> TeacherSince:
    """Note which teacher the spec names; a change is dated now, and returned with the moment."""
    now = moment_after(store)

    def change(present: dict[str, Any] | None) -> dict[str, Any]:
        if present is None:
            return asdict(TeacherSince(fingerprint))
        if present["fingerprint"] == fingerprint:
            return present
        before = TeacherSince(**present)
        return asdict(replace(before, fingerprint=fingerprint, since=now, before=before.fingerprint))

    return TeacherSince(**store.values.update(TEACHER, change))
