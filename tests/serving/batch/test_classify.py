"""`tracer-serve classify` on a fitted task: the real command, real files, the real store."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM
from tests.support.tiny import LABELS, TEXTS, tiny_task
from tracer_serve.cli.main import main
from tracer_serve.components.factory import make_embedder
from tracer_serve.config.load import Task
from tracer_serve.errors import BadInputError
from tracer_serve.lifecycle.gate_state.closing import close_gate
from tracer_serve.policy.policy import Policy
from tracer_serve.serving.batch import open_sink
from tracer_serve.serving.batch.output_files import ADDED
from tracer_serve.storage.versions.opening import open_versions, store_of

INPUTS = [f"{text} {end}" for end in ("again", "xylophone quartz", "") for text in TEXTS] + ["nothing of all that"] * 3


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A task with a certified version."""
    task = tiny_task(tmp_path_factory.mktemp("tiny"))
    assert main(["fit", str(task.file)]) == 0
    return task


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The inputs, with two lines that hold no text."""
    file = tmp_path / "in.jsonl"
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(INPUTS)]
    file.write_text("\n".join([*lines, "{broken", '{"id": -1}']) + "\n", encoding="utf-8")
    return file


def classify(task: Task, *words: object) -> int:
    """Run the command."""
    return main(["classify", str(task.file), *map(str, words)])


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Read JSONL."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_decisions_are_the_policys_in_the_files_order(task: Task, source: Path, tmp_path: Path) -> None:
    """Every row keeps its fields and has the label and the reason that the policy gives its text alone."""
    out = tmp_path / "out.jsonl"
    assert classify(task, source, out, "--batch", 50) == 0
    rows, versions = rows_of(out), open_versions(task)
    policy = Policy.load(versions.folder(1) / "model", make_embedder(task))
    assert len(rows) == len(INPUTS) + 2
    for i, (row, text) in enumerate(zip(rows, INPUTS, strict=False)):
        (verdict,) = policy.decide([text])
        assert (row["id"], row["text"], row["tracer_line"], row["tracer_version"]) == (i, text, i + 1, 1)
        assert row["tracer_decision"] == ("handled" if verdict.handled else "deferred")
        assert row["tracer_label"] == (verdict.label if verdict.handled else None)
        assert row["tracer_reason"] == verdict.reason
        assert row["tracer_score"] == pytest.approx(verdict.score, abs=1e-6)
    assert {row["tracer_decision"] for row in rows[:-2]} == {"handled", "deferred"}
    assert [row["tracer_decision"] for row in rows[-2:]] == ["refused", "refused"]
    assert "no text" in rows[-1]["tracer_reason"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_interrupted_anywhere_it_continues_to_the_same_output(
    task: Task, source: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that stopped behind a batch, with a torn one after it, ends in the file of a run that never stopped."""
    whole, torn = tmp_path / f"whole.{ending}", tmp_path / f"torn.{ending}"
    assert classify(task, source, whole, "--batch", 40) == 0
    sink = open_sink(torn, source, {"task": "tiny", "text_field": []})
    rows = rows_as_written(whole)
    sink.write(rows[:40])
    if ending == "parquet":
        (sink.partial / "000001.parquet").write_bytes(b"torn")
    else:
        with sink.partial.open("ab") as stream:
            stream.write(b'{"id": 40, "te')
    capsys.readouterr()
    assert classify(task, source, torn, "--batch", 40, "--json") == 0
    assert json.loads(capsys.readouterr().out)["continued_at"] == 40
    assert rows_as_written(torn) == rows_as_written(whole)
    if ending != "parquet":
        assert torn.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("size", ["0", "-1"])
def test_a_batch_of_nothing_is_refused(task: Task, source: Path, tmp_path: Path, size: str) -> None:
    """It would read nothing, and call an empty output whole."""
    with pytest.raises(SystemExit):
        classify(task, source, tmp_path / "out.jsonl", f"--batch={size}")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("stopped_before", ["unlink", "rmtree"])
