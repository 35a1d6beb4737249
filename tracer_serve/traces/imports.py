"""Imports: the rows of a file in one transaction, with a note that keeps it from happening twice."""

import itertools
import time
from collections.abc import Iterable

from sqlalchemy import select

from tracer_serve.records import Trace
from tracer_serve.traces.codec import pack
from tracer_serve.traces.inserting import insert_new
from tracer_serve.traces.part import Part
from tracer_serve.traces.rows import to_row
from tracer_serve.traces.statements import insert_into, touched
from tracer_serve.traces.tables import imports

_CHUNK = 5_000


class Imports(Part):
    """The part of the store that takes in files."""

    def was_imported(self, sha256: str) -> bool:
        """Return whether a file with these bytes was imported."""
        query = select(imports.c.sha256).where(imports.c.task == self._task, imports.c.sha256 == sha256)
        with self._db.read() as connection:
            return connection.execute(query).first() is not None

    def add_import(self, traces: Iterable[Trace], *, sha256: str, path: str) -> int:
        """Write all traces of a file, or, when their iterator raises, none; return how many, 0 if it is there already.

        Other writers wait until this is done: the traces should come fast.
        """
        values = {
            "task": self._task,
            "sha256": sha256,
            "path": pack(path),
            "rows": 0,
            "imported_at": time.time_ns() // 1_000,
        }
        this = (imports.c.task == self._task, imports.c.sha256 == sha256)
        written, rows = 0, map(to_row, traces)
        with self._db.write() as connection:
            note = insert_into(connection, imports).values(**values)
            if touched(connection, note.on_conflict_do_nothing()) != 1:
                return 0
            while chunk := list(itertools.islice(rows, _CHUNK)):
                insert_new(connection, chunk)
                written += len(chunk)
            connection.execute(imports.update().where(*this).values(rows=written))
        return written
