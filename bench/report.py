"""Time to build the report of a large version, and the size of its page.

``python -m bench.report --rows 20000 50000`` times `build_report` with `render_html`, each size in a process of its
own, on the synthetic traces of `bench.scale`. The model's answers are drawn, since its fit is not measured: nine in ten
agree, and the score ranks most of them. Rows are those of the report: all traces up to 50,000, beyond that a held-out
fifth of them, so 20,000 for 100,000 traces.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bench.apart import apart, peak_mb
from bench.scale import Numbered, traces
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.candidate import Paths
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.gating import recalls_of
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html
from tracer_serve.types import Labels, Text, Vectors

_FITTED, _AGREE = 2_000, 0.9


@dataclass(frozen=True, slots=True)
class Row:
    """One report.

    Parameters
    ----------
    rows : calibration rows of the report
    cpu_s, wall_s : of data and page together
    peak_mb : of the whole process, fit and traces included
    page_mb, json_mb : of the two files
    """

    system: str
    dataset: str
    rows: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    page_mb: float
    json_mb: float


def measure(rows: int, words: int) -> Row:
    """Draw a version, then report and measure, in this process."""
    texts, labels, vectors = traces(rows)
    filler = " ".join(f"filler{i}" for i in range(words))
    longer: list[Text] = [f"{filler} {text}" for text in texts]
    gate = {"group_by": "duplicate"}  # the texts are of one template
    spec = {"name": "scale", "teacher": "offline", "surrogates": ["logreg"], "acceptors": ["margin"], "gate": gate}
    task = Task(Spec.model_validate(spec), Path("scale"), "")
    fitted = drawn(task, longer, labels, vectors)
    wall, cpu = time.perf_counter(), time.process_time()
    report = build_report(task, fitted, longer, [])
    page = render_html(report)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sizes = len(page.encode()) / 1e6, len(json.dumps(report)) / 1e6
    return Row("tracer-serve", "synthetic", rows, cpu, wall, peak_mb(), *sizes)


def drawn(task: Task, texts: list[Text], labels: Labels, vectors: Vectors) -> Fitted:
    """Return a fit of the first 2,000 rows, with calibration rows for all of them."""
    fitted = fit_policy(task, Rows.of(texts[:_FITTED], labels[:_FITTED]), Numbered(vectors))
    rng, n = np.random.default_rng(0), len(texts)
    classes, truth = np.unique(labels, return_inverse=True)
    other = (truth[:, None] + rng.integers(1, len(classes), (n, 2))) % len(classes)
    agreed = rng.random(n) < _AGREE
    score = rng.normal(np.where(agreed, 2.0, 0.0))
    top = np.where(agreed, truth, other[:, 0])
    everything, alone = np.ones(n, bool), np.arange(n)
    guards = everything[None], ~everything[None]
    paths = Paths(score[None], agreed[None], top[None], other[None, :, 1], *guards, np.zeros((1, n)))
    calibration = Calibration("cross_fit", paths, alone, everything, classes, truth, alone)
    gate = task.spec.gate
    certificate = certify(
        CalibrationRows(score, agreed), GateSettings(alpha=gate.alpha, delta=gate.delta, mode="cross_fit")
    )
    certificate = replace(certificate, recalls=recalls_of(certificate, calibration))
    slower = tuple(replace(c, seconds=c.seconds * n / _FITTED) for c in fitted.candidates)
    policy = replace(fitted.policy, certificate=certificate)
    return replace(fitted, policy=policy, calibration=calibration, vectors=vectors, candidates=slower)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line; one thread unless OMP_NUM_THREADS says otherwise."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000])
    parser.add_argument("--words", type=int, default=12, help="words before the four of bench.scale's texts")
    parser.add_argument("--json", action="store_true", help="JSON rows")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the children load their libraries
    found = [apart(measure, rows, options.words) for rows in options.rows]
    if options.json:
        print(json.dumps([asdict(row) for row in found]))
        return
    for row in found:
        print(
            f"{row.rows:>8,} rows  {row.cpu_s:5.1f} CPU s ({row.wall_s:.1f} s)"
            f"  page {row.page_mb:.2f} MB, JSON {row.json_mb:.2f} MB  peak {row.peak_mb:,.0f} MB"
        )


if __name__ == "__main__":
    main()
