"""Latency of single requests beside a list of ten thousand texts, and what the list loses to them.

    python -m bench.beside

One worker answers single texts, one after the other; then one list; then the list with single texts beside it until it
is answered. Rounds alternate, so that other load on the machine affects all three alike. Versions and texts are those
of `bench.serving`.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from itertools import cycle, islice
from statistics import median

import numpy as np
from rich.table import Table

from bench.data import Dataset, load
from bench.serving_ours import handled_texts, serve, task_of
from bench.shown import show
from tracer_serve.cli.console import progress_bar

SYSTEMS = ("tracer-serve, ngrams", "tracer-serve, onnx")
_PORT = 3970


@dataclass(frozen=True, slots=True)
class Row:
    """Single requests of one system, medians of the rounds.

    Parameters
    ----------
    beside : whether a list was answered meanwhile
    texts : of the list
    requests : single ones, of all rounds together
    p50_ms, p99_ms, most_ms : of a single one
    batch_s : from the list's sending to its answer, with (`beside`) or without single requests meanwhile
    """

    system: str
    beside: bool
    texts: int
    requests: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    batch_s: float
    rounds: int
    day: str


class _Client:
    """Keep-alive connection that sends a request and waits."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=600)

    def took(self, body: bytes) -> float:
        """Return the seconds to an answer."""
        began = time.perf_counter()
        self._connection.request("POST", "/v1/classify", body, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"the server said {answer.status}: {said[:300]!r}")
        return time.perf_counter() - began


def beside_a_list(system: str, data: Dataset, port: int, texts: int, *, rounds: int, seconds: float) -> list[Row]:
    """Measure single requests alone and beside a list of some texts.

    Parameters
    ----------
    seconds : for which single requests are measured alone, in each round
    """
    file = task_of(system, data, port)
    said = handled_texts(system, data, file)
    bodies = cycle([json.dumps({"input": text}).encode() for text in said])
    many = json.dumps({"input": list(islice(cycle(said), texts))}).encode()
    server = serve(file, port)
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    lists: list[tuple[float, float]] = []
    try:
        _until(_Client(port), bodies, time.perf_counter() + 1.0)  # until it is warm
        with ThreadPoolExecutor(1) as pool:
            for _ in range(rounds):
                alone.append(_until(_Client(port), bodies, time.perf_counter() + seconds))
                by_itself = _Client(port).took(many)  # minutes, in which an idle connection would be closed
                asked, one = pool.submit(_Client(port).took, many), _Client(port)
                took: list[float] = []
                while not asked.done():
                    took.append(one.took(next(bodies)))
                beside.append(took)
                lists.append((by_itself, asked.result()))
    finally:
        server.stop()
    quiet, busy = zip(*lists, strict=True)
    return [_row(system, False, texts, alone, quiet), _row(system, True, texts, beside, busy)]


def _until(client: _Client, bodies: Iterator[bytes], end: float) -> list[float]:
    took = []
    while time.perf_counter() < end:
        took.append(client.took(next(bodies)))
    return took


def _row(system: str, beside: bool, texts: int, rounds: Sequence[list[float]], lists: Sequence[float]) -> Row:
    parts = [np.percentile(1e3 * np.array(took), [50, 99, 100]).tolist() for took in rounds]
    p50, p99, most = (float(median(part)) for part in zip(*parts, strict=True))
    asked, day = sum(map(len, rounds)), datetime.now(UTC).date().isoformat()
    return Row(system, beside, texts, asked, p50, p99, most, float(median(lists)), len(rounds), day)


def table(rows: Sequence[Row]) -> Table:
    """Return a line per system, with and without the list."""
    shown = Table("system", "single requests", "asked", "p50 ms", "p99 ms", "most ms", "list, s")
    for row in rows:
        when = f"beside {row.texts:,} texts" if row.beside else "alone"
        times = (f"{took:.1f}" for took in (row.p50_ms, row.p99_ms, row.most_ms))
        shown.add_row(row.system, when, f"{row.requests:,}", *times, f"{row.batch_s:.1f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--texts", type=int, default=10_000, help="in the list")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of single requests alone, in each round")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    rows: list[Row] = []
    with progress_bar() as progress:
        data = load("banking77", lambda done, total: progress("embedding", done, total))
        for i, system in enumerate(options.systems):
            progress("singles beside a list", i, len(options.systems))
            asked = {"rounds": options.rounds, "seconds": options.seconds}
            rows += beside_a_list(system, data, _PORT + i, options.texts, **asked)
    show(rows, table(rows), as_json=options.json)


if __name__ == "__main__":
    main()
