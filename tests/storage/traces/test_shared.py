"""What processes share: leases, settings, the history of refits."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storage.traces.make import NOON, Workers
from tests.support.waiting import until
from tracer_serve.storage.traces import Refit, TraceStore


def test_one_holder_at_a_time(store: TraceStore, opened: Callable[[], TraceStore]) -> None:
    """A lease that is held is nobody else's until it is released; its holder may take it again."""
    other = opened()
    assert store.leases.acquire("refit", "me", 60)
    assert not other.leases.acquire("refit", "you", 60)
    assert store.leases.acquire("refit", "me", 60)
    assert other.leases.holder("refit") == "me"
    assert not other.leases.release("refit", "you")
    assert store.leases.release("refit", "me")
    assert other.leases.holder("refit") is None
    assert other.leases.acquire("refit", "you", 60)
    assert not store.leases.renew("refit", "me", 60)


def test_a_lease_runs_out(store: TraceStore) -> None:
    """A lease whose holder has died is free after its time, and its late holder learns that it is lost."""
    assert store.leases.acquire("refit", "dead", 0.05)
    until(lambda: store.leases.holder("refit") is None)
    assert store.leases.acquire("refit", "next", 60)
    assert not store.leases.renew("refit", "dead", 60)


def test_a_renewed_lease_lives_on(store: TraceStore) -> None:
    """Renewing moves the end of a lease."""
    assert store.leases.acquire("refit", "me", 1.0)
    assert store.leases.acquire("other", "me", 1.1)
    assert store.leases.renew("refit", "me", 60)
    until(lambda: store.leases.holder("other") is None)
    assert store.leases.holder("refit") == "me"


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_setting_the_clock_moves_no_lease(store: TraceStore, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """A wall clock that jumps by days neither frees a lease that is held nor prolongs one that has run out."""
    assert store.leases.acquire("held", "me", 60)
    assert store.leases.acquire("short", "me", 0.05)
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + int(jump * 1e9))
    until(lambda: store.leases.acquire("short", "you", 60))
    assert not store.leases.acquire("held", "you", 60)


def test_a_reboot_frees_leases(file_store: TraceStore, tmp_path: Path) -> None:
    """Leases on a file do not outlive the machine's run: their holders cannot."""
    assert file_store.leases.acquire("refit", "me", 3600)
    (tmp_path / "boot_id").write_text("another boot\n")
    file_store.leases.boot_id = tmp_path / "boot_id"
    assert file_store.leases.holder("refit") is None
    assert file_store.leases.acquire("refit", "you", 60)


def _script(location: Path | str, task: str, work: str) -> str:
    return f"store = open_store({str(location)!r}, {task!r})\n{work}\nstore.close()"


def test_processes_race_for_a_lease(location: Path | str, store: TraceStore, workers: Workers) -> None:
    """Of several processes that reach for a lease at the same moment exactly one gets it."""
    work = "result = [store.leases.acquire(f'lease {i}', f'holder {n}', 60) for i in range(20)]"
    got = workers.together(_script(location, store.task, work))
    assert [sum(one) for one in zip(*got, strict=True)] == [1] * 20


def test_settings(store: TraceStore) -> None:
    """A value comes back as it was put, is replaced, and is removed by None."""
    value = {"evidence": [1.5, None, "\x00 \ud800"], "closed": True}
    store.values.put("monitor", value)
    assert store.values.get("monitor") == value
    store.values.put("monitor", 0)
    assert store.values.get("monitor") == 0
    store.values.put("monitor", None)
    assert store.values.get("monitor") is None


def test_compare_and_set(store: TraceStore) -> None:
    """A value is written only if the present one is the expected one, whatever the order of its keys."""
    assert store.values.compare_and_set("gate", None, {"a": 1, "b": 2})
    assert not store.values.compare_and_set("gate", None, {"a": 9})
    assert not store.values.compare_and_set("gate", {"a": 1}, {"a": 9})
    assert store.values.compare_and_set("gate", {"b": 2, "a": 1}, {"a": 3})
    assert store.values.get("gate") == {"a": 3}
    assert store.values.compare_and_set("gate", {"a": 3}, None)
    assert store.values.get("gate") is None


def test_an_update_starts_again_when_it_was_overtaken(store: TraceStore) -> None:
    """A change that another writer overtook is computed again from the newer value; None removes it."""
    overtaken = iter([True, False])

    def change(value: int | None) -> int:
        if next(overtaken):
            store.values.put("n", 10)
        return (value or 0) + 1

    assert store.values.update("n", change) == store.values.get("n") == 11
    assert store.values.update("n", lambda _value: None) is None
    assert store.values.get("n") is None


def test_processes_count_together(location: Path | str, store: TraceStore, workers: Workers) -> None:
    """Updates of one value by several processes at once all count."""
    work = "for _ in range(15): store.values.update('n', lambda n: (n or 0) + 1)"
    workers.together(_script(location, store.task, work))
    assert store.values.get("n") == 45


def test_processes_add_together(location: Path | str, store: TraceStore, workers: Workers) -> None:
    """Rows and counts of several processes that write at once are all there."""
    work = """
from tests.storage.traces.make import trace
for batch in range(5):
    store.traces.add([trace(store.task, teacher_label=f"label {i % 4}") for i in range(40)])
"""
    workers.together(_script(location, store.task, work))
    assert store.traces.labelled_since(None) == store.tallies.counts().total.rows == 600
    assert store.tallies.counts().by_label == Counter({f"label {i}": 150 for i in range(4)})


def test_history_of_refits(store: TraceStore) -> None:
    """A refit is recorded when it starts, completed under the same id when it ends, newest first."""
    first, second = Refit("cron", started=NOON), Refit("alarm", started=NOON)
    store.refits.record(first)
    store.refits.record(second)
    ended = dataclasses.replace(first, ended=NOON, outcome="certified", version=3, reason="text with \x00")
    store.refits.record(ended)
    assert store.refits.recent() == [second, ended]
    assert store.refits.recent(1) == [second]
