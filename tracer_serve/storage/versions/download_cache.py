"""Local copies of an object store's versions; each file is fetched once and checked."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from tracer_serve.errors import ArtifactError
from tracer_serve.infra.file_hash import sha256_of
from tracer_serve.infra.private_files import make_private, make_private_folder
from tracer_serve.storage.versions.folders import VersionFolders, writing
from tracer_serve.storage.versions.manifest import Manifest, checksums

_ASIDE = ".fetched-"
_LEFT_S = 86_400.0
Fetch = Callable[[str, Path], None]
"""Called with a sha256 and where to write the content."""


class DownloadCache:
    """Version folders with copies; processes may share them.

    Parameters
    ----------
    root : created when the first file is written
    fetch : downloads a file's content
    """

    def __init__(self, root: Path, fetch: Fetch) -> None:
        self._root, self._fetch, self._folders = root, fetch, VersionFolders(root)

    def folder(self, number: int) -> Path:
        """Return the folder for the copy of a version."""
        return self._folders.folder(number)

    def manifest(self, number: int) -> Manifest | None:
        """Return the copy of a manifest; None if there is none or it cannot be read."""
        with suppress(ArtifactError):
            return self._folders.manifest(number)
        return None

    def keep_manifest(self, number: int, content: bytes) -> Manifest:
        """Write the copy of a manifest and return it.

        Raises
        ------
        ArtifactError
            It cannot be read, or names a file outside its folder.
        """
        with self._replacing(self.folder(number) / "manifest.json") as aside:
            aside.write_bytes(content)
        manifest = self._folders.manifest(number)
        for name in manifest.files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                (self.folder(number) / "manifest.json").unlink()
                raise ArtifactError(f"the manifest of version {number} names {name!r}, which is not in its folder")
        return manifest

    def complete(self, manifest: Manifest, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Add the missing files, linked from another version's copy with the same content, else by `fetch`.

        Raises
        ------
        ArtifactError
            `fetch` failed, or the disk cannot be written.
        """
        folder = self.folder(manifest.version)
        lacking = [name for name in manifest.files if wanted(name) and not (folder / name).is_file()]
        twins = self._by_content(but=manifest.version) if lacking else {}
        for name in lacking:
            digest = manifest.files[name]
            with self._replacing(folder / name) as aside:
                twin = twins.get(digest)
                if twin is None or not _linked(twin, aside, digest):
                    self._fetch(digest, aside)

    def take(self, folder: Path, manifest: Manifest) -> None:
        """Copy a version's files from the folder where they were written."""
        for name in manifest.files:
            with self._replacing(self.folder(manifest.version) / name) as aside:
                shutil.copyfile(folder / name, aside)

    def drop_wrong(self, manifest: Manifest) -> None:
        """Remove files that were changed, and files that the manifest does not list."""
        folder = self.folder(manifest.version)
        for name, digest in checksums(folder).items():
            if name != "manifest.json" and manifest.files.get(name) != digest:
                (folder / name).unlink(missing_ok=True)

    def drop_stale(self, there: Sequence[int]) -> None:
        """Remove copies of deleted versions; a process that has mapped one keeps its mapping."""
        for number in self._folders.numbers():
            # a higher number than any listed is being written at this moment
            if number not in there and number < max(there, default=0):
                shutil.rmtree(self.folder(number), ignore_errors=True)
        for leftover in self._root.glob(f"{_ASIDE}*"):
            with suppress(OSError):  # another process has deleted it
                if time.time() - leftover.stat().st_mtime > _LEFT_S:
                    shutil.rmtree(leftover)

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """Yield a temporary folder, and remove it afterwards."""
        with writing(self._root):
            make_private_folder(self._root)
            folder = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self._root))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _replacing(self, file: Path) -> Iterator[Path]:
        """Yield a path to write to, and rename it to the file afterwards, unless the block raises."""
        with self.aside() as folder:
            yield folder / "file"
            file.parent.mkdir(parents=True, exist_ok=True)
            make_private(folder / "file")
            (folder / "file").replace(file)

    def _by_content(self, *, but: int) -> dict[str, Path]:
        manifests = [self.manifest(number) for number in self._folders.numbers() if number != but]
        return {digest: self.folder(m.version) / name for m in manifests if m for name, digest in m.files.items()}


def _linked(twin: Path, file: Path, digest: str) -> bool:
    """Link a file that this machine has already; False if it is missing or its content differs."""
    try:
        os.link(twin, file)
    except OSError:
        return False
    if sha256_of(file) == digest:
        return True
    file.unlink()
    return False
