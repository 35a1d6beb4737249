"""Read all data of a task page by page, and merge it into another store."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Table, select

from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.rows import Row
from tracer_serve.storage.traces.schema import audit_log, imports, refits, settings, tallies, traces
from tracer_serve.storage.traces.sql import StorePart, between, fetch, insert, insert_into
from tracer_serve.storage.traces.tallies import GONE
from tracer_serve.storage.traces.tally_delta import TallyDelta

# without leases, which processes hold, and without tallies, which are counted again except those of deleted rows
_OTHER_TABLES = (settings, refits, imports, audit_log)
_TRANSIENT_KEYS = ("refit.progress", "schedule.request")


class Transfer(StorePart):
    """Read all rows of a task, and merge rows of another store."""

    def pages(self, until_id: str | None) -> Iterator[list[Row]]:
        """Return all rows up to an id, in the order of their ids."""
        return self._pages(None, until_id)

    def merge(self, page: Sequence[Row]) -> tuple[int, int]:
        """Insert missing rows and missing labels; on disk on return.

        An existing row keeps its label, unless it has none, or only the other label is a person's.

        Parameters
        ----------
        page : consecutive rows of another store, in the order of their ids, without gaps

        Returns
        -------
        How many rows were new, and how many received a label.
        """
        with self._db.write() as connection:
            query = between(self._task, None, page[-1].id).where(traces.c.id >= page[0].id)
            here = {row.id: row for row in fetch(connection, query)}
            new = [row for row in page if row.id not in here]
            labelled = [row for row in page if row.id in here and _knows_more(row, here[row.id])]
            if new:
                insert(connection, new)
            for row in labelled:
                where = (traces.c.task == self._task, traces.c.id == row.id)
                connection.execute(traces.update().where(*where).values(row._asdict()))
            before = [here[row.id] for row in labelled]
            TallyDelta().add(new).add(before, -1).add(labelled).write(connection)
            return len(new), len(labelled)

    def other_tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return a task's rows of the other tables, by table: values, refits, imports, counts of deleted rows."""
        queries = {table.name: self._of(table) for table in _OTHER_TABLES}
        queries[tallies.name] = self._of(tallies).where(tallies.c.writer == GONE)
        with self._db.read() as connection:
            return {
                name: [dict(row) for row in connection.execute(query).mappings()] for name, query in queries.items()
            }

    def write_other_tables(self, given: dict[str, list[dict[str, Any]]]) -> None:
        """Write what `other_tables` returned; existing rows with the same key are replaced."""
        with self._db.write() as connection:
            for table in (*_OTHER_TABLES, tallies):
                for row in given[table.name]:
                    if row.get("key") not in _TRANSIENT_KEYS:
                        statement = insert_into(connection, table).values(row)
                        key = list(table.primary_key.columns)
                        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=row))

    def _of(self, table: Table) -> Any:
        return select(table).where(table.c.task == self._task)


def tasks_in(database: Database) -> list[str]:
    """Return the names of the tasks in a database, sorted."""
    with database.read() as connection:
        found = {
            name
            for table in (tallies, *_OTHER_TABLES)
            for name in connection.execute(select(table.c.task).distinct()).scalars()
        }
    return sorted(found)


def _knows_more(given: Row, here: Row) -> bool:
    if given.teacher_label is None or given == here:
        return False
    return here.teacher_label is None or (given.label_source == "human" and here.label_source != "human")
