"""No query of a server or a refit reads all rows: SQLite's own plan says which index it takes."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from tests.traces.make import NOON, handled, trace
from tracer_serve.traces import TraceStore

_CALLS: dict[str, Callable[[TraceStore], Any]] = {
    "get": lambda store: store.get("x"),
    "set_label": lambda store: store.set_label("x", "label", "audit"),
    "latest_id": lambda store: store.latest_id(),
    "labelled": lambda store: list(store.labelled("0", "x")),
    "columns": lambda store: store.columns("0"),
    "columns of all": lambda store: store.columns(labelled_only=False),
    "labelled_since": lambda store: store.labelled_since("0"),
    "recent": lambda store: store.recent(5, before_id="x"),
    "forget_user": lambda store: store.forget_user("u"),
    "counts": lambda store: store.counts(),
    "epochs": lambda store: store.epochs(),
    "activity": lambda store: store.activity(NOON),
}


@pytest.mark.parametrize("name", _CALLS)
def test_plans_use_an_index(file_store: TraceStore, name: str) -> None:
    """Every statement on the rows searches an index, and sorts nothing; counts do not touch the rows at all."""
    file_store.add([trace("task", metadata={"user": "u"}), handled("task")])
    statements: list[tuple[str, Any]] = []
    event.listen(
        file_store._db._engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, parameters, _context, many: statements.append(
            (statement, parameters[0] if many else parameters)
        ),
    )
    _CALLS[name](file_store)
    plans = []
    with file_store._db.read() as connection:
        for statement, parameters in [one for one in statements if "tracer_traces" in one[0]]:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            plans.append("; ".join(row[-1] for row in rows))
    assert bool(plans) == (name not in ("counts", "epochs", "activity"))
    for plan in plans:
        assert "SCAN" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan
