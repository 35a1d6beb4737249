"""A newer release changes the schema while processes of the older one write and read: none of them notices."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.storage.traces.make import process
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.migrations import MIGRATIONS, Migration, migrate
from tracer_serve.storage.traces.schema import applied

pytestmark = pytest.mark.slow

# what a service of the older release does all the time: rows, labels, reads, a lease; it says which rows are on disk
_OLDER = """
import sys
from tests.storage.traces.make import handled, trace
from tracer_serve.storage.traces import open_store
store = open_store(sys.argv[1], sys.argv[2])
while True:
    rows = [trace(store.task, "text"), *(handled(store.task, "text", metadata={"user": "u"}) for _ in range(99))]
    store.traces.add(rows)
    store.traces.set_label(rows[1].id, "other", "human")
    assert store.traces.get(rows[0].id) is not None and store.traces.labelled_since(rows[0].id) >= 1
    store.values.update("n", lambda n: (n or 0) + 1)
    store.leases.acquire("lease", "older", 60.0)
    store.tallies.counts(), store.traces.columns(rows[0].id), store.traces.recent(5)
    print(*(row.id for row in rows), flush=True)
"""
_STEPS = (
    ("a column", "ALTER TABLE tracer_traces ADD COLUMN later{n} TEXT DEFAULT 'x'"),
    ("an index", "CREATE INDEX later_index{n} ON tracer_traces (task, decision)"),
    ("a table", "CREATE TABLE later_table{n} (task TEXT)"),
    ("a column of the counts", "ALTER TABLE tracer_tallies ADD COLUMN later{n} BIGINT DEFAULT 0"),
)


@contextmanager
def newer(location: Path | str, n: int) -> Iterator[tuple[Migration, ...]]:
    """Yield the steps of a newer release; they are undone afterwards, as the tests share a server."""
    steps = tuple(Migration(9100 + i, name, (sql.format(n=n),)) for i, (name, sql) in enumerate(_STEPS))
    yield steps
    database = Database(location)
    with database.write() as connection:
        connection.execute(applied.delete().where(applied.c.number >= 9100))
        connection.exec_driver_sql(f"DROP INDEX later_index{n}")
        connection.exec_driver_sql(f"DROP TABLE later_table{n}")
        for table in ("tracer_traces", "tracer_tallies"):
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN later{n}")
    database.close()


class Older:
    """A process of the older release; what it says is read all the time, so that it never waits for us."""

    def __init__(self, location: Path | str, task: str) -> None:
        self.process, self.said = process(_OLDER, location, task), list[str]()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)

    def goes_on(self, rounds: int = 3) -> None:
        """Wait until it has done so many more rounds."""
        until, end = len(self.said) + rounds, time.monotonic() + 30.0
        while len(self.said) < until:
            assert self.process.poll() is None, self.complaint()
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill(self) -> None:
        """End it, in the middle of something."""
        self.process.kill()
        self.complaint()

    def complaint(self) -> str:
        """Return what it said of an error, once it has ended."""
        self._reading.join()
        return self.process.communicate()[1]


def test_the_older_release_works_on_through_every_step(location: Path | str, store: TraceStore) -> None:
    """Two processes of the older release write while each kind of step is made, one is started after it: no error."""
    running = [Older(location, store.task) for _ in range(2)]
    try:
        for older in running:
            older.goes_on()
        with newer(location, n=len(store.task) + 7) as steps:
            database = Database(location)
            for upto in range(1, len(steps) + 1):
                migrate(database, (*MIGRATIONS, *steps[:upto]))
                for older in running:
                    older.goes_on()
            database.close()
            running.append(Older(location, store.task))
            running[-1].goes_on()
            for older in running:
                older.kill()
    finally:
        for older in running:
            older.process.kill()
    there = {row.id for row in store.traces.recent(1_000_000)}
    for older in running:
        assert {trace_id for line in older.said if line.endswith("\n") for trace_id in line.split()} <= there
    counts = store.tallies.counts()
    assert counts.total.rows == len(there)
    assert counts.by_decision["deferred"] - len(running) <= counts.by_source["human"] <= counts.by_decision["deferred"]
