"""The rows of a refit: all labelled rows train, and a fair sample of the traffic calibrates.

A row calibrates if all of this holds:

* it was drawn (`gate.fair_sample`): by an audit, or by the same draw where it was deferred. A rate of 1 (everything was
  labelled by design) draws every row. Imported rows have it, unless they were imported to train only (a rate of 0);
* the current teacher labelled it, before or after its labels were renamed or merged (`label_changes`);
* it came after the last closing of the gate;
* with ``gate.spend: series``, no earlier certificate was tested on it;
* its call has the form that is certified (`forms`). Forms are treated as different teachers: the form with the most
  such rows is certified, the others train. The count decides, never a label;
* it is among the newest `fit.max_traces` labelled rows, by the time it was served; imported rows are drawn at random.

A calibrating row has the teacher's label even if a person corrected it: the promise is agreement with the teacher, and
a caller who corrects answers must not certify them. A person's label replaces the teacher's where the row only trains.
A person's label on a row that the teacher never answered does not calibrate, since people look at what went wrong.

Rows without a label are left out. A teacher that is down fails for every text alike, so an outage leaves a fair sample.
Where labels are missing more often for texts of some lengths, the sample is evened (`gate.missing_labels`).
Texts that a teacher refuses for their content are outside the promise, which covers texts that it labels.
Audits that failed while deferred rows were retried make easy rows rarer, which costs coverage only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracer_serve.components.factory import make_teacher, teacher_fingerprint
from tracer_serve.components.known_forms import make_forms
from tracer_serve.config.label_changes import LabelChanges
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.dataset import Rows
from tracer_serve.forms.known import NATIVE
from tracer_serve.gate.fair_sample import calibration_rows
from tracer_serve.gate.missing_labels import evened
from tracer_serve.lifecycle.adopted_forms import adopted_forms
from tracer_serve.lifecycle.gate_state.closing import Closing
from tracer_serve.lifecycle.teacher_change import TeacherSince, note_teacher
from tracer_serve.storage.traces import Columns, TraceStore
from tracer_serve.types import Bools, Labels, Text, length_of

_EACH = 20
"""Least number of training rows per label, so that a rare label stays known to the version."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Labelled rows up to a moment.

    Parameters
    ----------
    ids : trace ids of the rows, ASCII, shape (n,)
    until : id of the newest row that was read
    after : calibration rows came after this id; empty: from the first on
    left_out : number of older labelled rows beyond `fit.max_traces`
    forms : fingerprints of the forms that the calibration rows came from
    """

    rows: Rows
    ids: NDArray[np.bytes_]
    until: str
    after: str
    left_out: int = 0
    forms: tuple[str, ...] = ()


def labelled_rows(task: Task, store: TraceStore) -> Rows:
    """Return the rows that a refit of the task would work on, without regard to alarms and spent rows."""
    forms = make_forms(task, make_teacher(task))
    forms.adopt(adopted_forms(store))
    since = note_teacher(store, teacher_fingerprint(task), task)
    most, changes = task.spec.fit.max_traces, task.spec.label_changes
    return take_snapshot(store, since, most=most, certified_as=forms.certified_as, changes=changes).rows


def take_snapshot(
    store: TraceStore,
    teacher: TeacherSince,
    *,
    most: int = 1_000_000,
    closed: str = "",
    spent: str = "",
    certified_as: Callable[[str | None], str] = lambda form: form or NATIVE,
    changes: LabelChanges = LabelChanges(),  # noqa: B008  # frozen
) -> Snapshot:
    """Read the labelled rows up to now.

    Parameters
    ----------
    teacher : the teacher whose labels calibrate
    most : read only the newest rows up to this number
    closed : the last closing of the gate, as a trace id
    spent : rows up to this id were in a certificate that may not be repeated
    certified_as : returns the form whose certificate covers a form
    changes : what became of former labels

    Raises
    ------
    FitError
        If there are none.
    """
    until = store.traces.latest_id()
    newest = store.traces.newest(most, _EACH)
    columns = None if until is None else store.traces.columns(until_id=until, newest=newest)
    if until is None or columns is None or not len(columns):
        raise FitError(
            "there are no labelled traces to fit on; bring some (`tracer-serve import TASK.yaml traces.jsonl`),"
            " or serve and let the teacher answer"
        )
    question = _questions(columns, certified_as)
    own = np.where(question == NATIVE, _own(columns, teacher), columns.fingerprint.decode() == question)
    fair = drawn(columns) & own & (columns.ids > max(closed, spent).encode("ascii"))
    if newest is not None:
        fair &= ~np.isin(columns.ids, np.array(newest.older, dtype=np.bytes_))
    fair &= question == _most_frequent(question[fair])
    fair &= _evened(columns, store.traces.unlabelled(closed), fair)
    forms = tuple(sorted(set(columns.form.decode(NATIVE)[fair].tolist())))
    left_out = 0 if newest is None else max(0, newest.of - len(columns))
    labels, ids = _present(_labels(store, columns, fair), changes), columns.ids
    if teacher.same and (strange := sorted({*labels[fair].tolist()} - {*teacher.labels})):
        raise FitError(
            f"traces have the label {strange[0]!r}, which is no longer among labels: keep `label_changes` in the YAML"
            " as long as such traces are stored"
        )
    arrived = np.where(columns.source.is_value("import"), 0, np.arange(1, len(ids) + 1))  # a file has no known order
    rows = Rows(columns.texts, labels, fair, columns.group.decode(), arrived=arrived)
    superseded = _superseded(columns, own) | np.isin(labels, _gone(changes))
    if superseded.any():
        rows, ids = rows.take(np.flatnonzero(~superseded)), ids[~superseded]
    return Snapshot(rows, ids, until, closed, left_out, forms)


def _questions(columns: Columns, certified_as: Callable[[str | None], str]) -> Labels:
    """Return the form whose certificate would cover each row, shape (n,)."""
    covering = [certified_as(form) for form in columns.form.values]
    return np.array([*covering, NATIVE], dtype=np.str_)[columns.form.codes]


def _evened(columns: Columns, missing: list[Text], fair: Bools) -> Bools:
    """Return the rows without those that are too many as others of other lengths lack a label, shape (n,)."""
    kept = np.ones(len(fair), bool)
    served = np.flatnonzero(fair & ~columns.source.is_value("import"))
    kept[served] = evened(
        np.array([length_of(columns.texts[row]) for row in served], np.float64),
        np.array([length_of(text) for text in missing], np.float64),
    )
    return kept


def _most_frequent(questions: Labels) -> str:
    """Return the form with the most rows; direct calls in a tie."""
    found, counts = np.unique(questions, return_counts=True)
    best = found[counts == counts.max(initial=0)].tolist()
    return NATIVE if NATIVE in best or not best else str(best[0])


def _labels(store: TraceStore, columns: Columns, fair: Bools) -> Labels:
    """Return the label of each row: the teacher's where the row calibrates, shape (n,)."""
    labels = columns.label.decode().astype(object)
    for row in np.flatnonzero(fair & columns.source.is_value("human")):
        trace = store.traces.get(columns.ids[row].decode("ascii"))
        replaced = None if trace is None else trace.metadata.get("replaced")
        if replaced is not None:  # else the person confirmed the teacher's label
            labels[row] = replaced["label"]
    return np.asarray(labels, dtype=np.str_)


