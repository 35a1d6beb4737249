"""A second server on the same state folder shares it."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import free_port
from tests.support.tiny import LABELS, TEXTS, tiny_task, write_rows
from tests.support.waiting import until
from tracer_serve.storage.versions.opening import open_versions, store_of

COMMAND = [sys.executable, "-m", "tracer_serve"]


def version_of(port: int) -> int | None:
    """Return which version a server has, None where it does not answer yet."""
    try:
        found: int | None = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).json()["version"]
    except httpx.HTTPError:
        return None
    return found


def _all_serve(ports: list[int], version: int) -> bool:
    return {version_of(port) for port in ports} == {version}


@pytest.mark.slow
def test_two_servers_on_one_store_refit_once(tmp_path: Path) -> None:
    """Started together on an empty folder, and both told of new traces, they write each version once and both serve it.

    One is then killed with -9: the other goes on, and refits.
    """
    task = tiny_task(tmp_path, schedule={"min_new_traces": 40})
    ports, env = [free_port(), free_port()], os.environ | {"OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        servers = [
            subprocess.Popen([*COMMAND, str(task.file), "--port", str(p)], stdout=log, stderr=log, env=env,
                             start_new_session=True)
            for p in ports
        ]  # fmt: skip
    try:
        until(lambda: [version_of(port) for port in ports] == [1, 1], seconds=150.0)
        for number in (2, 3):
            file = write_rows(tmp_path / f"{number}.jsonl", [f"{text} {number}" for text in TEXTS], LABELS)
            subprocess.run([*COMMAND, "import", str(task.file), str(file)], env=env, check=True, capture_output=True)
            alive = ports if number == 2 else ports[1:]
            until(partial(_all_serve, alive, number), seconds=150.0)
            time.sleep(5.0)  # two looks of a schedule: would there be another refit?
            assert open_versions(task).numbers() == list(range(1, number + 1))
            if number == 2:
                os.killpg(servers[0].pid, signal.SIGKILL)
    finally:
        for server in servers:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    store = store_of(task)
    history = [(entry.reason, entry.outcome) for entry in store.refits.recent()]
    store.close()
    assert history == [("new_traces", "certified"), ("new_traces", "certified"), ("start", "certified")]
