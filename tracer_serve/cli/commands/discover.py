"""``tracer-serve discover``: find the classification tasks in LLM logs."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from tracer_serve.cli.console import err, facts, out, print_json, progress_bar
from tracer_serve.errors import ImportFileError
from tracer_serve.forms.grouping import CallGroups
from tracer_serve.report.discovery import FoundTask, Prices, found_tasks, project
from tracer_serve.report.proposed_task import several_answers, write_task
from tracer_serve.storage.importers import FORMATS, ReadOptions, Refusal
from tracer_serve.storage.importers.calls import read_calls
from tracer_serve.storage.observed import ObservedCalls

_DATABASE = ".db"
_LABELS = 4  # shown
_SLOT = 28  # characters of each end of a slot that are shown
_OPENAI = "https://api.openai.com/v1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    logs = "logs of LLM calls with their prompts, or observed.db of `tracer-serve proxy`"
    parser.add_argument("logs", type=Path, nargs="+", help=logs)
    parser.add_argument("--format", choices=FORMATS, default="auto", help="how to read the logs; default: detected")
    parser.add_argument("--requests", type=Path, metavar="FILE", help="input file of an OpenAI batch")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write each task's YAML, call and traces there")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this task; may be repeated")
    parser.add_argument("--base-url", default=_OPENAI, metavar="URL", help="the LLM's API, for the YAML")
    parser.add_argument("--alpha", type=float, default=0.95, help="agreement for the projection and the YAML")
    parser.add_argument("--no-projection", action="store_true", help="skip the cross-fit that projects the coverage")
    parser.add_argument("--prompt-per-1m", type=float, metavar="USD", help="price of a million prompt tokens")
    parser.add_argument("--completion-per-1m", type=float, metavar="USD", help="price of a million completion tokens")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Group the calls of all logs, and print or write the tasks among them."""
    groups, refused = _read(args)
    found = found_tasks(groups.groups(), Prices(args.prompt_per_1m, args.completion_per_1m))
    found = [task for task in found if not args.only or task.name in args.only]
    if not args.no_projection:
        with progress_bar(quiet=args.json) as progress:
            found = [replace(task, projection=project(task, args.alpha, progress)) for task in found]
    written = [write_task(args.write, task, args.base_url, args.alpha) for task in found] if args.write else []
    if args.json:
        facts_of = [as_json(task, args.alpha) for task in found]
        print_json({"calls": groups.totals.calls, "refused": len(refused), "tasks": facts_of})
        return 0
    _show(args, groups, refused, found, written)
    return 0


def _read(args: argparse.Namespace) -> tuple[CallGroups, list[str]]:
    groups, refused = CallGroups(), list[str]()
    reading = ReadOptions(fmt=args.format, requests=args.requests)
    for file in args.logs:
        if file.suffix == _DATABASE:
            ObservedCalls(file).load_into(groups)
            continue
        for seen in read_calls(file, reading):
            if isinstance(seen, Refusal):
                refused.append(f"{file}: {seen}")
            else:
                groups.add(seen)
    groups.settle()
    if not groups.totals.calls:
        why = f"; the first line that is none: {refused[0]}" if refused else ""
        raise ImportFileError(f"{args.logs[0]}: no LLM call with its prompt and its answer{why}")
    return groups, refused


def as_json(task: FoundTask, alpha: float) -> dict[str, Any]:
    """Return the facts of a task for scripts; no text of a call is among them."""
    group = task.group
    return {
        "name": task.name,
        "form": group.form.fingerprint,
        "model": group.form.model,
        "calls": group.totals.calls,
        "calls_a_day": task.calls_a_day,
        "labels": list(group.label_set),
        "also_asked": list(task.also_asked),
        "texts": len(group.examples),
        "prefix_characters": len(group.slot.prefix),
        "suffix_characters": len(group.slot.suffix),
        "prompt_tokens": task.prompt_tokens,
        "tokens_a_day": task.tokens_a_day,
        "cost_a_day": task.cost_a_day,
        "coverage": task.coverage(alpha),
    }


def _show(
    args: argparse.Namespace, groups: CallGroups, refused: list[str], found: list[FoundTask], written: list[Path]
) -> None:
    rest = groups.totals.calls - sum(task.group.totals.calls for task in found)
    rows = [("calls", f"{groups.totals.calls:,}; {rest:,} of them belong to no task")]
    if refused:
        rows.append(("skipped", f"{len(refused):,} lines without a call, such as {refused[0]}"))
    rows.append(("tasks", f"{len(found):,}"))
    facts(rows)
    if found:
        out.print(_table(found, args.alpha))
    for task in found:
        if task.also_asked:
            err.print(f"warning: {task.name}: {several_answers(task)}", markup=False)
    for file in written:
        out.print(f"wrote {file}; next: tracer-serve check {file}", markup=False)
    if found and not written:
        out.print("next: the same command with --write DIR writes a YAML for each task", markup=False)
    if not found:
        err.print("a task needs 20 calls with different texts, one prompt, and few answers that recur", markup=False)


def _table(found: list[FoundTask], alpha: float) -> Table:
    table = Table("task", "model", "calls", "labels", "slot", "tokens a call", "a day", f"at {alpha:g}", box=SIMPLE)
    for task in found:
        group, coverage = task.group, task.coverage(alpha)
        named = ", ".join(group.label_set[:_LABELS]) + (" ..." if len(group.label_set) > _LABELS else "")
        slot = f"{group.slot.prefix[-_SLOT:]!r} ... {group.slot.suffix[:_SLOT]!r}"
        day = f"{task.tokens_a_day:,.0f} tokens" if task.cost_a_day is None else f"{task.cost_a_day:,.2f} USD"
        handled = "-" if coverage is None else f"{100 * coverage:.0f} % handled"
        labels = f"{len(group.label_set)}: {named}"
        cells = (task.name, group.form.model, f"{group.totals.calls:,}", labels, slot, f"{task.prompt_tokens:,.0f}")
        table.add_row(*cells, day, handled)
    return table
