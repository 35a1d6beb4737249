"""Open a database, begin transactions, and translate errors."""

import importlib.util
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.error_advice import explain

T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10
_SQLITE_SETTINGS = (
    "PRAGMA journal_mode = WAL",  # readers never wait for the writer
    "PRAGMA synchronous = FULL",  # every commit is on disk before it returns: kill -9 and power loss keep it
    "PRAGMA secure_delete = ON",  # what `forget_user` deletes is overwritten
    "PRAGMA cache_size = -8000",  # kB of each connection, of which a process has several
)


class Database:
    """An engine for SQLite or Postgres with explicit read and write transactions.

    Thread-safe. SQLite allows one writer at a time and waits by polling, so the writers of one process take turns by a
    lock here. A write waits for other processes' writes for up to `busy_timeout_s`.

    Parameters
    ----------
    location : a file of SQLite, or a URL (``sqlite:///...``, ``postgresql://...``)
    busy_timeout_s : seconds to wait for another process's write

    Raises
    ------
    StoreError
        If the URL is invalid, the driver is missing, the folder cannot be created, or the server cannot be reached.
    """

    def __init__(self, location: Path | str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.url = _url(location)
        self.name = self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)
        self._writing = threading.Lock()
        self._pid = os.getpid()
        if self.is_sqlite:
            self.name = str(self.url.database)
            _make_private_file(Path(self.name))
        with self.translated():
            self._engine = _engine(self.url, busy_timeout_s)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is an SQLite file (else Postgres)."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection in a read transaction; on SQLite it reads one snapshot."""
        with self.session() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection in a write transaction: committed to disk at the end, rolled back on an exception."""
        with self.session() as connection, self.writing(connection):
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Yield a connection for several transactions."""
        with self.translated(), self._own_engine().connect() as connection:
            yield connection

    @contextmanager
    def writing(self, connection: Connection) -> Iterator[None]:
        """Run the block in a write transaction of this connection."""
        # IMMEDIATE: otherwise a transaction that reads before it writes fails instead of waiting for another writer
        connection.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        try:
            with self._writing if self.is_sqlite else nullcontext(), connection.begin():
                yield
        finally:
            connection.execution_options(sqlite_begin="BEGIN")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise the database's errors as `StoreError`."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StoreError(explain(error, self.name, sqlite=self.is_sqlite)) from error

    def shrink_log(self) -> None:
        """Copy SQLite's write-ahead log into the database file and truncate it, unless a reader prevents it."""
        if self.is_sqlite:
            with self.session() as connection:
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the pooled connections."""
        with self.translated():
            self._engine.dispose(close=self._pid == os.getpid())

    def _own_engine(self) -> Engine:
        if self._pid != os.getpid():  # forked: the parent's connections must be neither used nor closed here
            self._engine.dispose(close=False)
            self._writing, self._pid = threading.Lock(), os.getpid()
        return self._engine


def retry_once(work: Callable[[], T]) -> T:
    """Call an idempotent function; call it again if the connection was lost meanwhile, as in a failover."""
    try:
        return work()
    except StoreError as error:
        if not getattr(error.__cause__, "connection_invalidated", False):
            raise
    return work()


def _url(location: Path | str) -> URL:
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(Path(location).absolute()))
    try:
        url = make_url(location)
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            "traces.url is not a database URL; it looks like postgresql://user:password@host:5432/database"
        ) from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise StoreError(f"{location}: the trace store needs a file: sqlite:///path/to/traces.db")
        return url.set(database=str(Path(str(url.database)).absolute()))
    if backend not in ("postgresql", "postgres"):
        shown = url.render_as_string(hide_password=True)
        raise StoreError(f"{shown}: the trace store supports sqlite and postgresql, not {backend!r}")
    if importlib.util.find_spec("psycopg") is None:
        shown = url.render_as_string(hide_password=True)
        raise StoreError(
            f"{shown}: Postgres needs a driver. Install it: pip install '.[postgres]' in a checkout of tracer-serve"
        )
    return url.set(drivername="postgresql+psycopg")


def _make_private_file(path: Path) -> None:
    """Create the database file, readable by its owner only; SQLite creates its log files with the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"{path}: the trace store cannot be written ({error.strerror}). Check the folder's owner and mode:"
            f" ls -ld {path.parent}; or set `state:` (or TRACER_SERVE_STATE) to a folder that is yours"
        ) from error


def _engine(url: URL, busy_timeout_s: float) -> Engine:
    if url.get_backend_name() != "sqlite":
        # in milliseconds: after this, a server that stopped answering (a lost machine, a firewall) is an error
        bounds = {"connect_timeout": _CONNECT_TIMEOUT_S, "tcp_user_timeout": 1000 * _CONNECT_TIMEOUT_S}
        return create_engine(url, pool_pre_ping=True, connect_args=bounds)
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin in `_begin`, not implicitly in the driver
    for setting in _SQLITE_SETTINGS:
        connection.execute(setting)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
