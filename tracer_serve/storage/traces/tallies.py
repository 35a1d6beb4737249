"""Counts of rows that are updated with each write, so that no dashboard scans the rows.

A cell counts the rows of one hour, version, decision, label source and agreement. Cells and rows change in the same
transaction. Each process writes to cells of its own (`writer`): only sums over writers are meaningful, a single cell
may be negative. Rows deleted by retention are counted by a separate writer, `GONE`.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Connection, case, func, literal_column, select

from tracer_serve.storage.traces.codec import unpack_text
from tracer_serve.storage.traces.rows import HOUR_US, to_us
from tracer_serve.storage.traces.schema import label_tallies, tallies
from tracer_serve.storage.traces.sql import StorePart

GONE = -1
"""The writer of the counts of deleted rows."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over some rows; imported rows (no decision) are in `rows` and `labelled` only.

    Parameters
    ----------
    audits, agreed : audited rows, and those of them where surrogate and teacher agree
    cost, audit_cost : paid to the teacher for deferred rows, and for audits, in the price's currency
    """

    rows: int = 0
    labelled: int = 0
    handled: int = 0
    deferred: int = 0
    degraded: int = 0
    audits: int = 0
    agreed: int = 0
    cost: float = 0.0
    audit_cost: float = 0.0

    @property
    def requests(self) -> int:
        """Rows that were decided by the service."""
        return self.handled + self.deferred + self.degraded

    @property
    def coverage(self) -> float | None:
        """Share of the requests that was handled; None without requests."""
        return self.handled / self.requests if self.requests else None

    @property
    def agreement(self) -> float | None:
        """Share of the audits that agree; None without audits."""
        return self.agreed / self.audits if self.audits else None


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """Everything in a store.

    Parameters
    ----------
    total : over all rows
    by_decision : rows per decision; None: imported
    by_source : rows per label source; None: not labelled
    by_label : labelled rows per teacher label, most frequent first
    """

    total: Tally = field(default_factory=Tally)
    by_decision: dict[str | None, int] = field(default_factory=dict)
    by_source: dict[str | None, int] = field(default_factory=dict)
    by_label: dict[str, int] = field(default_factory=dict)


def _sum(when: ColumnElement[bool], value: ColumnElement[Any] = tallies.c.n) -> ColumnElement[Any]:
    return func.coalesce(func.sum(case((when, value), else_=0)), 0)


_DECISION, _AUDIT = tallies.c.decision, tallies.c.source == "audit"
_COSTS = (_sum(_DECISION.in_(("deferred", "degraded")), tallies.c.cost), _sum(_DECISION == "handled", tallies.c.cost))
_SUMS = (  # in the order of the fields of `Tally`
    func.coalesce(func.sum(tallies.c.n), 0),
    _sum(tallies.c.source != ""),
    _sum(_DECISION == "handled"),
    _sum(_DECISION == "deferred"),
    _sum(_DECISION == "degraded"),
    _sum(_AUDIT),
    _sum(_AUDIT & (tallies.c.agreed == 1)),
    *_COSTS,
)


def sums(
    connection: Connection, key: ColumnElement[Any], task: str, *where: ColumnElement[bool]
) -> list[tuple[Any, Tally]]:
    """Return one tally per value of a column of `tallies`, in its order."""
    query = select(key, *_SUMS).where(tallies.c.task == task, *where).group_by(key).order_by(key)
    return [(key, _tally(values)) for key, *values in connection.execute(query)]


def _tally(values: list[Any]) -> Tally:
    counts, costs = values[: -len(_COSTS)], values[-len(_COSTS) :]  # Postgres gives sums of BIGINT as Decimal
    return Tally(*map(int, counts), *map(float, costs))


def label_counts(connection: Connection, task: str) -> dict[str, int]:
    """Return labelled rows per teacher label, most frequent first."""
    n = func.sum(label_tallies.c.n)
    query = select(label_tallies.c.label, n).where(label_tallies.c.task == task).group_by(label_tallies.c.label)
    found = {unpack_text(label): int(rows) for label, rows in connection.execute(query.having(n > 0))}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def store_counts(connection: Connection, task: str) -> StoreCounts:
    """Return the counts of all rows of a task."""
    everything = sums(connection, tallies.c.task, task)
    return StoreCounts(
        total=everything[0][1] if everything else Tally(),
        by_decision=_rows_by(connection, task, "decision"),
        by_source=_rows_by(connection, task, "source"),
        by_label=label_counts(connection, task),
    )


def _rows_by(connection: Connection, task: str, name: str) -> dict[str | None, int]:
    key, n = tallies.c[name], func.sum(tallies.c.n)
    query = select(key, n).where(tallies.c.task == task).group_by(key).having(n > 0).order_by(key)
    return {value or None: int(rows) for value, rows in connection.execute(query)}


_HOURS = {"hour": 1, "day": 24}


class Tallies(StorePart):
    """Counts of a task's rows, by decision, label source, label, version and time."""

    def counts(self) -> StoreCounts:
        """Return how many rows there are, those that retention removed included."""
        with self._db.read() as connection:
            return store_counts(connection, self._task)

    def pruned_rows(self) -> int:
        """Return how many of the rows in `counts` retention has removed."""
        with self._db.read() as connection:
            found = sums(connection, tallies.c.task, self._task, tallies.c.writer == GONE)
        return found[0][1].rows if found else 0

    def by_version(self) -> dict[int | None, Tally]:
        """Return counts per version that decided; None: before the first, and imported rows."""
        with self._db.read() as connection:
            found = sums(connection, tallies.c.version, self._task)
        return {None if version < 0 else version: tally for version, tally in found}

    def activity(
        self,
        since: datetime,
        until: datetime | None = None,
        *,
        by: Literal["hour", "day"] = "hour",
        version: int | None = None,
    ) -> list[tuple[datetime, Tally]]:
        """Return counts per hour or per day (UTC), oldest first; times in which nothing happened are left out.

        Parameters
        ----------
        since, until : the hours that contain them are included whole; no `until`: up to now
        version : only rows that this version decided
        """
        hour: ColumnElement[int] = tallies.c.hour
        start = hour - hour % literal_column(str(_HOURS[by]), BigInteger)
        where = [hour >= to_us(since) // HOUR_US]
        if until is not None:
            where.append(hour <= to_us(until) // HOUR_US)
        if version is not None:
            where.append(tallies.c.version == version)
        with self._db.read() as connection:
            found = sums(connection, start, self._task, *where)
        return [(datetime.fromtimestamp(int(begin) * 3600, UTC), tally) for begin, tally in found]
