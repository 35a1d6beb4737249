"""How the last refit ended, by the history and by the schedule."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tracer_serve.errors import FitError
from tracer_serve.lifecycle.refit_history import LAST, last_refit, refits_as_json
from tracer_serve.lifecycle.refit_session import recorded
from tracer_serve.storage.traces import Refit, TraceStore, open_store

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SEEN = {"trigger": "cron", "outcome": "failed", "version": None, "message": "error: one label only"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    """A store without refits."""
    made = open_store(tmp_path / "traces.db", "t")
    yield made
    made.close()


def note(store: TraceStore, minutes: int, outcome: str | None, version: int | None = None) -> None:
    """Note a refit by hand that started so many minutes ago, and ended half a minute later if it has an outcome."""
    started = NOW - timedelta(minutes=minutes)
    ended = started + timedelta(seconds=30) if outcome else None
    store.refits.record(
        Refit("hand", id=f"{100 - minutes:03}", started=started, ended=ended, outcome=outcome, version=version)
    )


def test_a_refit_by_hand_is_the_last_one(store: TraceStore) -> None:
    """It is told though no schedule saw it; what a schedule saw later is told instead, with its reason."""
    assert last_refit(store, under_way=False) is None
    note(store, 9, "certified", 2)
    told = {"trigger": "hand", "outcome": "certified", "version": 2, "ended": "2026-11-01T11:51:30+00:00"}
    assert last_refit(store, under_way=False) == told | {"message": "version 2 was certified"}
    store.values.put(LAST, SEEN | {"ended": "2026-11-01T11:40:00+00:00"})
    assert last_refit(store, under_way=False) == told | {"message": "version 2 was certified"}
    store.values.put(LAST, SEEN | {"ended": "2026-11-01T11:55:00+00:00"})
    assert last_refit(store, under_way=False) == SEEN | {"ended": "2026-11-01T11:55:00+00:00"}


def test_a_refit_without_an_end_was_killed_unless_it_runs(store: TraceStore) -> None:
    """While one runs the one before is the last; without it, and in any case for older ones, no end is a kill."""
    note(store, 9, None)
    note(store, 5, "abstained", 3)
    note(store, 1, None)
    assert [entry["outcome"] for entry in refits_as_json(store, 8, under_way=True)] == [None, "abstained", "killed"]
    assert [entry["outcome"] for entry in refits_as_json(store, 8, under_way=False)] == [
        "killed",
        "abstained",
        "killed",
    ]
    running, killed = last_refit(store, under_way=True), last_refit(store, under_way=False)
    assert running is not None
    assert killed is not None
    assert (running["version"], killed["outcome"]) == (3, "killed")


def test_the_message_of_a_failure_is_told_however_slow_the_store(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history's own entry, which has no message, never passes for a later refit."""
    for part, name in ((store.refits, "record"), (store.values, "put")):
        monkeypatch.setattr(part, name, _slowly(getattr(part, name)))
    with pytest.raises(FitError), recorded(store, "cron"):
        raise FitError("too few traces")
    found = last_refit(store, under_way=False)
    assert found is not None
    assert found["message"] == "too few traces"


def _slowly(work: Callable[..., object]) -> Callable[..., object]:
    def later(*words: object) -> object:
        found = work(*words)
        time.sleep(1.01)  # moments are kept in whole seconds
        return found

    return later