def test_stopped_at_its_very_end_it_makes_the_whole_output_again(
    source: Path, tmp_path: Path, ending: str, stopped_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the output was there and its progress not yet cleared away, a run after `rm` has every row once more."""
    out, rows = tmp_path / f"out.{ending}", [{"id": i, **dict.fromkeys(ADDED)} for i in range(3)]

    def run() -> None:
        sink = open_sink(out, source, {})
        sink.write(rows[sink.rows :])
        sink.finish()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping, suppress(KeyboardInterrupt):
        stopping.setattr(*{"unlink": (Path, "unlink", stop), "rmtree": (shutil, "rmtree", stop)}[stopped_before])
        run()
    out.unlink()
    run()
    assert [int(row["id"]) for row in rows_as_written(out)] == [0, 1, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", out.name]


def test_parquet_loses_no_field_and_no_digit(source: Path, tmp_path: Path) -> None:
    """Fields that come up in the first batch are columns, half a character is kept; what no longer fits is refused."""
    pytest.importorskip("pyarrow")
    ours = dict.fromkeys(ADDED)
    odd: dict[str, Any]
    sink = open_sink(tmp_path / "out.parquet", source, {})
    sink.write([{"a": 1, "t": "x\ud83d", **ours}, {"a": 2, "b": {"c": 1}, **ours}])
    for odd in ({"a": 1.5}, {"new": 1}, {"b": {"c": 1, "d": 2}}, {"a": 2**70}, {"b": {}, "e": {}}):
        with pytest.raises(BadInputError, match="write JSONL"):
            sink.write([{**odd, **ours}])
    sink.write([{"a": None, **ours}])
    sink.finish()
    rows = [{name: row[name] for name in ("a", "t", "b")} for row in rows_as_written(tmp_path / "out.parquet")]
    assert rows == [
        {"a": 1, "t": "x\\ud83d", "b": None},
        {"a": 2, "t": None, "b": {"c": 1}},
        {"a": None, "t": None, "b": None},
    ]


def rows_as_written(file: Path) -> list[dict[str, Any]]:
    """Read any of the three kinds, numbers as numbers."""
    if file.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return list(parquet.read_table(file).to_pylist())
    if file.suffix == ".jsonl":
        return rows_of(file)
    with file.open(encoding="utf-8", newline="") as stream:
        rows: list[dict[str, Any]] = list(csv.DictReader(stream))
    return rows


def test_the_teacher_labels_what_is_deferred_and_every_row_becomes_a_trace(tmp_path: Path) -> None:
    """With --teacher no text is without a label, and the store has gained a row for each."""
    task = tiny_task(tmp_path)
    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    assert classify(task, source, out, "--teacher", "--batch", 16) == 0
    rows = rows_of(out)
    assert [row["tracer_label"] for row in rows] == LABELS
    assert {row["tracer_reason"] for row in rows} == {"no_version"}
    store = store_of(task)
    assert sum(1 for _ in store.traces.labelled()) == len(TEXTS)
    store.close()


def test_an_outage_costs_no_answer_that_was_paid_for(tmp_path: Path, stub_llm: StubLLM) -> None:
    """What the teacher said before it went down is in the partial output, and is not asked for again."""
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1", "retries": 0, "max_concurrency": 1}
    task = tiny_task(tmp_path, teacher=teacher, labels=["red", "blue"])
    stub_llm.labels = dict(zip(TEXTS, LABELS, strict=True))
    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    stub_llm.script.extend(["ok"] * 10 + ["500"] * 6)
    assert classify(task, source, out, "--teacher") == 1
    assert len(rows_of(out.with_name("out.jsonl.partial"))) == 10
    asked = stub_llm.count
    stub_llm.script.clear()
    assert classify(task, source, out, "--teacher") == 0
    assert [row["tracer_label"] for row in rows_of(out)] == LABELS
    assert stub_llm.count - asked == len(TEXTS) - 10


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_behind_its_batch_and_goes_on(task: Task, tmp_path: Path, sent: signal.Signals) -> None:
    """It does not classify the rest of the file first, and what it has is where the same command goes on."""
    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("text\n" + "\n".join(TEXTS * 2_000) + "\n", encoding="utf-8")
    words = [sys.executable, "-m", "tracer_serve", "classify", str(task.file), str(source), str(out)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore ctrl-c
    with subprocess.Popen([*words, "--batch", "64"], stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("classifying")
        process.send_signal(sent)
        process.communicate()
    assert process.returncode == 128 + sent
    assert not out.exists()
    begun = open_sink(out, source, {"task": "tiny", "text_field": []}).rows
    assert 0 < begun < len(TEXTS) * 2_000


def test_a_closed_gate_defers_everything(tmp_path: Path) -> None:
    """After the monitor's alarm no certified label is given, offline as over HTTP."""
    task = tiny_task(tmp_path)
    assert main(["fit", str(tmp_path / "task.yaml")]) == 0
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    store = store_of(task)
    close_gate(store, 1, 50, 20, 1e6)
    store.close()
    assert classify(task, source, out) == 0
    rows = rows_as_written(out)
    assert {row["tracer_decision"] for row in rows} == {"deferred"}
    assert "gate_closed" in {row["tracer_reason"] for row in rows}
    assert {row["tracer_label"] for row in rows} == {""}


def test_a_canary_is_drawn_for_each_row_of_a_file(tmp_path: Path) -> None:
    """Each row has its own draw, and rows of one user share its fate: one batch holds both outcomes, near the share."""
    task = tiny_task(tmp_path)
    assert main(["fit", str(tmp_path / "task.yaml")]) == 0
    task = tiny_task(tmp_path, mode="canary", canary=0.5)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    users = [None] * 400 + [f"user-{i % 20}" for i in range(400)]
    rows = [{"text": TEXTS[i % len(TEXTS)], **({"user": user} if user else {})} for i, user in enumerate(users)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert classify(task, source, out) == 0
    found = [(row.get("user"), row["tracer_reason"]) for row in rows_of(out)]
    anonymous = [reason for user, reason in found if user is None]
    assert {*anonymous} == {"certified", "canary"}
    assert abs(anonymous.count("canary") - 200) < 5 * 10  # five standard deviations
    assert len({(user, reason) for user, reason in found if user is not None}) == 20


def test_nothing_is_overwritten_and_each_error_says_how_to_go_on(
    task: Task, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole output, one begun from a file that changed, an unknown ending, a missing version: clear errors."""
    out = tmp_path / "out.jsonl"
    out.write_text("mine", encoding="utf-8")
    assert classify(task, source, out) == 1
    assert f"rm {out}" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "mine"
    begun = tmp_path / "begun.jsonl"
    open_sink(begun, source, {"task": "tiny", "text_field": []}).write([{"id": 0, "tracer_line": 1}])
    with source.open("a", encoding="utf-8") as stream:
        stream.write('{"text": "one more"}\n')
    assert classify(task, source, begun) == 1
    assert "changed since" in capsys.readouterr().err
    assert classify(task, source, tmp_path / "out.xlsx") == 1
    assert ".parquet" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    bare = tiny_task(tmp_path / "bare")
    assert classify(bare, source, tmp_path / "none.jsonl") == 1
    assert "tracer-serve fit" in capsys.readouterr().err
    assert classify(task, tmp_path / "missing.jsonl", tmp_path / "none.jsonl") == 1
    assert "no such file" in capsys.readouterr().err


def test_a_file_whose_every_row_is_refused_is_no_success(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows come out with their reasons, and the exit code is 1; one row that is answered makes it 0."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": ""}\n{"text": "  "}\n', encoding="utf-8")
    assert classify(task, source, out) == 1
    assert [row["tracer_decision"] for row in rows_of(out)] == ["refused"] * 2
    assert "--text-field" in capsys.readouterr().err
    source.write_text('{"text": ""}\n' + json.dumps({"text": INPUTS[0]}) + "\n", encoding="utf-8")
    assert classify(task, source, tmp_path / "other.jsonl") == 0
