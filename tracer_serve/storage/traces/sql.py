"""Selections of rows."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, CursorResult, Executable, Select, Table, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.rows import Row
from tracer_serve.storage.traces.schema import traces

_PAGE = 5_000


def between(task: str, after_id: str | None, until_id: str | None) -> Select[Any]:
    """Select the rows of a task with ``after_id < id <= until_id``, in the order of their ids."""
    query = select(traces).where(traces.c.task == task).order_by(traces.c.id)
    if after_id is not None:
        query = query.where(traces.c.id > after_id)
    return query if until_id is None else query.where(traces.c.id <= until_id)


def fetch(connection: Connection, query: Select[Any]) -> list[Row]:
    """Return the rows that a selection of whole rows finds."""
    return list(map(Row._make, connection.execute(query).all()))


def pages(
    database: Database, task: str, after_id: str | None, until_id: str | None, *where: ColumnElement[bool]
) -> Iterator[list[Row]]:
    """Yield such rows a page at a time, in the order of their ids: no lock between two pages, and flat memory."""
    while True:
        with database.read() as connection:
            page = fetch(connection, between(task, after_id, until_id).where(*where).limit(_PAGE))
        if page:
            yield page
        if len(page) < _PAGE:
            return
        after_id = page[-1].id


class StorePart:
    """One concern of the store of one task.

    Parameters
    ----------
    database : may hold other tasks' rows as well
    task : only this task's rows are read and written
    """

    def __init__(self, database: Database, task: str) -> None:
        self._db, self._task = database, task


def insert_into(connection: Connection, table: Table) -> sqlite.Insert:
    """Return the dialect's INSERT, which knows ON CONFLICT; the two dialects' classes have the same methods."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415  # loaded already, where it is spoken

        return cast("sqlite.Insert", postgresql.insert(table))
    return sqlite.insert(table)


def touched(connection: Connection, statement: Executable) -> int:
    """Execute, and return how many rows were written; drivers count an INSERT's only when asked."""
    result = connection.execute(statement, execution_options={"preserve_rowcount": True})
    return cast("CursorResult[Any]", result).rowcount


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
