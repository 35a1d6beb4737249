"""Terminal output: tables, facts and progress; plain text if the output is not a terminal."""

import json
import math
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

out = Console(highlight=False, soft_wrap=True, emoji=False)
"""Standard output; in a file or a pipe tables are as wide as needed, regardless of COLUMNS."""
if not out.is_terminal:
    out.width = 10_000
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


_PAUSE_S, _PAUSE_SHARE = 10.0, 0.1  # between two lines: seconds, and share of the time so far


def print_json(value: Any) -> None:
    """Print one JSON document, for scripts."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Any]:
    """Yield a progress callback (stage, done, total, seconds left): a bar in a terminal, else a line every few seconds.

    If the caller gives no estimate of the time left, it is estimated for the stage from the rate of its steps so far.
    """
    if quiet:
        yield lambda *_: None
        return
    if not err.is_terminal:
        yield _Lines().step
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Left())
    with Progress(*columns, console=err) as bar:
        task, rates = bar.add_task("", total=None), _Rates()

        def step(stage: str, done: int, total: int, left_s: float | None = None) -> None:
            left, now = rates.left(stage, done, total, left_s), time.monotonic()
            until = None if left is None else now + left
            bar.update(task, description=stage, completed=done, total=total, until=until)

        yield step


class _Rates:
    """Rates of the stages so far."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def left(self, stage: str, done: int, total: int | None, left_s: float | None) -> float | None:
        """Return the seconds left: as given, else by the rate of the stage; None before its first step."""
        now = time.monotonic()
        gone = now - self._began.setdefault(stage, now)
        if left_s is None and done and total:
            return gone / done * (total - done)
        return left_s


class _Left(ProgressColumn):
    """The time left, counted down between two steps."""

    def render(self, task: Task) -> Text:
        """Return it as text, empty while it is unknown."""
        until = task.fields.get("until")
        return Text("" if until is None else f"about {_duration(until - time.monotonic())} left", style="cyan")


class _Lines:
    """A line where ten seconds have passed since the last one, later a tenth of the time so far."""

    def __init__(self) -> None:
        self._rates, self._began, self._printed = _Rates(), time.monotonic(), -math.inf

    def step(self, stage: str, done: int, total: int | None, left_s: float | None = None) -> None:
        """Print the stage, how much of it is done, and the time left, if it is time for a line."""
        now, left = time.monotonic(), self._rates.left(stage, done, total, left_s)
        if now - self._printed < max(_PAUSE_S, _PAUSE_SHARE * (now - self._began)):
            return
        self._printed = now
        far = f", {done:,} of {total:,} done" if done and total else ""
        near = "" if left is None or left < _PAUSE_S else f", about {_duration(left)} left"
        err.print(f"{stage}{far}{near} ...")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(max(0.0, seconds))))


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
