"""Rows that nobody labelled go after a time; labels, counts and whoever writes meanwhile do not notice."""

import random
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.storage.traces.make import handled, process, trace
from tracer_serve.errors import BusyError, StoreError
from tracer_serve.lifecycle.retention import LEASE, LEAST, cutoff, prune
from tracer_serve.storage.traces import TraceStore, first_id, new_id, open_store
from tracer_serve.storage.traces.copy import copy_task

_DAY = timedelta(days=1)


def later(days: float) -> str:
    """Return an id of a time to come: to whoever looks from there, what is here now is old."""
    return first_id(datetime.now(UTC) + timedelta(days=days))


def fill(store: TraceStore, n: int = 6) -> list[str]:
    """Add rows of every kind; return the ids of those that may go."""
    rows = [trace(store.task, f"deferred {i}") for i in range(n)]
    rows += [trace(store.task, f"imported {i}", decision=None, label_source="import") for i in range(n)]
    free = [handled(store.task, f"handled {i}", hours=i) for i in range(n)]
    free += [handled(store.task, f"degraded {i}", decision="degraded") for i in range(n)]
    free += [handled(store.task, f"failed {i}", decision="deferred", cost=0.5) for i in range(n)]
    told = [handled(store.task, f"told {i}") for i in range(n)]
    mixed = [*rows, *free, *told]
    random.Random(0).shuffle(mixed)
    store.traces.add(mixed)
    for i, row in enumerate(told):
        store.traces.set_label(row.id, "card_arrival", "audit" if i % 2 else "human")
    return sorted(row.id for row in free)


def test_what_is_labelled_stays_and_counts_stay(store: TraceStore) -> None:
    """Exactly the old rows without a label go, and no count, epoch or hour of the dashboard changes."""
    store.retention.page_rows = 4
    free, labelled = fill(store), list(store.traces.labelled())
    before = (
        store.tallies.counts(),
        store.tallies.by_version(),
        store.tallies.activity(datetime(2026, 1, 1, tzinfo=UTC)),
    )
    assert store.retention.prunable(later(1)) == len(free)
    assert sum(store.retention.prune(later(1))) == len(free)
    assert [row.id for row in store.traces.recent(1_000) if row.id in free] == []
    assert list(store.traces.labelled()) == labelled
    assert (
        store.tallies.counts(),
        store.tallies.by_version(),
        store.tallies.activity(datetime(2026, 1, 1, tzinfo=UTC)),
    ) == before
    assert store.tallies.pruned_rows() == len(free)
    assert store.traces.count() == before[0].total.rows - len(free)


def test_young_rows_stay_until_they_are_old(store: TraceStore) -> None:
    """What is younger than the age stays, and goes with a later look, which does not walk over the rest again."""
    old, border = handled(store.task), new_id()
    young = handled(store.task)
    store.traces.add([old, young])
    assert list(store.retention.prune(border)) == [1]
    assert [store.traces.get(row.id) is None for row in (old, young)] == [True, False]
    assert store.retention.pruned_until() == border
    assert list(store.retention.prune(border)) == []
    assert sum(store.retention.prune(later(1))) == 1


def test_a_label_that_comes_meanwhile_keeps_its_row(store: TraceStore, opened: Callable[[], TraceStore]) -> None:
    """Feedback, new rows and removal at the same time: each row is labelled and there, or gone, and all are counted."""
    store.retention.page_rows = 7
    free, other, kept, said = fill(store, 40), opened(), list[str](), threading.Event()

    def talk() -> None:
        for number, trace_id in enumerate(reversed(free)):
            if other.traces.set_label(trace_id, "card_arrival", "human"):
                kept.append(trace_id)
            other.traces.add([handled(store.task, f"new {number}")])
            said.set()

    talking, until, removed = threading.Thread(target=talk), new_id(), 0
    talking.start()
    said.wait()
    for rows in store.retention.prune(until):
        removed += rows
        time.sleep(0.002)
    talking.join()
    assert kept
    assert removed + len(kept) == len(free)
    assert {row.id for row in store.traces.labelled()} >= {*kept}
    assert store.tallies.counts().total.rows == store.traces.count() + store.tallies.pruned_rows()
    assert store.tallies.counts().by_source["human"] == sum(
        row.label_source == "human" for row in store.traces.labelled()
    )


_PRUNER = """
import sys
from tracer_serve.storage.traces import open_store
store = open_store(sys.argv[1], sys.argv[2])
store.retention.page_rows = 5
for removed in store.retention.prune(sys.argv[3]):
    print(removed, flush=True)
"""


def test_a_killed_removal_is_gone_on_with(location: Path | str, store: TraceStore) -> None:
    """After kill -9 in the middle the counts are those of the rows, and the next removal ends what was begun."""
    free = fill(store, 300)
    total = store.tallies.counts().total
    pruner = process(_PRUNER, location, store.task, later(1))
    assert pruner.stdout is not None
    told = sum(int(pruner.stdout.readline()) for _ in range(9))
    pruner.send_signal(signal.SIGKILL)
    _, complaint = pruner.communicate()
    assert pruner.returncode == -signal.SIGKILL, complaint
    assert store.tallies.counts().total == total
    assert total.rows == store.traces.count() + store.tallies.pruned_rows()
    assert told <= store.tallies.pruned_rows() < len(free)
    sum(store.retention.prune(later(1)))
    assert (store.tallies.pruned_rows(), store.tallies.counts().total) == (len(free), total)


def test_one_at_a_time_and_a_stop_is_heard(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second remover is refused; one that is told to stop ends after its batch and gives the lease back."""
    store.retention.page_rows = 4
    fill(store)
    monkeypatch.setattr("tracer_serve.lifecycle.retention.cutoff", lambda _: later(1))
    told: list[int] = []
    assert store.leases.acquire(LEASE, "somebody", 60.0)
    with pytest.raises(BusyError, match=r"are being deleted already by somebody"):
        prune(store, _DAY)
    store.leases.release(LEASE, "somebody")
    removed = prune(store, _DAY, progress=told.append, pause=lambda _: len(told) == 2)
    assert removed == told[-1] == store.tallies.pruned_rows()
    assert (len(told), store.leases.holder(LEASE)) == (2, None)
    assert prune(store, _DAY) == 18 - removed


def test_rows_of_the_last_hour_never_go() -> None:
    """Their audit may be under way: an age below an hour is refused."""
    assert cutoff(LEAST) < new_id()
    with pytest.raises(ValueError, match="may still receive a label"):
        cutoff(LEAST - timedelta(seconds=1))


def test_a_copy_knows_what_went(tmp_path: Path, location: Path | str, task: str) -> None:
    """A store that let rows go arrives with its counts; what goes between two copies goes from the target too."""
    source, target = open_store(location, task), open_store(tmp_path / "target.db", task)
    fill(source)
    copy_task(location, tmp_path / "target.db", task, lambda *_: None)
    assert sum(source.retention.prune(new_id())) == 18
    fill(source)
    for _ in range(2):
        copy_task(location, tmp_path / "target.db", task, lambda *_: None)
        assert target.tallies.counts() == source.tallies.counts()
        assert (target.tallies.pruned_rows(), target.traces.count()) == (
            source.tallies.pruned_rows(),
            source.traces.count(),
        )
        assert target.retention.pruned_until() == source.retention.pruned_until()
    sum(target.retention.prune(later(2)))
    with pytest.raises(StoreError, match=r"would restore them.*traces prune"):
        copy_task(location, tmp_path / "target.db", task, lambda *_: None)
    for store in (source, target):
        store.close()
