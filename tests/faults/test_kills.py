"""kill -9 at random moments of refits, imports and swaps under load."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(folder: Path, seed: int, kills: int) -> dict[str, Any]:
    """Run the driver in an interpreter of its own, which forks: it must have no threads."""
    words = [sys.executable, "-m", "tests.faults.driver", str(folder), str(seed), str(kills)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_kills_lose_nothing_and_leave_what_serves(tmp_path: Path) -> None:
    """After each of five kills every acknowledged row is there, every version is whole, and a service starts."""
    found = run(tmp_path, 1, 5)
    assert sum(found["seen"].values()) == 5
    assert found["acknowledged"] > 0


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """Two hundred and forty kills, one after the other on the same folder: refits, imports and swaps are all hit."""
    found = run(tmp_path, 0, 240)
    assert {kind for kind in found["seen"] if kind.endswith("killed")} == {
        "refit killed",
        "import killed",
        "swap killed",
    }
    assert sum(n for kind, n in found["seen"].items() if kind.endswith("killed")) >= 200
    assert found["acknowledged"] > 1_000
