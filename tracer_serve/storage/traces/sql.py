"""Statements that several parts of the store share: select, insert, page through rows."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, CursorResult, Executable, Select, Table, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.rows import Row
from tracer_serve.storage.traces.schema import traces


def between(task: str, after_id: str | None, until_id: str | None) -> Select[Any]:
    """Select the rows of a task with ``after_id < id <= until_id``, in the order of their ids."""
    query = select(traces).where(traces.c.task == task).order_by(traces.c.id)
    if after_id is not None:
        query = query.where(traces.c.id > after_id)
    return query if until_id is None else query.where(traces.c.id <= until_id)


def fetch(connection: Connection, query: Select[Any]) -> list[Row]:
    """Return the rows that a query of all columns finds."""
    return list(map(Row._make, connection.execute(query).all()))


class StorePart:
    """Base of the parts of a task's store.

    Parameters
    ----------
    database : may also contain other tasks' rows
    task : only this task's rows are read and written

    Attributes
    ----------
    page_rows : rows that one query reads
    """

    page_rows = 5_000

    def __init__(self, database: Database, task: str) -> None:
        self._db, self._task = database, task

    def _pages(self, after_id: str | None, until_id: str | None, *where: ColumnElement[bool]) -> Iterator[list[Row]]:
        """Yield the rows page by page, in the order of their ids; no lock is held between pages."""
        while True:
            with self._db.read() as connection:
                query = between(self._task, after_id, until_id).where(*where)
                page = fetch(connection, query.limit(self.page_rows))
            if page:
                yield page
            if len(page) < self.page_rows:
                return
            after_id = page[-1].id


def insert_into(connection: Connection, table: Table) -> sqlite.Insert:
    """Return the dialect's INSERT with ON CONFLICT; the two dialects' classes have the same methods."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415  # loaded already if it is used

        return cast("sqlite.Insert", postgresql.insert(table))
    return sqlite.insert(table)


def touched(connection: Connection, statement: Executable) -> int:
    """Execute a statement and return the number of rows written; drivers count inserted rows on request only."""
    result = connection.execute(statement, execution_options={"preserve_rowcount": True})
    return cast("CursorResult[Any]", result).rowcount


COLUMNS = ", ".join(Row._fields)
_LOOKUP = 500  # ids per query: SQLite's oldest limit of variables is 999
_BULK = 64  # rows from which on Postgres uses COPY, which parses no statement per row


def insert(connection: Connection, rows: Sequence[Row], table: str = traces.name) -> None:
    """Insert rows without their counts; an existing id raises the driver's integrity error."""
    postgres = connection.dialect.name == "postgresql"
    if postgres and len(rows) >= _BULK:
        _copy(connection, rows, table)
        return
    marks = ", ".join(["%s" if postgres else "?"] * len(Row._fields))
    # directly through the driver: compiling the statement would cost more than SQLite's insert of one row
    connection.exec_driver_sql(f"INSERT INTO {table} ({COLUMNS}) VALUES ({marks})", list(rows))  # noqa: S608


def _copy(connection: Connection, rows: Sequence[Row], table: str) -> None:
    driver = importlib.import_module("psycopg")
    cursor = connection.connection.cursor()
    try:
        with cursor.copy(f"COPY {table} ({COLUMNS}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    except driver.Error as error:  # as SQLAlchemy raises errors of other statements
        if lost := bool(connection.connection.driver_connection.closed):  # type: ignore[union-attr]  # psycopg's
            connection.invalidate()
        raise DBAPIError.instance("COPY", None, error, driver.Error, connection_invalidated=lost) from error
    finally:
        cursor.close()


def missing(connection: Connection, task: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose ids are not in the table, each once."""
    first = {row.id: row for row in reversed(rows)}
    ids, known = list(first), set[str]()
    for start in range(0, len(ids), _LOOKUP):
        some = ids[start : start + _LOOKUP]
        query = select(traces.c.id).where(traces.c.task == task, traces.c.id.in_(some))
        known.update(connection.execute(query).scalars())
    return [row for row in first.values() if row.id not in known]
