"""Recall of a protected label and its cost in coverage: fits on random parts, judged on the other rows.

    python -m bench.protect --dataset moderation --protect hate=0.9 --alpha 0.95 --resamples 40

Each draw splits all rows of the dataset at random, fits and certifies on ``--traces`` of them by the product's own fit,
and counts on the others: what is handled, how much of it agrees, and which share of a label's rows is deferred or gets
that label.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from bench.data import DATASETS, Given, Part, load
from bench.shown import show
from tracer_serve.cli.console import progress_bar
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.progress import Progress


@dataclass(frozen=True, slots=True)
class Row:
    """One label on one draw.

    Parameters
    ----------
    required : recall that was promised; None if the label was not protected
    reason : the certificate's
    coverage, agreement : on the held-out rows; no agreement where nothing is handled
    rows, kept, recall : held-out rows of the label, and how many of them are deferred or get the label
    """

    dataset: str
    alpha: float
    delta: float
    mode: str
    traces: int
    draw: int
    label: str
    required: float | None
    reason: str
    coverage: float
    agreement: float | None
    rows: int
    kept: int
    recall: float


def judged(spec: dict[str, Any], traces: Part, fresh: Part, labels: Sequence[str], facts: dict[str, Any]) -> list[Row]:
    """Fit on the traces and count on fresh rows."""
    task = Task(Spec.model_validate({"name": "bench", "teacher": "offline", **spec}), Path("bench"), "")
    policy = fit_policy(task, Rows.of(traces.texts, traces.labels), Given(traces)).policy
    seen = policy.score(fresh.texts, {policy.view: fresh.vectors})
    right, handled = policy.classes[seen.top] == fresh.labels, seen.handled
    facts = facts | {"mode": policy.certificate.mode, "reason": policy.certificate.reason}
    facts |= {"coverage": float(handled.mean()), "agreement": float(right[handled].mean()) if handled.any() else None}
    rows = []
    for label in labels:
        own = fresh.labels == label
        n, kept = int(own.sum()), int((own & (right | ~handled)).sum())
        required = task.spec.gate.protect.get(label)
        rows.append(Row(label=label, required=required, rows=n, kept=kept, recall=kept / n, **facts))
    return rows


def draws(options: argparse.Namespace, progress: Progress) -> list[Row]:
    """Fit and judge on each draw."""
    data = load(options.dataset, lambda done, total: progress("embedding", done, total), options.teacher)
    whole = Part(
        [*data.train.texts, *data.test.texts],
        np.concatenate([data.train.labels, data.test.labels]),
        np.concatenate([data.train.vectors, data.test.vectors]),
    )
    protect = {label: float(recall) for label, _, recall in (word.partition("=") for word in options.protect)}
    gate: dict[str, Any] = {"alpha": options.alpha, "delta": options.delta, "protect": protect}
    spec = yaml.safe_load(options.spec)
    spec["gate"] = gate | spec.get("gate", {})
    rows = []
    for done in range(options.resamples):
        draw = options.first_draw + done
        order = np.random.default_rng(draw).permutation(len(whole))
        traces, fresh = whole.take(order[: options.traces]), whole.take(order[options.traces :])
        facts = {"dataset": data.name, "alpha": options.alpha, "delta": options.delta, "draw": draw}
        labels = [*protect, *options.label]
        rows += judged(spec, traces, fresh, labels, facts | {"traces": options.traces})
        progress("draws", done + 1, options.resamples)
    return rows


def table(rows: Sequence[Row]) -> Table:
    """Return a line per label: means over the draws, and the share of draws that kept the promise."""
    shown = Table("label", "required", "certified", "coverage", "least", "agreement", "recall", "kept")
    for label in dict.fromkeys(row.label for row in rows):
        mine = [row for row in rows if row.label == label]
        agreement = [row.agreement for row in mine if row.agreement is not None]
        coverage, required = [row.coverage for row in mine], mine[0].required
        kept = "-" if required is None else f"{np.mean([row.recall >= required for row in mine]):.1%}"
        cells = [np.mean([row.reason == "certified" for row in mine]), np.mean(coverage), min(coverage)]
        cells += [np.mean(agreement) if agreement else np.nan, np.mean([row.recall for row in mine])]
        shown.add_row(label, "-" if required is None else f"{required:g}", *(f"{cell:.1%}" for cell in cells), kept)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.protect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", choices=DATASETS, default="moderation")
    parser.add_argument("--teacher", help="column of recorded answers of an LLM; default: the dataset's first, or gold")
    parser.add_argument("--protect", nargs="*", default=[], metavar="LABEL=RECALL", help="protected labels")
    parser.add_argument("--label", nargs="*", default=[], help="other labels to report")
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--traces", type=int, default=8000, help="rows of a fit; the others judge")
    parser.add_argument("--resamples", type=int, default=1)
    parser.add_argument("--first-draw", type=int, default=0, help="seed of the first draw: a long run in pieces")
    parser.add_argument("--spec", default="{}", help='YAML laid over our spec, as "{gate: {mode: strict}}"')
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    with progress_bar(quiet=options.json) as progress:
        rows = draws(options, progress)
    show(rows, table(rows), as_json=options.json)


if __name__ == "__main__":
    main()
