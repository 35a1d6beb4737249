"""Selections of rows."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select

from tracer_serve.traces.database import Database
from tracer_serve.traces.rows import Row
from tracer_serve.traces.tables import traces

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
