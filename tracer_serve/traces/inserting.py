"""Rows into the table, in the caller's transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from tracer_serve.traces.rows import Row
from tracer_serve.traces.tables import traces

COLUMNS = ", ".join(Row._fields)
_LOOKUP = 500  # ids per query: SQLite's oldest limit of variables is 999


def insert(connection: Connection, rows: Sequence[Row], table: str = traces.name) -> None:
    """Write rows, not their counts; an id that is there raises the driver's integrity error."""
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    marks = ", ".join([mark] * len(Row._fields))
    # straight to the driver: compiling a statement per call costs more than SQLite's own insert of one row
    connection.exec_driver_sql(f"INSERT INTO {table} ({COLUMNS}) VALUES ({marks})", list(rows))  # noqa: S608


def missing(connection: Connection, task: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose ids are not there yet, each once."""
    first = {row.id: row for row in reversed(rows)}
    ids, known = list(first), set[str]()
    for start in range(0, len(ids), _LOOKUP):
        some = ids[start : start + _LOOKUP]
        query = select(traces.c.id).where(traces.c.task == task, traces.c.id.in_(some))
        known.update(connection.execute(query).scalars())
    return [row for row in first.values() if row.id not in known]
