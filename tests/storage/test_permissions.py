"""Attack S10: what other users of the machine can read."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.storage.versions.test_local import write
from tests.support.tiny import rows_now
from tracer_serve.storage.traces import open_store
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.storage.versions.store import adopt, pin


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """Return the mode of a folder and of everything below it."""
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")]}


def test_only_the_owner_can_read_the_state(tmp_path: Path) -> None:
    """With the usual umask, folders are 0700 and files 0600: the database, its log, versions, `current`."""
    state = tmp_path / "state"
    with umask(0o022), closing(open_store(state / "traces.db", "tiny")) as store:
        store.traces.add(rows_now(10))
        versions = LocalVersions(state / "versions")
        write(versions)
        versions.activate(1)
        pin(versions, 1)
        found = modes(state)
    assert any(name.endswith("traces.db-wal") for name in found)
    assert {name: mode for name, mode in found.items() if mode not in (0o700, 0o600)} == {}


def test_an_adopted_version_is_private(tmp_path: Path) -> None:
    """A version that an image carries, readable by all, becomes private in the state."""
    with umask(0o022):
        made = LocalVersions(tmp_path / "image")
        write(made)
        for path in (tmp_path / "image").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        versions = LocalVersions(tmp_path / "state" / "versions")
        adopt(versions, made.folder(1))
        found = modes(versions.root)
    assert set(found.values()) == {0o700, 0o600}


@pytest.mark.parametrize("mode", [0o755, 0o750])
def test_an_existing_folder_of_versions_becomes_private(tmp_path: Path, mode: int) -> None:
    """A folder that an older release created readable is closed by the next write."""
    root = tmp_path / "versions"
    root.mkdir()
    root.chmod(mode)
    write(LocalVersions(root))
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
