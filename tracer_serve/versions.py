"""Version folders: written aside, fsynced, renamed; `current` is a text file replaced atomically.

A crash at any point leaves either no new version or a whole one, and `current` always names a whole one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tracer_serve.errors import ArtifactError

_ASIDE = ".aside-"

NEAREST = "nearest.npy"
"""File of a version: trace ids of the rows of its policy's indexes, in the order of the rows, ASCII; the texts stay in
the store alone."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version is and what belongs to it.

    Parameters
    ----------
    version : its number, from 1
    created : UTC, ISO 8601
    task : name of the task
    certified : whether its certificate lets the surrogate answer
    reason : why not, or ``certified``
    parent : the version that was current when this one was written
    traces : labelled rows it was fitted on
    last_trace : id of the newest of them
    embedder, teacher : fingerprints; of a cascade, of all its embedders
    plugins : sha256 of each plugin file
    software : versions of tracer-serve and of the libraries that shape the numbers
    files : sha256 of every other file, by path relative to the folder
    pinned : kept whatever the retention
    labels : what it can answer
    after : its calibration rows came after this trace id; empty: from the first on
    spent : with ``gate.spend: series``, rows up to this id may be in no further certificate
    forgotten : rows it was fitted on that were removed since on a user's demand
    """

    version: int
    created: str
    task: str
    certified: bool
    reason: str
    parent: int | None
    traces: int
    last_trace: str
    embedder: str
    teacher: str
    plugins: dict[str, str]
    software: dict[str, str]
    files: dict[str, str]
    pinned: bool = False
    labels: tuple[str, ...] = ()
    after: str = ""
    spent: str = ""
    forgotten: int = 0


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
            Where `current` does not hold a number, which no crash of ours can cause.
        """
        try:
            text = (self.root / "current").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        if not text.isdigit():
            raise ArtifactError(f"{self.root}/current holds {text!r}, not a number; choose one with rollback")
        return int(text)

    def manifest(self, number: int) -> Manifest:
        """Read a version's manifest.

        Raises
        ------
        ArtifactError
            Where there is no such version, or its manifest cannot be read.
        """
        file = self.folder(number) / "manifest.json"
        try:
            facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            facts["labels"] = tuple(facts.get("labels", ()))
            return Manifest(**{f.name: facts[f.name] for f in fields(Manifest) if f.name in facts})
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
            with self._writing():
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
        manifest = asdict(describe(number, checksums(aside)))
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in [*aside.rglob("*"), aside]:
            _sync(path)
        aside.rename(self.folder(number))
        _sync(self.root)
        return number

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what a failing disk means."""
        try:
            yield
        except OSError as error:
            raise ArtifactError(
                f"{self.root} cannot be written: {error.strerror or error}. What serves goes on serving."
                f" Look at room and owner: df -h {self.root}; ls -ld {self.root}"
            ) from error

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
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.root))
            shutil.copytree(folder, aside / "new")
            for path in [*aside.rglob("*"), aside]:
                _sync(path)
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
        manifest, folder = self.manifest(number), self.folder(number)
        found = checksums(folder)
        for name in sorted({*manifest.files, *found} - {"manifest.json"}):
            if found.get(name) != manifest.files.get(name):
                what = "is missing" if name not in found else "was changed after it was written"
                raise ArtifactError(
                    f"{folder / name} {what}: version {number} is corrupt and does not serve."
                    " Choose another with `tracer-serve rollback TASK.yaml`, or refit."
                )
        return manifest

    def activate(self, number: int) -> None:
        """Make a version the current one, after verifying it; every worker notices within a second."""
        self.verify(number)
        with self._writing():
            aside = self.root / f"current{_ASIDE}"
            aside.write_text(f"{number}\n", encoding="ascii")
            _sync(aside)
            aside.replace(self.root / "current")
            _sync(self.root)

    def pin(self, number: int, pinned: bool = True) -> None:
        """Keep a version whatever the retention, or no longer."""
        self._note(number, pinned=pinned)

    def mark_forgotten(self, number: int, rows: int) -> None:
        """Note that so many further rows that a version was fitted on were removed."""
        self._note(number, forgotten=self.manifest(number).forgotten + rows)

    def _note(self, number: int, **facts: Any) -> None:
        manifest = asdict(self.manifest(number)) | facts
        aside = self.folder(number) / "manifest.json.aside"
        aside.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _sync(aside)
        aside.replace(self.folder(number) / "manifest.json")

    def collect(self, keep: int) -> list[int]:
        """Delete the oldest versions beyond `keep`; never the current one nor a pinned one. Return their numbers."""
        current = self.current()
        gone = [m.version for m in self.manifests()[:-keep] if m.version != current and not m.pinned]
        for number in gone:
            aside = self.root / f"{_ASIDE}gone-{number:06d}"
            self.folder(number).rename(aside)
            shutil.rmtree(aside)
        return gone


def checksums(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
