"""``tracer-serve fit`` and ``refit``: fit a version on the traces."""

import argparse
from dataclasses import asdict
from pathlib import Path

from tracer_serve.cli.commands._audit import record
from tracer_serve.cli.commands._certificate_rows import finding
from tracer_serve.cli.console import facts, print_json, progress_bar
from tracer_serve.config.load import Task, load_task
from tracer_serve.gate.certificate import CERTIFICATE
from tracer_serve.infra.periodic import follow_parent
from tracer_serve.lifecycle.refit import RefitOutcome, refit
from tracer_serve.lifecycle.relabel import LabelChanges

_SHOWN = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--trigger", default="hand", help="reason of the refit, for the history")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # the process to end with, of a schedule
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Fit, certify and write a version; the exit code is 0 also if the gate abstains."""
    if args.parent is not None:
        follow_parent(args.parent)
    task = load_task(args.task)
    with progress_bar(quiet=args.json) as progress:
        outcome = refit(task, args.trigger, progress)
    if args.parent is None:  # a schedule's refit is in the history, not an act of a person
        record(task, "refit", str(outcome.version), activated=outcome.activated)
    if args.json:
        print_json(as_json(outcome))
    else:
        summary(task, outcome)
    return 0


def as_json(outcome: RefitOutcome) -> dict[str, object]:
    """Return the outcome for scripts."""
    return {
        "version": outcome.version,
        "activated": outcome.activated,
        "waits": outcome.waits,
        "serving": outcome.serving,
        "traces": outcome.traces,
        "left_out": outcome.left_out,
        "seconds": outcome.seconds,
        "moved": None if outcome.moved is None else outcome.moved.to_json(),
        "certificate": CERTIFICATE.dump_python(outcome.certificate, mode="json", exclude={"walk"}),
        "candidates": [asdict(candidate) for candidate in outcome.candidates],
    }


def summary(task: Task, outcome: RefitOutcome) -> None:
    """Print the result of a refit."""
    serves = f"version {outcome.serving} still serves"
    if outcome.waits:
        serves = f"waits for approval: tracer-serve versions {task.file} --approve {outcome.version}"
    elif outcome.activated:
        serves = "serves now" if outcome.certificate.certified else "loaded, and defers everything"
    rows = f"{outcome.traces:,} traces"
    if outcome.left_out:
        rows = f"the newest {rows} (fit.max_traces; {outcome.left_out:,} older ones were left out)"
    chosen = next(c for c in outcome.candidates if c.status == "chosen")
    facts(
        [
            ("task", task.spec.name),
            ("version", f"{outcome.version}, from {rows} in {outcome.seconds:.0f} s; {serves}"),
            ("surrogate", f"{chosen.surrogate}, {chosen.acceptor or 'accept all'}"),
            *finding(task, outcome.version, outcome.certificate),
            *_moves(outcome.moved),
        ]
    )


def _moves(moved: LabelChanges | None) -> list[tuple[str, str]]:
    """Return the labels that a new teacher changed, most frequent first."""
    if moved is None:
        return []
    answered = moved.asked - moved.failed
    head = ("new teacher", f"relabelled {moved.asked:,} old texts; {moved.moved:,} of {answered:,} labels changed")
    return [head, *(("", f"{n:,} x {old} -> {new}") for old, new, n in moved.moves[:_SHOWN])]
