"""``tracer-serve versions``: what there is and what serves."""

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from tracer_serve.console import out, print_json
from tracer_serve.load import load_task
from tracer_serve.stock import versions_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--pin", type=int, metavar="N", help="keep version N whatever the retention")
    parser.add_argument("--unpin", type=int, metavar="N", help="keep version N no longer")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List the versions, oldest first."""
    versions = versions_of(load_task(args.task))
    for number, pinned in ((args.pin, True), (args.unpin, False)):
        if number is not None:
            versions.pin(number, pinned)
    current = versions.current()
    manifests = versions.manifests()
    if args.json:
        print_json([asdict(m) | {"serving": m.version == current} for m in manifests])
        return 0
    table = Table("", "version", "written", "traces", "verdict", "embedder", "forgotten")
    for m in manifests:
        mark = ("*" if m.version == current else "") + ("pinned" if m.pinned else "")
        table.add_row(
            mark,
            str(m.version),
            m.created,
            f"{m.traces:,}",
            m.reason,
            m.embedder,
            f"{m.forgotten:,}" if m.forgotten else "",
        )
    out.print(table if manifests else f"no version yet; `tracer-serve fit {args.task}` writes the first", markup=False)
    return 0
