"""Which calls a certified task answers, with OpenAI's client: calls of unknown forms are forwarded."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.server.chat.conftest import closed_later, listening
from tests.server.worlds import DEFERRED, HANDLED, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.cli.commands.check import check_request
from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.config.load import Task
from tracer_serve.server.chat.recognise import Recogniser, TaskCall
from tracer_serve.server.dashboard.status import status_of

MakeTask = Callable[..., Task]
ENUM: dict[str, Any] = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": ENUM}}
TALKATIVE: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            **ENUM,
            "properties": ENUM["properties"] | {"reasoning": {"type": "string"}},
            "required": ["reasoning"],
        },
    },
}
INSTRUCTION = "Look at the following text, think about its colour, and reply with one word only. The text is: "
PLAIN: Any = {"role": "user", "content": HANDLED}
OWN = Prompt(None, ["blue", "red"], {}).messages(HANDLED)
SHOTS = [{"role": "user", "content": "grass"}, {"role": "assistant", "content": "blue"}]
PICTURE = [{"type": "text", "text": HANDLED}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


@pytest.mark.parametrize(
    ("messages", "options", "reason"),
    [
        ([{"role": "user", "content": INSTRUCTION + HANDLED}], {"response_format": FORMAT}, "unknown_prompt"),
        ([PLAIN], {"response_format": FORMAT}, "unknown_prompt"),
        (
            [{"role": "system", "content": "Reply with the label that is LEAST fitting."}, PLAIN],
            {"response_format": FORMAT},
            "unknown_prompt",
        ),
        ([OWN[0], *SHOTS, PLAIN], {}, "earlier_turns"),
        ([{"role": "user", "content": f"grass: blue\n{HANDLED}:"}], {"response_format": FORMAT}, "unknown_prompt"),
        (OWN, {"model": "gpt-4.1-mini"}, "unknown_model"),
        (OWN, {"response_format": TALKATIVE}, "unknown_options"),
        (OWN, {"n": 2}, "unknown_options"),
        ([{"role": "user", "content": PICTURE}], {}, "unsupported_content"),
    ],
)
def test_a_call_of_an_unknown_form_is_forwarded_with_its_reason(
    task: MakeTask, stub_llm: StubLLM, messages: Any, options: dict[str, Any], reason: str
) -> None:
    """Upstream gets the call as it came, and the caller upstream's answer; no row is written."""
    spec = task()
    make_version(spec)
    stub_llm.default = "blue"
    with listening(spec) as url:
        client = closed_later(OpenAI(base_url=url, api_key="none", max_retries=0))
        asked = {"model": "stub-1", "messages": messages} | options
        raw = client.chat.completions.with_raw_response.create(**asked)
    assert (raw.headers["x-tracer-decision"], raw.headers["x-tracer-reason"]) == ("forwarded", reason)
    assert stub_llm.requests[-1]["body"] == asked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.anyio
async def test_a_deferred_call_goes_upstream_as_it_came_and_its_label_is_learned(
    task: MakeTask, stub_llm: StubLLM, stream: bool
) -> None:
    """With the caller's own prompt, model and parameters; the trace has the form, the label and the tokens."""
    form = {"name": "app", "prompt": "Colour of {text}?", "model": "other", "options": {"response_format": FORMAT}}
    spec = task(forms=[form])
    make_version(spec)
    stub_llm.default = "blue"
    message = {"role": "user", "content": f"Colour of {HANDLED}?"}
    body = {"model": "other", "messages": [message], "response_format": FORMAT, "stream": stream, "seed": 3}
    async with serving(spec) as (client, runtime):
        answer = await client.post("/v1/chat/completions", json=body)
        (known,) = [form for form in runtime.forms if form.name == "app"]
        (row,) = list(runtime.store.traces.labelled())
    assert answer.headers["x-tracer-decision"] == "deferred"
    assert answer.headers["x-tracer-reason"] == "form_not_certified"
    assert answer.headers["x-tracer-trace-id"] == row.id
    assert [seen["body"] for seen in stub_llm.requests] == [body]
    assert (row.input, row.teacher_label, row.surrogate_label) == (HANDLED, "red", "red")
    assert (row.form, row.teacher_fingerprint) == (known.fingerprint, known.fingerprint)
    assert stream or row.usage


@pytest.mark.anyio
async def test_an_audit_of_a_handled_call_asks_the_callers_own_question(task: MakeTask, stub_llm: StubLLM) -> None:
    """Not the teacher's prompt: the audit watches the form that was answered."""
    form = {"name": "app", "prompt": "Colour of {text}?", "same_as": "teacher"}
    spec = task(forms=[form], traces={"audit_rate": 1.0})
    make_version(spec)
    stub_llm.default = "red"
    body = {"model": "stub-1", "messages": [{"role": "user", "content": f"Colour of {HANDLED}?"}], "stream": True}
    async with serving(spec) as (client, runtime):
        answer = await client.post("/v1/chat/completions", json=body)
        await runtime.router.audits.close(10)
        runtime.writer.close()
        (row,) = list(runtime.store.traces.labelled())
    assert answer.headers["x-tracer-decision"] == "handled"
    assert row.label_source == "audit"
    assert stub_llm.requests[-1]["body"] == {k: v for k, v in body.items() if k != "stream"}


