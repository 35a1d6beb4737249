"""`check` says what will go wrong with a task that is valid."""

from pathlib import Path

import httpx
import pytest

from tests.server.chat.conftest import listening
from tests.support.tasks import write_task
from tests.support.tiny import tiny_task, write_rows
from tracer_serve.cli.main import main
from tracer_serve.config.load import load_task


def warnings_of(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["check", str(file)]) == 0
    return capsys.readouterr().err


def test_a_task_without_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is warned of."""
    assert warnings_of(tiny_task(tmp_path).file, capsys) == ""


def test_labels_without_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are named."""
    task = tiny_task(tmp_path, labels=["red", "blue", "green", "grey"])
    assert "2 of 4 labels have no trace: 'green', 'grey'" in warnings_of(task.file, capsys)


def test_one_label_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Traces that all have one label teach nothing."""
    write_rows(tmp_path / "rows.jsonl", ["a", "b", "c"], ["red"] * 3)
    assert "all 3 traces have the label 'red'" in warnings_of(tiny_task(tmp_path).file, capsys)


def test_more_labels_than_the_fit_has_time_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told with an estimate of the time; with the default budget nothing is said of a small task."""
    write_rows(tmp_path / "rows.jsonl", [f"text {i}" for i in range(4000)], [f"label {i // 2}" for i in range(4000)])
    said = warnings_of(tiny_task(tmp_path, surrogates=["blend"], fit={"folds": 5, "budget_s": 60}).file, capsys)
    assert "2,000 labels and 4,000 traces are much: comparing the surrogates takes about" in said
    assert "fit.budget_s is 60 s" in said


@pytest.mark.parametrize(
    "embedder", [{"model": "somebody/some-model"}, {"model": "somebody/some-model", "backend": "torch"}]
)
def test_an_encoder_that_is_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], embedder: dict[str, str]
) -> None:
    """The model is named; one on torch is said to be no good for a bento."""
    task = write_task(tmp_path, embedder={"type": "sentence_transformers", **embedder})
    said = warnings_of(task.file, capsys)
    assert "the model 'somebody/some-model' of sentence_transformers is not on this machine" in said
    assert ("runs on torch" in said) == ("backend" in embedder)


def test_a_server_that_has_read_another_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` warns, and the server's own health says it as well, once the file differs from what was read."""
    task = tiny_task(tmp_path)
    with listening(task) as url:
        port = httpx.URL(url).port
        assert httpx.get(f"{url.removesuffix('/v1')}/healthz").json()["problems"] == []
        task.file.write_text(f"{task.source}\nserver: {{port: {port}}}\n", encoding="utf-8")
        assert load_task(task.file).spec.server.port == port
        assert f"the server at 127.0.0.1:{port} has read its YAML before" in warnings_of(task.file, capsys)
        assert "has changed since this server read it" in str(
            httpx.get(f"{url.removesuffix('/v1')}/healthz").json()["problems"]
        )
