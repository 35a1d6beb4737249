import json
from pathlib import Path
from typing import Any

import pytest

from tracer_serve.components.factory import make_teacher
from tracer_serve.components.registry import teachers
from tracer_serve.config.load import load_task
from tracer_serve.errors import TeacherError, TracerServeError
from tracer_serve.types import Text

pytestmark = pytest.mark.anyio
ROWS: list[tuple[Any, str]] = [("Where is my card?", "card_arrival"), ("My card was stolen", "lost_card")]


def jsonl(file: Path, rows: list[tuple[Any, str]], text: str = "input", label: str = "teacher") -> Path:
    file.write_text("".join(json.dumps({text: x, label: y}) + "\n" for x, y in rows), encoding="utf-8")
    return file


async def ask(text: Text, **params: Any) -> str:
    return (await teachers.build("offline", params).label(text)).label


async def test_known_and_nearest(tmp_path: Path) -> None:
    """A known text gets its label, an unknown one the label of the text that looks most like it."""
    file = jsonl(tmp_path / "a.jsonl", [*ROWS, ("my card was stolen", "other_case")])
    assert await ask("My card was stolen", file=file) == "lost_card"
    assert await ask("my card was stolen", file=file) == "other_case"
    assert await ask("Where's the card now?", file=file) == "card_arrival"


async def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    """A teacher made after its file was written to knows the new rows, and has another fingerprint."""
    file = jsonl(tmp_path / "a.jsonl", ROWS)
    before = teachers.build("offline", {"file": file})
    jsonl(file, [(ROWS[0][0], "delivery"), ROWS[1]])
    after = teachers.build("offline", {"file": file})
    assert (await after.label(ROWS[0][0])).label == "delivery"
    assert after.fingerprint != before.fingerprint
    assert teachers.build("offline", {"file": file}).fingerprint == after.fingerprint


async def test_nothing_in_common(tmp_path: Path) -> None:
    """A text that resembles nothing known is an error, not a guess."""
    with pytest.raises(TeacherError) as caught:
        await ask("zzz", file=jsonl(tmp_path / "a.jsonl", ROWS))
    assert caught.value.reason == "unknown_label"


async def test_several_files_from_a_yaml(tmp_path: Path) -> None:
    """Files in the YAML are relative to it, JSONL and CSV mix, and the later row of a text counts."""
    jsonl(tmp_path / "a.jsonl", ROWS, "query", "intent")
    (tmp_path / "b.csv").write_text('\ufefftext,category\n"Where is my card?",delivery\n', encoding="utf-8")
    task = tmp_path / "task.yaml"
    task.write_text("name: x\nteacher: {type: offline, file: [a.jsonl, b.csv]}\n")
    teacher = make_teacher(load_task(task))
    labels = [(await teacher.label(text)).label for text, _ in ROWS]
    assert labels == ["delivery", "lost_card"]


async def test_pairs(tmp_path: Path) -> None:
    """A list of two texts is a pair."""
    file = jsonl(tmp_path / "a.jsonl", [(["A dog runs", "A cat sits"], "neutral"), (["A", "A"], "same")])
    assert await ask(("A dog runs", "A cat sits"), file=file) == "neutral"
    assert await ask(("A dog ran", "A cat sat"), file=file) == "neutral"


async def test_estimates_cost(tmp_path: Path) -> None:
    """With a price an answer costs what its estimated tokens would."""
    params = {"file": jsonl(tmp_path / "a.jsonl", ROWS), "latency_ms": 1}
    teacher = teachers.build("offline", {**params, "price": {"prompt_per_1m": 1e6, "completion_per_1m": 0}})
    answer = await teacher.label("My card was stolen")
    assert answer.cost == answer.usage["prompt_tokens"] > 0
    assert answer.latency_ms >= 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"input": "x", "label": "a"}\n{oops\n', r"a\.jsonl.*2: malformed JSON"),
        (b'{"input": "x", "label": "zebra"}\n', r"a\.jsonl.*1: label 'zebra' is not in"),
        (b"\n", r"a\.jsonl: no labelled text"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path: Path, content: bytes, problem: str) -> None:
    """A file that cannot be used is refused when the teacher is made, with file and line."""
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(TracerServeError, match=problem):
        teachers.build("offline", {"file": tmp_path / "a.jsonl", "labels": ("a", "b")})


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    """The order and the name of the file leave it the same teacher, another label makes it another."""
    prints = [
        teachers.build("offline", {"file": jsonl(tmp_path / f"{i}.jsonl", rows)}).fingerprint
        for i, rows in enumerate([ROWS, ROWS[::-1], [*ROWS[:1], ("My card was stolen", "other")]])
    ]
    assert prints[0] == prints[1] != prints[2]
