"""Version folders: whole or absent, verified, never overwritten."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from tracer_serve.errors import ArtifactError
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.storage.versions.manifest import Manifest
from tracer_serve.storage.versions.store import mark_forgotten, pin


def manifest(number: int, files: dict[str, str]) -> Manifest:
    return Manifest(
        version=number,
        created="2026-01-01T00:00:00+00:00",
        task="t",
        certified=True,
        reason="certified",
        parent=None,
        traces=1,
        last_trace="x",
        embedder="e",
        teacher="t",
        plugins={},
        software={},
        files=files,
    )


def write(versions: LocalVersions, text: str = "hello") -> int:
    def fill(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights.txt").write_text(text, encoding="utf-8")

    return versions.write(fill, manifest)


def test_numbers_count_up_and_nothing_serves_before_it_is_activated(tmp_path: Path) -> None:
    """Writing a version changes nothing that serves; activating does."""
    versions = LocalVersions(tmp_path / "versions")
    assert (versions.current(), versions.numbers()) == (None, [])
    assert [write(versions), write(versions)] == [1, 2]
    assert versions.current() is None
    versions.activate(2)
    assert versions.current() == 2
    versions.activate(1)
    assert versions.current() == 1


@pytest.mark.parametrize("damage", ["change", "remove", "add", "manifest"])
def test_a_damaged_version_is_named_and_never_activated(tmp_path: Path, damage: str) -> None:
    """A changed, missing or foreign file makes a version corrupt; the one that serves stays."""
    versions = LocalVersions(tmp_path)
    write(versions)
    versions.activate(1)
    write(versions)
    file = versions.folder(2) / "model" / "weights.txt"
    if damage == "change":
        file.write_text("hellO", encoding="utf-8")
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (file.parent / "foreign.txt").touch()
    else:
        (versions.folder(2) / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"corrupt|cannot be read"):
        versions.activate(2)
    assert versions.current() == 1


def test_an_unknown_version_lists_what_there_is(tmp_path: Path) -> None:
    """Asking for a version that is not there names those that are."""
    versions = LocalVersions(tmp_path)
    write(versions)
    with pytest.raises(ArtifactError, match=r"no version 7 .* there are: 1"):
        versions.activate(7)


def test_a_current_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    """Somebody's edit of `current` is told, not guessed at."""
    (tmp_path / "current").write_text("latest", encoding="ascii")
    with pytest.raises(ArtifactError, match="contains b'latest'"):
        LocalVersions(tmp_path).current()


def test_a_current_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """What the disk says is told with the place to look at, as an error that every follower expects."""
    root = tmp_path / "versions"
    (root / "current").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"current cannot be read: Is a directory\. Check its folder: ls -ld"):
        LocalVersions(root).current()


def test_retention_keeps_the_newest_the_current_and_the_pinned(tmp_path: Path) -> None:
    """Collecting deletes the oldest, but never the one that serves nor a pinned one."""
    versions = LocalVersions(tmp_path)
    for _ in range(6):
        write(versions)
    versions.activate(1)
    pin(versions, 2)
    assert versions.collect(keep=2) == [3, 4]
    assert versions.numbers() == [1, 2, 5, 6]
    pin(versions, 2, pinned=False)
    assert versions.collect(keep=2) == [2]
    assert write(versions) == 7


def test_pinning_leaves_the_version_whole(tmp_path: Path) -> None:
    """A pin is in the manifest and the version still verifies."""
    versions = LocalVersions(tmp_path)
    write(versions)
    pin(versions, 1)
    assert versions.verify(1) == replace(manifest(1, versions.manifest(1).files), pinned=True)


def test_a_pin_cut_short_leaves_the_version_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was being written beside a manifest is no file of the version: it still verifies, and serves."""
    versions = LocalVersions(tmp_path)
    write(versions)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", fail)
        with pytest.raises(ArtifactError, match="Input/output error"):
            pin(versions, 1)
    assert not versions.verify(1).pinned
    pin(versions, 1)
    assert versions.verify(1).pinned


def test_what_is_said_of_versions_at_once_is_said_in_turn(tmp_path: Path) -> None:
    """Rollbacks and pins at the same moment leave no `current` without a number, and no manifest of another version."""
    for _ in range(3):
        write(LocalVersions(tmp_path))

    def change(number: int) -> None:
        for _ in range(60):
            versions = LocalVersions(tmp_path)  # as another process has one of its own
            versions.activate(number)
            pin(versions, number)
            assert versions.current() in (1, 2, 3)

    with ThreadPoolExecutor(3) as people:
        list(people.map(change, (1, 2, 3)))
    assert [LocalVersions(tmp_path).verify(number).version for number in (1, 2, 3)] == [1, 2, 3]


def test_a_version_is_chosen_or_cleared_away_not_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback to a version that retention is about to remove waits, and then is told that it is gone."""
    for _ in range(2):
        write(LocalVersions(tmp_path))
    LocalVersions(tmp_path).activate(2)
    clearing, read = Event(), LocalVersions.current

    def slowly(self: LocalVersions) -> int | None:
        found = read(self)
        clearing.set()
        time.sleep(0.3)  # in which the other one would choose
        return found

    with ThreadPoolExecutor(1) as other, monkeypatch.context() as slowed:
        slowed.setattr(LocalVersions, "current", slowly)
        gone = other.submit(LocalVersions(tmp_path).collect, 1)
        assert clearing.wait(10)
        with pytest.raises(ArtifactError, match="no version 1"):
            LocalVersions(tmp_path).activate(1)
    assert gone.result() == [1]
    assert LocalVersions(tmp_path).current() == 2


def test_what_is_forgotten_at_once_adds_up(tmp_path: Path) -> None:
    """Two people who remove rows at the same time leave the sum of both on the version's manifest."""
    write(LocalVersions(tmp_path))
    with ThreadPoolExecutor(4) as people:
        list(people.map(lambda n: mark_forgotten(LocalVersions(tmp_path), 1, n), range(1, 9)))
    assert LocalVersions(tmp_path).manifest(1).forgotten == sum(range(1, 9))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """What raises while it fills leaves no version, and the next write gets its number."""
    versions = LocalVersions(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError, match=r"No space left on device\. The current version keeps serving.*df -h"):
        versions.write(fail, manifest)
    assert list(tmp_path.iterdir()) == []
    assert versions.numbers() == []
    assert write(versions) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["000001"]


WRITER = """
import sys
from pathlib import Path
from tests.storage.versions.test_local import write
from tracer_serve.storage.versions.local import LocalVersions
versions = LocalVersions(Path(sys.argv[1]))
while True:
    number = write(versions, "x" * 200_000)
    versions.activate(number)
    versions.collect(3)
    print(number, flush=True)
"""


def test_kill_9_leaves_versions_that_load(tmp_path: Path) -> None:
    """Killed at any moment of writing, activating or collecting, `current` names a whole version."""
    versions = LocalVersions(tmp_path)
    newest = 0
    for pause in (0.0, 0.003, 0.007, 0.011, 0.017):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged = int(process.stdout.readline())
            time.sleep(pause)
            os.kill(process.pid, signal.SIGKILL)
        current = versions.current()
        assert current is not None
        assert current >= acknowledged > newest
        assert json.dumps(versions.verify(current).files)
        newest = current
