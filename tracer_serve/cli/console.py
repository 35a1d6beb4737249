"""Terminal output: tables, facts and progress; plain text if the output is not a terminal."""

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

out = Console(highlight=False, soft_wrap=True, emoji=False)
"""Standard output; in a file or a pipe tables are as wide as needed, regardless of COLUMNS."""
if not out.is_terminal:
    out.width = 10_000
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


_WORTH_PRINTING_S = 10.0


def print_json(value: Any) -> None:
    """Print one JSON document, for scripts."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Any]:
    """Yield a progress callback (stage, done, total): a bar in a terminal, otherwise one or two lines per stage.

    Both estimate the remaining time after the first step; a line is printed only if it is ten seconds or more.
    """
    if quiet:
        yield lambda _stage, _done, _total: None
        return
    if not err.is_terminal:
        began: dict[str, float] = {}
        estimated: set[str] = set()

        def line(stage: str, done: int, total: int | None) -> None:
            if stage not in began:
                began[stage] = time.monotonic()
                err.print(f"{stage} ...")
            elif done and total and stage not in estimated:
                estimated.add(stage)
                left = (time.monotonic() - began[stage]) / done * (total - done)
                if left >= _WORTH_PRINTING_S:
                    err.print(f"{stage}: {done:,} of {total:,} done, about {timedelta(seconds=round(left))} to go")

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield step


def facts(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns; a long value is wrapped in a terminal."""
    width = max(len(name) for name, _ in rows)
    below = "\n" + " " * (width + 2)
    for name, value in rows:
        lines = _wrapped(value, out.width - width - 2) if out.is_terminal else [value]
        out.print(f"[bold]{name:<{width}}[/bold]  {escape(below.join(lines))}")


def _wrapped(value: str, width: int) -> list[str]:
    """Return the lines of a value, broken only between words, so that a path can be copied."""
    if len(value) <= width:
        return [value]
    return textwrap.wrap(value, max(width, 1), break_long_words=False, break_on_hyphens=False)
