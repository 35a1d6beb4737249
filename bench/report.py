"""How long the report of a large version takes, and how large its page is.

``python -m bench.report --rows 50000 100000`` fits the synthetic traces of `bench.scale` by logreg, which is not
measured, and times `build_report` with `render_html`, each size in a process of its own. Up to 50,000 traces are
cross-fitted and all of them are in the report; beyond, a held-out fifth is.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.coverage import peak_mb
from bench.scale import Numbered, apart, traces
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.rows import Rows
from tracer_serve.load import Task
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html
from tracer_serve.spec import Spec


@dataclass(frozen=True, slots=True)
class Row:
    """One report.

    Parameters
    ----------
    dataset : the synthetic traces, and how many
    rows : calibration rows that the report stands on
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
    """Fit, then report and measure, in this process."""
    texts, labels, vectors = traces(rows)
    filler = " ".join(f"filler{i}" for i in range(words))
    longer = [f"{filler} {text}" for text in texts]
    spec = {"name": "scale", "teacher": "offline", "surrogates": ["logreg"], "acceptors": ["margin"]}
    task = Task(Spec.model_validate(spec), Path("scale"), "")
    fitted = fit_policy(task, Rows.of(longer, labels), Numbered(vectors))
    shown = [longer[i] for i in fitted.calibration.row]
    wall, cpu = time.perf_counter(), time.process_time()
    report = build_report(task, fitted, shown, [])
    page = render_html(report)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sizes = len(page.encode()) / 1e6, len(json.dumps(report)) / 1e6
    return Row("tracer-serve", f"synthetic {rows:,}", len(shown), cpu, wall, peak_mb(), *sizes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line; one thread unless OMP_NUM_THREADS says otherwise."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000])
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
            f"{row.dataset:>18}: {row.rows:,} rows in the report  {row.cpu_s:5.1f} CPU s ({row.wall_s:.1f} s)"
            f"  page {row.page_mb:.2f} MB, JSON {row.json_mb:.2f} MB  peak {row.peak_mb:,.0f} MB"
        )


if __name__ == "__main__":
    main()
