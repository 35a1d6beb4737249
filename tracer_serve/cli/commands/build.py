"""``tracer-serve build``: build a bento of a task, for ``bentoml serve`` and ``bentoml containerize``."""

import argparse
from pathlib import Path

from tracer_serve.cli.console import facts, print_json
from tracer_serve.config.load import Task, load_task
from tracer_serve.server.bento.build import Built, build
from tracer_serve.server.bento.carried import STATE


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--tag", default="", metavar="NAME[:VERSION]", help="default: the task's name, a new version")
    parser.add_argument("--with-traces", action="store_true", help="include the files under traces.import")
    parser.add_argument(
        "--extra", action="append", default=[], metavar="EXTRA", help="install this extra too, such as otel; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Build the bento and print how to use it."""
    task = load_task(args.task)
    built = build(task, args.tag, with_traces=args.with_traces, extras=args.extra)
    if args.json:
        print_json({"tag": built.tag, "version": built.version.version, "packages": built.packages})
    else:
        facts(_rows(task, built))
    return 0


def _rows(task: Task, built: Built) -> list[tuple[str, str]]:
    keys = "by api_keys" if task.spec.server.api_keys else "this machine only: set server.api_keys for others"
    return [
        ("bento", built.tag),
        ("version", f"{built.version.version}, from {built.version.traces:,} traces"),
        ("packages", f"{built.packages} pinned"),
        ("access", keys),
        ("state", f"TRACER_SERVE_STATE: {STATE} in an image, ~/.tracer elsewhere"),
        ("serve", f"bentoml serve {built.tag}"),
        ("image", f"bentoml containerize {built.tag}"),
    ]
