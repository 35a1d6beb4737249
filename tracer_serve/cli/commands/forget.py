"""``tracer-serve forget``: remove a user's rows, and mark the versions fitted on them."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tracer_serve.cli.commands._audit import record
from tracer_serve.cli.console import facts, print_json
from tracer_serve.config.load import load_task
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.storage.versions.store import VersionStore, all_manifests, mark_forgotten


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--user", required=True, help="`user` of the requests, `metadata.user` of their traces")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Remove the rows from the store and mark every version that had read any of them.

    A refit reads the rows up to `last_trace` of its manifest, so a version had read a row whose id is no greater.
    """
    task = load_task(args.task)
    versions = open_versions(task)
    with closing(store_of(task)) as store:
        # mark first: a command that is interrupted and repeated may count rows twice, but leaves no version unmarked
        marked = _mark(versions, store.users.trace_ids(args.user))
        removed = store.users.forget(args.user)
    record(task, "forget", rows=len(removed), versions=sorted(marked))  # not the user, who is to be forgotten
    if args.json:
        print_json({"removed": len(removed), "versions": marked})
        return 0
    listed = ", ".join(f"{number} ({rows:,} rows)" for number, rows in marked.items())
    shown = [
        ("removed", f"{len(removed):,} rows of user {args.user}"),
        ("fitted on them", listed or "no version"),
    ]
    if marked:
        shown.append(
            ("next", f"tracer-serve refit {args.task} writes a version without them. Reports of older ones may")
        )
        shown.append(("", f"quote them; those go as new ones come (versions.keep), or by hand: {versions.root}"))
    facts(shown)
    return 0


def _mark(versions: VersionStore, ids: Sequence[str]) -> dict[int, int]:
    """Mark every version that had read any of some rows; return how many of them each had."""
    marked: dict[int, int] = {}
    for manifest in all_manifests(versions):
        rows = sum(trace_id <= manifest.last_trace for trace_id in ids)
        if rows:
            mark_forgotten(versions, manifest.version, rows)
            marked[manifest.version] = rows
    return marked
