"""kill -9 of a writer: every acknowledged row is there, none is there by half, and the counts agree."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.storage.traces.make import process
from tracer_serve.storage.traces import open_store

_WRITER = """
import sys, threading
from tests.storage.traces.make import trace
from tracer_serve.storage.traces import open_store
store = open_store(sys.argv[1], "task")
lock = threading.Lock()
def work():
    while True:
        rows = [trace("task", "text " * 20) for _ in range(5)]
        store.traces.add(rows)
        with lock:  # one write per line: a killed process leaves no half of one
            sys.stdout.write("".join(row.id + "\\n" for row in rows))
            sys.stdout.flush()
        store.traces.set_label(rows[0].id, "other", "human")
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
threading.Event().wait()
"""


def _kill_a_writer(path: Path, after_s: float) -> set[str]:
    """Let a process write for a while, kill it, and return the ids it said were written."""
    writer = process(_WRITER, path)
    assert writer.stdout is not None
    first = writer.stdout.readline()
    time.sleep(after_s)
    writer.send_signal(signal.SIGKILL)
    out, err = writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL, err
    return {line for line in [first.strip(), *out.split("\n")] if len(line) == 36}


def _check(path: Path, acknowledged: set[str]) -> None:
    store = open_store(path, "task")
    try:
        rows = list(store.traces.labelled())
        assert acknowledged <= {row.id for row in rows}
        assert len(rows) % 5 == 0, "half of an add"
        counts = store.tallies.counts()
        assert counts.total.rows == len(rows)
        assert counts.by_source.get("human", 0) == sum(row.label_source == "human" for row in rows)
    finally:
        store.close()


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """After kill -9 in the middle of concurrent adds the store opens and holds every acknowledged row, whole."""
    acknowledged = _kill_a_writer(tmp_path / "traces.db", 0.2)
    assert acknowledged
    _check(tmp_path / "traces.db", acknowledged)


@pytest.mark.slow
def test_nothing_is_lost_in_forty_crashes(tmp_path: Path) -> None:
    """Forty kills at random moments on the same file, one after the other, lose nothing."""
    rng, acknowledged = random.Random(1), set[str]()
    for _ in range(40):
        acknowledged |= _kill_a_writer(tmp_path / "traces.db", rng.uniform(0.0, 0.4))
        _check(tmp_path / "traces.db", acknowledged)
    assert len(acknowledged) > 1_000
