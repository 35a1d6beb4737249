"""``tracer-serve import``: import labelled traces into the store."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

from tracer_serve.cli.commands._arguments import add_reading, text_field_of
from tracer_serve.cli.commands._audit import record
from tracer_serve.cli.commands._file_warnings import file_warnings, short_label
from tracer_serve.cli.console import facts, print_json
from tracer_serve.components.factory import load_plugins, make_redactors, teacher_fingerprint
from tracer_serve.config.load import Task, load_task
from tracer_serve.infra.redaction import redaction
from tracer_serve.lifecycle.gate_state.closing import closing_of
from tracer_serve.storage.importers import ImportSummary, import_file
from tracer_serve.storage.versions.opening import store_of

_SHOWN = 12
_BEFORE = "0: this file was imported before"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("task", type=Path, help="YAML file of the task")
    parser.add_argument("files", type=Path, nargs="+", help="JSONL, CSV, TSV or Parquet; logs of an LLM gateway")
    add_reading(parser)
    parser.add_argument("--requests", type=Path, metavar="FILE", help="input file of an OpenAI batch")
    parser.add_argument("--any-teacher", action="store_true", help="import labels of several teachers or another one")
    train_only = "rows that are no fair sample of traffic (collected, made up): they train and never calibrate"
    parser.add_argument("--train-only", action="store_true", help=train_only)
    parser.add_argument("--dry-run", action="store_true", help="count only, write nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Import each file as a whole or not at all; a file that was imported before adds nothing."""
    task = load_task(args.task)
    load_plugins(task)
    redact = redaction(make_redactors(task))
    with closing(store_of(task)) as store:
        closed = closing_of(store)
        summaries = [
            import_file(
                store,
                file,
                labels=task.spec.readable_labels,
                fields=task.spec.answer_fields,
                pair=task.spec.input == "pair",
                fmt=args.format,
                text_field=text_field_of(args.text_field),
                label_field=args.label_field,
                requests=args.requests,
                keep_wrapper=args.keep_wrapper,
                teacher=_model(task),
                skip_bad=args.skip_bad,
                any_teacher=args.any_teacher,
                fingerprint=None if args.any_teacher else teacher_fingerprint(task),
                fair=not args.train_only,
                since=closed.moment if closed else None,
                redact=redact,
                dry_run=args.dry_run,
            )
            for file in args.files
        ]
    if not args.dry_run:
        for file, summary in zip(args.files, summaries, strict=True):
            record(task, "import", file.name, rows=summary.imported)
    if args.json:
        print_json([_as_json(summary) for summary in summaries])
        return 0
    for summary in summaries:
        _show(summary)
    again = " ".join(["tracer-serve import", str(args.task), *map(str, args.files)])
    dry = f"{again}, with the same options except --dry-run, imports them"
    facts([("next", dry if args.dry_run else f"tracer-serve refit {args.task} fits a version on all traces")])
    return 0


def _model(task: Task) -> str | None:
    model = task.spec.teacher.params.get("model")
    return None if model is None else str(model)


def _as_json(summary: ImportSummary) -> dict[str, Any]:
    return {
        "file": str(summary.path),
        "rows": summary.rows,
        "imported": summary.imported,
        "already": summary.already,
        "dry_run": summary.dry_run,
        "skipped": summary.skipped,
        "duplicates": summary.duplicates,
        "contradictory": summary.contradictory,
        "refused": summary.refused,
        "refusals": [str(refusal) for refusal in summary.refusals],
        "labels": summary.labels,
        "teachers": summary.teachers,
        "wrapper": None if summary.wrapper is None else [summary.wrapper.prefix, summary.wrapper.suffix],
        "unwrapped": summary.unwrapped,
        "escaped": summary.escaped,
    }


def _show(summary: ImportSummary) -> None:
    if summary.already and not summary.rows:
        facts([("file", str(summary.path)), ("imported", _BEFORE)])
        return
    shown = ", ".join(f"{short_label(label)} {rows:,}" for label, rows in list(summary.labels.items())[:_SHOWN])
    more = f" and {len(summary.labels) - _SHOWN:,} more" if len(summary.labels) > _SHOWN else ""
    came = ("imported", f"{summary.imported:,} of {summary.rows:,} rows")
    if summary.dry_run:
        came = ("dry run", _BEFORE if summary.already else f"{summary.rows:,} rows are valid; nothing was written")
    rows = [
        ("file", str(summary.path)),
        came,
        ("labels", f"{len(summary.labels):,}: {shown}{more}"),
    ]
    if summary.once:
        few = ", ".join(map(short_label, summary.once[:_SHOWN])) + (" ..." if len(summary.once) > _SHOWN else "")
        rows.append(("seen once", f"{few}: a surrogate cannot learn these labels; they will be deferred"))
    rows += file_warnings(summary)
    if summary.duplicates:
        rows.append(("duplicates", f"{summary.duplicates:,} rows repeat an earlier one; kept, as they are traffic"))
    if summary.contradictory:
        first = summary.contradictions[0]
        example = f"line {first.line}: {first.label!r}, earlier {first.earlier!r}"
        rows.append(("contradictory", f"{summary.contradictory:,} texts have two labels, such as {example}"))
    if summary.refused:
        rows.append(("refused", f"{summary.refused:,} lines, such as {summary.refusals[0]}"))
    facts(rows)
