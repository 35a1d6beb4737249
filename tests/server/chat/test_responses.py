"""OpenAI's Responses API as a face, asked by the clients that people already have."""

import json
from collections.abc import Callable
from typing import Any, Literal

import httpx
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI, RateLimitError
from pydantic import BaseModel, SecretStr

from tests.server.chat.conftest import closed_later, listening
from tests.server.worlds import DEFERRED, HANDLED, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.forms.calls import RESPONSES, NotACallError, parse
from tracer_serve.forms.translate import to_responses

Known = Callable[..., str]
MakeTask = Callable[..., Task]
KEY = "sk-of-the-caller-0123456789"
SAY = {
    "type": "function",
    "name": "say",
    "strict": False,
    "parameters": {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}},
}
PATH = "/v1/responses"


class Answer(BaseModel):
    """What a caller parses into."""

    colour: Literal["red", "blue"]


def client_of(base_url: str) -> OpenAI:
    return closed_later(OpenAI(base_url=base_url, api_key=KEY, max_retries=0))


@pytest.fixture
def client(base_url: str) -> OpenAI:
    return client_of(base_url)


def parse_into_answer(url: str, text: str = HANDLED) -> Any:
    client = client_of(url)
    return client.responses.parse(model="gpt", instructions="Which colour?", input=text, text_format=Answer)


@pytest.mark.parametrize(("text", "label", "kind"), [(HANDLED, "red", "handled"), (DEFERRED, "blue", "deferred")])
def test_create_answers_with_label_decision_and_usage(client: OpenAI, text: str, label: str, kind: str) -> None:
    """A direct call gets the label as output text, whoever it came from; headers tell which."""
    raw = client.responses.with_raw_response.create(model="colours", input=text)
    answer = raw.parse()
    assert (answer.output_text, answer.status, answer.error) == (label, "completed", None)
    assert answer.usage is not None
    assert (answer.usage.total_tokens == 0) == (kind == "handled")
    assert raw.headers["x-tracer-decision"] == kind
    assert answer.id == f"resp_{raw.headers['x-tracer-trace-id'].replace('-', '')}"


@pytest.mark.parametrize("text", [HANDLED, DEFERRED])
def test_a_stream_has_the_events_of_the_api_in_their_order(client: OpenAI, text: str) -> None:
    """Semantic events, numbered; the pieces add up to the label, and the last one holds the response."""
    events = list(client.responses.create(model="colours", input=[{"role": "user", "content": text}], stream=True))
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event.sequence_number for event in events] == list(range(9))
    end: Any = events[-1]
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == end.response.output_text == ("red" if text == HANDLED else "blue")


def test_parse_gives_a_pydantic_model_of_a_known_form(known: Known, stub_llm: StubLLM) -> None:
    """`parse` and `stream` get the caller's own model, and the LLM is not asked."""
    url = known(parse_into_answer)
    assert parse_into_answer(url).output_parsed == Answer(colour="red")
    wanted: Any = {"model": "gpt", "instructions": "Which colour?", "input": HANDLED, "text_format": Answer}
    with client_of(url).responses.stream(**wanted) as stream:
        assert stream.get_final_response().output_parsed == Answer(colour="red")
    assert stub_llm.count == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_deferred_call_goes_upstream_as_it_came_and_is_learned(
    task: MakeTask, tmp_path: Any, stub_llm: StubLLM, stream: bool
) -> None:
    """Body and answer pass unchanged, streams included; the label in the answer becomes a trace of the form."""
    wanted = {"format": {"type": "json_schema", "name": "a", "schema": Answer.model_json_schema(), "strict": True}}
    body = {"model": "gpt", "input": "{text}", "text": wanted}
    (tmp_path / "form.json").write_text(json.dumps(body), encoding="utf-8")
    spec = task(forms=[{"name": "responses", "request": "form.json", "same_as": "teacher"}])
    make_version(spec)
    stub_llm.default = "blue"
    sent = {**body, "input": DEFERRED, "stream": stream}
    with listening(spec) as url:
        answer = httpx.post(f"{url}/responses", json=sent, headers={"authorization": "Bearer x"}, timeout=20)
        again = httpx.post(f"{url}/responses", json={**sent, "input": HANDLED}, timeout=20)
    assert answer.headers["x-tracer-decision"] == "deferred"
    assert again.headers["x-tracer-decision"] == "handled"
    (seen,) = stub_llm.requests
    assert (seen["path"], seen["body"]) == (PATH, sent)
    assert ("event: response.completed" in answer.text) == stream
    assert "blue" in answer.text


@pytest.mark.anyio
async def test_the_label_of_a_deferral_is_stored_and_a_cut_stream_is_not(
    task: MakeTask, tmp_path: Any, stub_llm: StubLLM
) -> None:
    """Only an answer that reached its end says a label."""
    (tmp_path / "form.json").write_text(json.dumps({"model": "gpt", "input": "{text}"}), encoding="utf-8")
    stub_llm.default = "blue"
    async with serving(task(forms=[{"name": "plain", "request": "form.json"}])) as (client, runtime):
        for fault in ("ok", "cut_stream", "refusal", "length"):
            stub_llm.script.append(fault)
            body = {"model": "gpt", "input": f"{DEFERRED} {fault}", "stream": fault in ("ok", "cut_stream")}
            await client.post(PATH, json=body)
        traces = {trace.input: trace.teacher_label for trace in runtime.store.traces.labelled()}
    assert traces == {f"{DEFERRED} ok": "blue"}


