"""Groups of imported rows: rows that are not independent share one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tracer_serve.storage.importers.importer import read_traces
from tracer_serve.storage.importers.items import ReadOptions
from tracer_serve.storage.traces import TraceStore

_ASKED = {"messages": [{"role": "user", "content": "hi"}], "model": "m"}
_ANSWER = {"choices": [{"message": {"role": "assistant", "content": "greeting"}}], "model": "m"}
_SPAN = [
    {"key": "gen_ai.input.messages", "value": {"stringValue": '[{"role": "user", "content": "hi"}]'}},
    {"key": "gen_ai.output.messages", "value": {"stringValue": '[{"role": "assistant", "content": "greeting"}]'}},
    {"key": "gen_ai.conversation.id", "value": {"stringValue": "c1"}},
]
RECORDS: list[tuple[dict[str, Any], str | None]] = [
    ({"input": "hi", "teacher": "greeting"}, None),
    ({"input": "hi", "teacher": "greeting", "user": "ann"}, "ann"),
    ({"input": "hi", "teacher": "greeting", "user": "ann", "conversation_id": "c1"}, "c1"),
    ({"input": "hi", "teacher": "greeting", "conversation_id": "c1", "metadata": {"group": "g"}}, "g"),
    ({"input": "hi", "teacher": "greeting", "group": 7}, "7"),
    ({"request": _ASKED | {"metadata": {"group": "g"}}, "response": _ANSWER}, "g"),
    ({"traceId": "t", "sessionId": "s", "userId": "ann", "input": "hi", "output": "greeting"}, "s"),
    ({"inputs": {"text": "hi"}, "outputs": {"label": "greeting"}, "extra": {"metadata": {"thread_id": "t"}}}, "t"),
    ({"attributes": _SPAN, "startTimeUnixNano": "1"}, "c1"),
]


@pytest.mark.parametrize(("record", "group"), RECORDS)
def test_a_row_has_the_group_of_its_record(tmp_path: Path, record: dict[str, Any], group: str | None) -> None:
    """`metadata.group` comes before the conversation, the conversation before the user."""
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps(record), encoding="utf-8")
    [trace] = read_traces(file, "task", ReadOptions())
    assert trace.group == group


def test_columns_have_the_groups(store: TraceStore, tmp_path: Path) -> None:
    """A columnar read gives groups as codes, -1 where a row has none."""
    file = tmp_path / "log.jsonl"
    groups = ["a", None, "b", "a"]
    lines = [{"input": f"text {i}", "teacher": "x", "group": group} for i, group in enumerate(groups)]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    store.traces.add(list(read_traces(file, store.task)))
    columns = store.traces.columns()
    assert columns.group.codes.tolist() == [0, -1, 1, 0]
    assert columns.group.values == ("a", "b")
    assert columns.form.values == columns.key.values == columns.audit_kind.values == ()
