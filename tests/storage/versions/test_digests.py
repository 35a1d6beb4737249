"""Digests of manifests in the trace store."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tests.storage.versions.test_local import write
from tracer_serve.errors import ArtifactError
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.versions.digests import DIGESTS, ManifestDigests
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.storage.versions.manifest import Manifest, checksums
from tracer_serve.storage.versions.store import adopt, mark_forgotten, pin


@pytest.fixture
def versions(store: TraceStore, tmp_path: Path) -> LocalVersions:
    """A version store whose digests are in a trace store."""
    return LocalVersions(tmp_path / "versions", ManifestDigests(lambda: nullcontext(store)))


def forge(versions: LocalVersions, number: int, change: Callable[[Manifest], Manifest]) -> None:
    """Replace the weights, their checksum and a fact of the manifest, as someone who may write the folder can."""
    folder = versions.folder(number)
    (folder / "model" / "weights.txt").write_text("forged", encoding="utf-8")
    manifest = versions.manifest(number)
    (folder / "manifest.json").unlink()
    forged = change(replace(manifest, files=checksums(folder)))
    (folder / "manifest.json").write_text(forged.as_json(), encoding="utf-8")


def test_a_forged_version_is_never_activated(versions: LocalVersions) -> None:
    """Weights that were replaced together with their checksum are refused, also when the mutable fields change."""
    assert [write(versions), write(versions)] == [1, 2]
    versions.activate(1)
    forge(versions, 2, lambda manifest: replace(manifest, pinned=True))
    with pytest.raises(ArtifactError, match=r"manifest of version 2 was changed .* rollback"):
        versions.activate(2)
    assert versions.current() == 1


def test_a_planted_version_is_never_activated(versions: LocalVersions) -> None:
    """A complete version that no refit with this trace store wrote is refused."""
    write(versions)
    assert write(LocalVersions(versions.root)) == 2
    with pytest.raises(ArtifactError, match="version 2 is unknown to the trace store"):
        versions.activate(2)


def test_pins_and_forgotten_rows_may_change(versions: LocalVersions) -> None:
    """What is noted on a version later does not count as a change of it."""
    write(versions)
    pin(versions, 1)
    mark_forgotten(versions, 1, 3)
    assert versions.verify(1).forgotten == 3


def test_an_adopted_version_is_recorded(versions: LocalVersions, tmp_path: Path) -> None:
    """A version that an image carries is trusted once, when the store has none, and protected from then on."""
    made = LocalVersions(tmp_path / "image")
    write(made)
    assert adopt(versions, made.folder(1)) == 1
    forge(versions, 1, lambda manifest: manifest)
    with pytest.raises(ArtifactError, match="was changed"):
        versions.verify(1)


def test_digests_of_deleted_versions_go(versions: LocalVersions, store: TraceStore) -> None:
    """The value in the store grows with the kept versions only."""
    for _ in range(4):
        write(versions)
    versions.activate(4)
    assert versions.collect(2) == [1, 2]
    assert sorted(store.values.get(DIGESTS)) == ["3", "4"]
