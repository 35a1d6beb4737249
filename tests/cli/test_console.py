"""What people see in the terminal."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from tracer_serve.cli import console

ROWS = [("verdict", "a sentence of several words"), ("report", "/a/path/that-is-longer/than/the/terminal/is.html")]


@pytest.mark.parametrize("terminal", [True, False])
def test_long_values_break_between_words_and_only_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """In a terminal a sentence is wrapped and a path stays whole; elsewhere each value is one line."""
    file = io.StringIO()
    plain = Console(file=file, force_terminal=terminal, width=28, soft_wrap=True, highlight=False, no_color=True)
    monkeypatch.setattr(console, "out", plain)
    console.facts(ROWS)
    lines = file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    sentence = ["verdict  a sentence of", "         several words"] if terminal else [f"verdict  {ROWS[0][1]}"]
    assert lines == [*sentence, f"report   {ROWS[1][1]}"]
    assert ("\x1b" in file.getvalue()) == terminal


def test_a_table_in_a_pipe_is_as_wide_as_it_needs() -> None:
    """Outside a terminal no name is folded, regardless of COLUMNS."""
    name = "a name " * 30
    code = (
        f"from rich.table import Table; from tracer_serve.cli.console import out; out.print(Table({name!r}, 'share'))"
    )
    env = {k: v for k, v in os.environ.items() if k != "FORCE_COLOR"} | {"COLUMNS": "80"}
    shown = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert name.strip() in shown
    assert max(map(len, shown.splitlines())) < len(name) + 20


def test_a_pipe_is_told_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line at most every ten seconds: the given estimate, else by the rate of the stage; none of a few seconds."""
    now = [0.0]
    monkeypatch.setattr("tracer_serve.cli.console.time.monotonic", lambda: now[0])
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=False, soft_wrap=True))
    with console.progress_bar() as progress:
        for at, step in (
            (0.0, ("copying", 0, 5)),
            (1.0, ("copying", 1, 5)),
            (30.0, ("copying", 2, 5)),
            (31.0, ("fold 1 of 10: blend", 0, 10, 200.0)),
            (41.0, ("fold 2 of 10: blend", 1, 10, 150.0)),
            (60.0, ("certifying", 1, 1, 2.0)),
        ):
            now[0] = at
            progress(*step)
    assert capsys.readouterr().err.splitlines() == [
        "copying ...",
        "copying, 2 of 5 done, about 0:00:45 left ...",
        "fold 2 of 10: blend, 1 of 10 done, about 0:02:30 left ...",
        "certifying, 1 of 1 done ...",
    ]
