"""The other arms of `bench.serving`: tracer-llm's own server, and lower bounds."""

import json
import subprocess
import sys
from typing import Any

import numpy as np

from bench.data import Dataset
from bench.peer import peer_python, run_in_peer
from bench.servers import Server
from bench.serving_ours import FOLDER, inputs_of, task_of
from bench.serving_row import Measured, Row, asked, row_of

PEER, BARE, ENCODER = "tracer-llm", "bare starlette", "bare encoder"
PEER_ALONE = "tracer-llm, with one thread"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_PEER_TRACES = 3_000

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
from tracer_serve.components.factory import make_embedder
from tracer_serve.config.load import load_task
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


def peer(system: str, data: Dataset, port: int) -> Measured:
    """Serve tracer-llm, as its own command does."""
    settings = {"PYTHONPATH": ""} | (ONE_THREAD if system == PEER_ALONE else {})
    running = Server.start(peer_command(data, port), port, "/health", settings)
    return asked(system, running, "/predict", _embeddings(data))


def peer_command(data: Dataset, port: int) -> list[str]:
    """Return the command of the peer's server; make its artifacts if they are missing."""
    folder = FOLDER / "peer"
    if not (folder / "artifacts").exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = data.train.take(np.random.default_rng(0).permutation(len(data.train))[:_PEER_TRACES])
        arrays: dict[str, Any] = {"texts": list(part.texts), "labels": part.labels.tolist()}
        run_in_peer(_PEER_FIT, {**arrays, "vectors": part.vectors, "folder": str(folder)})
    code = f"from tracer.runtime.serve import serve; serve({str(folder / 'artifacts')!r}, '127.0.0.1', {port})"
    return [str(peer_python()), "-c", code]


def bare(data: Dataset, port: int) -> Measured:
    """Serve bare Starlette: a lower bound of the cost of an answer over HTTP in Python."""
    running = Server.start([sys.executable, "-c", _STARLETTE, str(port)], port, "/", ONE_THREAD)
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
        return row_of(ENCODER, clients, texts / float(took.sum()), p50=p50, p99=p99, cpu_us=cpu_us)

    return Measured(measure, lambda: None)


def _embeddings(data: Dataset) -> list[str]:
    return [f'{{"embedding": {vector}}}' for vector in inputs_of("vectors", [], data.test.vectors)]
