"""Retention: delete old rows without a label, and keep their counts.

These are handled rows without an audit, and rows for which the teacher failed: they neither train nor calibrate.
Labelled rows are never deleted, so neither a certificate nor the monitor loses a row.

Ids sort by time, so old rows are found by the primary key. The last id is stored with each batch, and rows before it
are not read again: a nightly run costs as much as a day's traffic. The counts of deleted rows move to cells of a
writer of their own (`tallies.GONE`), so all sums stay the same.
"""

from collections.abc import Iterator
from typing import cast

from sqlalchemy import ColumnElement, func, select

from tracer_serve.storage.traces.key_values import read_value, write_value
from tracer_serve.storage.traces.rows import Row
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.sql import StorePart
from tracer_serve.storage.traces.tallies import GONE
from tracer_serve.storage.traces.tally_delta import COUNTED, TallyDelta

PRUNED = "traces.pruned"
"""Key of the value: all rows up to this id are labelled, the others are deleted."""


class Retention(StorePart):
    """Deletes unlabelled rows by age."""

    page_rows = 500  # writers wait for a few milliseconds

    def prune(self, before_id: str) -> Iterator[int]:
        """Delete the unlabelled rows with smaller ids, in batches that are each committed; may be stopped at any time.

        Yields
        ------
        How many rows a batch deleted. Pause before the next one: SQLite's writers take turns by polling.
        """
        after = self.pruned_until()
        while after < before_id:
            after, removed = self._prune(after, before_id)
            yield removed

    def prunable(self, before_id: str) -> int:
        """Return how many rows `prune` would delete; scans them."""
        query = select(func.count()).select_from(traces).where(*self._old(self.pruned_until(), before_id))
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def pruned_until(self) -> str:
        """Return the id up to which unlabelled rows were deleted, empty before the first run."""
        with self._db.read() as connection:
            found: str | None = read_value(connection, self._task, PRUNED)
        return found or ""

    def _prune(self, after: str, before_id: str) -> tuple[str, int]:
        """Delete one batch; return its last id, and how many rows were deleted."""
        ids = select(traces.c.id).where(traces.c.task == self._task, traces.c.id > after, traces.c.id < before_id)
        with self._db.write() as connection:
            page = ids.order_by(traces.c.id).offset(self.page_rows - 1).limit(1)
            until: str = connection.execute(page).scalar_one_or_none() or before_id
            # the condition is checked again for each row, so a row that is labelled meanwhile is kept
            delete = traces.delete().where(*self._old(after, until)).returning(*(traces.c[name] for name in COUNTED))
            gone = cast("list[Row]", connection.execute(delete).all())  # the columns that counts depend on
            TallyDelta().add(gone, -1).write(connection)
            TallyDelta().add(gone).write(connection, GONE)
            write_value(connection, self._task, PRUNED, until)
        return until, len(gone)

    def _old(self, after: str, until: str) -> tuple[ColumnElement[bool], ...]:
        return (
            traces.c.task == self._task,
            traces.c.id > after,
            traces.c.id <= until,
            traces.c.teacher_label.is_(None),
        )
