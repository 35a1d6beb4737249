"""The clients that people already have, against a served task: only their `base_url` is another one."""

import json
import shutil
import subprocess
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal

import httpx
import instructor
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel, SecretStr

from tests.server.chat.conftest import closed_later
from tests.server.worlds import DEFERRED, HANDLED
from tests.support.stub_llm import StubLLM

Known = Callable[..., str]
KEY = "sk-of-the-caller-0123456789"
SAY = {
    "type": "function",
    "function": {"name": "say", "parameters": {"properties": {"colour": {"enum": ["red", "blue"]}}}},
}


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Answer(BaseModel):
    """What a caller parses into."""

    colour: Literal["red", "blue"]


class Named(BaseModel):
    colour: Colour


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(base_url: str) -> OpenAI:
    return closed_later(OpenAI(base_url=base_url, api_key=KEY, max_retries=0))


@pytest.mark.parametrize(("text", "label", "kind"), [(HANDLED, "red", "handled"), (DEFERRED, "blue", "deferred")])
def test_the_sdk_reads_label_decision_and_usage(client: OpenAI, text: str, label: str, kind: str) -> None:
    """Handled costs no token; deferred costs what the teacher says; headers tell which."""
    raw = client.chat.completions.with_raw_response.create(model="colours", messages=ask(text))
    answer = raw.parse()
    assert answer.choices[0].message.content == label
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.total_tokens == 0) == (kind == "handled")
    assert raw.headers["x-tracer-decision"] == kind
    assert raw.headers["x-tracer-version"] == "1"
    assert float(raw.headers["x-tracer-score"]) <= 1
    assert answer.id == f"chatcmpl-{raw.headers['x-tracer-trace-id']}"


@pytest.mark.parametrize("text", [HANDLED, DEFERRED])
def test_the_sdk_streams(client: OpenAI, text: str) -> None:
    """The pieces add up to the label, one chunk has the finish reason, the last the usage that was asked for."""
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(model="colours", messages=ask(text), stream=True, stream_options=options)
    *chunks, last = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == ("red" if text == HANDLED else "blue")
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert last.usage is not None
    assert (last.usage.total_tokens == 0) == (text == HANDLED)


def client_of(base_url: str) -> OpenAI:
    return closed_later(OpenAI(base_url=base_url, api_key=KEY, max_retries=0))


@pytest.mark.parametrize("model", [Answer, Named])
def test_parse_gives_a_pydantic_model_under_the_old_model_name(known: Known, model: Any, stub_llm: StubLLM) -> None:
    """A call whose form is known is answered by the surrogate in its schema, and the LLM is not asked."""

    def ask_for(url: str) -> Any:
        client = client_of(url)
        return client.chat.completions.parse(model="gpt-4.1-mini", messages=ask(HANDLED), response_format=model)

    parsed = ask_for(known(ask_for))
    assert parsed.choices[0].message.parsed == model(colour="red")
    assert parsed.model == "gpt-4.1-mini"
    assert stub_llm.count == 0


def test_a_tool_is_called(known: Known) -> None:
    """Name, arguments and finish reason are those of a model that called it; streamed as well."""
    tools: Any = [SAY]

    def ask_for(url: str) -> Any:
        return client_of(url).chat.completions.create(model="gpt", messages=ask(HANDLED), tools=tools)

    url = known(ask_for)
    (choice,) = ask_for(url).choices
    assert choice.message.tool_calls
    called: Any = choice.message.tool_calls[0]
    assert (called.function.name, json.loads(called.function.arguments)) == ("say", {"colour": "red"})
    assert choice.finish_reason == "tool_calls"
    with client_of(url).chat.completions.stream(model="gpt", messages=ask(HANDLED), tools=tools) as stream:
        final: Any = stream.get_final_completion().choices[0].message.tool_calls
    assert json.loads(final[0].function.arguments) == {"colour": "red"}


def test_what_the_task_cannot_give_is_forwarded_and_the_empty_text_is_an_error(
    client: OpenAI, stub_llm: StubLLM
) -> None:
    """Two answers are upstream's to give, also under the task's name; nothing to classify is the caller's mistake."""
    raw = client.chat.completions.with_raw_response.create(model="colours", messages=ask(HANDLED), n=2)
    assert (raw.headers["x-tracer-decision"], raw.headers["x-tracer-reason"]) == ("forwarded", "unknown_options")
    assert stub_llm.requests[-1]["body"]["n"] == 2
    with pytest.raises(BadRequestError, match="empty"):
        client.chat.completions.create(model="colours", messages=ask(" "))


def test_the_task_is_listed_as_a_model(client: OpenAI) -> None:
    """`models.list` finds it."""
    assert [model.id for model in client.models.list()] == ["colours"]
    assert client.models.retrieve("colours").owned_by == "tracer-serve"


@pytest.mark.anyio
async def test_the_async_sdk_answers_streams_and_passes_on(base_url: str, stub_llm: StubLLM) -> None:
    """The same from asyncio; another call's stream comes from the LLM, whole."""
    async with AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
        answer = await client.chat.completions.create(model="colours", messages=ask(HANDLED))
        assert answer.choices[0].message.content == "red"
        stream = await client.chat.completions.create(model="stub-1", messages=ask("What's new?"), stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == "blue"
    assert stub_llm.requests[-1]["body"]["messages"] == ask("What's new?")
    assert KEY not in str(stub_llm.requests[-1]["headers"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_structured_output(known: Known, method: Any) -> None:
    """`with_structured_output` in both of its ways, and a plain call."""

    def ask_for(url: str) -> Any:
        model = ChatOpenAI(
            base_url=url,
            api_key=SecretStr(KEY),
            http_client=closed_later(httpx.Client()),
            model="gpt-4.1-mini",
            max_retries=0,
        )
        return model.with_structured_output(Answer, method=method).invoke(HANDLED)

    url = known(ask_for)
    assert ask_for(url) == Answer(colour="red")
    named = ChatOpenAI(
        base_url=url, api_key=SecretStr(KEY), http_client=closed_later(httpx.Client()), model="colours", max_retries=0
    )
    assert named.invoke(HANDLED).content == "red"
    assert "".join(str(part.content) for part in named.stream(HANDLED)) == "red"


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_instructor_gets_its_model(known: Known, mode: instructor.Mode) -> None:
    """By tool or by schema."""

    def ask_for(url: str) -> Any:
        patched = instructor.from_openai(client_of(url), mode=mode)
        return patched.chat.completions.create(model="gpt-4.1-mini", messages=ask(HANDLED), response_model=Named)

    assert ask_for(known(ask_for)).colour is Colour.RED


def test_curl_and_httpx_get_the_same(base_url: str) -> None:
    """Nothing but HTTP is needed."""
    body = json.dumps({"model": "colours", "messages": ask(HANDLED)})
    answer = httpx.post(f"{base_url}/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.json()["choices"][0]["message"]["content"] == "red"
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    words = [curl, "-sN", f"{base_url}/chat/completions", "-H", "content-type: application/json", "-d"]
    streamed = subprocess.run([*words, body.replace("{", '{"stream":true,', 1)], capture_output=True, check=True)
    assert b'"content": "red"' in streamed.stdout
    assert streamed.stdout.endswith(b"data: [DONE]\n\n")
