"""Tests of the stub LLM server that the other tests rely on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stub_llm import NONSENSE, StubLLM, read_labels

MESSAGES = [{"role": "system", "content": "Classify."}, {"role": "user", "content": "Where is my card?"}]
SCHEMA = {"type": "object", "properties": {"why": {"type": "string"}, "label": {"type": "string", "enum": ["a", "b"]}}}


def chat(stub: StubLLM, **body: Any) -> httpx.Response:
    stub.labels = {"Where is my card?": "a"}
    return httpx.post(f"{stub.url}/chat/completions", json={"model": "m", "messages": MESSAGES, **body}, timeout=20)


def test_answers_in_the_shape_asked_for(stub_llm: StubLLM) -> None:
    """The label comes bare, in the JSON schema's enum, or as a tool call's argument."""
    bare = chat(stub_llm).json()["choices"][0]
    assert (bare["message"]["content"], bare["finish_reason"]) == ("a", "stop")
    schema = chat(stub_llm, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})
    assert json.loads(schema.json()["choices"][0]["message"]["content"]) == {"why": "", "label": "a"}
    tool = chat(stub_llm, tools=[{"type": "function", "function": {"name": "set", "parameters": SCHEMA}}])
    (call,) = tool.json()["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["label"] == "a"


def test_streams(stub_llm: StubLLM) -> None:
    """A stream's pieces make the answer, with usage and an end."""
    stub_llm.default = "a long label"
    body = {"stream": True, "stream_options": {"include_usage": True}}
    response = chat(stub_llm, **body, messages=[{"role": "user", "content": "unheard of"}])
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    chunks = [json.loads(line) for line in lines[:-1]]
    assert "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"]) == "a long label"
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert lines[-1] == "[DONE]"


def test_finds_the_text_inside_a_template(stub_llm: StubLLM) -> None:
    """The longest known text inside the message counts; an unknown one gets nonsense."""
    stub_llm.labels = {"card": "short", "my card is gone": "long", ("left", "right"): "pair"}
    assert stub_llm.answer("Text: my card is gone. Label:") == "long"
    assert stub_llm.answer("1: left 2: right") == "pair"
    assert stub_llm.answer("hello") == NONSENSE


def test_faults_by_header_and_by_control(stub_llm: StubLLM) -> None:
    """Faults come on command: for one request, as a script, or as a share."""
    root = stub_llm.url.removesuffix("/v1")
    one = httpx.get(f"{stub_llm.url}/models", headers={"x-stub-fault": "ok"})
    assert one.json()["data"][0]["id"] == "stub-1"
    httpx.post(f"{root}/control", json={"script": ["429"], "share": 1.0, "kinds": ["500"], "retry_after": "9"})
    assert [(r.status_code, r.headers.get("retry-after")) for r in (chat(stub_llm), chat(stub_llm))] == [
        (429, "9"),
        (500, None),
    ]
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{stub_llm.url}/chat/completions", json={}, headers={"x-stub-fault": "reset"})
    assert httpx.post(f"{root}/control", json={"share": 0.0}).json()["count"] == 4
    assert chat(stub_llm).status_code == 200


def test_embeds(stub_llm: StubLLM) -> None:
    """Equal texts have equal unit vectors, in order."""
    response = httpx.post(f"{stub_llm.url}/embeddings", json={"model": "e", "input": ["a b", "c", "a b"]})
    first, second, third = (row["embedding"] for row in response.json()["data"])
    assert first == third != second
    assert sum(x * x for x in first) == pytest.approx(1.0)


def test_runs_from_the_command_line(tmp_path: Path) -> None:
    """It reads CSV and JSONL, prints its URL and answers."""
    (tmp_path / "a.jsonl").write_text('{"input": "hello", "teacher": "greeting"}\n')
    (tmp_path / "a.csv").write_text("text,label\nhello,greeting\n")
    assert read_labels(tmp_path / "a.jsonl") == read_labels(tmp_path / "a.csv") == {"hello": "greeting"}
    command = [sys.executable, "-m", "tests.support.stub_llm", "--labels", str(tmp_path / "a.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        response = httpx.post(f"{url}/chat/completions", json=body, timeout=20)
        process.terminate()
    assert response.json()["choices"][0]["message"]["content"] == "greeting"
