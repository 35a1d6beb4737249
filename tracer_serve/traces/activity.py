"""Counts and aggregates, for refits, metrics and the dashboard; read from the tallies, whatever the number of rows."""

from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import BigInteger, ColumnElement, Connection, func, literal_column, select

from tracer_serve.traces.part import Part
from tracer_serve.traces.rows import HOUR_US, to_us
from tracer_serve.traces.tables import tallies
from tracer_serve.traces.tally import GONE, Counts, Tally, label_counts, sums

_HOURS = {"hour": 1, "day": 24}


class Activity(Part):
    """The part of the store that counts."""

    def counts(self) -> Counts:
        """Return how many rows there are or were before retention took them, by decision, label source and label."""
        with self._db.read() as connection:
            everything = sums(connection, tallies.c.task, self._task)
            return Counts(
                total=everything[0][1] if everything else Tally(),
                by_decision=self._by(connection, "decision"),
                by_source=self._by(connection, "source"),
                by_label=label_counts(connection, self._task),
            )

    def gone(self) -> int:
        """Return how many of the rows that `counts` tells retention has removed."""
        with self._db.read() as connection:
            found = sums(connection, tallies.c.task, self._task, tallies.c.writer == GONE)
        return found[0][1].rows if found else 0

    def epochs(self) -> dict[int | None, Tally]:
        """Return counts per version that decided; None: before the first, and imported rows."""
        with self._db.read() as connection:
            found = sums(connection, tallies.c.version, self._task)
        return {None if version < 0 else version: tally for version, tally in found}

    def activity(
        self, since: datetime, until: datetime | None = None, *, by: Literal["hour", "day"] = "hour"
    ) -> list[tuple[datetime, Tally]]:
        """Return counts per hour or per day (UTC), oldest first; times in which nothing happened are left out.

        Parameters
        ----------
        since, until : the hours that contain them are included whole; no `until`: up to now
        """
        hour: ColumnElement[int] = tallies.c.hour
        start = hour - hour % literal_column(str(_HOURS[by]), BigInteger)
        where = [hour >= to_us(since) // HOUR_US]
        if until is not None:
            where.append(hour <= to_us(until) // HOUR_US)
        with self._db.read() as connection:
            found = sums(connection, start, self._task, *where)
        return [(datetime.fromtimestamp(int(begin) * 3600, UTC), tally) for begin, tally in found]

    def _by(self, connection: Connection, name: str) -> dict[str | None, int]:
        key, n = tallies.c[name], func.sum(tallies.c.n)
        query = select(key, n).where(tallies.c.task == self._task).group_by(key).having(n > 0).order_by(key)
        return {value or None: int(rows) for value, rows in connection.execute(query)}
