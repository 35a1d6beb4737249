"""Tasks with several fields behind every API, asked by the clients that people have."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel

from tests.server.chat.conftest import closed_later, listening, write_form
from tests.server.worlds import DEFERRED, HANDLED, LABELS, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.cli.commands.check import check_request
from tracer_serve.config.fields import canonical
from tracer_serve.config.load import Task, load_task
from tracer_serve.storage.versions.opening import store_of

MakeTask = Callable[..., Task]
Serve = Callable[..., str]
KEY = "sk-of-the-caller-0123456789"
FIELDS = {
    "colour": {"labels": ["red", "blue"]},
    "warm": {"type": "boolean"},
    "tags": {"type": "tags", "labels": ["bright", "deep", "dull"]},
}
WHY = {"why": {"type": "text", "when_handled": "defer"}}
SURE = {"confidence": {"type": "number", "when_handled": "score"}}
RED: dict[str, Any] = {"colour": "red", "tags": ["bright", "deep"], "warm": True}
BLUE: dict[str, Any] = {"colour": "blue", "tags": [], "warm": False}
NAMED = (canonical(RED), canonical(BLUE))


class Answer(BaseModel):
    """What a caller parses into."""

    colour: Literal["red", "blue"]
    warm: bool
    tags: list[Literal["bright", "deep", "dull"]]


class Tone(Enum):
    RED = "RED"
    BLUE = "BLUE"


class Inner(BaseModel):
    tone: Tone | None
    Warm: bool | None = None


class Elsewhere(BaseModel):
    """The same fields in another caller's words."""

    kind: Literal["answer"]
    found: Inner
    Tags: list[Literal["Bright", "Deep", "Dull"]]


class Reasoned(Answer):
    why: str


class Scored(Answer):
    confidence: float


class Blues(BaseModel):
    """A part of the tags: what handled texts have is not among them."""

    colour: Literal["red", "blue"]
    warm: bool
    tags: list[Literal["deep", "dull"]]


def messages(text: str = HANDLED) -> Any:
    return [{"role": "user", "content": text}]


def openai(url: str) -> OpenAI:
    return closed_later(OpenAI(base_url=url, api_key=KEY, max_retries=0))


def anthropic(url: str) -> Anthropic:
    return closed_later(Anthropic(base_url=url.removesuffix("/v1"), api_key=KEY, max_retries=0))


def parsed(url: str, model: Any, text: str = HANDLED, name: str = "colours") -> Any:
    client = openai(url).chat.completions
    return client.parse(model=name, messages=messages(text), response_format=model).choices[0].message.parsed


@pytest.fixture
def serve(task: MakeTask, stub_llm: StubLLM, tmp_path: Path) -> Iterator[Serve]:
    """Serves a task with these fields and more of them; calls of some clients are made known to it."""
    with ExitStack() as stack:

        def start(*asks: Callable[[str], object], spec: dict[str, Any] | None = None, **more: Any) -> str:
            files = []
            for i, ask in enumerate(asks):
                files.append(write_form(tmp_path, stub_llm, f"form-{i}", ask))
            forms = [{"name": file.stem, "request": file.name, "same_as": "teacher"} for file in files]
            made = task(**{"labels": None, "fields": FIELDS | more, "forms": forms} | (spec or {}))
            stub_llm.labels = {text: NAMED[label == "blue"] for text, label in LABELS.items()}
            make_version(made, named=NAMED if made.spec.fields else ("red", "blue"))
            return stack.enter_context(listening(made))

        yield start


def test_openais_parse_reads_all_fields(serve: Serve, stub_llm: StubLLM) -> None:
    """A handled answer is an instance of the caller's model, no call upstream; a deferred one is the teacher's."""
    url = serve()
    assert parsed(url, Answer) == Answer(**RED)
    assert stub_llm.count == 0
    assert parsed(url, Answer, DEFERRED) == Answer(**BLUE)
    assert stub_llm.count == 1


def test_openais_parse_with_base_url_changed_only(serve: Serve, stub_llm: StubLLM) -> None:
    """The caller's own model name and schema are a known form; what is deferred goes upstream as it came."""

    def ask(url: str, text: str = HANDLED) -> Any:
        stub_llm.default = NAMED[0]
        return parsed(url, Answer, text, name="gpt-4.1-mini")

    url = serve(ask)
    assert ask(url) == Answer(**RED)
    assert stub_llm.count == 0
    assert ask(url, DEFERRED) == Answer(**BLUE)
    assert stub_llm.requests[0]["body"]["model"] == "gpt-4.1-mini"


