"""Leases of processes that were killed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tracer_serve.storage.traces import open_store
from tracer_serve.storage.traces.lease_owner import describe_holder, is_dead, live_holder, new_holder, take_lease

HOLD = "from tracer_serve.storage.traces.lease_owner import new_holder; print(new_holder(), flush=True); input()"


def test_a_killed_holder_is_succeeded_at_once(tmp_path: Path) -> None:
    """While the process lives its lease stands; after kill -9 the next one takes it without waiting a minute."""
    store = open_store(tmp_path / "traces.db", "t")
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        holder = process.stdout.readline().strip()
        assert store.leases.acquire("refit", holder, 3600)
        assert not take_lease(store, "refit", new_holder(), 60)
        assert live_holder(store, "refit") == holder
        process.kill()
    mine = new_holder()
    assert take_lease(store, "refit", mine, 60)
    assert live_holder(store, "refit") == mine
    store.close()


@pytest.mark.parametrize("part", [1, 2, 3, None])
def test_only_certain_deaths_count(part: int | None) -> None:
    """A holder of another boot or container, or one in another form, is not called dead; a PID given again is."""
    if part is None:
        assert not is_dead("somebody")
        return
    words = new_holder().split(" ")
    assert not is_dead(" ".join(words))
    words[part] = {1: "elsewhere", 2: "not-a-pid", 3: "1"}[part]
    assert is_dead(" ".join(words)) == (part == 3)


def test_a_holder_is_named_as_people_look_for_it() -> None:
    """Of a process its number and machine; a holder of another form as it is, none as nobody."""
    assert describe_holder(new_holder()) == f"process {os.getpid()} on {socket.gethostname()}"
    assert describe_holder("somebody elsewhere") == "somebody elsewhere"
    assert describe_holder(None) == "a process that has just ended"
