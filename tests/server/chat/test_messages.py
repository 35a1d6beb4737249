"""Anthropic's Messages API as a face, asked by Anthropic's own client."""

import json
from collections.abc import Callable
from typing import Any, Literal

import httpx
import pytest
from anthropic import (
    Anthropic,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from pydantic import BaseModel

from tests.server.chat.conftest import closed_later, listening
from tests.server.worlds import DEFERRED, HANDLED, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.forms.calls import MESSAGES, NotACallError, parse

MakeTask = Callable[..., Task]
KEY = "sk-ant-of-the-caller-0123456789"
SAY: Any = {
    "name": "say",
    "input_schema": {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]},
}
FORCED: Any = {"type": "tool", "name": "say"}


class Answer(BaseModel):
    """What a caller parses into."""

    colour: Literal["red", "blue"]


def ask(text: str = HANDLED) -> Any:
    return {"model": "colours", "max_tokens": 50, "messages": [{"role": "user", "content": text}]}


def client_of(base_url: str) -> Anthropic:
    return closed_later(Anthropic(base_url=base_url.removesuffix("/v1"), api_key=KEY, max_retries=0))


@pytest.fixture
def client(base_url: str) -> Anthropic:
    return client_of(base_url)


@pytest.mark.parametrize(("text", "label", "kind"), [(HANDLED, "red", "handled"), (DEFERRED, "blue", "deferred")])
def test_create_answers_with_label_decision_and_usage(client: Anthropic, text: str, label: str, kind: str) -> None:
    """A direct call gets the label as a text block, whoever it came from; headers tell which."""
    raw = client.messages.with_raw_response.create(**ask(text))
    answer = raw.parse()
    (block,) = answer.content
    assert block.type == "text"
    assert (block.text, answer.stop_reason, answer.role) == (label, "end_turn", "assistant")
    assert (answer.usage.input_tokens == 0) == (kind == "handled")
    assert raw.headers["x-tracer-decision"] == kind


@pytest.mark.parametrize("text", [HANDLED, DEFERRED])
def test_a_stream_has_the_events_of_the_api_in_their_order(client: Anthropic, text: str) -> None:
    """The pieces add up to the label; the client's helper puts the message together."""
    events = [event.type for event in client.messages.create(**ask(text), stream=True)]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert events == ["message_start", *block, "message_delta", "message_stop"]
    with client.messages.stream(**ask(text)) as stream:
        assert "".join(stream.text_stream) == ("red" if text == HANDLED else "blue")
        assert stream.get_final_message().stop_reason == "end_turn"


def test_structured_output_comes_by_a_forced_tool_or_a_schema(client: Anthropic) -> None:
    """A tool's input, streamed as well, and `parse` into the caller's own model."""
    (block,) = client.messages.create(**ask(), tools=[SAY], tool_choice=FORCED).content
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("say", {"colour": "red"})
    with client.messages.stream(**ask(), tools=[SAY], tool_choice=FORCED) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert final.content[0].input == {"colour": "red"}  # type: ignore[union-attr]
    assert client.messages.parse(**ask(), output_format=Answer).parsed_output == Answer(colour="red")


def test_errors_have_the_shape_of_the_api(client: Anthropic, task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client raises its own errors with their types, also for keys and rights; both headers present a key."""
    with pytest.raises(BadRequestError, match="empty") as empty:
        client.messages.create(**ask(" "))
    assert (empty.value.type, empty.value.body["type"]) == ("invalid_request_error", "error")  # type: ignore[index]
    with pytest.raises(NotFoundError, match="no endpoint for /v1/messages") as nowhere:
        client.messages.create(**ask() | {"model": "claude"})
    assert nowhere.value.type == "not_found_error"
    monkeypatch.setenv("ASKS", KEY)
    monkeypatch.setenv("ADMIN", "a" * 20)
    spec = task(server={"api_keys": ["${ASKS}", {"key": "${ADMIN}", "rights": ["admin"]}]})
    make_version(spec)
    with listening(spec) as url:
        assert client_of(url).messages.create(**ask()).stop_reason == "end_turn"
        sent = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        assert httpx.post(f"{url}/messages", json=ask(), headers=sent).status_code == 200
        with pytest.raises(AuthenticationError) as unknown:
            closed_later(Anthropic(base_url=url.removesuffix("/v1"), api_key="unknown", max_retries=0)).messages.create(
                **ask()
            )
        assert unknown.value.type == "authentication_error"
        with pytest.raises(PermissionDeniedError):
            closed_later(Anthropic(base_url=url.removesuffix("/v1"), api_key="a" * 20, max_retries=0)).messages.create(
                **ask()
            )


@pytest.mark.anyio
async def test_the_async_client_creates_and_streams(base_url: str) -> None:
    """The same from asyncio."""
    async with AsyncAnthropic(base_url=base_url.removesuffix("/v1"), api_key=KEY) as client:
        assert (await client.messages.create(**ask())).stop_reason == "end_turn"
        async with client.messages.stream(**ask()) as stream:
            assert await stream.get_final_text() == "red"


def test_the_task_is_a_model_of_this_api_too(client: Anthropic) -> None:
    """`models.list` and `models.retrieve` find it; another one is an error."""
    assert [model.id for model in client.models.list()] == ["colours"]
    assert client.models.retrieve("colours").display_name == "colours"
    with pytest.raises(NotFoundError):
        client.models.retrieve("claude")


@pytest.mark.parametrize(
    "body",
    [
        *({"model": "m"}, {"model": "m", "messages": 7}, {"model": "m", "messages": [7]}),
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [7], "tool_choice": 7, "metadata": 7},
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}], "system": 7},
    ],
)
def test_no_body_breaks_the_parser(body: Any) -> None:
    """A malformed request is no call, or a call whose form no other call has."""
    try:
        call = parse(body, MESSAGES)
    except NotACallError:
        return
    assert call.message is None or call.form.option_values


def test_what_is_not_known_is_part_of_the_form() -> None:
    """System blocks count as text, caching and limits do not count; images, thinking and prefills do."""
    plain = ask() | {"system": "Which colour?"}
    cached = plain | {"system": [{"type": "text", "text": "Which colour?", "cache_control": {"type": "ephemeral"}}]}
    form = parse(plain, MESSAGES).form
    assert parse(cached | {"max_tokens": 7}, MESSAGES).form.fingerprint == form.fingerprint
    assert parse(plain | {"thinking": {"type": "enabled"}}, MESSAGES).form.fingerprint != form.fingerprint
    prefilled = [*plain["messages"], {"role": "assistant", "content": "{"}]
    assert parse(plain | {"messages": prefilled}, MESSAGES).message is None
    image = [{"role": "user", "content": [{"type": "image", "source": {}}, {"type": "text", "text": "x"}]}]
    assert parse(plain | {"messages": image}, MESSAGES).form.media == ("image",)
    assert parse(plain | {"metadata": {"user_id": "ann"}}, MESSAGES).user == "ann"


@pytest.mark.anyio
async def test_feedback_takes_the_ids_of_answers(task: MakeTask, stub_llm: StubLLM) -> None:
    """An answer of any face is corrected by its own id."""
    stub_llm.default = "blue"
    async with serving(task()) as (client, _):
        said = (await client.post("/v1/messages", json=ask(DEFERRED))).json()["id"]
        answered = (await client.post("/v1/responses", json={"model": "colours", "input": "sky"})).json()["id"]
        done = [await client.post("/v1/feedback", json={"id": id_, "label": "red"}) for id_ in (said, answered)]
    assert [answer.status_code for answer in done] == [200, 200]
    assert json.loads(done[0].content)["object"] == "feedback"