def test_unrecognised_calls_are_forwarded_as_they_came(client: OpenAI, stub_llm: StubLLM) -> None:
    """Body and answer are the two parties' own, streams and refusals included, and the caller's key stays here."""
    raw = client.responses.with_raw_response.create(model="gpt", instructions="Rhyme.", input="the sea")
    assert raw.headers["x-tracer-decision"] == "forwarded"
    assert raw.parse().output_text == "blue"
    seen = stub_llm.requests[-1]
    assert seen["body"] == {"model": "gpt", "instructions": "Rhyme.", "input": "the sea"}
    assert KEY not in str(seen["headers"])
    pieces = client.responses.create(model="gpt", input="the sea", stream=True)
    assert "".join(event.delta for event in pieces if event.type == "response.output_text.delta") == "blue"
    stub_llm.script.append("429")
    with pytest.raises(RateLimitError):
        client.responses.create(model="gpt", input="the sea")


def test_the_same_prompt_through_another_api_is_another_form(client: OpenAI) -> None:
    """The certificate is about the teacher's calls; that another API asks the same is the YAML's to say."""
    body: Any = {"model": "stub-1", "temperature": 0.0, "input": HANDLED}
    prompt = "Classify the text. Answer with exactly one of these labels and nothing else: blue, red"
    raw = client.responses.with_raw_response.create(**body, instructions=prompt)
    assert raw.headers["x-tracer-reason"] == "unknown_api"


def test_a_tool_is_called(known: Known) -> None:
    """Name and arguments are those of a model that called it; streamed as well."""
    body: Any = {"model": "gpt", "input": HANDLED, "tools": [SAY], "tool_choice": {"type": "function", "name": "say"}}
    url = known(lambda url: client_of(url).responses.create(**body))
    (call,) = client_of(url).responses.create(**body).output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("say", {"colour": "red"})
    with client_of(url).responses.stream(**body) as stream:
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call"
    assert json.loads(streamed.arguments) == {"colour": "red"}


def test_errors_have_the_shape_of_the_api(client: OpenAI, task: MakeTask) -> None:
    """The client raises its own errors, with code and parameter."""
    with pytest.raises(BadRequestError, match="empty") as empty:
        client.responses.create(model="colours", input=" ")
    assert empty.value.param == "input"
    with listening(task(server={"forward": False})) as url, pytest.raises(NotFoundError) as nowhere:
        client_of(url).responses.create(model="gpt", input="the sea")
    assert nowhere.value.code == "model_not_found"


@pytest.mark.anyio
async def test_the_async_client_creates_and_streams(base_url: str) -> None:
    """The same from asyncio."""
    async with AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
        assert (await client.responses.create(model="colours", input=HANDLED)).output_text == "red"
        async with client.responses.stream(model="colours", input=HANDLED) as stream:
            assert (await stream.get_final_response()).output_text == "red"


def test_langchain_uses_the_responses_api(known: Known) -> None:
    """`with_structured_output`, a plain call and a stream, with `use_responses_api`."""

    def chat(url: str, model: str) -> ChatOpenAI:
        return ChatOpenAI(
            base_url=url,
            api_key=SecretStr(KEY),
            http_client=closed_later(httpx.Client()),
            model=model,
            max_retries=0,
            use_responses_api=True,
        )

    def ask_for(url: str) -> Any:
        return chat(url, "gpt-4.1-mini").with_structured_output(Answer, method="json_schema").invoke(HANDLED)

    url = known(ask_for)
    assert ask_for(url) == Answer(colour="red")
    assert chat(url, "colours").invoke(HANDLED).text == "red"
    assert "".join(part.text for part in chat(url, "colours").stream(HANDLED)) == "red"


@pytest.mark.parametrize(
    "body",
    [
        *({"model": "m"}, {"model": "m", "input": 7}, {"model": "m", "input": []}, {"model": "m", "input": [7]}),
        *({"model": "m", "input": [{"content": "x"}]}, {"model": "m", "input": "x", "tools": [7], "text": 7}),
        {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": 7}]}]},
    ],
)
def test_no_body_breaks_the_parser(body: Any) -> None:
    """A malformed request is no call, or a call without a text that a form could have."""
    try:
        call = parse(body, RESPONSES)
    except NotACallError:
        return
    assert call.message is None or call.form.option_values


def test_what_is_not_known_is_part_of_the_form() -> None:
    """Fields of other turns, and any further field, make another form; identity and limits do not."""
    plain = parse({"model": "m", "input": "x"}, RESPONSES)
    same = parse(
        {"model": "m", "input": "x", "store": False, "max_output_tokens": 9, "metadata": {"a": "b"}}, RESPONSES
    )
    assert same.form.fingerprint == plain.form.fingerprint
    for extra in ({"previous_response_id": "resp_1"}, {"reasoning": {"effort": "low"}}, {"background": True}):
        assert parse({"model": "m", "input": "x", **extra}, RESPONSES).form.fingerprint != plain.form.fingerprint
    image = [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:"}]
    seen = parse({"model": "m", "input": [{"role": "user", "content": image}]}, RESPONSES)
    assert seen.form.media == ("input_image",)
    called = [{"type": "function_call_output", "call_id": "c", "output": "o"}]
    assert parse({"model": "m", "input": [{"role": "user", "content": "x"}, *called]}, RESPONSES).message is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
        {"tools": [{"type": "function", "function": {"name": "say", "parameters": {}}}], "tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "say"}}, "temperature": 0, "n_probs": 3},
    ],
)
def test_a_chat_completion_has_a_twin_among_responses(options: Any) -> None:
    """Translated there and back it asks the same."""
    said = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "x"}]
    chat = {"model": "m", "messages": said, **options}
    there, here = parse(to_responses(chat), RESPONSES), parse(chat)
    assert (there.form.turns, there.form.options) == (here.form.turns, here.form.options)
    assert there.message == "x"
