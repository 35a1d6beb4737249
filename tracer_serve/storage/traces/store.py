"""The trace store of one task: its traces, and the state that all its processes share."""

from pathlib import Path

from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.audit_log import AuditLog
from tracer_serve.storage.traces.database import BUSY_TIMEOUT_S, Database
from tracer_serve.storage.traces.export import Transfer
from tracer_serve.storage.traces.file_imports import FileImports
from tracer_serve.storage.traces.key_values import KeyValues
from tracer_serve.storage.traces.leases import Leases
from tracer_serve.storage.traces.migrations import migrate
from tracer_serve.storage.traces.pruning import Retention
from tracer_serve.storage.traces.refit_log import RefitLog
from tracer_serve.storage.traces.tallies import Tallies
from tracer_serve.storage.traces.trace_table import TraceTable
from tracer_serve.storage.traces.users import Users


class TraceStore:
    """The store of one task. Synchronous and thread-safe; open it once per process with `open_store`.

    Every write is durable when its call returns. Every call raises `StoreError` when the database cannot be reached,
    is locked for too long, damaged, read-only or full; acknowledged writes are kept in all these cases.

    Attributes
    ----------
    task : the task whose rows this store reads and writes
    name : where the store is, without a password
    traces : the traces
    users : traces by the user who sent them
    tallies : counts of the traces
    values : small JSON values by key
    leases : locks that expire
    refits : the log of refits
    imports : files that were imported
    audit_log : administrative acts
    retention : deletes unlabelled rows by age
    transfer : copies to and from another store
    database : what all of the above read and write
    """

    def __init__(self, database: Database, task: str) -> None:
        self.database = database
        self.task, self.name = task, database.name
        self.traces = TraceTable(database, task)
        self.users = Users(database, task)
        self.tallies = Tallies(database, task)
        self.values = KeyValues(database, task)
        self.leases = Leases(database, task)
        self.refits = RefitLog(database, task)
        self.imports = FileImports(database, task)
        self.audit_log = AuditLog(database, task)
        self.retention = Retention(database, task)
        self.transfer = Transfer(database, task)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()


def open_store(location: Path | str, task: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> TraceStore:
    """Open the trace store of a task; creates or migrates its tables where needed.

    Parameters
    ----------
    location : an SQLite file, or a URL (``postgresql://...``) that tasks and replicas may share
    task : the task's name
    busy_timeout_s : seconds to wait for another process's write before `StoreError`

    Raises
    ------
    StoreError
        It cannot be opened; the message gives the cause and a remedy.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from tempfile import mkdtemp
    >>> from tracer_serve.storage.traces import new_id, open_store
    >>> from tracer_serve.types import Trace
    >>> store = open_store(Path(mkdtemp()) / "traces.db", "banking")
    >>> trace = Trace(id=new_id(), ts=datetime.now(UTC), task="banking", input="hi", teacher_label="greeting")
    >>> store.traces.add([trace])
    1
    >>> [trace.input for trace in store.traces.labelled()], store.tallies.counts().by_label
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
