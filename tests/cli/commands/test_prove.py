"""`prove` reports how certificates on resamples fared, for people and for scripts."""

import json
from pathlib import Path

import pytest

from tests.support.tiny import TEXTS, rows_now, tiny_task
from tracer_serve.cli.main import main
from tracer_serve.storage.versions.opening import open_versions, store_of


def test_prove_judges_resamples_and_writes_no_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Imports have no order, so time is not checked; served rows have one, and nothing that serves is touched."""
    task = tiny_task(tmp_path)
    assert main(["prove", str(task.file), "--runs", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"{len(TEXTS)}; " in printed
    assert "kept: 0 of 1 certificates fell below 80.0 %" in printed
    assert "not checked" in printed
    store = store_of(task)
    store.traces.add(rows_now(100))
    store.close()
    assert main(["prove", str(task.file), "--runs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"], found["below"], found["broken"], found["drifts"]) == (1, 0, False, False)
    assert (len(found["trials"]), len(found["forward"]), found["rows"]) == (1, 5, len(TEXTS) + 100)
    assert open_versions(task).numbers() == []
