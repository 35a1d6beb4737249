"""Throughput and memory of ``tracer-serve classify``, compared with the bare embedder.

``python -m bench.offline --rows 100000 1000000 --embedder ngrams`` fits the shipped banking traces, writes files of
made-up texts of which no two are equal, and for each runs the embedder alone and the whole command, each in a process
of its own. The embedder alone gets the texts in memory, in the same batches: no reading, no policy, no writing.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.apart import peak_mb
from tracer_serve.components.factory import make_embedders
from tracer_serve.config.load import load_task
from tracer_serve.lifecycle.refit import refit
from tracer_serve.policy.policy import Policy
from tracer_serve.serving.batch.classify_file import BATCH
from tracer_serve.storage.versions.opening import open_versions

_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_EMBEDDERS: dict[str, Any] = {
    "ngrams": "ngrams",
    "onnx": {"type": "sentence_transformers", "model": "all-MiniLM-L6-v2", "backend": "onnx"},
    "onnx-int8": {"type": "sentence_transformers", "model": "all-MiniLM-L6-v2", "backend": "onnx-int8"},
}


def texts(rows: int, seed: int = 0) -> Iterator[str]:
    """Yield sentences of 4 to 16 words of the shipped texts, numbered so that no two are equal."""
    lines = (_CONFIGS / "banking.traces.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in lines for word in json.loads(line)["input"].split()})
    chance = random.Random(seed)
    return (" ".join(chance.choices(words, k=chance.randint(4, 16))) + f" {n}" for n in range(rows))


def fitted(folder: Path, embedder: str) -> Path:
    """Write a task on the shipped traces, fit it, and return its YAML."""
    spec = {
        "name": "offline",
        "embedder": _EMBEDDERS[embedder],
        "teacher": {"type": "offline", "file": [str(_CONFIGS / "banking.traces.jsonl")]},
        "traces": {"import": [str(_CONFIGS / "banking.traces.jsonl")]},
        "fit": {"folds": 5},
        "state": str(folder / "state"),
    }
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    refit(load_task(file), "bench")
    return file


def bare(task: Path, rows: int) -> dict[str, float]:
    """Embed all texts of a file and nothing else, in this process."""
    loaded, listed = load_task(task), list(texts(rows))
    versions = open_versions(loaded)
    number = versions.current()
    assert number is not None  # just fitted
    embed = Policy.load(versions.folder(number) / "model", *make_embedders(loaded)).view.embed
    embed(listed[:BATCH])  # excludes what is made on first use
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, rows, BATCH):
        embed(listed[start : start + BATCH])
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_mb": peak_mb()}


def whole(task: Path, rows: int) -> dict[str, float]:
    """Run the command on a file, in this process."""
    from tracer_serve.cli.main import main as command  # noqa: PLC0415  # the command's own imports are part of it

    out = task.with_name(f"out-{rows}.jsonl")
    wall, cpu = time.perf_counter(), time.process_time()
    assert command(["classify", str(task), str(source(task, rows)), str(out), "--json"]) == 0
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert sum(1 for _ in out.open("rb")) == rows
    out.unlink()
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb()}


def source(task: Path, rows: int) -> Path:
    """Return the file of texts, written on first use."""
    file = task.with_name(f"in-{rows}.jsonl")
    if not file.exists():
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"input": text}) + "\n" for text in texts(rows))
    return file


def apart(what: str, task: Path, rows: int) -> dict[str, float]:
    """Call `bare` or `whole` in a new process, so that its CPU and memory are its own."""
    command = [sys.executable, "-m", "bench.offline", "--measure", what, str(task), "--rows", str(rows)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{what} failed: {run.stderr[-2000:]}")
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def measure(embedder: str, sizes: Sequence[int], repeats: int) -> Iterator[dict[str, Any]]:
    """Yield a row per size and system, the systems in turns."""
    with tempfile.TemporaryDirectory(prefix="tracer-offline-") as folder:
        task = fitted(Path(folder), embedder)
        for rows in sizes:
            source(task, rows)
            runs = [(apart("bare", task, rows), apart("whole", task, rows)) for _ in range(repeats)]
            for place, system in enumerate(("embedder alone", "tracer-serve")):
                mine = sorted((run[place] for run in runs), key=lambda run: run["wall_s"])
                middle = mine[len(mine) // 2]
                ratios = sorted(alone["wall_s"] / ours["wall_s"] for alone, ours in runs)
                yield {
                    "system": system, "embedder": embedder, "rows": rows, "runs": repeats,
                    "texts_per_s": rows / middle["wall_s"], "wall_s": middle["wall_s"], "cpu_s": middle["cpu_s"],
                    "peak_mb": middle["peak_mb"], "ratio": ratios[len(ratios) // 2] if place else 1.0,
                    "ratio_least": ratios[0] if place else 1.0, "ratio_most": ratios[-1] if place else 1.0,
                }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line; one thread per model unless OMP_NUM_THREADS says otherwise."""
    parser = argparse.ArgumentParser(prog="python -m bench.offline", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--embedder", choices=list(_EMBEDDERS), default="ngrams")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="JSON rows only")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "TASK"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.measure:
        what, task = options.measure
        print(json.dumps({"bare": bare, "whole": whole}[what](Path(task), options.rows[0])))
        return
    found = []
    for row in measure(options.embedder, options.rows, options.repeats):
        found.append(row)
        if not options.json:
            print(
                f"{row['system']:<15} {row['embedder']:<10} {row['rows']:>9,} texts"
                f"  {row['texts_per_s']:9,.0f} a second"
                f"  {row['cpu_s']:8.1f} CPU s  {row['peak_mb']:6,.0f} MB"
                f"  {row['ratio']:.2f}x ({row['ratio_least']:.2f} to {row['ratio_most']:.2f})",
                flush=True,
            )
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
