"""Moving a store: everything arrives, once, and a repetition brings only what is new."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storage.traces.make import handled, trace
from tests.support.tiny import tiny_task
from tracer_serve.cli.main import main
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces import Refit, TraceStore, new_id, open_store
from tracer_serve.storage.traces.copy import Copied, copy_task, tasks_of
from tracer_serve.storage.traces.export import Transfer


def silent(_stage: str, _done: int, _total: int) -> None:
    pass


def fill(store: TraceStore) -> list[str]:
    """Put something of every kind into a store; return ids of a labelled row and of one without."""
    task = store.task
    rows = [trace(task, f"text {i}", metadata={"user": "u"}) for i in range(6)]
    rows += [trace(task, ("a", "nul \x00")), handled(task)]
    store.traces.add(rows)
    store.values.put("versions.current", 3)
    store.values.put("refit.progress", {"stage": "x"})
    store.refits.record(Refit(reason="hand", outcome="certified", version=3))
    store.imports.add([trace(task, "imported", decision=None)], sha256="abc", path="file.jsonl")
    store.leases.acquire("refit", "somebody", 60.0)
    return [rows[0].id, rows[-1].id]


def everything(store: TraceStore) -> object:
    return (
        [row for page in store.transfer.pages(None) for row in page],
        store.tallies.counts(),
        store.values.get("versions.current"),
        store.refits.recent(),
        store.imports.contains("abc"),
    )


def test_everything_arrives_and_comes_back(
    tmp_path: Path, postgres_url: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, counts, values, history and notes of imports are the same after SQLite to Postgres to SQLite."""
    monkeypatch.setattr(Transfer, "page_rows", 4)
    first = open_store(tmp_path / "first.db", task)
    fill(first)
    rows = first.tallies.counts().total.rows
    assert copy_task(tmp_path / "first.db", postgres_url, task, silent) == Copied(task, rows, rows, 0, rows)
    assert copy_task(postgres_url, tmp_path / "again.db", task, silent) == Copied(task, rows, rows, 0, rows)
    middle, again = open_store(postgres_url, task), open_store(tmp_path / "again.db", task)
    assert everything(first) == everything(middle) == everything(again)
    for store in (middle, again):
        assert (store.values.get("refit.progress"), store.leases.holder("refit")) == (None, None)
    assert tasks_of(tmp_path / "again.db") == [task]
    for store in (first, middle, again):
        store.close()


def test_a_repetition_brings_what_is_new(
    location: Path | str, tmp_path: Path, task: str, opened: Callable[[], TraceStore]
) -> None:
    """New rows and new labels come; a label of the target stays, but for a person's; rows of its own stay too."""
    source, target = open_store(tmp_path / "source.db", task), opened()
    labelled, open_row = fill(source)
    copy_task(tmp_path / "source.db", location, task, silent)
    source.traces.set_label(open_row, "late", "audit")
    source.traces.set_label(labelled, "corrected", "human")
    source.traces.add([trace(task, "new")])
    target.traces.add([trace(task, "its own")])
    done = copy_task(tmp_path / "source.db", location, task, silent)
    assert (done.new, done.labelled, done.rows) == (1, 2, 10)
    assert [target.traces.get(one).teacher_label for one in (labelled, open_row)] == ["corrected", "late"]  # type: ignore[union-attr]
    assert (target.tallies.counts().total.rows, target.tallies.counts().by_label["corrected"]) == (11, 1)
    source.traces.set_label(open_row, "later", "audit")
    assert copy_task(tmp_path / "source.db", location, task, silent).labelled == 0
    assert target.traces.get(open_row).teacher_label == "late"  # type: ignore[union-attr]
    source.close()


def test_an_interrupted_copy_is_gone_on_with(tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied before the interruption stays and is not copied twice."""
    monkeypatch.setattr(Transfer, "page_rows", 2)
    source = open_store(tmp_path / "source.db", task)
    fill(source)

    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_task(tmp_path / "source.db", tmp_path / "target.db", task, interrupt)
    done = copy_task(tmp_path / "source.db", tmp_path / "target.db", task, silent)
    assert (done.new, done.there) == (5, 9)
    target = open_store(tmp_path / "target.db", task)
    assert everything(source) == everything(target)
    for store in (source, target):
        store.close()


def test_mistakes_are_told(tmp_path: Path, task: str) -> None:
    """The same store twice, a file that is not there, and rows that something deletes."""
    store = open_store(tmp_path / "source.db", task)
    fill(store)
    with pytest.raises(StoreError, match="same database"):
        copy_task(tmp_path / "source.db", tmp_path / "source.db", task, silent)
    with pytest.raises(StoreError, match=r"nowhere.db: there is no such file"):
        tasks_of(tmp_path / "nowhere.db")

    def forget(_stage: str, _done: int, _total: int) -> None:
        target = open_store(tmp_path / "target.db", task)
        target.users.forget("u")
        target.close()

    with pytest.raises(StoreError, match=r"9 rows of .* were read, but 3 are in the target"):
        copy_task(tmp_path / "source.db", tmp_path / "target.db", task, forget)
    store.close()


def test_the_command_copies_a_task_or_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a YAML its task, from a file all tasks; a task that is not there is named with those that are."""
    task = tiny_task(tmp_path)
    with_rows = open_store(task.state / "traces.db", "tiny")
    with_rows.traces.add([trace("tiny")])
    other = open_store(task.state / "traces.db", "other")
    other.values.put(new_id(), 1)
    for store in (with_rows, other):
        store.close()
    assert main(["traces", "copy", str(task.file), str(tmp_path / "one.db"), "--json"]) == 0
    assert [one["task"] for one in json.loads(capsys.readouterr().out)] == ["tiny"]
    assert main(["traces", "copy", str(task.state / "traces.db"), str(tmp_path / "two.db")]) == 0
    assert "1 rows checked: 1 new" in capsys.readouterr().out
    assert tasks_of(tmp_path / "two.db") == ["other", "tiny"]
    assert main(["traces", "copy", str(tmp_path / "two.db"), str(tmp_path / "one.db"), "--task", "third"]) == 1
    assert "has the tasks other, tiny, not third" in capsys.readouterr().err
