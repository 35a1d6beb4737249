"""The counts are kept beside the rows: whatever is done, they say what the rows say."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.storage.traces.make import NOON, handled, trace
from tracer_serve.storage.traces import Tally, TraceStore
from tracer_serve.types import Answer, Trace


def _random_trace(rng: random.Random, task: str) -> Trace:
    guess = rng.choice(["a", "b", None])
    common: dict[str, Any] = {"surrogate_label": guess, "version": rng.choice([None, 1, 2]), "hours": rng.randrange(60)}
    user = {"user": rng.choice("xyz")}
    if rng.random() < 0.5:
        return handled(task, metadata=user, **common)
    label, source = rng.choice(["a", "b", "c"]), rng.choice(["teacher", "import"])
    decision = None if source == "import" else rng.choice(["deferred", "degraded"])
    return trace(task, teacher_label=label, label_source=source, decision=decision, cost=0.25, metadata=user, **common)


def test_counts_are_the_truth(store: TraceStore, opened: Callable[[], TraceStore]) -> None:
    """After random adds, repeats, labels and removals by two stores, every count equals the count over the rows."""
    rng, stores = random.Random(5), (store, opened())
    for _ in range(12):
        made = [_random_trace(rng, store.task) for _ in range(rng.randrange(1, 30))]
        rng.choice(stores).traces.add(made)
        rng.choice(stores).traces.add(made[:2])
        for one in rng.sample(made, k=min(4, len(made))):
            rng.choice(stores).traces.set_label(
                one.id, rng.choice("abc"), rng.choice(["audit", "human"]), Answer("", cost=0.5)
            )
    store.users.forget("y")
    rows, counts = store.traces.recent(10_000), stores[1].tallies.counts()
    assert counts.by_decision == Counter(row.decision for row in rows)
    assert counts.by_source == Counter(row.label_source for row in rows)
    assert counts.by_label == Counter(row.teacher_label for row in rows if row.teacher_label is not None)
    assert counts.total == _tally(rows)
    assert store.tallies.by_version() == {
        version: _tally([row for row in rows if row.version == version]) for version in {row.version for row in rows}
    }


def _tally(rows: list[Trace]) -> Tally:
    audits = [row for row in rows if row.label_source == "audit"]
    kinds = Counter(row.decision for row in rows)
    return Tally(
        rows=len(rows),
        labelled=sum(row.teacher_label is not None for row in rows),
        handled=kinds["handled"],
        deferred=kinds["deferred"],
        degraded=kinds["degraded"],
        audits=len(audits),
        agreed=sum(row.teacher_label == row.surrogate_label for row in audits),
        cost=sum(row.cost for row in rows if row.decision in ("deferred", "degraded")),
        audit_cost=sum(row.cost for row in rows if row.decision == "handled"),
    )


def test_activity_by_hour_and_day(store: TraceStore) -> None:
    """Rows are counted in the hour and in the day (UTC) in which they happened, from the hour asked for on."""
    store.traces.add([trace(store.task, hours=hours, cost=1.0) for hours in (0, 0, 1, 12, 13)])
    store.traces.add([handled(store.task, hours=1)])
    hours = store.tallies.activity(NOON - timedelta(hours=1), NOON + timedelta(hours=1))
    assert [(start.hour, tally.requests, tally.coverage) for start, tally in hours] == [(12, 2, 0.0), (13, 2, 0.5)]
    days = store.tallies.activity(NOON, by="day")
    assert [(start, tally.rows, tally.cost) for start, tally in days] == [
        (datetime(2026, 11, 22, tzinfo=UTC), 4, 3.0),
        (datetime(2026, 11, 23, tzinfo=UTC), 2, 2.0),
    ]


def test_shares_of_nothing_are_none(store: TraceStore) -> None:
    """Without requests there is no coverage, without audits no agreement: None, not a made-up number."""
    assert store.tallies.counts().total == Tally()
    assert (store.tallies.counts().total.coverage, store.tallies.counts().total.agreement) == (None, None)


def test_agreement_is_over_audits(store: TraceStore) -> None:
    """Agreement is the share of audited rows where surrogate and teacher agree; deferred rows do not enter."""
    rows = [handled(store.task) for _ in range(4)]
    store.traces.add([*rows, trace(store.task, teacher_label="other")])
    for row, label in zip(rows, ["card_arrival"] * 3 + ["other"], strict=True):
        store.traces.set_label(row.id, label, "audit")
    assert store.tallies.counts().total.agreement == pytest.approx(0.75)


def test_audits_of_repeats_are_no_sample_of_the_agreement(store: TraceStore) -> None:
    """The burst breaker chooses what it audits, so these labels count as `burst` and not among the audits."""
    row = handled(store.task, surrogate_label="a", version=1, audit_kind="burst")
    store.traces.add([row])
    store.traces.set_label(row.id, "b", "audit", Answer("b", cost=0.5))
    counts = store.tallies.counts()
    assert (counts.total.audits, counts.total.labelled, counts.by_source) == (0, 1, {"burst": 1})
