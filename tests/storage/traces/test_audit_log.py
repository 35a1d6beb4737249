"""The audit log of administrative acts."""

from datetime import timedelta
from pathlib import Path

from tests.storage.traces.make import NOON
from tracer_serve.storage.traces import AuditEntry, TraceStore, open_store
from tracer_serve.storage.traces.copy import copy_task


def test_entries_come_back_newest_first_and_filtered(store: TraceStore) -> None:
    """An entry keeps who, when, what, to what and with which outcome; a query pages and filters by actor and action."""
    entries = [
        AuditEntry(
            actor=f"key:{i % 2}",
            action="rollback" if i < 4 else "refit",
            target=f"version {i}",
            outcome="done" if i else "refused",
            details={"from": i},
            at=NOON + timedelta(minutes=i),
        )
        for i in range(6)
    ]
    for entry in entries:
        store.audit_log.record(entry)
    assert store.audit_log.recent() == entries[::-1]
    assert store.audit_log.recent(2) == entries[:3:-1]
    assert store.audit_log.recent(2, before_id=entries[4].id) == entries[3:1:-1]
    assert store.audit_log.recent(actor="key:1", action="rollback") == [entries[3], entries[1]]


def test_another_task_has_its_own_log(location: Path | str, store: TraceStore) -> None:
    """Two tasks in one database do not see each other's entries."""
    store.audit_log.record(AuditEntry("cli:ann@web-1", "forget"))
    other = open_store(location, f"{store.task}-other")
    assert other.audit_log.recent() == []
    other.close()


def test_a_copy_of_a_store_has_the_log(store: TraceStore, location: Path | str, tmp_path: Path) -> None:
    """`traces copy` brings the audit log along, and only once."""
    entry = AuditEntry("cli:ann@web-1", "gate.close", details={"reason": "a new product"})
    store.audit_log.record(entry)
    for _ in range(2):
        copy_task(location, tmp_path / "copy.db", store.task, lambda *_: None)
    target = open_store(tmp_path / "copy.db", store.task)
    assert target.audit_log.recent() == [entry]
    target.close()