def test_openais_responses_parse_reads_all_fields(serve: Serve, stub_llm: StubLLM) -> None:
    """The Responses API gives the same model, and so does its stream."""
    url = serve()
    asked: Any = {"model": "colours", "input": HANDLED, "text_format": Answer}
    assert openai(url).responses.parse(**asked).output_parsed == Answer(**RED)
    with openai(url).responses.stream(**asked) as stream:
        assert stream.get_final_response().output_parsed == Answer(**RED)
    assert stub_llm.count == 0


def test_openais_responses_parse_with_base_url_changed_only(serve: Serve, stub_llm: StubLLM) -> None:
    """A recorded call of the Responses API is a known form under the caller's own model name."""

    def ask(url: str) -> Any:
        stub_llm.default = NAMED[0]
        asked: Any = {"model": "gpt-4.1-mini", "input": HANDLED, "text_format": Answer}
        return openai(url).responses.parse(**asked).output_parsed

    url = serve(ask)
    assert ask(url) == Answer(**RED)
    assert stub_llm.count == 0


def test_anthropics_tool_with_base_url_changed_only(serve: Serve, stub_llm: StubLLM, tmp_path: Path) -> None:
    """A recorded call with a tool of three properties is handled under the caller's own model name, or learned."""
    tool: Any = {"name": "say", "input_schema": Answer.model_json_schema()}
    choice: Any = {"type": "tool", "name": "say"}

    def ask(url: str, text: str = HANDLED) -> Any:
        stub_llm.default = NAMED[0]
        answer = anthropic(url).messages.create(
            model="claude", max_tokens=99, messages=messages(text), tools=[tool], tool_choice=choice
        )
        (block,) = answer.content
        assert block.type == "tool_use"
        return Answer.model_validate(block.input)

    upstream = {"type": "anthropic", "base_url": stub_llm.url, "model": "claude", "retries": 0}
    url = serve(ask, spec={"teacher": upstream})
    assert ask(url) == Answer(**RED)
    assert stub_llm.count == 0
    assert ask(url, DEFERRED) == Answer(**BLUE)
    assert stub_llm.count == 1
    with closing(store_of(load_task(tmp_path / "task.yaml"))) as store:
        assert [trace.teacher_label for trace in store.traces.labelled()] == [NAMED[1]]


def test_anthropics_tool_gets_all_fields(serve: Serve, stub_llm: StubLLM) -> None:
    """A forced tool of three properties is called with all of them."""
    url = serve()
    tool: Any = {"name": "say", "input_schema": Answer.model_json_schema()}
    choice: Any = {"type": "tool", "name": "say"}
    answer = anthropic(url).messages.create(
        model="colours", max_tokens=99, messages=messages(), tools=[tool], tool_choice=choice
    )
    (block,) = answer.content
    assert block.type == "tool_use"
    assert Answer.model_validate(block.input) == Answer(**RED)
    assert stub_llm.count == 0


def test_a_call_without_a_schema_gets_json(serve: Serve) -> None:
    """A plain chat call and one for any JSON object get the object."""
    url = serve(**SURE)
    for asked in ({}, {"response_format": {"type": "json_object"}}):
        answer = openai(url).chat.completions.create(model="colours", messages=messages(), **asked)  # type: ignore[call-overload]
        said = json.loads(answer.choices[0].message.content)
        assert set(said) == {"colour", "warm", "tags", "confidence"}
        assert said | RED == said
        assert 0.8 <= said["confidence"] <= 1


def test_the_answer_is_spelled_as_the_caller_spells_it(serve: Serve, stub_llm: StubLLM) -> None:
    """Enums in another case, nested and nullable properties, references and other names are matched."""
    said = parsed(serve(), Elsewhere)
    assert said == Elsewhere(kind="answer", found=Inner(tone=Tone.RED, Warm=True), Tags=["Bright", "Deep"])
    assert stub_llm.count == 0


def test_a_score_is_said_where_the_yaml_says_so(serve: Serve, stub_llm: StubLLM) -> None:
    """A number with `when_handled: score` holds the acceptor's score."""
    assert 0.8 <= parsed(serve(**SURE), Scored).confidence <= 1
    assert stub_llm.count == 0


def test_a_text_that_is_deferred_is_the_teachers_to_write(serve: Serve, stub_llm: StubLLM) -> None:
    """A call that asks for it goes to the teacher and gets its words; one that does not is handled."""
    url = serve(**WHY)
    stub_llm.labels = {HANDLED: json.dumps({**RED, "why": "as wine"})}
    raw = openai(url).chat.completions.with_raw_response.parse(
        model="colours", messages=messages(), response_format=Reasoned
    )
    assert raw.headers["x-tracer-reason"] == "unfillable_schema"
    assert raw.parse().choices[0].message.parsed == Reasoned(**RED, why="as wine")
    assert stub_llm.count == 1
    assert parsed(url, Answer) == Answer(**RED)
    assert stub_llm.count == 1


