"""Everything of a task from one store into another, a page at a time; what is there already is compared only."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Table, select

from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.rows import Row
from tracer_serve.storage.traces.schema import audit_log, imports, refits, settings, tallies, traces
from tracer_serve.storage.traces.sql import StorePart, between, fetch, insert, insert_into, pages
from tracer_serve.storage.traces.tallies import GONE
from tracer_serve.storage.traces.tally_delta import Change

_BESIDE = (
    settings,
    refits,
    imports,
    audit_log,
)  # leases are held by processes, tallies are counted anew but for rows that went
_PASSING = ("refit.progress", "schedule.request")


class Transfer(StorePart):
    """Reads all of a task's rows, and writes those of another store."""

    def pages(self, until_id: str | None) -> Iterator[list[Row]]:
        """Return all rows up to an id, in the order of their ids."""
        return pages(self._db, self._task, None, until_id)

    def absorb(self, page: Sequence[Row]) -> tuple[int, int]:
        """Write the rows that are not here, and the labels that are not; on disk on return.

        A row that is here keeps its label, unless it has none, or the other one is a person's and this is not.

        Parameters
        ----------
        page : all rows that another store has between its first and its last, in the order of their ids

        Returns
        -------
        How many were new, and how many got a label.
        """
        with self._db.write() as connection:
            query = between(self._task, None, page[-1].id).where(traces.c.id >= page[0].id)
            here = {row.id: row for row in fetch(connection, query)}
            new = [row for row in page if row.id not in here]
            told = [row for row in page if row.id in here and _knows_more(row, here[row.id])]
            if new:
                insert(connection, new)
            for row in told:
                where = (traces.c.task == self._task, traces.c.id == row.id)
                connection.execute(traces.update().where(*where).values(row._asdict()))
            Change().add(new).add([here[row.id] for row in told], -1).add(told).write(connection)
            return len(new), len(told)

    def beside(self) -> dict[str, list[dict[str, Any]]]:
        """Return what a task has beside its traces, by table: values, history, notes of imports, counts of old rows."""
        queries = {table.name: self._of(table) for table in _BESIDE}
        queries[tallies.name] = self._of(tallies).where(tallies.c.writer == GONE)
        with self._db.read() as connection:
            return {
                name: [dict(row) for row in connection.execute(query).mappings()] for name, query in queries.items()
            }

    def absorb_beside(self, given: dict[str, list[dict[str, Any]]]) -> None:
        """Write what `beside` returned; it replaces what is here under the same key."""
        with self._db.write() as connection:
            for table in (*_BESIDE, tallies):
                for row in given[table.name]:
                    if row.get("key") not in _PASSING:
                        statement = insert_into(connection, table).values(row)
                        key = list(table.primary_key.columns)
                        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=row))

    def _of(self, table: Table) -> Any:
        return select(table).where(table.c.task == self._task)


def tasks_in(database: Database) -> list[str]:
    """Return the tasks that a database has anything of, in their order."""
    with database.read() as connection:
        found = {
            name
            for table in (tallies, *_BESIDE)
            for name in connection.execute(select(table.c.task).distinct()).scalars()
        }
    return sorted(found)


def _knows_more(given: Row, here: Row) -> bool:
    if given.teacher_label is None or given == here:
        return False
    return here.teacher_label is None or (given.label_source == "human" and here.label_source != "human")
