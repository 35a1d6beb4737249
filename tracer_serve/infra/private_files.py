"""Create folders and files that only their owner can read: they hold texts of users."""

from contextlib import suppress
from pathlib import Path

_FOLDER, _FILE = 0o700, 0o600


def make_private_folder(folder: Path) -> None:
    """Create a folder with mode 0700, or set the mode of an existing one.

    The mode of a folder of another owner, such as a volume of Kubernetes, is left as it is.
    """
    folder.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        with suppress(PermissionError):
            folder.chmod(_FOLDER)


def make_private(path: Path) -> None:
    """Set mode 0600 on a file, or 0700 on a folder, of this process."""
    path.chmod(_FOLDER if path.is_dir() else _FILE)
