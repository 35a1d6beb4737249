"""Latency of one caller's single texts, alone and beside each kind of abusive caller.

    python -m bench.fairness
    python -m bench.fairness --minutes 10

The second form runs all of them at the same time, and measures the server's memory before and after. One server
process with two API keys and a small certified version; the abusive caller is a process of its own. The
teacher is the stub of the tests, with a latency of .1 s. Quiet and loaded runs alternate, on the same connections.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.table import Table

from bench.abuse import GREEDY, KINDS, OTHER, WELCOME, Kind
from bench.shown import show
from tests.server.worlds import HANDLED, make_task, make_version, unknown
from tests.support.server_process import answering, bare, free_port, workers_at
from tests.support.stub_llm import Faults, StubLLM, serve
from tracer_serve.cli.console import progress_bar

Progress = Callable[..., None]
_PARTS = 4  # measurements of the memory during the abuse


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


@dataclass(frozen=True, slots=True)
class Row:
    """Single texts of one caller beside one kind of abuse, and in the same run beside none.

    Parameters
    ----------
    p99_ratio : of the loaded to the quiet runs
    refused : of the `requests`, refused or not answered within a minute
    traces_lost : by the server since its start
    """

    system: str
    beside: str
    requests: int
    quiet_p50_ms: float
    quiet_p99_ms: float
    p50_ms: float
    p99_ms: float
    p99_ratio: float
    refused: int
    traces_lost: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the server's worker, in MB, and its ratio to that before the abuse."""

    system: str
    when: str
    resident_mb: float
    ratio: float
    traces_lost: int


def measure(url: str, number: int, progress: Progress) -> list[Row]:
    """Measure beside each kind of abuse."""
    return [_beside(url, number, kind, progress, i) for i, kind in enumerate(KINDS)]


def _beside(url: str, number: int, name: str, progress: Progress, done: int) -> Row:
    kind, refused = KINDS[name], 0
    quiet: list[float] = []
    loaded: list[float] = []
    for part in range(2):
        progress(name, 2 * done + part, 2 * len(KINDS))
        quiet += singles(url, kind.deferred, number)[0]
        with abused(url, kind):
            time.sleep(3.0)
            seconds, some = singles(url, kind.deferred, number)
        loaded, refused = loaded + seconds, refused + some
        time.sleep(1.0)
    before, after = _ms(quiet), _ms(loaded)
    return Row("tracer-serve", name, 2 * number, *before, *after, round(after[1] / before[1], 2), refused, lost(url))


def _ms(seconds: list[float]) -> tuple[float, float]:
    p50, p99 = (1e3 * np.quantile(seconds, [0.5, 0.99])).tolist()
    return round(p50, 2), round(p99, 2)


@contextmanager
def abused(url: str, kind: Kind) -> Iterator[None]:
    """Let an abusive caller ask from a process of its own."""
    other = multiprocessing.get_context("spawn").Process(target=_yielding, args=(kind, url))
    other.start()
    try:
        yield
    finally:
        other.kill()
        other.join()


def _yielding(kind: Kind, url: str) -> None:
    """Ask, but leave the processor to the server: an attacker has a machine of its own."""
    os.nice(10)
    kind.abuse(url)


def lost(url: str) -> int:
    """Return how many traces the server has lost."""
    health = httpx.get(f"{url}/healthz", headers={"authorization": f"Bearer {OTHER}"}, timeout=60).json()
    return int(health["traces_lost"])


def memory(url: str, minutes: float, progress: Progress) -> list[Memory]:
    """Measure the server's memory before, during and after all kinds of abuse at the same time.

    Before it, the server has answered a caller that sends short texts, long lists and calls to forward, one at a time.
    """
    (worker,) = workers_at(httpx.URL(url).port or 0)
    rows: list[Memory] = []

    def note(when: str) -> None:
        pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
        resident = round(pages * resource.getpagesize() / 1e6, 1)
        before = rows[0].resident_mb if rows else resident
        rows.append(Memory("tracer-serve", when, resident, round(resident / before, 2), 0))
        progress(f"{when}: {resident} MB", len(rows), _PARTS + 2)

    _warm(url)
    note("before")
    with ExitStack() as stack:
        for kind in KINDS.values():
            stack.enter_context(abused(url, kind))
        for part in range(1, _PARTS + 1):
            time.sleep(60 * minutes / _PARTS)
            note(f"after {part * minutes / _PARTS:g} minutes")
    time.sleep(45)  # until idle connections are closed
    note("45 s after its end")
    singles(url, False, 100)  # it answers
    return [replace(row, traces_lost=lost(url)) for row in rows]


def _warm(url: str) -> None:
    """Ask once in every way that is allowed, since a server that has answered nothing but short texts is small."""
    singles(url, False, 900)
    singles(url, True, 100)
    headers = {"authorization": f"Bearer {OTHER}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for path, body in WELCOME:
            for _ in range(5):
                client.post(path, json=body).raise_for_status()


def table(rows: Sequence[Row] | Sequence[Memory]) -> Table:
    """Return a line per row."""
    names = [field.name for field in fields(rows[0])][1:]
    shown = Table(*(name.replace("_", " ") for name in names))
    for row in rows:
        shown.add_row(*(str(getattr(row, name)) for name in names))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=200, help="single texts of each run")
    parser.add_argument("--minutes", type=float, help="mixed abuse for so long; measure memory instead of latency")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    with (
        progress_bar() as progress,
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
            found = (
                memory(url, options.minutes, progress) if options.minutes else measure(url, options.number, progress)
            )
    show(found, table(found), as_json=options.json)


if __name__ == "__main__":
    main()
