"""Throughput, latency, CPU and memory of a handled text, compared with tracer-llm and with lower bounds.

``python -m bench.serving`` asks all systems in turn, round after round, and reports medians and spread: ours with ready
vectors and with texts, tracer-llm's ``serve`` (ready vectors), bare Starlette that reads the same vectors and takes one
product, and the encoder alone in a loop. Only texts that are handled are sent, and no audits are drawn, so that
no teacher is measured; every text is another one, and the cache of decisions is off but where it says so.

Every server starts by its own command, without the variables that set the number of threads. tracer-llm is also
measured with one thread, because numpy's threads slow each other down there.

The versions are fitted on first use and kept under ``.bench/serving``: ours by the product's own `fit_policy` with two
folds and without a report, the peer's on 3,000 traces with the cheapest of its candidates, logistic regression, which
is in its favour. This saves minutes of fitting.
"""

import argparse
import json
import os
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from rich.table import Table

from bench.data import Dataset, load
from bench.serving_ours import ADMIN, FOLDER, OURS, ours
from bench.serving_peers import BARE, ENCODER, ONE_THREAD, PEER, PEER_ALONE, bare, encoder, peer
from bench.serving_row import Measured, Row, middle
from bench.shown import show
from tracer_serve.cli.console import progress_bar

_REFIT = "tracer-serve, ngrams"
_PORT = 3900


def during_refit(data: Dataset, port: int, seconds: float) -> list[Row]:
    """Measure a server before and during a requested refit."""
    traces = FOLDER / "traces.jsonl"
    pairs = zip(data.train.texts, data.train.labels, strict=True)
    lines = [json.dumps({"input": text, "teacher": str(label)}) for text, label in pairs]
    traces.write_text("\n".join(lines) + "\n", encoding="utf-8")
    server = ours(_REFIT, data, port, traces)
    try:
        before = [server.measure(1, seconds) for _ in range(2)]
        call = urllib.request.Request(  # our own address
            f"http://127.0.0.1:{port}/admin/refit", b"", {"authorization": f"Bearer {ADMIN}"}, method="POST"
        )
        with urllib.request.urlopen(call, timeout=10):  # noqa: S310
            time.sleep(3.0)  # its process starts
        during = [server.measure(1, seconds) for _ in range(2)]
    finally:
        server.stop()
    return [middle(before, _REFIT + ", before a refit"), middle(during, _REFIT + ", during it")]


def table(rows: Sequence[Row]) -> Table:
    """Return one line per system and number of clients."""
    shown = Table("system", "clients", "req/s", "(least to most)", "p50 ms", "p99 ms", "CPU us", "peak MB", "start s")
    for row in sorted(rows, key=lambda row: (row.clients, -row.rps)):
        shown.add_row(
            row.system + (f", {row.errors} errors" if row.errors else ""),
            str(row.clients),
            f"{row.rps:,.0f}",
            f"{row.rps_low:,.0f} to {row.rps_high:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.cpu_us:,.0f}",
            f"{row.peak_mb:,.0f}" if row.peak_mb else "",
            f"{row.start_s:.1f}" if row.start_s else "",
        )
    return shown


def measured(systems: dict[str, Measured], options: argparse.Namespace, progress: Any) -> list[Row]:
    """Ask every system in turn, round after round."""
    seen: dict[tuple[str, int], list[Row]] = {}
    for turn in range(options.rounds):
        for clients in options.clients:
            for name, system in systems.items():
                seen.setdefault((name, clients), []).append(system.measure(clients, options.seconds))
        progress("rounds", turn + 1, options.rounds)
    return [middle(found, name) for (name, _), found in seen.items()]


def makers(systems: str) -> dict[str, Callable[[Dataset, int], Measured]]:
    """Return the starter of each requested system."""
    chosen: dict[str, Callable[[Dataset, int], Measured]] = {BARE: bare, ENCODER: encoder}
    if "tracer-serve" in systems:
        chosen |= {name: partial(ours, name) for name in OURS}
    if "tracer-llm" in systems:
        chosen |= {name: partial(peer, name) for name in (PEER, PEER_ALONE)}
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=main.__doc__)
    parser.add_argument("--systems", default="tracer-serve,tracer-llm", help="ours, the peer's, or both")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64], help="how many ask at a time")
    parser.add_argument("--rounds", type=int, default=3, help="times that each system is asked")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--prepare", action="store_true", help="fit what is to be served, measure nothing")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    for name in ONE_THREAD:
        os.environ.pop(name, None)
    rows: list[Row] = []
    with progress_bar() as progress, ExitStack() as stack:
        data = load("banking77", lambda done, total: progress("embedding", done, total))
        running: dict[str, Measured] = {}
        for i, (name, make) in enumerate(makers(options.systems).items()):
            progress("starting", i, len(OURS) + 4)
            running[name] = make(data, _PORT + i)
            stack.callback(running[name].stop)
        if options.prepare:
            return
        rows = measured(running, options, progress)
        stack.close()
        if "tracer-serve" in options.systems:
            progress("a refit beside traffic", 0, 1)
            rows += during_refit(data, _PORT + 50, 2 * options.seconds)
    show(rows, table(rows), as_json=options.json)


if __name__ == "__main__":
    main()
