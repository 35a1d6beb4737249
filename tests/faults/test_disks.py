"""Disks that fill up, turn read-only or are locked: answers go on, refits stop and say why, nothing is lost by it."""

import asyncio
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import disks
from tests.support.tiny import TEXTS, rows_now, tiny_task
from tracer_serve.errors import ArtifactError, FitError, StoreError
from tracer_serve.infra import uuid7
from tracer_serve.lifecycle.gate_state.closing import close_gate
from tracer_serve.lifecycle.refit import refit
from tracer_serve.serving.runtime import Runtime, running
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.types import Decision

UNLIKE = "a qqqq wwww"  # out of scope for the surrogate, and the teacher knows a label


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    with disks.small_disk(tmp_path / "disk", 8, lazy=True) as disk:
        yield disk


def fill(disk: Path) -> Path:
    """Write a file until nothing more fits."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


async def ask(runtime: Runtime) -> list[str]:
    """Ask about a text that is handled and one that is deferred; return how they were decided."""
    results = await runtime.router.route([TEXTS[0], UNLIKE])
    return [result.kind if isinstance(result, Decision) else repr(result) for result in results]


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_full_disk_stops_refits_and_traces_not_answers(tmp_path: Path, small_disk: Path) -> None:
    """While it is full answers go on and rows wait; a refit fails, the version stays; with room nothing is missing."""
    task = tiny_task(tmp_path, state=str(small_disk), traces={"import": ["rows.jsonl"], "audit_rate": 0.0})
    refit(task)
    async with running(task, schedule=False) as runtime:
        before = runtime.store.tallies.counts().total.rows
        assert await ask(runtime) == ["handled", "deferred"]
        ballast = fill(small_disk)
        asked = 1
        while not runtime.writer.problem:  # what the store had reserved is used up first
            assert await ask(runtime) == ["handled", "deferred"]
            asked += 1
        assert "full" in runtime.problems()[0]
        with pytest.raises((StoreError, ArtifactError), match=r"(?i)full|no space"):
            await asyncio.to_thread(refit, task)
        assert open_versions(task).current() == 1
        assert open_versions(task).verify(1)
        ballast.unlink()
        assert await ask(runtime) == ["handled", "deferred"]
        async with asyncio.timeout(10):
            while runtime.writer.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert runtime.problems() == []
        assert runtime.writer.lost == 0
        assert runtime.store.tallies.counts().total.rows == before + 2 * (asked + 1)
    assert refit(task).version == 2


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_read_only_disk_is_told_at_the_start(tmp_path: Path, small_disk: Path) -> None:
    """Neither a service nor a refit starts on it: both name file and reason; writable again, all is as it was."""
    task = tiny_task(tmp_path, state=str(small_disk), traces={"import": ["rows.jsonl"], "audit_rate": 0.0})
    refit(task)
    for mode in ("ro", "rw"):
        remount = ["mount", "-o", f"remount,{mode}", str(small_disk)]
        await asyncio.to_thread(subprocess.run, remount, check=True)
        if mode == "ro":
            with pytest.raises(StoreError, match=r"traces.db.*(?i:read-only)"):
                refit(task)
            with pytest.raises(StoreError, match=r"traces.db.*(?i:read-only)"):
                async with running(task, schedule=False):
                    pytest.fail("it started")
    async with running(task, schedule=False) as runtime:
        assert await ask(runtime) == ["handled", "deferred"]


@pytest.mark.anyio
async def test_a_locked_database_delays_rows_and_loses_none(tmp_path: Path) -> None:
    """While another process holds the lock handled requests are answered at once; deferred ones once it lets go."""
    task = tiny_task(tmp_path, traces={"import": ["rows.jsonl"], "audit_rate": 0.0})
    refit(task)
    async with running(task, schedule=False) as runtime:
        lock = sqlite3.connect(task.state / "traces.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        deferred = asyncio.create_task(runtime.router.route([UNLIKE]))
        (handled,) = await asyncio.wait_for(runtime.router.route([TEXTS[0]]), 10)
        await asyncio.sleep(0.3)
        assert not deferred.done()
        lock.execute("ROLLBACK")
        lock.close()
        (late,) = await asyncio.wait_for(deferred, 20)
        runtime.writer.close()
        assert isinstance(handled, Decision)
        assert isinstance(late, Decision)
        assert all(runtime.store.traces.get(result.trace_id) for result in (handled, late))
        assert runtime.writer.lost == 0


@pytest.mark.parametrize("closed", [1.0, 0.0], ids=["still ahead", "set back"])
def test_a_clock_that_ran_ahead_delays_and_never_falsifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: float
) -> None:
    """Rows after a closing calibrate once a clock that was ahead has caught up, none before, and no older ones."""
    task = tiny_task(tmp_path)
    refit(task)
    store = store_of(task)
    now = time.time_ns()

    def set_clock(days: float) -> None:
        shift = int(days * 86_400e9)
        monkeypatch.setattr(uuid7, "generator", uuid7.IdGenerator(lambda: now + shift))  # as after a restart

    set_clock(1.0)
    store.traces.add(rows_now(40))
    set_clock(closed)
    close_gate(store, version=1, audits=9, agreements=1, evidence=50.0)
    set_clock(0.0)
    store.traces.add(rows_now(40))
    with pytest.raises(FitError, match="only 0 may calibrate"):
        refit(task)
    set_clock(1.001)
    store.traces.add(rows_now(40))
    found: Any = refit(task)
    assert (found.activated, found.certificate.rows + found.certificate.pilot) == (True, 40)
    store.close()
