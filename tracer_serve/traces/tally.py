"""Counts that are kept while rows are written, so that no dashboard ever scans the rows.

A cell counts the rows of one hour, version, decision, label source and agreement. Cells and rows change in the same
transaction. Each process writes cells of its own (`writer`): the sum over writers is the truth, a single cell may be
negative. Rows that retention removed are counted by one writer more, `GONE`.
"""

import functools
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, case, func, select

from tracer_serve.traces.codec import unpack_text
from tracer_serve.traces.rows import HOUR_US, Row
from tracer_serve.traces.tables import label_tallies, tallies

GONE = -1
"""The writer of the counts of rows that are there no more."""
COUNTED = ("task", "ts", "version", "decision", "label_source", "teacher_label", "surrogate_label", "cost")
"""Columns of a row that its counts depend on."""

_WRITERS = 64


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
class Counts:
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


class Change:
    """What one transaction does to the counts.

    It is written once, and last, in one order for everybody: transactions that lock cells in different orders would
    block each other for good.
    """

    def __init__(self) -> None:
        self._rows: Counter[tuple[Any, ...]] = Counter()
        self._costs: defaultdict[tuple[Any, ...], float] = defaultdict(float)
        self._labels: Counter[tuple[str, str]] = Counter()

    def add(self, rows: Iterable[Row], sign: int = 1) -> "Change":
        """Count rows, or with a sign of -1 take them out; return itself."""
        for row in rows:
            cell = _cell(row)
            self._rows[cell] += sign
            self._costs[cell] += sign * row.cost
            if row.teacher_label is not None:
                self._labels[row.task, row.teacher_label] += sign
        return self

    def write(self, connection: Connection, writer: int | None = None) -> None:
        """Bring it into the tables; `writer` is whose cells, this process's unless said."""
        writer = _writer() if writer is None else writer
        cells = [(*cell, writer, n, self._costs[cell]) for cell, n in sorted(self._rows.items())]
        _add(connection, tallies, (*_CELL, "writer"), ("n", "cost"), cells)
        labels = [(*label, writer, n) for label, n in sorted(self._labels.items())]
        _add(connection, label_tallies, ("task", "label", "writer"), ("n",), labels)


_CELL = ("task", "hour", "version", "decision", "source", "agreed")


@functools.cache
def _writer_of(_pid: int) -> int:
    return random.SystemRandom().randrange(_WRITERS)


def _writer() -> int:
    """Return this process's number: drawn, since in containers many processes have the same id."""
    return _writer_of(os.getpid())


def _cell(row: Row) -> tuple[Any, ...]:
    label, guess = row.teacher_label, row.surrogate_label
    return (
        row.task,
        row.ts // HOUR_US,
        -1 if row.version is None else row.version,
        row.decision or "",
        row.label_source or "",
        -1 if label is None or guess is None else int(label == guess),
    )


def _add(
    connection: Connection, table: Table, key: tuple[str, ...], sums: tuple[str, ...], values: list[tuple[Any, ...]]
) -> None:
    """Add to the sums of cells, each made where it is not there yet."""
    if values:
        mark = "%s" if connection.dialect.name == "postgresql" else "?"
        # straight to the driver: to compile this costs more than all the rest of a small transaction
        connection.exec_driver_sql(_adding(table.name, key, sums, mark), values)


@functools.cache
def _adding(table: str, key: tuple[str, ...], sums: tuple[str, ...], mark: str) -> str:
    marks = ", ".join([mark] * len(key + sums))
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)
    return (
        f"INSERT INTO {table} ({', '.join(key + sums)}) VALUES ({marks})"  # noqa: S608  # our own names
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
    )


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
