"""The trace store: rows in, rows out, and the small things that all processes of a task share."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError

from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.codec import pack
from tracer_serve.storage.traces.database import BUSY_TIMEOUT_S, Database, again
from tracer_serve.storage.traces.export import Transfer
from tracer_serve.storage.traces.file_imports import Imports
from tracer_serve.storage.traces.leases import Fencing
from tracer_serve.storage.traces.merge_label import labelled, stands_against
from tracer_serve.storage.traces.migrations import migrate
from tracer_serve.storage.traces.pruning import Pruning
from tracer_serve.storage.traces.queries import Queries
from tracer_serve.storage.traces.refit_log import History
from tracer_serve.storage.traces.rows import Row, to_row
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.sql import fetch, insert, missing
from tracer_serve.storage.traces.tally_delta import Change
from tracer_serve.types import Answer, LabelSource, Trace


def open_store(location: Path | str, task: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> "TraceStore":
    """Open the store of a task, made or migrated where needed.

    Parameters
    ----------
    location : a file of SQLite, or a URL (``postgresql://...``) that tasks and replicas may share
    task : the task's name; a store reads and writes this task's rows only
    busy_timeout_s : seconds to wait for another process's write before `StoreError`

    Raises
    ------
    StoreError
        It cannot be opened; says why and what to do.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from tempfile import mkdtemp
    >>> from tracer_serve.storage.traces import new_id, open_store
    >>> store = open_store(Path(mkdtemp()) / "traces.db", "banking")
    >>> store.add([Trace(id=new_id(), ts=datetime.now(UTC), task="banking", input="hi", teacher_label="greeting")])
    1
    >>> [trace.input for trace in store.labelled()], store.counts().by_label
    (['hi'], {'greeting': 1})
    >>> store.close()
    """
    database = Database(location, busy_timeout_s=busy_timeout_s)
    try:
        migrate(database)
    except StoreError:
        database.close()
        raise
    return TraceStore(database, task)


class TraceStore(Fencing, History, Imports, Queries, Transfer, Pruning):
    """The traces of one task. Synchronous and thread-safe; open it once per process with `open_store`.

    Whatever returns has been written durably. Everything raises `StoreError` when the database cannot be reached,
    is locked for too long, damaged, read-only or full; nothing that was acknowledged is lost by that.
    """

    def add(self, traces: Iterable[Trace]) -> int:
        """Write traces in one transaction; they are on disk on return.

        A trace whose id exists already is left as it is, so a call may be repeated after an error. Requests do not call
        this one by one: `serving.trace_writer.TraceWriter` gathers their rows.

        Returns
        -------
        The number of new rows.
        """
        rows = [to_row(self._own(trace)) for trace in traces]
        if not rows:
            return 0
        known = again(partial(self._commit, rows))
        return sum(row.id not in known for row in rows)

    def set_label(
        self,
        trace_id: str,
        label: str,
        source: LabelSource,
        answer: Answer | None = None,
        *,
        fingerprint: str | None = None,
    ) -> bool:
        """Give an existing row its label: an audit's, or a person's.

        A label that is replaced is kept in ``metadata["replaced"]``. A person's label is replaced by a person only; the
        teacher's is then kept there, and its cost and fingerprint on the row.

        Parameters
        ----------
        answer : the teacher's, for its tokens, cost and latency
        fingerprint : the teacher's, where the row has none yet

        Returns
        -------
        False where there is no such row, or a person's label stands.
        """
        tell = partial(labelled, label=label, source=source, answer=answer, fingerprint=fingerprint)
        return again(partial(self._set_label, pack(trace_id), tell, source))

    def _set_label(self, packed_id: str, tell: Callable[[Row], Row], source: LabelSource) -> bool:
        with self._db.write() as connection:
            where = (traces.c.task == self._task, traces.c.id == packed_id)
            found = fetch(connection, select(traces).where(*where).with_for_update())
            if not found:
                return False
            before, after = found[0], tell(found[0])
            if after != before:
                connection.execute(traces.update().where(*where).values(after._asdict()))
                Change().add([before], -1).add([after]).write(connection)
            return not stands_against(before, source)

    def ids_of_user(self, user: str) -> list[str]:
        """Return the ids that `forget_user` would remove."""
        query = select(traces.c.id).where(traces.c.task == self._task, traces.c.user_id == pack(user))
        with self._db.read() as connection:
            return list(connection.execute(query.order_by(traces.c.id)).scalars())

    def forget_user(self, user: str) -> list[str]:
        """Remove every trace whose ``metadata["user"]`` is this user, from the disk too; return the ids removed."""
        where = (traces.c.task == self._task, traces.c.user_id == pack(user))
        with self._db.write() as connection:
            gone = fetch(connection, select(traces).where(*where).order_by(traces.c.id).with_for_update())
            if gone:
                delete = traces.delete().where(traces.c.task == self._task, traces.c.id == bindparam("gone"))
                connection.execute(delete, [{"gone": row.id} for row in gone])
                Change().add(gone, -1).write(connection)
        if gone:
            self._db.shrink_log()
        return [row.id for row in gone]

    def close(self) -> None:
        """Close the connections."""
        self._db.close()

    def _own(self, trace: Trace) -> Trace:
        if trace.task != self._task:
            raise ValueError(f"trace {trace.id} is of task {trace.task!r}, this store holds {self._task!r}")
        return trace

    def _commit(self, rows: Sequence[Row]) -> set[str]:
        try:
            with self._db.write() as connection:
                insert(connection, rows)
                Change().add(rows).write(connection)
                return set()
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
        with self._db.write() as connection:
            new = missing(connection, self._task, rows)
            if new:
                insert(connection, new)
                Change().add(new).write(connection)
        return {row.id for row in rows} - {row.id for row in new}
