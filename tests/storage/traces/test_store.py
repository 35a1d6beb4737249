"""What a store keeps and gives back, on both databases."""

import dataclasses
import math
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.storage.traces.make import NOON, handled, trace
from tests.storage.traces.test_codec import hostile
from tracer_serve.storage.traces import TraceStore, new_id, open_store
from tracer_serve.storage.traces.rows import Row
from tracer_serve.types import Answer, Trace


def test_every_field_comes_back(store: TraceStore) -> None:
    """A trace with all of its fields set is equal to itself after a round trip."""
    full = Trace(
        id=new_id(), ts=NOON, task=store.task, input=("premise", "hypothesis"), teacher_label="neutral",
        label_source="audit", surrogate_label="entailment", score=-1.25e-7, decision="handled", propensity=0.03,
        version=7, audit_rate=0.03, u=0.0123, teacher_fingerprint="f" * 64, usage={"prompt_tokens": 12},
        cost=0.00025, latency_ms={"embed": 1.5, "teacher": 420.0}, metadata={"user": "u1", "deep": {"list": [1, None]}},
        form="0f3c", group="conversation \0 7", key_id="3f2a9c01", audit_kind="random",
    )  # fmt: skip
    bare = Trace(id=new_id(), ts=NOON, task=store.task, input="")
    assert store.traces.add([full, bare]) == 2
    assert [store.traces.get(full.id), store.traces.get(bare.id)] == [full, bare]
    assert store.traces.get("no such id") is None
    assert store.traces.get("\x00 \ud800") is None


def test_every_field_of_a_trace_has_a_column() -> None:
    """A field that is added to `Trace` cannot be forgotten by the store."""
    names = {field.name for field in dataclasses.fields(Trace)}
    assert names - {"group"} == set(Row._fields) - {"user_id", "group_id"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile)
def test_hostile_text_comes_back(store: TraceStore, value: Any) -> None:
    """Any text, pair or label goes into the database and comes back as it was: NUL, lone surrogates, RTL marks."""
    label = value if isinstance(value, str) else value[0]
    one = trace(store.task, value, teacher_label=label, surrogate_label=label, metadata={"user": label, label: label})
    store.traces.add([one])
    assert store.traces.get(one.id) == one
    assert label in store.tallies.counts().by_label
    assert store.users.forget(label) == [one.id]


def test_a_megabyte_comes_back(store: TraceStore) -> None:
    """A text of 1 MB, of characters of several bytes, is stored whole."""
    one = trace(store.task, "ش\U0001f600" * 250_000)
    store.traces.add([one])
    assert store.traces.get(one.id) == one


def test_a_score_of_nan_is_none(store: TraceStore) -> None:
    """NaN is stored as no score on both databases, infinities as themselves."""
    some = [trace(store.task, score=score) for score in (math.nan, math.inf, -math.inf)]
    store.traces.add(some)
    assert [store.traces.get(one.id).score for one in some] == [None, math.inf, -math.inf]  # type: ignore[union-attr]


def test_numpy_values_are_taken(store: TraceStore) -> None:
    """Numbers and labels as numpy has them are stored like Python's."""
    one = trace(
        store.task, np.str_("hi"), teacher_label=np.str_("greeting"), score=np.float32(0.5), version=np.int64(3)
    )
    store.traces.add([one])
    assert store.traces.get(one.id) == one


