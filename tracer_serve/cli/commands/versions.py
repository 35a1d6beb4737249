"""``tracer-serve versions``: list the versions and which one serves."""

import argparse
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from tracer_serve.cli.commands._audit import record
from tracer_serve.cli.console import out, print_json
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import ArtifactError
from tracer_serve.lifecycle.approval import approve, waiting_version
from tracer_serve.lifecycle.gate_state.monitor_record import PROVED
from tracer_serve.storage.versions.manifest import Manifest
from tracer_serve.storage.versions.opening import open_versions, store_of
from tracer_serve.storage.versions.store import VersionStore, all_manifests, pin


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("--pin", type=int, metavar="N", help="never remove version N")
    parser.add_argument("--unpin", type=int, metavar="N", help="undo --pin N")
    parser.add_argument("--approve", type=int, metavar="N", help="serve version N, which waits for approval")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Approve, pin or unpin a version, then list the versions, oldest first."""
    task = load_task(args.task)
    versions = open_versions(task)
    if args.approve is not None:
        _approve(task, versions, args.approve)
    for number, pinned in ((args.pin, True), (args.unpin, False)):
        if number is not None:
            pin(versions, number, pinned)
            record(task, "pin" if pinned else "unpin", str(number))
    current = versions.current()
    manifests = all_manifests(versions)
    store = store_of(task)
    proved = store.values.get(PROVED) or {}
    waiting = waiting_version(store, versions)
    waits = None if waiting is None else waiting.version
    store.close()
    if args.json:
        facts = [
            {
                "serving": m.version == current,
                "waits": m.version == waits,
                "proved_live_at": proved.get(str(m.version)),
            }
            for m in manifests
        ]
        print_json([asdict(m) | fact for m, fact in zip(manifests, facts, strict=True)])
        return 0
    forgetful = any(m.forgotten for m in manifests)
    table = Table(box=SIMPLE, padding=0, pad_edge=False, collapse_padding=True)
    for name in ("version", "", "written (UTC)", "traces", *["forgotten"] * forgetful, "verdict"):
        table.add_column(name, no_wrap=True)
    table.add_column("embedder", overflow="fold")  # a long name wraps in a narrow terminal
    for m in manifests:
        table.add_row(
            str(m.version),
            "\n".join(_marks(m, current, waits)),
            m.created[:16].replace("T", " "),
            f"{m.traces:,}",
            *[f"{m.forgotten:,}"] * forgetful,
            ", ".join([m.reason, *[m.basis] * m.certified, *["proved live"] * (str(m.version) in proved)]),
            m.embedder,
        )
    none = f"no version yet in {task.state}; `tracer-serve fit {args.task}` writes the first"
    out.print(table if manifests else none, markup=False)
    return 0


def _marks(manifest: Manifest, current: int | None, waits: int | None) -> list[str]:
    """Return what is said of a version beside its number."""
    said = {"serves": manifest.version == current, "waits for approval": manifest.version == waits}
    return [words for words, is_so in (said | {"pinned": manifest.pinned}).items() if is_so]


def _approve(task: Task, versions: VersionStore, number: int) -> None:
    """Make the version that waits current, and record who did."""
    with closing(store_of(task)) as store:
        try:
            done = approve(store, versions, number)
        except ArtifactError:
            record(task, "approve", str(number), "failed")
            raise
    record(task, "approve", str(number), before=done.before)
