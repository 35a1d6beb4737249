"""A task whose teacher is Anthropic's: its calls come through ``/v1/messages``, and go nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest
from anthropic import Anthropic, RateLimitError
from openai import NotFoundError, OpenAI

from tests.server.chat.conftest import closed_later, listening
from tests.server.worlds import DEFERRED, HANDLED, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task

MakeTask = Callable[..., Task]
CALLER = "sk-ant-of-the-caller-0123456789"
OWN = "sk-ant-of-the-operator-0123456789"
PATH = "/v1/messages"
VERSION = {"anthropic-version": "2023-06-01"}


def teacher_of(stub: StubLLM, **params: Any) -> dict[str, Any]:
    return {"type": "anthropic", "base_url": stub.url, "model": "stub-1", "retries": 0, **params}


def client_of(url: str) -> Anthropic:
    return closed_later(Anthropic(base_url=url.removesuffix("/v1"), api_key=CALLER, max_retries=0))


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_the_teachers_own_call_is_answered_or_learned(task: MakeTask, stub_llm: StubLLM, stream: bool) -> None:
    """Certified ones by the surrogate, others upstream as they came; the label in the tool's input becomes a trace."""
    spec = task(teacher=teacher_of(stub_llm))
    make_version(spec)
    stub_llm.default = "blue"
    async with serving(spec) as (client, runtime):
        bodies = [
            {**runtime.router.teacher.request(text), "stream": stream}  # type: ignore[attr-defined]
            for text in (HANDLED, DEFERRED)
        ]
        handled, deferred = [await client.post(PATH, json=body, headers=VERSION) for body in bodies]
        stub_llm.script.append("cut_stream" if stream else "length")
        await client.post(PATH, json=bodies[1], headers=VERSION)
        learned = [(trace.input, trace.teacher_label) for trace in runtime.store.traces.labelled()]
    assert [answer.headers["x-tracer-decision"] for answer in (handled, deferred)] == ["handled", "deferred"]
    assert '"tool_use"' in handled.text.replace("'", '"')
    assert stub_llm.requests[0]["body"] == bodies[1]
    assert learned == [(DEFERRED, "blue")]


def test_unknown_calls_are_forwarded_with_the_operators_key(
    task: MakeTask, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they came, streams and refusals included; OpenAI's calls go nowhere."""
    monkeypatch.setenv("UPSTREAM", OWN)
    spec = task(teacher=teacher_of(stub_llm, api_key="${UPSTREAM}"))
    make_version(spec)
    stub_llm.default = "hello"
    asked: Any = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "the sea"}]}
    with listening(spec) as url:
        client = client_of(url)
        raw = client.messages.with_raw_response.create(**asked)
        assert raw.headers["x-tracer-decision"] == "forwarded"
        assert raw.parse().content[0].text == "hello"
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text() == "hello"
        stub_llm.script.append("429")
        with pytest.raises(RateLimitError) as refused:
            client.messages.create(**asked)
        assert (refused.value.type, OWN in str(refused.value.body)) == ("rate_limit_error", False)
        before = stub_llm.count
        with pytest.raises(NotFoundError, match="no endpoint for /v1/chat/completions"):
            closed_later(OpenAI(base_url=url, api_key=CALLER)).chat.completions.create(
                model="gpt", messages=asked["messages"]
            )
    assert stub_llm.count == before
    seen = stub_llm.requests[0]
    assert (seen["path"], seen["body"]) == (PATH, asked)
    assert seen["headers"]["x-api-key"] == OWN
    assert CALLER not in str(seen["headers"])


@pytest.mark.anyio
async def test_pass_through_sends_the_callers_key_in_its_own_header(task: MakeTask, stub_llm: StubLLM) -> None:
    """However the caller presents it."""
    stub_llm.default = "blue"
    asked = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "the sea"}]}
    async with serving(task(teacher=teacher_of(stub_llm, api_key="pass_through"))) as (client, _):
        await client.post(PATH, json=asked, headers=VERSION | {"x-api-key": CALLER})
        await client.post(PATH, json=asked, headers=VERSION | {"authorization": f"Bearer {CALLER}"})
    first, second = (seen["headers"] for seen in stub_llm.requests)
    assert (first["x-api-key"], second["authorization"]) == (CALLER, f"Bearer {CALLER}")


@pytest.mark.anyio
async def test_calls_of_messages_never_reach_another_protocol(task: MakeTask, stub_llm: StubLLM) -> None:
    """Neither the route itself nor what is below it."""
    async with serving(task()) as (client, _):
        answers = [await client.post(path, json={}) for path in (PATH, f"{PATH}/count_tokens")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert {answer.json()["error"]["type"] for answer in answers} == {"not_found_error"}
    assert stub_llm.count == 0