def _present(labels: Labels, changes: LabelChanges) -> Labels:
    """Return labels under their present names, shape (n,)."""
    if not (translation := changes.translation):
        return labels
    return np.array([translation.get(label, label) for label in labels.tolist()], dtype=np.str_)


def _gone(changes: LabelChanges) -> list[str]:
    """Return labels that were split into others: their rows do not say which."""
    return [old for old, several in changes.split.items() if old not in several]


def calibrates_after(store: TraceStore, closing: Closing | None, serving: str, attempt: int = 1) -> str:
    """Return the id after which rows calibrate: the alarm's, or the one of the version that serves, if it is later.

    Every second attempt at a repair takes the newer half of the rows since the alarm. If the teacher gave wrong labels
    for a while, these rows recover first. Only their count decides, so they are as fair a sample.

    Parameters
    ----------
    closing : the last closing of the gate
    serving : `Manifest.after` of the version that serves
    attempt : number of the attempt at a repair, from 1
    """
    if closing is None:
        return ""
    after = max(closing.after, serving)
    return after if attempt % 2 else max(after, store.traces.newest_after(store.traces.labelled_since(after) // 2))


def drawn(columns: Columns) -> Bools:
    """Return which labelled rows are a fair sample of traffic within their epoch, shape (n,)."""
    handled, human = columns.decision.is_value("handled"), columns.source.is_value("human")
    answered = columns.labelled & (~human | (columns.fingerprint.codes >= 0))
    return calibration_rows(columns.audit_rate, handled, handled & answered, answered, columns.u)


def _own(columns: Columns, teacher: TeacherSince) -> Bools:
    """Return which rows the teacher labelled; rows without a fingerprint count if they came after its last change."""
    own: Bools = columns.fingerprint.is_value(teacher.fingerprint)
    for fingerprint in teacher.same:
        own |= columns.fingerprint.is_value(fingerprint)
    unknown = columns.fingerprint.codes < 0
    return own | (unknown & (columns.ids > teacher.since.encode("ascii")))


def _superseded(columns: Columns, own: Bools) -> Bools:
    """Return which rows have another teacher's label of a text that the current teacher has labelled too."""
    gone: Bools = np.zeros(len(columns), bool)
    others = np.flatnonzero(~own)
    if len(others):
        known = {columns.texts[i] for i in np.flatnonzero(own)}
        gone[others] = [columns.texts[i] in known for i in others]
    return gone
