"""Group commit, without a database: what is committed when, and who hears of what."""

import threading
import time
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import DataError, OperationalError

from tests.storage.traces.make import trace
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.group_commit import GroupCommit
from tracer_serve.storage.traces.rows import Row, to_row


def _row(text: str) -> Row:
    return to_row(trace("task", text))


class _Disk:
    """Takes rows; stands still during the first commit until it is told to go on."""

    def __init__(self, failure: Exception | None = None, bad: str | None = None) -> None:
        self.commits: list[list[str]] = []
        self.failure, self.bad = failure, bad
        self.busy, self.go_on = threading.Event(), threading.Event()

    def commit(self, rows: Sequence[Row]) -> set[str]:
        texts = [row.input for row in rows]
        self.commits.append(texts)
        if len(self.commits) == 1:
            self.busy.set()
            assert self.go_on.wait(10)
        elif self.failure is not None and (self.bad is None or self.bad in texts):
            raise StoreError("refused") from self.failure
        return set()


def _crowd(disk: _Disk, texts: Sequence[str]) -> dict[str, object]:
    """Add each text in a thread of its own while the first commit runs; return what each was told."""
    writer, told = GroupCommit(disk.commit), dict[str, object]()

    def add(text: str) -> None:
        try:
            told[text] = writer.add([_row(text)])
        except StoreError as error:
            told[text] = error

    threads = [threading.Thread(target=add, args=(text,)) for text in ("first", *texts)]
    threads[0].start()
    assert disk.busy.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(writer._queue) < len(texts):
        time.sleep(0.001)
    disk.go_on.set()
    for thread in threads:
        thread.join(10)
    return told


def test_those_who_wait_share_a_commit() -> None:
    """Everything that queued up during one commit goes into the next one, and everybody is told."""
    disk = _Disk()
    assert _crowd(disk, ["a", "b", "c"]) == dict.fromkeys(["first", "a", "b", "c"], 1)
    assert [sorted(texts) for texts in disk.commits] == [["first"], ["a", "b", "c"]]


def test_nobody_fails_for_anothers_row() -> None:
    """A row that the database refuses fails its own caller only."""
    disk = _Disk(DataError("", {}, Exception("bad value")), bad="b")
    told = _crowd(disk, ["a", "b", "c"])
    assert isinstance(told.pop("b"), StoreError)
    assert told == dict.fromkeys(["first", "a", "c"], 1)


def test_a_failing_database_is_asked_once() -> None:
    """When the database itself fails, all who wait hear it at once, not one long timeout after the other."""
    disk = _Disk(OperationalError("", {}, Exception("locked")))
    told = _crowd(disk, ["a", "b", "c"])
    assert all(isinstance(told[text], StoreError) for text in "abc")
    assert len(disk.commits) == 2


def test_an_error_does_not_stick() -> None:
    """The add after one that failed works."""
    failures = [StoreError("locked")]

    def commit(_rows: Sequence[Row]) -> set[str]:
        if failures:
            raise failures.pop()
        return set()

    writer = GroupCommit(commit)
    with pytest.raises(StoreError, match="locked"):
        writer.add([_row("a")])
    assert writer.add([_row("a")]) == 1
