"""The rows of a refit: what trains, and what is a fair sample of traffic."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer_serve.errors import FitError
from tracer_serve.lifecycle.gate_state.closing import close_gate, closing_of
from tracer_serve.lifecycle.teacher_change import TeacherSince, note_teacher
from tracer_serve.lifecycle.training_set import take_snapshot
from tracer_serve.storage.traces import TraceStore, new_id, open_store
from tracer_serve.types import Trace

OWN = TeacherSince("own")
DEFERRED: dict[str, Any] = {"decision": "deferred", "label_source": "teacher", "version": 1, "audit_rate": 0.1}
AUDITED: dict[str, Any] = {"decision": "handled", "label_source": "audit", "version": 1, "audit_rate": 0.1}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    """An empty store."""
    opened = open_store(tmp_path / "traces.db", "t")
    yield opened
    opened.close()


def add(store: TraceStore, text: str, label: str | None = "x", **facts: Any) -> str:
    """Add one row of the spec's teacher; `facts` override."""
    own: dict[str, Any] = {"teacher_label": label, "teacher_fingerprint": None if label is None else "own"}
    trace = Trace(id=new_id(), ts=datetime.now(UTC), task="t", input=text, **(own | facts))
    store.traces.add([trace])
    return trace.id


def fair(store: TraceStore, since: TeacherSince = OWN, **bounds: Any) -> dict[Any, bool]:
    """Return which texts calibrate."""
    rows = take_snapshot(store, since, **bounds).rows
    return dict(zip(rows.texts, map(bool, rows.calibrates), strict=True))


def test_everything_labelled_trains_and_the_drawn_calibrate(store: TraceStore) -> None:
    """Imports, rows of uncertified times, audits, and deferred rows under the rate are fair; the others only train."""
    add(store, "import", label_source="import", teacher_fingerprint=None)
    add(store, "import to train", label_source="import", audit_rate=0.0)
    add(store, "no version", decision="deferred", label_source="teacher", u=0.99)
    add(store, "audit", u=0.05, **AUDITED)
    add(store, "deferred, drawn", u=0.05, **DEFERRED)
    add(store, "deferred", u=0.5, **DEFERRED)
    add(store, "failed", None, decision="deferred", version=1, audit_rate=0.1, u=0.01)
    add(store, "handled", None, decision="handled", version=1, audit_rate=0.1, u=0.5)
    assert fair(store) == {
        "import": True,
        "import to train": False,
        "no version": True,
        "audit": True,
        "deferred, drawn": True,
        "deferred": False,
    }


def test_labels_that_are_missing_for_long_texts_thin_the_short_ones(store: TraceStore) -> None:
    """Where the teacher labels every short text and a third of the long ones, a third of the short ones calibrates."""
    texts = [f"{'long ' * 20 if i % 2 else 'short'} {i}" for i in range(600)]
    rows = [
        Trace(
            id=new_id(),
            ts=datetime.now(UTC),
            task="t",
            input=text,
            teacher_label=None if i % 2 and i % 3 else "x",
            teacher_fingerprint=None if i % 2 and i % 3 else "own",
            decision="deferred",
            u=0.5,
        )
        for i, text in enumerate(texts)
    ]
    store.traces.add(rows)
    kept = fair(store)
    short, long = ([kept[text] for text in texts[start::2] if text in kept] for start in (0, 1))
    assert (len(short), len(long)) == (300, 100)
    assert sum(long) > 60
    assert sum(short) < 1.5 * sum(long)


def test_rows_of_a_file_have_no_order_of_arrival(store: TraceStore) -> None:
    """Served rows are as old as their id says; a file may be sorted by label, so its rows are of one unknown age."""
    for name in ("served", "import", "imported later", "served later"):
        facts = {"label_source": "import", "teacher_fingerprint": None} if "import" in name else DEFERRED
        add(store, name, **facts)
    arrived = take_snapshot(store, OWN).rows.arrived
    assert arrived is not None
    assert arrived.tolist() == [1, 0, 0, 4]


def test_what_people_label_calibrates_only_where_the_teacher_had_answered(store: TraceStore) -> None:
    """Feedback on handled rows, and on rows without an answer, is about what went wrong: no sample of anything."""
    for name, facts in {"deferred": DEFERRED, "audited": AUDITED}.items():
        store.traces.set_label(add(store, f"corrected, {name}", u=0.01, **facts), "y", "human")
    unanswered = {"decision": "handled", "version": 1, "audit_rate": 0.1}
    for name, u in {"not drawn": 0.5, "unanswered": 0.01}.items():
        store.traces.set_label(add(store, name, None, u=u, **unanswered), "y", "human")
    store.traces.set_label(add(store, "failed", None, decision="deferred", u=0.5), "y", "human")
    found = fair(store)
    assert len(found) == 5
    assert {text for text, calibrates in found.items() if calibrates} == {"corrected, deferred", "corrected, audited"}


def test_a_person_who_is_faster_than_the_audit_drops_no_row(store: TraceStore) -> None:
    """A drawn row calibrates whether a person or the teacher looked first: people are fast where something is wrong."""
    row = add(store, "drawn", None, decision="handled", version=1, audit_rate=0.1, u=0.01)
    store.traces.set_label(row, "y", "human")
    store.traces.set_label(row, "x", "audit", fingerprint="own")
    assert fair(store) == {"drawn": True}
    assert take_snapshot(store, OWN).rows.labels.tolist() == ["x"]  # the teacher's: the row calibrates


