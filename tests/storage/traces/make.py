"""Traces for tests, and processes that work on the same store."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tracer_serve.infra import uuid7
from tracer_serve.storage.traces import new_id
from tracer_serve.types import Trace

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def trace(task: str, text: Any = "where is my card", *, hours: int = 0, **fields: Any) -> Trace:
    """A labelled, deferred trace unless the fields say otherwise."""
    values: dict[str, Any] = {
        "teacher_label": "card_arrival",
        "label_source": "teacher",
        "surrogate_label": "card_arrival",
        "score": 0.5,
        "decision": "deferred",
        "version": 1,
    }
    return Trace(id=new_id(), ts=NOON + timedelta(hours=hours), task=task, input=text, **{**values, **fields})


def handled(task: str, text: Any = "hello", **fields: Any) -> Trace:
    """A handled trace that was not audited."""
    values: dict[str, Any] = {"teacher_label": None, "label_source": None, "decision": "handled", "propensity": 0.03}
    return trace(task, text, **{**values, **fields})


@contextmanager
def past(days: float) -> Iterator[None]:
    """Generate identifiers as of some days ago."""
    then = time.time_ns() - int(86_400e9 * days)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uuid7, "generator", uuid7.IdGenerator(lambda: then))
        yield


_WORKER = """
import json, sys, time
import tests.storage.traces.make
from tracer_serve.storage.traces import open_store
for line in sys.stdin:
    job = json.loads(line)
    time.sleep(max(0.0, job["at"] - time.time()))
    found = {"n": job["n"], "open_store": open_store}
    exec(job["script"], found)
    print(json.dumps(found.get("result")), flush=True)
"""


class Workers:
    """Python processes that run scripts at the same moment; started once, since starting costs a second each."""

    def __init__(self, n: int) -> None:
        self._processes = [process(_WORKER) for _ in range(n)]

    def together(self, script: str) -> list[Any]:
        """Run a script in all of them, with their number as `n`; return each one's `result`."""
        at = time.time() + 0.05
        for number, worker in enumerate(self._processes):
            assert worker.stdin is not None
            worker.stdin.write(json.dumps({"script": script, "n": number, "at": at}) + "\n")
            worker.stdin.flush()
        return [self._result(worker) for worker in self._processes]

    def close(self) -> None:
        """End the processes."""
        for worker in self._processes:
            worker.kill()
            worker.communicate()

    def _result(self, worker: "subprocess.Popen[str]") -> Any:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        assert line, worker.communicate()[1]
        return json.loads(line)


def process(script: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a Python process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
