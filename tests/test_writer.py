"""Rows and labels to the store from a thread of their own: what is told as lost is what is not there."""

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tracer_serve import writer as writing
from tracer_serve.records import Answer, Trace
from tracer_serve.traces import TraceStore, new_id, open_store
from tracer_serve.writer import TraceWriter


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    store = open_store(tmp_path / "traces.db", "t")
    yield store
    store.close()


def test_a_label_that_fails_costs_no_row(store: TraceStore) -> None:
    """Rows are written before the labels that come with them: whoever waits is told so, and one label is lost."""
    refused, row = new_id(), Trace(id=new_id(), ts=datetime.now(UTC), task="t", input="a", teacher_label="x")
    store.add([Trace(id=refused, ts=datetime.now(UTC), task="t", input="b", decision="handled")])
    with store._db.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE UPDATE ON tracer_traces BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    writer = TraceWriter(store)
    writer.label(refused, "audit", Answer("x"), "f")

    assert asyncio.run(writer.commit(row))
    writer.close()
    assert [trace.input for trace in store.labelled()] == ["a"]
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
    assert [trace.input for trace in store.labelled()] == ["a"]
    assert (writer.lost, writer.problem) == (0, None)
