"""`tracer-serve classify --teacher --batch-api`: the real command against a stub of both batch protocols."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM
from tests.support.tiny import LABELS, TEXTS, tiny_task, write_rows
from tests.support.waiting import until
from tracer_serve.cli.main import main
from tracer_serve.config.load import Task
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import Trace

PRICE = {"currency": "USD", "prompt_per_1m": 2.0, "completion_per_1m": 8.0}
NEW = [f"{text} xylophone" for text in TEXTS]


def make(folder: Path, stub: StubLLM, api: str, **spec: Any) -> Task:
    stub.labels = dict(zip([*TEXTS, *NEW], [*LABELS, *LABELS], strict=True))
    teacher = {"type": api, "base_url": stub.url, "model": "stub-1", "price": PRICE}
    return tiny_task(folder, teacher=teacher, labels=["red", "blue"], **spec)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def traces_of(task: Task) -> list[Trace]:
    store = store_of(task)
    try:
        return list(store.traces.labelled())
    finally:
        store.close()


def half_price(trace: Trace) -> float:
    tokens = trace.usage.get("prompt_tokens", 0), trace.usage.get("completion_tokens", 0)
    return (tokens[0] * PRICE["prompt_per_1m"] + tokens[1] * PRICE["completion_per_1m"]) / 2e6  # type: ignore[operator]


@pytest.mark.parametrize("api", ["openai", pytest.param("anthropic", marks=pytest.mark.slow)])
def test_killed_and_continued_every_row_is_asked_once_at_half_price(
    api: str, tmp_path: Path, stub_llm: StubLLM
) -> None:
    """SIGKILL while a batch is under way, then expiry of a quarter of it: the provider bills each row once."""
    task = make(tmp_path, stub_llm, api, traces={"import": []})
    source, out = write_rows(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    stub_llm.batches.looks = 10_000
    stub_llm.batches.fate = lambda batch, row: "expired" if batch == 0 and row % 4 == 0 else "ok"
    words = ["classify", str(task.file), str(source), str(out), "--teacher", "--batch-api"]
    process = subprocess.Popen([sys.executable, "-m", "tracer_serve", *words])
    until(lambda: any(batch["looks"] for batch in stub_llm.batches.made.values()))
    process.kill()
    process.wait()
    stub_llm.batches.looks = 1
    assert main(words) == 0
    assert [row["tracer_label"] for row in rows_of(out)] == LABELS
    assert stub_llm.batches.submitted == [len(TEXTS), len(TEXTS) / 4]
    assert stub_llm.batches.answered.total() == len(stub_llm.batches.answered) == len(TEXTS)
    traces = traces_of(task)
    assert len(traces) == len(TEXTS)
    for trace in traces:
        assert trace.cost == pytest.approx(half_price(trace))
        assert trace.cost > 0


def test_handled_rows_are_audited_in_the_same_batches(tmp_path: Path, stub_llm: StubLLM) -> None:
    """With a certified version, only deferred rows and audits are asked, and no audit is lost at the end."""
    task = make(tmp_path, stub_llm, "openai", traces={"import": ["rows.jsonl"], "audit_rate": 0.5})
    assert main(["fit", str(task.file)]) == 0
    source, out = write_rows(tmp_path / "in.jsonl", [*TEXTS, *NEW], [*LABELS, *LABELS]), tmp_path / "out.jsonl"
    assert main(["classify", str(task.file), str(source), str(out), "--teacher", "--batch-api"]) == 0
    handled = [row for row in rows_of(out) if row["tracer_decision"] == "handled"]
    audits = [trace for trace in traces_of(task) if trace.label_source == "audit"]
    assert 0 < len(audits) < len(handled)
    assert sum(stub_llm.batches.submitted) == len(rows_of(out)) - len(handled) + len(audits)
    assert all(trace.cost == pytest.approx(half_price(trace)) for trace in audits)


def test_the_noise_check_goes_by_batch(tmp_path: Path, stub_llm: StubLLM, capsys: pytest.CaptureFixture[str]) -> None:
    """The stored inputs are asked again in one batch, and a second check asks anew."""
    task = make(tmp_path, stub_llm, "openai")
    assert main(["import", str(task.file), str(tmp_path / "rows.jsonl")]) == 0
    for batches in ([96], [96, 96]):
        capsys.readouterr()
        assert main(["check", str(task.file), "--teacher-noise", "200", "--batch-api"]) == 0
        assert "repeats 96 of 96 labels" in capsys.readouterr().out
        assert stub_llm.batches.submitted == batches


def test_a_paired_migration_goes_by_batch(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Another teacher relabels the stored texts in one batch at half price, and the refit certifies on them."""
    task = make(tmp_path, stub_llm, "openai")
    assert main(["fit", str(task.file)]) == 0
    traces = {"import": ["rows.jsonl"], "migrate": "paired", "migrate_via": "batch"}
    changed = make(tmp_path, stub_llm, "anthropic", traces=traces)
    assert main(["refit", str(changed.file)]) == 0
    assert stub_llm.batches.submitted == [len(TEXTS)]
    relabelled = [trace for trace in traces_of(changed) if trace.metadata.get("replay")]
    assert len(relabelled) == len(TEXTS)
    assert all(trace.cost == pytest.approx(half_price(trace)) for trace in relabelled)


def test_the_option_needs_a_teacher_that_has_the_api(
    tmp_path: Path, stub_llm: StubLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --teacher, or with a local teacher, the error says so before anything is written."""
    task = make(tmp_path, stub_llm, "openai")
    words = ["classify", str(task.file), str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl"), "--batch-api"]
    assert main(words) == 1
    assert "--teacher" in capsys.readouterr().err
    tiny_task(tmp_path)
    assert main([*words, "--teacher"]) == 1
    assert "no batch API" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl.partial").exists()
