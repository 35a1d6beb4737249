"""Speed of a trace store as it grows: rows are inserted in bulk, and every query is timed at each tenth.

``python -m bench.store --database postgres --rows 10000000`` starts a Postgres of its own
(Debian's packages, default settings) unless ``--url`` names a server; ``--database sqlite`` writes a file. The
rows are a month of traffic: 30 % deferred and labelled, 70 % handled, 3 % of those audited, a version a day.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table
from sqlalchemy import event

from tests.storage.traces import postgres
from tracer_serve.cli.console import out
from tracer_serve.storage.traces import TraceStore, new_id, open_store
from tracer_serve.types import Trace

_TASK, _PAGE, _CHECKS, _REPEATS, _LABELS = "bench", 10_000, 10, 5, 77
_BEGAN = datetime(2026, 10, 20, tzinfo=UTC)
_WINDOW, _RECENT = 50_000, 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """The store at one size.

    Parameters
    ----------
    rows : in the store
    insert_rps : rows a second since the last look, the queries not counted; None at a store that was filled before
    window_s : reading the newest 50,000 rows' labelled ones as columns, as a refit does
    snapshot_s : reading all labelled rows as columns; at the last size only
    prune_rps : rows without a label removed a second, without pauses, the oldest tenth; at the last size only
    query_ms : median of five, per query
    pages : of 8 kB that Postgres touches for a query, which no other work on the machine can change
    disk_mb : size of the database
    """

    system: str
    dataset: str
    rows: int
    insert_rps: float | None
    window_s: float
    query_ms: dict[str, float]
    disk_mb: float
    snapshot_s: float | None = None
    pages: dict[str, int] = field(default_factory=dict)
    prune_rps: float | None = None


def month(start: int, count: int, total: int, rng: np.random.Generator) -> list[Trace]:
    """Return rows `start` to `start + count` of a month that has `total`."""
    draws, labels = rng.random((count, 2)).tolist(), rng.integers(0, _LABELS, (count, 2)).tolist()
    span = timedelta(days=30) / total
    return [_trace(start + i, (start + i) * span, draws[i], labels[i]) for i in range(count)]


def _trace(number: int, after: timedelta, draws: list[float], labels: list[int]) -> Trace:
    (u, kind), (given, guessed) = draws, labels
    ts, audit, handled = _BEGAN + after, u < 0.03, kind < 0.7
    labelled = audit or not handled
    return Trace(
        id=new_id(),
        ts=ts,
        task=_TASK,
        input=f"{number}: why was my card declined when I paid for number {given} in the shop at the corner",
        teacher_label=f"label_{given}" if labelled else None,
        label_source=("audit" if handled else "teacher") if labelled else None,
        surrogate_label=f"label_{given if kind < 0.95 else guessed}",
        score=kind,
        decision="handled" if handled else "deferred",
        propensity=0.03,
        version=1 + (ts - _BEGAN).days,
        audit_rate=0.03,
        u=u,
        teacher_fingerprint="teacher" if labelled else None,
        usage={"prompt_tokens": 80, "completion_tokens": 4} if labelled else {},
        cost=1e-5 if labelled else 0.0,
        latency_ms={"total": 1.5},
        metadata={"user": f"user {number % 10_000}"} if number % 10 == 0 else {},
    )


def queries(store: TraceStore, recent: str, some: str) -> dict[str, Callable[[], Any]]:
    """Return the queries of servers, dashboard and schedule."""
    now, label = _BEGAN + timedelta(days=30), itertools.count()
    return {
        "add one": lambda: store.traces.add(month(0, 1, 1, np.random.default_rng(0))),
        "set_label": lambda: store.traces.set_label(some, f"label_{next(label)}", "human"),
        "get": lambda: store.traces.get(some),
        "recent 50": lambda: store.traces.recent(50),
        "labelled_since": lambda: store.traces.labelled_since(recent),
        "counts": store.tallies.counts,
        "epochs": store.tallies.by_version,
        "activity 24 h": lambda: store.tallies.activity(now - timedelta(hours=24)),
        "get_value": lambda: store.values.get("gate.closing"),
        "lease": lambda: store.leases.acquire("bench", "me", 60.0),
    }


def measure(store: TraceStore, system: str, rows: int, size: Callable[[], float], *, quiet: bool) -> Iterator[Row]:
    """Fill the store up to `rows` rows; yield the measurements at the start and at each tenth."""
    rng, there = np.random.default_rng(0), store.tallies.counts().total.rows
    if there:
        yield look(store, system, there, size, last=there >= rows)
    step, spent, since, oldest = rows / _CHECKS, 0.0, 0, ""
    for start in track(range(there, rows, _PAGE), f"{system}: {rows:,} rows", disable=quiet):
        page = month(start, _PAGE, rows, rng)
        began = time.perf_counter()
        store.traces.add(page)
        spent += time.perf_counter() - began
        since += _PAGE
        if start // step != (start + _PAGE) // step:
            done, oldest = start + _PAGE, oldest or page[-1].id
            row = look(store, system, done, size, rate=since / spent, last=done >= rows)
            yield replace(row, prune_rps=_prune_rps(store, oldest)) if done >= rows else row
            spent, since = 0.0, 0


def _prune_rps(store: TraceStore, before: str) -> float:
    began = time.perf_counter()
    return sum(store.retention.prune(before)) / (time.perf_counter() - began)


def look(
    store: TraceStore, system: str, rows: int, size: Callable[[], float], *, rate: float | None = None, last: bool
) -> Row:
    """Time every query."""
    newest = [trace.id for trace in store.traces.recent(_WINDOW)]
    calls = queries(store, newest[min(_RECENT, len(newest) - 1)], newest[len(newest) // 2])
    asked = {name: _median_ms(ask) for name, ask in calls.items()}
    pages = {name: _pages(store, ask) for name, ask in calls.items()} if system == "postgres" else {}
    window = _seconds(lambda: store.traces.columns(after_id=newest[-1]))
    whole = _seconds(store.traces.columns) if last else None
    return Row(system, "a month", rows, rate, window, asked, size(), whole, pages)


def _pages(store: TraceStore, call: Callable[[], Any]) -> int:
    """Run a call, then ask Postgres what its statements touch; a row cannot be inserted twice, so that is left out."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        statements.append((statement, parameters[0] if many else parameters))

    engine = store.database._engine  # noqa: SLF001  # no store needs to be looked at so but here
    event.listen(engine, "before_cursor_execute", note)
    call()
    event.remove(engine, "before_cursor_execute", note)
    found = 0
    with store.database.session() as connection:
        transaction = connection.begin()
        for statement, parameters in statements:
            if statement.startswith(("SELECT", "UPDATE", "INSERT INTO tracer_leases")):
                plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters).scalars().all()
                first = next((line for line in plan if "Buffers:" in line), "")
                found += sum(map(int, re.findall(r"(?:hit|read)=(\d+)", first)))
        transaction.rollback()
    return found


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _median_ms(work: Callable[[], Any]) -> float:
    return 1e3 * statistics.median(_seconds(work) for _ in range(_REPEATS))


