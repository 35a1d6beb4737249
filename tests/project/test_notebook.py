"""The notebook of the tutorials runs from top to bottom, as a reader would run it."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorials" / "python-api.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> object:
    """Run a cell; return the value of its last line if that is an expression, which a notebook shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_its_text_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It certifies, classifies, shows the report, and learns from the watched function."""
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = [run("".join(cell["source"]), names) for cell in cells()]
    printed = capsys.readouterr().out
    assert "600 traces; certified; coverage" in printed
    assert "card_lost handled certified" in printed
    assert "None deferred" in printed
    (page,) = [value for value in shown if hasattr(value, "_repr_html_")]
    assert page._repr_html_().startswith("<iframe")
    assert 900 in shown
    assert "card_lost" in shown


def test_no_output_is_stored() -> None:
    """A stored output grows the repository and goes out of date."""
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells())
