"""``tracer-serve report``: what a version's report says, in the terminal."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.markup import escape

from tracer_serve.cli.console import facts, out, print_json
from tracer_serve.config.load import load_task
from tracer_serve.errors import ArtifactError
from tracer_serve.gate.wording import at_least, percent
from tracer_serve.storage.versions.opening import open_versions

_SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--version", type=int, metavar="N", help="which version; default: the one that serves")
    parser.add_argument("--json", action="store_true", help="print the whole report.json")


def run(args: argparse.Namespace) -> int:
    """Print the headline, the worst slices and the next best action."""
    task = load_task(args.task)
    versions = open_versions(task)
    number = versions.current() if args.version is None else args.version
    if number is None:
        raise ArtifactError(f"no version yet in {task.state}; `tracer-serve fit {args.task}` writes the first")
    versions.manifest(number)
    folder = versions.folder(number)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if args.json:
        print_json(report)
    else:
        _show(report, number, folder / "report.html")
    return 0


def _show(report: dict[str, Any], number: int, page: Path) -> None:
    head = report["headline"]
    rows = [("version", str(number)), ("verdict", head["verdict"])]
    if head["certified"]:
        bound = "" if head["lower_bound"] is None else f", at least {at_least(head['lower_bound'])}"
        rows += [("coverage", percent(head["coverage"])), ("agreement", f"{percent(head['agreement'])}{bound}")]
    facts([*rows, ("basis", report["basis"]["sentence"]), ("page", str(page))])
    for kind, what in (("disagreed", "where surrogate and teacher differ most"), ("deferred", "where it defers most")):
        slices = report["slices"][kind]["slices"][:_SHOWN]
        if slices:
            out.print(f"\n[bold]{what}[/bold]")
        for found in slices:
            text = f"  {found['name']}: {found['events']:,} of {found['rows']:,} rows, {found['lift']:.1f} x the usual"
            out.print(text if found["sure"] else f"{text}, perhaps by chance", markup=False)
    first = report["actions"][0]
    out.print(f"\n[bold]next[/bold]  {escape(first['title'])}. {escape(first['why'])}")
    if "risk" in first:  # a report of an older release has none
        out.print(f"[bold]risk[/bold]  {escape(first['risk'])}")
