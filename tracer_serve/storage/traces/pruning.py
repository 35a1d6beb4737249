"""Retention: rows that nobody labelled go after a time, and what they counted stays.

They are handled rows that no audit and no person looked at, and those where the teacher failed: they train nothing and
calibrate nothing. Labelled rows never go, so neither a certificate nor the monitor loses a row by this.

Ids sort by time, so a walk over the primary key finds what is old. How far it came is kept with each batch, and what
was walked over once holds labelled rows only, which nobody looks at again: a nightly run costs what the day brought.
The counts of rows that went move to cells of their own writer (`tally.GONE`): all sums stay, and the rest of the cells
goes on counting the rows that are there.
"""

from collections.abc import Iterator
from typing import cast

from sqlalchemy import ColumnElement, func, select

from tracer_serve.storage.traces.key_values import read_value, write_value
from tracer_serve.storage.traces.rows import Row
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.sql import StorePart
from tracer_serve.storage.traces.tallies import GONE
from tracer_serve.storage.traces.tally_delta import COUNTED, Change

PRUNED = "traces.pruned"
"""The value in the store: rows up to this id are labelled, the others went."""

_PAGE = 500  # rows walked over in a transaction: writers wait for a few milliseconds


class Retention(StorePart):
    """Deletes unlabelled rows by age."""

    def prune(self, before_id: str) -> Iterator[int]:
        """Remove the rows without a label whose ids are less; on disk, batch by batch, and well interrupted anywhere.

        Yields
        ------
        How many rows a batch removed. Pause before asking for the next one: SQLite's writers take turns by polling.
        """
        after = self.pruned_until()
        while after < before_id:
            after, removed = self._prune(after, before_id)
            yield removed

    def prunable(self, before_id: str) -> int:
        """Return how many rows `prune` would remove; counts them, which takes its time."""
        query = select(func.count()).select_from(traces).where(*self._old(self.pruned_until(), before_id))
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def pruned_until(self) -> str:
        """Return the id up to which rows without a label went, empty where none ever did."""
        with self._db.read() as connection:
            found: str | None = read_value(connection, self._task, PRUNED)
        return found or ""

    def _prune(self, after: str, before_id: str) -> tuple[str, int]:
        """Remove one batch; return how far it came, and how many rows went."""
        ids = select(traces.c.id).where(traces.c.task == self._task, traces.c.id > after, traces.c.id < before_id)
        with self._db.write() as connection:
            page = ids.order_by(traces.c.id).offset(_PAGE - 1).limit(1)
            until: str = connection.execute(page).scalar_one_or_none() or before_id
            # asked of each row as it is deleted: one that a person labels meanwhile stays
            delete = traces.delete().where(*self._old(after, until)).returning(*(traces.c[name] for name in COUNTED))
            gone = cast("list[Row]", connection.execute(delete).all())  # as far as counts look at one
            Change().add(gone, -1).write(connection)
            Change().add(gone).write(connection, GONE)
            write_value(connection, self._task, PRUNED, until)
        return until, len(gone)

    def _old(self, after: str, until: str) -> tuple[ColumnElement[bool], ...]:
        return (
            traces.c.task == self._task,
            traces.c.id > after,
            traces.c.id <= until,
            traces.c.teacher_label.is_(None),
        )
