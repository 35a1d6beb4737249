"""The main job as a newcomer runs it: one process, real HTTP, real store, one refit, a clean stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.support.tasks import CONFIGS
from tests.support.waiting import until
from tracer_serve.storage.traces import open_store
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.storage.versions.store import all_manifests

T = TypeVar("T")
TASK = CONFIGS / "banking.yaml"
COMMAND = [sys.executable, "-m", "tracer_serve"]


class Running:
    """A served task: its process, state folder and HTTP client."""

    def __init__(self, state: Path, port: int) -> None:
        self.state = state / "banking"
        self.env = os.environ | {"TRACER_SERVE_STATE": str(state), "OMP_NUM_THREADS": "1"}
        self.log = state / "log.txt"
        state.mkdir()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*COMMAND, str(TASK), "--port", str(port)], stdout=log, stderr=subprocess.STDOUT, env=self.env
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        answer = self.http.post("/v1/classify", json={"input": texts})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = Running(tmp_path / "state", port)
    try:
        until(server.ready, 600.0)  # it fits first, on however slow a machine
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.http.close()


def test_the_main_job(running: Running) -> None:
    """Serve, handle and defer, keep traces, refit into version 2 without a restart, stop with nothing lost."""
    more = [json.loads(line) for line in (CONFIGS / "banking.more.jsonl").read_text().splitlines()]
    texts = [row["input"] for row in more]

    # the summary says what a newcomer needs
    printed = running.log.read_text()
    for word in ("version", "certified", "coverage", "agreement", "report", "curl -s http://127.0.0.1"):
        assert word in printed

    # both routes are taken, and a deferred text gets the teacher's label
    answers = running.classify(texts[:100])
    decisions = [answer["decision"] for answer in answers]
    assert {"handled", "deferred"} <= set(decisions)
    for answer, row in zip(answers, more[:100], strict=True):
        if answer["decision"] == "deferred":
            assert answer["label"] == row["teacher"]
    both = zip(answers, more[:100], strict=True)
    handled = [a["label"] == row["teacher"] for a, row in both if a["decision"] == "handled"]
    assert sum(handled) / len(handled) > 0.85

    # the traces are in the store, the report is on disk and served
    store = open_store(running.state / "traces.db", "banking")
    until(lambda: sum(store.tallies.counts().by_decision.values()) >= 100, seconds=600.0)
    counts = store.tallies.counts()
    assert counts.by_decision["deferred"] == decisions.count("deferred")
    versions = LocalVersions(running.state / "versions")
    assert (versions.folder(1) / "report.html").stat().st_size > 1000
    assert running.http.get("/versions/1/report.html").status_code == 200

    # new traces arrive; the schedule notices and refits; version 2 serves without a restart
    command = [*COMMAND, "import", str(TASK), str(CONFIGS / "banking.more.jsonl")]
    subprocess.run(command, env=running.env, check=True, capture_output=True)
    until(
        lambda: running.http.post("/v1/classify", json={"input": "hi"}).headers["x-tracer-version"] == "2",
        seconds=600.0,
    )
    assert running.process.poll() is None
    assert versions.manifest(2).traces > versions.manifest(1).traces
    assert [m.version for m in all_manifests(versions)] == [1, 2]
    store.close()

    # SIGTERM: what is in flight ends, the exit code is 0
    with ThreadPoolExecutor(1) as pool:
        flight = pool.submit(running.classify, texts * 4)
        time.sleep(0.05)
        running.process.send_signal(signal.SIGTERM)
        assert len(flight.result()) == 4 * len(texts)
    assert running.process.wait(60) == 0
