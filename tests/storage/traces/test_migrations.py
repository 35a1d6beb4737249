"""How a database gets its tables, and how releases live together on one."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from tests.storage.traces.make import Workers, trace
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces import TraceStore, open_store
from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.migrations import MIGRATIONS, Migration, migrate
from tracer_serve.storage.traces.schema import applied, metadata


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a new store may be."""
    return tmp_path / "traces.db"


def test_tables_are_as_the_code_sees_them(location: Path | str, store: TraceStore) -> None:
    """The migrated schema has exactly the tables, columns, keys and nullability that the code assumes."""
    engine = create_engine(f"sqlite:///{location}" if isinstance(location, Path) else str(store.database.url))
    found = inspect(engine)
    for table in metadata.sorted_tables:
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: bool(column.nullable) for column in table.columns}, table.name
        key = set(found.get_pk_constraint(table.name)["constrained_columns"])
        assert key == {column.name for column in table.primary_key.columns}
    engine.dispose()


def test_processes_that_start_at_once_migrate_once(tmp_path: Path, postgres_url: str, workers: Workers) -> None:
    """Several first starts at the same moment leave one schema, on a new file and on a new Postgres database."""
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE fresh")
    engine.dispose()
    for location in (str(tmp_path / "fresh.db"), postgres_url.replace("/postgres", "/fresh")):
        script = f"store = open_store({location!r}, 'task')\nresult = store.tallies.counts().total.rows\nstore.close()"
        assert workers.together(script) == [0, 0, 0]
        database = Database(location)
        with database.read() as connection:
            assert len(connection.execute(applied.select()).all()) == len(MIGRATIONS)
        database.close()


def test_an_old_process_works_on(location: Path | str, task: str) -> None:
    """An older layout is upgraded under a store that is open and one that an older release opens: both keep working."""
    running, name = open_store(location, task), f"later_{task}"
    newer = Database(location)
    step = Migration(9001, "a column", (f"ALTER TABLE tracer_traces ADD COLUMN {name} TEXT DEFAULT 'x'",))
    migrate(newer, (*MIGRATIONS, step))
    restarted = open_store(location, task)
    assert running.traces.add([trace(task, "a")]) == restarted.traces.add([trace(task, "b")]) == 1
    assert running.imports.add([trace(task, "c")], sha256="s", path="p") == 1
    assert [one.input for one in running.traces.labelled()] == ["a", "b", "c"]
    with newer.write() as connection:
        later = connection.exec_driver_sql(f"SELECT {name} FROM tracer_traces WHERE task = '{task}'").scalars().all()
        connection.exec_driver_sql(f"ALTER TABLE tracer_traces DROP COLUMN {name}")  # the tests share a server
        connection.execute(applied.delete().where(applied.c.number == 9001))
    assert later == ["x"] * 3
    for each in (running, restarted, newer):
        each.close()


def test_a_migration_holds_nobody_up(postgres_url: str, task: str) -> None:
    """While a long read keeps a table from being changed, rows of the old release come in; then it is changed."""
    store, newer = open_store(postgres_url, task), Database(postgres_url)
    step = Migration(9004, "a column", (f"ALTER TABLE tracer_traces ADD COLUMN late_{task} TEXT",))
    quick = {"lock_s": 0.05, "pause_s": 0.05}
    changing = threading.Thread(target=migrate, args=(newer, (*MIGRATIONS, step)), kwargs=quick)
    with store.database.read() as reading:
        reading.exec_driver_sql("SELECT 1 FROM tracer_traces LIMIT 1")
        changing.start()
        assert [store.traces.add([trace(task, str(i))]) for i in range(5)] == [1] * 5
        assert changing.is_alive()
    changing.join()
    with newer.write() as connection:
        assert 9004 in {row.number for row in connection.execute(applied.select())}
        connection.exec_driver_sql(f"ALTER TABLE tracer_traces DROP COLUMN late_{task}")
        connection.execute(applied.delete().where(applied.c.number == 9004))
    for each in (store, newer):
        each.close()


def test_a_breaking_migration_is_refused_by_older_releases(database: Path) -> None:
    """A release that does not know a breaking migration says so instead of writing into what it does not understand."""
    newer = Database(database)
    migrate(newer, (*MIGRATIONS, Migration(9002, "texts elsewhere", (), breaking=True)))
    newer.close()
    with pytest.raises(StoreError, match=r"migration 9002, 'texts elsewhere'.*Install the newer release"):
        open_store(database, "task")


def test_a_failed_migration_leaves_nothing(location: Path | str, database: Path) -> None:
    """When a statement of a migration fails, none of it is there, and the store works as before."""
    open_store(location, "task").close()
    broken = Migration(9003, "broken", ("CREATE TABLE half_done (a INTEGER)", "CREATE NONSENSE"))
    newer = Database(location)
    with pytest.raises(StoreError):
        migrate(newer, (*MIGRATIONS, broken))
    with newer.read() as connection:
        assert not inspect(connection).has_table("half_done")
        assert 9003 not in {row.number for row in connection.execute(applied.select())}
    newer.close()
    open_store(location, "task").close()
    assert not database.exists() or database == location
