"""Rows and labels to the store from a thread of their own: what is told as lost is what is not there."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.storage.traces import postgres
from tests.storage.traces.make import trace
from tracer_serve.serving import trace_writer as writing
from tracer_serve.serving.trace_writer import TraceWriter
from tracer_serve.storage.traces import TraceStore, new_id, open_store
from tracer_serve.types import Answer, Trace


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    store = open_store(tmp_path / "traces.db", "t")
    yield store
    store.close()


def test_a_label_that_fails_costs_no_row(store: TraceStore) -> None:
    """Rows are written before the labels that come with them: whoever waits is told so, and one label is lost."""
    refused, row = new_id(), Trace(id=new_id(), ts=datetime.now(UTC), task="t", input="a", teacher_label="x")
    store.traces.add([Trace(id=refused, ts=datetime.now(UTC), task="t", input="b", decision="handled")])
    with store.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE UPDATE ON tracer_traces BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    writer = TraceWriter(store)
    writer.label(refused, "audit", Answer("x"), "f")

    assert asyncio.run(writer.commit(row))
    writer.close()
    assert [trace.input for trace in store.traces.labelled()] == ["a"]
    assert writer.lost == 1
    assert "no room" in (writer.problem or "")


def test_a_store_that_hangs_holds_no_answer(store: TraceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a row is told in time that it is not safe yet, and it is written when the store goes on."""
    monkeypatch.setattr(writing, "_PATIENCE_S", 0.2)
    hanging = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    hanging.execute("BEGIN IMMEDIATE")
    writer = TraceWriter(store)
    row = Trace(id=new_id(), ts=datetime.now(UTC), task="t", input="a", teacher_label="x")
    assert not asyncio.run(writer.commit(row))
    assert "has not answered" in (writer.problem or "")
    hanging.execute("ROLLBACK")
    hanging.close()
    writer.close()
    assert [trace.input for trace in store.traces.labelled()] == ["a"]
    assert (writer.lost, writer.problem) == (0, None)


def wait_for(true: Callable[[], bool]) -> None:
    """Wait for what the writer's thread will bring about."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_database_that_restarts_costs_no_row(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is away nobody waits for it; afterwards each row and its label are there, in one copy."""
    monkeypatch.setattr(writing, "_RETRY_S", 0.05)
    task, counted = f"restart-{new_id()}", [0, 0]
    store = open_store(postgres_url, task)

    def count(place: int) -> Callable[[int], None]:
        return lambda n: counted.__setitem__(place, counted[place] + n)

    writer = TraceWriter(store, count(0), count(1))
    handled = Trace(id=new_id(), ts=datetime.now(UTC), task=task, input="handled", decision="handled")
    assert asyncio.run(writer.commit(trace(task, "before")))
    with postgres.stopped(postgres_url):
        writer.put(handled)
        writer.label(handled.id, "audit", Answer("x"), "f")
        assert not asyncio.run(writer.commit(trace(task, "meanwhile")))
        assert "cannot be reached" in (writer.problem or "")
        wait_for(lambda: writer.delayed == writer.waiting == 3)
    wait_for(lambda: writer.waiting == 0)
    assert asyncio.run(writer.commit(trace(task, "after")))
    writer.close()
    assert sorted(row.input for row in store.traces.labelled()) == ["after", "before", "handled", "meanwhile"]
    assert (writer.problem, counted) == (None, [0, 3])
    store.close()


def test_a_row_that_the_store_refuses_costs_itself(store: TraceStore) -> None:
    """Of rows written together one that breaks a rule of the database is lost, counted and told, and no other."""
    with store.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER rule BEFORE INSERT ON tracer_traces WHEN NEW.input LIKE '%bad%'"
            " BEGIN SELECT RAISE(ABORT, 'against the rule'); END"
        )
    writer = TraceWriter(store)
    for text in ("a", "bad", "b"):
        writer.put(trace("t", text))
    assert asyncio.run(writer.commit(trace("t", "c")))
    assert not asyncio.run(writer.commit(trace("t", "bad too")))
    assert "against the rule" in (writer.problem or "")
    writer.close()
    assert sorted(row.input for row in store.traces.labelled()) == ["a", "b", "c"]
    assert (writer.lost, writer.delayed) == (2, 0)


def test_what_waits_is_bounded_and_lost_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store stands still a long text takes the room of several rows; who finds none is lost, at last all."""
    monkeypatch.setattr(writing, "_RETRY_S", 0.05)
    store = open_store(tmp_path / "traces.db", "t", busy_timeout_s=0.01)
    other = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = TraceWriter(store, capacity=5)
    assert not asyncio.run(writer.commit(trace("t", "long" * 750)))
    writer.put(trace("t", "short"))
    writer.put(trace("t", "one too many"))
    assert (writer.waiting, writer.lost) == (2, 1)
    writer.close(0.2)
    assert writer.lost == 3
    other.execute("ROLLBACK")
    other.close()
    assert store.tallies.counts().total.rows == 0
    store.close()
