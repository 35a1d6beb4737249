"""Versions in a folder: written to a temporary folder, fsynced, renamed; the file `current` is replaced atomically.

A crash at any point leaves either no new version or a complete one, and `current` always names a complete one.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracer_serve.errors import ArtifactError
from tracer_serve.infra.private_files import make_private, make_private_folder
from tracer_serve.storage.versions.digests import ManifestDigests
from tracer_serve.storage.versions.folders import VersionFolders, publishable, sync, writing
from tracer_serve.storage.versions.manifest import Manifest, checksums
from tracer_serve.storage.versions.store import Describe, Fill, all_manifests, next_number

_ASIDE = ".aside-"
_DIGITS = 9


class LocalVersions:
    """The versions of one task in a folder. See `VersionStore`.

    Parameters
    ----------
    root : folder that holds them; created when the first is written
    digests : of their manifests; None: manifests are not checked
    """

    def __init__(self, root: Path, digests: ManifestDigests | None = None) -> None:
        self.root, self.poll_s, self.retry_s = root, 0.1, 30.0
        self._folders, self._digests = VersionFolders(root), digests

    def folder(self, number: int) -> Path:
        """Return the folder of a version."""
        return self._folders.folder(number)

    def numbers(self) -> list[int]:
        """Return the numbers of all complete versions, oldest first."""
        return self._folders.numbers()

    def manifest(self, number: int) -> Manifest:
        """Read the manifest of a version."""
        return self._folders.manifest(number)

    def current(self) -> int | None:
        """Return the number of the version that serves, None before the first.

        Raises
        ------
        ArtifactError
            If `current` cannot be read, or contains no number, which no crash of this program causes.
        """
        try:
            text = (self.root / "current").read_bytes()[:20].strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactError(
                f"{self.root}/current cannot be read: {error.strerror}. Check its folder: ls -ld {self.root}"
            ) from error
        if not text.isdigit() or len(text) > _DIGITS:
            raise ArtifactError(
                f"{self.root}/current contains {text!r}, not a version's number. Choose a version:"
                " tracer-serve rollback TASK.yaml --to N"
            )
        return int(text)

    def write(self, fill: Fill, describe: Describe) -> int:
        """Write a new version and return its number. It does not serve until `activate`."""
        try:
            with writing(self.root):
                return self._write(fill, describe)
        except ArtifactError:
            self._sweep()  # frees space
            raise

    def take_in(self, folder: Path) -> None:
        """Copy a version that was made elsewhere; it keeps its number."""
        with writing(self.root):
            make_private_folder(self.root)
            aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.root))
            shutil.copytree(folder, aside / "new")
            publishable(aside)
            self._record(VersionFolders(folder.parent).manifest(int(folder.name)))
            with suppress(OSError):  # another worker was first, with the same files
                (aside / "new").rename(self.folder(int(folder.name)))
            shutil.rmtree(aside, ignore_errors=True)
            sync(self.root)

    def verify(self, number: int) -> Manifest:
        """Check every file of a version against its manifest, and the manifest against the trace store."""
        manifest = self.manifest(number)
        if self._digests is not None:
            self._digests.check(manifest)
        manifest.check(self.folder(number))
        return manifest

    def activate(self, number: int) -> None:
        """Make a version the current one, after verifying it; workers load it within a second."""
        with self._locked():
            self.verify(number)
            self._replace(self.root / "current", f"{number}\n")

    def change_manifest(self, number: int, change: Callable[[Manifest], Manifest]) -> None:
        """Replace a manifest by a function of it; atomic over processes."""
        with self._locked():
            self._replace(self.folder(number) / "manifest.json", change(self.manifest(number)).as_json())

    def collect(self, keep: int) -> list[int]:
        """Delete the oldest versions beyond `keep`, but neither the current nor pinned ones; return their numbers."""
        with self._locked():
            current = self.current()
            gone = [m.version for m in all_manifests(self)[:-keep] if m.version != current and not m.pinned]
            for number in gone:
                aside = self.root / f"{_ASIDE}gone-{number:06d}"
                self.folder(number).rename(aside)
                shutil.rmtree(aside)
            if self._digests is not None:
                self._digests.drop(gone)
            return gone

    def _write(self, fill: Fill, describe: Describe) -> int:
        make_private_folder(self.root)
        self._sweep()
        number = next_number(self)
        aside = self.root / f"{_ASIDE}{number:06d}"
        aside.mkdir()
        fill(aside)
        manifest = describe(number, checksums(aside))
        (aside / "manifest.json").write_text(manifest.as_json(), encoding="utf-8")
        publishable(aside)
        self._record(manifest)
        aside.rename(self.folder(number))
        sync(self.root)
        return number

    def _record(self, manifest: Manifest) -> None:
        if self._digests is not None:
            self._digests.record(manifest)

    def _sweep(self) -> None:
        for leftover in self.root.glob(f"{_ASIDE}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder for a change of `current` or a manifest; the lock ends with its process."""
        if not self.root.is_dir():
            yield
            return
        with writing(self.root):
            handle = os.open(self.root, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _replace(self, file: Path, text: str) -> None:
        with writing(self.root):
            aside = self.root / f"{file.name}{_ASIDE}"  # not in the version's folder, where `verify` would reject it
            aside.write_text(text, encoding="utf-8")
            make_private(aside)
            sync(aside)
            aside.replace(file)
            sync(file.parent)
