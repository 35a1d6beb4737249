"""CPU and memory of a whole fit as the number of traces grows.

``python -m bench.scale --rows 10000 100000`` fits synthetic traces, each size in a process of its own: 384 dimensions,
a hundred labels with overlapping clouds, texts whose words reveal the label half of the time, 3 % of labels at random.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from bench.apart import apart, peak_mb
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.types import Labels, Text, Vectors

DIMENSIONS, LABELS = 384, 100
_SPREAD, _NOISE, _CHUNK = 2.2, 0.03, 50_000


@dataclass(frozen=True, slots=True)
class Row:
    """One fit.

    Parameters
    ----------
    cpu_s, wall_s, peak_mb : of the whole fit, in its own process; the peak includes the traces themselves
    per_1000_ms : CPU milliseconds per thousand traces
    coverage : certified
    query_ms : CPU of deciding one request, its embedding given
    """

    rows: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    per_1000_ms: float
    coverage: float
    query_ms: float
    surrogate: str


class Numbered:
    """Embedder that reads a row's number from its text: no encoder, and no second copy of the vectors."""

    trainable = False
    fingerprint = "numbered"

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def fit(self, texts: Sequence[Text]) -> Self:
        """Return itself: there is nothing to learn."""
        del texts
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return the vectors of n texts, shape (n, d)."""
        return self.vectors[np.fromiter((int(str(text).rsplit(" ", 1)[1]) for text in texts), np.int64, len(texts))]


def traces(rows: int, seed: int = 0) -> tuple[list[Text], Labels, Vectors]:
    """Return texts, the teacher's labels, and unit vectors of shape (rows, 384)."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((LABELS, DIMENSIONS), dtype=np.float32)
    truth = rng.integers(0, LABELS, rows)
    vectors = np.empty((rows, DIMENSIONS), np.float32)
    for start in range(0, rows, _CHUNK):
        part = slice(start, start + _CHUNK)
        hardness = _SPREAD * rng.random((len(truth[part]), 1), dtype=np.float32) * 2
        cloud = centres[truth[part]] + hardness * rng.standard_normal((len(truth[part]), DIMENSIONS), dtype=np.float32)
        vectors[part] = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    words = np.where(rng.random((rows, 3)) < 0.5, truth[:, None], rng.integers(0, LABELS, (rows, 3)))
    texts: list[Text] = [f"word{a} word{b} word{c} {i}" for i, (a, b, c) in enumerate(words.tolist())]
    given = np.where(rng.random(rows) < _NOISE, rng.integers(0, LABELS, rows), truth)
    return texts, np.array([f"label{y}" for y in range(LABELS)])[given], vectors


def measure(rows: int, spec: dict[str, Any]) -> Row:
    """Fit once and measure, in this process."""
    texts, labels, vectors = traces(rows)
    task = Task(Spec.model_validate({"name": "scale", "teacher": "offline", **spec}), Path("scale"), "")
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit_policy(task, Rows.of(texts, labels), Numbered(vectors))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_mb()
    asked = time.process_time()
    for text in texts[:50]:
        fitted.policy.decide([text])
    return Row(
        rows=rows,
        cpu_s=cpu,
        wall_s=wall,
        peak_mb=peak,
        per_1000_ms=1e6 * cpu / rows,
        coverage=fitted.certificate.coverage,
        query_ms=1e3 * (time.process_time() - asked) / 50,
        surrogate=fitted.policy.names[0],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line; one thread unless OMP_NUM_THREADS says otherwise."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--spec", default="{}", help='YAML laid over the default spec, as "{surrogates: [logreg]}"')
    parser.add_argument("--json", action="store_true", help="JSON rows")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the children load their libraries
    for rows in options.rows:
        row = apart(measure, rows, yaml.safe_load(options.spec))
        if options.json:
            print(json.dumps(asdict(row)))
            continue
        print(
            f"{row.rows:>9,} rows  {row.cpu_s:8.1f} CPU s ({row.wall_s:.1f} s)  {row.per_1000_ms:6.1f} ms per 1,000"
            f"  {row.peak_mb:7,.0f} MB  coverage {row.coverage:.3f}  {row.query_ms:.2f} ms a request  {row.surrogate}",
            flush=True,
        )


if __name__ == "__main__":
    main()
