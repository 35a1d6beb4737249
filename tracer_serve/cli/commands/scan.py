"""``tracer-serve scan``: what a file of traces would let the surrogate handle, before anything is deployed."""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from tracer_serve.cli.commands._arguments import add_reading, reading_of, require_place
from tracer_serve.cli.commands._file_warnings import file_warnings
from tracer_serve.cli.commands._scan_page import render_scan
from tracer_serve.cli.console import err, facts, out, print_json, progress_bar
from tracer_serve.components.factory import load_plugins, make_embedders
from tracer_serve.config.load import Task, load_task
from tracer_serve.fit.dataset import Rows
from tracer_serve.gate.wording import percent
from tracer_serve.report.pricing import CallPrice
from tracer_serve.report.scan import Scan, bare_task, scan
from tracer_serve.storage.importers import ImportSummary, read_traces, survey_file
from tracer_serve.types import Trace


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("traces", type=Path, help="labelled traces: JSONL, CSV, TSV or Parquet")
    parser.add_argument("--task", type=Path, help="YAML of a task: its embedder, surrogates, gate and prices")
    parser.add_argument("--embedder", default="ngrams", help="without --task; sentence_transformers where installed")
    parser.add_argument(
        "--delta", type=_probability, default=0.05, help="without --task: probability of a wrong certificate"
    )
    add_reading(parser)
    parser.add_argument("--price-per-call", type=float, metavar="USD", help="price of one teacher call")
    parser.add_argument("--prompt-per-1m", type=float, metavar="USD", help="price of a million prompt tokens")
    parser.add_argument("--completion-per-1m", type=float, metavar="USD", help="price of a million completion tokens")
    parser.add_argument("--calls-per-day", type=float, metavar="N", help="requests a day; default: money per 1,000")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write one self-contained page")


def run(args: argparse.Namespace) -> int:
    """Scan, print, and write the page if requested."""
    if args.html:
        require_place(args.html)
    task = load_task(args.task) if args.task else None
    traces, summary = _read(args, task)
    for name, odd in file_warnings(summary):
        err.print(f"{name}: {odd}", markup=False)
    rows = Rows.of([t.input for t in traces], [str(t.teacher_label) for t in traces])
    task = task or bare_task(
        args.traces, pair=isinstance(traces[0].input, tuple), embedder=args.embedder, delta=args.delta
    )
    load_plugins(task)
    price = _price(args, task, rows, traces)
    with tempfile.TemporaryDirectory(prefix="tracer-serve-scan-") as aside, progress_bar(quiet=args.json) as progress:
        # The task's own cache: its first fit, or another scan, embeds nothing again.
        cache = task.state / "cache" if args.task else Path(aside)
        found = scan(task, rows, make_embedders(task, cache), progress)
    if args.html:
        args.html.write_text(render_scan(args.traces.name, found, price), encoding="utf-8")
    if args.json:
        print_json(
            {"file": str(args.traces), "refused": summary.refused, **asdict(found), "money": _money(found, price)}
        )
    else:
        _show(args.traces, found, price, summary)
        out.print(_next(args, found), markup=False)
    return 0


def _probability(word: str) -> float:
    value = float(word)
    if not 0 < value < 0.5:  # noqa: PLR2004  # as in the YAML
        raise argparse.ArgumentTypeError("between 0 and 0.5")
    return value


def _read(args: argparse.Namespace, task: Task | None) -> tuple[list[Trace], ImportSummary]:
    reading = reading_of(args, None if task is None else task.spec)
    summary = survey_file(args.traces, reading, skip_bad=args.skip_bad)
    return list(read_traces(args.traces, "scan", reading, skip_bad=args.skip_bad)), summary


def _price(args: argparse.Namespace, task: Task, rows: Rows, traces: list[Trace]) -> CallPrice | None:
    """Return the price of a call: as given, else by tokens, else the mean cost of the traces, else None."""
    block = task.spec.teacher.params.get("price")
    prices = dict(block) if isinstance(block, Mapping) else {}
    given = {"prompt_per_1m": args.prompt_per_1m, "completion_per_1m": args.completion_per_1m}
    prices |= {name: value for name, value in given.items() if value is not None}
    costs = [trace.cost for trace in traces if trace.cost > 0]
    if args.price_per_call is not None:
        price = CallPrice(args.price_per_call, "as given")
    elif {"prompt_per_1m", "completion_per_1m"} <= prices.keys():
        price = CallPrice.of_tokens(task, rows.texts, rows.labels, prices)
    elif costs:
        price = CallPrice(sum(costs) / len(costs), f"mean cost of the {len(costs):,} traces that have one")
    else:
        return None
    return replace(price, calls_per_day=args.calls_per_day)


