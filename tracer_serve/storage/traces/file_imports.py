"""Import the rows of a file in one transaction, each file once."""

import itertools
import time
from collections.abc import Iterable

from sqlalchemy import Connection, select

from tracer_serve.storage.traces.codec import pack
from tracer_serve.storage.traces.rows import to_row
from tracer_serve.storage.traces.schema import imports
from tracer_serve.storage.traces.schema import traces as table
from tracer_serve.storage.traces.sql import COLUMNS, StorePart, insert, insert_into, touched
from tracer_serve.storage.traces.tally_delta import TallyDelta
from tracer_serve.types import Trace

_CHUNK = 5_000
_STAGE = "tracer_incoming"
_COPY = f"INSERT INTO {table.name} ({COLUMNS}) SELECT {COLUMNS} FROM {_STAGE} ORDER BY id"  # noqa: S608


class FileImports(StorePart):
    """Imports of trace files, each at most once."""

    def contains(self, sha256: str) -> bool:
        """Return whether a file with these bytes was imported."""
        query = select(imports.c.sha256).where(imports.c.task == self._task, imports.c.sha256 == sha256)
        with self._db.read() as connection:
            return connection.execute(query).first() is not None

    def digests(self) -> frozenset[str]:
        """Return the sha256 of every file that was imported."""
        with self._db.read() as connection:
            return frozenset(connection.execute(select(imports.c.sha256).where(imports.c.task == self._task)).scalars())

    def add(self, traces: Iterable[Trace], *, sha256: str, path: str) -> int:
        """Write all traces of a file, or none if their iterator raises; return how many, 0 for a known file.

        They are written to a temporary table first, so that other writers wait only for the copy of valid rows into the
        table.
        """
        with self._db.session() as connection:
            try:
                with connection.begin():
                    delta, rows = _stage(connection, traces)
                with self._db.writing(connection):
                    note = {"task": self._task, "sha256": sha256, "path": pack(path), "rows": rows}
                    values = insert_into(connection, imports).values(**note, imported_at=time.time_ns() // 1_000)
                    if touched(connection, values.on_conflict_do_nothing()) != 1:
                        return 0
                    connection.exec_driver_sql(_COPY)
                    delta.write(connection)
            finally:
                with connection.begin():
                    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_STAGE}")
        return rows


def _stage(connection: Connection, traces: Iterable[Trace]) -> tuple[TallyDelta, int]:
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_STAGE} AS SELECT {COLUMNS} FROM {table.name} WHERE 1 = 0")  # noqa: S608
    delta, staged, rows = TallyDelta(), 0, map(to_row, traces)
    while chunk := list(itertools.islice(rows, _CHUNK)):
        insert(connection, chunk, _STAGE)
        delta.add(chunk)
        staged += len(chunk)
    return delta, staged
