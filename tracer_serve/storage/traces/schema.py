"""The tables in SQLAlchemy Core; `migrations` creates them, and a test compares the two.

Texts are packed and JSON is dumped (see `codec`).
"""

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

metadata = MetaData()

applied = Table(
    "tracer_migrations",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("breaking", Integer, nullable=False),
    Column("applied_at", BigInteger, nullable=False),
)

traces = Table(
    "tracer_traces",
    metadata,
    Column("task", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("ts", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("input", Text, nullable=False),
    Column("teacher_label", Text),
    Column("label_source", Text),
    Column("surrogate_label", Text),
    Column("score", Double),
    Column("decision", Text),
    Column("propensity", Double, nullable=False),
    Column("version", BigInteger),
    Column("audit_rate", Double, nullable=False),
    Column("u", Double, nullable=False),
    Column("teacher_fingerprint", Text),
    Column("usage", Text, nullable=False),
    Column("cost", Double, nullable=False),
    Column("latency_ms", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("user_id", Text),  # a copy of metadata.user, for its index
    Column("form", Text),
    Column("group_id", Text),
    Column("key_id", Text),
    Column("audit_kind", Text),
)

tallies = Table(
    "tracer_tallies",
    metadata,
    Column("task", Text, primary_key=True),
    Column("writer", Integer, primary_key=True),  # each process has rows of its own, so none waits for another
    Column("hour", BigInteger, primary_key=True),  # hours since 1970, UTC
    Column("version", BigInteger, primary_key=True),  # -1: none
    Column("decision", Text, primary_key=True),  # '': imported
    Column("source", Text, primary_key=True),  # '': not labelled
    Column("agreed", Integer, primary_key=True),  # 1, 0, or -1 without two labels to compare
    Column("n", BigInteger, nullable=False),
    Column("cost", Double, nullable=False),
)

label_tallies = Table(
    "tracer_label_tallies",
    metadata,
    Column("task", Text, primary_key=True),
    Column("writer", Integer, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
)

leases = Table(
    "tracer_leases",
    metadata,
    Column("task", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

settings = Table(
    "tracer_settings",
    metadata,
    Column("task", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

refits = Table(
    "tracer_refits",
    metadata,
    Column("task", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("outcome", Text),
    Column("version", BigInteger),
    Column("reason", Text, nullable=False),
)

imports = Table(
    "tracer_imports",
    metadata,
    Column("task", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("imported_at", BigInteger, nullable=False),
)

audit_log = Table(
    "tracer_audit_log",
    metadata,
    Column("task", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("details", Text, nullable=False),
)
