"""``tracer-serve prove``: how often this pipeline's certificate would have been wrong on a task's own traces."""

import argparse
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tracer_serve.cli.console import facts, print_json, progress_bar
from tracer_serve.components.factory import load_plugins, make_embedders
from tracer_serve.config.load import load_task
from tracer_serve.fit.resampled_check import ResampledCheck, resampled_check
from tracer_serve.gate.wording import percent
from tracer_serve.lifecycle.imports import import_traces
from tracer_serve.lifecycle.training_set import labelled_rows
from tracer_serve.storage.versions.opening import store_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--runs", type=int, default=40, help="refits on random halves of the traces")
    parser.add_argument("--minutes", type=float, default=5.0, help="no further refit starts after this time")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Refit on resamples and print how the certificates fared."""
    task = load_task(args.task)
    load_plugins(task)
    with closing(store_of(task)) as store, progress_bar(quiet=args.json) as progress:
        import_traces(task, store)
        rows = labelled_rows(task, store)
        embedders = make_embedders(task, task.state / "cache")
        found = resampled_check(task, rows, embedders, progress, runs=args.runs, seconds=60 * args.minutes)
    if args.json:
        print_json(as_json(found))
    else:
        facts(lines(found))
    return 0


def as_json(found: ResampledCheck) -> dict[str, Any]:
    """Return the result for scripts."""
    derived = {name: getattr(found, name) for name in ("below", "expected", "broken", "drifts")}
    return asdict(found) | {"runs": len(found.trials)} | derived


def lines(found: ResampledCheck) -> list[tuple[str, str]]:
    """Return the result as rows for `facts`."""
    runs, alpha = len(found.trials), percent(found.alpha)
    certified = sum(trial.certified for trial in found.trials)
    surely = sum(trial.surely_below(found.alpha, found.delta) for trial in found.trials)
    coverage = sum(trial.coverage for trial in found.trials) / max(1, runs)
    fell = (
        f"{found.below} of {runs} certificates fell below {alpha} on held-out traces, {surely} of them beyond chance;"
        f" {found.expected * runs:.1f} may where {percent(found.delta)} are wrong"
    )
    verdict = (
        f"BROKEN on this traffic: {fell}. Name groups, or use gate.mode: strict" if found.broken else f"kept: {fell}"
    )
    rows = [
        ("promise", f"alpha {found.alpha:g}, delta {found.delta:g}; {found.basis}"),
        ("traces", f"{found.rows:,}; {found.fitted:,} in each refit, {found.truth:,} kept out of it"),
        ("refits", f"{certified} of {runs} certified, {percent(coverage)} of the traffic on average"),
        ("verdict", verdict),
    ]
    return [*rows, ("time", _forward(found))]


def _forward(found: ResampledCheck) -> str:
    """Say how fits on older rows fared on what came next."""
    if not found.forward:
        return "not checked: the traces were imported, so the order in which they came is not known"
    wrong = sum(trial.surely_below(found.alpha, found.delta) for trial in found.forward)
    said = f"{wrong} of {len(found.forward)} fits on older traces fell below on the tenth that came next, beyond chance"
    return f"{said}. Traffic drifts: use gate.mode: strict, and audit more" if found.drifts else said
