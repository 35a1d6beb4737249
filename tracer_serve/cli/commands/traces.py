"""``tracer-serve traces copy FROM TO``: copy a store, for example from SQLite to Postgres."""

import argparse
from dataclasses import asdict
from pathlib import Path

from tracer_serve.cli.commands import _prune
from tracer_serve.cli.console import facts, print_json, progress_bar
from tracer_serve.config.load import load_task
from tracer_serve.errors import StoreError
from tracer_serve.storage.traces.copy import Copied, copy_task, tasks_of

_STORE = "YAML of a task, a SQLite file, or a URL such as postgresql://user@host/database"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", dest="what", required=True)
    copy = kinds.add_parser(
        "copy",
        help="copy traces, values and history from one store into another",
        description="Copy traces, values and history from one store into another. A second run copies"
        " only new rows: copy while the servers run, stop them, copy again, and start them on the new store.",
    )
    copy.add_argument("source", metavar="FROM", help=_STORE)
    copy.add_argument("target", metavar="TO", help="a SQLite file or a URL, or the YAML of the same task")
    copy.add_argument("--task", metavar="NAME", help="copy this task only; default: all in FROM, or the YAML's")
    copy.add_argument("--json", action="store_true", help="print JSON")
    prune = kinds.add_parser(
        "prune",
        help="remove old rows without a label",
        description="Remove old rows without a label: handled rows that were neither audited nor corrected, and rows"
        " where the teacher failed. Counts stay. Safe while servers run, and after an interruption.",
    )
    _prune.configure(prune)


def run(args: argparse.Namespace) -> int:
    """Copy, or prune."""
    return _prune.run(args) if args.what == "prune" else _copy(args)


def _copy(args: argparse.Namespace) -> int:
    (source, mine), (target, theirs) = _store(args.source), _store(args.target)
    there = tasks_of(source)
    wanted = {name for name in (args.task, mine, theirs) if name is not None}
    if len(wanted) > 1 or wanted - {*there}:
        raise StoreError(
            f"{args.source} has the tasks {', '.join(there) or 'none'}, not {' and '.join(sorted(wanted))}"
        )
    with progress_bar(quiet=args.json) as progress:
        copied = [copy_task(source, target, name, progress) for name in sorted(wanted) or there]
    if args.json:
        print_json([asdict(one) for one in copied])
    elif copied:
        facts([(one.task, _copied(one)) for one in copied])
    else:
        facts([("copied", f"nothing: {args.source} has no task")])
    return 0


def _store(text: str) -> tuple[Path | str, str | None]:
    """Return the database, and the task's name if it is given as a YAML."""
    if text.endswith((".yaml", ".yml")):
        task = load_task(text)
        return task.database, task.spec.name
    return (text if "://" in text else Path(text)), None


def _copied(one: Copied) -> str:
    more = f", {one.there - one.rows:,} others were there" if one.there > one.rows else ""
    return f"{one.rows:,} rows checked: {one.new:,} new, {one.labelled:,} got a label{more}"
