"""Rows and labels to the store from a thread of their own: what is told as lost is what is not there."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.storage.traces import postgres
from tests.storage.traces.make import trace
from tests.support.waiting import until
from tracer_serve.infra.caller import CALLER
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


def test_a_store_that_hangs_holds_no_answer(store: TraceStore, tmp_path: Path) -> None:
    """Whoever waits for a row is told in time that it is not safe yet, and it is written when the store goes on."""
    hanging = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    hanging.execute("BEGIN IMMEDIATE")
    writer = TraceWriter(store, patience_s=0.2)
    row = Trace(id=new_id(), ts=datetime.now(UTC), task="t", input="a", teacher_label="x")
    assert not asyncio.run(writer.commit(row))
    assert "has not answered" in (writer.problem or "")
    hanging.execute("ROLLBACK")
    hanging.close()
    writer.close()
    assert [trace.input for trace in store.traces.labelled()] == ["a"]
    assert (writer.lost, writer.problem) == (0, None)


def test_a_database_that_restarts_costs_no_row(postgres_url: str) -> None:
    """While it is away nobody waits for it; afterwards each row and its label are there, in one copy."""
    task, counted = f"restart-{new_id()}", [0, 0]
    store = open_store(postgres_url, task)

    def count(place: int) -> Callable[[int], None]:
        return lambda n: counted.__setitem__(place, counted[place] + n)

    writer = TraceWriter(store, count(0), count(1), retry_s=0.05)
    handled = Trace(id=new_id(), ts=datetime.now(UTC), task=task, input="handled", decision="handled")
    assert asyncio.run(writer.commit(trace(task, "before")))
    with postgres.stopped(postgres_url):
        writer.put(handled)
        writer.label(handled.id, "audit", Answer("x"), "f")
        assert not asyncio.run(writer.commit(trace(task, "meanwhile")))
        assert "cannot be reached" in (writer.problem or "")
        until(lambda: writer.delayed == writer.waiting == 3)
    until(lambda: writer.waiting == 0)
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


def test_what_waits_is_bounded_and_lost_at_the_end(tmp_path: Path) -> None:
    """While the store stands still a long text takes the room of several rows; who finds none is lost, at last all."""
    store = open_store(tmp_path / "traces.db", "t", busy_timeout_s=0.01)
    other = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = TraceWriter(store, capacity=5, retry_s=0.05)
    assert not asyncio.run(writer.commit(trace("t", "long" * 750)))
    writer.put(trace("t", "short"))
    writer.put(trace("t", "one too many"))
    assert (writer.waiting, writer.lost) == (2, 1)
    writer.close(0.2)
    until(lambda: writer.lost == 3)
    other.execute("ROLLBACK")
    other.close()
    assert store.tallies.counts().total.rows == 0
    store.close()


def test_rows_that_a_client_was_told_of_find_room_when_the_queue_is_full(tmp_path: Path) -> None:
    """While the store is away handled rows fill the queue but for its reserve, and the loss stays on record."""
    store = open_store(tmp_path / "traces.db", "t", busy_timeout_s=0.01)
    other = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = TraceWriter(store, capacity=100, retry_s=0.05)
    for i in range(200):
        writer.put(trace("t", f"handled {i}"))
    assert (writer.waiting, writer.lost) == (90, 110)
    paid = [trace("t", f"paid {i}") for i in range(10)]
    for row in paid:
        assert not asyncio.run(writer.commit(row))
    other.execute("ROLLBACK")
    other.close()
    until(lambda: writer.waiting == 0)
    assert all(store.traces.get(row.id) for row in paid)
    assert (writer.lost, writer.problem) == (110, None)
    assert "full" in (writer.last_loss or "")
    writer.close()
    store.close()


async def _fill(writer: TraceWriter, caller: str, rows: int) -> None:
    CALLER.set(caller)
    for i in range(rows):
        await writer.room()
        writer.put(trace("t", f"{caller} {i}"))


@pytest.mark.anyio
async def test_a_list_waits_for_the_store_and_another_caller_does_not(store: TraceStore) -> None:
    """A caller with more rows than its share waits until some are written; nothing is lost, and others have room."""
    go, add = threading.Event(), store.traces.add

    def slow(traces: Iterable[Trace]) -> int:
        assert go.wait(10)
        return add(traces)

    store.traces.add = slow  # type: ignore[method-assign]
    writer = TraceWriter(store, capacity=500)
    greedy = asyncio.create_task(_fill(writer, "greedy", 1_000))
    await asyncio.sleep(0.3)
    assert not greedy.done()
    assert 60 <= writer.waiting <= 70  # two thirds of a fifth of the capacity
    await asyncio.wait_for(_fill(writer, "other", 10), 1)
    go.set()
    await greedy
    writer.close()
    assert (writer.lost, store.tallies.counts().total.rows) == (0, 1_010)


def test_a_row_that_a_request_waits_for_is_written_first(store: TraceStore) -> None:
    """A committed row does not wait for thousands of rows that were queued before it."""
    written, add, go = list[str](), store.traces.add, threading.Event()

    def note(traces: Iterable[Trace]) -> int:
        assert go.wait(10)
        made = list(traces)
        written.extend(str(row.input) for row in made)
        return add(made)

    store.traces.add = note  # type: ignore[method-assign]
    writer = TraceWriter(store, linger_s=0.05)
    for i in range(5_000):
        writer.put(trace("t", f"handled {i}"))

    async def commit() -> bool:
        asyncio.get_running_loop().call_later(0.05, go.set)
        return await writer.commit(trace("t", "paid"))

    assert asyncio.run(commit())
    assert written.index("paid") <= 1_000
    writer.close()
    assert len(written) == 5_001
