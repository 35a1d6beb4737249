"""``tracer-serve traces prune``: which rows it takes by default, and what it says."""

import json
from pathlib import Path

import pytest

from tests.storage.traces.make import past
from tests.support.tiny import rows_now, tiny_task
from tracer_serve.cli.main import main
from tracer_serve.storage.versions.opening import store_of


def test_old_rows_go_as_configured_or_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an age the YAML's counts, and without that nothing goes; a dry run only counts."""
    task = tiny_task(tmp_path)
    store, words = store_of(task), ["traces", "prune", str(task.file)]
    with past(days=3):
        store.traces.add(rows_now(10, decision="handled", teacher_label=None, label_source=None))
        store.traces.add(rows_now(4))
    store.traces.add(rows_now(2, decision="handled", teacher_label=None, label_source=None))
    assert main(words) == 1
    assert "traces.keep_unlabelled_days: is not set" in capsys.readouterr().err
    assert main([*words, "--older-than", "4d"]) == 0
    assert "removed  0 unlabelled rows older than 4 days\n" in capsys.readouterr().out
    assert main([*words, "--older-than", "71h", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 10
    tiny_task(tmp_path, traces={"keep_unlabelled_days": 2})
    assert main(words) == 0
    assert "removed  10 unlabelled rows older than 2 days\n" in capsys.readouterr().out
    assert (store.traces.count(), store.tallies.counts().total.rows) == (6, 16)
    store.close()


@pytest.mark.parametrize("age", ["30", "1w", "0h", "-1d"])
def test_an_age_is_days_or_hours(tmp_path: Path, age: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused with what is allowed, and so is an age in which an audit may be under way."""
    with pytest.raises(SystemExit) as caught:
        main(["traces", "prune", str(tmp_path / "task.yaml"), f"--older-than={age}"])
    assert caught.value.code == 2
    said = "rows younger than 1:00:00" if age == "0h" else "is not an age such as 30d or 12h"
    assert said in capsys.readouterr().err
