"""`discover` finds the tasks of a mixed log, in every format, and writes YAMLs that work."""

import csv
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI
from scipy.stats import binomtest

from tests.server.chat.conftest import listening
from tests.support.stub_llm import StubLLM
from tracer_serve.cli.main import main
from tracer_serve.config.load import Task, load_task
from tracer_serve.lifecycle.refit import refit
from tracer_serve.storage.importers.extract import label_of

DATA = Path(os.environ.get("TRACER_BENCH_DATA", "missing"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="TRACER_BENCH_DATA names no folder of benchmark data")

Call = dict[str, Any]
"""A call of the log: ``body`` and ``answer``."""


def read_rows(name: str, text: str, label: str, rows: int) -> list[tuple[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as lines:
        found = [(row[text], row[label]) for row in csv.DictReader(lines) if row[text].strip() and row[label].strip()]
    random.Random(0).shuffle(found)
    return found[:rows]


def twice(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out labels that came once: whether they are labels nobody can know."""
    labels = [label for _, label in rows]
    return [(text, label) for text, label in rows if labels.count(label) > 1]


def enum_schema(field: str, labels: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {field: {"type": "string", "enum": labels}}, "required": [field]}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def chat(*said: str, **options: Any) -> dict[str, Any]:
    roles = ["user"] if len(said) == 1 else ["system", "user"]
    messages = [{"role": role, "content": content} for role, content in zip(roles, said, strict=True)]
    return {"model": "gpt-4.1-mini", "messages": messages, "temperature": 0, **options}


def call(answer: str, *said: str, **options: Any) -> Call:
    return {"body": chat(*said, **options), "answer": answer}


def five_tasks(rows: int) -> dict[str, list[Call]]:
    """Five prompts of five kinds, with real texts and labels."""
    banking = read_rows("banking77_llm.csv", "text", "qwen3_8b", 9000)
    counts = Counter(label for _, label in banking)
    banking = twice([(text, label) for text, label in banking if counts[label] > 60][:rows])
    tweets = read_rows("moderation.csv", "text", "label", rows)
    titles = read_rows("stackoverflow_llm.csv", "text", "gold", rows)
    topics = enum_schema("topic", sorted({label for _, label in titles}))
    whole = json.loads((DATA / "clinc150_full.json").read_text(encoding="utf-8"))
    kept = sorted({label for _, label in whole["train"]})[:12]
    clinc = [(text, label) for text, label in whole["train"] if label in kept][:rows]
    intents = enum_schema("intent", sorted({label for _, label in clinc}))["json_schema"]["schema"]
    tool = {"type": "function", "function": {"name": "file", "parameters": intents}}
    scope = [(text, "yes") for text, _ in whole["oos_test"]] + [(text, "no") for text, _ in whole["test"][:1000]]
    random.Random(1).shuffle(scope)
    route = "You route messages of a bank's customers. Answer with the name of an intent."
    rude = "Is this tweet hateful, offensive or neither? One word."
    file = "Call the function with the intent of this message:"
    asked = "Is the message above out of scope for a bank's assistant? Answer yes or no."
    return {
        "banking": [call(label, route, text) for text, label in banking],
        "tweets": [call(label, f"{rude}\n\nTweet: <{text}>\n\nAnswer:") for text, label in tweets],
        "titles": [
            call(json.dumps({"topic": label}), "You tag questions.", f"Question: {text}", response_format=topics)
            for text, label in titles
        ],
        "clinc": [
            {**call(json.dumps({"intent": label}), f"{file}\n{text}", tools=[tool]), "tool": True}
            for text, label in clinc
        ],
        "scope": [call(label, f"{text}\n\n{asked}") for text, label in scope[:rows]],
    }


def other_traffic(calls: int) -> Iterator[Call]:
    """Chats, summaries, questions with short answers of their own, conversations."""
    texts = [text for text, _ in read_rows("banking77_llm.csv", "text", "gold", 13_000)]
    helpful = "You are a helpful assistant."
    for n, text in enumerate(texts[-calls:]):
        if n % 4 == 0:
            yield call(f"Dear customer, about {text} I would say " * 5, helpful, text)
        elif n % 4 == 1:
            summary = "Summarise the following message in one sentence, please:"
            yield call(f"It says that {text[:60]}", f"{summary}\n\n{text}")
        elif n % 4 == 2:
            yield call(max(text.split(), key=len) + str(n), "Extract the most important word.", text)
        else:
            talk = call("yes", helpful, text)
            before = [{"role": "user", "content": texts[n]}, {"role": "assistant", "content": "I see."}]
            talk["body"]["messages"][1:1] = before
            yield talk


def message_of(call: Call) -> dict[str, Any]:
    if call.get("tool"):
        function = {"name": "file", "arguments": call["answer"]}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        }
    return {"role": "assistant", "content": call["answer"]}


USAGE = {"prompt_tokens": 200, "completion_tokens": 5, "total_tokens": 205}


def completion_of(call: Call) -> dict[str, Any]:
    head = {"object": "chat.completion", "created": 1_760_000_000, "model": call["body"]["model"], "usage": USAGE}
    return head | {"choices": [{"index": 0, "message": message_of(call), "finish_reason": "stop"}]}


def as_openai(call: Call, n: int) -> dict[str, Any]:
    return {"request": call["body"], "response": completion_of(call) | {"created": 1_760_000_000 + 60 * n}}


def as_langfuse(call: Call, n: int) -> dict[str, Any]:
    body = dict(call["body"])
    given = {"messages": body.pop("messages")} | {k: body[k] for k in ("tools", "response_format") if k in body}
    return {
        "id": f"o{n}", "traceId": f"t{n}", "type": "GENERATION", "model": body["model"], "input": given,
        "modelParameters": {"temperature": 0}, "output": message_of(call), "usageDetails": {"input": 200, "output": 5},
        "startTime": f"2025-11-{1 + n % 5:02d}T00:00:00Z",
    }  # fmt: skip


def as_litellm(call: Call, n: int) -> dict[str, Any]:
    body = call["body"]
    options = {name: value for name, value in body.items() if name not in ("model", "messages")}
    return {
        "id": f"c{n}", "call_type": "acompletion", "status": "success", "model": body["model"],
        "messages": body["messages"], "model_parameters": options, "response": completion_of(call),
        "response_cost": 0.0002, "startTime": 1_760_000_000 + 60 * n, "prompt_tokens": 200, "completion_tokens": 5,
        "proxy_server_request": {"messages": body["messages"], "metadata": {"call": n}, "litellm_call_id": f"c{n}"},
    }  # fmt: skip


def write_log(file: Path, calls: list[Call], write: Callable[[Call, int], dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(write(call, n)) + "\n" for n, call in enumerate(calls)), encoding="utf-8")
    return file


def mixed(rows: int) -> tuple[dict[str, list[Call]], list[Call]]:
    tasks = five_tasks(rows)
    some = [call for calls in tasks.values() for call in calls]
    log = [*some, *other_traffic(round(len(some) * 0.4 / 0.6))]
    random.Random(2).shuffle(log)
    return tasks, log


@needs_data
@pytest.mark.parametrize("write", [as_openai, as_langfuse, as_litellm], ids=["openai", "langfuse", "litellm"])
def test_five_tasks_in_a_mixed_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Call, int], dict[str, Any]]
) -> None:
    """All five are found and no other, with exact prompts, labels and texts, in each format."""
    tasks, calls = mixed(150)
    log = write_log(tmp_path / "log.jsonl", calls, write)
    words = ["discover", str(log), "--no-projection", "--json", "--write", str(tmp_path / "tasks")]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calls"] == len(calls)
    assert found["refused"] == 0
    assert len(found["tasks"]) == 5
    for name, own in tasks.items():
        texts = {json.dumps(call["body"]["messages"]) for call in own}
        answers = {label_of(call["answer"]) for call in own}
        [same] = [one for one in found["tasks"] if written_calls(tmp_path / "tasks" / one["name"]) == texts]
        assert set(same["labels"]) == answers, name
        assert same["calls"] == len(own)


def test_a_schema_with_several_answers_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal, the YAML and the JSON name what else the schema asks for, since no call would be handled."""
    properties = {"intent": {"enum": ["lost", "late"]}, "group": {"enum": ["card", "post"]}, "urgent": {}}
    schema = {"type": "object", "properties": properties}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    calls = [
        call(
            json.dumps({"intent": "lost" if n % 2 else "late", "group": "card", "urgent": True}),
            "You triage messages of a bank.",
            f"Message: my card number {n} is {'away' if n % 2 else 'not here'}",
            response_format=wanted,
        )
        for n in range(40)
    ]
    log, folder = write_log(tmp_path / "log.jsonl", calls, as_openai), tmp_path / "tasks"
    assert main(["discover", str(log), "--no-projection", "--write", str(folder)]) == 0
    [file] = folder.glob("*.yaml")
    for told in (capsys.readouterr().err, file.read_text(encoding="utf-8")):
        assert "intent, group, urgent" in told
        assert "`fields`" in told
    assert main(["discover", str(log), "--no-projection", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["tasks"]
    assert found["also_asked"] == ["intent", "group", "urgent"]


def written_calls(stem: Path) -> set[str]:
    """Return the messages that a task's files ask, one for each of its texts."""
    body = json.loads(stem.with_name(f"{stem.name}.call.json").read_text(encoding="utf-8"))
    traces = map(json.loads, stem.with_name(f"{stem.name}.traces.jsonl").read_text(encoding="utf-8").splitlines())
    messages = json.dumps(body["messages"])
    return {messages.replace("{text}", json.dumps(trace["input"])[1:-1]) for trace in traces}


@needs_data
@pytest.mark.slow
def test_five_tasks_are_written_certified_and_answered(
    tmp_path: Path, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What discovery writes passes `check`, certifies, and answers an unchanged client; the rest goes upstream."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-operator")
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path / "state"))
    alpha, asked = 0.8, 60
    tasks = five_tasks(1300)
    held_out = {name: own[-asked:] for name, own in tasks.items()}
    known = [call for own in tasks.values() for call in own[:-asked]]
    log = [*known, *other_traffic(round(len(known) * 0.4 / 0.6))]
    random.Random(2).shuffle(log)
    folder = tmp_path / "tasks"
    words = ["discover", str(write_log(tmp_path / "log.jsonl", log, as_litellm)), "--no-projection"]
    assert main([*words, "--write", str(folder), "--base-url", stub_llm.url, "--alpha", f"{alpha}"]) == 0
    files = sorted(folder.glob("*.yaml"))
    assert len(files) == 5
    for file in files:
        assert main(["check", str(file)]) == 0
        spec = yaml.safe_load(file.read_text(encoding="utf-8"))
        spec["traces"]["audit_rate"] = 0.0  # the stub forgets its answers
        file.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
        task = load_task(file)
        outcome = refit(task, "start")
        assert outcome.certificate.certified, file.name
        [(name, own)] = [(name, own) for name, own in held_out.items() if is_of(file, own[0])]
        handled, agree = answered(task, stub_llm, own)
        print(f"{file.stem} ({name}): {handled} of {len(own)} handled, {agree} agree")  # noqa: T201  # the figures
        assert handled > 0.25 * len(own)
        assert binomtest(agree, handled, alpha, alternative="less").pvalue > 0.01


def is_of(file: Path, call: Call) -> bool:
    """Return whether a call is of the form that a written task records."""
    recorded = json.loads(file.with_name(f"{file.stem}.call.json").read_text(encoding="utf-8"))
    before, after = recorded["messages"][-1]["content"].split("{text}")
    (*turns, last) = call["body"]["messages"]
    said: str = last["content"]
    return bool(turns == recorded["messages"][:-1]) and said.startswith(before) and said.endswith(after)


def answered(task: Task, stub: StubLLM, calls: list[Call]) -> tuple[int, int]:
    """Ask a served task the calls of a log; return how many were handled, and how many of these agree."""
    handled = agree = 0
    with listening(task) as url, OpenAI(base_url=url, api_key="sk-of-the-caller", max_retries=0) as client:
        for call in calls:
            stub.reset()
            stub.default = label_of(call["answer"])
            got = client.chat.completions.with_raw_response.create(**call["body"])
            message: Any = got.parse().choices[0].message
            said = message.tool_calls[0].function.arguments if message.tool_calls else message.content
            if got.headers["x-tracer-decision"] == "handled":
                handled += 1
                agree += label_of(said or "") == stub.default
            else:
                assert label_of(said or "") == stub.default
                assert [seen["body"] for seen in stub.requests] == [call["body"]]
    return handled, agree
