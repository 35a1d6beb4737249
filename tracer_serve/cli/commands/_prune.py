"""``tracer-serve traces prune TASK.yaml``: remove old rows without a label."""

import argparse
import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from tracer_serve.cli.commands._audit import record
from tracer_serve.cli.console import facts, print_json, progress_bar
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import SpecError
from tracer_serve.lifecycle.retention import LEAST, cutoff, prune
from tracer_serve.storage.versions.opening import store_of

_UNITS = {"d": "days", "h": "hours"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    age = "30d or 12h; default: traces.keep_unlabelled_days"
    parser.add_argument("--older-than", type=_age, metavar="AGE", help=age)
    parser.add_argument("--dry-run", action="store_true", help="count only, remove nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Remove old rows and print how many."""
    task = load_task(args.task)
    age = args.older_than or _configured(task)
    with closing(store_of(task)) as store:
        rows = total = store.retention.prunable(cutoff(age))
        if not args.dry_run:
            with progress_bar(quiet=args.json) as progress:
                rows = prune(store, age, progress=lambda removed: progress("removing old rows", removed, total))
    if not args.dry_run:
        record(task, "traces.prune", rows=rows, older_than_s=age.total_seconds())
    if args.json:
        print_json({"rows": rows, "older_than_s": age.total_seconds(), "dry_run": args.dry_run})
    else:
        facts([("would remove" if args.dry_run else "removed", f"{rows:,} unlabelled rows older than {_days(age)}")])
    return 0


def _configured(task: Task) -> timedelta:
    days = task.spec.traces.keep_unlabelled_days
    if days is None:
        problem = "is not set, so rows are kept; set it, or name an age: --older-than 30d"
        raise SpecError(problem, file=task.file, path="traces.keep_unlabelled_days")
    return timedelta(days=days)


def _days(age: timedelta) -> str:
    return f"{age / timedelta(days=1):g} days"


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([dh])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 30d or 12h")
    age = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if age < LEAST:
        raise argparse.ArgumentTypeError(f"rows younger than {LEAST} may still get their label, so they are kept")
    return age