def test_a_subset_without_the_answer_defers(serve: Serve, stub_llm: StubLLM) -> None:
    """Where a tag of the surrogate's answer is not among those asked for, the teacher is asked."""
    stub_llm.labels = {HANDLED: canonical(RED | {"tags": ["deep"]})}
    url = serve()
    stub_llm.labels = {HANDLED: canonical(RED | {"tags": ["deep"]})}
    assert parsed(url, Blues) == Blues(colour="red", warm=True, tags=["deep"])
    assert stub_llm.count == 1


def test_a_part_of_the_fields_may_be_asked_for(serve: Serve, stub_llm: StubLLM) -> None:
    """A schema with one of the fields gets that one; a schema with none, or with more, is forwarded."""

    class One(BaseModel):
        colour: Literal["red", "blue"]

    class More(Answer):
        mood: Literal["sad", "glad"]

    url = serve()
    assert parsed(url, One) == One(colour="red")
    assert stub_llm.count == 0
    stub_llm.labels = {HANDLED: json.dumps({**RED, "mood": "sad"})}
    assert parsed(url, More) == More(**RED, mood="sad")
    assert stub_llm.count == 1


def test_a_single_label_is_spelled_as_the_caller_spells_it(serve: Serve, stub_llm: StubLLM) -> None:
    """Of a task with labels too: another case is matched, and a part without the surrogate's label defers."""

    class Titled(BaseModel):
        colour: Literal["Red", "Blue"]

    class Cold(BaseModel):
        colour: Literal["BLUE", "GREEN"]

    url = serve(spec={"fields": None, "labels": ["red", "blue", "green"]})
    assert parsed(url, Titled) == Titled(colour="Red")
    assert stub_llm.count == 0
    stub_llm.labels = {HANDLED: "blue"}
    raw = openai(url).chat.completions.with_raw_response.parse(
        model="colours", messages=messages(), response_format=Cold
    )
    assert raw.headers["x-tracer-reason"] == "unfillable_schema"
    assert raw.parse().choices[0].message.parsed == Cold(colour="BLUE")


def test_check_says_whether_a_call_is_recognised(task: MakeTask, tmp_path: Path) -> None:
    """A call whose schema has the fields is; where a text is left to the teacher, that is said."""
    spec = task(labels=None, fields=FIELDS | WHY)
    cases = {
        "recognised as native": Answer.model_json_schema(),
        "why is left to the teacher": Reasoned.model_json_schema(),
        "no place": {"enum": ["RED", "GREY"]},
    }
    for said, schema in cases.items():
        wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        body = {"model": "colours", "messages": messages(), "response_format": wanted}
        (tmp_path / "body.json").write_text(json.dumps(body), encoding="utf-8")
        assert said in check_request(spec, tmp_path / "body.json")


@pytest.mark.anyio
async def test_classify_and_feedback_speak_of_objects(task: MakeTask, stub_llm: StubLLM) -> None:
    """The item holds the answer as an object beside its label, and a person corrects it with one."""
    spec = task(labels=None, fields=FIELDS | SURE | WHY)
    stub_llm.labels = {DEFERRED: json.dumps({**BLUE, "why": "who knows", "confidence": 0.4})}
    make_version(spec, named=NAMED)
    async with serving(spec) as (client, runtime):
        answer = (await client.post("/v1/classify", json={"input": [HANDLED, DEFERRED], "top_k": 2})).json()
        handled, deferred = answer["data"]
        assert (handled["decision"], handled["label"]) == ("handled", NAMED[0])
        assert handled["fields"] == {**RED, "confidence": pytest.approx(handled["score"], abs=1e-3)}
        assert [one["label"] for one in handled["top"]] == list(NAMED)
        assert deferred["fields"] == {**BLUE, "why": "who knows", "confidence": 0.4}
        correction = {"id": deferred["trace_id"], "label": {**RED, "colour": "RED"}}
        assert (await client.post("/v1/feedback", json=correction)).json()["label"] == NAMED[0]
        wrong = await client.post("/v1/feedback", json={"id": deferred["trace_id"], "label": {"colour": "red"}})
        assert wrong.status_code == 400
        assert "'tags'" in wrong.json()["error"]["message"]
        row = runtime.store.traces.get(deferred["trace_id"])
        assert row is not None
        assert (row.teacher_label, row.label_source) == (NAMED[0], "human")