@contextmanager
def location(database: str, url: str | None) -> Iterator[tuple[Path | str, Callable[[TraceStore], float]]]:
    """Yield the store's URL, and a function of its size in MB; remove the store afterwards."""
    if url is not None:
        yield url, _postgres_mb
    elif database == "postgres":
        if reason := postgres.missing():
            raise SystemExit(reason)
        with postgres.server() as started:
            yield started, _postgres_mb
    else:
        folder = Path(tempfile.mkdtemp(prefix="tracer-bench-"))
        try:
            yield folder / "traces.db", lambda _: (folder / "traces.db").stat().st_size / 1e6
        finally:
            shutil.rmtree(folder)


def _postgres_mb(store: TraceStore) -> float:
    with store.database.read() as connection:  # only this benchmark needs the size
        size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    return float(size) / 1e6


def show(found: Sequence[Row]) -> None:
    """Print a table for people: one column per size."""
    table = Table("", *(f"{row.rows:,}" for row in found), title=found[0].system)
    table.add_row("insert, rows/s", *("" if row.insert_rps is None else f"{row.insert_rps:,.0f}" for row in found))
    table.add_row("newest 50,000, s", *(f"{row.window_s:.2f}" for row in found))
    table.add_row("all, s", *("" if row.snapshot_s is None else f"{row.snapshot_s:.1f}" for row in found))
    table.add_row("prune, rows/s", *("" if row.prune_rps is None else f"{row.prune_rps:,.0f}" for row in found))
    for name in found[0].query_ms:
        table.add_row(f"{name}, ms", *(f"{row.query_ms[name]:.2f}" for row in found))
    for name in found[0].pages:
        table.add_row(f"{name}, pages", *(f"{row.pages[name]:,}" for row in found))
    table.add_row("disk, MB", *(f"{row.disk_mb:,.0f}" for row in found))
    out.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="in multiples of 100,000")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--url", help="an existing Postgres database; what a run left there is gone on from")
    parser.add_argument("--log", type=Path, help="file that each look is added to at once, as a JSON line")
    parser.add_argument("--json", action="store_true", help="JSON rows")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with location(options.database, options.url) as (where, size):
        store = open_store(where, _TASK)
        try:
            rows = max(1, round(options.rows / (_CHECKS * _PAGE))) * _CHECKS * _PAGE
            found = []
            for row in measure(store, options.database, rows, lambda: size(store), quiet=options.json):
                found.append(row)
                if options.log:
                    with options.log.open("a", encoding="utf-8") as log:
                        log.write(json.dumps(asdict(row)) + "\n")
        finally:
            store.close()
    if options.json:
        print(json.dumps([asdict(row) for row in found]))
    else:
        show(found)


if __name__ == "__main__":
    main()
