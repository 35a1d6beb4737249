"""What the commands print and do on a real small task."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tasks import CONFIGS, banking, write_task, write_traces
from tests.support.tiny import tiny_task
from tracer_serve.cli.main import COMMANDS, main
from tracer_serve.storage.versions.opening import open_versions


def test_fit_prints_the_summary_and_json_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`fit` writes a version and says what it came to; `--json` prints one JSON document and nothing else."""
    task = tiny_task(tmp_path)
    assert main(["fit", str(task.file)]) == 0
    printed = capsys.readouterr().out
    for word in ("version", "verdict", "certified", "coverage", "agreement", "report.html"):
        assert word in printed
    assert main(["refit", str(task.file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["activated"], found["traces"]) == (2, True, 96)
    assert found["certificate"]["certified"] is True
    assert main(["versions", str(task.file), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [v["serving"] for v in listed] == [False, True]
    assert main(["versions", str(task.file), "--pin", "1"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[:2] for line in table.splitlines() if "certified" in line] == [
        ["1", "pinned"],
        ["2", "serves"],
    ]
    assert "…" not in table
    assert main(["report", str(task.file), "--version", "0"]) == 1


def test_a_version_that_does_not_certify_never_replaces_one_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a certified version, a refit that abstains is written but does not serve."""
    task = tiny_task(tmp_path)
    assert main(["fit", str(task.file)]) == 0
    text = task.file.read_text(encoding="utf-8").replace("alpha: 0.8", "alpha: 0.9999")
    task.file.write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert main(["refit", str(task.file)]) == 0
    printed = capsys.readouterr().out
    assert "version 1 still serves" in printed
    assert "not certified. Everything goes to the teacher: there are too few rows" in printed
    assert open_versions(task).current() == 1


def test_import_counts_and_is_idempotent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run writes nothing, an import adds the rows, the same file again adds none."""
    task = write_task(tmp_path)
    texts, labels = banking(20)
    file = write_traces(tmp_path / "more.jsonl", texts, labels)
    counted = []
    for words in (["--dry-run"], [], []):
        assert main(["import", str(task.file), str(file), "--json", *words]) == 0
        counted.append(json.loads(capsys.readouterr().out)[0]["imported"])
    assert counted == [0, 20, 0]


def test_check_names_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` prints the promise and the components; `--teacher` calls the teacher."""
    task = write_task(tmp_path)
    text, label = (column[0] for column in banking(1))
    assert main(["check", str(task.file), "--json", "--teacher", text]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["surrogates"], found["answer"]) == ("test", "logreg", label)
    assert main(["check", str(task.file)]) == 0
    assert f"next        tracer-serve {task.file} fits a first version" in capsys.readouterr().out


def test_check_asks_the_teacher_about_what_the_task_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pair task needs two texts and a single-text task one; otherwise the error says so and no call is made."""
    task = write_task(tmp_path)
    assert main(["check", str(task.file), "--teacher", "lost", "--teacher", "stolen"]) == 1
    assert "give --teacher once" in capsys.readouterr().err
    (tmp_path / "traces.jsonl").write_text('{"input": ["a card", "is lost"], "teacher": "card_lost"}\n')
    task.file.write_text(task.file.read_text().replace("name: test", "name: test\ninput: pair"))
    assert main(["check", str(task.file), "--teacher", "lost"]) == 1
    assert "give --teacher twice" in capsys.readouterr().err


def test_checking_stays_light() -> None:
    """Neither `import tracer_serve` nor `check` imports a heavy library."""
    heavy = ("torch", "sentence_transformers", "xgboost", "bentoml", "onnxruntime")
    code = (
        "import sys; from tracer_serve.cli.main import main;"
        f"main(['check', {str(CONFIGS / 'banking.yaml')!r}]);"
        f"sys.exit(','.join(m for m in {heavy!r} if m in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` works for the program and each of its commands."""
    for words in ([], *([name, "--help"] for name in COMMANDS)):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        assert "usage: tracer-serve" in capsys.readouterr().out


def test_the_schema_beside_the_configs_is_the_spec_s() -> None:
    """configs/schema.json, which editors read, is what `tracer-serve schema` prints in a process without plugins."""
    words = [sys.executable, "-m", "tracer_serve", "schema"]
    printed = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8")) == printed, "run: make schema"
    assert {"const": "logreg"} in [
        block.get("properties", {}).get("type") for block in printed["properties"]["surrogates"]["items"]["anyOf"]
    ]
