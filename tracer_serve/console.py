"""What people see in the terminal: plain where the output is not one."""

import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

out = Console(highlight=False, soft_wrap=True)
"""Standard output; in a file or a pipe a table is as wide as it needs to be, whatever COLUMNS says."""
if not out.is_terminal:
    out.width = 10_000
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON for scripts: one document, nothing else on standard output."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Any]:
    """Yield a progress callback (stage, done, total): a bar in a terminal, a line per stage elsewhere."""
    if quiet:
        yield lambda _stage, _done, _total: None
        return
    if not err.is_terminal:
        seen: set[str] = set()

        def line(stage: str, _done: int, _total: int) -> None:
            if stage not in seen:
                seen.add(stage)
                err.print(f"{stage} ...")

        yield line
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=err) as bar:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield step


def facts(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns; in a terminal a long value goes on below itself."""
    width = max(len(name) for name, _ in rows)
    below = "\n" + " " * (width + 2)
    for name, value in rows:
        lines = _wrapped(value, out.width - width - 2) if out.is_terminal else [value]
        out.print(f"[bold]{name:<{width}}[/bold]  {escape(below.join(lines))}")


def _wrapped(value: str, width: int) -> list[str]:
    """Return the lines of a value, broken between words only, so that a path stays one to click or copy."""
    if len(value) <= width:
        return [value]
    return textwrap.wrap(value, max(width, 1), break_long_words=False, break_on_hyphens=False)