def _money(found: Scan, price: CallPrice | None) -> dict[str, Any] | None:
    if price is None:
        return None
    return asdict(price) | {
        "span": price.span,
        "saved": {f"{p.alpha:g}": price.saved(p.calls_saved) for p in found.points},
    }


def _show(file: Path, found: Scan, price: CallPrice | None, summary: ImportSummary) -> None:
    part = f", {found.used:,} of them cross-fitted" if found.used < found.rows else ""
    lines = [
        ("file", f"{file}: {found.rows:,} traces{part}, {found.labels:,} labels"),
        ("embedder", found.embedder),
        (
            "promise",
            f"each line holds by itself with probability {1 - found.delta:g}, cross-fitted; choose alpha first",
        ),
    ]
    if summary.refused:
        lines.insert(1, ("refused", f"{summary.refused:,} lines, such as {summary.refusals[0]}"))
    if price is not None:
        lines.append(("price", f"{price.per_call:.3g} {price.currency} a call ({price.basis})"))
        lines.append(("saved", f"{price.currency} per {price.span}"))
    facts(lines)
    out.print(_coverage(found, price))
    out.print(_curve(found))
    if found.fields:
        out.print(_fields(found))
    if warned := [p for p in found.points if p.warning]:
        out.print(f"at alpha {warned[-1].alpha:g}: {warned[-1].warning}", markup=False)
    out.print(f"calls saved are net of audits ({100 * found.audit_rate:g} % of what is handled)")


def _next(args: argparse.Namespace, found: Scan) -> str:
    """Return the recommended next step."""
    if not any(point.coverage for point in found.points):
        other = " or try --embedder sentence_transformers" if args.task is None and args.embedder == "ngrams" else ""
        return f"next: nothing can be certified on these traces yet; collect more (column `lacks`){other}"
    if args.task is not None:
        return f"next: set gate.alpha in {args.task}, then tracer-serve fit {args.task}"
    return (
        "next: choose alpha, and write it into a YAML with your teacher, its labels and"
        f" `traces: {{import: [{args.traces}]}}`; start from configs/openai.yaml, and check"
        " it: tracer-serve check TASK.yaml"
    )


def _coverage(found: Scan, price: CallPrice | None) -> Table:
    ahead = f"at {2 * found.used:,}"
    columns = ("alpha", "coverage", "agree", "lowest recall", "calls saved", ahead, "lacks", "surrogate")
    table = Table(*columns, box=SIMPLE)
    if price is not None:
        table.add_column("saved", justify="right")
    for p in found.points:
        agree = percent(p.agreement)
        twice = "-" if p.twice is None else "{:.0f}% ({:.0f}-{:.0f})".format(*(100 * share for share in p.twice))
        lacks = f"{p.rows_needed:,}" if p.rows_needed else "-"
        worst = f"{percent(p.recalls[0].recall)} {p.recalls[0].label}" if p.coverage and p.recalls else "-"
        cells = [f"{p.alpha:g}", percent(p.coverage), agree, worst, percent(p.calls_saved), twice, lacks, p.surrogate]
        table.add_row(*cells, *([] if price is None else [f"{price.saved(p.calls_saved):,.3g}"]))
    return table


def _fields(found: Scan) -> Table:
    """Return a line per field of the answer."""
    columns = ("field", "agrees", "agrees, handled", "only this one differs", "coverage without it")
    table = Table(*columns, box=SIMPLE)
    for row in found.fields:
        shares = [percent(share) for share in (row.agreement, row.handled_agreement, row.without)]
        table.add_row(row.field, *shares[:2], f"{row.alone:,}", shares[2])
    return table


def _curve(found: Scan) -> Table:
    """Return coverage by number of traces, a column per alpha."""
    table = Table("traces", *(f"{p.alpha:g}" for p in found.points), box=SIMPLE)
    for i, (size, _) in enumerate(found.points[0].curve):
        table.add_row(f"{size:,}", *(percent(p.curve[i][1]) for p in found.points))
    return table
