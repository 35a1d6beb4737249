"""What SQLite and Postgres have in common beyond standard SQL."""

from typing import Any, cast

from sqlalchemy import Connection, CursorResult, Executable, Table
from sqlalchemy.dialects import sqlite


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
