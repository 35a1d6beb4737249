"""``tracer-serve rollback``: serve an earlier version."""

import argparse
from pathlib import Path

from tracer_serve.cli.commands._audit import record
from tracer_serve.cli.console import out
from tracer_serve.config.load import load_task
from tracer_serve.errors import ArtifactError
from tracer_serve.lifecycle.rollback import roll_back
from tracer_serve.storage.versions.opening import open_versions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    what = "version to serve; default: the last certified one before the current"
    parser.add_argument("--to", type=int, metavar="N", help=what)


def run(args: argparse.Namespace) -> int:
    """Activate a version; running servers notice within a second."""
    task = load_task(args.task)
    versions = open_versions(task)
    try:
        done = roll_back(versions, args.to)
    except ArtifactError as error:
        record(task, "rollback", str(args.to or ""), "failed")
        raise ArtifactError(f"{error}. List them with: tracer-serve versions {args.task}") from error
    record(task, "rollback", str(done.version), before=done.before)
    out.print(f"version {done.version} serves now (before: {done.before})")
    return 0