@pytest.mark.anyio
async def test_forwarded_calls_are_counted_and_shown(task: MakeTask, stub_llm: StubLLM) -> None:
    """A metric by reason; on the dashboard the form without the text, the count, the labels that came back, advice."""
    spec = task()
    stub_llm.default = "blue"
    ask = {
        "model": "stub-1",
        "messages": [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Zebra"}],
    }
    async with serving(spec) as (client, runtime):
        for _ in range(3):
            await client.post("/v1/chat/completions", json=ask)
        metrics = (await client.get("/metrics")).text
        client._transport.app.state.chat.forwarded.write()  # type: ignore[attr-defined]
        (shown,) = status_of(runtime)["forwarded"]
    assert 'tracer_calls_forwarded_total{reason="unknown_prompt",task="colours"} 3.0' in metrics
    assert 'tracer_calls_forwarded_total{reason="earlier_turns",task="colours"} 0.0' in metrics
    assert (shown["calls"], shown["reason"], shown["labels"]) == (3, "unknown_prompt", {"blue": 3})
    assert "Sort." in shown["form"]
    assert "Zebra" not in json.dumps(shown)
    assert "forms:" in shown["advice"]


def test_check_says_whether_a_call_is_recognised(task: MakeTask, tmp_path: Path) -> None:
    """And if not, which rule it breaks, by which form, and what to write."""
    file = tmp_path / "body.json"
    file.write_text(json.dumps({"model": "stub-1", "messages": OWN}), encoding="utf-8")
    assert check_request(task(), file).startswith("recognised as teacher, its text has 21 characters")
    file.write_text(json.dumps({"model": "gpt", "messages": OWN}), encoding="utf-8")
    said = check_request(task(), file)
    assert "not recognised (unknown_model), nearest is teacher: it asks the model 'gpt'" in said
    assert "forms:" in said


def test_a_real_call_with_a_long_prompt_is_recognised_and_answered_in_its_schema(
    task: MakeTask, tmp_path: Path
) -> None:
    """47,000 characters in one message, `guided_json` with a category and a confidence: text exact, fields filled."""
    data = os.environ.get("TRACER_BENCH_DATA")
    if not data:
        pytest.skip("TRACER_BENCH_DATA is not set")
    from tests.server.chat.test_recognise import of  # noqa: PLC0415

    call = json.loads((Path(data) / "real_call_form.json").read_text(encoding="utf-8"))
    body = call["body"] | call["body"]["extra_body"]
    del body["extra_body"]

    def about(text: str) -> Any:
        return body | {"messages": [{"role": "user", "content": call["prefix"] + text + call["suffix"]}]}

    (tmp_path / "call.json").write_text(json.dumps(about("<<TEXT>>")), encoding="utf-8")
    labels = body["guided_json"]["properties"]["category"]["enum"]
    form = {"name": "intents", "request": "call.json", "slot": "<<TEXT>>", "when_handled": {"confidence": "percent"}}
    spec = task(labels=labels, forms=[form])
    recogniser = Recogniser("colours", of(spec).forms, lambda: labels)
    for recorded in call["recorded"]:
        found = recogniser.read(json.dumps(about(recorded["text"])).encode())
        assert isinstance(found, TaskCall)
        assert found.text == recorded["text"]
        answer = json.loads(found.shape.message("card_arrival", "", 0.9713)[0]["content"])
        assert answer == {"category": "card_arrival", "confidence": 97.13}
    shuffled = about("hi")["messages"][0]["content"].replace("Example 1:", "Example 2:", 1)
    other = body | {"messages": [{"role": "user", "content": shuffled}]}
    assert not isinstance(recogniser.read(json.dumps(other).encode()), TaskCall)


def test_a_confidence_that_is_left_to_the_teacher_defers(task: MakeTask, stub_llm: StubLLM) -> None:
    """`defer`, or no word about a required field: the call goes upstream; a constant is said as it is."""
    fields = ENUM["properties"] | {"sure": {"type": "number"}}
    schema = {**ENUM, "properties": fields, "required": ["colour", "sure"]}
    stub_llm.default = "blue"
    for how, decision in (({"sure": "defer"}, "deferred"), ({}, "deferred"), ({"sure": 0.5}, "handled")):
        form = {"name": "x", "prompt": "{text}", "options": {"guided_json": schema}, "same_as": "teacher"}
        spec = task(forms=[form | {"when_handled": how}])
        make_version(spec)
        with listening(spec) as url:
            client = closed_later(OpenAI(base_url=url, api_key="none", max_retries=0))
            ask = client.chat.completions.with_raw_response.create
            raw = ask(model="stub-1", messages=[PLAIN], extra_body={"guided_json": schema})
        assert raw.headers["x-tracer-decision"] == decision
    assert json.loads(raw.parse().choices[0].message.content or "") == {"colour": "red", "sure": 0.5}


def test_deferred_is_not_handled(task: MakeTask, stub_llm: StubLLM) -> None:
    """A text under the threshold, in the teacher's own prompt, gets upstream's answer."""
    spec = task()
    make_version(spec)
    stub_llm.default = "blue"
    with listening(spec) as url:
        client = closed_later(OpenAI(base_url=url, api_key="none", max_retries=0))
        messages: Any = Prompt(None, ["blue", "red"], {}).messages(DEFERRED)
        raw = client.chat.completions.with_raw_response.create(model="stub-1", messages=messages)
    assert raw.headers["x-tracer-decision"] == "deferred"
    assert raw.parse().choices[0].message.content == "blue"
