"""``tracer-serve traces prune TASK.yaml``: let old rows go that nobody labelled."""

import argparse
import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path

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
    """Remove and tell."""
    task = load_task(args.task)
    age = args.older_than or _configured(task)
    with closing(store_of(task)) as store:
        rows = total = store.retention.prunable(cutoff(age))
        if not args.dry_run:
            with progress_bar(quiet=args.json) as progress:
                rows = prune(store, age, told=lambda removed: progress("removing old rows", removed, total))
    if args.json:
        print_json({"rows": rows, "older_than_s": age.total_seconds(), "dry_run": args.dry_run})
    else:
        facts([("would go" if args.dry_run else "removed", f"{rows:,} rows without a label, older than {_told(age)}")])
    return 0


def _configured(task: Task) -> timedelta:
    days = task.spec.traces.keep_unlabelled_days
    if days is None:
        problem = "is not set, so rows stay for ever; set it, or say which are old: --older-than 30d"
        raise SpecError(problem, file=task.file, path="traces.keep_unlabelled_days")
    return timedelta(days=days)


def _told(age: timedelta) -> str:
    return f"{age / timedelta(days=1):g} days"


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([dh])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age such as 30d or 12h")
    age = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if age < LEAST:
        raise argparse.ArgumentTypeError(f"rows younger than {LEAST} may be about to get their label, so they stay")
    return age
