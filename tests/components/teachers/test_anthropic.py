"""The teacher ``anthropic``, against a stub that is as strict as the real API."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.stub_llm import StubLLM
from tracer_serve.components.registry import teachers
from tracer_serve.errors import PluginError, TeacherError

from .conftest import KEY, LABELS

pytestmark = pytest.mark.anyio
MakeTeacher = Callable[..., Any]
TEXT = "Where is my card?"
PRICE = {"prompt_per_1m": 1.0, "completion_per_1m": 5.0}


async def test_a_forced_tool_gives_the_label_with_usage_and_cost(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """The system prompt, key and version are where the API wants them, and the tool's only parameter is the label."""
    async with teacher("anthropic", price=PRICE) as llm:
        answer = await llm.label(TEXT)
    assert answer.label == "card_arrival"
    assert answer.cost == pytest.approx((answer.usage["prompt_tokens"] + 5 * answer.usage["completion_tokens"]) / 1e6)
    assert answer.cost > 0
    (seen,) = stub_llm.requests
    assert (seen["path"], seen["headers"]["x-api-key"]) == ("/v1/messages", KEY)
    assert seen["headers"]["anthropic-version"] == "2023-06-01"
    assert "authorization" not in seen["headers"]
    body = seen["body"]
    assert body["messages"] == [{"role": "user", "content": TEXT}]
    assert "card_arrival" in body["system"]
    (tool,) = body["tools"]
    assert tool["input_schema"]["properties"]["label"]["enum"] == list(LABELS)
    assert body["tool_choice"] == {"type": "tool", "name": "label"}


async def test_a_bare_label_and_a_prompt_that_holds_the_text(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Without a tool the text of the answer is the label; a prompt with the text is one user message."""
    async with teacher("anthropic", response="label", prompt="Of {labels}: {text}", temperature=None) as llm:
        assert (await llm.label(TEXT)).label == "card_arrival"
    body = stub_llm.requests[-1]["body"]
    assert set(body) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize("fault", ["429", "500", "529", "reset", "invalid_json", "cut"])
async def test_a_passing_fault_is_survived(stub_llm: StubLLM, teacher: MakeTeacher, fault: str) -> None:
    """The same retries as any other teacher's."""
    stub_llm.script.append(fault)
    async with teacher("anthropic") as llm:
        assert (await llm.label(TEXT)).label == "card_arrival"
    assert stub_llm.count == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("refusal", "rejected"), ("length", "unknown_label"), ("say:no idea", "unknown_label"), ("401", "rejected")],
)
async def test_what_is_no_label_is_an_error(stub_llm: StubLLM, teacher: MakeTeacher, fault: str, reason: str) -> None:
    """A refusal, an answer cut short, another tool's or no label; the key never shows."""
    stub_llm.script.append(fault)
    async with teacher("anthropic", retries=0) as llm:
        with pytest.raises(TeacherError) as error:
            await llm.label(TEXT)
    assert error.value.reason == reason
    assert KEY not in str(error.value)


async def test_a_recorded_call_is_asked_as_it_was(stub_llm: StubLLM, teacher: MakeTeacher, tmp_path: Any) -> None:
    """With `request` the file's own tool and system message are sent, and the label is read out of the tool's input."""
    schema = {"type": "object", "properties": {"mood": {"enum": list(LABELS)}, "why": {"type": "string"}}}
    call = {
        "model": "x",
        "max_tokens": 99,
        "system": "Classify.",
        "messages": [{"role": "user", "content": "Text: {text}"}],
        "tools": [{"name": "say", "input_schema": schema}],
        "tool_choice": {"type": "tool", "name": "say"},
    }
    file = tmp_path / "call.json"
    file.write_text(json.dumps(call), encoding="utf-8")
    async with teacher("anthropic", request=str(file)) as llm:
        assert (await llm.label(TEXT)).label == "card_arrival"
    body = stub_llm.requests[-1]["body"]
    assert (body["system"], body["max_tokens"], body["tools"][0]["name"]) == ("Classify.", 99, "say")
    assert body["messages"] == [{"role": "user", "content": f"Text: {TEXT}"}]


def test_the_fingerprint_is_of_the_question() -> None:
    """Model, prompt and format change it; the host, and that the API is another one's, too, do and do not."""

    def fingerprint(kind: str = "anthropic", **params: Any) -> str:
        built: Any = teachers.build(kind, {"model": "m", "labels": LABELS, **params})
        return str(built.fingerprint)

    assert fingerprint(base_url="http://elsewhere.example/v1") == fingerprint()
    different: list[dict[str, Any]] = [
        {"response": "label"},
        {"model": "n"},
        {"prompt": "{text}?"},
        {"kind": "openai"},
        {"max_tokens": 9},
    ]
    assert len({fingerprint(**params) for params in [{}, *different]}) == len(different) + 1


def test_azures_version_is_refused() -> None:
    """It belongs to another API."""
    with pytest.raises(PluginError, match="api_version"):
        teachers.build("anthropic", {"model": "m", "fallbacks": [{"base_url": "http://a/v1", "api_version": "1"}]})
