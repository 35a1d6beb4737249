"""Versions in an object store: files are stored by content, so files that versions share are stored and fetched once.

The objects are ``blobs/SHA256`` and ``manifests/NUMBER.json``. A version exists once its manifest does, which is
written last, by a conditional put: an interrupted upload leaves no version, and of two concurrent writers one fails.
Files are fetched into a folder of this machine, checked by sha256, and read from there.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracer_serve.errors import ArtifactError
from tracer_serve.infra.file_hash import sha256_of
from tracer_serve.storage.versions.digests import ManifestDigests
from tracer_serve.storage.versions.download_cache import DownloadCache
from tracer_serve.storage.versions.folders import VersionFolders
from tracer_serve.storage.versions.manifest import Manifest, checksums
from tracer_serve.storage.versions.object_store import Objects
from tracer_serve.storage.versions.pointer import Current
from tracer_serve.storage.versions.store import Describe, Fill, all_manifests, next_number

_LISTED_S = 15.0  # age of a listing; a new current version refreshes it at once
_MODEL = "model/"


class ObjectStoreVersions:
    """The versions of one task in an object store, with a cache on this machine. See `VersionStore`.

    Parameters
    ----------
    root : folder of this machine's copies; any number of processes may use it
    objects : where the versions are
    current : the number of the current version
    digests : of their manifests
    orphan_s : age in seconds from which on a file of no version is deleted: its upload has failed
    """

    def __init__(
        self,
        root: Path,
        objects: Objects,
        current: Current,
        digests: ManifestDigests,
        *,
        orphan_s: float = 86_400.0,
    ) -> None:
        self.root, self.poll_s, self.retry_s, self._orphan_s = root, 0.5, 5.0, orphan_s
        self._copies, self._objects, self._current = DownloadCache(root, self._fetch), objects, current
        self._digests = digests
        self._known: dict[int, Manifest] = {}
        self._serving: int | None = None
        self._listed, self._looked = list[int](), -_LISTED_S
        self._guard = threading.RLock()

    def folder(self, number: int) -> Path:
        """Return this machine's folder of a version; unless it is current, `verify` fetches its model."""
        if number in self._listed or number in self.numbers():
            whole = number == self._serving
            self._copies.complete(self.manifest(number), lambda name: whole or not name.startswith(_MODEL))
        return self._copies.folder(number)

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
        """Return a version's manifest; this machine's copy if the store cannot be reached.

        Raises
        ------
        ArtifactError
            If there is no such version, or its manifest cannot be read.
        """
        with self._guard:
            if number not in self._known:
                self._known[number] = self._read(number)
            return self._known[number]

    def _read(self, number: int) -> Manifest:
        name = _manifest(number)
        try:
            content = self._objects.read(name)
        except ArtifactError:
            copy = self._copies.manifest(number)
            if copy is None:
                raise
            return copy
        if content is None:
            there = ", ".join(map(str, self.numbers())) or "none"
            raise ArtifactError(f"there is no version {number} in {self._objects.url}; there are: {there}")
        try:
            return self._copies.keep_manifest(number, content)
        except ArtifactError as error:
            raise ArtifactError(f"{self._objects.url}/{name} cannot be read: {error}") from error

    def verify(self, number: int) -> Manifest:
        """Fetch the missing files of a version, check every file and return its manifest.

        A changed copy is fetched again.

        Raises
        ------
        ArtifactError
            Naming the first file that is missing in the store, or was changed there.
        """
        manifest = self.manifest(number)
        self._digests.check(manifest)
        self._copies.drop_wrong(manifest)
        self._copies.complete(manifest)
        with suppress(ArtifactError):  # the store cannot be reached
            self._copies.drop_stale(self.numbers())
        return manifest

    def activate(self, number: int) -> None:
        """Make a version the current one, after verifying it; replicas follow within seconds."""
        self.verify(number)  # may fetch it, so before the lease
        with self._alone():
            self._forget_listing()
            self.manifest(number)  # raises if it was deleted meanwhile
            self._current.set(number)

    def collect(self, keep: int) -> list[int]:
        """Delete the oldest versions beyond `keep`; never the current one nor a pinned one. Return their numbers."""
        with self._alone():
            self._forget_listing()
            everything, current = all_manifests(self), self.current()
            gone = [m for m in everything[:-keep] if m.version != current and not m.pinned]
            self._objects.delete([_manifest(m.version) for m in gone])
            self._digests.drop([m.version for m in gone])
        kept = {digest for m in everything if m not in gone for digest in m.files.values()}
        unused = [_blob(digest) for m in gone for digest in m.files.values() if digest not in kept]
        stray = [name for name in map(_blob, self._objects.names("blobs")) if name[6:] not in kept]
        self._objects.delete(sorted({*unused, *(name for name in stray if self._objects.age_s(name) > self._orphan_s)}))
        self._forget_listing()
        self._copies.drop_stale(self.numbers())
        return [m.version for m in gone]

    def write(self, fill: Fill, describe: Describe) -> int:
        """Write a new version and return its number. It does not serve until `activate`."""
        self._forget_listing()
        number = next_number(self)
        with self._copies.aside() as folder:
            fill(folder)
            self._publish(folder, describe(number, checksums(folder)))
        return number

    def take_in(self, folder: Path) -> None:
        """Copy a version that was made elsewhere; it keeps its number."""
        self._publish(folder, VersionFolders(folder.parent).manifest(int(folder.name)))

    def _publish(self, folder: Path, manifest: Manifest) -> None:
        """Upload files that no version has yet, then the manifest; keep the files as this machine's copy."""
        kept = {digest for m in all_manifests(self) for digest in m.files.values()}
        for name, digest in manifest.files.items():
            if digest not in kept:
                self._objects.upload(folder / name, _blob(digest))
        content = manifest.as_json().encode()
        name = _manifest(manifest.version)
        # a put whose response was lost is retried, and then finds its own object
        written = self._objects.create(name, content) or self._objects.read(name) == content
        self._forget_listing()
        if not written:
            raise ArtifactError(
                f"version {manifest.version} was written to {self._objects.url} by another refit meanwhile; this"
                " one was not activated. If two trace stores share these versions, separate them; then refit again"
            )
        self._digests.record(manifest)
        self._copies.take(folder, manifest)

    def change_manifest(self, number: int, change: Callable[[Manifest], Manifest]) -> None:
        """Replace a manifest by a function of it; atomic over processes."""
        with self._alone():
            self._forget_listing()
            self._objects.write(_manifest(number), change(self.manifest(number)).as_json().encode())
            self._forget_listing()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._current.locked():
            yield

    def _fetch(self, digest: str, to: Path) -> None:
        fetched = self._objects.fetch(_blob(digest), to)
        if not fetched or sha256_of(to) != digest:
            what = "was changed after it was written" if fetched else "is missing"
            raise ArtifactError(
                f"{self._objects.url}/{_blob(digest)} {what}: versions with this file are corrupt and do not serve."
                " Choose another with `tracer-serve rollback TASK.yaml`, or refit."
            )

    def _forget_listing(self) -> None:
        with self._guard:
            self._known, self._looked = {}, -_LISTED_S


def _manifest(number: int) -> str:
    return f"manifests/{number:06d}.json"


def _blob(digest: str) -> str:
    return f"blobs/{digest}"
