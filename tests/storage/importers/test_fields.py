"""Answers with several fields come out of every shape of log."""

import json
from pathlib import Path
from typing import Any

import pytest

from tracer_serve.config.fields import AnswerFields, FieldSpec
from tracer_serve.errors import ImportFileError
from tracer_serve.storage.importers import ReadOptions, read_traces

FIELDS = AnswerFields(
    {
        "intent": FieldSpec(labels=("card_lost", "other")),
        "urgent": FieldSpec(type="boolean"),
        "tags": FieldSpec(type="tags", labels=("fraud", "vip")),
        "why": FieldSpec(type="text"),
    }
)
READING = ReadOptions(fields=FIELDS)
ANSWER = {"urgent": True, "tags": ["VIP", "fraud"], "intent": "card_lost", "why": "it says so"}
LABEL = '{"intent":"card_lost","tags":["fraud","vip"],"urgent":true}'
SAID = json.dumps(ANSWER)
CALLED = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": SAID}}]}
ASKED = [{"role": "user", "content": "gone"}]


@pytest.mark.parametrize(
    "record",
    [
        {"input": "gone", "teacher": ANSWER},
        {"input": "gone", "teacher": SAID},
        {"input": "gone", "output": f"```json\n{SAID}\n```"},
        {"text": "gone", **ANSWER},
        {"messages": [*ASKED, {"role": "assistant", "content": SAID}]},
        {"messages": [*ASKED, CALLED]},
        {"request": {"messages": ASKED}, "response": {"choices": [{"message": CALLED}]}},
        {"inputs": {"input": "gone"}, "outputs": ANSWER},
    ],
)
def test_the_fields_of_an_answer_are_its_label(tmp_path: Path, record: dict[str, Any]) -> None:
    """An object, JSON in a string, a tool call and a column per field give the same label."""
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps(record) + "\n", encoding="utf-8")
    (trace,) = read_traces(file, "t", READING)
    assert (trace.input, trace.teacher_label) == ("gone", LABEL)


def test_a_table_has_a_column_per_field(tmp_path: Path) -> None:
    """The cells of a CSV are read as the types of the fields."""
    file = tmp_path / "log.csv"
    file.write_text('text,intent,urgent,tags\ngone,card_lost,True,"[""vip"", ""fraud""]"\n', encoding="utf-8")
    (trace,) = read_traces(file, "t", READING)
    assert trace.teacher_label == LABEL


def test_an_answer_without_a_field_is_refused_by_name(tmp_path: Path) -> None:
    """A line that lacks a certified field names it, and the line."""
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps({"input": "gone", "teacher": {"intent": "other", "urgent": True}}), encoding="utf-8")
    with pytest.raises(ImportFileError, match="line 1: the answer has no field 'tags'"):
        list(read_traces(file, "t", READING))
