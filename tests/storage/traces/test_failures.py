"""What a user reads when a database cannot be used, and that nothing acknowledged is lost by it."""

import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from tests.storage.traces.make import process, trace
from tests.support import disks
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.storage.traces.error_advice import explain
from tracer_serve.types import Trace


def test_a_locked_database(tmp_path: Path) -> None:
    """A store that somebody else keeps locked gives an error that names the file; reads go on; later adds work."""
    path = tmp_path / "traces.db"
    store = open_store(path, "task", busy_timeout_s=0.1)
    store.traces.add([trace("task", "before")])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"traces\.db: another process has been writing for too long.*fuser"):
        store.traces.add([trace("task", "refused")])
    assert [one.input for one in store.traces.labelled()] == ["before"]
    other.execute("ROLLBACK")
    other.close()
    store.traces.add([trace("task", "after")])
    assert [one.input for one in store.traces.labelled()] == ["before", "after"]
    store.close()


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    """A file of something else is refused with the command that moves it away, and is left as it is."""
    path = tmp_path / "traces.db"
    path.write_bytes(b"not a database at all, but long enough to have a header" * 40)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"is not a trace store. Move it away.*mv "):
        open_store(path, "task")
    assert path.read_bytes() == before


def test_a_damaged_file(tmp_path: Path) -> None:
    """Pages that were overwritten give an error that says how to save the rest, not a crash and not wrong rows."""
    path = tmp_path / "traces.db"
    store = open_store(path, "task")
    store.traces.add([trace("task", "text " * 50) for _ in range(2_000)])
    store.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 4 * 3] = os.urandom(len(content) // 4 * 3 - len(content) // 4)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged.*sqlite3 .*\.recover"):
        _read_all(path)


def _read_all(path: Path) -> None:
    damaged = open_store(path, "task")
    try:
        list(damaged.traces.labelled())
    finally:
        damaged.close()


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    """A folder where the file should be is named."""
    with pytest.raises(StoreError, match="cannot be written"):
        open_store(tmp_path, "task")


def test_a_read_only_folder(tmp_path: Path) -> None:
    """A folder, or a file, that this user may not write gives an error that names it and what to look at."""
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    open_store(old / "traces.db", "task").close()
    (old / "traces.db").chmod(0o444)
    for folder in (new, old):
        folder.chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the other user must get this far
    script = """
import os, sys
from pathlib import Path
from typing import Any
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces import open_store
if os.geteuid() == 0:  # whom no mode stops
    os.setgid(65534)
    os.setuid(65534)
for folder in sys.argv[1:]:
    try:
        open_store(Path(folder, "traces.db"), "task")
    except StoreError as error:
        print(error)
"""
    out, err = process(script, new, old).communicate(timeout=60)
    for folder in (new, old):
        folder.chmod(0o755)
        assert f"{folder}/traces.db: the trace store cannot be written (Permission denied)" in out, err
        assert f"ls -ld {folder}" in out


def test_new_stores_are_private(tmp_path: Path) -> None:
    """The file with people's texts, and its log, can be read by its owner only."""
    store = open_store(tmp_path / "deep" / "er" / "traces.db", "task")
    store.traces.add([trace("task")])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "deep" / "er").iterdir()}
    store.close()
    assert set(modes.values()) == {0o600}
    assert "traces.db-wal" in modes


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://u:secret@h/d", "supports sqlite and postgresql, not 'mysql'"),
        ("sqlite://", "needs a file"),
        ("://", "is not a database URL"),
        ("postgresql://u:secret@127.0.0.1:notaport/d", "is not a database URL"),
        ("postgresql://u:secret@127.0.0.1:1/d", "cannot be reached. Check that it runs: pg_isready"),
    ],
)
def test_urls_that_do_not_work(url: str, problem: str) -> None:
    """A wrong URL is refused with what is wrong, and never with the password in it."""
    if "127.0.0.1:1/" in url:
        pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match=problem) as caught:
        open_store(url, "task")
    assert "secret" not in str(caught.value)


def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg the error names the extra to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(StoreError, match=r"pip install '.\[postgres\]' in a checkout of tracer-serve"):
        open_store("postgresql://u@h/d", "task")


def test_a_postgres_database_that_is_not_there(postgres_url: str) -> None:
    """A database that does not exist is told from a server that does not run."""
    with pytest.raises(StoreError, match=r"refuses.*createdb missing"):
        open_store(postgres_url.replace("/postgres", "/missing"), "task")


def test_a_server_that_restarts(postgres_url: str) -> None:
    """Connections that the server has dropped are replaced without an error."""
    store = open_store(postgres_url, "restarted")
    store.traces.add([trace("restarted", "before")])
    other = open_store(postgres_url, "killer")
    with other.database.write() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    store.traces.add([trace("restarted", "after")])
    assert [one.input for one in store.traces.labelled()] == ["before", "after"]
    store.close()
    other.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    with disks.small_disk(tmp_path / "disk", 3) as disk:
        yield disk


def _fill(store: TraceStore, acknowledged: list[Trace]) -> None:
    while True:
        rows = [trace("task", "text " * 100) for _ in range(20)]
        store.traces.add(rows)
        acknowledged += rows


@pytest.mark.slow
def test_a_full_disk(small_disk: Path) -> None:
    """When the disk is full adds fail with an error, acknowledged rows are kept, and adds work once there is room."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    store = open_store(small_disk / "traces.db", "task")
    acknowledged: list[Trace] = []
    with pytest.raises(StoreError, match="disk"):
        _fill(store, acknowledged)
    assert len(acknowledged) > 100
    assert list(store.traces.labelled()) == acknowledged
    ballast.unlink()
    store.traces.add([trace("task", "room again")])
    assert store.tallies.counts().total.rows == len(list(store.traces.labelled())) == len(acknowledged) + 1
    store.close()


@pytest.mark.parametrize("rows", [1, 200])
def test_a_connection_that_is_cut_costs_no_row(postgres_url: str, task: str, rows: int) -> None:
    """Rows and labels whose transaction a failover ends are written by a second one, each once."""
    store, other = open_store(postgres_url, task), open_store(postgres_url, task)
    cut: list[int] = []

    def end(connection: Connection) -> None:
        if not cut:
            driver: Any = connection.connection.driver_connection
            cut.append(driver.info.backend_pid)
            with other.database.session() as session:
                session.exec_driver_sql(f"SELECT pg_terminate_backend({cut[0]}, 5000)")

    event.listen(store.database._engine, "begin", end)
    traces = [trace(task, str(i), teacher_label=None, label_source=None) for i in range(rows)]
    assert store.traces.add(traces) == rows
    assert len(cut) == 1
    cut.clear()
    assert store.traces.set_label(traces[0].id, "label", "audit")
    assert (len(cut), store.tallies.counts().total.rows, store.tallies.counts().by_label) == (1, rows, {"label": 1})
    for each in (store, other):
        each.close()


def test_a_server_that_restarts_does_not_ask_for_another_password() -> None:
    """While Postgres starts or stops it refuses everybody; drivers pass on its words, and no code."""
    said = Exception("connection failed: FATAL:  the database system is starting up")
    told = explain(said, "postgresql://a@b/c", sqlite=False)
    assert "starting or stopping" in told
    assert "password" not in told
