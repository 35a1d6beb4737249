"""Rows into the table and into the counts, in the caller's transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from tracer_serve.traces.rows import Row
from tracer_serve.traces.tables import traces
from tracer_serve.traces.tally import count

_COLUMNS = ", ".join(Row._fields)
_LOOKUP = 500  # ids per query: SQLite's oldest limit of variables is 999


def insert_new(connection: Connection, rows: Sequence[Row]) -> None:
    """Write rows whose ids are new; an id that is there raises the driver's integrity error."""
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    marks = ", ".join([mark] * len(Row._fields))
    # straight to the driver: compiling a statement per call costs more than SQLite's own insert of one row
    connection.exec_driver_sql(f"INSERT INTO {traces.name} ({_COLUMNS}) VALUES ({marks})", list(rows))  # noqa: S608
    count(connection, rows)


def insert_missing(connection: Connection, task: str, rows: Sequence[Row]) -> set[str]:
    """Write the rows whose ids are not there yet; return the ids that are."""
    first = {row.id: row for row in reversed(rows)}
    ids, known = list(first), set[str]()
    for start in range(0, len(ids), _LOOKUP):
        some = ids[start : start + _LOOKUP]
        query = select(traces.c.id).where(traces.c.task == task, traces.c.id.in_(some))
        known.update(connection.execute(query).scalars())
    missing = [row for row in first.values() if row.id not in known]
    if missing:
        insert_new(connection, missing)
    return known
