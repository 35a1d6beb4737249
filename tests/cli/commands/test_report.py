"""``tracer-serve report`` in the terminal."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import blobs, case_of, make_task
from tracer_serve.cli.commands.report import _show


def test_labels_stay_text_and_disagreement_is_not_called_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A label that looks like markup is printed as it is; rows that differ are not said to be answered wrongly."""
    texts, labels, vectors = blobs(300, 3, seed=0, spread=1.0, width=8)
    vectors[labels == "label_01"] = vectors[labels == "label_00"][0]  # not separable
    named = labels.astype("<U20")
    named[labels == "label_01"] = "[/red]"
    case = case_of(make_task(), texts, named, vectors, labels.argsort())
    report: dict[str, Any] = case.report | {"actions": [{"title": "Look at [/red]", "why": "[bold]x[/bold]"}]}
    _show(report, 1, Path("report.html"))
    said = capsys.readouterr().out
    assert "Look at [/red]. [bold]x[/bold]" in said
    assert "where surrogate and teacher differ most" in said
    assert "errs" not in said
    assert "basis" in said
    assert "300 out-of-fold calibration rows" in said
