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
    """After each of three kills every acknowledged row is there, every version is whole, and a service starts."""
    found = run(tmp_path, 1, 3)
    assert sum(found["seen"].values()) == 3
    assert found["acknowledged"] > 0


@pytest.mark.slow
def test_many_kills_lose_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """As many kills as `--kills` says, one after the other on the same folder; every kind of work is hit."""
    kills = int(pytestconfig.getoption("kills"))
    found = run(tmp_path, 0, kills)
    killed = {kind: n for kind, n in found["seen"].items() if kind.endswith("killed")}
    assert killed.keys() == {f"{kind} killed" for kind in ("refit", "import", "swap", "worker", "discovery")}
    assert sum(killed.values()) >= 0.8 * kills
    assert found["acknowledged"] > 5 * kills