def test_times_are_utc(store: TraceStore) -> None:
    """A time in another zone comes back as the same moment; one without a zone is refused."""
    east = datetime(2026, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    one = dataclasses.replace(trace(store.task), ts=east)
    store.traces.add([one])
    assert store.traces.get(one.id).ts == datetime(2026, 1, 1, tzinfo=UTC)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no time zone"):
        store.traces.add([dataclasses.replace(one, ts=datetime(2026, 1, 1))])  # noqa: DTZ001


def test_an_add_may_be_repeated(store: TraceStore) -> None:
    """A second add of the same ids changes nothing, neither rows nor counts, and writes what was missing."""
    first, second, other = trace(store.task), trace(store.task), trace(store.task, "something else")
    assert store.traces.add([first, second]) == 2
    assert store.traces.add([dataclasses.replace(first, input="changed"), other, other]) in (1, 2)
    assert [one.input for one in store.traces.labelled()] == [first.input, second.input, "something else"]
    assert store.tallies.counts().total.rows == 3


def test_tasks_do_not_see_each_other(location: Path | str, store: TraceStore) -> None:
    """Stores of two tasks in one database keep rows, counts, leases and settings apart; foreign rows are refused."""
    other = open_store(location, f"{store.task}_other")
    try:
        store.traces.add([trace(store.task)])
        store.values.put("key", 1)
        assert store.leases.acquire("refit", "me", 60)
        assert (list(other.traces.labelled()), other.traces.latest_id(), other.tallies.counts().total.rows) == (
            [],
            None,
            0,
        )
        assert other.values.get("key") is None
        assert other.leases.acquire("refit", "you", 60)
        with pytest.raises(ValueError, match="is of task"):
            other.traces.add([trace(store.task)])
    finally:
        other.close()


def test_labelled_streams_in_order(store: TraceStore) -> None:
    """Labelled traces come in the order of their ids, over many pages, within the bounds; unlabelled ones do not."""
    store.traces.page_rows = 7
    made = [trace(store.task, str(number)) for number in range(50)]
    store.traces.add([*reversed(made), *(handled(store.task) for _ in range(20))])
    assert list(store.traces.labelled()) == made
    assert list(store.traces.labelled(after_id=made[9].id, until_id=made[30].id)) == made[10:31]
    assert store.traces.labelled_since(None) == 50
    assert store.traces.labelled_since(made[44].id) == 5


def test_rows_added_while_streaming_do_not_disturb(store: TraceStore) -> None:
    """A snapshot until the latest id holds the same rows whatever is added meanwhile."""
    store.traces.page_rows = 5
    made = [trace(store.task, str(number)) for number in range(20)]
    store.traces.add(made)
    seen = []
    for one in store.traces.labelled(until_id=store.traces.latest_id()):
        seen.append(one)
        store.traces.add([trace(store.task)])
    assert seen == made


def test_columns_say_what_the_rows_say(store: TraceStore) -> None:
    """A snapshot as columns agrees with the traces, row by row and field by field."""
    store.traces.column_rows = 4
    made = [
        trace(store.task, ("a", "b"), teacher_label="x", u=0.25, audit_rate=0.5, teacher_fingerprint="f1"),
        trace(
            store.task, "[odd", teacher_label="x\x00y", version=None, decision=None, label_source="import", score=None
        ),
        *(trace(store.task, str(number), teacher_label=f"l{number % 3}", version=number) for number in range(9)),
    ]
    store.traces.add([*made, handled(store.task)])
    found = store.traces.columns()
    assert len(found) == 11
    assert found.labelled.all()
    assert [one.decode() for one in found.ids] == [one.id for one in made]
    assert found.texts == [one.input for one in made]
    assert found.label.decode().tolist() == [one.teacher_label for one in made]
    assert found.source.decode().tolist() == [one.label_source for one in made]
    assert found.decision.decode("none").tolist() == [one.decision or "none" for one in made]
    assert found.fingerprint.decode().tolist() == [one.teacher_fingerprint or "" for one in made]
    assert found.u.tolist() == [one.u for one in made]
    assert found.audit_rate.tolist() == [one.audit_rate for one in made]
    assert found.label.is_value("l1").sum() == 3
    assert not found.label.is_value("no such label").any()
    assert len(store.traces.columns(after_id=made[8].id)) == 2
    assert store.traces.columns(labelled_only=False).labelled.sum() == 11


def test_columns_of_an_empty_store(store: TraceStore) -> None:
    """No rows are columns of length zero, not an error."""
    found = store.traces.columns()
    assert len(found) == len(found.ids) == len(found.u) == len(found.label.decode()) == 0


def test_recent_pages_back(store: TraceStore) -> None:
    """The newest traces come first, and the next page goes on where the last one ended."""
    made = [trace(store.task, str(number)) for number in range(7)]
    store.traces.add(made)
    page = store.traces.recent(3)
    assert page == made[:3:-1]
    assert store.traces.recent(3, before_id=page[-1].id) == made[3:0:-1]
    assert store.traces.latest_id() == made[-1].id


def test_an_audit_labels_a_row(store: TraceStore) -> None:
    """An audit gives a handled row the teacher's label, tokens, cost, latency and fingerprint."""
    one = handled(store.task, latency_ms={"embed": 2.0})
    store.traces.add([one])
    answer = Answer("greeting", usage={"prompt_tokens": 5}, cost=0.5, latency_ms=300.0)
    assert store.traces.set_label(one.id, "greeting", "audit", answer, fingerprint="f1")
    assert store.traces.get(one.id) == dataclasses.replace(
        one, teacher_label="greeting", label_source="audit", usage={"prompt_tokens": 5}, cost=0.5,
        latency_ms={"embed": 2.0, "teacher": 300.0}, teacher_fingerprint="f1",
    )  # fmt: skip
    assert not store.traces.set_label("no such id", "greeting", "audit")


def test_a_persons_label_stands(store: TraceStore) -> None:
    """A person's label replaces the teacher's, which is kept beside it; no audit replaces a person's."""
    one = trace(store.task, metadata={"user": "u"})
    store.traces.add([one])
    assert store.traces.set_label(one.id, "lost_card", "human")
    assert not store.traces.set_label(one.id, "card_arrival", "audit")
    found = store.traces.get(one.id)
    assert found is not None
    assert (found.teacher_label, found.label_source) == ("lost_card", "human")
    assert found.metadata == {"user": "u", "replaced": {"label": "card_arrival", "source": "teacher"}}


def test_an_audit_that_comes_after_a_person_is_noted(store: TraceStore) -> None:
    """The person's label stands, and what the teacher's answer was and cost is on the row and in the counts."""
    one = handled(store.task)
    store.traces.add([one])
    store.traces.set_label(one.id, "lost_card", "human")
    answer = Answer("greeting", cost=0.5, latency_ms=300.0)
    assert not store.traces.set_label(one.id, "greeting", "audit", answer, fingerprint="f1")
    found = store.traces.get(one.id)
    assert found is not None
    assert (found.teacher_label, found.label_source, found.teacher_fingerprint) == ("lost_card", "human", "f1")
    assert found.metadata["replaced"] == {"label": "greeting", "source": "audit"}
    assert (store.tallies.counts().total.audit_cost, store.tallies.counts().by_label) == (0.5, {"lost_card": 1})


def test_forgetting_a_user(store: TraceStore) -> None:
    """Every row of a user goes, with its counts, and only those; the ids that went are named."""
    hers = [trace(store.task, str(number), metadata={"user": "Zoë"}, cost=1.0) for number in range(3)]
    his = trace(store.task, "his", metadata={"user": "zoë"})
    store.traces.add([*hers, his])
    assert store.users.forget("Zoë") == [one.id for one in hers]
    assert store.users.forget("Zoë") == []
    assert list(store.traces.labelled()) == [his]
    assert store.tallies.counts().total.rows == store.tallies.counts().by_label["card_arrival"] == 1
    assert store.tallies.counts().total.cost == pytest.approx(0.0)


def test_forgotten_text_leaves_the_disk(tmp_path: Path) -> None:
    """The bytes of a forgotten text are in none of SQLite's files, in the log neither."""
    store = open_store(tmp_path / "traces.db", "task")
    secret = "my account number is 4711-0815"
    store.traces.add([trace("task", secret, metadata={"user": "u"}), trace("task", "kept")])
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() in on_disk
    store.users.forget("u")
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.close()
    assert secret.encode() not in left


def test_a_second_process_sees_what_was_added(store: TraceStore, opened: Callable[[], TraceStore]) -> None:
    """What one store has added, another on the same database reads at once."""
    one = trace(store.task)
    other = opened()
    store.traces.add([one])
    assert other.traces.get(one.id) == one


def test_a_forked_process_has_connections_of_its_own(store: TraceStore) -> None:
    """After a fork parent and child both go on, and what the child has added the parent sees."""
    store.traces.add([trace(store.task, "before")])
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if store.traces.add([trace(store.task, "child")]) == 1 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    store.traces.add([trace(store.task, "parent")])
    assert [one.input for one in store.traces.labelled()] == ["before", "child", "parent"]


def test_crossing_relabels_do_not_block_each_other(store: TraceStore, opened: Callable[[], TraceStore]) -> None:
    """Two stores that move counts between the same cells in opposite directions both get through."""
    rows = [trace(store.task, teacher_label=label) for label in ("a", "b") * 30]
    store.traces.add(rows)

    def relabel(own: TraceStore, some: list[Trace], label: str) -> None:
        for one in some:
            own.traces.set_label(one.id, label, "human")

    threads = [
        threading.Thread(target=relabel, args=(store, rows[::2], "b")),
        threading.Thread(target=relabel, args=(opened(), rows[1::2], "a")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.tallies.counts().by_label == {"a": 30, "b": 30}
    assert store.tallies.counts().by_source == {"human": 60}
