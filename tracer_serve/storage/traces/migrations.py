"""Schema migrations: each is applied once, under a lock, all of them in one transaction.

A migration only adds a table, an index, or a column with a default, so processes of an older release keep working on
the newer schema. A migration that breaks older releases is marked `breaking`, and they refuse to open the store. A
released migration is never edited.

On Postgres, ALTER TABLE waits for every transaction that reads the table, and later transactions wait behind it. So it
times out after a second and is retried: a server of the old release is blocked for a second at most.
"""

import time
from dataclasses import dataclass

from sqlalchemy import Connection, inspect, select, text

from tracer_serve import __version__
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.database import Database
from tracer_serve.storage.traces.schema import applied

_TRIES = 30
_LOCKED = "55P03"
_ADVISORY_LOCK = 0x7472_6163_6572  # "tracer": any number that is unique in this database


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration; ``{C}`` in a statement is replaced by Postgres's collation in byte order, SQLite's default."""

    number: int
    name: str
    statements: tuple[str, ...]
    breaking: bool = False


MIGRATIONS = (
    Migration(
        1,
        "traces, tallies, leases, settings, refits, imports",
        (
            """CREATE TABLE tracer_traces (
                task TEXT{C} NOT NULL, id TEXT{C} NOT NULL, ts BIGINT NOT NULL, input TEXT NOT NULL,
                teacher_label TEXT, label_source TEXT, surrogate_label TEXT, score DOUBLE PRECISION, decision TEXT,
                propensity DOUBLE PRECISION NOT NULL, version BIGINT, audit_rate DOUBLE PRECISION NOT NULL,
                u DOUBLE PRECISION NOT NULL, teacher_fingerprint TEXT, usage TEXT NOT NULL,
                cost DOUBLE PRECISION NOT NULL, latency_ms TEXT NOT NULL, metadata TEXT NOT NULL, user_id TEXT,
                PRIMARY KEY (task, id))""",
            "CREATE INDEX tracer_traces_labelled ON tracer_traces (task, id) WHERE teacher_label IS NOT NULL",
            "CREATE INDEX tracer_traces_epoch ON tracer_traces (task, version, id) WHERE teacher_label IS NOT NULL",
            "CREATE INDEX tracer_traces_user ON tracer_traces (task, user_id) WHERE user_id IS NOT NULL",
            """CREATE TABLE tracer_tallies (
                task TEXT{C} NOT NULL, writer INTEGER NOT NULL, hour BIGINT NOT NULL, version BIGINT NOT NULL,
                decision TEXT NOT NULL, source TEXT NOT NULL, agreed INTEGER NOT NULL,
                n BIGINT NOT NULL, cost DOUBLE PRECISION NOT NULL,
                PRIMARY KEY (task, hour, version, decision, source, agreed, writer))""",
            """CREATE TABLE tracer_label_tallies (
                task TEXT{C} NOT NULL, writer INTEGER NOT NULL, label TEXT{C} NOT NULL, n BIGINT NOT NULL,
                PRIMARY KEY (task, label, writer))""",
            """CREATE TABLE tracer_leases (
                task TEXT{C} NOT NULL, name TEXT{C} NOT NULL, holder TEXT NOT NULL, boot TEXT NOT NULL,
                expires BIGINT NOT NULL, PRIMARY KEY (task, name))""",
            """CREATE TABLE tracer_settings (
                task TEXT{C} NOT NULL, key TEXT{C} NOT NULL, value TEXT NOT NULL, PRIMARY KEY (task, key))""",
            """CREATE TABLE tracer_refits (
                task TEXT{C} NOT NULL, id TEXT{C} NOT NULL, started BIGINT NOT NULL, ended BIGINT, outcome TEXT,
                version BIGINT, reason TEXT NOT NULL, PRIMARY KEY (task, id))""",
            """CREATE TABLE tracer_imports (
                task TEXT{C} NOT NULL, sha256 TEXT{C} NOT NULL, path TEXT NOT NULL, rows BIGINT NOT NULL,
                imported_at BIGINT NOT NULL, PRIMARY KEY (task, sha256))""",
        ),
    ),
    Migration(
        2,
        "traces: form, group, key and kind of audit; the audit log",
        (
            "ALTER TABLE tracer_traces ADD COLUMN form TEXT",
            "ALTER TABLE tracer_traces ADD COLUMN group_id TEXT",
            "ALTER TABLE tracer_traces ADD COLUMN key_id TEXT",
            "ALTER TABLE tracer_traces ADD COLUMN audit_kind TEXT",
            """CREATE TABLE tracer_audit_log (
                task TEXT{C} NOT NULL, id TEXT{C} NOT NULL, at BIGINT NOT NULL, actor TEXT NOT NULL,
                action TEXT NOT NULL, target TEXT NOT NULL, outcome TEXT NOT NULL, details TEXT NOT NULL,
                PRIMARY KEY (task, id))""",
        ),
    ),
)


def migrate(
    database: Database, migrations: tuple[Migration, ...] = MIGRATIONS, *, lock_s: float = 1.0, pause_s: float = 1.0
) -> None:
    """Bring the schema up to date; without a missing migration it neither writes nor waits.

    Parameters
    ----------
    lock_s, pause_s : seconds to wait for a lock on Postgres, and until the next of 30 attempts

    Raises
    ------
    StoreError
        A newer release has applied a breaking migration.
    """
    with database.read() as connection:
        missing = _missing(connection, database, migrations)
    for left in reversed(range(_TRIES if missing else 0)):
        try:
            _apply_all(database, migrations, lock_s)
        except StoreError as error:
            if not left or getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) != _LOCKED:
                raise
            time.sleep(pause_s)
        else:
            return


def _apply_all(database: Database, migrations: tuple[Migration, ...], lock_s: float) -> None:
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            connection.execute(text(f"SET LOCAL lock_timeout = {int(1_000 * lock_s)}"))
        applied.create(connection, checkfirst=True)
        for migration in _missing(connection, database, migrations):  # another process may have been first
            _apply(connection, migration)


def _missing(connection: Connection, database: Database, migrations: tuple[Migration, ...]) -> tuple[Migration, ...]:
    if not inspect(connection).has_table(applied.name):
        return migrations
    done = {row.number: row for row in connection.execute(select(applied))}
    known = {migration.number for migration in migrations}
    for number in sorted(done.keys() - known):
        if done[number].breaking:
            raise StoreError(
                f"{database.name}: a newer tracer-serve has changed this store (migration {number},"
                f" {done[number].name!r}) and this release, {__version__}, cannot read it. Install the newer release"
            )
    return tuple(migration for migration in migrations if migration.number not in done)


def _apply(connection: Connection, migration: Migration) -> None:
    collation = ' COLLATE "C"' if connection.dialect.name == "postgresql" else ""
    for statement in migration.statements:
        connection.exec_driver_sql(statement.replace("{C}", collation))
    connection.execute(
        applied.insert().values(
            number=migration.number,
            name=migration.name,
            breaking=int(migration.breaking),
            applied_at=time.time_ns() // 1_000,
        )
    )
