"""Start-up time of servers: from the start of the process to the first answer.

``python -m bench.start`` starts all systems in turn, round after round, and reports medians: ours with a version on
n-grams and one on MiniLM in onnxruntime, tracer-llm's ``serve``, and a service of BentoML's that echoes. A first start
of each, which fills the page cache, does not count. The versions are fitted on first use on the shipped Banking77
traces and kept under ``.bench/start``; the peer's is `bench.serving`'s.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.table import Table

from bench.data import load
from bench.peer import ROOT
from bench.servers import Server
from bench.serving_peers import PEER, peer_command
from bench.shown import show
from tracer_serve.cli.console import progress_bar

_FOLDER = ROOT / "start"
_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_PORT = 3970
_ONNX = {"type": "sentence_transformers", "model": "sentence-transformers/all-MiniLM-L6-v2", "backend": "onnx"}
OURS: dict[str, Any] = {"tracer-serve, ngrams": "ngrams", "tracer-serve, onnx": _ONNX}
"""Our embedders, by name."""
BENTO = "bare BentoML"
_ECHO = """
import bentoml

@bentoml.service(workers=1)
class Echo:
    @bentoml.api
    def echo(self, text: str) -> str:
        return text
"""
Start = Callable[[], tuple[float, float, float]]
"""Starts a system and ends it; returns seconds to the first answer, CPU seconds until then, and peak MB."""


@dataclass(frozen=True, slots=True)
class Row:
    """One system; medians of the rounds.

    Parameters
    ----------
    start_s, start_low, start_high : from the start of the process to the first answer; least and most of the rounds
    cpu_s, peak_mb : of all its processes, until then
    """

    system: str
    start_s: float
    start_low: float
    start_high: float
    cpu_s: float
    peak_mb: float
    runs: int
    day: str


def starting(command: Sequence[str], port: int, probe: str, env: dict[str, str] | None = None) -> Start:
    """Return the starter of a server."""

    def start() -> tuple[float, float, float]:
        server = Server.start(command, port, probe, env)
        try:
            return server.start_s, server.cpu_s, server.peak_mb
        finally:
            server.stop()

    return start


def ours(system: str, port: int) -> Start:
    """Return the starter of a task of ours; fit its version if it is missing."""
    name = system.removeprefix("tracer-serve, ")
    folder = _FOLDER / name
    if not (folder / "state" / "versions" / "current").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for file in _CONFIGS.glob("banking.*.jsonl"):
            shutil.copy(file, folder)
        spec = yaml.safe_load((_CONFIGS / "banking.yaml").read_text(encoding="utf-8"))
        spec |= {"name": name, "embedder": OURS[system], "state": str(folder / "state"), "fit": {"folds": 2}}
        (folder / "task.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        subprocess.run([*_CLI, "fit", str(folder / "task.yaml")], check=True, stdout=subprocess.DEVNULL)
    return starting([*_CLI, "serve", str(folder / "task.yaml"), "--port", str(port)], port, "/readyz")


_CLI = (sys.executable, "-m", "tracer_serve")


def bento(port: int) -> Start:
    """Return the starter of a BentoML service that echoes: the cost of its life cycle."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    (_FOLDER / "echo.py").write_text(_ECHO, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        "echo:Echo",
        "--working-dir",
        str(_FOLDER),
        "--port",
        str(port),
    ]
    return starting(command, port, "/readyz", {"BENTOML_DO_NOT_TRACK": "True"})


def starts(systems: str) -> dict[str, Start]:
    """Return the starter of each requested system."""
    chosen: dict[str, Start] = {BENTO: bento(_PORT)}
    if "tracer-serve" in systems:
        chosen |= {name: ours(name, _PORT + 1 + i) for i, name in enumerate(OURS)}
    if "tracer-llm" in systems:
        port = _PORT + 9
        chosen[PEER] = starting(peer_command(load("banking77"), port), port, "/health", {"PYTHONPATH": ""})
    return chosen


def row_of(system: str, found: Sequence[tuple[float, float, float]]) -> Row:
    """Return the medians of some starts."""
    took, cpu_s, peak_mb = zip(*found, strict=True)
    day = datetime.now(UTC).date().isoformat()
    return Row(system, median(took), min(took), max(took), median(cpu_s), median(peak_mb), len(found), day)


def table(rows: Sequence[Row]) -> Table:
    """Return one line per system."""
    shown = Table("system", "start s", "(least to most)", "CPU s", "peak MB")
    for row in rows:
        spread = f"{row.start_low:.2f} to {row.start_high:.2f}"
        shown.add_row(row.system, f"{row.start_s:.2f}", spread, f"{row.cpu_s:.2f}", f"{row.peak_mb:,.0f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", default="tracer-serve,tracer-llm", help="ours, the peer's, or both")
    parser.add_argument("--rounds", type=int, default=5, help="times that each system is started")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with progress_bar() as progress:
        progress("preparing", 0, 1)
        chosen = starts(options.systems)
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
        for turn in range(options.rounds + 1):
            for name, start in chosen.items():
                seen = start()
                found[name] += [seen] if turn else []
            progress("rounds", turn, options.rounds)
    rows = [row_of(name, seen) for name, seen in found.items()]
    show(rows, table(rows), as_json=options.json)


if __name__ == "__main__":
    main()