def test_rows_before_the_closing_and_spent_ones_only_train(store: TraceStore) -> None:
    """A closed gate and a spent certificate move the first row that calibrates; the later of the two counts."""
    spent = add(store, "first")
    close_gate(store, version=1, audits=10, agreements=1, evidence=99.0)
    closing = closing_of(store)
    assert closing is not None
    add(store, "second")
    assert fair(store, closed=closing.after, spent=spent) == {"first": False, "second": True}
    assert take_snapshot(store, OWN, closed=closing.after).after == closing.after
    later = add(store, "third")
    assert fair(store, closed=closing.after, spent=later) == {"first": False, "second": False, "third": False}


def test_another_teachers_labels_train_until_the_present_one_labels_the_same_text(store: TraceStore) -> None:
    """After a change, old labels calibrate no more, unsaid ones neither, and a text labelled anew counts once."""
    note_teacher(store, "old")
    add(store, "both", "old label", teacher_fingerprint="old")
    add(store, "old only", "a", teacher_fingerprint="old")
    add(store, "imported before", "a", teacher_fingerprint=None, label_source="import")
    since = note_teacher(store, "own")
    add(store, "both", "new label")
    add(store, "imported after", "a", teacher_fingerprint=None, label_source="import")
    taken = take_snapshot(store, since).rows
    assert list(zip(taken.texts, taken.labels, taken.calibrates, strict=True)) == [
        ("old only", "a", False),
        ("imported before", "a", False),
        ("both", "new label", True),
        ("imported after", "a", True),
    ]
    assert since.before == "old"
    assert note_teacher(store, "own") == since


def test_a_refit_works_on_the_newest_rows(store: TraceStore) -> None:
    """Beyond the most rows the older ones are left out and counted; what is kept of a rare label trains only."""
    for i in range(30):
        add(store, f"old {i}", "rare" if i < 25 else "x", decision="deferred", label_source="teacher")
    for i in range(50):
        add(store, f"new {i}", decision="deferred", label_source="teacher")
    taken = take_snapshot(store, OWN, most=40)
    calibrating = [text for text, fair in zip(taken.rows.texts, taken.rows.calibrates, strict=True) if fair]
    assert calibrating == [f"new {i}" for i in range(10, 50)]
    assert sorted(taken.rows.texts) == sorted([*calibrating, *(f"old {i}" for i in range(5, 25))])
    assert taken.left_out == 20
    assert take_snapshot(store, OWN, most=80).left_out == 0


def test_an_empty_store_says_what_to_do(store: TraceStore) -> None:
    """Without a label there is nothing to fit, and the next command is named."""
    add(store, "a", None, decision="deferred")
    with pytest.raises(FitError, match="tracer-serve import"):
        take_snapshot(store, OWN)


def test_thinned_rows_tell_the_truth_about_traffic(store: TraceStore) -> None:
    """Of traffic with 30 % hard rows, all of them deferred, the fair sample has 30 %, though most labels are hard ones.

    2,000 requests at a rate of .2 are about 400 fair rows; five standard errors are 11 points.
    """
    rng, made = random.Random(0), []
    for i in range(2_000):
        hard, u = rng.random() < 0.3, rng.random()
        facts = DEFERRED if hard else AUDITED
        if hard or u < 0.2:
            made.append(_row("hard" if hard else "easy", i, facts | {"audit_rate": 0.2, "u": u}))
    store.traces.add(made)
    rows = take_snapshot(store, OWN).rows
    hard_rows = rows.labels == "hard"
    assert hard_rows.mean() > 0.6
    assert abs(hard_rows[rows.calibrates].mean() - 0.3) < 0.11
    assert 300 < int(np.sum(rows.calibrates)) < 500


def _row(label: str, i: int, facts: dict[str, Any]) -> Trace:
    own: dict[str, Any] = {
        "id": new_id(),
        "ts": datetime.now(UTC),
        "task": "t",
        "input": str(i),
        "teacher_label": label,
    }
    return Trace(**own, teacher_fingerprint="own", **facts)


def test_the_form_with_most_rows_is_certified_and_the_others_train(store: TraceStore) -> None:
    """Forms that the YAML calls the same count together; direct calls win a tie; the version states its forms."""
    row: dict[str, Any] = {"decision": "deferred", "label_source": "teacher"}
    add(store, "import", label_source="import")
    add(store, "direct", form="native", **row)
    add(store, "teacher's prompt", form="prompt", **row)
    add(store, "wrapped 1", form="wrapper", **(row | {"teacher_fingerprint": "wrapper"}))
    add(store, "wrapped 2", form="wrapper", **(row | {"teacher_fingerprint": "wrapper"}))
    add(store, "wrapped 3", form="twin", **(row | {"teacher_fingerprint": "wrapper"}))

    def certified_as(form: str | None) -> str:
        return {None: "native", "prompt": "native", "twin": "wrapper"}.get(form, form or "native")

    taken = take_snapshot(store, OWN, certified_as=certified_as)
    assert taken.forms == ("native", "prompt")
    assert dict(zip(taken.rows.texts, taken.rows.calibrates.tolist(), strict=True)) == {
        "import": True,
        "direct": True,
        "teacher's prompt": True,
        "wrapped 1": False,
        "wrapped 2": False,
        "wrapped 3": False,
    }
    add(store, "wrapped 4", form="wrapper", **(row | {"teacher_fingerprint": "wrapper"}))
    taken = take_snapshot(store, OWN, certified_as=certified_as)
    assert taken.forms == ("twin", "wrapper")
    assert [text for text, fair in zip(taken.rows.texts, taken.rows.calibrates, strict=True) if fair] == [
        f"wrapped {i}" for i in (1, 2, 3, 4)
    ]
