"""``tracer-serve classify``: label a whole file with the current version."""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Any

from tracer_serve.cli.commands._arguments import add_text_field, count, require_place, text_field_of
from tracer_serve.cli.console import facts, print_json, progress_bar
from tracer_serve.components.teachers._batch.opening import make_batch_teacher
from tracer_serve.components.teachers._batch.teacher import REQUESTS
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import ArtifactError, BadInputError
from tracer_serve.gate.wording import percent
from tracer_serve.lifecycle.teacher_change import known_labels
from tracer_serve.serving.batch import FileSummary, InputLine, Sink, classify, classify_asking, lines_of, open_sink
from tracer_serve.serving.batch.classify_file import BATCH
from tracer_serve.serving.runtime import Runtime, running
from tracer_serve.storage.versions.opening import store_of

_BLOCK = 1 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("input", type=Path, help="JSONL, CSV, TSV or Parquet; the first ones also gzipped")
    parser.add_argument("output", type=Path, help="JSONL, CSV or Parquet, by its suffix; resumed if interrupted")
    add_text_field(parser)
    parser.add_argument("--teacher", action="store_true", help="ask the teacher about deferred texts; store traces")
    parser.add_argument(
        "--batch-api",
        action="store_true",
        help="with --teacher: ask by the teacher's batch API, half price, within a day",
    )
    parser.add_argument(
        "--batch", type=count, metavar="N", help=f"texts per batch, default {BATCH}; by --batch-api {REQUESTS}"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the whole output, or leave a partial one that the same command continues."""
    if args.batch_api and not args.teacher:
        raise BadInputError("--batch-api is about what the teacher is asked: add --teacher")
    args.batch = args.batch or (REQUESTS if args.batch_api else BATCH)
    task = load_task(args.task)
    fields: list[str] = args.text_field
    lines = lines_of(args.input, pair=task.spec.input == "pair", text_field=text_field_of(fields))
    first = next(lines, None)  # reports an unreadable file before anything is written
    require_place(args.output)
    sink = open_sink(args.output, args.input, {"task": task.spec.name, "text_field": fields})
    before, started = sink.rows, time.perf_counter()
    everything, total = chain([] if first is None else [first], lines), _rows(args.input)
    with progress_bar(quiet=args.json) as progress:
        report = lambda done: progress("classifying", before + done, total)  # noqa: E731  # the bar's stage and total
        tally = asyncio.run(_classify(task, everything, sink, args, report))
    _show(args, sink, tally, before, time.perf_counter() - started)
    if tally.rows and tally.decisions["refused"] == tally.rows:
        raise BadInputError(
            f"every row of {args.input} was refused; `tracer_reason` in {args.output} says why. Is the text in another"
            " field (--text-field NAME)? Remove the output before the next try"
        )
    return 0


async def _classify(
    task: Task, lines: Iterator[InputLine], sink: Sink, args: argparse.Namespace, report: Callable[[int], None]
) -> FileSummary:
    if args.batch_api:
        return await _by_batches(task, lines, sink, args, report)
    async with running(task, schedule=False) as runtime:
        if args.teacher:
            return await _asking(runtime, lines, sink, args, report)
        if runtime.live.loaded is None and runtime.live.problem is not None:
            raise ArtifactError(runtime.live.problem)
        if runtime.live.loaded is None:
            raise ArtifactError(
                f"{args.task} has no version yet in {task.state}, so everything would be deferred."
                f" Fit one: tracer-serve fit {args.task} (or have the teacher answer: --teacher)"
            )
        stop = Event()
        try:
            return await asyncio.to_thread(_alone, runtime, lines, sink, args.batch, report=report, stop=stop)
        finally:
            stop.set()  # a thread gets no signal and would continue to the end of the file


async def _asking(
    runtime: Runtime,
    lines: Iterator[InputLine],
    sink: Sink,
    args: argparse.Namespace,
    report: Callable[[int], None],
) -> FileSummary:
    tally = FileSummary()
    at_once = args.batch if args.batch_api else runtime.router.at_once
    async for tally in classify_asking(lines, runtime.router, sink, at_once=at_once, batch=args.batch):
        report(tally.rows)
    return tally


async def _by_batches(
    task: Task, lines: Iterator[InputLine], sink: Sink, args: argparse.Namespace, report: Callable[[int], None]
) -> FileSummary:
    """Ask by the teacher's batch API; batches of an interrupted run are continued."""
    with closing(store_of(task)) as store:
        known = await asyncio.to_thread(known_labels, task, store)
        teacher = make_batch_teacher(task, known, store.values, f"classify {args.output.resolve()}")
        async with running(task, schedule=False, teacher=teacher, audits_at_once=args.batch) as runtime:
            tally = await _asking(runtime, lines, sink, args, report)
            await runtime.router.audits.answered()
        await asyncio.to_thread(teacher.finish)
        return tally


def _alone(
    runtime: Runtime, lines: Iterator[InputLine], sink: Sink, batch: int, *, report: Callable[[int], None], stop: Event
) -> FileSummary:
    tally = FileSummary()
    with closing(classify(lines, runtime.router, sink, batch=batch)) as batches:
        for tally in batches:
            report(tally.rows)
            if stop.is_set():
                break
    return tally


def _rows(path: Path) -> int | None:
    """Count the lines for the progress bar, if the format makes that cheap."""
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".csv", ".tsv"):
        return None
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(_BLOCK), b""))


def _show(args: argparse.Namespace, sink: Sink, tally: FileSummary, before: int, seconds: float) -> None:
    counts: dict[str, Any] = {
        "output": str(args.output),
        "rows": sink.rows,
        "continued_at": before,
        "decisions": dict(tally.decisions),
        "reasons": dict(tally.reasons),
        "seconds": round(seconds, 3),
    }
    if args.json:
        print_json(counts)
        return
    rows = [("output", f"{args.output}: {sink.rows:,} rows" + (f", continued at {before:,}" if before else ""))]
    for decision, n in tally.decisions.most_common():
        reasons = ", ".join(f"{reason} {m:,}" for reason, m in tally.reasons.most_common())
        why = f": {reasons}" if decision == "deferred" else ""
        rows.append((decision, f"{n:,} ({percent(n / tally.rows)}){why}"))
    rows.append(("time", f"{seconds:.1f} s, {tally.rows / seconds:,.0f} texts a second"))
    facts(rows)
