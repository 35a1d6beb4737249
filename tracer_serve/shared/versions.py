"""Versions in an object store: files by content, so that what versions share is kept and fetched once.

Below the URL lie ``blobs/SHA256`` and ``manifests/NUMBER.json``. A version is there once its manifest is, which is
written last, by a conditional put: an upload that was cut short shows nowhere, and of two writers one fails. What is
used is fetched into a folder of this machine first, checked by sha256, and read from there as any version is.
"""

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tracer_serve.errors import ArtifactError
from tracer_serve.shared.current import Current
from tracer_serve.shared.objects import Objects
from tracer_serve.versions import Manifest, Versions, checksums

_LISTED_S = 15.0  # other machines' new versions are seen within this, at once where one becomes current
_ORPHAN_S = 86_400.0  # an upload that takes longer than a day has died
_FETCHED = ".fetched-"
_MODEL = "model/"


class SharedVersions(Versions):
    """The versions of one task in an object store, with a cache on this machine.

    Parameters
    ----------
    root : folder of this machine's copies; any number of processes may use it
    objects : where the versions are
    current : which one serves
    """

    poll_s, retry_s = 0.5, 5.0

    def __init__(self, root: Path, objects: Objects, current: Current) -> None:
        super().__init__(root)
        self._cache, self._objects, self._current = Versions(root), objects, current
        self._known: dict[int, Manifest] = {}
        self._serving: int | None = None
        self._listed, self._looked = list[int](), -_LISTED_S
        self._guard = threading.RLock()

    def folder(self, number: int) -> Path:
        """Return this machine's folder of a version; the model of one that does not serve comes with `verify`."""
        if number in self._listed or number in self.numbers():
            whole = number == self._serving
            self._complete(self.manifest(number), lambda name: whole or not name.startswith(_MODEL))
        return self._cache.folder(number)

    def numbers(self) -> list[int]:
        """Return the numbers of all versions, oldest first."""
        with self._guard:
            if time.monotonic() > self._looked + _LISTED_S:
                names = self._objects.names("manifests")
                self._listed = [int(name[:-5]) for name in names if name[:-5].isdigit()]
                self._known, self._looked = {}, time.monotonic()
            return list(self._listed)

    def current(self) -> int | None:
        """Return the number of the version that serves, None before the first."""
        number = self._current.get()
        if number is not None and number not in self._listed:
            self._forget_listing()
        self._serving = number
        return number

    def manifest(self, number: int) -> Manifest:
        """Return a version's manifest; where the store is out of reach the one that this machine has.

        Raises
        ------
        ArtifactError
            Where there is no such version, or its manifest cannot be read.
        """
        with self._guard:
            if number not in self._known:
                self._known[number] = self._read(number)
            return self._known[number]

    def _read(self, number: int) -> Manifest:
        name, file = _manifest(number), self._cache.folder(number) / "manifest.json"
        try:
            content = self._objects.read(name)
        except ArtifactError:
            if file.is_file():
                return self._cache.manifest(number)
            raise
        if content is None:
            there = ", ".join(map(str, self.numbers())) or "none"
            raise ArtifactError(f"there is no version {number} in {self._objects.url}; there are: {there}")
        try:
            json.loads(content)
        except ValueError as error:
            raise ArtifactError(f"{self._objects.url}/{name} cannot be read: {error}") from error
        with self._replacing(file) as aside:
            aside.write_bytes(content)
        return self._cache.manifest(number)

    def verify(self, number: int) -> Manifest:
        """Fetch what this machine lacks of a version, check every file and return its manifest.

        A copy that was changed here is fetched again.

        Raises
        ------
        ArtifactError
            Naming the first file that is missing in the store, or is not what it was when it was written.
        """
        manifest, folder = self.manifest(number), self._cache.folder(number)
        for name, digest in checksums(folder).items():
            if name != "manifest.json" and manifest.files.get(name) != digest:
                (folder / name).unlink(missing_ok=True)
        self._complete(manifest, lambda _: True)
        self._drop_stale()
        return manifest

    def activate(self, number: int) -> None:
        """Make a version the current one, after verifying it; replicas follow within seconds."""
        self.verify(number)
        self._current.set(number)

    def collect(self, keep: int) -> list[int]:
        """Delete the oldest versions beyond `keep`; never the current one nor a pinned one. Return their numbers."""
        self._forget_listing()
        everything, current = self.manifests(), self.current()
        gone = [m for m in everything[:-keep] if m.version != current and not m.pinned]
        self._objects.delete([_manifest(m.version) for m in gone])
        stay = {digest for m in everything if m not in gone for digest in m.files.values()}
        unused = [_blob(digest) for m in gone for digest in m.files.values() if digest not in stay]
        stray = [name for name in map(_blob, self._objects.names("blobs")) if name[6:] not in stay]
        self._objects.delete(sorted({*unused, *(name for name in stray if self._objects.age_s(name) > _ORPHAN_S)}))
        self._forget_listing()
        self._drop_stale()
        return [m.version for m in gone]

    def _write(self, fill: Callable[[Path], None], describe: Callable[[int, dict[str, str]], Manifest]) -> int:
        self.root.mkdir(parents=True, exist_ok=True)
        self._forget_listing()
        number = self.upcoming
        with tempfile.TemporaryDirectory(prefix=_FETCHED, dir=self.root, ignore_cleanup_errors=True) as aside:
            folder = Path(aside) / "new"
            folder.mkdir()
            fill(folder)
            self._publish(folder, describe(number, checksums(folder)))
        return number

    def _take_in(self, folder: Path, number: int) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._publish(folder, Versions(folder.parent).manifest(number))

    def _publish(self, folder: Path, manifest: Manifest) -> None:
        """Upload what no version has yet, then the manifest; keep the files as this machine's copy."""
        kept = {digest for m in self.manifests() for digest in m.files.values()}
        for name, digest in manifest.files.items():
            if digest not in kept:
                self._objects.upload(folder / name, _blob(digest))
        content = json.dumps(asdict(manifest), indent=1).encode()
        name = _manifest(manifest.version)
        # a put whose answer was lost is tried again, and then finds itself
        written = self._objects.create(name, content) or self._objects.read(name) == content
        self._forget_listing()
        if not written:
            raise ArtifactError(
                f"version {manifest.version} was written to {self._objects.url} by another refit meanwhile; nothing of"
                " this one serves. Do two stores of traces share these versions? Then refit again"
            )
        for name in manifest.files:
            with self._replacing(self._cache.folder(manifest.version) / name) as copy:
                shutil.copyfile(folder / name, copy)

    def _note(self, number: int, **facts: Any) -> None:
        self._forget_listing()
        manifest = asdict(self.manifest(number)) | facts
        self._objects.write(_manifest(number), json.dumps(manifest, indent=1).encode())
        self._forget_listing()

    def _complete(self, manifest: Manifest, wanted: Callable[[str], bool]) -> None:
        folder = self._cache.folder(manifest.version)
        lacking = [name for name in manifest.files if wanted(name) and not (folder / name).is_file()]
        here = self._here(manifest.version) if lacking else {}
        for name in lacking:
            digest = manifest.files[name]
            with self._replacing(folder / name) as aside:
                twin = here.get(digest)
                if twin is None or not _linked(twin, aside, digest):
                    self._fetch(manifest.version, name, digest, aside)

    def _fetch(self, number: int, name: str, digest: str, to: Path) -> None:
        fetched = self._objects.fetch(_blob(digest), to)
        if not fetched or _sha256(to) != digest:
            what = "was changed after it was written" if fetched else "is missing"
            raise ArtifactError(
                f"{self._objects.url}/{_blob(digest)} {what}: version {number} is corrupt ({name}) and does not serve."
                " Choose another with `tracer-serve rollback TASK.yaml`, or refit."
            )

    def _here(self, but: int) -> dict[str, Path]:
        """Return the files of other versions on this machine, by content."""
        found: dict[str, Path] = {}
        for number in self._cache.numbers():
            with suppress(ArtifactError):  # a copy of a manifest that a power cut spoiled
                files = self._cache.manifest(number).files if number != but else {}
                found |= {digest: self._cache.folder(number) / name for name, digest in files.items()}
        return found

    def _drop_stale(self) -> None:
        """Remove copies of versions that are collected; a process that has one in memory keeps what it mapped."""
        there: list[int] = []
        with suppress(ArtifactError):  # out of reach: what is here may be all there is
            there = self.numbers()
        for number in self._cache.numbers():
            # one above all that were listed is being written at this moment
            if number not in there and number < max(there, default=0):
                shutil.rmtree(self._cache.folder(number), ignore_errors=True)
        for leftover in self.root.glob(f"{_FETCHED}*"):
            if time.time() - leftover.stat().st_mtime > _ORPHAN_S:
                shutil.rmtree(leftover, ignore_errors=True)

    @contextmanager
    def _replacing(self, file: Path) -> Iterator[Path]:
        """Give a path to write to; what is there becomes the file at once, or nothing does."""
        with self._writing():
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=_FETCHED, dir=self.root))
            try:
                yield aside / "file"
                (aside / "file").replace(file)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _forget_listing(self) -> None:
        with self._guard:
            self._known, self._looked = {}, -_LISTED_S


def _manifest(number: int) -> str:
    return f"manifests/{number:06d}.json"


def _blob(digest: str) -> str:
    return f"blobs/{digest}"


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _linked(twin: Path, file: Path, digest: str) -> bool:
    """Link a file that is on this machine already; False where it is gone, or not what it should be."""
    try:
        os.link(twin, file)
    except OSError:
        return False
    if _sha256(file) == digest:
        return True
    file.unlink()
    return False
