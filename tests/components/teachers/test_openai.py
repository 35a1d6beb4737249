"""What the teacher asks and what it makes of the answer, over real HTTP."""

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.components.teachers.conftest import KEY, KNOWN, LABELS, MakeTeacher
from tests.support.stub_llm import REFUSAL, StubLLM
from tracer_serve.components.factory import make_teacher
from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers._completion import Completion
from tracer_serve.config.load import load_task
from tracer_serve.errors import PluginError, TeacherError

pytestmark = pytest.mark.anyio
PRICE = {"prompt_per_1m": 1.0, "completion_per_1m": 1000.0}


async def test_answers_with_the_models_label(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Label, usage and cost are those of the response, and the request is the one the API documents."""
    async with teacher(price=PRICE) as llm:
        answer = await llm.label("My card was stolen")
        assert answer.label == "lost_card"
        assert answer.usage["completion_tokens"] == 1
        assert answer.cost == pytest.approx((answer.usage["prompt_tokens"] + 1000) / 1e6)
        assert llm.health.cost == answer.cost
    (request,) = stub_llm.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["authorization"] == f"Bearer {KEY}"
    assert set(request["body"]) == {"model", "temperature", "messages"}
    assert request["body"]["messages"][0]["content"].endswith(", ".join(LABELS))


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, {}),
        ([], {}),
        ({"prompt_tokens": None, "completion_tokens": 2}, {"completion_tokens": 2}),
        ({"prompt_tokens": 12.0, "completion_tokens": "2"}, {"prompt_tokens": 12}),
        ({"prompt_tokens": -1, "completion_tokens": 10**400}, {}),
    ],
)
def test_an_answer_stands_whatever_its_counts_look_like(usage: Any, tokens: dict[str, int]) -> None:
    """An answer that was paid for is not asked for again because a server counts tokens in a way of its own."""
    body = {"choices": [{"message": {"content": "lost_card"}}], "usage": usage}
    completion = Completion.read(json.dumps(body), "stub")
    assert (completion.content, completion.tokens) == ("lost_card", tokens)


async def test_structured_output(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """With ``json_schema`` the request carries the label set as enum and the JSON answer is read."""
    async with teacher(response="json_schema", extra={"seed": 7}) as llm:
        assert (await llm.label("Where is my card?")).label == "card_arrival"
    body = stub_llm.requests[0]["body"]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"] == list(LABELS)
    assert body["seed"] == 7


async def test_pairs(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """A pair of texts is asked for as one input."""
    stub_llm.labels = {("A dog runs", "A cat sits"): "neutral"}
    async with teacher(labels=("neutral", "entailment")) as llm:
        assert (await llm.label(("A dog runs", "A cat sits"))).label == "neutral"


async def test_any_text_can_be_asked(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Half a surrogate pair, control characters and a long text reach the endpoint as they are."""
    stub_llm.default = "lost_card"
    texts = ["\ud800 half", "a\x00b\u2028c", "word " * 50_000]
    async with teacher() as llm:
        for text in texts:
            assert (await llm.label(text)).label == "lost_card"
    assert [request["body"]["messages"][-1]["content"] for request in stub_llm.requests] == texts


async def test_open_task(stub_llm: StubLLM, teacher: MakeTeacher) -> None:
    """Without a label set a short answer is a label."""
    stub_llm.default = "Something new."
    async with teacher(labels=()) as llm:
        assert (await llm.label("What now?")).label == "Something new"


@pytest.mark.parametrize(
    ("fault", "reason", "answer"),
    [
        ("nonsense", "unknown_label", "As a large"),
        ("say:card_arrival or lost_card", "unknown_label", "card_arrival or lost_card"),
        ("say: ", "unknown_label", " "),
        ("length", "unknown_label", "car"),
        ("refusal", "rejected", REFUSAL),
    ],
)
async def test_what_is_no_label_is_an_error(
    stub_llm: StubLLM, teacher: MakeTeacher, fault: str, reason: str, answer: str
) -> None:
    """An answer outside the set, a cut one and a refusal are typed errors that carry it; they cost, and asked once."""
    stub_llm.script.append(fault)
    async with teacher(price=PRICE) as llm:
        with pytest.raises(TeacherError) as caught:
            await llm.label("Where is my card?")
        assert llm.health.errors == {reason: 1}
        assert llm.health.cost > 0
    assert caught.value.reason == reason
    assert (caught.value.answer or "").startswith(answer)
    assert stub_llm.count == 1


@pytest.mark.parametrize("fault", ["401", "403", "429", "500", "reset", "cut", f"say:{KEY} is what you sent", "loris"])
async def test_the_key_never_shows(
    stub_llm: StubLLM, teacher: MakeTeacher, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Neither error, traceback, answer, repr nor debug log shows a key, even if the server sends it back."""
    stub_llm.script.append(fault)
    other = "header-secret-42"
    with caplog.at_level(logging.DEBUG):
        async with teacher(retries=0, timeout_s=0.3, headers={"x-api-key": other}) as llm:
            with pytest.raises(TeacherError) as caught:
                await llm.label("Where is my card?")
            shown = "".join(traceback.format_exception(caught.value)) + repr(vars(llm)) + repr(vars(caught.value))
            shown += repr([vars(endpoint.breaker) for endpoint in llm.endpoints]) + caplog.text
    assert stub_llm.requests[0]["headers"]["x-api-key"] == other
    assert KEY not in shown
    assert other not in shown


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"base_url": "api.openai.com/v1"}, "no http"),
        ({"base_url": "https://host:port/v1"}, "base_url"),
        ({"base_url": "https://me:sk-secret-key@host/v1"}, "belong in api_key"),
        ({"base_url": "https://host/v1?key=sk-secret-key"}, "belong in api_key"),
        ({"api_key": "sk-secret-key\n"}, "newline"),
        ({"api_key": "sk-secret-k\u00e9y"}, "cannot send"),
        ({"headers": {"api-key": "sk-secret-key\r\nx: y"}}, "'api-key'"),
        ({"temperature": 3}, "less than or equal to 2"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"price": {"prompt_per_1m": 1}}, "price.completion_per_1m"),
        ({"api_key": ["sk-secret-key"]}, "api_key"),
        ({"prompt": "{label}"}, "nothing fills"),
        ({"modell": "x"}, "Did you mean 'model'"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], problem: str) -> None:
    """Each mistake in the YAML block is refused with what is wrong, and never with the key."""
    with pytest.raises(PluginError, match=problem) as caught:
        teachers.build("openai", {"model": "m", **params})
    assert "sk-secret" not in "".join(traceback.format_exception(caught.value))


async def test_from_a_yaml(stub_llm: StubLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's YAML makes a teacher that knows labels, descriptions, price and key."""
    stub_llm.labels = KNOWN
    monkeypatch.setenv("STUB_KEY", KEY)
    task = tmp_path / "task.yaml"
    task.write_text(f"""
name: cards
labels: {{card_arrival: where is it, lost_card: gone}}
teacher:
  type: openai
  base_url: {stub_llm.url}
  model: stub-1
  api_key: ${{STUB_KEY}}
  price: {{currency: EUR, prompt_per_1m: 0.4, completion_per_1m: 1.6, as_of: 2026-11-01}}
""")
    teacher = make_teacher(load_task(task))
    assert (await teacher.label("Where is my card?")).cost > 0
    await teacher.close()
    body = stub_llm.requests[0]["body"]
    assert "- card_arrival: where is it\n- lost_card: gone" in body["messages"][0]["content"]


def fingerprint(**params: Any) -> str:
    given = {"model": "m", "labels": ("a", "b"), "descriptions": {"a": "first"}, **params}
    return teachers.build("openai", given).fingerprint


@pytest.mark.parametrize(
    "params",
    [
        {"model": "n"},
        {"prompt": "Other: {labels}"},
        {"labels": ("a", "b", "c")},
        {"descriptions": {"a": "other"}},
        {"temperature": 0.5},
        {"temperature": None},
        {"response": "json_schema"},
        {"extra": {"seed": 1}},
        {"fallbacks": [{"base_url": "http://other/v1", "model": "n"}]},
    ],
)
def test_fingerprint_changes_with_what_changes_labels(params: dict[str, Any]) -> None:
    """Model, prompt, labels, descriptions and sampling make another teacher."""
    assert fingerprint(**params) != fingerprint()


@pytest.mark.parametrize(
    "params",
    [
        {"labels": ("b", "a")},
        {"api_key": "another-key"},
        {"base_url": "http://proxy/v1"},
        {"timeout_s": 1, "deadline_s": 2, "retries": 0, "queue": 1, "cache": {"size": 0}},
        {"price": PRICE},
        {"fallbacks": [{"base_url": "http://other/v1"}]},
    ],
)
def test_fingerprint_ignores_the_rest(params: dict[str, Any]) -> None:
    """Keys, hosts, limits, prices and the order of the labels leave it the same teacher."""
    assert fingerprint(**params) == fingerprint()
