"""A teacher that asks a recorded call asks exactly that call."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM
from tracer_serve.components.registry import teachers
from tracer_serve.errors import PluginError

pytestmark = pytest.mark.anyio
SCHEMA = {"type": "object", "properties": {"mood": {"enum": ["sad", "glad"]}, "confidence": {"type": "number"}}}
BODY: dict[str, Any] = {
    "model": "stub-1",
    "messages": [{"role": "system", "content": "Judge {this}."}, {"role": "user", "content": "Text: {text}\n{end}"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA}},
    "seed": 38,
    "temperature": 0.5,
}


def recorded(folder: Path, body: dict[str, Any]) -> Path:
    file = folder / "call.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    return file


async def test_the_call_is_asked_as_it_was_recorded(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Messages and all other fields are the file's, the text is in its place, the label is read from its field."""
    stub_llm.default = "glad"
    params = {"model": "stub-1", "base_url": stub_llm.url, "request": str(recorded(tmp_path, BODY))}
    teacher = teachers.build("openai", params, {"labels": ("sad", "glad")})
    try:
        answer = await teacher.label("what a {text} day")
    finally:
        await teacher.close()
    messages = [BODY["messages"][0], {"role": "user", "content": "Text: what a {text} day\n{end}"}]
    assert stub_llm.requests[0]["body"] == BODY | {"messages": messages}
    assert answer.label == "glad"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (BODY | {"messages": BODY["messages"][:1]}, "once in its last message"),
        ({"model": "m"}, "has no messages"),
        (BODY | {"messages": [{"role": "user", "content": "{text} {text}"}]}, "once in its last message"),
    ],
)
def test_a_file_that_is_no_call(tmp_path: Path, body: dict[str, Any], says: str) -> None:
    """The error names the parameter, the file, and what is missing."""
    file = recorded(tmp_path, body)
    with pytest.raises(PluginError, match=says):
        teachers.build("openai", {"model": "m", "request": str(file)}, {})
    with pytest.raises(PluginError, match="give one of them"):
        teachers.build("openai", {"model": "m", "request": str(file), "prompt": "x"}, {})
