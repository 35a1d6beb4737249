"""The interface of a version store, and what follows from it for every implementation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tracer_serve.storage.versions.folders import VersionFolders
from tracer_serve.storage.versions.manifest import Manifest

Fill = Callable[[Path], None]
"""Writes the files of a version into the folder that it is given."""

Describe = Callable[[int, dict[str, str]], Manifest]
"""Makes a manifest from the version's number and the sha256 of each file."""


class VersionStore(Protocol):
    """The versions of one task: `LocalVersions` in a folder, or `ObjectStoreVersions` in an object store.

    Attributes
    ----------
    root : folder on this machine with the versions, or with copies of them
    poll_s, retry_s : seconds between reads of `current`, and until a version that failed to load is tried again
    """

    root: Path
    poll_s: float
    retry_s: float

    def __hash__(self) -> int:
        """Hash by identity."""

    def folder(self, number: int) -> Path:
        """Return the folder of a version on this machine."""

    def numbers(self) -> list[int]:
        """Return the numbers of all versions, oldest first."""

    def current(self) -> int | None:
        """Return the number of the version that serves, None before the first.

        Raises
        ------
        ArtifactError
            It cannot be read.
        """

    def manifest(self, number: int) -> Manifest:
        """Return the manifest of a version.

        Raises
        ------
        ArtifactError
            There is no such version, or its manifest cannot be read.
        """

    def write(self, fill: Fill, describe: Describe) -> int:
        """Write a new version and return its number. It does not serve until `activate`.

        Raises
        ------
        ArtifactError
            The disk or the object store cannot be written; existing versions are unchanged.
        """

    def take_in(self, folder: Path) -> None:
        """Copy a version that was made elsewhere; it keeps its number.

        Raises
        ------
        ArtifactError
            It is incomplete, or cannot be written.
        """

    def verify(self, number: int) -> Manifest:
        """Check every file of a version against its manifest, and the manifest against the trace store.

        Raises
        ------
        ArtifactError
            Naming the first file that is missing, changed or not listed.
        """

    def activate(self, number: int) -> None:
        """Make a version the current one, after verifying it."""

    def change_manifest(self, number: int, change: Callable[[Manifest], Manifest]) -> None:
        """Replace a manifest by a function of it; atomic over processes."""

    def collect(self, keep: int) -> list[int]:
        """Delete the oldest versions beyond `keep`, and return their numbers.

        The current version and pinned ones are never deleted.
        """


def all_manifests(versions: VersionStore) -> list[Manifest]:
    """Return the manifests of all versions, oldest first."""
    return [versions.manifest(number) for number in versions.numbers()]


def next_number(versions: VersionStore) -> int:
    """Return the number of the next version. Numbers are never reused, so it counts the certificates so far."""
    return max(versions.numbers(), default=0) + 1


def certified_before(versions: VersionStore) -> int | None:
    """Return the last certified version before the current one; None if there is none."""
    current = versions.current() or 0
    return max((m.version for m in all_manifests(versions) if m.certified and m.version < current), default=None)


def adopt(versions: VersionStore, folder: Path) -> int | None:
    """Take in a version made elsewhere and activate it, if there is none yet; return its number then.

    Raises
    ------
    ArtifactError
        It is incomplete, or cannot be written here.
    """
    number = int(folder.name)
    if not versions.numbers():
        versions.take_in(folder)
    # a version without a current one is either this one, after an interrupted start, or another one, which stays
    if versions.current() is not None or all_manifests(versions) != [VersionFolders(folder.parent).manifest(number)]:
        return None
    versions.activate(number)
    return number


def pin(versions: VersionStore, number: int, pinned: bool = True) -> None:
    """Exclude a version from deletion by age, or include it again."""
    versions.change_manifest(number, lambda manifest: replace(manifest, pinned=pinned))


def mark_forgotten(versions: VersionStore, number: int, rows: int) -> None:
    """Note that further rows that a version was fitted on were removed."""
    versions.change_manifest(number, lambda manifest: replace(manifest, forgotten=manifest.forgotten + rows))
