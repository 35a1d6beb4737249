"""Version folders: written aside, fsynced, renamed; `current` is a text file replaced atomically.

A crash at any point leaves either no new version or a whole one, and `current` always names a whole one.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tracer_serve.errors import ArtifactError
from tracer_serve.storage.versions.manifest import Manifest, checksums

_ASIDE = ".aside-"


class Versions:
    """The versions of one task.

    Parameters
    ----------
    root : folder that holds them; made when the first is written
    """

    poll_s, retry_s = 0.1, 30.0
    """Seconds between looks at `current`, and until one that did not load is tried again."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, number: int) -> Path:
        """Return the folder of a version."""
        return self.root / f"{number:06d}"

    def numbers(self) -> list[int]:
        """Return the numbers of all whole versions, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(int(p.name) for p in self.root.iterdir() if p.name.isdigit() and (p / "manifest.json").is_file())

    @property
    def upcoming(self) -> int:
        """The number of the next version; numbers are never given twice, so it counts the certificates so far."""
        return max(self.numbers(), default=0) + 1

    def current(self) -> int | None:
        """Return the number of the version that serves, None before the first.

        Raises
        ------
        ArtifactError
            Where `current` cannot be read, or does not hold a number, which no crash of ours can cause.
        """
        try:
            text = (self.root / "current").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactError(
                f"{self.root}/current cannot be read: {error.strerror}. Look at its folder: ls -ld {self.root}"
            ) from error
        if not text.isdigit():
            raise ArtifactError(f"{self.root}/current holds {text!r}, not a number; choose one with rollback")
        return int(text)

    def certified_before(self) -> int | None:
        """Return the last certified version before the one that serves, None where there is none."""
        current = self.current() or 0
        return max((m.version for m in self.manifests() if m.certified and m.version < current), default=None)

    def manifest(self, number: int) -> Manifest:
        """Read a version's manifest.

        Raises
        ------
        ArtifactError
            Where there is no such version, or its manifest cannot be read.
        """
        file = self.folder(number) / "manifest.json"
        try:
            return Manifest.of_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise ArtifactError(f"there is no version {number} in {self.root}; there are: {known}") from None
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{file} cannot be read: {error}") from error

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all versions, oldest first."""
        return [self.manifest(number) for number in self.numbers()]

    def write(self, fill: Callable[[Path], None], describe: Callable[[int, dict[str, str]], Manifest]) -> int:
        """Write a new version and return its number; it does not serve until `activate`.

        Parameters
        ----------
        fill : writes the files into the folder it is given
        describe : makes the manifest from the number and the sha256 of each file

        Raises
        ------
        ArtifactError
            Where the disk is full or may not be written; the versions that are there stay as they are.
        """
        try:
            with writing(self.root):
                return self._write(fill, describe)
        except ArtifactError:
            self._sweep()  # which makes room again
            raise

    def _write(self, fill: Callable[[Path], None], describe: Callable[[int, dict[str, str]], Manifest]) -> int:
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        number = self.upcoming
        aside = self.root / f"{_ASIDE}{number:06d}"
        aside.mkdir()
        fill(aside)
        manifest = describe(number, checksums(aside))
        (aside / "manifest.json").write_text(manifest.as_json(), encoding="utf-8")
        _sync_all(aside)
        aside.rename(self.folder(number))
        _sync(self.root)
        return number

    def _sweep(self) -> None:
        for leftover in self.root.glob(f"{_ASIDE}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def adopt(self, folder: Path) -> int | None:
        """Take in a version made elsewhere and let it serve, where there is none at all; return its number then.

        Raises
        ------
        ArtifactError
            Where it is not whole, or cannot be written here.
        """
        number = int(folder.name)
        if not self.numbers():
            self._take_in(folder, number)
        # one that is there already without serving is this very one, of a start that was cut short, or a stranger
        if self.current() is not None or self.manifests() != [Versions(folder.parent).manifest(number)]:
            return None
        self.activate(number)
        return number

    def _take_in(self, folder: Path, number: int) -> None:
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.root))
            shutil.copytree(folder, aside / "new")
            _sync_all(aside)
            with suppress(OSError):  # another worker was faster, with the same files
                (aside / "new").rename(self.folder(number))
            shutil.rmtree(aside, ignore_errors=True)
            _sync(self.root)

    def verify(self, number: int) -> Manifest:
        """Check every file of a version against its manifest and return that.

        Raises
        ------
        ArtifactError
            Naming the first file that is missing, changed or not listed.
        """
        manifest = self.manifest(number)
        manifest.check(self.folder(number))
        return manifest

    def activate(self, number: int) -> None:
        """Make a version the current one, after verifying it; every worker notices within a second."""
        with self._alone():
            self.verify(number)
            self._replace(self.root / "current", f"{number}\n")

    def pin(self, number: int, pinned: bool = True) -> None:
        """Keep a version whatever the retention, or no longer."""
        self._note(number, lambda manifest: replace(manifest, pinned=pinned))

    def mark_forgotten(self, number: int, rows: int) -> None:
        """Note that so many further rows that a version was fitted on were removed."""
        self._note(number, lambda manifest: replace(manifest, forgotten=manifest.forgotten + rows))

    def _note(self, number: int, change: Callable[[Manifest], Manifest]) -> None:
        with self._alone():
            self._replace(self.folder(number) / "manifest.json", change(self.manifest(number)).as_json())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one thread of one process at a time say what serves, what is kept and what goes; a kill lets go."""
        if not self.root.is_dir():
            yield
            return
        with writing(self.root):
            handle = os.open(self.root, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system that locks no folders: then nobody waits
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _replace(self, file: Path, text: str) -> None:
        with writing(self.root):
            aside = self.root / f"{file.name}{_ASIDE}"  # in a version's folder it would be a file too many
            aside.write_text(text, encoding="utf-8")
            _sync(aside)
            aside.replace(file)
            _sync(file.parent)

    def collect(self, keep: int) -> list[int]:
        """Delete the oldest versions beyond `keep`; never the current one nor a pinned one. Return their numbers."""
        with self._alone():
            current = self.current()
            gone = [m.version for m in self.manifests()[:-keep] if m.version != current and not m.pinned]
            for number in gone:
                aside = self.root / f"{_ASIDE}gone-{number:06d}"
                self.folder(number).rename(aside)
                shutil.rmtree(aside)
            return gone


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Say what a disk means that fails below a folder of versions, by an `ArtifactError`."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{root} cannot be written: {error.strerror or error}. What serves goes on serving."
            f" Look at room and owner: df -h {root}; ls -ld {root}"
        ) from error


def _sync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
