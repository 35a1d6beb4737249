"""`check --teacher-noise` asks a real server again and leaves what it found where the next fit looks."""

import json
from pathlib import Path

import pytest

from tests.support.stub_llm import StubLLM
from tests.support.tasks import banking, write_task
from tracer_serve.cli.main import main
from tracer_serve.config.load import Task
from tracer_serve.fit.teacher_noise import KEY
from tracer_serve.storage.versions.opening import open_versions, store_of


def asking(folder: Path, stub: StubLLM, *, wrong: int, rows: int = 120) -> Task:
    """A task with imported traces, whose teacher by now gives another label on the first `wrong` of them."""
    texts, labels = banking(rows)
    other = sorted({*labels})
    stub.labels = {
        text: other[(other.index(label) + (i < wrong)) % len(other)]
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    }
    teacher = {"type": "openai", "base_url": stub.url, "model": "stub-1", "retries": 0, "max_concurrency": 3}
    task = write_task(folder, rows=rows, teacher=teacher, labels=other, gate={"alpha": 0.95, "delta": 0.05})
    assert main(["import", str(task.file), str(folder / "traces.jsonl")]) == 0
    return task


def test_the_estimate_is_kept_and_used(tmp_path: Path, stub_llm: StubLLM, capsys: pytest.CaptureFixture[str]) -> None:
    """A teacher that changes a third of its labels is named as the cause, in the terminal and in the certificate."""
    task = asking(tmp_path, stub_llm, wrong=40)
    capsys.readouterr()
    assert main(["check", str(task.file), "--teacher-noise", "500"]) == 0
    printed = capsys.readouterr()
    assert "repeats 80 of 120 labels" in printed.out
    assert "above what any surrogate can reach" in printed.err
    store = store_of(task)
    try:
        kept = store.values.get(KEY)
    finally:
        store.close()
    assert (kept["asked"], kept["agreed"], kept["source"]) == (120, 80, "replay")
    assert main(["fit", str(task.file)]) == 0
    certificate = json.loads((open_versions(task).folder(1) / "certificate.json").read_text(encoding="utf-8"))
    assert certificate["diagnosis"]["numbers"]["teacher_pairs"] == 120


def test_a_steady_teacher_is_no_warning(tmp_path: Path, stub_llm: StubLLM, capsys: pytest.CaptureFixture[str]) -> None:
    """Only as many inputs as asked for go out, each once, and JSON stays JSON."""
    task = asking(tmp_path, stub_llm, wrong=0)
    capsys.readouterr()
    assert main(["check", str(task.file), "--teacher-noise", "25", "--json"]) == 0
    printed = capsys.readouterr()
    assert "repeats 25 of 25 labels" in json.loads(printed.out)["teacher_noise"]
    assert "warning" not in printed.err
    assert stub_llm.count == 25


def test_a_teacher_that_never_answers_is_an_error(
    tmp_path: Path, stub_llm: StubLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inputs without a label are counted; if none gets a label, the teacher's own error is shown."""
    task = asking(tmp_path, stub_llm, wrong=0)
    stub_llm.labels, stub_llm.default = {}, None
    capsys.readouterr()
    assert main(["check", str(task.file), "--teacher-noise", "5"]) == 1
    assert "error:" in capsys.readouterr().err
