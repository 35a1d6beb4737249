"""A task with several fields from its traces to its answers: import, fit, classify, collect, report."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import BaseModel

import tracer_serve as ts
from tests.server.chat.conftest import running_app
from tests.support.tasks import banking
from tracer_serve.cli.main import main
from tracer_serve.errors import TeacherError
from tracer_serve.server.app import make_app

ROWS = 500


class Said(BaseModel):
    """What the caller's function returns."""

    about: str
    question: bool
    tags: list[str]


def answer(text: str) -> dict[str, object]:
    """Return what the teacher says of a text."""
    found = [word for word in ("card", "transfer", "account") if word in text.lower()]
    about = "money" if any(word in text.lower() for word in ("transfer", "charge", "fee", "rate")) else "other"
    return {"about": about, "question": text.endswith("?"), "tags": found}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a task, with its traces beside it."""
    folder = tmp_path_factory.mktemp("fields")
    lines = [json.dumps({"input": text, "teacher": answer(text)}) for text in banking(ROWS)[0]]
    (folder / "traces.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = {
        "name": "several",
        "fields": {
            "about": {"labels": ["money", "other"]},
            "question": {"type": "boolean"},
            "tags": {"type": "tags", "labels": ["card", "transfer", "account"]},
        },
        "surrogates": ["logreg"],
        "gate": {"alpha": 0.8, "delta": 0.1, "group_by": "duplicate"},
        "fit": {"folds": 4},
        "teacher": {"type": "offline", "file": ["traces.jsonl"]},
        "traces": {"import": ["traces.jsonl"], "audit_rate": 0.0},
        "state": str(folder / "state"),
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder / "task.yaml"


@pytest.fixture(scope="module")
def fitted(file: Path) -> Iterator[ts.LocalTask]:
    with ts.load(file) as loaded:
        assert loaded.fit().certificate.certified
        yield loaded


def test_whole_answers_are_classified_and_reported(fitted: ts.LocalTask) -> None:
    """Handled texts get all fields, mostly the teacher's; the report has a row per field."""
    texts = banking(900)[0][ROWS:]
    found = fitted.classify(texts)
    handled = [(text, one) for text, one in zip(texts, found, strict=True) if one.decision == "handled"]
    assert len(handled) > 0.2 * len(texts)
    right = [one.fields == answer(text) | {"tags": sorted(answer(text)["tags"])} for text, one in handled]  # type: ignore[call-overload]
    assert sum(right) / len(right) > 0.75
    assert {row["field"] for row in fitted.report().data["fields"]["rows"]} == {"about", "question", "tags"}


def test_objects_and_models_become_traces(fitted: ts.LocalTask) -> None:
    """A fallback may return a mapping, a watched function a pydantic model; half an answer is refused."""
    assert json.loads(fitted.route("zzyzx qwxyz", fallback=answer)) == answer("zzyzx qwxyz")

    @ts.watch(fitted)
    def ask(text: str) -> Said:
        return Said.model_validate(answer(text))

    assert ask("Where is my card?").tags == ["card"]
    with pytest.raises(TeacherError, match="'question'"):
        fitted.record("a text", {"about": "other"})


def test_the_server_explains_each_field(fitted: ts.LocalTask) -> None:
    """An explanation names the value of each field with its probability."""
    with running_app(make_app(fitted.task, schedule=False)) as url:
        found = httpx.post(f"{url}/v1/explain", json={"input": "Where is my card?"}).json()
    assert [(one["member"], one["label"]) for one in found["members"]][1] == ("question", "true")
    assert len(found["members"]) == 3


def test_a_file_is_classified_with_whole_answers(fitted: ts.LocalTask, tmp_path: Path) -> None:
    """A handled line has the answer as JSON."""
    (tmp_path / "in.jsonl").write_text(
        "\n".join(json.dumps({"input": text}) for text in banking(600)[0][ROWS:]) + "\n", encoding="utf-8"
    )
    out = tmp_path / "out.jsonl"
    assert main(["classify", str(fitted.task.file), str(tmp_path / "in.jsonl"), str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    labels = [json.loads(row["tracer_label"]) for row in rows if row["tracer_decision"] == "handled"]
    assert labels
    assert all(set(label) == {"about", "question", "tags"} for label in labels)


def test_check_names_the_surrogate(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The traces are valid answers of the task."""
    assert main(["check", str(file)]) == 0
    assert "logreg per field" in capsys.readouterr().out


@pytest.mark.slow
def test_a_scan_reads_the_fields(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`scan` says what leaving a field out would give."""
    assert main(["scan", str(file.with_name("traces.jsonl")), "--task", str(file)]) == 0
    assert "coverage without it" in " ".join(capsys.readouterr().out.split())
