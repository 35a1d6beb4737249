"""Load generator: keep-alive clients on raw sockets, each sending its next request after its answer.

It runs as a separate process (``python -m bench.load``), reads its task as JSON from standard input, and takes about 15
us of CPU a request, so that it does not dominate the measurement on two cores.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Load:
    """Load on a server.

    Parameters
    ----------
    bodies : JSON bodies, sent in turn
    clients : number of concurrent clients
    seconds : duration, after `warm_s` that do not count
    """

    port: int
    path: str
    bodies: Sequence[str]
    clients: int
    seconds: float
    warm_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Met:
    """Result of a load.

    Parameters
    ----------
    rps, p50_ms, p99_ms : answers a second, milliseconds to an answer
    all : answers, those of the warm-up included
    errors : requests without an answer, or with another status than 200
    """

    rps: float
    p50_ms: float
    p99_ms: float
    all: int
    errors: int


def put(load: Load) -> Met:
    """Put a load on a server of this machine, from another process."""
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(
        command, input=json.dumps(asdict(load)), capture_output=True, text=True, check=True, cwd=_ROOT
    )
    return Met(**json.loads(done.stdout))


class _Client(asyncio.Protocol):
    """One client; a server that closes after each answer, as HTTP/1.0 does, is connected to again."""

    def __init__(self, run: "_Run") -> None:
        self._run, self._got, self._awaits, self._started = run, bytearray(), True, 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0 or len(self._got) < head + 4 + _length(bytes(self._got[:head]).lower()):
            return
        self._run.note(self._started, ok=self._got[9:12] == b"200")
        keeps = self._got.startswith(b"HTTP/1.1")
        self._got.clear()
        self._awaits = False
        if keeps:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._run.over():
            return
        if self._awaits:
            self._run.note(self._started, ok=False)
        self._run.connect()

    def _ask(self) -> None:
        assert self._transport is not None
        if self._run.over():
            self._transport.close()
            return
        self._awaits, self._started = True, time.perf_counter()
        self._transport.write(self._run.next())


class _Run:
    def __init__(self, load: Load) -> None:
        self._load, self._turn = load, count()
        self._requests = [_request(load.path, body) for body in load.bodies]
        self._from = time.perf_counter() + load.warm_s
        self._until = self._from + load.seconds
        self._took: list[float] = []
        self._errors = self._all = 0
        self._connecting: set[asyncio.Task[object]] = set()

    def over(self) -> bool:
        return time.perf_counter() > self._until

    def next(self) -> bytes:
        return self._requests[next(self._turn) % len(self._requests)]

    def note(self, started: float, *, ok: bool) -> None:
        now = time.perf_counter()
        self._all += 1
        if self._from < now <= self._until:
            self._took.append(now - started)
            self._errors += not ok

    def connect(self) -> None:
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: _Client(self), "127.0.0.1", self._load.port)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def __call__(self) -> Met:
        for _ in range(self._load.clients):
            self.connect()
        await asyncio.sleep(self._until - time.perf_counter() + 0.05)
        took = np.array(self._took or [float("nan")]) * 1e3
        p50, p99 = np.percentile(took, [50, 99]).tolist()
        return Met(len(self._took) / self._load.seconds, p50, p99, self._all, self._errors)


def _request(path: str, body: str) -> bytes:
    payload = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}"
    )
    return head.encode() + b"\r\n\r\n" + payload


def _length(head: bytes) -> int:
    start = head.find(b"content-length:")
    return int(head[start + 15 :].partition(b"\r\n")[0])


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_Run(Load(**json.load(sys.stdin)))()))))
