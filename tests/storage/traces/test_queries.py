"""No query of a server or a refit reads all rows: the databases' own plans say which index they take."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import event

from tests.storage.traces.make import NOON, handled, trace
from tracer_serve.storage.traces import TraceStore, open_store

_CALLS: dict[str, Callable[[TraceStore], Any]] = {
    "get": lambda store: store.traces.get("x"),
    "set_label": lambda store: store.traces.set_label("x", "label", "audit"),
    "latest_id": lambda store: store.traces.latest_id(),
    "labelled": lambda store: list(store.traces.labelled("0", "x")),
    "columns": lambda store: store.traces.columns("0"),
    "newest": lambda store: store.traces.columns(newest=store.traces.newest(0, 1)),
    "columns of all": lambda store: store.traces.columns(labelled_only=False),
    "labelled_since": lambda store: store.traces.labelled_since("0"),
    "recent": lambda store: store.traces.recent(5, before_id="x"),
    "prune": lambda store: list(store.retention.prune("z")),
    "prunable": lambda store: store.retention.prunable("z"),
    "forget_user": lambda store: store.users.forget("u"),
    "counts": lambda store: store.tallies.counts(),
    "epochs": lambda store: store.tallies.by_version(),
    "activity": lambda store: store.tallies.activity(NOON),
}


@pytest.mark.parametrize("name", _CALLS)
def test_plans_use_an_index(file_store: TraceStore, name: str) -> None:
    """Every statement on the rows searches an index, and sorts nothing; counts do not touch the rows at all."""
    found = plans(file_store, name, "EXPLAIN QUERY PLAN")
    assert bool(found) == (name not in ("counts", "epochs", "activity"))
    for plan in found:
        assert "SCAN" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan


@pytest.mark.parametrize("name", _CALLS)
def test_plans_of_postgres_use_an_index(postgres_url: str, task: str, name: str) -> None:
    """The same on Postgres, once it is kept from what is cheaper on a table of two rows."""
    store = open_store(postgres_url, task)
    settings = [f"SET LOCAL enable_{what} = off" for what in ("seqscan", "bitmapscan", "sort")]
    for plan in plans(store, name, "EXPLAIN", settings):
        assert re.search(r"Index (Only )?Scan|^Insert on", plan), plan
        assert not re.search(r"Seq Scan|Sort", plan), plan
    store.close()


def plans(store: TraceStore, name: str, explain: str, settings: Sequence[str] = ()) -> list[str]:
    """Return the plan of every statement on the rows that a call makes."""
    store.traces.add([trace(store.task, metadata={"user": "u"}), handled(store.task)])
    statements: list[tuple[str, Any]] = []
    event.listen(
        store.database._engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, parameters, _context, many: statements.append(
            (statement, parameters[0] if many else parameters)
        ),
    )
    _CALLS[name](store)
    found = []
    with store.database.read() as connection:
        for setting in settings:
            connection.exec_driver_sql(setting)
        for statement, parameters in [one for one in statements if "tracer_traces" in one[0]]:
            rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
            found.append("; ".join(str(row[-1]) for row in rows))
    return found
