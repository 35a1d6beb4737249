"""Rows into the table, in the caller's transaction."""

import importlib
from collections.abc import Sequence

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from tracer_serve.traces.rows import Row
from tracer_serve.traces.tables import traces

COLUMNS = ", ".join(Row._fields)
_LOOKUP = 500  # ids per query: SQLite's oldest limit of variables is 999
_BULK = 64  # rows from which Postgres is told by COPY: it parses no statement per row


def insert(connection: Connection, rows: Sequence[Row], table: str = traces.name) -> None:
    """Write rows, not their counts; an id that is there raises the driver's integrity error."""
    postgres = connection.dialect.name == "postgresql"
    if postgres and len(rows) >= _BULK:
        _copy(connection, rows, table)
        return
    marks = ", ".join(["%s" if postgres else "?"] * len(Row._fields))
    # straight to the driver: compiling a statement per call costs more than SQLite's own insert of one row
    connection.exec_driver_sql(f"INSERT INTO {table} ({COLUMNS}) VALUES ({marks})", list(rows))  # noqa: S608


def _copy(connection: Connection, rows: Sequence[Row], table: str) -> None:
    driver = importlib.import_module("psycopg")
    cursor = connection.connection.cursor()
    try:
        with cursor.copy(f"COPY {table} ({COLUMNS}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    except driver.Error as error:  # as SQLAlchemy would have raised it, had it known this kind of statement
        if lost := bool(connection.connection.driver_connection.closed):  # type: ignore[union-attr]  # psycopg's
            connection.invalidate()
        raise DBAPIError.instance("COPY", None, error, driver.Error, connection_invalidated=lost) from error
    finally:
        cursor.close()


def missing(connection: Connection, task: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose ids are not there yet, each once."""
    first = {row.id: row for row in reversed(rows)}
    ids, known = list(first), set[str]()
    for start in range(0, len(ids), _LOOKUP):
        some = ids[start : start + _LOOKUP]
        query = select(traces.c.id).where(traces.c.task == task, traces.c.id.in_(some))
        known.update(connection.execute(query).scalars())
    return [row for row in first.values() if row.id not in known]
