"""Single texts of one caller, alone and beside an abusive caller of each kind: latency at the client.

    python -m bench.fairness

One server process with two API keys and a small certified version; the abusive caller is a process of its own. The
teacher is the stub of the tests, with a latency of .1 s. Quiet and loaded runs alternate, on the same connections.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.table import Table

from tests.server.worlds import BLUE, HANDLED, RED, make_task, make_version, unknown
from tests.support.server_process import answering, bare, free_port
from tests.support.stub_llm import Faults, StubLLM, serve
from tracer_serve.cli.console import out

GREEDY, OTHER = "key-of-the-greedy-caller", "key-of-the-other-caller"
_LIST = [f"{text} {i}" for i in range(43) for text in RED + BLUE][:1024]
KINDS: dict[str, tuple[int, list[Any], bool]] = {
    "lists of 1,024 handled texts": (8, [_LIST], False),
    "single handled texts": (64, [HANDLED], False),
    "single deferred texts": (200, [unknown(i) for i in range(1_000)], True),
    "lists of 256 deferred texts": (8, [[unknown(256 * n + i) for i in range(256)] for n in range(8)], True),
}
"""The abusive caller's connections and inputs, and whether the other caller's texts are deferred."""


def abuse(url: str, connections: int, inputs: list[Any]) -> None:
    """Ask without end on some connections."""

    contents = itertools.cycle([json.dumps({"input": one}).encode() for one in inputs])

    async def forever(client: httpx.AsyncClient) -> None:
        while True:
            with suppress(httpx.HTTPError):
                await client.post("/v1/classify", content=next(contents))

    async def run() -> None:
        limits = httpx.Limits(max_connections=connections)
        headers = {"authorization": f"Bearer {GREEDY}", "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as client:
            await asyncio.gather(*(forever(client) for _ in range(connections)))

    asyncio.run(run())


def singles(url: str, deferred: bool, number: int) -> tuple[list[float], int]:
    """Return the seconds of requests one after the other, and how many were refused."""
    seconds, refused = [], 0
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {OTHER}"}, timeout=60) as client:
        for i in range(number):
            began = time.perf_counter()
            text = unknown(-1 - i) if deferred else HANDLED
            refused += client.post("/v1/classify", json={"input": text}).status_code != httpx.codes.OK
            seconds.append(time.perf_counter() - began)
            time.sleep(0.005)
    return seconds, refused


def measure(url: str, number: int) -> Table:
    """Return a line per kind of abuse."""
    shown = Table("beside", "quiet p50, p99 ms", "loaded p50, p99 ms", "ratio of p99", "refused")
    for kind, (connections, inputs, deferred) in KINDS.items():
        quiet: list[float] = []
        loaded: list[float] = []
        refused = 0
        for _ in range(2):
            quiet += singles(url, deferred, number)[0]
            other = multiprocessing.get_context("spawn").Process(target=abuse, args=(url, connections, inputs))
            other.start()
            time.sleep(3.0)
            seconds, some = singles(url, deferred, number)
            other.kill()
            other.join()
            loaded, refused = loaded + seconds, refused + some
            time.sleep(1.0)
        before, after = (1e3 * np.quantile(part, [0.5, 0.99]) for part in (quiet, loaded))
        cells = [f"{p50:.1f}, {p99:.1f}" for p50, p99 in (before, after)]
        shown.add_row(kind, *cells, f"{after[1] / before[1]:.1f}", f"{refused} of {2 * number}")
    health = httpx.get(f"{url}/healthz", headers={"authorization": f"Bearer {OTHER}"}, timeout=60).json()
    shown.caption = f"traces lost: {health['traces_lost']}"
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=200, help="single texts of each run")
    options = parser.parse_args(arguments)
    with (
        serve(StubLLM(default="red", faults=Faults(latency_s=0.1))) as stub,
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("GREEDY_KEY", GREEDY)
        environment.setenv("OTHER_KEY", OTHER)
        folder, port = Path(name), free_port()
        teacher = {"type": "openai", "base_url": stub.url, "model": "stub-1", "cache": {"size": 0}}
        server = {"api_keys": ["${GREEDY_KEY}", "${OTHER_KEY}"], "max_batch": 1024, "decision_cache": 0}
        schedule = {"min_new_traces": 10**6}
        make_version(make_task(folder, stub, teacher=teacher, server=server, schedule=schedule))
        words = [sys.executable, "-m", "tracer_serve", str(folder / "task.yaml"), "--port", str(port)]
        env = bare(folder / "home", GREEDY_KEY=GREEDY, OTHER_KEY=OTHER, PYTHONPATH=":".join(sys.path))
        with answering(words, port, folder, env) as client:
            out.print(measure(str(client.base_url), options.number))


if __name__ == "__main__":
    main()
