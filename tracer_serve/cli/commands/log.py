"""``tracer-serve log``: the audit log of a task."""

import argparse
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from tracer_serve.cli.console import out, print_json
from tracer_serve.config.load import load_task
from tracer_serve.storage.versions.opening import store_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="entries to print, newest first; default 20")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print who did what, and when."""
    with closing(store_of(load_task(args.task))) as store:
        entries = store.audit_log.recent(args.n)
    if args.json:
        print_json([asdict(entry) | {"at": entry.at.isoformat(), "details": dict(entry.details)} for entry in entries])
        return 0
    table = Table(box=SIMPLE, padding=0, pad_edge=False, collapse_padding=True)
    for name in ("when (UTC)", "who", "what", "target", "outcome", "details"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        details = ", ".join(f"{key}: {value}" for key, value in entry.details.items())
        when = entry.at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(when, entry.actor, entry.action, entry.target, entry.outcome, details)
    out.print(table if entries else "the audit log is empty", markup=False)
    return 0
