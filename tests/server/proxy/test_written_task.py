"""A task that discovery wrote passes `check`, fits, certifies, and answers the clients that it was found from."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI

from tests.server.chat.conftest import listening
from tests.support.stub_llm import StubLLM
from tests.support.tasks import banking
from tracer_serve.cli.main import main
from tracer_serve.config.load import load_task
from tracer_serve.lifecycle.refit import refit

TEXTS, LABELS = banking()
ASK, END = "Which intent does the customer's message have?\n\nMessage: <", ">\n\nAnswer in JSON."


def call(text: str) -> dict[str, Any]:
    properties = {"intent": {"type": "string", "enum": sorted(set(LABELS))}, "confidence": {"type": "number"}}
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    messages = [{"role": "user", "content": f"{ASK}{text}{END}"}]
    return {"model": "stub-1", "messages": messages, "response_format": wanted, "temperature": 0}


def log_line(text: str, label: str) -> str:
    said = json.dumps({"intent": label, "confidence": 0.9})
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    answer = {"object": "chat.completion", "created": 1_760_000_000, "model": "stub-1", "choices": [choice]}
    return json.dumps({"request": call(text), "response": answer}) + "\n"


def test_it_answers_the_calls_that_it_was_found_from(
    tmp_path: Path, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handled calls agree at least alpha, in the caller's schema; the rest reach the LLM as they were sent."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-operator")
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path / "state"))
    stub_llm.labels = dict(zip(TEXTS, LABELS, strict=True))
    log, tasks = tmp_path / "log.jsonl", tmp_path / "tasks"
    known = 900
    log.write_text("".join(map(log_line, TEXTS[:known], LABELS[:known])), encoding="utf-8")
    words = ["--write", str(tasks), "--base-url", stub_llm.url, "--alpha", "0.8", "--no-projection"]
    assert main(["discover", str(log), *words]) == 0
    file = tasks / "intent.yaml"
    quick = {
        "surrogates": ["logreg"],
        "acceptors": ["top1"],
        "fit": {"folds": 4},
        "traces": {"audit_rate": 0.0, "import": ["intent.traces.jsonl"]},
    }
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text(encoding="utf-8")) | quick), encoding="utf-8")
    assert main(["check", str(file)]) == 0
    task = load_task(file)
    assert refit(task, "start").certificate.certified
    handled = agree = 0
    asked = dict(zip(TEXTS[known : known + 150], LABELS[known : known + 150], strict=True))
    with listening(task) as url, OpenAI(base_url=url, api_key="sk-of-the-caller", max_retries=0) as client:
        for text, label in asked.items():
            before = stub_llm.count
            got = client.chat.completions.with_raw_response.create(**call(text))
            said = json.loads(got.parse().choices[0].message.content or "")
            if got.headers["x-tracer-decision"] == "handled":
                assert set(said) == {"intent", "confidence"}
                assert 0 <= said["confidence"] <= 1
                handled += 1
                agree += said["intent"] == label
            else:
                assert stub_llm.requests[-1]["body"] == call(text)
                assert (said["intent"], stub_llm.count) == (label, before + 1)
        shuffled = call(TEXTS[known])
        shuffled["messages"][0]["content"] = f"Another prompt. {ASK}{TEXTS[known]}{END}"
        other = client.chat.completions.with_raw_response.create(**shuffled)
    assert handled > 30
    assert agree >= 0.8 * handled
    assert other.headers["x-tracer-decision"] != "handled"


def responses_call(text: str) -> dict[str, Any]:
    chat = call(text)
    wanted = {"type": "json_schema", **chat["response_format"]["json_schema"]}
    body = {"model": "stub-1", "instructions": "Sort.", "input": f"{ASK}{text}{END}", "text": {"format": wanted}}
    return {**body, "temperature": 0}


def test_calls_of_the_responses_api_are_recognised_as_they_were_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher asks by chat completion; the form is the found call's, so `check --request` knows the next one."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-operator")

    def line(text: str, label: str) -> str:
        part = {"type": "output_text", "text": json.dumps({"intent": label, "confidence": 0.9}), "annotations": []}
        item = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
        answer = {"object": "response", "created_at": 1_760_000_000, "model": "stub-1", "output": [item]}
        return json.dumps({"request": responses_call(text), "response": answer}) + "\n"

    log, tasks, body = tmp_path / "log.jsonl", tmp_path / "tasks", tmp_path / "body.json"
    log.write_text("".join(map(line, TEXTS[:300], LABELS[:300])), encoding="utf-8")
    assert main(["discover", str(log), "--write", str(tasks), "--no-projection"]) == 0
    body.write_text(json.dumps(responses_call(TEXTS[301])), encoding="utf-8")
    assert main(["check", str(tasks / "intent.yaml"), "--request", str(body)]) == 0
    assert "recognised as observed" in capsys.readouterr().out
