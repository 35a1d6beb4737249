"""The change to the tallies in a transaction that writes rows."""

import functools
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Table

from tracer_serve.storage.traces.rows import HOUR_US, Row
from tracer_serve.storage.traces.schema import label_tallies, tallies

COUNTED = (
    "task",
    "ts",
    "version",
    "decision",
    "label_source",
    "teacher_label",
    "surrogate_label",
    "cost",
    "audit_kind",
)
"""Columns of a row that its counts depend on."""

_WRITERS = 64


class TallyDelta:
    """The change to the tallies in one transaction.

    It is written once, at the end, with the cells in sorted order: transactions that lock cells in different orders
    could deadlock.
    """

    def __init__(self) -> None:
        self._rows: Counter[tuple[Any, ...]] = Counter()
        self._costs: defaultdict[tuple[Any, ...], float] = defaultdict(float)
        self._labels: Counter[tuple[str, str]] = Counter()

    def add(self, rows: Iterable[Row], sign: int = 1) -> "TallyDelta":
        """Add rows to the counts, or with a sign of -1 subtract them; return itself."""
        for row in rows:
            cell = _cell(row)
            self._rows[cell] += sign
            self._costs[cell] += sign * row.cost
            if row.teacher_label is not None:
                self._labels[row.task, row.teacher_label] += sign
        return self

    def write(self, connection: Connection, writer: int | None = None) -> None:
        """Add it to the tables.

        Parameters
        ----------
        writer : whose cells; None: this process's
        """
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
    """Return this process's number, drawn at random: in containers many processes have the same pid."""
    return _writer_of(os.getpid())


def _cell(row: Row) -> tuple[Any, ...]:
    label, guess = row.teacher_label, row.surrogate_label
    return (
        row.task,
        row.ts // HOUR_US,
        -1 if row.version is None else row.version,
        row.decision or "",
        "burst" if row.label_source == "audit" and row.audit_kind == "burst" else row.label_source or "",
        -1 if label is None or guess is None else int(label == guess),
    )


def _add(
    connection: Connection, table: Table, key: tuple[str, ...], sums: tuple[str, ...], values: list[tuple[Any, ...]]
) -> None:
    """Add to the sums of cells, and insert missing cells."""
    if values:
        mark = "%s" if connection.dialect.name == "postgresql" else "?"
        # directly through the driver: compiling the statement would cost more than a small transaction
        connection.exec_driver_sql(_adding(table.name, key, sums, mark), values)


@functools.cache
def _adding(table: str, key: tuple[str, ...], sums: tuple[str, ...], mark: str) -> str:
    marks = ", ".join([mark] * len(key + sums))
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)
    return (
        f"INSERT INTO {table} ({', '.join(key + sums)}) VALUES ({marks})"  # noqa: S608  # our own names
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
    )
