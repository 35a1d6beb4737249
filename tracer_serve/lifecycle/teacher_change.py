"""Record which teacher labels belong to, and since when."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tracer_serve.components.factory import teacher_fingerprint
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
    labels : its closed label set
    same : fingerprints that it had before its labels were renamed or merged
    prior : the record of the teacher before it, for `label_changes` that are written later; empty for the first
    """

    fingerprint: str
    since: str = ""
    before: str = ""
    labels: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    prior: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_json(cls, stored: dict[str, Any]) -> "TeacherSince":
        """Read a record of any release."""
        return cls(**stored | {name: tuple(stored.get(name, ())) for name in ("labels", "same")})


def known_labels(task: Task, store: TraceStore, at_least: int = 3) -> tuple[str, ...]:
    """Return the labels that an open task's teacher is offered in its prompt, most frequent first.

    A label in the prompt reaches every caller. So it must come from the teacher or an import at least `at_least` times,
    be short and plain, and come from more than one user. People's corrections do not count.
    """
    if task.spec.labels or task.spec.fields:
        return ()  # a closed set is offered as it is
    return tuple(label for label in store.traces.labels_in_use(at_least, callers=2) if may_be_offered(label))


def note_teacher(store: TraceStore, fingerprint: str, task: Task | None = None) -> TeacherSince:
    """Record which teacher the spec names; a change is dated now.

    Parameters
    ----------
    task : whose `label_changes` say when another fingerprint is the same teacher; None: it never is
    """
    now, labels = moment_after(store), () if task is None else task.spec.label_names

    def change(present: dict[str, Any] | None) -> dict[str, Any]:
        if present is None:
            return asdict(TeacherSince(fingerprint, labels=labels))
        before = TeacherSince.of_json(present)
        known = before.fingerprint == fingerprint
        former = TeacherSince.of_json(before.prior) if known and before.prior else None if known else before
        if task is not None and former is not None and _only_labels_changed(task, former):
            same = (*former.same, former.fingerprint)
            return asdict(replace(former, fingerprint=fingerprint, labels=labels, same=same))
        if known:
            return asdict(replace(before, labels=labels)) if task is not None else present
        return asdict(TeacherSince(fingerprint, now, before.fingerprint, labels, prior=present | {"prior": {}}))

    return TeacherSince.of_json(store.values.update(TEACHER, change))


def _only_labels_changed(task: Task, before: TeacherSince) -> bool:
    """Return whether renames and merges are all that tells the spec's teacher from the one before it."""
    spec = task.spec
    present = {label: spec.label_changes.translation.get(label, label) for label in before.labels}
    if not spec.label_changes.former or {*present.values()} != {*spec.label_names}:
        return False
    labels = {old: spec.labels[new] for old, new in present.items()} if isinstance(spec.labels, dict) else before.labels
    then = spec.model_copy(update={"labels": labels})
    return teacher_fingerprint(replace(task, spec=then)) == before.fingerprint
