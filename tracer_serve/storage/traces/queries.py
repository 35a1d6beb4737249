"""Traces as they are asked for: one, a stream, columns, the newest."""

from collections.abc import Iterator

from sqlalchemy import func, select

from tracer_serve.storage.traces.codec import pack
from tracer_serve.storage.traces.columnar import Columns, gather
from tracer_serve.storage.traces.recency import Newest, Recency
from tracer_serve.storage.traces.rows import from_row
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.sql import fetch, pages
from tracer_serve.types import Trace


class Queries(Recency):
    """The part of the store that gives rows back."""

    def get(self, trace_id: str) -> Trace | None:
        """Return one trace, None where there is no such id."""
        with self._db.read() as connection:
            found = fetch(connection, select(traces).where(traces.c.task == self._task, traces.c.id == pack(trace_id)))
        return from_row(found[0]) if found else None

    def labelled(self, after_id: str | None = None, until_id: str | None = None) -> Iterator[Trace]:
        """Stream the labelled traces in the order of their ids, a page at a time: no lock, flat memory.

        Parameters
        ----------
        after_id, until_id : bounds, the first exclusive, the second inclusive; `latest_id` makes a snapshot
        """
        for page in pages(self._db, self._task, after_id, until_id, traces.c.teacher_label.is_not(None)):
            yield from map(from_row, page)

    def columns(
        self,
        after_id: str | None = None,
        until_id: str | None = None,
        *,
        labelled_only: bool = True,
        newest: Newest | None = None,
    ) -> Columns:
        """Return many traces as columns: what a refit needs of a million rows without a million objects.

        Parameters
        ----------
        after_id, until_id : bounds as in `labelled`
        labelled_only : leave out handled rows that were never audited
        newest : leave out the others
        """
        with self._db.read() as connection:
            return gather(connection, self._task, after_id, until_id, labelled_only=labelled_only, newest=newest)

    def recent(self, n: int = 50, *, before_id: str | None = None) -> list[Trace]:
        """Return the newest n traces, newest first; `before_id` is where the last page ended."""
        query = select(traces).where(traces.c.task == self._task)
        if before_id is not None:
            query = query.where(traces.c.id < before_id)
        with self._db.read() as connection:
            return [from_row(row) for row in fetch(connection, query.order_by(traces.c.id.desc()).limit(n))]

    def latest_id(self) -> str | None:
        """Return the greatest id, None in an empty store: what `until_id` of a snapshot should be."""
        with self._db.read() as connection:
            query = select(traces.c.id).where(traces.c.task == self._task).order_by(traces.c.id.desc()).limit(1)
            found: str | None = connection.execute(query).scalar_one_or_none()
            return found

    def labelled_since(self, trace_id: str | None) -> int:
        """Return how many labelled traces have a greater id; all of them for None."""
        if trace_id is None:
            return self.counts().total.labelled
        query = select(func.count()).select_from(traces).where(traces.c.task == self._task, traces.c.id > trace_id)
        with self._db.read() as connection:
            return int(connection.execute(query.where(traces.c.teacher_label.is_not(None))).scalar_one())
