"""Latency of one caller's single texts, alone and beside each kind of abusive caller.

    python -m bench.fairness
    python -m bench.fairness --minutes 10

The second form runs all of them at the same time, and measures the server's memory before and after. One server
process with two API keys and a small certified version; the abusive caller is a process of its own. The
teacher is the stub of the tests, with a latency of .1 s. Quiet and loaded runs alternate, on the same connections.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.table import Table

from bench.abuse import GREEDY, KINDS, OTHER, Kind
from tests.server.worlds import HANDLED, make_task, make_version, unknown
from tests.support.server_process import answering, bare, free_port, workers_at
from tests.support.stub_llm import Faults, StubLLM, serve
from tracer_serve.cli.console import out


def singles(url: str, deferred: bool, number: int) -> tuple[list[float], int]:
    """Return the seconds of requests one after the other, and how many were refused or not answered in a minute."""
    seconds, refused = [], 0
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {OTHER}"}, timeout=60) as client:
        for i in range(number):
            began = time.perf_counter()
            text = unknown(-1 - i) if deferred else HANDLED
            try:
                refused += client.post("/v1/classify", json={"input": text}).status_code != httpx.codes.OK
            except httpx.TimeoutException:
                refused += 1
            seconds.append(time.perf_counter() - began)
            time.sleep(0.005)
    return seconds, refused


def measure(url: str, number: int) -> Table:
    """Return a line per kind of abuse."""
    shown = Table("beside", "quiet p50, p99 ms", "loaded p50, p99 ms", "ratio of p99", "refused")
    for name, kind in KINDS.items():
        quiet: list[float] = []
        loaded: list[float] = []
        refused = 0
        for _ in range(2):
            quiet += singles(url, kind.deferred, number)[0]
            with abused(url, kind):
                time.sleep(3.0)
                seconds, some = singles(url, kind.deferred, number)
            loaded, refused = loaded + seconds, refused + some
            time.sleep(1.0)
        before, after = (1e3 * np.quantile(part, [0.5, 0.99]) for part in (quiet, loaded))
        cells = [f"{p50:.1f}, {p99:.1f}" for p50, p99 in (before, after)]
        shown.add_row(name, *cells, f"{after[1] / before[1]:.1f}", f"{refused} of {2 * number}")
    shown.caption = f"traces lost: {lost(url)}"
    return shown


@contextmanager
def abused(url: str, kind: Kind) -> Iterator[None]:
    """Let an abusive caller ask from a process of its own."""
    other = multiprocessing.get_context("spawn").Process(target=kind.abuse, args=(url,))
    other.start()
    try:
        yield
    finally:
        other.kill()
        other.join()


def lost(url: str) -> int:
    """Return how many traces the server has lost."""
    health = httpx.get(f"{url}/healthz", headers={"authorization": f"Bearer {OTHER}"}, timeout=60).json()
    return int(health["traces_lost"])


def memory(url: str, minutes: float) -> Table:
    """Return the server's memory before, during and after all kinds of abuse at the same time."""
    (worker,) = workers_at(httpx.URL(url).port or 0)
    shown = Table("when", "resident MB", "singles p50, p99 ms")

    def note(when: str) -> None:
        pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
        p50, p99 = 1e3 * np.quantile(singles(url, False, 100)[0], [0.5, 0.99])
        shown.add_row(when, f"{pages * resource.getpagesize() / 1e6:.0f}", f"{p50:.1f}, {p99:.1f}")

    for _ in range(3):
        singles(url, False, 300)
    note("before")
    with ExitStack() as stack:
        for kind in KINDS.values():
            stack.enter_context(abused(url, kind))
        for part in range(1, 5):
            time.sleep(15 * minutes)
            note(f"after {part * minutes / 4:g} minutes")
    time.sleep(45)  # until idle connections are closed
    note("45 s after its end")
    shown.caption = f"traces lost: {lost(url)}"
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=200, help="single texts of each run")
    parser.add_argument("--minutes", type=float, help="mixed abuse for so long; measure memory instead of latency")
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
            url = str(client.base_url)
            out.print(memory(url, options.minutes) if options.minutes else measure(url, options.number))


if __name__ == "__main__":
    main()
