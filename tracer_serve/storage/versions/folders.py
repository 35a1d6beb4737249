"""The layout of version folders: ``000001/manifest.json`` and its files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracer_serve.errors import ArtifactError
from tracer_serve.infra.private_files import make_private
from tracer_serve.storage.versions.manifest import Manifest


class VersionFolders:
    """Read the folders of versions below one folder.

    Parameters
    ----------
    root : need not exist yet
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, number: int) -> Path:
        """Return the folder of a version."""
        return self.root / f"{number:06d}"

    def numbers(self) -> list[int]:
        """Return the numbers of all complete versions, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(int(p.name) for p in self.root.iterdir() if p.name.isdigit() and (p / "manifest.json").is_file())

    def manifest(self, number: int) -> Manifest:
        """Read the manifest of a version.

        Raises
        ------
        ArtifactError
            There is no such version, or its manifest cannot be read.
        """
        file = self.folder(number) / "manifest.json"
        try:
            return Manifest.of_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise ArtifactError(f"there is no version {number} in {self.root}; there are: {known}") from None
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{file} cannot be read: {error}") from error


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Raise disk errors below a folder of versions as `ArtifactError`."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{root} cannot be written: {error.strerror or error}. The current version keeps serving."
            f" Check free space and owner: df -h {root}; ls -ld {root}"
        ) from error


def publishable(folder: Path) -> None:
    """Make a folder and everything in it private, and flush it to the disk."""
    for path in [*folder.rglob("*"), folder]:
        make_private(path)
        sync(path)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
