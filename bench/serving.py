"""Requests a second, latency, CPU and memory of a handled text, beside tracer-llm and beside what cannot be undercut.

``python -m bench.serving`` asks all systems in turn, round after round, and reports medians and spread: ours with ready
vectors and with texts, tracer-llm's ``serve`` (ready vectors), bare Starlette that reads the same vectors and takes one
product, and the encoder alone in a loop. Only texts that are handled are sent, and no audits are drawn, so that
no teacher is measured; every text is another one, and the cache of decisions is off but where it says so.

Every server starts as its own command does, without a word about threads: the variables that say how many are taken
away. tracer-llm is measured once more with one thread, as numpy's threads are in each other's way there.

The versions are fitted on first use and kept under ``.bench/serving``: ours by the product's own `fit_policy` with two
folds and without a report, the peer's on 3,000 traces with the cheapest of its candidates, logistic regression, which
is in its favour. The fits take minutes less.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from bench.data import Dataset, Given, Part, load
from bench.load import Load, put
from bench.peer import peer_python, run_in_peer
from bench.servers import Server
from tracer_serve.components import make_embedder, make_embedders, teacher_fingerprint
from tracer_serve.console import out, progress_bar
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.rows import Rows
from tracer_serve.load import Task, load_task
from tracer_serve.manifest import Manifest
from tracer_serve.policy import CERTIFICATE, Policy
from tracer_serve.protocols import Embedder
from tracer_serve.records import Vectors
from tracer_serve.stock import versions_of

_FOLDER = Path(__file__).resolve().parent.parent / ".bench" / "serving"
_ONNX = {"type": "sentence_transformers", "model": "sentence-transformers/all-MiniLM-L6-v2", "backend": "onnx"}
_VECTORS = {"type": "precomputed", "dim": 384}
FIRST = "tracer-serve, n-grams first"
CACHED = "tracer-serve, ngrams, remembered"
PACKED = "tracer-serve, vectors, in base64"
OURS: dict[str, dict[str, Any]] = {
    "tracer-serve, vectors": {"embedder": _VECTORS, "surrogates": [{"type": "blend", "members": ["mlp", "knn"]}]},
    PACKED: {"embedder": _VECTORS, "surrogates": [{"type": "blend", "members": ["mlp", "knn"]}]},
    "tracer-serve, vectors, logreg": {"embedder": _VECTORS, "surrogates": ["logreg"]},
    "tracer-serve, onnx": {"embedder": _ONNX},
    FIRST: {
        "embedder": _ONNX,
        "surrogates": [{"type": "blend", "embedder": "ngrams"}, "blend"],
        "gate": {"families": ["l2d", "cascade"]},
    },
    "tracer-serve, ngrams": {"embedder": "ngrams"},
    CACHED: {"embedder": "ngrams"},
}
"""What we serve, by name, as it differs from the default spec."""
PEER, BARE, ENCODER = "tracer-llm", "bare starlette", "bare encoder"
PEER_ALONE = "tracer-llm, told to use one thread"
_ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_REFIT = "tracer-serve, ngrams"
_PORT = 3900
_PEER_TRACES = 3_000
_ADMIN = "only-for-the-benchmark-0123456789"

_STARLETTE = """
import json, sys
import numpy as np, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

weights = np.random.default_rng(0).standard_normal((384, 77)).astype(np.float32)

async def classify(request):
    scores = np.array((await request.json())["embedding"], np.float32) @ weights
    best = int(scores.argmax())
    return JSONResponse({"label": str(best), "score": float(scores[best])})

