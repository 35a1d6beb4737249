"""The most audits a day, over all processes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tracer_serve.serving.audit_rate import AuditBudget
from tracer_serve.storage.traces import TraceStore, open_store

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    """An empty store."""
    opened = open_store(tmp_path / "traces.db", "colours")
    yield opened
    opened.close()


def drain(purse: AuditBudget) -> int:
    """Ask for as many audits as the purse allows, and return their number."""
    asked = 0
    while not purse.empty:
        purse.pay()
        asked += 1
    return asked


@pytest.mark.parametrize("budget", [0, 1, 10, 1_000])
def test_processes_that_audit_all_they_may_keep_the_budget_together(store: TraceStore, budget: int) -> None:
    """Three processes at a rate of 1, looking every ten seconds until midnight, spend the budget, and no audit more."""
    purses = [AuditBudget(budget) for _ in range(3)]
    asked = [0]
    for tick in range(0, 12 * 360, 8):
        for purse in purses:
            purse.fill(store, sum(asked), NOON + timedelta(seconds=10 * tick))
            asked.append(drain(purse))
    assert sum(asked) == budget
    assert max(asked) <= -(-budget // 12)


def test_a_new_day_has_a_budget_of_its_own_and_what_was_answered_before_counts(store: TraceStore) -> None:
    """A store of an older release tells 95 answers: 5 are left today, and at midnight what was held lapses."""
    purse = AuditBudget(100)
    purse.fill(store, 95, NOON)
    assert not purse.empty
    purse.fill(store, 0, NOON + timedelta(hours=12))
    assert drain(purse) == 5  # 100 / 24 hours, rounded up
    late = AuditBudget(100)
    late.fill(store, 100, NOON)
    assert late.empty


def test_without_a_budget_nothing_is_counted_in_the_store(store: TraceStore) -> None:
    """No budget allows every audit, and writes nothing."""
    purse = AuditBudget(None)
    purse.fill(store, 10**6, NOON)
    purse.pay()
    assert not purse.empty
    assert store.values.get("audit_budget") is None
