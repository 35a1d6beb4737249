"""Disks that fill up."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(disk: Path, megabytes: int, *, lazy: bool = False) -> Iterator[Path]:
    """Mount a disk of `megabytes` MB at a new folder; skip the test if mounting is not allowed.

    Parameters
    ----------
    lazy : whether files may still be open on it at the end
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs here: {done.stderr}")
    yield disk
    subprocess.run(["umount", *["--lazy"] * lazy, str(disk)], check=True)