app = Starlette(routes=[Route("/predict", classify, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
"""

_ENCODER = """
import json, sys, time
from tracer_serve.components import make_embedder
from tracer_serve.load import load_task
from pathlib import Path

embedder, given = make_embedder(load_task(Path(sys.argv[1]))), json.load(sys.stdin)
texts, rows = given["texts"], given["rows"]
embedder.embed(texts[:64])
took, start = [], 0
cpu, until = time.process_time(), time.perf_counter() + given["seconds"]
while (began := time.perf_counter()) < until:
    embedder.embed([texts[(start + i) % len(texts)] for i in range(rows)])
    took.append(time.perf_counter() - began)
    start += rows
print(json.dumps({"took": took, "cpu_s": time.process_time() - cpu}))
"""

_PEER_FIT = """
import json
from pathlib import Path
import tracer.api as api
from tracer.config import FitConfig
from tracer.fit.surrogate import _candidates

def main(a):
    folder = Path(a["folder"])
    rows = [json.dumps({"input": t, "teacher": y}) for t, y in zip(a["texts"], a["labels"])]
    (folder / "traces.jsonl").write_text("\\n".join(rows) + "\\n")
    others = tuple(name for name in _candidates(len(rows)) if name != "logreg_c1")
    config = FitConfig(target_teacher_agreement=0.9, skip_candidates=others)
    found = api.fit(folder / "traces.jsonl", folder / "artifacts", embeddings=a["vectors"], config=config)
    return {"method": str(found.manifest.selected_method)}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One system under one load; the median of the rounds.

    Parameters
    ----------
    rps_low, rps_high : least and most of the rounds
    cpu_us : CPU of all its processes per answer
    start_s : from the start of the process to the first answer
    """

    system: str
    clients: int
    rps: float
    rps_low: float
    rps_high: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    peak_mb: float
    start_s: float
    errors: int
    rounds: int
    day: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A system under measurement: a server with what it is asked, or the encoder in a loop."""

    measure: Callable[[int, float], Row]
    stop: Callable[[], None]


def task_of(system: str, data: Dataset, port: int, traces: Path | None = None) -> Path:
    """Write the YAML of one of ours, fit its version where there is none, and return the YAML's path.

    Parameters
    ----------
    traces : file to import before serving
    """
    same = system.removesuffix(", remembered").removesuffix(", in base64")  # as another one's version
    name = same.removeprefix("tracer-serve, ").replace(",", "").replace(" ", "-")
    folder = _FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    spec = OURS[system] | {
        "name": name,
        "teacher": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "never-asked"},
        "labels": sorted(set(data.train.labels.tolist())),
        "traces": {"audit_rate": 0.0} | ({} if traces is None else {"import": [str(traces)]}),
        "fit": {"folds": 2},
        "state": str(folder / "state"),
        "server": {"port": port, "max_batch": 10_000, "decision_cache": 10_000 if system == CACHED else 0},
    }
    file = folder / f"{port}.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    task = load_task(file)
    if versions_of(task).current() is None:
        write_version(task, data, inputs_of(system, data.train.texts, data.train.vectors))
    return file


class _Embedded(Given):
    """A frozen encoder's vectors of known texts, without asking it: they are the same with either backend."""

    def __init__(self, embedder: Embedder, part: Part) -> None:
        super().__init__(part, uncached=embedder)
        self.fingerprint = embedder.fingerprint


def write_version(task: Task, data: Dataset, inputs: Sequence[str]) -> None:
    """Fit and activate a version, without the report."""
    embedder = make_embedder(task)
    if not embedder.trainable:
        embedder = _Embedded(embedder, Part(inputs, data.train.labels, data.train.vectors))
    policy = fit_policy(task, Rows.of(inputs, data.train.labels), embedder).policy
    if not policy.certificate.certified:
        raise SystemExit(f"{task.spec.name} was not certified: {policy.certificate.reason}")

    def fill(folder: Path) -> None:
        policy.save(folder / "model")
        (folder / "certificate.json").write_bytes(CERTIFICATE.dump_json(policy.certificate))
        (folder / "report.html").write_text("<!doctype html><title>none</title>", encoding="utf-8")

    def describe(number: int, files: dict[str, str]) -> Manifest:
        return Manifest(
            version=number,
            created=datetime.now(UTC).isoformat(),
            task=task.spec.name,
            certified=True,
            reason="certified",
            parent=None,
            traces=len(inputs),
            last_trace="",
            embedder=policy.fingerprint,
            teacher=teacher_fingerprint(task),
            plugins={},
            software={},
            files=files,
            labels=tuple(map(str, policy.classes)),
        )

    versions = versions_of(task)
    versions.activate(versions.write(fill, describe))


def inputs_of(system: str, texts: Sequence[Any], vectors: Vectors) -> list[str]:
    """Return what a client of the system sends: the texts, or their vectors as JSON or in base64."""
    if "vectors" not in system:
        return [str(text) for text in texts]
    if system == PACKED:
        return [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
    return ["[" + ",".join(f"{x:.7g}" for x in vector.tolist()) + "]" for vector in vectors]


def handled(file: Path, given: Sequence[str]) -> list[str]:
    """Return the inputs that the current version handles."""
    task = load_task(file)
    versions = versions_of(task)
    number = versions.current()
    assert number is not None  # just fitted
    policy = Policy.load(versions.folder(number) / "model", *make_embedders(task))
    return [text for text, said in zip(given, policy.decide(list(given)), strict=True) if said.handled]


def ours(system: str, data: Dataset, port: int, traces: Path | None = None) -> Measured:
    """Serve one of ours."""
    file = task_of(system, data, port, traces)
    bodies = [json.dumps({"input": text}) for text in handled_texts(system, data, file)]
    return asked(system, serve(file, port), "/v1/classify", bodies)


def handled_texts(system: str, data: Dataset, file: Path) -> list[str]:
    """Return what a client of one of ours sends, in any order: the test inputs that its version handles."""
    # an encoder takes a minute over them
    kept = file.with_name("handled_in_base64.json" if system == PACKED else "handled.json")
    if not kept.exists():
        kept.write_text(json.dumps(handled(file, inputs_of(system, data.test.texts, data.test.vectors))))
    texts = json.loads(kept.read_text())  # sorted by label, as no traffic is
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


def serve(file: Path, port: int) -> Server:
    """Start the server of a task."""
    return Server.start([*_cli(), "serve", str(file)], port, "/readyz", {"TRACER_SERVE_ADMIN_KEY": _ADMIN})


def peer(system: str, data: Dataset, port: int) -> Measured:
    """Serve tracer-llm, as its own command does."""
    settings = {"PYTHONPATH": ""} | (_ALONE if system == PEER_ALONE else {})
    running = Server.start(peer_command(data, port), port, "/health", settings)
    return asked(system, running, "/predict", _embeddings(data))


def peer_command(data: Dataset, port: int) -> list[str]:
    """Return what starts the peer's server; its artifacts are made here where there are none."""
    folder = _FOLDER / "peer"
    if not (folder / "artifacts").exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = data.train.take(np.random.default_rng(0).permutation(len(data.train))[:_PEER_TRACES])
        arrays: dict[str, Any] = {"texts": list(part.texts), "labels": part.labels.tolist()}
        run_in_peer(_PEER_FIT, {**arrays, "vectors": part.vectors, "folder": str(folder)})
    code = f"from tracer.runtime.serve import serve; serve({str(folder / 'artifacts')!r}, '127.0.0.1', {port})"
    return [str(peer_python()), "-c", code]


def bare(data: Dataset, port: int) -> Measured:
    """Serve bare Starlette: the least that an answer over HTTP costs in Python."""
    running = Server.start([sys.executable, "-c", _STARLETTE, str(port)], port, "/", _ALONE)
    return asked(BARE, running, "/predict", _embeddings(data))


def encoder(data: Dataset, port: int) -> Measured:
    """Run the encoder alone, without any server: one text at a time, or as many as there are clients."""
    file = task_of("tracer-serve, onnx", data, port)

    def measure(clients: int, seconds: float) -> Row:
        words = json.dumps({"texts": list(data.test.texts), "rows": clients, "seconds": seconds})
        command = [sys.executable, "-c", _ENCODER, str(file)]
        done = subprocess.run(command, input=words, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        took = np.array(found["took"])
        texts = clients * len(took)
        p50, p99 = np.percentile(1e3 * took, [50, 99]).tolist()
        cpu_us = 1e6 * found["cpu_s"] / texts
        return _row(ENCODER, clients, texts / float(took.sum()), p50=p50, p99=p99, cpu_us=cpu_us)

    return Measured(measure, lambda: None)


def asked(system: str, server: Server, path: str, bodies: Sequence[str]) -> Measured:
    """Return a server as something to measure."""

    def measure(clients: int, seconds: float) -> Row:
        before = server.cpu_s
        met = put(Load(server.port, path, bodies, clients, seconds))
        cpu_us = 1e6 * (server.cpu_s - before) / max(1, met.all)
        row = _row(system, clients, met.rps, p50=met.p50_ms, p99=met.p99_ms, cpu_us=cpu_us)
        return replace(row, errors=met.errors, peak_mb=server.peak_mb, start_s=server.start_s)

    return Measured(measure, server.stop)


def during_refit(data: Dataset, port: int, seconds: float) -> list[Row]:
    """Measure a server before and during a refit that its operator asks for."""
    traces = _FOLDER / "traces.jsonl"
    pairs = zip(data.train.texts, data.train.labels, strict=True)
    lines = [json.dumps({"input": text, "teacher": str(label)}) for text, label in pairs]
    traces.write_text("\n".join(lines) + "\n", encoding="utf-8")
    server = ours(_REFIT, data, port, traces)
    try:
        before = [server.measure(1, seconds) for _ in range(2)]
        call = urllib.request.Request(  # our own address
            f"http://127.0.0.1:{port}/admin/refit", b"", {"authorization": f"Bearer {_ADMIN}"}, method="POST"
        )
        with urllib.request.urlopen(call, timeout=10):  # noqa: S310
            time.sleep(3.0)  # its process starts
        during = [server.measure(1, seconds) for _ in range(2)]
    finally:
        server.stop()
    return [_middle(before, _REFIT + ", before a refit"), _middle(during, _REFIT + ", during it")]


def _cli() -> list[str]:
    return [sys.executable, "-m", "tracer_serve.cli"]


def _embeddings(data: Dataset) -> list[str]:
    return [f'{{"embedding": {vector}}}' for vector in inputs_of("vectors", [], data.test.vectors)]


def _row(system: str, clients: int, rps: float, *, p50: float, p99: float, cpu_us: float) -> Row:
    day = datetime.now(UTC).date().isoformat()
    return Row(system, clients, rps, rps, rps, p50, p99, cpu_us, 0.0, 0.0, 0, 1, day)


def _middle(rows: Sequence[Row], system: str) -> Row:
    def of(field: str) -> float:
        return float(median(getattr(row, field) for row in rows))

    rps = [row.rps for row in rows]
    return replace(
        rows[-1],
        system=system,
        rps=of("rps"),
        rps_low=min(rps),
        rps_high=max(rps),
        p50_ms=of("p50_ms"),
        p99_ms=of("p99_ms"),
        cpu_us=of("cpu_us"),
        errors=sum(row.errors for row in rows),
        rounds=len(rows),
    )


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
    return [_middle(found, name) for (name, _), found in seen.items()]


def makers(systems: str) -> dict[str, Callable[[Dataset, int], Measured]]:
    """Return what starts each of the systems asked for."""
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
    for name in _ALONE:
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
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        out.print(table(rows))


if __name__ == "__main__":
    main()
